"""Generative adversarial networks: a critic tells real from fake, a generator learns from it.

p is the law of the data, q that of the generator. `critics`: losses of both players, and what keeps
a critic smooth. `divergences`: what the game measures. `game`: the two-player loop. `augment`:
edits for critics that see few data. `style`: StyleGAN's operations.
"""

from minigen.metrics import Coverage, mode_coverage, wasserstein_1d

from . import augment, style
from .critics import (
    Loss,
    clip_weights,
    gradient_penalty,
    hinge,
    least_squares,
    losses,
    minimax,
    nonsaturating,
    r1,
    r2,
    spectral_norm,
    wasserstein,
)
from .divergences import FDivergence, f_divergences, hellinger, js, kl, pearson, reverse_kl
from .game import Losses, alternate, game_matrix, optimal_discriminator

__all__ = [
    "Coverage", "FDivergence", "Loss", "Losses", "alternate", "augment", "clip_weights",
    "f_divergences", "game_matrix", "gradient_penalty", "hellinger", "hinge", "js", "kl",
    "least_squares", "losses", "minimax", "mode_coverage", "nonsaturating",
    "optimal_discriminator", "pearson", "r1", "r2", "reverse_kl", "spectral_norm", "style",
    "wasserstein", "wasserstein_1d",
]  # fmt: skip
