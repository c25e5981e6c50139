"""Tokens, generated one by one, many at once, or scale by scale.

A model is a function from ids (B, N), with V, the mask token, where a token is unknown, to logits
(B, N, V). `orders`: likelihoods and samplers of any such model. `scales`: coarse to fine. `guided`:
models of a class. `models`: transformers and a PixelCNN that are one.
"""

from .guided import given, guided
from .models import CausalTransformer, MaskedTransformer, PixelCNN, ScaleTransformer
from .orders import (
    at_random,
    autoregress,
    confidence,
    cosine_counts,
    masked_loss,
    maskgit,
    nll,
)
from .scales import block_causal, next_scale

__all__ = [
    "CausalTransformer", "MaskedTransformer", "PixelCNN", "ScaleTransformer", "at_random",
    "autoregress", "block_causal", "confidence", "cosine_counts", "given", "guided", "masked_loss",
    "maskgit", "next_scale", "nll",
]  # fmt: skip
