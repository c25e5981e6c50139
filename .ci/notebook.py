"""From a lecture's source to the executed notebook that is committed.

usage: python .ci/notebook.py build/src/03_ddpm.py ...           writes notebooks/03_ddpm.ipynb
       python .ci/notebook.py --run notebooks/03_ddpm.ipynb ...  runs it again in place

The source is jupytext's percent format (`# %% [markdown]`, `# %% tags=["solution"]`); only the
notebook is committed. It is formatted by ruff, run from the top in a fresh kernel (one thread, in
notebooks/), cleaned of what differs from run to run, and written. Nothing is written when a cell
fails or prints to stderr.

Tags: raises-exception     the cell must fail: the check of a stub
      solution             left out of the student's notebook; code is collapsed. It names its
                           function NAME_solution, so that nobody's own is overwritten; the code
                           cell after it repeats the check of that, and is tagged solution-check
      control              the cell with the slider; what is stored in place of the widget are the
                           figures it showed, for readers without a kernel, and all its frames
      nbval-ignore-output  the output is not compared (needed with control); a cell after it prints
                           the function at a few fixed values
"""

import argparse
import hashlib
import html
import json
import os
import re
import resource
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbclient.output_widget import OutputWidget

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
# nbclient would send a widget's outputs back to the kernel while it waits for a reply on the same
# socket, and now and then miss that reply until the time-out. Nothing here needs them there.
OutputWidget.sync_state = lambda self: None
VIEW = "application/vnd.jupyter.widget-view+json"
FRAMES = "application/vnd.minigen.frames+json"  # of .ci/pictures.py, which the kernel loads


def tags(cell) -> list[str]:
    """The tags of a cell, [] where it has none."""
    return cell.metadata.get("tags", [])


def code(nb) -> list:
    """The code cells that are not empty."""
    return [c for c in nb.cells if c.cell_type == "code" and c.source.strip()]


def start(cell) -> str:
    """The first line of a cell, to name it by."""
    return cell.source.splitlines()[0]


def prepare(nb) -> nbformat.NotebookNode:
    """The notebook before its run: formatted, without outputs, tagged, ids made of the text."""
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    nb.nbformat, nb.nbformat_minor = 4, 5
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"tags": tags(cell)} if tags(cell) else {})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "solution" in tags(cell):
                cell.metadata["jupyter"] = {"source_hidden": True}
    name_cells(nb)  # ruff refuses a notebook without ids
    nb = formatted(nb)
    mark_second_checks(nb)
    return name_cells(nb)


def formatted(nb) -> nbformat.NotebookNode:
    """The notebook as `ruff format` wants it, with the settings of this project."""
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename"]
    done = subprocess.run(
        [*ruff, str(NOTEBOOKS / "lecture.ipynb"), "-"],
        input=nbformat.writes(nb),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"ruff cannot format it: {done.stderr}")
    return nbformat.reads(done.stdout, 4)


def mark_second_checks(nb) -> None:
    """Tag the check after each solution, which the student's notebook holds once only."""
    checks = [c.source for c in code(nb) if "raises-exception" in tags(c)]
    for cell, after in pairwise([*code(nb), nbformat.v4.new_code_cell()]):
        if "solution" in tags(cell) and "solution" not in tags(after):
            if after.source.replace("_solution", "") not in checks:
                raise ValueError(f"after this solution its check must come again: {start(cell)}")
            after.metadata["tags"] = sorted({*tags(after), "solution-check"})


def name_cells(nb) -> nbformat.NotebookNode:
    """Give each cell an id made of its text, so that an edit changes one id only."""
    seen = set()
    for cell in nb.cells:
        n = 0
        while n == 0 or cell.id in seen:
            cell.id = hashlib.sha256(f"{cell.cell_type} {n} {cell.source}".encode()).hexdigest()[:8]
            n += 1
        seen.add(cell.id)
    return nb


