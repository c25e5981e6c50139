"""Checks of the exercises of lecture 2, the variational autoencoder."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.checks import Wrong, ask
from minigen.checks.vae_weights import IWAE_SLIPS, B, S, draws, iwae
from minigen.vae import kl_normal

D, K = 6, 3  # pixels, latents


# The bound: each part, and its slips ------------------------------------------------------------


def _kl(mean: Tensor, log_var: Tensor, *, factor=0.5, square=torch.square, var=torch.exp, log=1,
        one=1, over=lambda terms: terms.sum(1)) -> Tensor:  # fmt: skip
    """½ Σ (mean² + v − log v − 1), or one with the slips named: each replaces one quantity."""
    v = var(log_var)
    return over(factor * (square(mean) + v - log * v.log() - one))


KL_SLIPS = {
    "your KL is a mean over the latents: a KL of independent latents is their sum": partial(
        _kl, over=lambda terms: terms.mean(1)
    ),
    "you took log_var for a log-std: its variance is exp(log_var)": partial(
        _kl, var=lambda log_std: (2 * log_std).exp()
    ),
    "you took log_var for the variance itself: the variance is exp(log_var)": partial(
        _kl, var=lambda v: v
    ),
    "you took log_var for the standard deviation: the variance is exp(log_var)": partial(
        _kl, var=torch.square
    ),
    "your KL is KL(p ‖ q), from the prior; the bound has KL(q ‖ p)": (
        lambda mean, log_var: kl_normal(0 * mean, 0 * log_var, mean, log_var)
    ),
    "your KL is half of what it should be: is the ½ there twice?": partial(_kl, factor=0.25),
    "log_var enters your KL with the other sign: ½ (mean² + exp(log_var) − log_var − 1)": partial(
        _kl, log=-1
    ),
    "your KL has forgotten − log_var: ½ (mean² + exp(log_var) − log_var − 1)": partial(_kl, log=0),
    "the −1 of your KL is missing: q = p must give 0": partial(_kl, one=0),
    "your KL ends in + 1 where − 1 belongs: q = p must give 0": partial(_kl, one=-1),
    "your KL is twice too large: ½ stands in front of the sum": partial(_kl, factor=1),
    "your KL has forgotten the mean: its square belongs to it": partial(
        _kl, square=torch.zeros_like
    ),
    "the mean enters your KL without its square": partial(_kl, square=lambda mean: mean),
    "the ½ of your KL does not reach the mean: ½ (mean² + exp(log_var) − log_var − 1)": partial(
        _kl, square=lambda mean: 2 * mean.square()
    ),
    "your KL holds the standard deviation, exp(log_var/2), where the variance belongs": (
        lambda mean, log_var: (
            _kl(mean, log_var) - 0.5 * (log_var.exp() - (log_var / 2).exp()).sum(1)
        )
    ),
    "your KL is that of unit variances, ½ mean²: log_var belongs to it": (
        lambda mean, log_var: 0.5 * mean.square().sum(1)
    ),
    "the KL must be subtracted, you added it": partial(_kl, factor=-0.5),
    "the KL is missing: that is the reconstruction alone": partial(_kl, factor=0),
    "your KL is one sum for the whole batch: sum over the latents only, .sum(-1)": partial(
        _kl, over=torch.sum
    ),
    "your KL is one mean for the whole batch: sum over the latents only, .sum(-1)": partial(
        _kl, over=torch.mean
    ),
    "your KL is averaged over the batch: keep its axis, (B,)": partial(
        _kl, over=lambda terms: terms.sum(1).mean()
    ),
}


def _likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x | z) of every pixel, (S, B, D)."""
    return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")


LOGITS = "logits are not probabilities: π = sigmoid(logits), or a loss that says `with_logits`"
LIKELIHOOD_SLIPS = {
    "you averaged the logits over the draws first: average the log-likelihoods": (
        lambda x, logits: _likelihood(x, logits.mean(0, keepdim=True))
    ),
    "that is a squared error; the likelihood is Bernoulli": (
        lambda x, logits: -(x - logits.sigmoid()).square()
    ),
    "that is ½ a squared error; the likelihood is Bernoulli": (
        lambda x, logits: -0.5 * (x - logits.sigmoid()).square()
    ),
    "log(1 + e^ℓ) is missing: x ℓ − softplus(ℓ)": lambda x, logits: x * logits,
    "log(1 + e^ℓ) is subtracted, not added: x ℓ − softplus(ℓ)": (
        lambda x, logits: x * logits + F.softplus(logits)
    ),
    "log(1 + e^ℓ) is softplus(ℓ), not softplus(−ℓ)": (
        lambda x, logits: x * logits - F.softplus(-logits)
    ),
    "sigmoid was applied twice: a loss `with_logits` wants the logits as they are": (
        lambda x, logits: _likelihood(x, logits.sigmoid())
    ),
    "your reconstruction has the wrong sign: a log-probability, not a cross-entropy": (
        lambda x, logits: -_likelihood(x, logits)
    ),
    "zeros and ones have changed places: log π belongs to x = 1": (
        lambda x, logits: _likelihood(1 - x, logits)
    ),
    "only the pixels that are 1 were counted: (1 − x) log(1 − π) is missing": (
        lambda x, logits: x * F.logsigmoid(logits)
    ),
    f"it holds NaN, the log of a negative number: {LOGITS}": (
        lambda x, logits: x * logits.log() + (1 - x) * (1 - logits).log()
    ),
}

