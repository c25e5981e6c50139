"""Denoising diffusion probabilistic models.

Times t are continuous, 0 = data; step i of a chain of T is t = i/T. Between any two times s < t of
a path, q(xt | xs) = N(α xs, β) with α = a_t/a_s and β = b_t² (1 − SNR_t/SNR_s), which at
neighbouring knots of `paths.DDPM` are √α_t and β_t. So every formula here holds for sub-sequences
too. `chain`: the posterior, the model's step back, `ancestral` sampling. `losses`: the losses and
the variational bound.
"""

from minigen.paths import cosine_betas, linear_betas, quadratic_betas, sigmoid_betas

from .chain import (
    ancestral,
    forward_variance,
    interpolated_variance,
    learned_variance,
    posterior,
    posterior_variance,
    reverse,
)
from .losses import Bound, bound, bound_weight, hybrid_loss, simple_loss

__all__ = [
    "Bound", "ancestral", "bound", "bound_weight", "cosine_betas", "forward_variance",
    "hybrid_loss", "interpolated_variance", "learned_variance", "linear_betas", "posterior",
    "posterior_variance", "quadratic_betas", "reverse", "sigmoid_betas", "simple_loss",
]  # fmt: skip
