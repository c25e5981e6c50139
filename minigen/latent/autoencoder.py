"""From images to latents and back, and latents of unit variance."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import X, check_answer, check_batch, check_finite, readable
from minigen.vae import kl_normal, reparameterize


class Autoencoder(nn.Module):
    """x -> q(z | x) = N(mean, diag exp(log_var)) -> x: two networks, no likelihood.

    encoder(x) -> (B, 2c, *N), mean and log_var along the second axis; decoder(z) -> shaped as x.
    [Rombach et al. 2022, section 3.1]
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor], decoder: Callable[[Tensor], Tensor]):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: X) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """The mean and log_var of q(z | x), each (B, c, *N)."""
        check_batch(x, "x")
        out = self.encoder(x)
        if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x) or out.shape[1] % 2:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"the encoder must give mean and log_var along the second axis, ({len(x)}, 2c, …), "
                f"but gave {got}"
            )
        return tuple(out.chunk(2, dim=1))

    def decode(self, z: Float[Tensor, "B ..."]) -> X:
        """The data that z stands for."""
        check_batch(z, "z")
        return self.decoder(z)


def loss(
    model: Autoencoder, x: X, *, kl: float = 1e-4, generator: torch.Generator | None = None
) -> Float[Tensor, " B"]:
    """‖x − decode(z)‖²/D + kl · KL(q(z | x) ‖ N(0, I))/k, z ~ q(z | x), for each sample.

    Means over the D data values and the k latents, so that `kl` means the same at every size; a
    small one only keeps the latents from running off. Raises ValueError for kl < 0, and where the
    decoder's answer is not shaped as x. [Rombach et al. 2022, appendix G]
    """
    if not 0 <= kl < math.inf:
        raise ValueError(f"kl is the weight of a divergence and not negative, got {kl}")
    mean, log_var = model.encode(x)
    z = reparameterize(mean, log_var, generator=generator)
    error = (check_answer(model.decode(z), x) - x).square().reshape(len(x), -1).mean(1)
    return error + kl * kl_normal(mean, log_var) / mean[0].numel()


# Unit variance ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standard:
    """An affine map for each channel, after which the latents have mean 0 and variance 1.

    A schedule is made for unit variance: a standard deviation s shifts its log-SNR by 2 log s.
    """

    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]

    @classmethod
    def fit(cls, z: Float[Tensor, "B c ..."]) -> "Standard":
        """The map that makes these latents standard.

        Raises ValueError for a channel that is constant, and for NaN.
        """
        check_batch(z, "z")
        if z.ndim < 2:
            raise ValueError(f"latents have a channel axis, (B, c, …), got {tuple(z.shape)}")
        flat = check_finite(z.detach(), "z").transpose(0, 1).flatten(1)
        std = flat.std(1)
        if not bool((std > 0).all()):
            dead = (~(std > 0)).nonzero().flatten().tolist()
            raise ValueError(f"channel {dead[0]} of the latents is constant: nothing to scale")
        return cls(flat.mean(1), std)

    def _along(self, c: Float[Tensor, " c"], z: Tensor) -> Tensor:
        if z.ndim < 2 or z.shape[1] != len(c):
            raise ValueError(f"these latents have {len(c)} channels, got z {tuple(z.shape)}")
        return c.to(z).reshape(-1, *(1,) * (z.ndim - 2))

    def to(self, z: Float[Tensor, "B c ..."]) -> Float[Tensor, "B c ..."]:
        """(z − mean)/std."""
        return (z - self._along(self.mean, z)) / self._along(self.std, z)

    def back(self, z: Float[Tensor, "B c ..."]) -> Float[Tensor, "B c ..."]:
        """std z + mean, the inverse of `to`."""
        return self._along(self.std, z) * z + self._along(self.mean, z)


def check_standard(z: Float[Tensor, "B c ..."]) -> None:
    """Raises ValueError unless each channel's standard deviation is within a factor 2 of 1."""
    check_batch(z, "z")
    if readable(z):
        std = z.detach().transpose(0, 1).flatten(1).std(1)
        wrong = ~((std > 0.5) & (std < 2))
        if bool(wrong.any()):
            k = int(wrong.nonzero()[0])
            raise ValueError(
                f"channel {k} of the latents has a standard deviation of {float(std[k]):.3g}: a "
                f"schedule expects 1, so scale them by Standard.fit(z).to"
            )
