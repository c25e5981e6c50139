"""The checks of the first homework's numbers: an order, and an estimate with its error."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws

S, N = 4, 6
_draws = partial(draws, std=1.3)


def _order(n, errors, *, log=torch.log, sign=-1.0, swapped=False) -> Tensor:
    x, y = (errors, n) if swapped else (n, errors)
    x, y = log(x), log(y)
    return sign * ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()


def _ends(n, errors) -> Tensor:
    return -torch.log(errors[-1] / errors[0]) / torch.log(n[-1] / n[0])


ORDER_SLIPS = {
    "an order is positive: the error falls like n^(−order)": partial(_order, sign=1.0),
    "take logarithms of both: error = c n^(−order) is a line in log n and log error": partial(
        _order, log=lambda x: x
    ),
    "you fitted log n to log error; the error is the one that scatters": partial(
        _order, swapped=True
    ),
    "you used the ends only, or averaged the slopes of neighbours, which is the same here: fit a "
    "line to all points": _ends,
    "that is how often the error halves a step, not a slope in log n": lambda n, errors: (
        errors[:-1] / errors[1:]
    ).mean(),
}


def order(function: Callable) -> None:
    """Checks order(n, errors) -> (), the slope of least squares of −log error against log n.

    n, errors (N,). Raises NotYet, or Wrong with a diagnosis.
    """
    n = 2.0 ** torch.arange(3, 3 + N, dtype=torch.float64)
    errors = 3 * n**-1.1 * torch.exp(0.2 * _draws(N, seed=24))
    ask("the order", function, _order, ORDER_SLIPS, n, errors)
    print("right: the slope through all six points")


def _estimate(runs, *, over=1, correction=1, root=True, n=None, scale=True) -> Tensor:
    means = runs.mean(over)
    var = means.var(correction=correction) / ((n or len(means)) if scale else 1)
    return torch.stack([runs.mean(), var.sqrt() if root else var])


ESTIMATE_SLIPS = {
    "that is the spread of the trainings: the error of their mean is smaller by √S": partial(
        _estimate, scale=False
    ),
    "that is its square, a variance": partial(_estimate, root=False),
    "you divided by S: a variance estimated with its own mean has S − 1": partial(
        _estimate, correction=0
    ),
    "all S·N numbers are not independent: the N draws of one training share its luck": lambda r: (
        torch.stack([r.mean(), (r.var() / r.numel()).sqrt()])
    ),
    "you averaged over the trainings, not over the draws of each": partial(_estimate, over=0),
}


def estimate(function: Callable) -> None:
    """Checks estimate(runs) -> (2,): the mean, and its standard error from S trainings.

    runs (S, N): S trainings, N draws of each. Raises NotYet, or Wrong with a diagnosis.
    """
    runs = _draws(S, 1, seed=25) + 0.3 * _draws(S, N, seed=26)
    ask("(mean, error)", function, _estimate, ESTIMATE_SLIPS, runs)
    print("right: the mean of four trainings, with their error")
