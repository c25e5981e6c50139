"""What a correlated sample is worth: how far its memory reaches, and the error of its mean.

A chain is (n, B): n states of one number (a coordinate, an energy) in B chains side by side, or
(n,) for one chain. Of (n, B, D) each of the D coordinates is answered by itself.
"""

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor

from minigen.metrics import Estimate
from minigen.shapes import check_tensor, per_sample, wide

Chain = Real[Tensor, "n B *D"] | Real[Tensor, " n"]  # states may be whole numbers

MIXED = 1.05  # R̂ above which `estimate` says that its error is not to be relied on


class Unmixed(Estimate):
    """An estimate from chains that disagree: what it prints says so, with their R̂."""

    rhat: float

    def __repr__(self) -> str:
        return f"{super().__repr__()} (R̂ = {self.rhat:.2f}: the chains have not mixed, run longer)"


def _centred(chain: Chain) -> Float[Tensor, "n B *D"]:
    """The chains less the mean of all, refused where they are short, still or broken."""
    check_tensor(chain, "the chains")
    x = 1.0 * wide(chain if chain.ndim > 1 else chain[:, None])
    if x.ndim not in (2, 3) or len(x) < 4:
        raise ValueError(
            f"chains must be (n, B) or (n, B, D) with n ≥ 4 states, got {tuple(chain.shape)}"
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the chains hold NaN or infinite values")
    _check_moved(x)  # not less the mean, which is rounded
    return x - x.mean((0, 1))


def _check_moved(x: Float[Tensor, "n B *D"]) -> None:
    if bool((x == x[0, 0]).flatten(0, 1).all(0).any()):
        raise ValueError("the chains never moved: nothing was accepted, or all start in one place")


def _home(value: Tensor, chain: Chain) -> Tensor:
    """In the dtype of the chain, float32 at least: what is said of whole numbers is none."""
    return value.to(torch.promote_types(chain.dtype, torch.float32))


def _autocovariance(x: Float[Tensor, "n B *D"], lags: int) -> Float[Tensor, " lags *D"]:
    """Means over all pairs `lag` apart in all chains, by one Fourier transform."""
    n = len(x)
    spectrum = torch.fft.rfft(x, 2 * n, dim=0).abs().square().sum(1)
    pairs = x.shape[1] * torch.arange(n, n - lags, -1, device=x.device)
    return torch.fft.irfft(spectrum, 2 * n, dim=0)[:lags] / per_sample(pairs, spectrum)


def autocorrelation(chain: Chain, lags: int) -> Float[Tensor, " lags *D"]:
    """How alike states k = 0 … lags − 1 apart are, over all chains about their one mean.

    ρ_k = Cov(x_i, x_{i+k}) / Var(x).
    About the one mean, because chains that each stay in a region of their own would otherwise seem
    to be uncorrelated.
    """
    x = _centred(chain)
    if not 1 <= lags <= len(x):
        raise ValueError(f"lags must be between 1 and the {len(x)} states, got {lags}")
    c = _autocovariance(x, lags)
    return _home(c / c[0], chain)


def effective_sample_size(chain: Chain) -> Float[Tensor, "*D"]:
    """How many independent draws would give the mean the error that these N = n B states give it.

    N / τ with τ = 1 + 2 Σ ρ_k, and at most N log₁₀ N.
    Γ_m = ρ_2m + ρ_2m+1 is positive and falls for a reversible chain, so the sum ends where it is
    not positive (beyond is noise), and takes its running minimum before. States that alternate are
    worth more than N draws, but how many more is lost in that noise: hence the cap, as in Stan.
    [Geyer 1992, section 3.3; Vehtari et al. 2021]
    """
    x = _centred(chain)
    c = _autocovariance(x, len(x) - len(x) % 2)
    pairs = (c / c[0]).unflatten(0, (-1, 2)).sum(1)
    kept = pairs.cummin(0).values * (pairs > 0).cumprod(0)
    N = x.shape[0] * x.shape[1]
    return _home(N / (2 * kept.sum(0) - 1).clamp(min=1 / math.log10(N)), chain)


def rhat(chain: Chain) -> Float[Tensor, "*D"]:
    """The spread of all half-chains over that within them, 1 once they agree.

    √((n−1)/n + B̂/W), W the mean variance in the 2B halves (of n states), B̂ that of their means.
    Above 1.01 run longer: the chains have not mixed, or are worth few draws.
    [Gelman et al. 2013, section 11.4; Vehtari et al. 2021]
    """
    x = _centred(chain)
    half = len(x) // 2
    halves = torch.cat([x[:half], x[-half:]], dim=1)
    _check_moved(halves)  # an odd state in the middle is in neither
    within = halves.var(dim=0).mean(0)
    return _home(((half - 1) / half + halves.mean(dim=0).var(0) / within).sqrt(), chain)


def estimate(chain: Chain) -> Estimate | list[Estimate]:
    """The mean of the chains and its standard error √(Var(x) / ESS), which counts correlation.

    Of chains (n, B, D) a list of D. Where R̂ > 1.05 it is an `Unmixed`, which prints this doubt: the
    chains do not know how far they are off, and the error may be far too small.
    """
    if isinstance(chain, Tensor) and chain.ndim == 3:
        return [estimate(x) for x in chain.unbind(2)]
    variance, agree = float(_centred(chain).square().mean()), float(rhat(chain))
    mean = float((1.0 * wide(chain)).mean())
    error = math.sqrt(variance / float(effective_sample_size(chain)))
    if agree <= MIXED:
        return Estimate(mean, error)
    found = Unmixed(mean, error)
    found.rhat = agree
    return found
