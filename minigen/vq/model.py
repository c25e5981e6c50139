"""The autoencoder whose latents are entries of a codebook."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import X, check_answer, check_batch

from .codebook import apart


class Parts(NamedTuple):
    """The terms of the loss, each (B,); a usual sum is reconstruction + codebook + ¼ commitment."""

    reconstruction: Float[Tensor, " B"]
    codebook: Float[Tensor, " B"]
    commitment: Float[Tensor, " B"]


class VQVAE(nn.Module):
    """encoder(x) -> z (B, width, *N), quantised, decoder(z) -> shaped as x.

    As a bound with a uniform prior and a deterministic encoder its KL is the constant N log codes.
    `quantizer` is a `Quantizer`, `Residual` or `MultiScale`. [van den Oord et al. 2017]
    """

    def __init__(self, encoder: Callable, decoder: Callable, quantizer: nn.Module):
        super().__init__()
        self.encoder, self.decoder, self.quantizer = encoder, decoder, quantizer

    def loss(self, x: X) -> Parts:
        """‖x − decoder(ẑ)‖²/D and the quantiser's two terms, for each sample.

        Raises ValueError where the decoder's answer is not shaped as x.
        """
        check_batch(x, "x")
        part = self.quantizer(self.encoder(x))
        again = check_answer(self.decoder(part.z), x)
        return Parts(apart(x, again), part.codebook, part.commitment)

    def encode(self, x: X):
        """The ids of x, (B, *N) or a list of them."""
        z = self.encoder(x)
        encode = getattr(self.quantizer, "encode", None) or self.quantizer.nearest
        return encode(z)

    def decode(self, ids) -> X:
        """What these ids stand for."""
        look = getattr(self.quantizer, "decode", None) or self.quantizer.lookup
        return self.decoder(look(ids))
