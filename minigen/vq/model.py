"""The autoencoder whose latents are entries of a codebook."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from minigen.latent import ConvAutoencoder
from minigen.nets import Rebuildable
from minigen.shapes import X, check_answer, check_batch

from .codebook import Quantizer, apart
from .turns import MultiScale, Residual


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


class ConvVQVAE(Rebuildable, VQVAE):
    """A VQVAE of images of `shape` (C, H, W), with the convolutions of `latent.ConvAutoencoder`.

    `codes` entries of `width` values, latents (width, H/factor, W/factor). With `scales` they are
    quantised coarse to fine, with `depth` in so many turns, with `decay` by running means.
    `channels` is the convolutions' width at their largest size.
    """

    def __init__(self, shape, codes: int, width: int = 8, factor: int = 4, channels: int = 32, *,
                 scales=None, depth: int | None = None, decay: float | None = None):  # fmt: skip
        if sum(given is not None for given in (scales, depth, decay)) > 1:
            raise ValueError("scales, depth and decay: one of them at most")
        if scales is not None:
            quantizer = MultiScale(scales, codes, width)
        elif depth is not None:
            quantizer = Residual(depth, codes, width)
        else:
            quantizer = Quantizer(codes, width, decay=decay)
        like = ConvAutoencoder(shape, width, factor, channels)
        # of its encoder the last layer gives mean and log_var; here is no log_var
        last = nn.Conv2d(like.encoder[-1].in_channels, width, 3, padding=1)
        super().__init__(nn.Sequential(*like.encoder[:-1], last), like.decoder, quantizer)
        self.shape = tuple(shape)
