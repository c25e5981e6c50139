"""The sums over components that every answer of a mixture is made of.

Samples run along the last axis, (D, B) and (K, B): the loops over a handful of components are then
the outer ones, up to 14 × faster than (B, K). One mixture is (K, D), one for each sample (B, K, D).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import readable, traced, wide

LEAST = -80.0  # e^-80 is still a normal float32: smaller weights would be denormals, 5 × slower


def into(const: Float[Tensor, "*B K"], w: Float[Tensor, "*B K F"], y: Float[Tensor, "F B"]):
    """const_k + Σ_f w_kf y_fb as (K, B)."""
    if w.ndim == 3:
        return const.T + torch.einsum("bkf,fb->kb", w, y)
    return torch.addmm(const[:, None], w, y)


def back(w: Float[Tensor, "*B K F"], r: Float[Tensor, "K B"]) -> Float[Tensor, "F B"]:
    """Σ_k w_kf r_kb."""
    return torch.einsum("bkf,kb->fb", w, r) if w.ndim == 3 else w.T @ r


def column(w: Float[Tensor, "*B N"]) -> Float[Tensor, "N b"]:
    """(N,) or one (N,) per sample, (B, N), as a column (N, 1) or (N, B)."""
    return w[:, None] if w.ndim == 1 else w.T


class Components:
    """log w_k N(x; m_k, v_k) = const_k + Σ_d (h_kd y_d − ½ p_kd y_d²), y = x − centre.

    Here p = 1/v and h = p m: from the centre of the means, so that the squares stay small. Where
    all components share one std (`shared`) the square is the same for all, and leaves the softmax.
    """

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor, shared: bool):
        self.shared, self.centre = shared, means.mean(-2)
        m, p = means - self.centre.unsqueeze(-2), 1 / stds.square()
        h, square = p * m, (p * m * m).sum(-1)
        self.means, self.p = means, p
        self.log_norm = wide(weights).log() - 0.5 * torch.log(2 * math.pi / wide(p)).sum(-1)
        self.const = self.log_norm.to(m.dtype) - 0.5 * square
        # where the squares are so large that their difference may be more than 5e-3 nats off
        rounding = square.detach() * torch.finfo(m.dtype).eps
        self.far = readable(m) and not bool((rounding < 5e-3).all())
        self.rows = h if shared else torch.cat([h, -0.5 * p], -1)  # meets y, or (y, y²)
        self.slopes = h if shared else torch.cat([h, p], -1)

    def logits(self, x: Float[Tensor, "D B"]) -> Float[Tensor, "K B"]:
        """log (w_k N(x; k)) less what is `common` to all k."""
        return self._by_differences(x) if self.far else self._by_products(self._from_centre(x))

    def _from_centre(self, x: Float[Tensor, "D B"]) -> Float[Tensor, "D B"]:
        return x - column(self.centre)

    def _by_products(self, y: Float[Tensor, "D B"]) -> Float[Tensor, "K B"]:
        return into(self.const, self.rows, y if self.shared else torch.cat([y, y * y]))

    def _by_differences(self, x: Float[Tensor, "D B"]) -> Float[Tensor, "K B"]:
        """The same, slower: (x − m)² loses no digits, nor does a sum in float64."""
        out = column(self.log_norm)
        for x_d, m_d, p_d in zip(x, self.means.unbind(-1), self.p.unbind(-1), strict=True):
            out = out - 0.5 * column(p_d) * (x_d - column(m_d)) ** 2
        return out.to(x.dtype)

    def common(self, x: Float[Tensor, "D B"]) -> Float[Tensor, " B"] | float:
        """The part of the logarithm that is the same for all components."""
        if self.far or not self.shared:
            return 0.0
        return -0.5 * (column(self.p[..., 0, :]) * self._from_centre(x) ** 2).sum(0)

    def weights(self, x: Float[Tensor, "D B"]) -> Float[Tensor, "K B"]:
        """p(k | x) up to a factor of each x; below e^-80 of the largest, e^-80 of it."""
        return _up_to_a_factor(self.logits(x))

    def score(self, x: Float[Tensor, "D B"]) -> Float[Tensor, "D B"]:
        """Σ_k p(k | x) (h_k − p_k y): the averages of h and of p over the components."""
        y = self._from_centre(x)
        weights = _up_to_a_factor(self._by_differences(x) if self.far else self._by_products(y))
        mean = back(self.slopes, weights) / weights.sum(0)  # of h, or of (h, p)
        h, p = (mean, column(self.p[..., 0, :])) if self.shared else mean.chunk(2)
        return torch.addcmul(h, p, y, value=-1)


def _up_to_a_factor(logits: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
    """exp(logits), each column over its largest."""
    if logits.requires_grad or traced(logits):
        return logits.softmax(0)
    return logits.sub_(logits.amax(0)).clamp_(min=LEAST).exp_()  # in place: 2-3 × faster
