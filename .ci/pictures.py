"""Runs in the kernel that makes a lecture: what its figures say, and the frames of its control.

An extension of IPython, loaded by `.ci/notebook.py`. The picture of a figure gets an `alt` text in
its metadata, made of the figure's own titles, labels and legends. A cell that ends with a slider of
`minigen.widgets` gets one more output: its figure at each position, as small WebP pictures, which
the site moves without a kernel.
"""

import base64
import io
import re
import unicodedata

import matplotlib_inline.backend_inline  # noqa: F401 (draws figures as PNG, before the hook below)
from IPython.display import display
from IPython.utils.capture import capture_output
from ipywidgets import SelectionSlider, interactive
from matplotlib.figure import Figure
from PIL import Image

FRAMES = "application/vnd.minigen.frames+json"
MOST = 300_000  # bytes of one control's frames in the notebook


def read_aloud(text: str) -> str:
    """A label without TeX: \\gamma is γ, other commands and braces go."""

    def letter(command) -> str:
        try:
            name = command[1].replace("lambda", "lamda")  # as Unicode spells it
            return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
        except KeyError:
            return ""

    return " ".join(re.sub(r"[\\${}]", "", re.sub(r"\\([a-zA-Z]+)", letter, text)).split())


def says(fig: Figure) -> str:
    """What a figure says of itself: its titles, labels and legends, each panel's after the other's.

    Empty where it says nothing.
    """
    parts = [fig.get_suptitle()]
    for ax in fig.axes:
        labels = [label for label in (ax.get_ylabel(), ax.get_xlabel()) if label]
        legend = ax.get_legend_handles_labels()[1] if ax.get_legend() else []
        panel = [ax.get_title(), " against ".join(labels), ", ".join(legend)]
        parts.append(": ".join(filter(None, panel)))
    return "; ".join(dict.fromkeys(filter(None, map(read_aloud, parts))))


def small(png: str) -> str:
    """A picture as WebP in 32 colours, half the size of its lossy form; both in base64."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    few = picture.quantize(32, dither=Image.Dither.NONE).convert("RGB")
    few.save(file, "WEBP", lossless=True)
    return base64.b64encode(file.getvalue()).decode()


def frames(control: interactive) -> dict:
    """The slider's name, where it starts, and for each position its label, picture and alt text."""
    slider, found = control.children[0], []
    for label, position in slider.options:
        with capture_output() as seen:
            control.f(position)
        (shown,) = [o for o in seen.outputs if "image/png" in o.data]
        alt = shown.metadata.get("image/png", {}).get("alt", "")
        found.append({"label": label, "webp": small(shown.data["image/png"]), "alt": alt})
    if (size := sum(len(f["webp"]) for f in found)) > MOST:
        raise ValueError(f"the frames of a control take {size} bytes: fewer positions, or smaller")
    return {"name": slider.description, "start": slider.index, "frames": found}


def load_ipython_extension(shell) -> None:
    """Called by IPython as the kernel starts."""
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.lookup_by_type(Figure)

    def described(fig: Figure):
        png, alt = draw(fig), says(fig)
        return (png, {"alt": alt}) if alt else png

    def keep_frames(result) -> None:
        control = result.result
        if isinstance(control, interactive) and isinstance(control.children[0], SelectionSlider):
            display({FRAMES: frames(control)}, raw=True)

    formatter.for_type(Figure, described)
    shell.events.register("post_run_cell", keep_frames)
