"""The student's notebooks: no solutions, no outputs, each check once, a place for each proof.

usage: python .ci/student.py            from notebooks/ to build/student/  (make student)
       python .ci/student.py FROM TO    from one folder to another

Left out: cells tagged `solution`, and the cell tagged `solution-check` after them, which repeats
the check that stands below the stub. The solution of a proof gives way to an empty cell to write
in. A check that has to fail in the lecture, tagged `raises-exception`, is an ordinary cell for the
student. A notebook that someone has worked in is never overwritten.
"""

import hashlib
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
LEFT_OUT = {"solution", "solution-check"}
KEPT = {"control"}  # the other tags speak to the tests of the lecture
PLACE = "*Your answer:*"


def student(nb) -> nbformat.NotebookNode:
    """The notebook as the student gets it; `nb` stays as it is."""
    nb = nbformat.from_dict(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown" and "solution" in cell.metadata.get("tags", ()):
            cell.source, cell.metadata = PLACE, nbformat.from_dict({})
    nb.cells = [c for c in nb.cells if not LEFT_OUT & set(c.metadata.get("tags", ()))]
    for cell in nb.cells:
        kept = [t for t in cell.metadata.get("tags", ()) if t in KEPT]
        cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.metadata["minigen"] = {"handed_out": content(nb)}
    return nb


def content(nb) -> str:
    """A digest of what a student can edit: the text of the cells, not what a run adds."""
    text = "\0".join(cell.source for cell in nb.cells)
    return hashlib.sha256(text.encode()).hexdigest()


def edited(path: Path) -> bool:
    """Whether someone has worked in the notebook since it was handed out."""
    nb = nbformat.read(path, 4)
    return nb.metadata.get("minigen", {}).get("handed_out") != content(nb)


def main(source: Path = ROOT / "notebooks", target: Path = ROOT / "build" / "student") -> None:
    """Write the student's version of every notebook of a folder into another, pictures too.

    Raises SystemExit, with nothing written, where one of them has been worked in.
    """
    files = {p: target / p.relative_to(source) for p in sorted(source.rglob("*.ipynb"))}
    files = {p: to for p, to in files.items() if ".ipynb_checkpoints" not in p.parts}
    if kept := [str(to) for to in files.values() if to.exists() and edited(to)]:
        sys.exit(f"not overwritten, for someone has worked in it: {', '.join(kept)}; move it first")
    target.mkdir(parents=True, exist_ok=True)
    for path, to in files.items():
        to.parent.mkdir(parents=True, exist_ok=True)
        nb = student(nbformat.read(path, 4))
        nbformat.validate(nb)
        nbformat.write(nb, to)
        print(to)
    for page in source.glob("*.md"):  # what the lectures show and point to
        shutil.copy(page, target)
    if (source / "figures").is_dir():
        shutil.copytree(source / "figures", target / "figures", dirs_exist_ok=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
