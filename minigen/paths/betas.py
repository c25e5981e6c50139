"""β-tables, (T,) float64: how much noise each step of a chain adds."""

import torch
from jaxtyping import Float
from torch import Tensor


def linear_betas(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Float[Tensor, "T"]:
    """β from beta_1 to beta_T in equal steps. [Ho et al. 2020, section 4]"""
    return torch.linspace(beta_1, beta_T, T, dtype=torch.float64)


def quadratic_betas(
    T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02
) -> Float[Tensor, "T"]:
    """√β from √beta_1 to √beta_T in equal steps. [Song, Meng & Ermon 2021]"""
    return torch.linspace(beta_1**0.5, beta_T**0.5, T, dtype=torch.float64).square()


def sigmoid_betas(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Float[Tensor, "T"]:
    """β = beta_1 + (beta_T − beta_1) σ(u), u from −6 to 6 in equal steps."""
    u = torch.linspace(-6, 6, T, dtype=torch.float64)
    return beta_1 + (beta_T - beta_1) * torch.sigmoid(u)


def cosine_betas(T: int = 1000, s: float = 0.008) -> Float[Tensor, "T"]:
    """β for a signal that falls as a squared cosine, cut where one step would destroy everything.

    β_t = min(1 − ᾱ_t/ᾱ_{t−1}, 0.999), ᾱ_t = f(t)/f(0), f(t) = cos²((t/T + s)/(1 + s) π/2).
    [Nichol & Dhariwal 2021, eq. 17]
    """
    t = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((t + s) / (1 + s) * torch.pi / 2).square()
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)
