"""The model: an encoder, a decoder and a likelihood."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from minigen.shapes import X, check_batch, check_count, check_finite, noise, readable

from .likelihoods import Gaussian

Latent = Float[Tensor, "B k"]


class VAE(nn.Module):
    """A density with latents and the encoder that guesses them.

    p(x, z) = N(z; 0, I) p(x | z), q(z | x) = N(mean, diag exp(log_var)).
    encoder(x) -> (B, 2k), mean and log_var side by side; decoder(z) -> the likelihood's parameters,
    shaped as x; likelihood(parameters) -> a torch Distribution that gives (B,) log-densities, such
    as `Bernoulli()` or `Gaussian()`. `latent` is k, learned at the first encode unless given.
    [Kingma & Welling 2014; Rezende et al. 2014]
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        decoder: Callable[[Tensor], Tensor],
        likelihood: Callable[[Tensor], Distribution],
        *,
        latent: int | None = None,
    ):
        super().__init__()
        if latent is not None:
            check_count(latent, "latent")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent = latent

    def encode(self, x: X) -> tuple[Latent, Latent]:
        """The mean and log_var of q(z | x), each (B, k)."""
        check_batch(x, "x")
        if readable(x):
            check_finite(x)
        out = self.encoder(x)
        shape = tuple(getattr(out, "shape", ()))  # two tensors in a tuple have none
        width = shape[1] if len(shape) == 2 else 0
        fits = width == 2 * self.latent if self.latent else width > 0 and width % 2 == 0
        if shape[:1] != x.shape[:1] or not fits:
            want = f"2 × {self.latent}" if self.latent else "2k"
            raise ValueError(
                f"the encoder must give mean and log_var side by side, ({len(x)}, {want}), "
                f"but gave {shape or type(out).__name__}"
            )
        if readable(x) and not bool(torch.isfinite(out).all()):
            raise ValueError(
                "the encoder gave NaN or infinite values: training has diverged (a lower learning "
                "rate, clipped gradients), or x is far larger than 1"
            )
        self.latent = width // 2
        return tuple(out.chunk(2, dim=1))

    def decode(self, z: Latent) -> Distribution:
        """p(x | z) as a torch Distribution; its `.mean` is the picture to look at."""
        return self.likelihood(self.decoder(z))

    def log_prob(self, x: X, z: Float[Tensor, "S B k"]) -> Float[Tensor, "S B"]:
        """log p(x | z) of each sample at S latents each, in nats."""
        check = getattr(self.likelihood, "check", None)
        if check is not None and readable(x):
            check(x)
        p = self.decode(z.flatten(0, 1))
        x = x[:, None] if x.ndim == 1 and p.event_shape == (1,) else x  # (B,) is (B, 1)
        rows = x.expand(len(z), *x.shape).flatten(0, 1)
        if p.batch_shape != rows.shape[:1] or p.event_shape != x.shape[1:]:
            raise ValueError(
                f"for z {tuple(z.flatten(0, 1).shape)} decoder and likelihood must give one "
                f"density over {tuple(x.shape[1:])} for each row, as x has, but gave "
                f"{tuple(p.batch_shape)} of them over {tuple(p.event_shape)}"
            )
        return p.log_prob(rows).unflatten(0, z.shape[:2])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> X:
        """Draw n samples of p(x): z ~ N(0, I), then x ~ p(x | z), without gradients.

        Raises ValueError while the latent size is not known, before the first encode.
        """
        check_count(n)
        if self.latent is None:
            raise ValueError("the latent size is not known: encode data first, or VAE(…, latent=k)")
        home = next(self.parameters(), torch.empty(0))
        with torch.no_grad():
            z = noise(home.new_empty(n, self.latent), generator=generator)
            return _draw(self.decode(z), z.device, generator)


def _draw(p: Distribution, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """A draw of any torch distribution. They know the global generator only: it is lent a seed."""
    if generator is None:
        return p.sample()
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        return p.sample()


def mlp(
    shape: int | tuple[int, ...],
    latent: int,
    hidden: int = 256,
    depth: int = 2,
    likelihood: Callable[[Tensor], Distribution] | None = None,
) -> VAE:
    """A VAE of plain networks: `depth` layers of `hidden` SiLU units on either side.

    `shape` is that of one sample, an int D or a tuple such as (1, 8, 8); depth = 0 gives linear
    maps; the likelihood is `Gaussian()` unless given.
    """
    check_count(latent, "latent")
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    for size in (*shape, hidden, depth + 1):
        check_count(size, "a size")
    dim = math.prod(shape)
    encoder = nn.Sequential(_Vectors(), *_layers(dim, hidden, depth, 2 * latent))
    decoder = nn.Sequential(*_layers(latent, hidden, depth, dim), nn.Unflatten(1, shape))
    return VAE(encoder, decoder, Gaussian() if likelihood is None else likelihood, latent=latent)


class _Vectors(nn.Flatten):
    """Samples of any shape as vectors (B, D); numbers (B,) are (B, 1)."""

    def forward(self, x: X) -> Tensor:
        return super().forward(x[:, None])


def _layers(into: int, hidden: int, depth: int, out: int) -> list[nn.Module]:
    widths = [into, *[hidden] * depth]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    inner = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.SiLU())]
    return [*inner, nn.Linear(widths[-1], out)]
