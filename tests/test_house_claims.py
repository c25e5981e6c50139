"""The slow controls: each has its table, and a lecture that quotes it; each quoted one exists."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
CLAIMS = ROOT / "benchmarks" / "claims"
NAMES = {p.stem for p in CLAIMS.glob("[!_]*.py")}


def quoted() -> set[str]:
    """The names after `benchmarks.claims` in lectures and in the page about the data."""
    texts = [(ROOT / "data" / "README.md").read_text("utf-8")]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        texts += [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"]
    return {name for t in texts for name in re.findall(r"-m benchmarks\.claims ([a-z]\w*)", t)}


def test_each_control_is_quoted_and_each_quoted_one_exists():
    assert quoted() == NAMES


def test_each_control_has_its_table_and_says_its_lecture():
    for name in NAMES:
        assert re.match(r'"""Lecture \d', (CLAIMS / f"{name}.py").read_text("utf-8")), name
        head, _, table = (CLAIMS / f"{name}.txt").read_text("utf-8").partition("\n\n")
        assert head.startswith(f"python -m benchmarks.claims {name}\n") and table.strip(), name
