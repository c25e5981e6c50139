"""The evidence's lower bounds, and the KL of normals that they need, in nats per sample."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.normal import kl_terms
from minigen.shapes import X, check_alike, check_batch, check_count, check_tensor, noise

from .model import VAE, Latent

Nats = Float[Tensor, " B"]
Number = int | float | Float[Tensor, "..."]

CHUNK = 2**20  # how many values of x `iwae` decodes at once


# Normals ----------------------------------------------------------------------------------------


def kl_residual(
    delta_mean: Float[Tensor, "B *K"], delta_log_var: Float[Tensor, "B *K"], log_var2: Number
) -> Nats:
    """KL of two normals from the difference of their means and the ratio of variances, nats.

    KL(N(m + Δm, v Δv) ‖ N(m, v)) = ½ Σ (Δm²/v + Δv − log Δv − 1), summed over latents.
    `delta_log_var` is log Δv, `log_var2` log v. [Vahdat & Kautz 2020, eq. 2]
    """
    check_tensor(delta_mean, "delta_mean")
    check_tensor(delta_log_var, "delta_log_var")
    if delta_mean.shape != delta_log_var.shape:
        shapes = f"{tuple(delta_mean.shape)} and {tuple(delta_log_var.shape)}"
        raise ValueError(f"delta_mean and delta_log_var share one shape, got {shapes}")
    # dtype=: a Python number would pass through float32 on its way to float64
    dtype = torch.result_type(delta_mean, 1.0)
    log_var2 = torch.as_tensor(log_var2, dtype=dtype, device=delta_mean.device)
    terms = kl_terms(delta_mean * torch.exp(-0.5 * log_var2), delta_log_var)
    return terms[:, None].flatten(1).sum(1)  # (B,) is (B, 1)


def kl_normal(
    mean: Float[Tensor, "B *K"],
    log_var: Float[Tensor, "B *K"],
    mean2: Number = 0.0,
    log_var2: Number = 0.0,
) -> Nats:
    """KL to the second normal, N(0, I) unless given, summed over all axes but the first, nats.

    KL(N(mean, v) ‖ N(mean2, v2)) = ½ Σ (log v2/v + (v + (mean − mean2)²)/v2 − 1).
    [Kingma & Welling 2014, appendix B]
    """
    check_alike(mean, log_var, "mean and log_var")
    return kl_residual(mean - mean2, log_var - log_var2, log_var2)


def reparameterize(
    mean: Float[Tensor, "..."],
    log_var: Float[Tensor, "..."],
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """A draw mean + exp(log_var/2) eps, differentiable. [Kingma & Welling 2014, section 2.4]"""
    check_alike(mean, log_var, "mean and log_var")
    return mean + torch.exp(0.5 * log_var) * noise(mean, generator=generator)


# The bounds -------------------------------------------------------------------------------------


class Elbo(NamedTuple):
    """The bound of each sample and its parts, nats: total = reconstruction − beta · kl."""

    reconstruction: Nats
    kl: Nats
    total: Nats


def elbo(
    vae: VAE,
    x: X,
    *,
    samples: int = 1,
    beta: float = 1.0,
    generator: torch.Generator | None = None,
) -> Elbo:
    """The lower bound on log p(x) of each sample, with the KL exact: maximise total.mean().

    (1/S) Σ_s log p(x | z_s) − beta KL(q(z | x) ‖ N(0, I)), z_s ~ q(z | x).
    The `samples` draws are averaged: their sum would weigh the KL S times too little.
    [Kingma & Welling 2014, eq. 7; beta: Higgins et al. 2017]
    """
    check_count(samples, "samples")
    if not beta >= 0:
        raise ValueError(f"beta is the weight of the KL and must be 0 or more, got {beta}")
    mean, log_var = vae.encode(x)
    draws = (p.expand(samples, *p.shape) for p in (mean, log_var))
    reconstruction = vae.log_prob(x, reparameterize(*draws, generator=generator)).mean(0)
    kl = kl_normal(mean, log_var)
    return Elbo(reconstruction, kl, reconstruction - beta * kl)


def iwae(vae: VAE, x: X, *, samples: int, generator: torch.Generator | None = None) -> Nats:
    """The importance-weighted lower bound on log p(x) of each sample, in nats.

    log (1/S) Σ_s p(x | z_s) N(z_s; 0, I)/q(z_s | x), z_s ~ q(z | x).
    In expectation it is the ELBO at S = 1, grows with S, and tends to log p(x). Decodes about
    2²⁰ values at a time, so that under torch.no_grad() memory does not grow with `samples`.
    [Burda et al. 2016, eq. 8]
    """
    check_count(samples, "samples")
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
    """The KL to N(0, I) in which each latent may say `floor` nats at no cost.

    Σ_j max(floor, KL_j), KL_j that of latent j averaged over the batch, in nats.
    It stands in place of the mean KL, so that no latent is switched off early in training.
    [Kingma et al. 2016, eq. 15]
    """
    if not floor >= 0:
        raise ValueError(f"floor is in nats per latent and must be 0 or more, got {floor}")
    check_batch(mean, "mean")
    check_alike(mean, log_var, "mean and log_var")
    return kl_terms(mean, log_var).mean(0).clamp(min=floor).sum()


def active_units(mean: Float[Tensor, "N k"], threshold: float = 0.01) -> int:
    """How many encoder means vary with x: Var mean_j > threshold. [Burda et al. 2016, section 5]"""
    check_batch(mean, "mean")
    if len(mean) < 2:
        raise ValueError(f"a variance over the data needs two samples or more, got {len(mean)}")
    return int((mean.var(0) > threshold).sum())
