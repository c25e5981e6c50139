"""No notebook passes vacuously: it was run from the top, and nbval does compare what it stored."""

import ast
import re
import shutil
import subprocess
import symtable
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pyflakes import api, reporter

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HOMEWORK = sorted((ROOT / "notebooks" / "homework").glob("*.ipynb"))
lectures = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
all_notebooks = pytest.mark.parametrize("path", NOTEBOOKS + HOMEWORK, ids=lambda p: p.name)
KNOWN_TAGS = {"solution", "solution-check", "control", "raises-exception", "nbval-ignore-output"}
KNOWN_KEYS = {"tags", "jupyter"}


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def code(nb) -> list:
    return [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]


def not_run(nb) -> list[str]:
    """What shows that the stored outputs are not those of one complete run from the top."""
    found = []
    cells = code(nb)
    if not cells:
        found.append("there is no code")
    if [c.execution_count for c in cells] != list(range(1, len(cells) + 1)):
        found.append("the cells were not run once each, in order")
    for c in cells:
        failed = any(out.output_type == "error" for out in c.outputs)
        if failed != ("raises-exception" in tags(c)):
            found.append(f"an error and its tag go together: {c.source[:60]!r}")
        if "solution-check" in tags(c) and not c.outputs:
            found.append(f"a check says that all is well: {c.source[:60]!r}")
    return found


def not_clean(nb) -> list[str]:
    """What differs between runs or machines, or hides from nbval."""
    found = [f"metadata {k}" for k in nb.metadata if k != "kernelspec"]
    for c in nb.cells:
        found += [f"metadata {k}" for k in c.metadata if k not in KNOWN_KEYS]
        known = {t for t in tags(c) if t in KNOWN_TAGS or re.fullmatch(r"points-\d+", t)}
        found += [f"unknown tag {t}" for t in tags(c) - known]
        if c.cell_type == "code" and c.source.rstrip().endswith(";"):
            found.append(f"nbval ignores a trailing ';': {c.source[-60:]!r}")
        if "nbval" in c.source.partition("\n")[0] and c.cell_type == "code":
            found.append("tags, not comments, speak to nbval")
        for out in c.get("outputs", ()):
            if out.get("name") == "stderr":
                found.append(f"stderr: {out.text[:60]!r}")
            if "application/vnd.jupyter.widget-view+json" in out.get("data", {}):
                found.append(f"a widget no reader sees: {c.source[:60]!r}")
    places = r"(?<![\w.])(?:/(?:home|root|Users|work|tmp|opt|usr)/|[A-Z]:\\\\)\w[^\s\"']*"
    return found + re.findall(places, nbformat.writes(nb))


def plain(cell) -> str:
    """The Python of a cell, without the lines that speak to IPython."""
    return "".join(f"{line}\n" for line in cell.source.splitlines() if line[:1] not in "%!")


def unclear(nb, capsys) -> str:
    """What pyflakes says of the code cells read as one program."""
    sources = "\n".join(map(plain, code(nb)))
    api.check(sources, "notebook", reporter.Reporter(sys.stdout, sys.stdout))
    said = capsys.readouterr().out.splitlines()
    # A stub is defined again by its solution, and a library name by the code written by hand.
    return "\n".join(line for line in said if "redefinition of unused" not in line)


def looked_up(table) -> set[str]:
    """The global names that a function, and those within it, look up when they are called."""
    own = {s.get_name() for s in table.get_symbols() if s.is_global()}
    return own.union(*map(looked_up, table.get_children()))


def functions(table) -> list:
    """The functions written in a cell, those within a comprehension too."""
    found = []
    for child in table.get_children():
        at_once = child.get_name() in {"listcomp", "setcomp", "dictcomp", "genexpr"}
        found += functions(child) if at_once else [child]
    return found


def needs(cell) -> dict[str, set[str]]:
    """What each name of a cell, "" for none, looks up when it is called, if it is a function."""
    found = {}
    for node in ast.parse(plain(cell)).body:
        written = functions(symtable.symtable(ast.unparse(node), "cell", "exec"))
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = {node.name}
        else:
            stored = lambda n: isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            names = {n.id for n in ast.walk(node) if stored(n)}
        if names or written:
            found |= dict.fromkeys(names or {""}, set().union(*map(looked_up, written)))
    return found


