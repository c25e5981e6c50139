"""The mean velocity on a way, learned from its slope along the trajectory."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.nets import ResMLP
from minigen.paths import Linear
from minigen.shapes import (
    Label,
    Time,
    X,
    check_answer,
    check_batch,
    check_grid,
    check_pair,
    clock,
    forward_mode,
    like,
)

from .progressive import check_order

Velocity = Callable[[X, Time, Time], X]  # u(x, t, s): the mean velocity on the way from t to s


class TwoTimes(ResMLP):
    """A residual MLP that is told the length of its way, too: u(xt, t, s, label).

    The embedding of t − s adds a linear layer's row to those of t and the label. It is zero at
    birth: until then u is the net without it, and may start from a trained velocity's weights.
    Raises ValueError for s > t.
    """

    def __init__(self, shape, hidden: int = 256, depth: int = 4, classes=None, *, embedding=None):
        super().__init__(shape, hidden, depth, classes, embedding=embedding)
        self.way = nn.Linear(self.time.in_features, self.time.out_features, bias=False)
        nn.init.zeros_(self.way.weight)

    def forward(self, xt: X, t: Time, s: Time, label: Label | int | None = None) -> X:
        """The mean velocity from t to s, times () or (B,) each."""
        rows = self.time_rows(xt, t)
        check_order(t, s, xt, still=True)
        rows = rows + self.way(self.embedding((t - s).reshape(-1)).to(self.way.weight.dtype))
        if self.label is not None:
            rows = rows + self._embed_label(label, len(xt))
        elif label is not None:
            raise ValueError("this net was made without classes and takes no label: classes=K")
        return self.body(xt, rows)


def mean_flow_loss(u: Velocity, x0: X, eps: X, t: Time, s: Time) -> Float[Tensor, " B"]:
    """‖u(xt, t, s) − sg(v − (t − s) du/dt)‖²/D for each sample, v = eps − x0, on the linear path.

    du/dt is the derivative along (v, 1, 0) in (x, t, s), by the one jvp that gives u too. At s = t
    it is `flow.loss`; a usual batch has some of these. At the exact u it is not 0, for v varies
    where its mean does not. Raises ValueError for s > t. [Geng et al. 2025, eq. 6 and 9]
    """
    check_pair(x0, eps, t)
    check_order(t, s, x0, still=True)
    xt, v = Linear().mix(x0, eps, t), eps - x0
    t = t.contiguous()  # jvp takes no tensor whose numbers share memory, such as t.expand(B)
    forward_mode()
    answer, slope = torch.func.jvp(
        lambda x, t: check_answer(u(x, t, s), x0), (xt, t), (v, torch.ones_like(t))
    )
    goal = (v - like(t - s, x0) * slope).detach()
    return (answer - goal).square().reshape(len(x0), -1).mean(1)


def jump(u: Velocity, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """x ← x − (t − s) u(x, t, s) along a falling grid; yields each state. Two times are one step.

    [Geng et al. 2025, eq. 12]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    times, steps = clock(ts, xT), ts.diff().tolist()

    def states() -> Iterator[X]:
        x = xT
        for i, h in enumerate(steps):
            with torch.no_grad():
                x = torch.add(x, check_answer(u(x, times[i], times[i + 1]), x), alpha=h)
            yield x

    return states()
