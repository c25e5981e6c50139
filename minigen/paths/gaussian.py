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
    readable,
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

    def time(self, sigma: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The t with b(t)/a(t) = sigma, the inverse of `sigma`: any path on any grid of levels.

        In closed form where there is one, else by bisection. Raises ValueError for a NaN, and for a
        level that the path does not reach.
        """
        if not isinstance(sigma, Tensor) or not sigma.is_floating_point():
            raise TypeError(f"sigma must be a float tensor, got {sigma!r}: use torch.as_tensor")
        level = wide(sigma)
        if readable(level):
            low, high = (float(self.sigma(t)) for t in torch.tensor([0.0, 1.0]).double())
            slack = 4 * torch.finfo(sigma.dtype).eps  # the ends, as that dtype rounds them
            inside = (level >= low * (1 - slack)) & (level <= high * (1 + slack))  # NaN is not
            if not bool(inside.all()):
                wrong = float(level[~inside].flatten()[0])
                raise ValueError(
                    f"sigma = {wrong:g} is not on {self}, whose sigma runs from {low:g} (t = 0) to "
                    f"{high:g} (t = 1)"
                )
        return self._time(level).clamp(0, 1).to(sigma.dtype)

    def _time(self, sigma: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """`time` without its checks."""
        flat = sigma.flatten()
        low, high = torch.zeros_like(flat), torch.ones_like(flat)
        for _ in range(60):
            middle = 0.5 * (low + high)
            short = self.sigma(middle) < flat
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        found = 0.5 * (low + high)  # the ends exactly: a sampler asks whether it has reached b = 0
        found = torch.where(flat <= self.sigma(torch.zeros_like(flat)), 0.0, found)
        found = torch.where(flat >= self.sigma(torch.ones_like(flat)), 1.0, found)
        return found.reshape(sigma.shape)


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

    def _time(self, sigma):
        return 1 / (1 + 1 / sigma)


@dataclass(frozen=True)
class Cosine(GaussianPath):
    """a = cos(πt/2), b = sin(πt/2): variance preserving, angle proportional to time."""

    def a(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * (1 - check_time(t)))  # exactly 0 at t = 1, as cos is not

    def b(self, t: Time) -> Time:
        return torch.sin(math.pi / 2 * check_time(t))

    def _time(self, sigma):
        return torch.atan(sigma) / (math.pi / 2)


def noise_of(log_a2: Tensor) -> Tensor:
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
        return noise_of(self._log_a2(t))

    def _beta(self, t: Time) -> Time:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def da(self, t: Time) -> Time:  # as derived, and a millisecond faster, which samplers feel
        return -0.5 * self._beta(t) * self.a(t)

    def db2(self, t: Time) -> Time:
        return self._beta(t) * torch.exp(self._log_a2(t))

    def _time(self, sigma):
        return self._time_at(torch.log1p(sigma.square()))

    def _time_at(self, rate):
        """The t with ∫₀ᵗ β = rate, from a quadratic equation."""
        ends = self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * rate
        return 2 * rate / (self.beta_min + ends.sqrt())


@dataclass(frozen=True)
class SubVP(VP):
    """a as VP, b = 1 − a²: less noise than VP at every time, and the same at both ends.

    [Song et al. 2021, eq. 29]
    """

    def b(self, t: Time) -> Time:
        return noise_of(self._log_a2(t))

    def b2(self, t: Time) -> Time:
        return self.b(t) ** 2

    def db2(self, t: Time) -> Time:
        return 2 * self.b(t) * super().db2(t)

    def _time(self, sigma):  # σ = 1/a − a = 2 sinh(∫β/2)
        return self._time_at(2 * torch.asinh(sigma / 2))


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

    def _time(self, sigma):
        return torch.log(sigma / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(GaussianPath):
    """a = 1, b = sigma_max t, so t = σ/sigma_max and b(0) = 0. [Karras et al. 2022, table 1]"""

    sigma_max: float = 80.0

    def a(self, t: Time) -> Time:
        return torch.ones_like(check_time(t))

    def b(self, t: Time) -> Time:
        return self.sigma_max * check_time(t)

    def _time(self, sigma):
        return sigma / self.sigma_max
