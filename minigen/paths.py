"""Gaussian paths from data to noise, xt = a(t) x0 + b(t) eps, and what a network's output says on
them.

Every diffusion and flow model of the course walks one of these paths. What a network predicts, c x0
+ d eps, and the state it sees are two linear equations in (x0, eps): `solve` inverts them for every
target at once.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import Denoiser, Label, Net, Time, X, check_time, like, wide

Target = Callable[["GaussianPath", Time], tuple[Time, Time]]  # -> c(t), d(t)


class GaussianPath:
    """xt = a(t) x0 + b(t) eps with a(0) = 1 and eps ~ N(0, I); a subclass gives a and b."""

    def a(self, t: Time) -> Time:
        """Signal coefficient."""
        raise TypeError(f"{type(self).__name__} must define a(t) and b(t)")

    def b(self, t: Time) -> Time:
        """Noise coefficient: the standard deviation of xt given x0."""
        raise TypeError(f"{type(self).__name__} must define a(t) and b(t)")

    def da(self, t: Time) -> Time:
        """da/dt, by forward-mode differentiation of a."""
        return torch.func.jvp(self.a, (t,), (torch.ones_like(t),))[1]

    def db(self, t: Time) -> Time:
        """db/dt, by forward-mode differentiation of b; infinite at t = 0 where b starts as √t."""
        return torch.func.jvp(self.b, (t,), (torch.ones_like(t),))[1]

    def mix(self, x0: X, eps: X, t: Time) -> X:
        """A draw of q(xt | x0): xt = a(t) x0 + b(t) eps.

        Raises TypeError or ValueError for a t that is no float tensor of shape () or (B,) in [0,
        1].
        """
        check_time(t)
        return like(self.a(t), x0) * x0 + like(self.b(t), eps) * eps

    def log_snr(self, t: Time) -> Time:
        """λ = log(a²/b²), in nats. [Kingma et al. 2021, eq. 3]"""
        return 2 * torch.log(self.a(t) / self.b(t))

    def sigma(self, t: Time) -> Time:
        """σ = b/a: the noise level once the signal has been scaled to 1. [Karras et al. 2022]"""
        return self.b(t) / self.a(t)


@dataclass(frozen=True)
class Linear(GaussianPath):
    """a = 1 − t, b = t: the straight path of rectified flow. [Liu et al. 2022]"""

    def a(self, t: Time) -> Time:
        return 1 - check_time(t)

    def b(self, t: Time) -> Time:
        return check_time(t).clone()


@dataclass(frozen=True)
class Cosine(GaussianPath):
    """a = cos(πt/2), b = sin(πt/2): variance preserving, angle proportional to time."""

    def a(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * (1 - check_time(t)))  # exactly 0 at t = 1, as cos is not

    def b(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * check_time(t))


def _noise_of(log_a2: Tensor) -> Tensor:
    """√(1 − a²) from log a², which keeps the digits that 1 − a² loses at low noise."""
    return torch.sqrt(0 - torch.expm1(log_a2))  # 0 − 0 is +0, but −(0) is −0, whose 1/b is −∞


@dataclass(frozen=True)
class VP(GaussianPath):
    """a² = exp(−∫β), β(t) = beta_min + t (beta_max − beta_min), b² = 1 − a².

    The continuous limit of DDPM's chain. [Song et al. 2021, eq. 32]
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _log_a2(self, t: Time) -> Time:
        return -check_time(t) * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def a(self, t: Time) -> Time:
        return torch.exp(0.5 * self._log_a2(t))

    def b(self, t: Time) -> Time:
        return _noise_of(self._log_a2(t))


