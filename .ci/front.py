"""The front page's table of lectures, from the notebooks' own words, and its picture.

usage: python .ci/front.py             writes the table into README.md
       python .ci/front.py --picture   and notebooks/figures/front.png

A row is the lecture's title, its row of the map in 00_start, and the run time that its first cell
names. A lecture added to the map joins by itself.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
FIRST, LAST = "<!-- lectures: written by .ci/front.py -->\n", "<!-- end of lectures -->\n"
ROW = r"^\| \*\*`(\w+)`\*\* \| (.+?) \| (.+?) \| (.+?) \|$"


def text(name: str) -> str:
    """The markdown of a lecture, cell by cell."""
    nb = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)
    return "\n\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


def row(name: str, line: str, needs: str, hours: str) -> str:
    """One line of the table: number, title with its link, what is derived, needs, hours, run."""
    words = text(name)
    number, title = re.match(r"# (\d+) · (.+)", words).groups()
    (run,) = re.findall(r"\*Time:\*[^*]+?[,;] ([a-z ]+?) (?:to run|for the computer)\.", words)
    link = f"[{title.partition(':')[0]}](notebooks/{name}.ipynb)"
    return f"| {number} | {link} | {line} | {needs} | {hours} | {run} |\n"


def table() -> str:
    """All lectures, in the order of the map."""
    start = ("00_start", "the map, the notation, the data, a first sample", "—", "1–2")
    head = "| | lecture | what it derives | needs | hours | runs in |\n|---|---|---|---|---|---|\n"
    found = re.findall(ROW, text("00_start"), re.M)
    return head + "".join(row(*cells) for cells in [start, *found])


def renewed(readme: str) -> str:
    """The README with its table as the notebooks have it now."""
    before, rest = readme.split(FIRST)
    return before + FIRST + "\n" + table() + "\n" + LAST + rest.split(LAST)[1]


def picture(path: Path) -> None:
    """One walk from noise to data twice: exact, on a known density, and by a bundled network."""
    import torch

    from minigen import data, flow, nets, oracle, paths, plot, targets, train

    g = torch.Generator().manual_seed(1)
    ring = oracle.GaussianMixture.ring(8, radius=1.5, std=0.12)
    linear, moments = paths.Linear(), (1.0, 0.7, 0.4, 0.2, 0.0)
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_flow"), net)
    digits = paths.denoiser(net, linear, targets.velocity, torch.arange(9) + 1)

    def states(denoise, start):
        walk = [start, *flow.heun(denoise, linear, start, torch.linspace(1, 0, 51))]
        return {t: walk[round(50 * (1 - t))] for t in moments}

    with torch.no_grad():
        points = states(ring.denoiser(linear), torch.randn(1500, 2, generator=g))
        images = states(digits, torch.randn(9, 1, 8, 8, generator=g))
    fig, axes = plot.plt.subplots(2, 5, figsize=(10, 4.2), gridspec_kw={"height_ratios": (1.1, 1)})
    for t, (above, below) in zip(moments, axes.T, strict=True):
        plot.density(ring.at(linear, torch.tensor(t)).log_prob, above, span=2.6)
        plot.points(points[t], above, colour=plot.MODEL, size=2)
        ends = {"xlim": (-2.6, 2.6), "ylim": (-2.6, 2.6), "adjustable": "box"}
        above.set(**ends, xticks=(), yticks=(), xlabel="", ylabel="")
        above.set_title({1.0: "t = 1: noise", 0.0: "t = 0: data"}.get(t, f"t = {t:g}"))
        plot.images(images[t], below, columns=3)
    fig.savefig(path, dpi=90)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(renewed(page.read_text("utf-8")), "utf-8")
    if "--picture" in sys.argv:
        picture(ROOT / "notebooks" / "figures" / "front.png")
