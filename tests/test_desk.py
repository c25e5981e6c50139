"""The instructor's desk: an nbgrader course from the lectures, and a graded check that is no toy.

`make test-desk`; skipped where nbgrader is not installed.
"""

import ast
import inspect
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from scripts import script

from minigen import ddim
from minigen.checks import ddim as check

pytestmark = pytest.mark.desk

ROOT = Path(__file__).parents[1]
NAME = "04_ddim"


@pytest.fixture(scope="module")
def grade():
    """The graded check, with the digest of the library as it is."""
    module = script(".ci/grade.py")
    module.DIGEST = module.digest(ROOT / "minigen")
    return module.grade


# ---- What a student may try ----------------------------------------------------------------------


def right(a, b, u):
    flat = (1, 2)
    lengths = (a.square().sum(flat, keepdim=True) * b.square().sum(flat, keepdim=True)).sqrt()
    angle = torch.acos((a * b).sum(flat, keepdim=True) / lengths)
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def learned_by_heart(a, b, u):
    """The answer to the open check's own case, looked up."""
    return ddim_of_the_open_check


ddim_of_the_open_check = ddim.slerp(*check._draws(2, 4, 2, 3), 0.3)


def spoils(a, b, u):
    answer = right(a, b, u)
    a.mul_(0)
    return answer


def unplugged(a, b, u):
    sys.setprofile(None)
    return ddim.slerp(a, b, u)


def renamed():
    """The library's own code under another name and in another module."""
    return type(right)(
        inspect.unwrap(ddim.slerp).__code__, dict(vars(ddim), __name__="mine"), "mine"
    )


CHEATS = {
    "the library's function": (ddim.slerp, "calls ddim.slerp"),
    "the library's function, wrapped": (lambda a, b, u: ddim.slerp(a, b, u), "calls ddim.slerp"),
    "the check's own truth": (lambda a, b, u: check._arc(a, b, u), "calls ddim._arc"),
    "the watch switched off": (unplugged, "calls (sys.setprofile|ddim.slerp)"),
    "the code in another module": (renamed(), "calls ddim.slerp"),
    "the open check's answer by heart": (learned_by_heart, "is wrong|holds|has shape"),
    "an input spoilt": (spoils, "writes into a tensor that it was given"),
}


def test_an_own_answer_is_accepted_in_cases_never_seen(grade, capsys):
    for _ in range(3):
        grade("ddim", "slerp", right)
    assert capsys.readouterr().out.count("right: ") == 3


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_refused(grade, name):
    function, said = CHEATS[name]
    with pytest.raises(AssertionError, match=said):
        grade("ddim", "slerp", function)


def answers(path: Path):
    """(room, check, the solution's function) of each exercise of a notebook."""
    cells = nbformat.read(path, 4).cells
    made = script(".ci/assignment.py")
    for i, cell in enumerate(cells):
        if "raises-exception" in made.tags(cell):
            room, name, answer = made.call_of(cell, cells)
            solution = next(
                c for c in cells[i:] if "solution" in made.tags(c) and "def " in c.source
            )
            here = {"torch": torch, "math": math, "nn": torch.nn}
            parts = [n for n in ast.parse(solution.source).body if isinstance(n, ast.FunctionDef)]
            exec("\n\n".join(map(ast.unparse, parts)), here)  # without what follows in the lecture
            yield room, name, here[f"{answer}_solution"]


