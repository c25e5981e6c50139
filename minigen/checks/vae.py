"""Checks of the exercises of lecture 2, the variational autoencoder."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.checks import Wrong, call, compare
from minigen.vae import kl_normal

S, B, D, K = 4, 5, 6, 3  # draws, samples, pixels, latents


def _draws(*shape: int) -> Tensor:
    """Values with a mean far from 0, float64, always the same."""
    return 0.7 + torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x of zeros and ones, logits of both signs, mean, log_var.

    Every log_var is above 0, so that one read as a variance still has a logarithm to know it by.
    """
    x = (_draws(B, D) > 0.7).double()
    mean, log_var = _draws(2, B, K)
    return x, 2 * _draws(S, B, D), mean, 0.2 + log_var.abs()


def _log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x | z) of every pixel, (S, B, D)."""
    return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")


def _kl_slips(mean: Tensor, log_var: Tensor) -> dict[str, Tensor]:
    """What the usual slips make of the KL, (B,)."""
    kl = kl_normal(mean, log_var)
    m2, v = mean.square(), log_var
    zero = torch.zeros_like(mean)
    return {
        "your KL is a mean over the latents: a KL of independent latents is their sum": kl / K,
        "you took log_var for a log-std: its variance is exp(log_var)": kl_normal(mean, 2 * v),
        "you took log_var for the variance itself: the variance is exp(log_var)": (
            0.5 * (v + m2 - v.log() - 1).sum(1)
        ),
        "you took log_var for the standard deviation: the variance is exp(log_var)": (
            0.5 * (v.square() + m2 - v.square().log() - 1).sum(1)
        ),
        "your KL is KL(p ‖ q), from the prior; the bound has KL(q ‖ p)": (
            kl_normal(zero, zero, mean, log_var)
        ),
        "your KL is half of what it should be: is the ½ there twice?": 0.5 * kl,
        "log_var enters your KL with the other sign: ½ (mean² + exp(log_var) − log_var − 1)": (
            kl + log_var.sum(1)
        ),
        "your KL has forgotten − log_var: ½ (mean² + exp(log_var) − log_var − 1)": (
            kl + 0.5 * log_var.sum(1)
        ),
        "the −1 of your KL is missing: q = p must give 0": kl + 0.5 * K,
        "your KL ends in + 1 where − 1 belongs: q = p must give 0": kl + K,
        "your KL is twice too large: ½ stands in front of the sum": 2 * kl,
        "your KL has forgotten the mean: its square belongs to it": kl_normal(zero, log_var),
        "the KL must be subtracted, you added it": -kl,
        "the KL is missing: that is the reconstruction alone": torch.zeros_like(kl),
    } | _whole_batch(kl)


def _whole_batch(kl: Tensor) -> dict[str, Tensor]:
    """What becomes of the KL when the batch is reduced too, (B,)."""
    return {
        "your KL is one sum for the whole batch: sum over the latents only, .sum(-1)": (
            kl.sum().expand(B)
        ),
        "your KL is one mean for the whole batch: sum over the latents only, .sum(-1)": (
            kl.mean().expand(B) / K
        ),
        "your KL is averaged over the batch: keep its axis, (B,)": kl.mean().expand(B),
    }


def _reconstruction_slips(x: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """What the usual slips make of the reconstruction, (B,)."""
    pixels = _log_likelihood(x, logits)
    draws = pixels.sum(-1)
    return {
        "you took the mean over the pixels: log p(x | z) of an image is their sum": (
            pixels.mean((0, 2))
        ),
        "you summed the draws of z: average them, or the KL weighs S times too little": (
            draws.sum(0)
        ),
        "you used the first draw of z only: average over all S": draws[0],
        "you took the log of the mean likelihood; the ELBO is the mean of the logs": (
            draws.logsumexp(0) - math.log(S)
        ),
        "you averaged the logits over the draws first: average the log-likelihoods": (
            _log_likelihood(x, logits.mean(0)).sum(-1)
        ),
        "you averaged the probabilities over the draws first: average the log-likelihoods": (
            _log_likelihood(x, torch.logit(torch.sigmoid(logits).mean(0))).sum(-1)
        ),
        "that is a squared error; the likelihood is Bernoulli": (
            -(x - torch.sigmoid(logits)).square().sum(-1).mean(0)
        ),
        "log(1 + e^ℓ) is softplus(ℓ), not softplus(−ℓ)": (
            (x * logits - F.softplus(-logits)).sum(-1).mean(0)
        ),
    } | _pixel_slips(x, logits)


def _pixel_slips(x: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Slips in the likelihood of one pixel, or in how pixels are reduced, (B,)."""
    pixels = _log_likelihood(x, logits)
    draws = pixels.sum(-1)
    return {
        "sigmoid was applied twice: a loss `with_logits` wants the logits as they are": (
            _log_likelihood(x, torch.sigmoid(logits)).sum(-1).mean(0)
        ),
        "your reconstruction has the wrong sign: a log-probability, not a cross-entropy": (
            -draws.mean(0)
        ),
        "zeros and ones have changed places: log π belongs to x = 1": (
            _log_likelihood(1 - x, logits).sum(-1).mean(0)
        ),
        "only the pixels that are 1 were counted: (1 − x) log(1 − π) is missing": (
            (x * F.logsigmoid(logits)).sum(-1).mean(0)
        ),
        "your reconstruction is one mean for the whole batch: reduction='none', then .sum(-1)": (
            pixels.mean().expand(B)
        ),
        "your reconstruction is one sum for the whole batch: reduction='none', then .sum(-1)": (
            pixels.sum().expand(B)
        ),
    }


