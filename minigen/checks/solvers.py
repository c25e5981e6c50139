"""Checks of the exercises of lecture 11, solvers for few calls."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws
from minigen.checks.solvers_slope import DERIVATIVE_SLIPS, B, D, total_derivative

# One step of 2M ---------------------------------------------------------------------------------


def _length(a_t, b_t, a_s, b_s) -> Tensor:
    return torch.log(a_s / b_s) - torch.log(a_t / b_t)


def _line(now, before, c) -> Tensor:
    return now + c * (now - before)


def _step(x, now, before, a_t, b_t, a_s, b_s, h_before, *, length=_length,
          share=lambda h, h_before: h / (2 * h_before), guess=_line,
          keep=lambda a_t, b_t, a_s, b_s: b_s / b_t,
          gain=lambda h, a_t, b_t, a_s, b_s: -a_s * torch.expm1(-h)) -> Tensor:  # fmt: skip
    """The right step, also to b = 0, or one with the slips named: each replaces a part of it."""
    ends = a_t, b_t, a_s, b_s
    if b_s == 0:
        return a_s * now
    h = length(*ends)
    return keep(*ends) * x + gain(h, *ends) * guess(now, before, share(h, h_before))


def _everywhere(x, now, before, a_t, b_t, a_s, b_s, h_before) -> Tensor:
    """2M's formula also at b = 0, where h is infinite."""
    ends = a_t, b_t, a_s, b_s
    h = _length(*ends)
    c = h / (2 * h_before)
    return b_s / b_t * x - a_s * torch.expm1(-h) * ((1 + c) * now - c * before)


def _at_the_data(value: Callable) -> Callable:
    """The right step, but for one to b = 0."""
    return lambda x, now, before, a_t, b_t, a_s, b_s, h: (
        value(x, now, before) if b_s == 0 else _step(x, now, before, a_t, b_t, a_s, b_s, h)
    )


def _integrated(x, now, before, a_t, b_t, a_s, b_s, h_before, *, over=None) -> Tensor:
    """The line integrated exactly, as by a Taylor step with a quotient, over h₋, for a slope."""
    h = _length(a_t, b_t, a_s, b_s)
    bend = a_s * (h + torch.expm1(-h)) * (now - before) / (over or (lambda h, h_: h_))(h, h_before)
    return b_s / b_t * x - a_s * torch.expm1(-h) * now + bend


def _above_zero(least: float) -> Callable:
    """The formula with b_s never below `least`."""

    def step(x, now, before, a_t, b_t, a_s, b_s, h_before):
        return _step(x, now, before, a_t, b_t, a_s, b_s.clamp(min=least), h_before)

    return step


