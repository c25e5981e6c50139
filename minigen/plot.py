"""The figures of the course in one style: every function draws on `ax` (or a new one), returns it.

Importing this module sets matplotlib's defaults. The same thing has the same colour everywhere:
DATA, MODEL, EXACT and NOISE, from the palette of Okabe & Ito, told apart by lightness alone in
greyscale; what is exact is also dashed.
"""

from collections.abc import Callable, Iterable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

DATA, MODEL, EXACT, NOISE = "#56B4E9", "#D55E00", "#000000", "#999999"
OTHERS = ("#009E73", "#CC79A7", "#0072B2", "#E69F00")  # for further families side by side

STYLE = {
    "figure.figsize": (6, 4),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": plt.cycler(color=[MODEL, *OTHERS, EXACT]),
    "legend.frameon": False,
    "image.cmap": "gray",
}
plt.rcParams.update(STYLE)


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _array(x):
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def panels(n: int, *, size: float = 3.0) -> np.ndarray:
    """n square axes in a row: size × size inches each, in a new figure."""
    return plt.subplots(1, n, figsize=(n * size, size), squeeze=False)[1][0]


def points(
    x: Float[Tensor, "B 2"], ax: Axes | None = None, *, colour=DATA, label=None, size: float = 3
) -> Axes:
    """A scatter of points in the plane, both axes on one scale."""
    ax = _axes(ax)
    ax.plot(*_array(x).T, ".", color=colour, markersize=size, alpha=0.6, mew=0)
    if label is not None:
        ax.plot([], [], ".", color=colour, markersize=9, label=label)  # to be seen in a legend
    return _plane(ax)


def _plane(ax: Axes) -> Axes:
    shared = len(ax.get_shared_x_axes().get_siblings(ax)) > 1  # such axes can't be widened alone
    ax.set_aspect("equal", adjustable="box" if shared else "datalim")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def _grid(span: float, n: int) -> Float[Tensor, "N 2"]:
    side = torch.linspace(-span, span, n)
    return torch.cartesian_prod(side, side)


def density(log_prob: Callable, ax: Axes | None = None, *, span=3.0, n: int = 200) -> Axes:
    """The density exp(log_prob(x)) over the square [-span, span]², darker where it is higher."""
    ax = _axes(ax)
    p = log_prob(_grid(span, n)).exp().reshape(n, n).T
    ends = (-span, span, -span, span)
    ax.imshow(_array(p), origin="lower", extent=ends, cmap="Greys", interpolation="bilinear")
    return _plane(ax)


def field(f: Callable, ax: Axes | None = None, *, span=3.0, n: int = 17, colour=EXACT) -> Axes:
    """Arrows f(x), a score or a velocity (B, 2) -> (B, 2), on an n × n grid over [-span, span]²."""
    ax, x = _axes(ax), _grid(span, n)
    ax.quiver(*_array(x).T, *_array(f(x)).T, color=colour, angles="xy", width=0.004)
    return _plane(ax)


def trajectories(
    states: Float[Tensor, "S B 2"], ax: Axes | None = None, *, colour=MODEL, start=NOISE
) -> Axes:
    """The way of each sample: a line from its start (grey dot) to its end (coloured dot)."""
    ax, x = _axes(ax), _array(states)
    ax.plot(x[..., 0], x[..., 1], color=colour, lw=0.7, alpha=0.5)
    ax.plot(*x[0].T, ".", color=start, markersize=5)
    ax.plot(*x[-1].T, ".", color=colour, markersize=5)
    return _plane(ax)


def images(
    x: Float[Tensor, "B C H W"], ax: Axes | None = None, *, columns: int = 10, labels=None
) -> Axes:
    """A sheet of images in [-1, 1], row by row; `labels`, one for each, stand above them."""
    ax = _axes(ax)
    n, channels, height, width = x.shape
    rows, top = -(-n // columns), 0 if labels is None else max(3, height // 3)
    sheet = torch.ones(channels, rows * (height + top + 1), columns * (width + 1))
    for k, image in enumerate(x.detach().cpu().clamp(-1, 1)):
        i, j = k // columns * (height + top + 1) + top, k % columns * (width + 1)
        sheet[:, i : i + height, j : j + width] = (image + 1) / 2
        if labels is not None:
            name = labels[k].item() if isinstance(labels[k], Tensor) else labels[k]
            ax.text(j + width / 2 - 0.5, i - 0.8, name, ha="center", va="bottom", fontsize=9)
    sheet = sheet.movedim(0, -1).squeeze(-1).numpy()
    ax.imshow(sheet, vmin=0, vmax=1, interpolation="nearest")
    ax.axis("off")
    return ax


def losses(
    values: Iterable, ax: Axes | None = None, *, floor=None, smooth: int = 50, colour=MODEL
) -> Axes:
    """A loss curve: each step pale, the mean of `smooth` around it strong, the floor dashed."""
    ax = _axes(ax)
    y = torch.stack([torch.as_tensor(v, dtype=torch.float64).detach().cpu() for v in values])
    ax.plot(_array(y), color=colour, lw=0.5, alpha=0.3, label="each step")
    if len(y) >= smooth:
        mean = y.unfold(0, smooth, 1).mean(dim=1)
        middle = torch.arange(len(mean)) + (smooth - 1) / 2
        ax.plot(_array(middle), _array(mean), color=colour, label=f"mean of {smooth}")
    if floor is not None:
        level(floor, ax, label="exact floor")
    ax.set(xlabel="step", ylabel="loss")
    ax.legend()
    return ax


def curve(
    x, y, ax: Axes | None = None, *, stderr=None, label=None, colour=MODEL, style: str = "o-"
) -> Axes:
    """y against x, with bars of ± one standard error where they are given."""
    ax = _axes(ax)
    x, y, stderr = _array(x), _array(y), _array(stderr)
    ax.errorbar(x, y, stderr, fmt=style, color=colour, label=label, ms=4, capsize=3)
    return ax


def level(value, ax: Axes | None = None, *, stderr=None, label=None, colour=EXACT) -> Axes:
    """A dashed line at a known value (an exact answer, a floor), in a band of ± one error."""
    ax, value = _axes(ax), float(value)
    ax.axhline(value, color=colour, ls="--", lw=1.3, label=label)
    if stderr is not None:
        ax.axhspan(value - float(stderr), value + float(stderr), color=colour, alpha=0.15, lw=0)
    return ax


def histogram(
    x: Float[Tensor, "B"], ax: Axes | None = None, *, density=None, bins=60, colour=DATA, label=None
) -> Axes:
    """A histogram of area 1; `density`, a function of x, is the exact answer over it, dashed."""
    ax = _axes(ax)
    ax.hist(_array(x), bins=bins, density=True, color=colour, alpha=0.7, label=label)
    if density is not None:
        at = torch.linspace(float(x.min()), float(x.max()), 400)
        ax.plot(_array(at), _array(density(at)), "--", color=EXACT, label="exact")
    ax.set(ylabel="density")
    return ax


def strip(draw: Callable, values: Sequence | Tensor, *, size: float = 3.0) -> np.ndarray:
    """What a slider would show, as still pictures in a row: draw(value, ax) for each value."""
    row = panels(len(values), size=size)
    for value, ax in zip(values, row, strict=True):
        draw(value, ax)
    return row
