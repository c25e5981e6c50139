"""The student's notebooks: no solutions, no outputs, each check once.

usage: python .ci/student.py            from notebooks/ to build/student/  (make student)
       python .ci/student.py FROM TO    from one folder to another

Left out: cells tagged `solution`, and the cell tagged `solution-check` after them, which repeats
the check that stands below the stub. A check that has to fail in the lecture, tagged
`raises-exception`, is an ordinary cell for the student.
"""

import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
LEFT_OUT = {"solution", "solution-check"}
KEPT = {"control"}  # the other tags speak to the tests of the lecture


def student(nb) -> nbformat.NotebookNode:
    """The notebook as the student gets it; `nb` stays as it is."""
    nb = nbformat.from_dict(nb)
    nb.cells = [c for c in nb.cells if not LEFT_OUT & set(c.metadata.get("tags", ()))]
    for cell in nb.cells:
        kept = [t for t in cell.metadata.get("tags", ()) if t in KEPT]
        cell.metadata = nbformat.from_dict({"tags": kept} if kept else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def main(source: Path = ROOT / "notebooks", target: Path = ROOT / "build" / "student") -> None:
    """Write the student's version of every notebook of a folder into another, pictures too."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        nb = student(nbformat.read(path, 4))
        nbformat.validate(nb)
        nbformat.write(nb, target / path.name)
        print(target / path.name)
    for page in source.glob("*.md"):  # what the lectures show and point to
        shutil.copy(page, target)
    if (source / "figures").is_dir():
        shutil.copytree(source / "figures", target / "figures", dirs_exist_ok=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