def taken_from_the_control(nb) -> set[str]:
    """Names that a later cell binds anew, though the control looks them up when it is moved."""
    cells = code(nb)
    (here,) = [i for i, c in enumerate(cells) if "control" in tags(c)]
    known = {}
    for c in cells[: here + 1]:
        known.pop("", None)
        known |= needs(c)  # what is defined again counts as it was last
    at_once = symtable.symtable(plain(cells[here]), "cell", "exec").get_symbols()
    todo = set().union(*(known.get(s.get_name(), set()) for s in at_once), known.get("", set()))
    seen = set()
    while todo:
        seen.add(name := todo.pop())
        todo |= known.get(name, set()) - seen
    later = set()
    for c in cells[here + 1 :]:
        symbols = symtable.symtable(plain(c), "cell", "exec").get_symbols()
        later |= {s.get_name() for s in symbols if s.is_assigned()}
    return later & seen


@all_notebooks
def test_was_run_from_the_top_and_is_clean(path):
    nb = nbformat.read(path, 4)
    nbformat.validate(nb)
    assert not not_run(nb) + not_clean(nb)


@lectures
def test_is_one_clear_program(path, capsys):
    assert not unclear(nbformat.read(path, 4), capsys)


@lectures
def test_exercises_prove_stub_and_solution(path):
    cells = code(nbformat.read(path, 4))
    refused = [c.source for c in cells if "raises-exception" in tags(c)]
    again = [c.source.replace("_solution", "") for c in cells if "solution-check" in tags(c)]
    assert set(again) <= set(refused)
    for cell, after in zip(cells, [*cells[1:], new_code_cell("")], strict=True):
        if "solution" in tags(cell):
            assert {"solution", "solution-check"} & tags(after)


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if re.match(r"(?!00)\d\d_", p.name)], ids=lambda p: p.name
)
def test_a_lecture_has_a_control_and_exercises(path):
    cells = code(nbformat.read(path, 4))
    (control,) = [c for c in cells if "control" in tags(c)]
    assert "nbval-ignore-output" in tags(control) and control.outputs
    assert sum("solution-check" in tags(c) for c in cells) >= 2
    compared = [c for c in cells if "nbval-ignore-output" not in tags(c)]
    assert len(compared) >= 0.75 * len(cells)  # the rest: widgets, and figures of a short training


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if re.match(r"\d\d_", p.name)], ids=lambda p: p.name
)
def test_a_control_is_the_same_when_all_cells_have_run(path):
    assert not taken_from_the_control(nbformat.read(path, 4))


@pytest.mark.parametrize(
    "later, taken",
    [
        ("k = 2", {"k"}),  # what the control's own function looks up
        ("def scale(x): ...", {"scale"}),  # a function that it calls
        ("unit = 3", {"unit"}),  # what that function looks up
        ("again = lambda k: k", set()),  # another function's argument
        ("wide = 5", set()),  # used before the control, by none that it calls
    ],
)
def test_a_name_taken_from_a_control_is_seen(later, taken):
    setup = "k, unit, wide = 1, 2, 3\nscale = lambda x: unit * x\nother = lambda: wide"
    control = "def show(x):\n    return scale(k * x)\nslider(show, range(wide))"
    nb = new_notebook(cells=[new_code_cell(c) for c in (setup, control, later)])
    nb.cells[1].metadata["tags"] = ["control"]
    assert taken_from_the_control(nb) == taken


def labels(text: str) -> set[str]:
    """The labels of slips that a text names, ranges such as A1–A4 written out."""
    found = set()
    for letter, first, last, single in re.findall(
        r"\b([A-I])(\d+)–[A-I](\d+)|\b([A-I]\d+[a-z]?)\b", text
    ):
        found |= {f"{letter}{k}" for k in range(int(first), int(last) + 1)} if first else {single}
    return found