def _elbo_slips(x: Tensor, logits: Tensor, mean: Tensor, log_var: Tensor) -> dict[str, Tensor]:
    """What the usual slips make of the bound, with the truth under the empty name."""
    pixels, kl = _log_likelihood(x, logits), kl_normal(mean, log_var)
    truth = pixels.sum(-1).mean(0) - kl
    slips = {"": truth}
    slips |= {why: truth + kl - v for why, v in _kl_slips(mean, log_var).items()}
    slips |= {why: v - kl for why, v in _reconstruction_slips(x, logits).items()}
    slips["both are means, over pixels and over latents: logs of products are sums"] = (
        pixels.mean((0, 2)) - kl / K
    )
    slips["this is the loss, −ELBO: the bound itself is asked for"] = -truth
    slips["this is in bits: nats are natural logarithms"] = truth / math.log(2)
    batch = "the batch is averaged: keep its axis, (B,), and leave that to the caller"
    averages = {f"{why}; and {batch}" if why else batch: v.mean() for why, v in slips.items()}
    slips["the axis of the draws is still there: average over it"] = pixels.sum(-1) - kl
    return slips | averages | {"the batch is summed: keep its axis, (B,)": truth.sum()}


def elbo(function: Callable) -> None:
    """Checks elbo(x, logits, mean, log_var) -> (B,), the bound of a Bernoulli VAE in nats.

    x (B, D) of zeros and ones, logits (S, B, D) of S draws of z, mean and log_var (B, k). Raises
    NotYet, or Wrong with a diagnosis.
    """
    case = _case()
    forgotten = (
        "logits are not probabilities: π = sigmoid(logits), or a loss that says `with_logits`"
    )
    try:
        answer = call(function, *case)
    except (RuntimeError, ValueError) as error:
        said = str(error)
        if "between 0 and 1" in said or "parameter probs" in said:  # torch, of a π outside [0, 1]
            raise Wrong(f"{forgotten} ({said.splitlines()[0]})") from None
        if "Target size" in said:
            raise Wrong(f"x has no axis of draws: x.expand_as(logits) ({said})") from None
        raise
    slips = _elbo_slips(*case)
    truth = slips.pop("")
    if isinstance(answer, Tensor) and bool(answer.isnan().any()):
        raise Wrong(f"the ELBO holds NaN, the log of a negative number: {forgotten}")
    compare("the ELBO", answer, truth, slips)
    print("right: the ELBO of five images, averaged over three draws of z, in nats")


def _weights() -> Tensor:
    """Log weights of four draws for five samples, some far outside what exp can say."""
    centres = torch.tensor([-900.0, -3.0, 800.0, -870.0, 5.0], dtype=torch.float64)
    return centres + 2 * _draws(4, 5)


def _iwae_slips(w: Tensor) -> dict[str, Tensor]:
    """What the usual slips make of log mean exp, with the truth under the empty name."""
    S, B = w.shape
    total = w.logsumexp(0)
    top, top_of_all = w.max(0).values, w.max()
    truth = total - math.log(S)
    return {
        "": truth,
        "that is the mean of the logs, the ELBO: the mean belongs inside the log": w.mean(0),
        "− log S is missing: a mean over S weights, not their sum": total,
        "you added log S: a mean divides by S, so log S is subtracted": total + math.log(S),
        "you divided the log by S: dividing the sum by S takes log S from its log": total / S,
        "you subtracted the log of the batch's size: the mean is over the S draws": (
            total - math.log(B)
        ),
        "exp leaves the floats, e^−900 = 0 and e^800 = ∞: take out each sample's largest log "
        "weight first, or use logsumexp": w.exp().mean(0).log(),
        "you took out the largest of the whole batch, and exp is 0 again elsewhere: take each "
        "sample's own": top_of_all + (w - top_of_all).exp().mean(0).log(),
        "the largest log weight was taken out and not put back": truth - top,
        "that is the largest log weight alone: the others count too": top,
        "the logarithm of a logarithm: the weights are exp(log_weights)": w.mean(0).log(),
        "you reduced over the batch: the draws are the first axis, (S, B)": (
            w.logsumexp(1) - math.log(B)
        ),
        "you reduced over the batch, and log S is of the other axis": w.logsumexp(1) - math.log(S),
        "the batch is averaged: keep its axis, (B,), and leave that to the caller": truth.mean(),
        "that is a loss: the bound itself is asked for, without the minus": -truth,
    }


def iwae(function: Callable) -> None:
    """Checks iwae(log_weights) -> (B,), log (1/S) Σ_s exp(log_weights[s]) for log_weights (S, B).

    Some are near −900 or 800, where exp has no digits. Raises NotYet, or Wrong with a diagnosis.
    """
    w = _weights()
    answer = call(function, w.clone())
    slips = _iwae_slips(w)
    compare("the bound", answer, slips.pop(""), slips)
    print("right: log mean exp of four weights for each of five samples, down to e^−900")
