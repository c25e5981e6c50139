"""Checks of the exercises of lecture 5, score matching and Langevin dynamics."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask
from minigen.checks.score_walk import WALK_SLIPS, annealed, draws, slope

SIGMAS = [0.4, 1.7, 0.9, 2.6, 0.25]  # five samples, each at its own level


# The loss ---------------------------------------------------------------------------------------


def _loss(score, x, sigma, eps, *, front=1, weight=0, sign=1, below=0, std=1, noisy=1, half=0.5,
          total=torch.sum, root=False, level=lambda sigma: sigma, square=torch.square
          ) -> Tensor:  # fmt: skip
    """The right loss, or one with the slip named; `front`, `below`, … are powers of σ."""
    c = sigma[:, None]
    s = score(x + noisy * c**std * eps, level(sigma))
    norm2 = total(square(c**front * s + sign * eps / c**below), 1)
    return half * sigma**weight * (norm2.sqrt() if root else norm2)


LOSS_SLIPS = {
    "you subtracted eps. The target is the gradient in the noisy x, −eps/σ; with the gradient in "
    "the clean x its sign turns and the loss learns minus the score": partial(_loss, sign=-1),
    "the score in it is multiplied by σ; you left that out: ½ ‖σ s + eps‖²": partial(
        _loss, front=0
    ),
    "you multiplied the score by σ²; the weight is σ² once the norm is squared, so σ inside": (
        partial(_loss, front=2)
    ),
    "that is ½ ‖s + eps/σ‖², without the weight σ²: the least levels will drown all others": (
        partial(_loss, front=0, below=1)
    ),
    "the weight λ = σ² multiplies both terms: σ s and σ eps/σ = eps; you kept eps/σ": partial(
        _loss, below=1
    ),
    "you divided eps by σ²: in σ s + eps, noise and score have the same size at each level": (
        partial(_loss, below=2)
    ),
    "that is ½ ‖s + eps/σ²‖²: the target is −(x̃ − x)/σ² = −eps/σ": partial(_loss, front=0, below=2),
    "you weighted ½ ‖s + eps/σ‖² with σ; NCSN's weight is σ²": partial(
        _loss, front=0, below=1, weight=1
    ),
    "you multiplied ½ ‖σ s + eps‖² by σ² once more: the weight is in it already": partial(
        _loss, weight=2
    ),
    "you took the mean over the data axes; a squared norm is a sum": partial(
        _loss, total=torch.mean
    ),
    "you took the mean over the data axes, and no ½: half a squared norm, a sum": partial(
        _loss, total=torch.mean, half=1.0
    ),
    "the square is missing: ½ ‖σ s + eps‖²": partial(_loss, square=lambda error: error),
    "you took absolute values: the conditional mean is what squares lead to": partial(
        _loss, square=torch.abs
    ),
    "you multiplied eps by σ too: the target is −eps/σ, and σ times it −eps": partial(
        _loss, below=-1
    ),
    "that is ½ ‖s + σ eps‖²: the noise in x is σ eps, but the score's target is −eps/σ": partial(
        _loss, front=0, below=-1
    ),
    "you subtracted eps, and the score has no σ: ½ ‖σ s + eps‖²": partial(_loss, front=0, sign=-1),
    "the ½ is missing": partial(_loss, half=1.0),
    "that is the norm; its square is asked for": partial(_loss, root=True),
    "the noise has the standard deviation σ; you added √σ eps, as if σ were a variance": partial(
        _loss, std=0.5
    ),
    "the noise has the standard deviation σ; you added σ² eps": partial(_loss, std=2),
    "you added eps without its σ to x": partial(_loss, std=0),
    "the score is to be asked at the noisy point x + σ eps, you asked it at x": partial(
        _loss, noisy=0
    ),
    "the noisy point is x + σ eps; you subtracted the noise there": partial(_loss, noisy=-1),
    "you gave the score σ²; its second argument is the standard deviation σ": partial(
        _loss, level=torch.square
    ),
    "every sample has its own σ, you used the first one's for all": (
        lambda score, x, sigma, eps: _loss(score, x, sigma[:1].expand(len(x)), eps)
    ),
    "you averaged over the batch; the loss of each sample is asked for, (B,)": (
        lambda *args: _loss(*args).mean()
    ),
    "you summed over the batch too; the loss of each sample is asked for, (B,)": (
        lambda *args: _loss(*args).sum()
    ),
}


def denoising(function: Callable) -> None:
    """Checks denoising_loss(score, x, sigma, eps) -> (B,), each sample at its own level.

    x, eps (B, D); sigma (B,); score(x, sigma). Raises NotYet, or Wrong with a diagnosis.
    """
    x, eps = draws(2, 5, 3)
    x, sigma = 0.4 + 1.8 * x, torch.tensor(SIGMAS, dtype=torch.float64)
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)

    def score(x, sigma):  # one that can learn
        return gain * slope(x, sigma)

    answer = ask("the loss", function, _loss, LOSS_SLIPS, score, x, sigma, eps)
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads from your loss to the score: without it "
            "nothing is learned; leave out detach, item and no_grad"
        )
    print("right: the loss of five samples at five levels, and it can be learned from")


SLIPS = {denoising: LOSS_SLIPS, annealed: WALK_SLIPS}
