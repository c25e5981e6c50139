"""The oldest releases that pyproject.toml allows, as pip's constraints: each `>=` becomes `==`.

usage: python .ci/oldest.py > constraints.txt    (make test-oldest)

Python is one of them: the oldest wheels of most packages are for the oldest Python alone.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def oldest(pyproject: dict) -> list[str]:
    """Every requirement of the build, the library and its extras, at the least it allows."""
    project = pyproject["project"]
    needed = [*pyproject["build-system"]["requires"], *project["dependencies"]]
    needed += sum(project["optional-dependencies"].values(), [])
    return sorted({line.replace(">=", "==") for line in needed})


def main() -> None:
    """Print the constraints, if this Python is the oldest."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    least = pyproject["project"]["requires-python"].split(",")[0].removeprefix(">=")
    if "{}.{}".format(*sys.version_info) != least:
        sys.exit(f"the oldest releases need Python {least}: make PYTHON=python{least} test-oldest")
    print("\n".join(oldest(pyproject)))


if __name__ == "__main__":
    main()
