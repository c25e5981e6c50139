"""The variational autoencoder: a density with latents, and a bound on its logarithm to climb.

p(x) = ∫ p(x | z) N(z; 0, I) dz has no closed form where p(x | z) is a network. With an encoder's
q(z | x) = N(mean, diag exp(log_var)),

    log p(x) = E_q[log p(x | z)] − KL(q ‖ N(0, I)) + KL(q ‖ p(z | x)),

and without the last term, which is ≥ 0, it is the ELBO. Everything is in nats per sample, summed
over the values of x and of z. `log_var` is always the logarithm of a variance.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributions as dist
from torch.distributions import Distribution

from minigen.data import check_finite
from minigen.linear_gaussian import LinearGaussian as LinearGaussian
from minigen.linear_gaussian import check_latent
from minigen.shapes import X, noise

Latent = Float[Tensor, "B k"]
Nats = Float[Tensor, " B"]
Number = int | float | Float[Tensor, "..."]

CHUNK = 2**20  # how many values of x `iwae` decodes at once


# Normals ----------------------------------------------------------------------------------------


def _kl_terms(delta_mean: Tensor, delta_log_var: Tensor, log_var2: Number) -> Tensor:
    # dtype=: a Python number would pass through float32 on its way to float64
    log_var2 = torch.as_tensor(log_var2, dtype=delta_mean.dtype, device=delta_mean.device)
    # expm1: near q = p both variance terms are tiny, exp(…) − 1 would be rounding
    change = torch.expm1(delta_log_var) - delta_log_var
    return 0.5 * (delta_mean.square() * torch.exp(-log_var2) + change)


def kl_residual(
    delta_mean: Float[Tensor, "B *K"], delta_log_var: Float[Tensor, "B *K"], log_var2: Number
) -> Nats:
    """KL(N(m + Δm, v Δv) ‖ N(m, v)) = ½ Σ (Δm²/v + Δv − log Δv − 1), summed over latents, nats.

    `delta_log_var` is log Δv, `log_var2` log v, a tensor or a number. [Vahdat & Kautz 2020, eq. 2]
    """
    return _kl_terms(delta_mean, delta_log_var, log_var2).flatten(1).sum(1)


def kl_normal(
    mean: Float[Tensor, "B *K"],
    log_var: Float[Tensor, "B *K"],
    mean2: Number = 0.0,
    log_var2: Number = 0.0,
) -> Nats:
    """KL(N(mean, v) ‖ N(mean2, v2)) = ½ Σ (log v2/v + (v + (mean − mean2)²)/v2 − 1), nats.

    Summed over all axes but the first; the second normal, N(0, I) unless given, may be numbers or
    tensors that broadcast. [Kingma & Welling 2014, appendix B]
    """
    return kl_residual(mean - mean2, log_var - log_var2, log_var2)


def reparameterize(
    mean: Float[Tensor, "..."],
    log_var: Float[Tensor, "..."],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """z = mean + exp(log_var/2) eps, eps ~ N(0, I): a draw of q that gradients flow through.

    Raises ValueError where the two have different shapes. [Kingma & Welling 2014, section 2.4]
    """
    if mean.shape != log_var.shape:
        raise ValueError(
            f"mean and log_var need one shape, got {tuple(mean.shape)} and {tuple(log_var.shape)}"
        )
    return mean + torch.exp(0.5 * log_var) * noise(mean, generator=generator)


# The bounds -------------------------------------------------------------------------------------


class Elbo(NamedTuple):
    """The bound of each sample and its parts, nats: total = reconstruction − beta · kl."""

    reconstruction: Nats
    kl: Nats
    total: Nats


def _check_samples(samples: int) -> None:
    if samples < 1:
        raise ValueError(f"samples is the number of draws of z and must be 1 or more: {samples}")


def elbo(
    vae: "VAE",
    x: X,
    *,
    samples: int = 1,
    beta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Elbo:
    """(1/S) Σ_s log p(x | z_s) − beta KL(q(z | x) ‖ N(0, I)), z_s ~ q(z | x); the KL exact.

    Maximise total.mean(). The `samples` draws are averaged: their sum would weigh the KL S times
    too little. [Kingma & Welling 2014, eq. 7; beta: Higgins et al. 2017]
    Raises ValueError for samples < 1, beta < 0, x that is not finite or not in the likelihood's
    range, an encoder or decoder whose result has the wrong shape or holds NaN.
    """
    _check_samples(samples)
    if not beta >= 0:
        raise ValueError(f"beta is the weight of the KL and must be 0 or more, got {beta}")
    mean, log_var = vae.encode(x)
    draws = (p.expand(samples, *p.shape) for p in (mean, log_var))
    reconstruction = vae.log_prob(x, reparameterize(*draws, generator=generator)).mean(0)
    kl = kl_normal(mean, log_var)
    return Elbo(reconstruction, kl, reconstruction - beta * kl)


def iwae(vae: "VAE", x: X, *, samples: int, generator: torch.Generator | None = None) -> Nats:
    """log (1/S) Σ_s p(x | z_s) N(z_s; 0, I)/q(z_s | x), z_s ~ q(z | x), in nats.

    In expectation it is the ELBO at S = 1, grows with S, and tends to log p(x). Decodes about
    2²⁰ values at a time, so that under torch.no_grad() memory does not grow with `samples`.
    [Burda et al. 2016, eq. 8]
    Raises ValueError as `elbo`.
    """
    _check_samples(samples)
    mean, log_var = vae.encode(x)
    at_once = max(1, CHUNK // x.numel())
    log_weights = []
    for start in range(0, samples, at_once):
        eps = noise(mean.expand(min(at_once, samples - start), *mean.shape), generator=generator)
        z = mean + torch.exp(0.5 * log_var) * eps
        # log N(z; 0, I) − log q(z | x); in terms of eps, so that no variance is divided by
        log_ratio = 0.5 * (log_var + eps.square() - z.square()).sum(-1)
        log_weights.append(vae.log_prob(x, z) + log_ratio)
    return torch.cat(log_weights).logsumexp(0) - math.log(samples)


def free_bits(mean: Latent, log_var: Latent, floor: float) -> Float[Tensor, ""]:
    """Σ_j max(floor, KL_j), KL_j latent j's KL to N(0, 1), averaged over the batch, in nats.

    In place of the mean KL it lets each latent say `floor` nats at no cost, so that none is
    switched off early in training. [Kingma et al. 2016, eq. 15]
    """
    if not floor >= 0:
        raise ValueError(f"floor is in nats per latent and must be 0 or more, got {floor}")
    return _kl_terms(mean, log_var, 0.0).mean(0).clamp(min=floor).sum()


def active_units(mean: Float[Tensor, "N k"], threshold: float = 0.01) -> int:
    """How many latents depend on x: Var_x(E[z_j | x]) > threshold. [Burda et al. 2016, section 5]

    `mean` are the encoder's means of N ≥ 2 samples.
    """
    if len(mean) < 2:
        raise ValueError(f"a variance over the data needs two samples or more, got {len(mean)}")
    return int((mean.var(0) > threshold).sum())


# Likelihoods ------------------------------------------------------------------------------------


class Bernoulli(nn.Module):
    """p(x | z) = ∏ π^x (1 − π)^(1 − x), π = sigmoid(decoder(z)), for x in [0, 1].

    A probability where x is 0 or 1; for grey values a cross-entropy: not normalised, no likelihood
    to set beside others. [Loaiza-Ganem & Cunningham 2019]
    """

    def check(self, x: Tensor) -> None:
        """Raises ValueError unless x lies in [0, 1]."""
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"a Bernoulli likelihood needs x in [0, 1], got values from {low:g} to {high:g}; "
                f"for images in [-1, 1]: (x + 1) / 2"
            )

    def forward(self, logits: X) -> Distribution:
        # unvalidated: torch's own check would refuse grey values
        return dist.Independent(dist.Bernoulli(logits=logits, validate_args=False), logits.ndim - 1)


class Gaussian(nn.Module):
    """p(x | z) = N(decoder(z), σ² I) with one learned log σ² = `log_var`, as in probabilistic PCA.

    It starts at the number given. Use `vae.to(x.dtype)` for float64.
    """

    def __init__(self, log_var: float = 0.0):
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(float(log_var)))

    def forward(self, mean: X) -> Distribution:
        std = torch.exp(0.5 * self.log_var).to(mean.dtype)
        return dist.Independent(dist.Normal(mean, std, validate_args=False), mean.ndim - 1)


# The model --------------------------------------------------------------------------------------


class VAE(nn.Module):
    """p(x, z) = N(z; 0, I) p(x | z) with an encoder q(z | x) = N(mean, diag exp(log_var)).

    encoder(x) -> (B, 2k), mean and log_var side by side; decoder(z) -> the likelihood's parameters,
    shaped as x; likelihood(parameters) -> a torch Distribution that gives (B,) log-densities, such
    as `Bernoulli()` or `Gaussian()`. `latent` is k, learned at the first encode unless given.
    Raises ValueError for latent < 1. [Kingma & Welling 2014; Rezende et al. 2014]
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
            check_latent(latent)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent = latent

    def encode(self, x: X) -> tuple[Latent, Latent]:
        """mean and log_var of q(z | x), each (B, k); raises ValueError where they are no such."""
        if x.device.type == "cpu":  # on an accelerator a look at values would wait for the device
            check_finite(x)
        out = self.encoder(x)
        width = out.shape[1] if out.ndim == 2 else 0
        fits = width == 2 * self.latent if self.latent else width > 0 and width % 2 == 0
        if out.shape[:1] != x.shape[:1] or not fits:
            want = f"2 × {self.latent}" if self.latent else "2k"
            raise ValueError(
                f"the encoder must give mean and log_var side by side, ({len(x)}, {want}), "
                f"but gave {tuple(out.shape)}"
            )
        if x.device.type == "cpu" and not bool(torch.isfinite(out).all()):
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
        """log p(x | z) of each sample at S latents each, in nats; raises ValueError as `elbo`."""
        check = getattr(self.likelihood, "check", None)
        if check is not None and x.device.type == "cpu":
            check(x)
        p = self.decode(z.flatten(0, 1))
        rows = x.expand(len(z), *x.shape).flatten(0, 1)
        if p.batch_shape != rows.shape[:1] or p.event_shape != x.shape[1:]:
            raise ValueError(
                f"for z {tuple(z.flatten(0, 1).shape)} decoder and likelihood must give one "
                f"density over {tuple(x.shape[1:])} for each row, as x has, but gave "
                f"{tuple(p.batch_shape)} of them over {tuple(p.event_shape)}"
            )
        return p.log_prob(rows).unflatten(0, z.shape[:2])

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> X:
        """n draws of p(x): z ~ N(0, I), then x ~ p(x | z), without gradients.

        Raises ValueError where the latent size is not yet known.
        """
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
    maps; the likelihood is `Gaussian()` unless given. Raises ValueError for sizes < 1.
    """
    check_latent(latent)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if min(*shape, hidden) < 1 or depth < 0:
        raise ValueError(f"sizes must be positive, got {shape}, hidden={hidden}, depth={depth}")
    dim = math.prod(shape)
    encoder = nn.Sequential(nn.Flatten(), *_layers(dim, hidden, depth, 2 * latent))
    decoder = nn.Sequential(*_layers(latent, hidden, depth, dim), nn.Unflatten(1, shape))
    return VAE(encoder, decoder, Gaussian() if likelihood is None else likelihood, latent=latent)


def _layers(into: int, hidden: int, depth: int, out: int) -> list[nn.Module]:
    widths = [into, *[hidden] * depth]
    pairs = zip(widths[:-1], widths[1:], strict=True)
    inner = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.SiLU())]
    return [*inner, nn.Linear(widths[-1], out)]
