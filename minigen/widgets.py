"""The one interactive control of the lectures: a slider that redraws a figure."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
from torch import Tensor

try:
    import ipywidgets
    from IPython.display import display
except ImportError as error:
    raise ImportError(
        f"the lectures need {error.name}, which the library alone does not bring: in your clone of "
        f"minigen, run  python -m pip install -c constraints.txt -e '.[lab,test]'  and start anew"
    ) from None


def slider(
    draw: Callable,
    values: Sequence | Tensor,
    *,
    name: str = "t",
    start: int = 0,
    size: tuple[float, float] = (5, 4),
    live: bool = True,
) -> ipywidgets.interactive:
    """A slider over `values`, moved by mouse or arrow keys: draw(value, ax) on a fresh figure.

    End the cell with it. `start` is the position it begins at. live = False redraws only when the
    slider is let go: for a draw that takes longer than 0.1 s. On a page without a kernel it can't
    move, so set `plot.strip(draw, [...])` of the same draw beside it.
    Raises ValueError for no values, or a start beyond them.
    """
    if not 0 <= start < len(values):
        raise ValueError(f"start must be a position among {len(values)} values, got {start}")

    def show(i: int) -> None:
        fig, ax = plt.subplots(figsize=size)
        try:
            draw(values[i], ax)
            display(fig)
        finally:
            plt.close(fig)  # also when draw fails: else it would appear below the cell

    control = ipywidgets.SelectionSlider(
        options=[(_name(value), i) for i, value in enumerate(values)],
        index=start,
        description=name,
        continuous_update=live,
        layout=ipywidgets.Layout(width="90%"),
    )
    return ipywidgets.interactive(show, i=control)


def _name(value) -> str:
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.3g}" if isinstance(number, float) else str(number)
