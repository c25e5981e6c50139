"""Transformers that denoise: images as tokens, attention, and three ways to listen to words.

`attention`: the two kernels, and what stands around them. `tokens`: images and positions as tokens.
`dit`: its block, and the network of one stream, conditioned by a class. `words`: networks that are
conditioned by a caption, by joint attention of two streams or by cross-attention.
"""

from .attention import attention, linear_attention
from .dit import Block, DiT
from .tokens import patchify, positions, unpatchify
from .words import CrossDiT, MMDiT

__all__ = [
    "Block", "CrossDiT", "DiT", "MMDiT", "attention", "linear_attention", "patchify", "positions",
    "unpatchify",
]  # fmt: skip
