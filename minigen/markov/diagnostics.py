"""What a correlated sample is worth: how far its memory reaches, and the error of its mean.

A chain is (n, B): n states of one number (a coordinate, an energy) in B chains side by side, or
(n,) for one chain.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.metrics import Estimate
from minigen.shapes import wide

Chain = Float[Tensor, "n B"] | Float[Tensor, " n"]


def _centred(chain: Chain) -> Float[Tensor, "n B"]:
    """The chains less the mean of all, refused where they are short, still or broken."""
    x = wide(chain if chain.ndim > 1 else chain[:, None])
    if x.ndim != 2 or len(x) < 4:
        raise ValueError(f"chains must be (n, B) with n ≥ 4 states, got {tuple(chain.shape)}")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("the chains hold NaN or infinite values")
    x = x - x.mean()
    if not bool((x != 0).any()):
        raise ValueError("the chains never moved: nothing was accepted, or all start in one place")
    return x


def _autocovariance(x: Float[Tensor, "n B"], lags: int) -> Float[Tensor, " lags"]:
    """Means over all pairs `lag` apart in all chains, by one Fourier transform."""
    n = len(x)
    spectrum = torch.fft.rfft(x, 2 * n, dim=0).abs().square().sum(1)
    pairs = x.shape[1] * torch.arange(n, n - lags, -1, device=x.device)
    return torch.fft.irfft(spectrum, 2 * n)[:lags] / pairs


def autocorrelation(chain: Chain, lags: int) -> Float[Tensor, " lags"]:
    """How alike states k = 0 … lags − 1 apart are, over all chains about their one mean.

    ρ_k = Cov(x_i, x_{i+k}) / Var(x).
    About the one mean, because chains that each stay in a region of their own would otherwise seem
    to be uncorrelated.
    """
    if not 1 <= lags <= len(chain):
        raise ValueError(f"lags must be between 1 and the {len(chain)} states, got {lags}")
    c = _autocovariance(_centred(chain), lags)
    return (c / c[0]).to(chain.dtype)


def effective_sample_size(chain: Chain) -> Float[Tensor, ""]:
    """How many independent draws would give the mean the error that these n B states give it.

    n B / τ with τ = 1 + 2 Σ ρ_k.
    Γ_m = ρ_2m + ρ_2m+1 is positive and falls for a reversible chain, so the sum ends where it is
    not positive (beyond is noise), and takes its running minimum before. [Geyer 1992, section 3.3]
    """
    x = _centred(chain)
    c = _autocovariance(x, len(x) - len(x) % 2)
    pairs = (c / c[0]).reshape(-1, 2).sum(1)
    ends = (pairs <= 0).nonzero()
    kept = pairs[: int(ends[0]) if len(ends) else None].cummin(0).values
    return (x.numel() / (2 * kept.sum() - 1)).to(chain.dtype)


def rhat(chain: Chain) -> Float[Tensor, ""]:
    """The spread of all half-chains over that within them, 1 once they agree.

    √((n−1)/n + B̂/W), W the mean variance in the 2B halves (of n states), B̂ that of their means.
    Above 1.01 run longer: the chains have not mixed, or are worth few draws.
    [Gelman et al. 2013, section 11.4; Vehtari et al. 2021]
    """
    x = _centred(chain)
    half = len(x) // 2
    halves = torch.cat([x[:half], x[-half:]], dim=1)
    within = halves.var(dim=0).mean()
    return ((half - 1) / half + halves.mean(dim=0).var() / within).sqrt().to(chain.dtype)


def estimate(chain: Chain) -> Estimate:
    """The mean of the chains and its standard error √(Var(x) / ESS), which counts correlation."""
    variance = float(_centred(chain).square().mean())
    error = math.sqrt(variance / float(effective_sample_size(chain)))
    return Estimate(float(wide(chain).mean()), error)
