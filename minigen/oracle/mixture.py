"""The exact answer: a diffused Gaussian mixture is a Gaussian mixture, nothing is unknown.

If x0 ~ Σ w_k N(m_k, diag v_k) and xt = a x0 + b eps, then xt ~ Σ w_k N(a m_k, diag(a² v_k + b²)):
score, denoiser, velocity and class posterior at every t are averages over the components.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minigen.paths import GaussianPath, Target, read, x0
from minigen.shapes import (
    Denoiser,
    Label,
    Time,
    X,
    check_batch,
    check_label,
    check_length,
    check_times,
    like,
    noise,
    wide,
)

from .components import Components, back, column


class GaussianMixture:
    """Σ_k weights_k N(means_k, diag(stds_k²)): `weights` (K,), `means` and `stds` (K, D).

    Points are (B, D); data of any shape (B, *D) with D values a sample is read flat and answered in
    its shape. A std of 0 is allowed (finite data), but log_prob and score then exist only for the
    marginals at t > 0.
    """

    def __init__(
        self, weights: Float[Tensor, "K"], means: Float[Tensor, "K D"], stds: Float[Tensor, "K D"]
    ):
        if means.ndim != 2 or means.shape != stds.shape or weights.shape != means.shape[:1]:
            raise ValueError(
                f"a mixture needs weights (K,), means (K, D), stds (K, D), got "
                f"{tuple(weights.shape)}, {tuple(means.shape)}, {tuple(stds.shape)}"
            )
        if not bool((weights > 0).all()) or abs(float(weights.sum()) - 1) > 1e-4:
            raise ValueError(f"weights must be positive and sum to 1, got {weights}")
        if not bool(torch.isfinite(means).all()) or not bool((stds >= 0).all()):
            raise ValueError("means must be finite and stds at least 0: there is a NaN or a sign")
        self.weights, self.means, self.stds = weights, means, stds
        self._parts = Components(weights, means, stds, bool((stds == stds[0, 0]).all()))

    @classmethod
    def isotropic(
        cls,
        means: Float[Tensor, "K D"],
        std: float | Float[Tensor, "K"],
        weights: Float[Tensor, "K"] | None = None,
    ) -> "GaussianMixture":
        """Round components: one std for all, or one for each; equal weights unless given."""
        stds = torch.as_tensor(std, dtype=means.dtype, device=means.device)
        weights = torch.full_like(means[:, 0], 1 / len(means)) if weights is None else weights
        return cls(weights, means, stds.reshape(-1, 1).expand(means.shape).contiguous())

    @classmethod
    def ring(cls, k: int = 8, radius: float = 2.0, std: float = 0.2) -> "GaussianMixture":
        """k equal round components on a circle in the plane, in float32."""
        angle = 2 * math.pi * torch.arange(k, dtype=torch.float64) / k
        means = radius * torch.stack([angle.cos(), angle.sin()], 1)
        return cls.isotropic(means.float(), std)

    def to(self, *args, **kwargs) -> "GaussianMixture":
        """The same mixture on another device or in another dtype, as Tensor.to."""
        law = (x.to(*args, **kwargs) for x in (self.weights, self.means, self.stds))
        return self._raw(*law, self._parts.shared)

    @classmethod
    def _raw(cls, weights, means, stds, shared) -> "GaussianMixture":
        """Without the checks, for what is right by construction, (B, K, D) stacks included."""
        self = object.__new__(cls)
        self.weights, self.means, self.stds = weights, means, stds
        self._parts = Components(weights, means, stds, shared)
        return self

    def _columns(self, x: X) -> Float[Tensor, "D B"]:
        """x flat, samples last; raises where it does not fit the mixture or its times."""
        check_batch(x, "x")
        D, times, n = self.means.shape[-1], self.means.shape[:-2], len(x)
        if x.numel() != n * D or times not in ((), (n,)):
            shape = tuple(x.shape)
            raise ValueError(f"a mixture in {D} dimensions, at times {tuple(times)}, got x {shape}")
        if torch.promote_types(x.dtype, self.means.dtype) != self.means.dtype:
            raise TypeError(f"x is {x.dtype}, the mixture {self.means.dtype}: mixture.to(x.dtype)")
        return x.to(self.means.dtype).reshape(n, D).T

    def sample(
        self, n: int, *, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "n D"], Int[Tensor, " n"]]:
        """n points and the component of each."""
        label = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        x = self.means[label]
        return x + self.stds[label] * noise(x, generator=generator), label

    def log_prob(self, x: X) -> Float[Tensor, "B"]:
        """log p(x), in nats."""
        x = self._columns(x)
        return torch.logsumexp(self._parts.logits(x), 0) + self._parts.common(x)

    def posterior(self, x: X) -> Float[Tensor, "B K"]:
        """p(label | x), the responsibility of each component."""
        weights = self._parts.weights(self._columns(x))
        return (weights / weights.sum(0)).T

    def score(self, x: X) -> X:
        """∇ log p(x) = Σ_k p(k | x) (m_k − x) / v_k."""
        return self._parts.score(self._columns(x)).T.reshape(x.shape)

    def mean(self) -> Float[Tensor, "D"]:
        """E[x]."""
        return self.weights @ self.means

    def cov(self) -> Float[Tensor, "D D"]:
        """Cov[x] = Σ w_k (diag v_k + m_k m_kᵀ) − E[x] E[x]ᵀ, about the mean to keep its digits."""
        m = self.means - self.mean()
        return (m.T * self.weights) @ m + torch.diag(self.weights @ self.stds.square())

    def only(self, k: int) -> "GaussianMixture":
        """One component by itself, the class k."""
        check_label(k, len(self.weights))
        one = slice(k, k + 1)
        return GaussianMixture(torch.ones_like(self.weights[one]), self.means[one], self.stds[one])

    def _coefficients(self, path: GaussianPath, t: Time) -> tuple[Tensor, Tensor]:
        """a and b in the mixture's dtype, shaped () or (B, 1, 1) to meet (K, D)."""
        a, b = path.a(t).to(self.means), path.b(t).to(self.means)
        return (a[:, None, None], b[:, None, None]) if t.ndim else (a, b)

    def at(self, path: GaussianPath, t: Time) -> "GaussianMixture":
        """The marginal of xt: means a m_k, variances a² v_k + b²; for t (B,), one for each row."""
        a, b = self._coefficients(path, t)
        stds = torch.sqrt((a * self.stds) ** 2 + b * b)
        return self._raw(self.weights, a * self.means, stds, self._parts.shared)

    def _conditional(self, path: GaussianPath, t: Time) -> tuple[Tensor, Tensor, Tensor]:
        """(gain, shift, var) of p(x0 | xt, k) = N(shift + gain xt, var): (K, D) or (B, K, D)."""
        a, b = self._coefficients(path, t)
        v = self.stds.square()
        vt = a * a * v + b * b
        gain = a * v / vt
        return gain, self.means * (1 - a * gain), v * b * b / vt

    def denoiser(self, path: GaussianPath, label: Label | int | None = None) -> Denoiser:
        """E[x0 | xt], or E[x0 | xt, label], as (xt, t) -> (B, *D).

        E[x0 | xt, k] = m_k + a v_k / (a² v_k + b²) (xt − a m_k), averaged with p(k | xt). Memory is
        B·K·D for t of shape (B,), K·D for one t.
        """

        if label is not None:
            check_label(label, len(self.weights))

        def denoise(xt: X, t: Time) -> X:
            x, (gain, shift, _) = self._columns(xt).T, self._conditional(path, check_times(t, xt))
            if label is None:
                r = self.at(path, t).posterior(x).T
                out = (back(shift, r) + back(gain, r) * x.T).T
            else:
                k = torch.as_tensor(label, device=x.device)
                if k.ndim:
                    check_length(k, x, "labels")
                k = k.expand(len(x))
                rows = torch.arange(len(x), device=x.device)
                gain, shift = (c.expand(len(x), *self.means.shape) for c in (gain, shift))
                out = shift[rows, k] + gain[rows, k] * x
            return out.reshape(xt.shape)

        return denoise

    def eps(self, path: GaussianPath) -> Denoiser:
        """E[eps | xt] = −b ∇ log p_t(xt), as (xt, t) -> (B, *D). [Tweedie's formula]"""
        return lambda xt, t: like(-path.b(t), xt) * self.at(path, t).score(xt)

    def velocity(self, path: GaussianPath) -> Denoiser:
        """E[dxt/dt | xt] = a′ E[x0 | xt] − bb′ ∇ log p_t(xt): the probability-flow ODE's field."""
        denoise = self.denoiser(path)
        return lambda xt, t: (  # E[eps | xt] = −b score, and 2bb′ is finite where b′ is not
            like(path.da(t), xt) * denoise(xt, t)
            - 0.5 * like(path.db2(t), xt) * self.at(path, t).score(xt)
        )

    def classifier(self, path: GaussianPath):
        """log p(label | xt), as (xt, t) -> (B, K)."""

        def log_p(xt: X, t: Time) -> Float[Tensor, "B K"]:
            marginal = self.at(path, t)
            return torch.log_softmax(marginal._parts.logits(marginal._columns(xt)), 0).T

        return log_p

    def mmse(
        self, path: GaussianPath, t: Time, n: int, *, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """E‖x0 − E[x0 | xt]‖² / D over n draws of xt; for t (n,), also over those times.

        Each draw gives its exact conditional variance, not one squared error. Computed in float64
        where the device has it: at low noise the variance is a small difference.
        """
        exact, t = self.to(wide(self.means).dtype), wide(t)
        x0, _ = exact.sample(n, generator=generator)
        xt = path.mix(x0, noise(x0, generator=generator), t)
        return exact._variance(path, xt, t).mean().to(self.means.dtype)

    def _variance(self, path: GaussianPath, x: Float[Tensor, "B D"], t: Time):
        """Var(x0 | xt) of each coordinate: the mean of variances plus the variance of means."""
        (gain, shift, var), r = self._conditional(path, t), self.at(path, t).posterior(x).T
        x, mean = x.T, back(shift, r) + back(gain, r) * x.T
        each = zip(r, shift.unbind(-2), gain.unbind(-2), strict=True)  # no (B, K, D) is built
        between = sum(r_k * (column(m) + column(g) * x - mean) ** 2 for r_k, m, g in each)
        return (back(var, r) + between).T

    def floor(
        self, target: Target, path: GaussianPath, t: Time, n: int, *, generator=None
    ) -> Float[Tensor, ""]:
        """The least loss any function of (xt, t) can reach: (det/b)² E‖x0 − E[x0 | xt]‖² / D.

        For one t > 0. As `targets.loss` it is a mean over the data axes; det = ad − bc.
        """
        if t.ndim:
            raise ValueError("floor takes one time, (): average over times by calling it at each")
        q = read(target, x0, path, wide(t))[1]  # x0 = p xt + q y: an error e in y is q e in x0
        return self.mmse(path, t, n, generator=generator) / q.square().to(self.means)
