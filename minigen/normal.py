"""The normal distribution: what is sampled, compared and scored, of chains and of latents."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import X, like, noise


@dataclass(frozen=True)
class Normal:
    """N(mean, var): `mean` shaped as the data, `var` of shape () or (B,) or one for each value."""

    mean: X
    var: Tensor

    def spread(self) -> Tensor:
        """The variance of each value, shaped as the data."""
        return self.var if self.var.ndim > 1 else like(self.var, self.mean).expand_as(self.mean)

    def sample(self, *, generator: torch.Generator | None = None) -> X:
        """mean + √var z."""
        return self.mean + self.spread().sqrt() * noise(self.mean, generator=generator)

    def log_prob(self, x: X) -> Float[Tensor, " B"]:
        """log density in nats, summed over the data axes."""
        var = self.spread()
        return -0.5 * ((x - self.mean) ** 2 / var + torch.log(2 * torch.pi * var)).flatten(1).sum(1)


def kl_terms(shift: Tensor, log_ratio: Tensor) -> Tensor:
    """½ (shift² + ρ − log ρ − 1) of each value, with ρ the ratio of the two variances.

    `shift` is the distance of the means in standard deviations of the second normal.
    """
    # expm1: near log ρ = 0 both parts are tiny, and ρ − 1 would be rounding
    return 0.5 * (shift.square() + torch.expm1(log_ratio) - log_ratio)


def kl(q: Normal, p: Normal) -> Float[Tensor, " B"]:
    """KL(q ‖ p) = ½ Σ ((m_q − m_p)²/v_p + v_q/v_p − log v_q/v_p − 1) of each sample, in nats."""
    vq, vp = q.spread(), p.spread()
    return kl_terms((q.mean - p.mean) / vp.sqrt(), torch.log(vq / vp)).flatten(1).sum(1)


def log_bins(p: Normal, x0: X, levels: int) -> Float[Tensor, " B"]:
    """log p(x0's bin) among `levels` equal ones on [−1, 1], open at both ends, in nats.

    log ∏ (Φ((x0 + δ − mean)/std) − Φ((x0 − δ − mean)/std)), δ = 1/(levels − 1). [Ho et al., eq. 13]
    """
    std, half = p.spread().sqrt(), 1 / (levels - 1)
    high = torch.where(x0 > 1 - half, torch.inf, (x0 + half - p.mean) / std)
    low = torch.where(x0 < half - 1, -torch.inf, (x0 - half - p.mean) / std)
    flip = low > 0  # the difference is taken in the lower tail, where log_ndtr keeps its digits
    high, low = torch.where(flip, -low, high), torch.where(flip, -high, low)
    top = torch.special.log_ndtr(high)
    return (top + torch.log1p(-torch.exp(torch.special.log_ndtr(low) - top))).flatten(1).sum(1)
