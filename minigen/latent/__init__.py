"""Diffusion in a latent space: an autoencoder, latents of unit variance, and what they are worth.

An autoencoder keeps what the eye needs of x in fewer numbers z; a diffusion model learns their law.
`autoencoder`: the two networks, their loss, and the scale of z. `convolutions`: a pair for images.
`images`: space exchanged for channels, and an image enlarged. `prior`: the cross-entropy by which a
latent prior is judged.
"""

from .autoencoder import Autoencoder, Standard, check_standard, loss
from .convolutions import ConvAutoencoder
from .images import (
    DownShortcut,
    UpsamplingNet,
    UpShortcut,
    channel_to_space,
    shrink,
    space_to_channel,
)
from .prior import cross_entropy

__all__ = [
    "Autoencoder", "ConvAutoencoder", "DownShortcut", "Standard", "UpShortcut", "UpsamplingNet",
    "channel_to_space", "check_standard", "cross_entropy", "loss", "shrink", "space_to_channel",
]  # fmt: skip
