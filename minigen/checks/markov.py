"""Checks of the exercises of lecture 1, Markov chains."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, call, compare, draws

_draws = partial(draws, seed=11, mean=0.0)


# A multiplicative walk --------------------------------------------------------------------------


def _gamma(x: Tensor) -> Tensor:
    """log Gamma(3, rate 2), without its constant; −inf where x ≤ 0."""
    return torch.where(x > 0, 2 * x.clamp(min=1e-300).log() - 2 * x, -math.inf)


def _step(log_prob, x, s, z, u, *, move=lambda x, sz: x * torch.exp(sz),
          log_q=lambda x, y: y.log() - x.log(), take=lambda u, log_alpha: u.log() < log_alpha,
          ratio=torch.sub, last=torch.where) -> Tensor:  # fmt: skip
    """The right step, or one with the slip named."""
    y = move(x, s * z)
    return last(take(u, ratio(log_prob(y), log_prob(x)) + log_q(x, y)), y, x)


def _moved(taken: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return y[taken]


def _which(taken: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return taken.to(x)


def _emptied(taken: Tensor, y: Tensor, x: Tensor) -> Tensor:
    return torch.where(taken, y, 0 * x)


STEP_SLIPS = {
    "you added the ratio y/x itself to a logarithm: add log y − log x": partial(
        _step, log_q=lambda x, y: y / x
    ),
    "you added y − x to a logarithm: log q(x|y) − log q(y|x) = log y − log x": partial(
        _step, log_q=lambda x, y: y - x
    ),
    "you left out q(x|y)/q(y|x), which is y/x here: the 1/y of the log-normal does not cancel": (
        partial(_step, log_q=lambda x, y: 0.0)
    ),
    "your proposal ratio is upside down: q(x|y)/q(y|x) = y/x, so log y − log x is added": partial(
        _step, log_q=lambda x, y: x.log() - y.log()
    ),
    "the walk is multiplicative, y = x exp(s z); you added s z": partial(
        _step, move=torch.add, log_q=lambda x, y: 0.0
    ),
    "you added log y and left out log x: q(x|y)/q(y|x) = y/x, so log y − log x is added": partial(
        _step, log_q=lambda x, y: y.log()
    ),
    "the size s of the step is missing: y = x exp(s z), not x exp(z)": (
        lambda log_prob, x, s, z, u: _step(log_prob, x, 1.0, z, u)
    ),
    "the size of the step is s, a standard deviation; you took s²: y = x exp(s z)": (
        lambda log_prob, x, s, z, u: _step(log_prob, x, s**2, z, u)
    ),
    "log u is to be compared with the log of the ratio; you compared u": partial(
        _step, take=torch.lt
    ),
    "you move where you should stay and stay where you should move": partial(
        _step, take=lambda u, log_alpha: u.log() >= log_alpha
    ),
    "you accepted every proposal: take y only where log u < log of the ratio": (
        lambda log_prob, x, s, z, u: x * torch.exp(s * z)
    ),
    "you refused every proposal: each chain takes its own y where log u < log of the ratio": (
        lambda log_prob, x, *rest: x
    ),
    "the walk is multiplicative, y = x exp(s z); you added s z, and y may be negative": (
        partial(_step, move=torch.add)
    ),
    "your densities' ratio is upside down: log_prob(y) − log_prob(x), where it goes, less where it "
    "is": partial(_step, ratio=lambda py, px: px - py),
    "your densities' ratio is upside down, log_prob(y) − log_prob(x), and y/x is left out": partial(
        _step, ratio=lambda py, px: px - py, log_q=lambda x, y: 0.0
    ),
    "the log of the densities' ratio is the difference of their logs, not log_prob(y) alone": (
        partial(_step, ratio=lambda py, px: py)
    ),
    "you subtracted log x and left out log y: q(x|y)/q(y|x) = y/x, so log y − log x is added": (
        partial(_step, log_q=lambda x, y: -x.log())
    ),
    "you divided log_prob(y) by log_prob(x): the log of a ratio is a difference": partial(
        _step, ratio=torch.div, log_q=lambda x, y: 0.0, take=torch.lt
    ),
    "you returned which chains move: return their states, torch.where(take, y, x)": partial(
        _step, last=_which
    ),
    "a refused chain is 0 in yours; it stays where it is, at x: torch.where(take, y, x)": partial(
        _step, last=_emptied
    ),
    "you returned the chains that moved alone; a refused chain stays where it is, and its old "
    "state counts again: torch.where(take, y, x)": partial(_step, last=_moved),
}


def positive_step(function: Callable) -> None:
    """Checks positive_step(log_prob, x, s, z, u) -> (B,), one step of a multiplicative walk.

    Raises NotYet, or Wrong with a diagnosis.
    """
    n, s = 400, 0.9
    x, z = 1.5 * torch.exp(0.5 * _draws(n)), _draws(n, seed=12)
    u = torch.special.ndtr(_draws(n, seed=13))
    answer = ask("the state after one step", function, _step, STEP_SLIPS, _gamma, x, s, z, u)
    print(f"right: {int((answer != x).sum())} of {n} chains moved, the others stay")


# The error of a chain's mean --------------------------------------------------------------------


def _covariance(d: Tensor, e: Tensor) -> Tensor:
    return (d * e).mean()


def _about_their_own(d: Tensor, e: Tensor) -> Tensor:
    return _covariance(d - d.mean(), e - e.mean())


def _correlation(d: Tensor, e: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([d, e]))[0, 1]


def _error(x: Tensor, lags: int, *, factor=2.0, first=1, one=1, pairs=True, mean=torch.mean,
           by=torch.select, power=1, c=_covariance, v=1) -> Tensor:  # fmt: skip
    """The right error, or one with the slip named."""
    d, n = x - mean(x), len(x)
    share = lambda k: 1 if pairs else (n - k) / n
    c = torch.stack([share(k) * c(d[: n - k], d[k:]) for k in range(lags)])
    tau = one + factor * (c[first:] / by(c, 0, 0)).sum()
    return torch.sqrt(_covariance(d, d) ** v * tau**power / n)


ERROR_SLIPS = {
    "that is the error of independent draws: multiply the variance by τ = 1 + 2 Σ ρ_k": partial(
        _error, factor=0.0
    ),
    "x.std() / √n is the error of independent draws: multiply the variance by τ = 1 + 2 Σ ρ_k": (
        lambda x, lags: x.std() / math.sqrt(len(x))
    ),
    "each pair at distance k counts twice, as (i, j) and (j, i): τ = 1 + 2 Σ ρ_k": partial(
        _error, factor=1.0
    ),
    "the sum begins at k = 1: the 1 in front is ρ_0 already": partial(_error, first=0),
    "the covariance at distance k is the mean over its n − k pairs; you divided by n, or weighted "
    "it by 1 − k/n": partial(_error, pairs=False),
    "the last lag is lags − 1; you took one more": lambda x, lags: _error(x, lags + 1),
    "the last lag is lags − 1; you took one less": lambda x, lags: _error(x, lags - 1),
    "each slice is about a mean of its own: subtract x.mean() first, from the whole chain": partial(
        _error, c=_about_their_own
    ),
    "corrcoef takes for each slice a mean and a variance of its own: x.mean() and v̂ are of the "
    "whole chain": partial(_error, c=_correlation),
    "the 1 is missing: τ = 1 + 2 Σ ρ_k": partial(_error, one=0),
    "the 1 in front is ρ_0 already, and you have doubled it: τ = 1 + 2 Σ ρ_k from k = 1": partial(
        _error, one=0, first=0
    ),
    "τ multiplies the variance of the mean, so the error grows with √τ; you took τ": partial(
        _error, power=2
    ),
    "v̂ is a variance; you took the standard deviation": partial(_error, v=0.5),
    "n belongs under the root: √(v̂ τ/n)": lambda x, lags: _error(x, lags) / math.sqrt(len(x)),
    "ρ_k is the covariance divided by v; you summed the covariances": partial(
        _error, by=lambda *c: 1
    ),
    "the variance of the mean grows with τ; you divided by it": partial(_error, power=-1),
    "covariances are about the mean: subtract x.mean() first": partial(_error, mean=lambda x: 0.0),
    "that is the variance of the mean; its standard error is the root": (
        lambda x, lags: _error(x, lags) ** 2
    ),
    "that is the spread of the states; their mean's variance is smaller by n": (
        lambda x, lags: _error(x, lags) * math.sqrt(len(x))
    ),
    "your variance is larger by n/(n − 1), as x.var() is; v̂ is the mean of all n squares": (
        lambda x, lags: _error(x, lags) * math.sqrt(len(x) / (len(x) - 1))
    ),
    "v̂ is the same mean for k = 0, over n; x.var() divides by n − 1, here in ρ_k and in v̂": (
        lambda x, lags: (_error(x, lags) ** 2 + x.var() / len(x) ** 2).sqrt()
    ),
}


def standard_error(function: Callable) -> None:
    """Checks standard_error(x, lags) -> (), the error of the mean of one correlated chain.

    Raises NotYet, or Wrong with a diagnosis.
    """
    for phi, n, lags in ((0.7, 300, 12), (-0.4, 150, 5)):
        z, x, states = _draws(n, seed=14), torch.tensor(0.3, dtype=torch.float64), []
        for k in range(n):
            x = phi * x + math.sqrt(1 - phi**2) * z[k]
            states.append(x)
        chain = 2.0 + 1.7 * torch.stack(states)
        truth = _error(chain, lags)
        try:
            answer = call(function, chain, lags)
        except Wrong as error:
            if "shapes did not fit" not in str(error):
                raise
            raise Wrong(
                f"{error.__context__}: for k = 0 the slice d[:-k] is empty; write d[: n - k]"
            ) from None
        answer = chain.new_tensor(answer) if isinstance(answer, float) else answer
        slips = {why: partial(slip, chain, lags) for why, slip in ERROR_SLIPS.items()}
        compare(f"the standard error of an AR(1) chain, φ = {phi}", answer, truth, slips)
    print("right: for φ = 0.7, where memory costs, and φ = −0.4, where it helps")


SLIPS = {positive_step: STEP_SLIPS, standard_error: ERROR_SLIPS}
