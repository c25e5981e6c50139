"""The chain of a β-table as a path: discrete DDPM is a grid on it, not a second kind of model."""

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import Time, check_time, wide

from .gaussian import GaussianPath, noise_of


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

    def _piece(self, t: Time) -> tuple[Time, Time, Time]:
        """log ᾱ at the knots before and after t, and how far t is between them."""
        u = wide(check_time(t)) * self.T  # float32 times would miss their knots by 1e-7 T
        table = self._tables.get(str(t.device))
        if table is None:
            table = self._tables[str(t.device)] = self._log_abar.to(u)
        i = u.detach().floor().clamp(max=self.T - 1).long()
        return table[i], table[i + 1], u - i

    def log_alpha_bar(self, t: Time) -> Time:
        """log ᾱ(t), in nats."""
        return torch.lerp(*self._piece(t))

    def _time(self, sigma):  # log ᾱ = −log(1 + σ²) is linear between the knots
        falls = self._log_abar.to(sigma).neg()
        level = torch.log1p(sigma.square())
        i = torch.searchsorted(falls, level, right=True).clamp(1, self.T) - 1
        return (i + (level - falls[i]) / (falls[i + 1] - falls[i])) / self.T

    def a(self, t: Time) -> Time:
        return torch.exp(0.5 * self.log_alpha_bar(t)).to(t.dtype)

    def b(self, t: Time) -> Time:
        return noise_of(self.log_alpha_bar(t)).sqrt().to(t.dtype)

    def b2(self, t: Time) -> Time:
        return noise_of(self.log_alpha_bar(t)).to(t.dtype)

    def _rate(self, t: Time) -> Time:
        """−d log ᾱ/dt, which is constant between the knots; at a knot that of the piece after."""
        before, after, _ = self._piece(t)
        return self.T * (before - after)

    def da(self, t: Time) -> Time:  # as derived, and a millisecond faster, which samplers feel
        return (-0.5 * self._rate(t) * torch.exp(0.5 * self.log_alpha_bar(t))).to(t.dtype)

    def db2(self, t: Time) -> Time:
        return (self._rate(t) * torch.exp(self.log_alpha_bar(t))).to(t.dtype)
