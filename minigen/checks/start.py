"""The check of the exercise of lecture 0: one step from noise to data."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws
from minigen.shapes import like

BORROWED = ("ddim",)  # the room whose step this is


def _guess(xt, eps, a, b) -> Tensor:
    return (xt - b * eps) / a


def _mix(guess, xt, eps, a_t, b_t, a_s, b_s) -> Tensor:
    return a_s * guess + b_s * eps


def _step(xt, eps, *levels, power=1, guess=_guess, mix=_mix) -> Tensor:
    """The right step, or one with the slip named: each replaces one thing."""
    a_t, b_t, a_s, b_s = (like(level, xt) ** power for level in levels)
    return mix(guess(xt, eps, a_t, b_t), xt, eps, a_t, b_t, a_s, b_s)


STEP_SLIPS = {
    "this is the guess x̂0 itself; mix it with the noise again, a_s x̂0 + b_s ε̂": partial(
        _step, mix=lambda guess, *_: guess
    ),
    "the guess is mixed at t again, which gives xt back; the state at s has a_s and b_s": partial(
        _step, mix=lambda guess, xt, eps, a_t, b_t, a_s, b_s: a_t * guess + b_t * eps
    ),
    "xt is mixed with still more noise; mix the guess x̂0": partial(
        _step, mix=lambda guess, xt, eps, a_t, b_t, a_s, b_s: a_s * xt + b_s * eps
    ),
    "the noise b_s ε̂ is left out; the state at s is still noisy": partial(
        _step, mix=lambda guess, xt, eps, a_t, b_t, a_s, b_s: a_s * guess
    ),
    "the noise is put back with b_t; at s it has b_s": partial(
        _step, mix=lambda guess, xt, eps, a_t, b_t, a_s, b_s: a_s * guess + b_t * eps
    ),
    "the coefficients are a and b, not their squares": partial(_step, power=2),
    "the guess takes the noise away, xt − b_t ε̂; you added it": partial(
        _step, guess=lambda xt, eps, a, b: (xt + b * eps) / a
    ),
    "a_t divides xt only; it stands below the whole bracket, (xt − b_t ε̂)/a_t": partial(
        _step, guess=lambda xt, eps, a, b: xt / a - b * eps
    ),
    "the guess is not divided by a_t": partial(_step, guess=lambda xt, eps, a, b: xt - b * eps),
    "t and s are exchanged; xt stands at t, where there is more noise": (
        lambda xt, eps, a_t, b_t, a_s, b_s: _step(xt, eps, a_s, b_s, a_t, b_t)
    ),
    "each image has its own levels; you used those of the first one for all": (
        lambda xt, eps, *levels: _step(xt, eps, *(x[:1].expand(len(xt)) for x in levels))
    ),
}


def step_back(function: Callable) -> None:
    """Checks step_back(xt, eps_hat, a_t, b_t, a_s, b_s) -> xs, each image at its own levels.

    xt, eps_hat (B, C, H, W); a_t, b_t, a_s, b_s (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    xt, eps = draws(2, 5, 1, 3, 4, seed=6)
    b_t = torch.tensor([0.9, 0.5, 0.99, 0.3, 0.7], dtype=torch.float64)
    b_s = torch.tensor([0.8, 0.1, 0.6, 0.0, 0.65], dtype=torch.float64)
    levels = (1 - b_t**2).sqrt(), b_t, (1 - b_s**2).sqrt(), b_s
    ask("the state at s", function, _step, STEP_SLIPS, xt, eps, *levels)
    print("right: five images, each one step from its own t to its own s")


SLIPS = {step_back: STEP_SLIPS}
