"""Vector quantisation: latents as entries of a list, one at a time, in turns, and scale by scale.

`codebook`: one list, its nearest entry, and the gradient that jumps over it. `turns`: what a list
leaves over is quantised again, at the same scale or coarse to fine. `model`: an autoencoder around
either.
"""

from .codebook import Quantized, Quantizer, perplexity
from .model import VQVAE, ConvVQVAE, Parts
from .turns import MultiScale, Residual

__all__ = [
    "ConvVQVAE", "MultiScale", "Parts", "Quantized", "Quantizer", "Residual", "VQVAE", "perplexity",
]  # fmt: skip
