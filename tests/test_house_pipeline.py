"""How notebooks are made: what the pipeline keeps and refuses, and what the student gets."""

import base64
import io
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image
from scripts import script

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


notebook, student = script(".ci/notebook.py"), script(".ci/student.py")

LECTURE = '''
# %% [markdown]
# # A lecture

# %%
from ipywidgets import interact
from tqdm.auto import tqdm

for _ in tqdm(range(3), desc="fit"):
    pass

# %%
print('quoted') ; object()

# %% tags=["control", "nbval-ignore-output"]
@interact(k=(1, 10))
def show(k=3):
    print("k is", k)

# %%
def double(x):
    """Twice x."""
    raise NotImplementedError("write double first")

# %% tags=["raises-exception"]
assert double(2) == 4
print("right")

# %% [markdown] tags=["solution"]
# A proof: x + x = 2 x.

# %% tags=["solution"]
def double_solution(x):
    """Twice x."""
    return x + x

# %%
assert double_solution(2) == 4
print("right")
'''


def built(source: str, folder: Path) -> nbformat.NotebookNode:
    """The notebook that the pipeline makes of a source."""
    nb = notebook.prepare(jupytext.reads(source, fmt="py:percent"))
    return notebook.execute(nb, folder, timeout=120)


@pytest.fixture(scope="module")
def lecture(tmp_path_factory):
    return built(LECTURE, tmp_path_factory.mktemp("lecture"))


def texts(nb) -> list:
    return [c.get("outputs") for c in notebook.code(nb)]


def test_the_outputs_are_those_a_reader_can_see(lecture):
    progress, plain, control, stub, refused, solution, again = texts(lecture)
    assert progress[0].data == {"text/plain": "fit: 100%|██████████| 3/3"}
    assert plain[0].text == "quoted\n" and plain[1].data["text/plain"] == "<object at 0x000000>"
    assert control[0].text == "k is 3\n" and stub == solution == []
    assert refused[0].traceback == ["NotImplementedError: write double first"]
    assert again[0].text == "right\n"


def test_the_cells_are_formatted_counted_and_tagged(lecture):
    cells = notebook.code(lecture)
    assert [c.execution_count for c in cells] == [*range(1, 8)]
    assert cells[1].source == 'print("quoted")\nobject()'
    assert cells[5].metadata == {"tags": ["solution"], "jupyter": {"source_hidden": True}}
    assert cells[6].metadata == {"tags": ["solution-check"]}
    assert lecture.metadata == {"kernelspec": notebook.KERNEL}


FIGURES = """
# %%
import matplotlib.pyplot as plt
import torch
from minigen import widgets

fig, axes = plt.subplots(1, 2)
axes[0].plot([1, 2], label="a")
axes[0].plot([2, 1], label="b")
axes[0].legend()
axes[0].set(title=r"$\\lambda_1$ of $\\hat x$", xlabel="steps", ylabel="error")
axes[1].set(title="right")
plt.show()

# %% tags=["control", "nbval-ignore-output"]
draw = lambda v, ax: (ax.imshow(torch.rand(PIXELS, PIXELS)), ax.set(title=f"v = {v}"))
widgets.slider(draw, [0.5, 1.0, 2.0], name="v", start=1, size=(8, 8))
"""


def test_figures_say_what_they_show_and_a_control_keeps_its_frames(tmp_path):
    figure, control = texts(built(FIGURES.replace("PIXELS", "9"), tmp_path))
    assert figure[0].metadata["image/png"]["alt"] == "λ_1 of x: error against steps: a, b; right"
    assert [o.output_type for o in control] == ["display_data"]  # frames and figure are one output
    frames, png = (control[0].data[kind] for kind in (notebook.FRAMES, "image/png"))
    assert (frames["name"], frames["start"]) == ("v", 1)
    said = [(f["label"], f["alt"]) for f in frames["frames"]]
    assert said == [("0.5", "v = 0.5"), ("1", "v = 1.0"), ("2", "v = 2.0")]
    pictures = [picture(f["webp"]) for f in frames["frames"]]
    assert [p.size for p in pictures] == [picture(png).size] * 3
    assert pictures[0].tobytes() != pictures[1].tobytes()