REDUCTION_SLIPS = {  # of the pixels' log-likelihoods, (S, B, D)
    "you took the mean over the pixels: log p(x | z) of an image is their sum": (
        lambda pixels: pixels.mean((0, 2))
    ),
    "you summed the draws of z: average them, or the KL weighs S times too little": (
        lambda pixels: pixels.sum((0, 2))
    ),
    "you used the first draw of z only: average over all S": lambda pixels: pixels[0].sum(-1),
    "you took the log of the mean likelihood; the ELBO is the mean of the logs": (
        lambda pixels: pixels.sum(-1).exp().mean(0).log()
    ),
    "you averaged the probabilities over the draws first: average the log-likelihoods": (
        lambda pixels: pixels.exp().mean(0).log().sum(-1)
    ),
    "your reconstruction is one mean for the whole batch: reduction='none', then .sum(-1)": (
        torch.mean
    ),
    "your reconstruction is one sum for the whole batch: reduction='none', then .sum(-1)": (
        torch.sum
    ),
    "your reconstruction is one sum for the whole batch, divided by S: .sum(-1), then .mean(0)": (
        lambda pixels: pixels.sum() / len(pixels)
    ),
    "you used the last draw of z only: average over all S": lambda pixels: pixels[-1].sum(-1),
    "the axis of the draws is still there: average over it": lambda pixels: pixels.sum(-1),
}


# The bound: the whole ---------------------------------------------------------------------------


def _elbo(x, logits, mean, log_var, *, likelihood=_likelihood,
          over=lambda pixels: pixels.sum(-1).mean(0), kl=_kl) -> Tensor:  # fmt: skip
    return over(likelihood(x, logits)) - kl(mean, log_var)


BATCH = "the batch is averaged: keep its axis, (B,), and leave that to the caller"
PARTS = {"kl": KL_SLIPS, "likelihood": LIKELIHOOD_SLIPS, "over": REDUCTION_SLIPS}
ELBO_SLIPS = {
    "both are means, over pixels and over latents: logs of products are sums": partial(
        _elbo,
        over=lambda pixels: pixels.mean((0, 2)),
        kl=partial(_kl, over=lambda terms: terms.mean(1)),
    ),
    "this is the loss, −ELBO: the bound itself is asked for": lambda *case: -_elbo(*case),
    "this is in bits: nats are natural logarithms": lambda *case: _elbo(*case) / math.log(2),
    "the draws are summed, in both parts: average over them": lambda *case: S * _elbo(*case),
    BATCH: lambda *case: _elbo(*case).mean(),
    "the batch is summed: keep its axis, (B,)": lambda *case: _elbo(*case).sum(),
    **{w: partial(_elbo, **{p: s}) for p, slips in PARTS.items() for w, s in slips.items()},
}
# A loss is often averaged over the batch too. These are not in SLIPS, since some give one number:
# a mean over the latents, then over the batch, is one mean for the whole batch.
AVERAGED = {
    f"{why}; and {BATCH}": lambda *case, slip=slip: slip(*case).mean()
    for why, slip in ELBO_SLIPS.items()
}


def elbo(function: Callable) -> None:
    """Checks elbo(x, logits, mean, log_var) -> (B,), the bound of a Bernoulli VAE in nats.

    x (B, D) of zeros and ones, logits (S, B, D) of S draws of z, mean and log_var (B, k). Raises
    NotYet, or Wrong with a diagnosis.
    """
    x, logits, (mean, log_var) = (draws(B, D) > 0.7).double(), 2 * draws(S, B, D), draws(2, B, K)
    log_var = 0.2 + log_var.abs()  # above 0: one taken for a variance must have a logarithm
    try:
        ask("the ELBO", function, _elbo, ELBO_SLIPS | AVERAGED, x, logits, mean, log_var)
    except (Wrong, RuntimeError, ValueError) as error:
        said = str(error)
        if "shapes did not fit" in said:
            raise Wrong(
                f"{said.split(': is one')[0]}: both parts of the bound are (B,); pixels and "
                f"latents are the last axis, .sum(-1), and the draws the first, .mean(0)"
            ) from None
        if "between 0 and 1" in said or "parameter probs" in said:  # torch, of a π outside [0, 1]
            raise Wrong(f"{LOGITS} ({said.splitlines()[0]})") from None
        if "Target size" in said:
            raise Wrong(f"x has no axis of draws: x.expand_as(logits) ({said})") from None
        raise
    print("right: the ELBO of five images, averaged over four draws of z, in nats")


SLIPS = {elbo: ELBO_SLIPS, iwae: IWAE_SLIPS}