def execute(nb, cwd: Path = NOTEBOOKS, timeout: int = 600):
    """The notebook run from the top in a fresh one-thread kernel; only tagged cells may fail."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CI": "true"}  # a pin that has moved fails
    where = {"metadata": {"path": str(cwd)}}
    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name="python3",
        resources=where,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.extra_extensions=pictures"],
    )
    folders = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    client.execute(env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))})
    for cell in code(nb):
        tidy(cell, client.widget_state)
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL})
    return nb


def tidy(cell, state: dict) -> None:
    """Leave in the outputs what the next run gives again, and refuse what no reader should see."""
    cell.metadata.pop("execution", None)
    cell.outputs = with_frames([new for old in cell.outputs for new in static(old, state, cell)])
    for out in cell.outputs:
        if out.get("name") == "stderr":
            raise ValueError(f"a cell prints to stderr: {start(cell)}\n{out.text[:400]}")
        if out.output_type == "error":  # nbval compares name and value; frames hold paths
            out.traceback = [f"{out.ename}: {out.evalue}"]
        if "text" in out:
            out.text = without_addresses(out.text)
        for kind, value in out.get("data", {}).items():
            if kind.startswith("text/"):
                out.data[kind] = without_addresses(value)
    errors = [out.evalue for out in cell.outputs if out.output_type == "error"]
    if bool(errors) != ("raises-exception" in tags(cell)):
        why = errors[0] if errors else "tagged raises-exception, but nothing was raised"
        raise ValueError(f"{why}: {start(cell)}")


def without_addresses(text: str) -> str:
    """The text with every memory address written 0x000000, which nbval reads as any address."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x000000", text)


def static(out, state: dict, cell) -> list:
    """What a reader without a kernel sees in place of a widget: figures, or the finished bar."""
    if VIEW not in out.get("data", {}):
        return [out]
    family = [state[m] for m in descendants(out.data[VIEW]["model_id"], state)]
    inner = [o for m in family for o in m.get("outputs", ())]
    if inner:
        if "nbval-ignore-output" not in tags(cell):
            raise ValueError(f"tag this cell nbval-ignore-output: {start(cell)}")
        return [nbformat.from_dict(o) for o in inner]
    labels = [html.unescape(m["value"]) for m in family if m["_model_name"] == "HTMLModel"]
    if len(labels) == 2:  # tqdm: "fit: 100%", the bar, "300/300 [00:01<00:00, 290it/s]"
        bar = f"{labels[0]}|{'█' * 10}|{labels[1].partition('[')[0]}"
        out.data["text/plain"] = " ".join(bar.split())  # tqdm pads with spaces of other widths
    del out.data[VIEW]
    return [out]


def with_frames(outputs: list) -> list:
    """The outputs, the frames of a control joined with the figure that it shows at its start."""
    frames = [o for o in outputs if FRAMES in o.get("data", {})]
    for figure in (o for o in outputs if frames and "image/png" in o.get("data", {})):
        figure.data |= frames[0].data
    return [o for o in outputs if o not in frames]


def descendants(model: str, state: dict):
    """The id of a widget and of all that it contains, in order."""
    yield model
    for child in state[model].get("children", ()):
        yield from descendants(child.removeprefix("IPY_MODEL_"), state)


def write(nb, path: Path) -> None:
    """Write the notebook as Jupyter does, in one piece or not at all."""
    nbformat.validate(nb)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(nb, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")
    part.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("files", nargs="+", type=Path)
    args = parser.parse_args()
    for path in args.files:
        begin, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            nb = nbformat.read(path, 4) if args.run else jupytext.read(path, fmt="py:percent")
            nb = execute(prepare(nb))
        except (CellExecutionError, ValueError) as error:
            print(f"{path}: not written\n{error}", file=sys.stderr)
            return 1
        folder = NOTEBOOKS / "homework" if path.parent.name == "homework" else NOTEBOOKS
        target = path if args.run else folder / f"{path.stem}.ipynb"
        write(nb, target)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
        print(f"{target}: {len(code(nb))} cells, {time.time() - begin:.0f} s, CPU {cpu:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