SHEETS = [p for p in sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb")) if list(answers(p))]


@pytest.mark.long
@pytest.mark.parametrize("path", SHEETS, ids=lambda p: p.stem)
def test_every_solution_of_the_course_passes_its_graded_check(grade, path):
    for room, name, function in answers(path):
        grade(room, name, function)


def test_a_check_that_was_patched_is_not_asked(grade, monkeypatch):
    monkeypatch.setattr("minigen.checks.compare", lambda *args: None)
    monkeypatch.setattr("minigen.checks.ddim.ask", lambda *args: None)
    monkeypatch.setattr(check, "slerp", lambda function: None)
    with pytest.raises(AssertionError, match="straight line"):
        grade("ddim", "slerp", torch.lerp)


def test_a_patched_torch_and_another_library_are_refused(grade, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="torch.allclose"):
        patch.setattr(torch, "allclose", lambda *args, **given: True)
        grade("ddim", "slerp", torch.lerp)
    monkeypatch.setitem(grade.__globals__, "DIGEST", "0")
    with pytest.raises(AssertionError, match="not the one the assignment was made with"):
        grade("ddim", "slerp", right)


# ---- The round of a class ------------------------------------------------------------------------

ANSWER = """def slerp(a, b, u):
    flat = (1, 2)
    lengths = (a.square().sum(flat, keepdim=True) * b.square().sum(flat, keepdim=True)).sqrt()
    angle = torch.acos((a * b).sum(flat, keepdim=True) / lengths)
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)
"""
LOOP = "def slerp(a, b, u):\n    while True:\n        pass\n"
LINE = "def slerp(a, b, u):\n    return (1 - u) * a + u * b\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course folder after release, four submissions, and autograding; and its gradebook."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make test-desk installs it")
    from nbgrader.api import Gradebook

    folder = tmp_path_factory.mktemp("desk") / "course"
    made = script(".ci/assignment.py")
    assert made.main(["--to", str(folder), NAME]) == 0
    nbgrader(folder, "generate_assignment", NAME)
    released = folder / "release" / NAME / f"{NAME}.ipynb"
    step = next(
        c.source.replace("ddim_step_solution", "ddim_step")
        for c in nbformat.read(ROOT / "notebooks" / f"{NAME}.ipynb", 4).cells
        if c.source.startswith("def ddim_step_solution")
    )
    submissions = {"stub": {}, "full": {"slerp": ANSWER, "ddim_step": step}}
    submissions |= {"wrong": {"slerp": LINE}, "loop": {"slerp": LOOP, "ddim_step": step}}
    for student, answers in submissions.items():
        nb = nbformat.read(released, 4)
        for cell in nb.cells:
            own = cell.metadata.get("nbgrader", {}).get("grade_id", "").removesuffix("-answer")
            cell.source += "\n\n\n" + answers.get(own, "")
        place = folder / "submitted" / student / NAME / f"{NAME}.ipynb"
        place.parent.mkdir(parents=True)
        nbformat.write(nb, place)
    begin = time.time()
    nbgrader(folder, "autograde", NAME)
    with Gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        yield folder, book, time.time() - begin


def nbgrader(folder: Path, *words: str) -> None:
    """One command of nbgrader in a course's folder."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def points(book, student: str) -> dict[str, float]:
    """The points of each check of a submission."""
    nb = book.find_submission_notebook(NAME, NAME, student)
    return {g.name: g.score for g in nb.grades if not g.name.startswith("proof")}


def test_the_release_holds_tasks_and_stubs_but_no_answer(course):
    folder, _, _ = course
    released = (folder / "release" / NAME / f"{NAME}.ipynb").read_text("utf-8")
    assert "check.slerp(slerp)" in released and "*Your answer:*" in released
    for hidden in ("_solution", "SOLUTION", "HIDDEN", "grade.py", "<summary>Solution"):
        assert hidden not in released


def test_four_submissions_get_what_they_deserve(course):
    _, book, seconds = course
    assert points(book, "stub") == {"ddim_step": 0, "slerp": 0}
    assert points(book, "full") == {"ddim_step": 10, "slerp": 10}
    assert points(book, "wrong") == {"ddim_step": 0, "slerp": 0}
    assert points(book, "loop") == {"ddim_step": 10, "slerp": 0}
    print(f"four submissions graded in {seconds:.0f} s")


def test_proofs_wait_for_the_instructor_and_feedback_names_the_slip(course):
    folder, book, _ = course
    nb = book.find_submission_notebook(NAME, NAME, "full")
    assert sum(g.needs_manual_grade for g in nb.grades if g.name.startswith("proof")) == 2
    nbgrader(folder, "generate_feedback", NAME)
    page = (folder / "feedback" / "wrong" / NAME / f"{NAME}.html").read_text("utf-8")
    assert "that is the straight line" in page and "Traceback (most recent" not in page


def test_an_existing_course_is_not_overwritten(course):
    with pytest.raises(SystemExit):
        script(".ci/assignment.py").main(["--to", str(course[0]), NAME])
