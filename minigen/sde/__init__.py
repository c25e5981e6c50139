"""Stochastic differential equations: every Gaussian path as dx = f x dt + g dw.

`equation`: f and g of a path, and the way from data to noise. `samplers`: the way back, with any
noise, and with corrections. `likelihood`: log p along the probability-flow ODE.
"""

from .equation import diffusion, drift, forward
from .likelihood import exact_divergence, hutchinson, log_prob
from .samplers import predictor_corrector, reverse

__all__ = [
    "diffusion", "drift", "exact_divergence", "forward", "hutchinson", "log_prob",
    "predictor_corrector", "reverse",
]  # fmt: skip
