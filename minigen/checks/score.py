"""Checks of the exercises of lecture 5, score matching and Langevin dynamics."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws

SIGMAS = [0.4, 1.7, 0.9, 2.6, 0.25]  # five samples, each at its own level
LADDER, STEP, TURNS = [2.0, 0.9, 0.5], 0.02, 2
_draws = partial(draws, seed=5)


def _score(x: Tensor, sigma) -> Tensor:
    """Any function of both will do: the loss and the walk are defined for all of them."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    if sigma.ndim > 1:
        raise Wrong(
            f"the score takes sigma as () or (B,), you gave it {tuple(sigma.shape)}: keep sigma as "
            f"it came and give the column a name of its own"
        )
    sigma = sigma.reshape(-1, 1)
    return (1.2 - x) / (0.5 + sigma**2) + 0.4 * torch.sin(2 * x - sigma)


# Exercise 3 -------------------------------------------------------------------------------------


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
    x, eps = _draws(2, 5, 3)
    x, sigma = 0.4 + 1.8 * x, torch.tensor(SIGMAS, dtype=torch.float64)
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)

    def score(x, sigma):  # one that can learn
        return gain * _score(x, sigma)

    answer = ask("the loss", function, _loss, LOSS_SLIPS, score, x, sigma, eps)
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads from your loss to the score: without it "
            "nothing is learned; leave out detach, item and no_grad"
        )
    print("right: the loss of five samples at five levels, and it can be learned from")


# Exercise 4 -------------------------------------------------------------------------------------


def _anneal(score, x, sigmas, step, n, noises, *, h=lambda sigma, ladder: (sigma / ladder[-1]) ** 2,
            drift=lambda h: h, spread=lambda h: (2 * h) ** 0.5, turn=False, same=False, once=False,
            level=None, least=-1, tweedie=2, each=False, last=lambda x, jump: x + jump,
            calm=False) -> Tensor:  # fmt: skip
    """The right walk, or one with the slip named; `tweedie` is the last step's power of σ_L."""
    order = range(len(sigmas))
    for i in reversed(order) if turn else order:
        for k in range(1 if once else n):
            step_i = step * h(sigmas[i], sigmas)
            at = sigmas[i if level is None else level]
            z = noises[i, 0 if same else k] * (not calm or (i, k) != (len(sigmas) - 1, n - 1))
            x = x + drift(step_i) * score(x, at) + spread(step_i) * z
        if each:
            x = x + at**2 * score(x, at)
    if each:
        return x
    end = sigmas[least if level is None else level]
    return last(x, end**tweedie * score(x, end))


def _upward(score, x, sigmas, *rest, **slip) -> Tensor:
    return _anneal(score, x, sigmas.flip(0), *rest, **slip)


