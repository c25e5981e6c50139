"""The check of lecture 5's second program, annealed Langevin dynamics."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask, call

LADDER, STEP, TURNS = [2.0, 0.9, 0.5], 0.02, 2
draws = partial(checks.draws, seed=5)


def slope(x: Tensor, sigma) -> Tensor:
    """Any function of both will do: the loss and the walk are defined for all of them."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    if sigma.ndim > 1:
        raise Wrong(
            f"the score takes sigma as () or (B,), you gave it {tuple(sigma.shape)}: keep sigma as "
            f"it came and give the column a name of its own"
        )
    sigma = sigma.reshape(-1, 1)
    return (1.2 - x) / (0.5 + sigma**2) + 0.4 * torch.sin(2 * x - sigma)


def _anneal(score, x, sigmas, step, n, noises, *, h=lambda sigma, ladder: (sigma / ladder[-1]) ** 2,
            drift=lambda h: h, spread=lambda h: (2 * h) ** 0.5, turn=False, same=False, once=False,
            level=None, least=-1, tweedie=2, each=False, last=lambda x, jump: x + jump,
            calm=False, levels=None) -> Tensor:  # fmt: skip
    """The right walk, or one with the slip named; `tweedie` is the last step's power of σ_L."""
    order = range(len(sigmas))[:levels]
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


BARE = {"last": lambda x, jump: x}  # no denoising
ENDED = "the walk ended after its first {}: does `return` stand inside a loop?"
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
    "stays": partial(_anneal, **BARE),
    "the last step goes by σ_L²; you took half of it": partial(
        _anneal, last=lambda x, jump: x + jump / 2
    ),
    ENDED.format("step"): partial(_anneal, levels=1, once=True),
    ENDED.format("step, and nothing was denoised"): partial(_anneal, levels=1, once=True, **BARE),
    ENDED.format("level"): partial(_anneal, levels=1),
    ENDED.format("level, and nothing was denoised"): partial(_anneal, levels=1, **BARE),
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
    sigmas, noises = torch.tensor(LADDER, dtype=torch.float64), draws(len(LADDER), TURNS, 5, 3)
    args = (slope, 0.4 + 1.8 * draws(7, 3)[2:], sigmas, STEP, TURNS, noises)
    try:
        ask("the last state", function, _anneal, WALK_SLIPS, *args)
    except IndexError as error:
        try:
            call(function, *args[:-1], noises.transpose(0, 1))
        except Exception:
            raise error from None
        raise Wrong(
            "the level comes first in noises, (L, n, B, D): noises[i, k] is the z of step k on "
            "level i; you took the step first"
        ) from None
    print(
        f"right: {TURNS} steps at each of {len(LADDER)} levels, large noise first, and a clean end"
    )