def test_the_page_of_slips_lists_each_box_and_no_other():
    boxes = set()
    for path in NOTEBOOKS:
        for c in nbformat.read(path, 4).cells:
            assert "If you follow the slides" not in c.source, path.name
            for box in re.findall(r"<summary>A common slip \(([^)]*)\)", c.source):
                boxes |= labels(box)
    page = (ROOT / "notebooks" / "slips.md").read_text("utf-8")
    rows = set.union(*(labels(row) for row in re.findall(r"(?m)^\| ([A-I][^|]*) \|", page)))
    assert boxes == rows
    assert labels("A1–A3, B2 ★") == {"A1", "A2", "A3", "B2"}


@lectures
def test_each_picture_is_there_and_described(path):
    for c in nbformat.read(path, 4).cells:
        for alt, file in re.findall(r"!\[([^\]]*)\]\((figures/[^)]*)\)", c.source):
            assert len(alt) > 40 and (ROOT / "notebooks" / file).is_file(), file


def ran(*outputs: str) -> nbformat.NotebookNode:
    """A notebook as if it had been run, one cell for each stored output of print(i)."""
    nb = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    nb.cells.append(new_markdown_cell("words"))
    for i, text in enumerate(outputs, 1):
        out = new_output("stream", name="stdout", text=text)
        nb.cells.append(new_code_cell(f"print({i})", execution_count=i, outputs=[out]))
    return nb


def test_a_good_notebook_is_accepted(capsys):
    nb = ran("1\n", "2\n")
    assert not not_run(nb) + not_clean(nb) and not unclear(nb, capsys)


def stripped(nb):
    for c in code(nb):
        c.execution_count, c.outputs = None, []


def half_run(nb):
    code(nb)[-1].execution_count = None


def run_twice(nb):
    code(nb)[0].execution_count = 3


def emptied(nb):
    nb.cells = nb.cells[:1]


def failed(nb):
    code(nb)[1].outputs = [new_output("error", ename="E", evalue="no", traceback=[])]


def tag_without_error(nb):
    code(nb)[1].metadata["tags"] = ["raises-exception"]


@pytest.mark.parametrize(
    "spoil", [stripped, half_run, run_twice, emptied, failed, tag_without_error]
)
def test_a_notebook_that_was_not_run_is_refused(spoil):
    nb = ran("1\n", "2\n")
    spoil(nb)
    assert not_run(nb)


def warns(nb):
    code(nb)[0].outputs[0].name = "stderr"


def ends_with_semicolon(nb):
    code(nb)[0].source += ";"


def names_a_machine(nb):
    code(nb)[0].outputs[0].text = "/" + "home/ada/course/x.py\n"


def skips_by_comment(nb):
    code(nb)[0].source = "# NBVAL_SKIP\n".lower() + code(nb)[0].source


def skips_by_tag(nb):
    code(nb)[0].metadata["tags"] = ["nbval-skip"]


def keeps_widgets(nb):
    nb.metadata["widgets"] = {}


SPOILS = [
    warns,
    ends_with_semicolon,
    names_a_machine,
    skips_by_comment,
    skips_by_tag,
    keeps_widgets,
]


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_notebook_that_is_not_clean_is_refused(spoil):
    nb = ran("1\n", "2\n")
    spoil(nb)
    assert not_clean(nb)


def test_an_undefined_name_is_seen_across_cells(capsys):
    nb = ran("1\n", "2\n")
    code(nb)[0].source = "def f():\n    return later\n"
    assert "undefined name 'later'" in unclear(nb, capsys)
    code(nb)[1].source = "later = 1"
    assert not unclear(nb, capsys)


@pytest.mark.parametrize("stored, passes", [("2\n", True), ("3\n", False)])
def test_nbval_compares_with_our_own_options(stored, passes, tmp_path):
    nbformat.write(ran("1\n", stored), tmp_path / "two_cells.ipynb")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "nbval-sanitize.cfg", tmp_path / "tests")
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-n", "0", "two_cells.ipynb"]
    done = subprocess.run(pytest_, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ("2 passed" if passes else "1 failed, 1 passed") in done.stdout, done.stdout
    assert done.returncode == (0 if passes else 1)
