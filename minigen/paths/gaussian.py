"""Gaussian paths from data to noise, xt = a(t) x0 + b(t) eps: two functions of time each."""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import (
    Time,
    X,
    check_pair,
    check_time,
    like,
    wide,
)


@functools.cache
def _forward_mode() -> None:
    """Have torch load its forward mode, which warns once of a part of torch itself (its jit)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def _slope(f: Callable[[Time], Time], t: Time) -> Time:
    """df/dt in the dtype of t."""
    _forward_mode()
    recording = torch.is_grad_enabled()
    # In inference mode torch 2.6 answers 0. Leaving it would also switch the recording on.
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        t = torch.clone(t)  # a tensor made in inference mode stays in it
        return torch.func.jvp(f, (t,), (torch.ones_like(t),))[1].to(t.dtype)


class GaussianPath:
    """xt = a(t) x0 + b(t) eps with a(0) = 1 and eps ~ N(0, I); a subclass gives a and b."""

    def a(self, t: Time) -> Time:
        """Signal coefficient."""
        raise TypeError(f"{type(self).__name__} must define a(t) and b(t)")

    def b(self, t: Time) -> Time:
        """Noise coefficient: the standard deviation of xt given x0."""
        raise TypeError(f"{type(self).__name__} must define a(t) and b(t)")

    def b2(self, t: Time) -> Time:
        """b², which a path whose b starts as √t gives without the root."""
        return self.b(t) ** 2

    def da(self, t: Time) -> Time:
        """da/dt, by forward-mode differentiation of a."""
        return _slope(self.a, t)

    def db(self, t: Time) -> Time:
        """db/dt, by forward-mode differentiation of b; infinite at t = 0 where b starts as √t."""
        return _slope(self.b, t)

    def db2(self, t: Time) -> Time:
        """d(b²)/dt = 2bb′, finite also where b′ is not."""
        return _slope(self.b2, t)

    def mix(self, x0: X, eps: X, t: Time) -> X:
        """A draw of q(xt | x0): xt = a(t) x0 + b(t) eps."""
        check_pair(x0, eps, t)
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

    def da(self, t: Time) -> Time:  # as derived, but each training step asks for it
        return -torch.ones_like(t)

    def db(self, t: Time) -> Time:
        return torch.ones_like(t)


@dataclass(frozen=True)
class Cosine(GaussianPath):
    """a = cos(πt/2), b = sin(πt/2): variance preserving, angle proportional to time."""

    def a(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * (1 - check_time(t)))  # exactly 0 at t = 1, as cos is not

    def b(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * check_time(t))


def _noise_of(log_a2: Tensor) -> Tensor:
    """1 − a² from log a², which keeps the digits that 1 − a² loses at low noise."""
    return 0 - torch.expm1(log_a2)  # 0 − 0 is +0, but −(0) is −0, whose 1/b is −∞


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
        return self.b2(t).sqrt()

    def b2(self, t: Time) -> Time:
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
    """The chain of a β-table as a continuous path, log ᾱ linear between the knots t = i/T.

    a² = ᾱ(t), b² = 1 − ᾱ(t), ᾱ(i/T) = ∏_{j≤i} (1 − β_j).

    Tables are float64: `betas`, `alphas` (T,) hold steps 1..T, `alpha_bars` (T+1,) starts with
    ᾱ_0 = 1. [Ho et al. 2020]
    """

    def __init__(self, betas: Float[Tensor, "T"]):
        betas = torch.as_tensor(betas).detach().cpu().double()
        if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(f"betas must be a (T,) table with entries in (0, 1), got {betas}")
        self.betas, self.alphas, self.T = betas, 1 - betas, len(betas)
        self._log_abar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self.alpha_bars = torch.exp(self._log_abar)
        self._tables = {"cpu": self._log_abar}  # one copy per device

    def __eq__(self, other) -> bool:
        return isinstance(other, DDPM) and torch.equal(self.betas, other.betas)

    def __hash__(self) -> int:
        return hash((self.T, float(self.betas.sum())))

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
        return _noise_of(self.log_alpha_bar(t)).sqrt().to(t.dtype)

    def b2(self, t: Time) -> Time:
        return _noise_of(self.log_alpha_bar(t)).to(t.dtype)
