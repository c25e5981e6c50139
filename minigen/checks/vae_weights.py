"""The check of lecture 2's second program, the bound of many weights."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask

S, B = 4, 5  # draws, samples
draws = partial(checks.draws, seed=2)


def _iwae(w: Tensor, *, count: Callable = len, dim: int = 0) -> Tensor:
    return w.logsumexp(dim) - math.log(count(w))


def _shifted(w: Tensor, top: Tensor) -> Tensor:
    """log mean exp of what is left of the weights when `top` is taken out."""
    return (w - top).exp().mean(0).log()


IWAE_SLIPS = {
    "that is the mean of the logs, the ELBO: the mean belongs inside the log": lambda w: w.mean(0),
    "− log S is missing: a mean over S weights, not their sum": partial(_iwae, count=lambda w: 1),
    "you added log S: a mean divides by S, so log S is subtracted": partial(
        _iwae, count=lambda w: 1 / len(w)
    ),
    "you divided the log by S: dividing the sum by S takes log S from its log": (
        lambda w: w.logsumexp(0) / len(w)
    ),
    "you subtracted the log of the batch's size: the mean is over the S draws": partial(
        _iwae, count=lambda w: w.shape[1]
    ),
    "exp leaves the floats, e^−900 = 0 and e^800 = ∞: take out each sample's largest log weight "
    "first, or use logsumexp": lambda w: w.exp().mean(0).log(),
    "you took out the largest of the whole batch, and exp is 0 again elsewhere: take each "
    "sample's own": lambda w: w.max() + _shifted(w, w.max()),
    "the largest log weight was taken out and not put back": lambda w: _shifted(w, w.amax(0)),
    "that is the largest log weight alone: the others count too": lambda w: w.amax(0),
    "that is the place of the largest log weight: w.max(0) gives .values and .indices": (
        lambda w: w.max(0).indices + _shifted(w, w.amax(0))
    ),
    "right while the log weights of a sample lie close; where one stands 710 above what you took "
    "out, such as their mean, exp of the difference is ∞: take out each sample's largest": (
        lambda w: w.mean(0) + _shifted(w, w.mean(0))
    ),
    "the mean log weight was taken out and not put back": lambda w: _shifted(w, w.mean(0)),
    "you subtracted S; a mean divides the weights by S, so subtract log S": (
        lambda w: w.logsumexp(0) - len(w)
    ),
    "that is the mean of the log weights, each with its own weight; the mean is of the weights": (
        lambda w: (w.softmax(0) * w).sum(0)
    ),
    "the logarithm of a logarithm: the weights are exp(log_weights)": lambda w: w.mean(0).log(),
    "you reduced over the batch: the draws are the first axis, (S, B)": partial(
        _iwae, dim=1, count=lambda w: w.shape[1]
    ),
    "you reduced over the batch, and log S is of the other axis": partial(_iwae, dim=1),
    "the batch is averaged: keep its axis, (B,), and leave that to the caller": (
        lambda w: _iwae(w).mean()
    ),
    "that is a loss: the bound itself is asked for, without the minus": lambda w: -_iwae(w),
}


def iwae(function: Callable) -> None:
    """Checks iwae(log_weights) -> (B,), log (1/S) Σ_s exp(log_weights[s]) for log_weights (S, B).

    Some are near −900 or 800, where exp has no digits; at last some are far apart. Raises NotYet,
    or Wrong with a diagnosis.
    """
    centres = torch.tensor([-900.0, -3.0, 800.0, -870.0, 5.0], dtype=torch.float64)
    apart = torch.tensor([[-2900.0], [0.0], [-3000.0], [-2800.0]], dtype=torch.float64)
    close = centres + 2 * draws(S, B)
    try:
        ask("the bound", function, _iwae, IWAE_SLIPS, close)
        ask("the bound of weights far apart", function, _iwae, IWAE_SLIPS, close + apart)
    except Wrong as wrong:
        if "holds NaN" not in str(wrong):
            raise
        raise Wrong(
            f"{wrong}: log weights are near 800 or −900 here, e^800 = ∞ and e^−900 = 0"
        ) from None
    print("right: log mean exp of four weights for each of five samples, down to e^−900")
