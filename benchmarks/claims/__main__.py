"""The slow controls of the lectures' claims, one script each: `make claims` runs them all.

usage: python -m benchmarks.claims [NAME ...]     runs these (all, unless named) on one thread

Each script prints one table. It is kept beside the script, NAME.txt, and the lecture quotes it.
"""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent


def run(name: str) -> None:
    """Run one script and keep its table; a script that fails leaves the old one."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.claims.{name}"],
        cwd=HERE.parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    head = f"python -m benchmarks.claims {name}"
    where = f"torch {torch.__version__}, {platform.machine()}, {spent:.0f} s of one core"
    (HERE / f"{name}.txt").write_text(f"{head}\n{where}\n\n{done.stdout}", "utf-8")
    print(f"{head}: {spent:.0f} s", flush=True)


if __name__ == "__main__":
    found = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    if unknown := sorted({*sys.argv[1:]} - {*found}):
        sys.exit(f"there is no claim named {', '.join(unknown)}; there are {', '.join(found)}")
    for name in sys.argv[1:] or found:
        run(name)
