"""Checks of the exercises of lecture 2, the variational autoencoder."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.checks import Wrong, ask
from minigen.vae import kl_normal

S, B, D, K = 4, 5, 6, 3  # draws, samples, pixels, latents


def _draws(*shape: int) -> Tensor:
    """Values with a mean far from 0, float64, always the same."""
    return 0.7 + torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# The bound: each part, and its slips ------------------------------------------------------------


def _kl(mean: Tensor, log_var: Tensor, *, factor=0.5, square=1, var=torch.exp, log=1, one=1,
        over=lambda terms: terms.sum(1)) -> Tensor:  # fmt: skip
    """½ Σ (mean² + v − log v − 1), or one with the slips named: each replaces one quantity."""
    v = var(log_var)
    return over(factor * (square * mean.square() + v - log * v.log() - one))


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
    "your KL has forgotten the mean: its square belongs to it": partial(_kl, square=0),
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
    x, logits, (mean, log_var) = (_draws(B, D) > 0.7).double(), 2 * _draws(S, B, D), _draws(2, B, K)
    log_var = 0.2 + log_var.abs()  # above 0: one taken for a variance must have a logarithm
    try:
        ask("the ELBO", function, _elbo, ELBO_SLIPS | AVERAGED, x, logits, mean, log_var)
    except (RuntimeError, ValueError) as error:
        said = str(error)
        if "between 0 and 1" in said or "parameter probs" in said:  # torch, of a π outside [0, 1]
            raise Wrong(f"{LOGITS} ({said.splitlines()[0]})") from None
        if "Target size" in said:
            raise Wrong(f"x has no axis of draws: x.expand_as(logits) ({said})") from None
        raise
    print("right: the ELBO of five images, averaged over four draws of z, in nats")


# Many weights -----------------------------------------------------------------------------------


def _iwae(w: Tensor, *, count: Callable = len, dim: int = 0) -> Tensor:
    return w.logsumexp(dim) - math.log(count(w))


def _shifted(w: Tensor, top: Tensor) -> Tensor:
    """log mean exp of what is left of the weights when `top` is taken out."""
    return (w - top).exp().mean(0).log()


IWAE_SLIPS = {
    "that is the mean of the logs, the ELBO: the mean belongs inside the log": lambda w: w.mean(0),
    "− log S is missing: a mean over S weights, not their sum": partial(_iwae, count=lambda w: 1),
    "you added log S: a mean divides by S, so log S is subtracted": partial(
        _iwae, count=lambda w: 1 / len(w)
    ),
    "you divided the log by S: dividing the sum by S takes log S from its log": (
        lambda w: w.logsumexp(0) / len(w)
    ),
    "you subtracted the log of the batch's size: the mean is over the S draws": partial(
        _iwae, count=lambda w: w.shape[1]
    ),
    "exp leaves the floats, e^−900 = 0 and e^800 = ∞: take out each sample's largest log weight "
    "first, or use logsumexp": lambda w: w.exp().mean(0).log(),
    "you took out the largest of the whole batch, and exp is 0 again elsewhere: take each "
    "sample's own": lambda w: w.max() + _shifted(w, w.max()),
    "the largest log weight was taken out and not put back": lambda w: _shifted(w, w.amax(0)),
    "that is the largest log weight alone: the others count too": lambda w: w.amax(0),
    "the logarithm of a logarithm: the weights are exp(log_weights)": lambda w: w.mean(0).log(),
    "you reduced over the batch: the draws are the first axis, (S, B)": partial(
        _iwae, dim=1, count=lambda w: w.shape[1]
    ),
    "you reduced over the batch, and log S is of the other axis": partial(_iwae, dim=1),
    "the batch is averaged: keep its axis, (B,), and leave that to the caller": (
        lambda w: _iwae(w).mean()
    ),
    "that is a loss: the bound itself is asked for, without the minus": lambda w: -_iwae(w),
}


def iwae(function: Callable) -> None:
    """Checks iwae(log_weights) -> (B,), log (1/S) Σ_s exp(log_weights[s]) for log_weights (S, B).

    Some are near −900 or 800, where exp has no digits. Raises NotYet, or Wrong with a diagnosis.
    """
    centres = torch.tensor([-900.0, -3.0, 800.0, -870.0, 5.0], dtype=torch.float64)
    ask("the bound", function, _iwae, IWAE_SLIPS, centres + 2 * _draws(S, B))
    print("right: log mean exp of four weights for each of five samples, down to e^−900")


SLIPS = {elbo: ELBO_SLIPS, iwae: IWAE_SLIPS}
