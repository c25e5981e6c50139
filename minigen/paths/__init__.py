"""Gaussian paths from data to noise, and what a network's output says on them.

`gaussian`: the paths, xt = a(t) x0 + b(t) eps. `table`: the path of a DDPM chain, `betas`: its
tables. `bridge`: one step between two times. `readout`: any quantity read off any other (`read`,
`denoiser`), and the `walk` that every one-step sampler is.
"""

from .betas import cosine_betas, linear_betas, quadratic_betas, sigmoid_betas
from .bridge import Bridge, bridge
from .gaussian import EDM, VE, VP, Cosine, GaussianPath, Linear, SubVP
from .readout import Readout, Target, check_target, denoiser, read, reading, walk, x0
from .table import DDPM

__all__ = [
    "DDPM", "EDM", "VE", "VP", "Bridge", "Cosine", "GaussianPath", "Linear", "Readout", "SubVP",
    "Target", "bridge", "check_target", "cosine_betas", "denoiser", "linear_betas",
    "quadratic_betas", "read", "reading", "sigmoid_betas", "walk", "x0",
]  # fmt: skip