OF_EPS = lambda h, a_t, b_t, a_s, b_s: -b_s * torch.expm1(h)  # the ε-form's weight
SIGNAL = lambda a_t, b_t, a_s, b_s: a_s / a_t
STEP_SLIPS = {
    "that is DDIM's step, of order 1: before has no part in it": partial(
        _step, share=lambda h, h_before: 0
    ),
    "r is upside down: the correction is h/(2 h₋) of now − before, and grows with this step": (
        partial(_step, share=lambda h, h_before: h_before / (2 * h))
    ),
    "r is upside down, and there is no half: the correction is h/(2 h₋) of now − before": partial(
        _step, share=lambda h, h_before: h_before / h
    ),
    "3/2 and −1/2 are right for steps of equal length only: the correction is h/(2 h₋)": partial(
        _step, share=lambda h, h_before: 0.5
    ),
    "your correction is twice too large: M is the line's value at the middle of the step, h/(2 h₋) "
    "on from now, not at its end (and ℓ is log(a/b), half the log-SNR)": partial(
        _step, share=lambda h, h_before: h / h_before
    ),
    "the correction has the wrong sign: the line goes on from now, away from before (and ℓ rises "
    "on the way to the data, so h > 0)": partial(
        _step, share=lambda h, h_before: -h / (2 * h_before)
    ),
    "now and before have changed places": partial(
        _step, guess=lambda now, before, c: _line(before, now, c)
    ),
    "your weights of now and before do not add up to 1: if both are equal, so is M": partial(
        _step, guess=lambda now, before, c: (1 + c) * now + c * before
    ),
    "you gave now the weight 1 and before −h/(2 h₋): the weight of now is 1 + h/(2 h₋)": partial(
        _step, guess=lambda now, before, c: now - c * before
    ),
    "you took the mean of now and before, x̂0 of half a step ago: go on along their line": partial(
        _step, guess=lambda now, before, c: 0.5 * (now + before)
    ),
    "your M is before alone: it is now with a correction": partial(
        _step, guess=lambda now, before, c: before
    ),
    "your h is the step of the log-SNR, 2 log(a/b): here ℓ = log(a/b), the half": partial(
        _step, length=lambda *ends: 2 * _length(*ends)
    ),
    "your h is ℓ_t − ℓ_s, below 0: ℓ rises on the way to the data": partial(
        _step, length=lambda *ends: -_length(*ends)
    ),
    "your h leaves b out: ℓ is log(a/b), not log a": partial(
        _step, length=lambda a_t, b_t, a_s, b_s: torch.log(a_s / a_t)
    ),
    "your h leaves a out: ℓ is log(a/b), not −log b": partial(
        _step, length=lambda a_t, b_t, a_s, b_s: torch.log(b_t / b_s)
    ),
    "your h is the difference of the ratios a/b: ℓ is their logarithm": partial(
        _step, length=lambda a_t, b_t, a_s, b_s: a_s / b_s - a_t / b_t
    ),
    "you keep a_s/a_t of x, as the form in ε does: with x̂0 the linear part is b_s/b_t": partial(
        _step, keep=SIGNAL
    ),
    "you keep all of x: its linear part shrinks it, by b_s/b_t": partial(
        _step, keep=lambda a_t, b_t, a_s, b_s: 1
    ),
    "b_t/b_s is upside down: noise is lost on the way": partial(
        _step, keep=lambda a_t, b_t, a_s, b_s: b_t / b_s
    ),
    "that is the step of the form in ε, and now and before are x̂0": partial(
        _step, keep=SIGNAL, gain=OF_EPS
    ),
    "M has the weight of the form in ε, −b_s (e^h − 1): that of x̂0 is a_s (1 − e^−h)": partial(
        _step, gain=OF_EPS
    ),
    "the sign of M's weight: it is a_s (1 − e^−h), above 0": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: a_s * torch.expm1(-h)
    ),
    "M's weight is a_s (e^h − 1), the growth of the form in ε: here it is a_s (1 − e^−h)": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: a_s * torch.expm1(h)
    ),
    "M's weight has e^h where e^−h belongs": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: -a_s * torch.expm1(h)
    ),
    "M's weight is a_s (1 − e^−h), yours is a_s: x̂0 is in x already, a_t of it": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: a_s
    ),
    "M's weight has a_t for a_s: e^−ℓ is taken out where the step ends": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: -a_t * torch.expm1(-h)
    ),
    "M's weight lacks a_s": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: -torch.expm1(-h)
    ),
    "M's weight is a_s h, what Euler's method would make of a_s (1 − e^−h)": partial(
        _step, gain=lambda h, a_t, b_t, a_s, b_s: a_s * h
    ),
    "that integrates the line exactly, which is of order 2 as well, but is not 2M: its M is the "
    "line's value at the middle of the step": _integrated,
    "your slope is (now − before)/h: those two lie one step apart that is over, h₋": partial(
        _integrated, over=lambda h, h_before: h
    ),
}  # fmt: skip
DATA_SLIPS = {
    "at b_s = 0 the step is infinitely long, h = ∞, and ∞ − ∞ is NaN: no line goes so far, so take "
    "order 1 there, M = now": _everywhere,
    "at b_s = 0 the step is infinitely long, h = ∞, and so is your way along the line: take order "
    "1 there, M = now": _at_the_data(lambda x, now, before: now + math.inf * (now - before)),
    "at b_s = 0 you left x as it was: M = now, of weight a_s, and nothing of x is kept": (
        _at_the_data(lambda x, now, before: x)
    ),
    "at b_s = 0 you gave before: the newest x̂0 is now": _at_the_data(
        lambda x, now, before: before
    ),
    "at b_s = 0 your weights are 3/2 and −1/2: there is no line to infinity, M = now": (
        _at_the_data(lambda x, now, before: 1.5 * now - 0.5 * before)
    ),
    "at b_s = 0 you took the mean of now and before: the newest x̂0 is now": _at_the_data(
        lambda x, now, before: 0.5 * (now + before)
    ),
}  # fmt: skip
DATA_SLIPS |= {
    f"at b_s = 0 you put {least:g} in its place: h is arbitrary then, and M goes so far along the "
    f"line; take order 1 there, M = now": _above_zero(least)
    for least in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
}


def step_2m(function: Callable) -> None:
    """Checks step_2m(x, now, before, a_t, b_t, a_s, b_s, h_before) -> (B, D), also to b_s = 0.

    x, now = x̂0(x, t), before (B, D), the others numbers, (). Raises NotYet, or Wrong with a
    diagnosis.
    """
    x, now, before = (draws(B, D, seed=k, std=1.3) for k in (11, 12, 13))
    a_t, b_t, a_s, b_s, h = torch.tensor([0.35, 0.8, 0.75, 0.45, 0.6], dtype=torch.float64)
    ask("x_s", function, _step, STEP_SLIPS, x, now, before, a_t, b_t, a_s, b_s, h)
    one, none = torch.ones_like(a_s), torch.zeros_like(b_s)
    given = x, now, before, a_t, b_t, one, none, h
    ask("x_s of a step to b_s = 0", function, _step, DATA_SLIPS, *given)
    print("right: a step of order 2 between two times, and one of order 1 to the data")


SLIPS = {step_2m: {**STEP_SLIPS, **DATA_SLIPS}, total_derivative: DERIVATIVE_SLIPS}