UPWARD = "you walked the ladder upward, from small noise to large: large noise comes first"
WALK_SLIPS = {
    "your noise is √h_i z, its variance h_i: with the drift h_i s that samples with half the "
    "variance; the noise is √(2 h_i) z": partial(_anneal, spread=lambda h: h**0.5),
    "your drift is h_i/2 and your noise √(2 h_i): two conventions mixed, which samples with twice "
    "the variance; with √(2 h_i) the drift is h_i": partial(_anneal, drift=lambda h: h / 2),
    "your drift is h_i/2 and your noise √h_i: a right walk, but its step is half of what is asked, "
    "h_i s + √(2 h_i) z (the paper's α_i is 2 h_i)": partial(
        _anneal, drift=lambda h: h / 2, spread=lambda h: h**0.5
    ),
    "the noise is missing: without z the walk climbs to a mode and stays there": partial(
        _anneal, spread=lambda h: 0.0
    ),
    "the noise is multiplied by the standard deviation √(2 h_i); you took 2 h_i": partial(
        _anneal, spread=lambda h: 2 * h
    ),
    "you walked against the score: the drift is + h_i s": partial(_anneal, drift=lambda h: -h),
    "you walked against the score, and denoised against it: both go along + s": partial(
        _anneal, drift=lambda h: -h, last=torch.sub
    ),
    "the drift is missing: h_i s and √(2 h_i) z": partial(_anneal, drift=lambda h: 0.0),
    "the drift is the whole score: it is multiplied by h_i": partial(_anneal, drift=lambda h: 1.0),
    "your noise is √2 h_i z: h_i stands under the root, √(2 h_i) z": partial(
        _anneal, spread=lambda h: 2**0.5 * h
    ),
    "your noise is z as it is given: it is multiplied by √(2 h_i)": partial(
        _anneal, spread=lambda h: 1.0
    ),
    "you left out the noise of the very last step; every step has its z, the clean end comes "
    "after": partial(_anneal, calm=True),
    "your h_i goes with σ_i; a step is in squared units of x, so it goes with σ_i²": partial(
        _anneal, h=lambda sigma, ladder: sigma / ladder[-1]
    ),
    "your h_i does not change with the level: h_i = step σ_i²/σ_L²": partial(
        _anneal, h=lambda *_: 1.0
    ),
    "you divided by the first σ, the largest; step is that of the last level: σ_i²/σ_L²": partial(
        _anneal, h=lambda sigma, ladder: (sigma / ladder[0]) ** 2
    ),
    "your h_i is upside down: a large σ allows a large step, σ_i²/σ_L²": partial(
        _anneal, h=lambda sigma, ladder: (ladder[-1] / sigma) ** 2
    ),
    "your h_i is step σ_i²; divide by σ_L², so that the last step is `step`": partial(
        _anneal, h=lambda sigma, _: sigma**2
    ),
    "you walked the ladder upward, your loop counts the levels backwards: large noise comes "
    "first": partial(_anneal, turn=True),
    "you made one step at each level; n are asked for": partial(_anneal, once=True),
    "you used the same noise in every step of a level: step k has noises[i, k]": partial(
        _anneal, same=True
    ),
    "the last step is missing: denoise, x + σ_L² s(x, σ_L), or the noise of the last level "
    "stays": partial(_anneal, last=lambda x, jump: x),
    "the last step goes along the score, x + σ_L² s(x, σ_L); you subtracted": partial(
        _anneal, last=torch.sub
    ),
    "the last step adds to x: x + σ_L² s(x, σ_L), not σ_L² s alone": partial(
        _anneal, last=lambda x, jump: jump
    ),
    "the last step goes by σ_L², a variance; you took σ_L": partial(_anneal, tweedie=1),
    "you denoised by the first σ, the largest; what the walkers still carry is noise of level "
    "σ_L": partial(_anneal, least=0),
    "you denoised at the end of every level; only the last walkers are denoised": partial(
        _anneal, each=True
    ),
    "your last step moves by h_L, as a drift does; denoising goes by σ_L²": partial(
        _anneal, tweedie=0, last=lambda x, jump: x + STEP * jump
    ),
    "you asked the score at the first σ throughout; level i has sigmas[i]": partial(
        _anneal, level=0
    ),
    "you asked the score at the last σ throughout; level i has sigmas[i]": partial(
        _anneal, level=-1
    ),
    UPWARD: _upward,
    f"{UPWARD}, and σ_L is the least of all": partial(
        _upward, h=lambda sigma, ladder: (sigma / ladder[0]) ** 2, least=0
    ),
}


def annealed(function: Callable) -> None:
    """Checks annealed(score, x, sigmas, step, n, noises) -> the last state, (B, D).

    sigmas (L,) falls, noises (L, n, B, D) holds every z; h_i = step σ_i²/σ_L²; at the end one
    denoising step, x + σ_L² s(x, σ_L). Raises NotYet, or Wrong with a diagnosis.
    """
    sigmas, noises = torch.tensor(LADDER, dtype=torch.float64), _draws(len(LADDER), TURNS, 5, 3)
    args = (_score, 0.4 + 1.8 * _draws(7, 3)[2:], sigmas, STEP, TURNS, noises)
    ask("the last state", function, _anneal, WALK_SLIPS, *args)
    print(
        f"right: {TURNS} steps at each of {len(LADDER)} levels, large noise first, and a clean end"
    )


SLIPS = {denoising: LOSS_SLIPS, annealed: WALK_SLIPS}
