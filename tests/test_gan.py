"""Adversarial training against what is known exactly: quadrature, closed forms, small games."""

import math

import pytest
import torch

from minigen import gan, oracle
from minigen.critics import check_logits
from minigen.divergences import log_ratio

GRID = torch.linspace(-14, 14, 28_001, dtype=torch.float64)[:, None]
NAMES = ["kl", "reverse_kl", "pearson", "js", "hellinger"]


def normal(mean, std):
    """N(mean, std²) on the line."""
    return oracle.GaussianMixture.isotropic(torch.tensor([[mean]], dtype=torch.float64), std)


def integral(values):
    return torch.trapezoid(values, GRID[:, 0])


def test_the_game_spirals_out_stays_or_comes_home():
    """Eigenvalues 1 ± ih; complex of modulus 1; and with R1 of modulus √(1 − γh + h²)."""
    radius = lambda matrix: torch.linalg.eigvals(matrix).abs().max()
    for h in (0.1, 0.7):
        assert radius(gan.game_matrix(h)) == pytest.approx(math.sqrt(1 + h * h), rel=1e-14)
        assert radius(gan.game_matrix(h, alternating=True)) == pytest.approx(1, rel=1e-14)
        damped = radius(gan.game_matrix(h, r1=1.1))
        assert damped == pytest.approx(math.sqrt(1 - 1.1 * h + h * h), rel=1e-14) and damped < 1
        both = gan.game_matrix(h, alternating=True, r1=1.1)
        assert torch.linalg.det(both) == pytest.approx(1 - 1.1 * h) and radius(both) < 1


def test_the_library_has_the_agreed_names():
    assert list(gan.f_divergences) == NAMES
    assert all(gan.losses[name] is getattr(gan, name) for name in gan.losses)
    for function in (
        gan.clip_weights, gan.gradient_penalty, gan.r1, gan.r2, gan.spectral_norm, gan.alternate,
        gan.optimal_discriminator, gan.mode_coverage, gan.wasserstein_1d, check_logits,
        log_ratio,
    ):  # fmt: skip
        assert callable(function)
