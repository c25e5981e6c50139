"""The exact probability flow of a mixture on the line, through its distribution functions."""

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.paths import GaussianPath
from minigen.shapes import Time, wide

from .mixture import GaussianMixture


def _log_tails(mixture: GaussianMixture, x: Float[Tensor, "B"]) -> tuple[Tensor, Tensor]:
    """log P(X ≤ x) and log P(X > x) of a 1-D mixture, each precise in its own tail."""
    z = (x[:, None] - mixture.means[:, 0]) / mixture.stds[:, 0]
    w = mixture.weights.log()
    below = torch.logsumexp(w + torch.special.log_ndtr(z), 1)
    return below, torch.logsumexp(w + torch.special.log_ndtr(-z), 1)


def flow_map_1d(
    mixture: GaussianMixture, path: GaussianPath, x: Float[Tensor, "B"], t: Time, s: Time
) -> Float[Tensor, "B"]:
    """The probability-flow ODE from x at time t to time s, exactly: x_s = F_s⁻¹(F_t(x)).

    In one dimension the flow keeps the order of points, hence the CDF. F_s is inverted by bisection
    on the log of the smaller tail, to the last bits of float64.
    """
    if mixture.means.shape[1] != 1:
        raise ValueError(f"flow_map_1d needs 1-D data, this mixture has {mixture.means.shape[1]}-D")
    exact = mixture.to(wide(mixture.means).dtype)
    source, goal = exact.at(path, wide(t)), exact.at(path, wide(s))
    below, above = _log_tails(source, wide(x))
    left = below < above
    reach = 40 * goal.stds.max() + 1
    lo = (goal.means.min() - reach).expand(x.shape)
    hi = (goal.means.max() + reach).expand(x.shape)
    for _ in range(80):  # halves a width of 10² until float64 has no digit left
        mid = 0.5 * (lo + hi)
        low, high = _log_tails(goal, mid)
        short = torch.where(left, low < below, high > above)  # mid lies left of the answer
        lo, hi = torch.where(short, mid, lo), torch.where(short, hi, mid)
    return (0.5 * (lo + hi)).to(x.dtype)