def picture(code: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_frames_that_would_swell_a_notebook_are_refused(tmp_path):
    with pytest.raises(ValueError, match="frames of a control take [0-9]{6,} bytes"):
        built(FIGURES.replace("PIXELS", "600"), tmp_path)


def test_a_second_run_changes_nothing(lecture, tmp_path):
    notebook.write(lecture, tmp_path / "first.ipynb")
    again = nbformat.read(tmp_path / "first.ipynb", 4)
    notebook.write(notebook.execute(notebook.prepare(again), tmp_path), tmp_path / "second.ipynb")
    first, second = ((tmp_path / f"{n}.ipynb").read_text() for n in ("first", "second"))
    assert first == second


def test_an_edit_changes_one_id():
    one, other = (
        notebook.prepare(jupytext.reads(s, fmt="py:percent"))
        for s in (LECTURE, LECTURE.replace("x + x =", "x + 1x ="))
    )
    changed = [a.id != b.id for a, b in zip(one.cells, other.cells, strict=True)]
    assert sum(changed) == 1 and len({c.id for c in one.cells}) == len(one.cells)


@pytest.mark.parametrize(
    "source, error, said",
    [
        ("# %%\n1 / 0\n", CellExecutionError, "ZeroDivisionError"),
        ('# %% tags=["raises-exception"]\nprint(1)\n', ValueError, "nothing was raised"),
        ("# %%\nimport sys\nprint(1, file=sys.stderr)\n", ValueError, "stderr"),
        ('# %% tags=["solution"]\nx = 1\n\n# %%\nprint(x)\n', ValueError, "must come again"),
        ('# %% tags=["solution"]\nx = 1\n', ValueError, "must come again"),
        ("# %%\nprint(1\n", ValueError, "ruff cannot format"),
        (LECTURE.replace(', "nbval-ignore-output"', ""), ValueError, "tag this cell nbval-ignore"),
    ],
)
def test_what_must_not_be_committed_is_refused(source, error, said, tmp_path):
    with pytest.raises(error, match=said):
        built(source, tmp_path)


def lines(cells) -> set[str]:
    return {line.strip() for c in cells for line in c.source.splitlines() if line.strip()}


def is_solution(cell) -> bool:
    return "solution" in cell.metadata.get("tags", ())


def reveals(nb, given) -> set[str]:
    """The lines of solutions, found nowhere else in the lecture, that the student can read."""
    hidden = lines(c for c in nb.cells if is_solution(c))
    shown = lines(c for c in nb.cells if not is_solution(c))
    text = nbformat.writes(given)
    return {line for line in hidden - shown if line in text or line in lines(given.cells)}


def test_a_solution_left_in_would_be_seen(lecture):
    said = {"def double_solution(x):", "return x + x", "A proof: x + x = 2 x."}
    assert reveals(lecture, lecture) == said


@pytest.mark.parametrize("path", [None, *NOTEBOOKS], ids=lambda p: p.name if p else "synthetic")
def test_the_student_gets_stubs_and_checks_and_no_solution(path, lecture):
    nb = lecture if path is None else nbformat.read(path, 4)
    given = student.student(nb)
    nbformat.validate(given)
    assert not reveals(nb, given)
    assert not any(c.outputs or c.execution_count for c in notebook.code(given))
    sources = [c.source for c in notebook.code(given)]
    for c in notebook.code(nb):
        if "raises-exception" in notebook.tags(c):
            assert sources.count(c.source) == 1
    kept = {t for c in given.cells for t in notebook.tags(c)}
    assert kept <= {"control"}


def test_the_student_runs_up_to_the_first_stub(lecture, tmp_path):
    source, target = tmp_path / "lectures", tmp_path / "student"
    source.mkdir()
    notebook.write(lecture, source / "99_lecture.ipynb")
    student.main(source, target)
    given = nbformat.read(target / "99_lecture.ipynb", 4)
    with pytest.raises(CellExecutionError, match="write double first"):
        NotebookClient(given, timeout=120, kernel_name="python3").execute()
    check = next(c for c in given.cells if "assert double" in c.source)
    assert check.execution_count == 5


def test_the_student_gets_the_pictures_and_pages_too(tmp_path):
    source, target = tmp_path / "lectures", tmp_path / "student"
    (source / "figures").mkdir(parents=True)
    (source / "figures" / "one.svg").write_text("<svg/>")
    (source / "glossary.md").write_text("words")
    student.main(source, target)
    student.main(source, target)  # again, over the old ones
    assert (target / "figures" / "one.svg").is_file() and (target / "glossary.md").is_file()


def test_the_student_finds_a_place_for_each_proof_and_subfolders(lecture, tmp_path):
    source, target = tmp_path / "lectures", tmp_path / "student"
    (source / "homework").mkdir(parents=True)
    notebook.write(lecture, source / "homework" / "1_sheet.ipynb")
    student.main(source, target)
    given = nbformat.read(target / "homework" / "1_sheet.ipynb", 4)
    proofs = [c for c in lecture.cells if is_solution(c) and c.cell_type == "markdown"]
    assert sum(c.source == student.PLACE for c in given.cells) == len(proofs) == 1


def test_a_notebook_that_was_worked_in_is_never_overwritten(lecture, tmp_path):
    source, target = tmp_path / "lectures", tmp_path / "student"
    source.mkdir()
    notebook.write(lecture, source / "99_lecture.ipynb")
    student.main(source, target)
    given = nbformat.read(target / "99_lecture.ipynb", 4)
    given.cells[-1].outputs = [nbformat.v4.new_output("stream", text="run, not edited")]
    nbformat.write(given, target / "99_lecture.ipynb")
    student.main(source, target)  # a new edition reaches whoever has only run it
    given.cells[0].source += " my note"
    nbformat.write(given, target / "99_lecture.ipynb")
    with pytest.raises(SystemExit, match="someone has worked in it: .*99_lecture"):
        student.main(source, target)
    assert "my note" in (target / "99_lecture.ipynb").read_text("utf-8")
