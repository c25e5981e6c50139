"""An nbgrader course made of the lectures: exercises with points, graded by checks of its own.

usage: python .ci/assignment.py                        all lectures' exercises to build/course/
       python .ci/assignment.py --lecture 04_ddim      the whole lecture, not its exercises alone
       python .ci/assignment.py --to FOLDER NAME ...   some notebooks, elsewhere

FOLDER then holds nbgrader_config.py, source/NAME/NAME.ipynb and grade.py. A check is worth 10
points, a proof, which is graded by hand, 10 as well; a tag `points-15` on the check's cell or the
proof's solution says otherwise. Nothing that exists is overwritten: make a new folder.
"""

import argparse
import copy
import re
import runpy
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
POINTS = 10
CONFIG = '''"""nbgrader, told how minigen's assignments look. Made by `make assignment`."""

import os
import sys

c = get_config()  # noqa: F821
# nbgrader starts `alembic` when it makes its database: it must be found, activated or not
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
c.CourseDirectory.course_id = "minigen"
c.ClearSolutions.code_stub = {"python": "# your answer goes in place of the dots above"}
c.ClearSolutions.text_stub = "*Your answer:*"
c.ExecutePreprocessor.timeout = TIMEOUT  # seconds a cell may take; an endless loop costs so many
'''


def tags(cell) -> list[str]:
    """The tags of a cell, [] where it has none."""
    return cell.metadata.get("tags", [])


def marked(cell, name: str, *, points: int | None = None, solution: bool = False):
    """The cell as nbgrader reads it: locked, unless it is an answer; graded, if it has points."""
    cell = nbformat.from_dict(copy.deepcopy(cell))
    cell.metadata = nbformat.from_dict({"nbgrader": {
        "schema_version": 3, "grade_id": name, "grade": points is not None, "solution": solution,
        "locked": not solution, "task": False, "cell_type": cell.cell_type,
    }})  # fmt: skip
    if points is not None:
        cell.metadata.nbgrader.points = points
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    return cell


def worth(cell) -> int:
    """The points of a check or a proof."""
    said = [int(t.removeprefix("points-")) for t in tags(cell) if t.startswith("points-")]
    return said[0] if said else POINTS


def exercises(cells: list) -> list:
    """The title, the set-up, and what stands under the heading Exercises, without loose code."""
    setup = next(c for c in cells if c.cell_type == "code")
    first = next(i for i, c in enumerate(cells) if c.source.startswith("## Exercises"))
    kept = []
    for i, cell in enumerate(cells[first:], first):
        before, next_head, _ = cell.source.partition("\n## ")
        after = cells[i + 1] if i + 1 < len(cells) else cell
        if cell.cell_type != "code" or "raises-exception" in [*tags(cell), *tags(after)]:
            kept.append(nbformat.from_dict({**cell, "source": before}))
        elif "solution" in tags(cell):
            kept.append(cell)
        if cell.cell_type == "markdown" and next_head:
            break
    return [cells[0], setup, *kept]


def converted(cells: list, grading: Path) -> list:
    """The cells of an assignment's source, in which nbgrader's own marks hide the answers."""
    new, proofs = [], 0
    for i, cell in enumerate(cells):
        if "solution-check" in tags(cell) or (
            "solution" in tags(cell) and cell.cell_type == "code"
        ):
            continue
        if "solution" in tags(cell):
            proofs += 1
            new.append(marked(cell, f"proof-{proofs}", points=worth(cell), solution=True))
        elif "raises-exception" in tags(cell):
            room, name, answer = call_of(cell, cells)
            stub = new.pop()
            solution = next(c for c in cells[i:] if "solution" in tags(c) and c.cell_type == "code")
            own = solution.source.replace(f"{answer}_solution", answer)
            stub.source += f"\n\n\n### BEGIN SOLUTION\n{own}\n### END SOLUTION"
            new.append(marked(stub, f"{name}-answer", solution=True))
            cell = copy.deepcopy(cell)
            cell.source += (
                f"\n### BEGIN HIDDEN TESTS\nimport runpy\n\n"
                f"graded = runpy.run_path({str(grading)!r})\n"
                f"graded['grade']({room!r}, {name!r}, {answer})\n### END HIDDEN TESTS"
            )
            new.append(marked(cell, name, points=worth(cell)))
        else:
            new.append(marked(cell, f"given-{i}"))
    return new


def call_of(cell, cells: list) -> tuple[str, str, str]:
    """(room, check, answer) of a cell `check.name(answer)`: the room is imported as `check`."""
    name, answer = re.fullmatch(r"check\.(\w+)\((\w+)\)", cell.source.strip()).groups()
    (room,) = {
        m for c in cells for m in re.findall(r"minigen\.checks import (\w+) as check", c.source)
    }
    return room, name, answer


def grading_code() -> str:
    """.ci/grade.py with the digest of the library as it is now."""
    path = ROOT / ".ci" / "grade.py"
    found = runpy.run_path(str(path))["digest"](ROOT / "minigen")
    return path.read_text("utf-8").replace('DIGEST = ""', f'DIGEST = "{found}"')


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "course")
    parser.add_argument("--lecture", action="store_true")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args(words)
    sources = [p for p in sorted(NOTEBOOKS.rglob("*.ipynb")) if p.stem in args.names]
    if not args.names:
        has = lambda p: any("raises-exception" in tags(c) for c in nbformat.read(p, 4).cells)
        sources = [p for p in sorted(NOTEBOOKS.rglob("*.ipynb")) if has(p)]
    if unknown := set(args.names) - {p.stem for p in sources}:
        parser.error(f"there is no lecture {', '.join(sorted(unknown))}")
    if args.to.exists():
        parser.error(f"{args.to} exists: what was graded there is not overwritten; use --to")
    grading = args.to.resolve() / "grade.py"
    args.to.mkdir(parents=True)
    grading.write_text(grading_code(), "utf-8")
    timeout = "300" if args.lecture else "15"
    (args.to / "nbgrader_config.py").write_text(CONFIG.replace("TIMEOUT", timeout), "utf-8")
    for path in sources:
        nb = nbformat.read(path, 4)
        whole = args.lecture or path.parent != NOTEBOOKS
        nb.cells = converted(nb.cells if whole else exercises(nb.cells), grading)
        nbformat.validate(nb)
        target = args.to / "source" / path.stem / path.name
        target.parent.mkdir(parents=True)
        nbformat.write(nb, target)
        print(target)
    print(f"now, in {args.to}:  nbgrader generate_assignment NAME")
    return 0


if __name__ == "__main__":
    sys.exit(main())
