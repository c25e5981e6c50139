"""The exact probability flow of a mixture on the line, through its distribution functions."""

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.paths import GaussianPath
from minigen.shapes import Time, X, check_finite, check_time, wide

from .mixture import GaussianMixture


def _log_tails(mixture: GaussianMixture, x: Float[Tensor, "B"]) -> tuple[Tensor, Tensor]:
    """log P(X ≤ x) and log P(X > x) of a 1-D mixture, each precise in its own tail."""
    z = (x[:, None] - mixture.means[:, 0]) / mixture.stds[:, 0]
    w = mixture.weights.log()
    below = torch.logsumexp(w + torch.special.log_ndtr(z), 1)
    return below, torch.logsumexp(w + torch.special.log_ndtr(-z), 1)


def flow_map_1d(mixture: GaussianMixture, path: GaussianPath, x: X, t: Time, s: Time) -> X:
    """The probability-flow ODE from x at time t to time s, exactly: x_s = F_s⁻¹(F_t(x)).

    In one dimension the flow keeps the order of points, hence the CDF. F_s is inverted by bisection
    on the log of the smaller tail, to the last bits of float64. x is (B,) or (B, 1).
    """
    if mixture.means.shape[1] != 1 or x.numel() != len(x):
        shape, d = tuple(x.shape), mixture.means.shape[1]
        raise ValueError(f"flow_map_1d needs points and a mixture on the line, got {shape}, {d}-D")
    exact, t, s = mixture.to(wide(mixture.means).dtype), wide(check_time(t)), wide(check_time(s))
    source, goal, y = exact.at(path, t), exact.at(path, s), wide(check_finite(x)).flatten()
    below, above = _log_tails(source, y)
    left = below < above
    # no point ends more of the widest stds from a mean than it began from one
    z = ((y[:, None] - source.means[:, 0]) / source.stds[:, 0]).abs().max()
    reach = (z + 2) * goal.stds.max()
    lo, hi = (goal.means.min() - reach).expand_as(y), (goal.means.max() + reach).expand_as(y)
    for _ in range(100):  # halves a width of 10⁸ until float64 has no digit left
        mid = 0.5 * (lo + hi)
        low, high = _log_tails(goal, mid)
        short = torch.where(left, low < below, high > above)  # mid lies left of the answer
        lo, hi = torch.where(short, mid, lo), torch.where(short, hi, mid)
    return (0.5 * (lo + hi)).reshape(x.shape).to(x.dtype)
