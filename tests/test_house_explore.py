"""A learner changes a number and runs on: the lecture reaches its end, and says what has moved."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CHANGED = {  # a lecture: what stands there, what the learner writes instead
    "01_markov": ("beta = 0.02", "beta = 0.005"),
    "02_vae": ("sigma = 0.2\n", "sigma = 0.4\n"),
    "06_guidance": ("ASKED = 1", "ASKED = 0"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_number_does_not_stop_the_lecture(name, monkeypatch):
    for variable in {"CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST"} & {*os.environ}:
        monkeypatch.delenv(variable)  # the kernel of a learner has none of them
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # as in .ci/notebook.py: nbclient's answer to a widget now and then meets its own wait for one
    monkeypatch.setattr("nbclient.output_widget.OutputWidget.sync_state", lambda self: None)
    nb = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    old, new = CHANGED[name]
    (cell,) = [c for c in nb.cells if c.cell_type == "code" and old in c.source]
    cell.source = cell.source.replace(old, new)
    NotebookClient(
        nb, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    ).execute()  # stops at an error, but for the stubs, which are tagged
    said = [o.text for c in nb.cells for o in c.get("outputs", ()) if o.get("name") == "stdout"]
    assert any("Your run differs from the one printed here: " in text for text in said)
