"""Checks of the exercises of lecture 1, Markov chains."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minigen.checks import Wrong, call, compare


def _draws(n: int, seed: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=torch.float64)


def _gamma(x: Tensor) -> Tensor:
    """log Gamma(3, rate 2), without its constant; −inf where x ≤ 0."""
    return torch.where(x > 0, 2 * x.clamp(min=1e-300).log() - 2 * x, -math.inf)


def _step(
    x, s, z, u, *, ratio=1.0, plain=False, add=False, log_u=True, flip=False, always=False
) -> Tensor:
    """The right step, or one with the slip named."""
    y = x + s * z if add else x * torch.exp(s * z)
    log_alpha = _gamma(y) - _gamma(x) + (0.0 if add else y / x if plain else ratio * s * z)
    take = (u.log() if log_u else u) < log_alpha
    take = ~take if flip else take | always
    return torch.where(take, y, x)


STEP_SLIPS = {
    "you added the ratio y/x itself to a logarithm: add log y − log x": {"plain": True},
    "you left out q(x|y)/q(y|x), which is y/x here: the 1/y of the log-normal does not cancel": {
        "ratio": 0.0
    },
    "your proposal ratio is upside down: q(x|y)/q(y|x) = y/x, so log y − log x is added": {
        "ratio": -1.0
    },
    "the walk is multiplicative, y = x exp(s z); you added s z": {"add": True},
    "log u is to be compared with the log of the ratio; you compared u": {"log_u": False},
    "you move where you should stay and stay where you should move": {"flip": True},
    "you accepted every proposal: take y only where log u < log of the ratio": {"always": True},
}


def positive_step(function: Callable) -> None:
    """Checks positive_step(log_prob, x, s, z, u) -> (B,), one step of a multiplicative walk.

    Raises NotYet, or Wrong with a diagnosis.
    """
    n, s = 400, 0.9
    x, z = 1.5 * torch.exp(0.5 * _draws(n)), _draws(n, 12)
    u = torch.special.ndtr(_draws(n, 13))
    truth = _step(x, s, z, u)
    answer = call(function, _gamma, x.clone(), s, z, u)
    moved = int((truth != x).sum())
    if isinstance(answer, Tensor) and answer.shape == (moved,):
        raise Wrong(
            f"you returned the {moved} chains that moved; a refused chain stays where it is, "
            f"and its old state counts again: torch.where(take, y, x)"
        )
    slips = {why: _step(x, s, z, u, **slip) for why, slip in STEP_SLIPS.items()}
    compare("the state after one step", answer, truth, slips)
    print(f"right: {moved} of {n} chains moved, the others stay")


def _error(x: Tensor, lags: int, *, factor=2.0, first=1, pairs=True, mean=True, root=True, n=None,
           more=0, v=True, power=1):  # fmt: skip
    """The right error, or one with the slip named."""
    d, lags = x - x.mean() if mean else x, lags + more
    sums = torch.stack([(d[: len(d) - k] * d[k:]).sum() for k in range(lags)])
    c = sums / (len(x) - torch.arange(lags)) if pairs else sums / len(x)
    tau = 1 + factor * (c[first:] / (c[0] if v else 1)).sum()
    value = c[0] * tau**power / (len(x) if n is None else n)
    return value.sqrt() if root else value


ERROR_SLIPS = {
    "that is the error of independent draws: multiply the variance by τ = 1 + 2 Σ ρ_k": {
        "factor": 0.0
    },
    "each pair at distance k counts twice, as (i, j) and (j, i): τ = 1 + 2 Σ ρ_k": {"factor": 1.0},
    "the sum begins at k = 1: the 1 in front is ρ_0 already": {"first": 0},
    "the covariance at distance k is the mean over its n − k pairs; you divided by n, or weighted "
    "it by 1 − k/n": {"pairs": False},
    "the last lag is lags − 1; you took one more": {"more": 1},
    "ρ_k is the covariance divided by v; you summed the covariances": {"v": False},
    "the variance of the mean grows with τ; you divided by it": {"power": -1},
    "covariances are about the mean: subtract x.mean() first": {"mean": False},
    "that is the variance of the mean; its standard error is the root": {"root": False},
    "that is the spread of the states; their mean's variance is smaller by n": {"n": 1},
}


def standard_error(function: Callable) -> None:
    """Checks standard_error(x, lags) -> (), the error of the mean of one correlated chain.

    Raises NotYet, or Wrong with a diagnosis.
    """
    for phi, n, lags in ((0.7, 300, 12), (-0.4, 150, 5)):
        z, x, states = _draws(n, 14), torch.tensor(0.3, dtype=torch.float64), []
        for k in range(n):
            x = phi * x + math.sqrt(1 - phi**2) * z[k]
            states.append(x)
        chain = 2.0 + 1.7 * torch.stack(states)
        try:
            answer = call(function, chain, lags)
        except Wrong as error:
            if "shapes did not fit" not in str(error):
                raise
            raise Wrong(
                f"{error.__context__}: for k = 0 the slice d[:-k] is empty; write d[: n - k]"
            ) from None
        answer = torch.tensor(answer).to(chain) if isinstance(answer, float) else answer
        slips = {why: _error(chain, lags, **slip) for why, slip in ERROR_SLIPS.items()}
        slips["the same estimate for k = 0: divide by n, where x.var() divides by n − 1"] = _error(
            chain, lags
        ) * math.sqrt(n / (n - 1))
        compare(
            f"the standard error of an AR(1) chain, φ = {phi}", answer, _error(chain, lags), slips
        )
    print("right: for φ = 0.7, where memory costs, and φ = −0.4, where it helps")