@dataclass(frozen=True)
class VE(GaussianPath):
    """a = 1, b = sigma_min (sigma_max / sigma_min)^t, so b(0) = sigma_min > 0.

    [Song et al. 2021, eq. 30]
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def a(self, t: Time) -> Time:
        return torch.ones_like(check_time(t))

    def b(self, t: Time) -> Time:
        return self.sigma_min * torch.exp(check_time(t) * math.log(self.sigma_max / self.sigma_min))


class DDPM(GaussianPath):
    """The chain of a β-table as a continuous path: log ᾱ linear between the knots t = i/T.

    a² = ᾱ(t), b² = 1 − ᾱ(t), ᾱ(i/T) = ∏_{j≤i} (1 − β_j). Tables are float64: `betas`, `alphas` (T,)
    hold steps 1..T, `alpha_bars` (T+1,) starts with ᾱ_0 = 1. [Ho et al. 2020]
    Raises ValueError unless betas is (T,) with every entry in (0, 1).
    """

    def __init__(self, betas: Float[Tensor, "T"]):
        betas = torch.as_tensor(betas).detach().cpu().double()
        if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be a (T,) table with entries in (0, 1), got {betas}")
        self.betas, self.alphas, self.T = betas, 1 - betas, len(betas)
        self._log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.alpha_bars = torch.exp(self._log_abar)
        self._tables = {"cpu": self._log_abar}  # one copy per device

    def __repr__(self) -> str:
        return f"DDPM(T={self.T}, betas {self.betas[0]:.3g} … {self.betas[-1]:.3g})"

    def log_alpha_bar(self, t: Time) -> Time:
        """log ᾱ(t), in nats."""
        u = wide(check_time(t)) * self.T  # float32 times would miss their knots by 1e-7 T
        table = self._tables.get(str(t.device))
        if table is None:
            table = self._tables[str(t.device)] = self._log_abar.to(u)
        i = u.detach().floor().clamp(max=self.T - 1).long()
        return torch.lerp(table[i], table[i + 1], u - i)

    def a(self, t: Time) -> Time:
        return torch.exp(0.5 * self.log_alpha_bar(t)).to(t.dtype)

    def b(self, t: Time) -> Time:
        return _noise_of(self.log_alpha_bar(t)).to(t.dtype)


def inverse(target: Target, path: GaussianPath, t: Time) -> tuple[Time, Time, Time, Time]:
    """(p, q, r, s) of x0 = p xt + q y and eps = r xt + s y: the inverse of [[a, b], [c, d]].

    Infinite or NaN where the target does not determine x0: det = ad − bc = 0.
    """
    a, b, (c, d) = path.a(t), path.b(t), target(path, t)
    det = a * d - b * c
    return d / det, -b / det, -c / det, a / det


def solve(target: Target, path: GaussianPath, y: X, xt: X, t: Time) -> tuple[X, X]:
    """(x0, eps) from the state xt = a x0 + b eps and the target's value y = c x0 + d eps.

    Defined where det = ad − bc ≠ 0: eps needs a ≠ 0, x0 and score need b ≠ 0, v on a VP path always
    works.
    """
    p, q, r, s = (like(k, xt) for k in inverse(target, path, t))
    return p * xt + q * y, r * xt + s * y


@dataclass(frozen=True)
class NetDenoiser:
    """(xt, t) -> E[x0 | xt] as read from a network that was trained on a target."""

    net: Net
    path: GaussianPath
    target: Target
    label: Label | int | None = None

    def __call__(self, xt: X, t: Time) -> X:
        check_time(t)
        p, q, _, _ = inverse(self.target, self.path, t)
        return like(p, xt) * xt + like(q, xt) * self.net(xt, t, self._labels(xt))

    def along(self, ts: Float[Tensor, " N"], x: X) -> list[Callable[[X], X]]:
        """The denoiser at each time of a grid, its coefficients computed once, as Python floats."""
        p, q, _, _ = inverse(self.target, self.path, ts)
        bad = ts[~(torch.isfinite(p) & torch.isfinite(q))]
        if len(bad):
            raise ValueError(
                f"the target {getattr(self.target, '__name__', self.target)} does not determine x0 "
                f"at t = {bad[0]:g} on this path (det = 0): leave that time out of the grid, or "
                f"train another target"
            )
        label, net = self._labels(x), self.net

        def at(p, q, t):
            return lambda x: torch.add(x * p, net(x, t, label), alpha=q)

        return [at(*k) for k in zip(p.tolist(), q.tolist(), ts.to(x).unbind(), strict=True)]

    def _labels(self, x: X) -> Label | None:
        """The label of each sample; raises where dtypes or batch sizes cannot fit."""
        weight = next(self.net.parameters(), None) if isinstance(self.net, nn.Module) else None
        if weight is not None and weight.dtype != x.dtype and not torch.is_autocast_enabled():
            raise TypeError(
                f"the states (xT) are {x.dtype} but the net's parameters are {weight.dtype}: "
                f"convert one of them, for instance xT.to({weight.dtype})"
            )
        if isinstance(self.label, int):
            return torch.full((len(x),), self.label, device=x.device)
        if self.label is not None and len(self.label) != len(x):
            raise ValueError(f"{len(self.label)} labels were given for a batch of {len(x)}")
        return self.label


def denoiser(
    net: Net, path: GaussianPath, target: Target, label: Label | int | None = None
) -> Denoiser:
    """E[x0 | xt] as read from a network trained on a target: x0 = p xt + q net(xt, t, label).

    `label` (one class for all, or one for each sample) is bound here. When called, raises TypeError
    for states of another dtype than the net, ValueError for a grid time at which the target fails.
    """
    return NetDenoiser(net, path, target, label)


def along(denoise: Denoiser, ts: Float[Tensor, " N"], x: X) -> list[Callable[[X], X]]:
    """One function x -> E[x0 | x] for each time of a grid, prepared where the denoiser can."""
    if hasattr(denoise, "along"):
        return denoise.along(ts, x)
    return [lambda x, t=t: denoise(x, t) for t in ts.to(x).unbind()]
