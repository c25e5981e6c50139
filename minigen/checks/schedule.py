"""Checks of the first homework: a schedule of your own, its loss, sampler and numbers."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import paths
from minigen.checks import Wrong, ask, call, described, draws
from minigen.checks.schedule_numbers import ESTIMATE_SLIPS, ORDER_SLIPS, estimate, order
from minigen.paths import GaussianPath
from minigen.shapes import like

BORROWED = ("ddim", "targets")  # the rooms that would do the homework
B, D = 5, 3
_draws = partial(draws, std=1.3)


# The schedule -----------------------------------------------------------------------------------

END = math.pi / 2 - 0.02


def _slow_start(t: Tensor) -> Tensor:
    return END * (1 - torch.cos(math.pi / 2 * t))


ANGLE_SLIPS = {
    "the angle at t = 0 must be 0: there is no noise in the data": lambda t: 0.1 + 0.9 * t,
    "more than 0.05 of the data is left at t = 1: cos of the angle there is": lambda t: t**2,
    "the angle at t = 1 is beyond π/2, so that a is negative there": lambda t: 1.8 * t**2,
    "the angle must rise everywhere: noise is added, never taken away": (
        lambda t: END * t + 0.4 * torch.sin(2 * math.pi * t)
    ),
    "that is the angle proportional to time, paths.Cosine: make it your own": (lambda t: END * t),
    "an angle depends on its own time only, yours on the batch": (
        lambda t: END * (t - t.min()) ** 2 / (t.max() - t.min()) ** 2
    ),
    "the angle has a jump or a corner too sharp for a solver: its slope changes by": (
        lambda t: END * torch.where(t < 0.5, 0.2 * t, 0.1 + 1.8 * (t - 0.5))
    ),
}


def angle(function: Callable) -> None:
    """Checks angle(t) -> φ, (B,) -> (B,): from 0 to about π/2, rising, smooth, not φ ∝ t.

    Raises NotYet, or Wrong with a diagnosis.
    """
    t = torch.linspace(0, 1, 401, dtype=torch.float64)
    phi = call(function, t)
    if not isinstance(phi, Tensor):
        raise Wrong(f"the angle should be one tensor of shape (B,), got {described(phi)}")
    if phi.shape != t.shape or not bool(torch.isfinite(phi).all()):
        raise Wrong("the angle should be one finite number for each time, (B,) -> (B,)")
    why = [*ANGLE_SLIPS]
    if not torch.allclose(call(function, t[100:300]), phi[100:300]):
        raise Wrong(why[5])
    if abs(float(phi[0])) > 1e-9:
        raise Wrong(f"{why[0]}, yours is {float(phi[0]):.3g}")
    if float(phi[-1]) > math.pi / 2 + 1e-9:
        raise Wrong(f"{why[2]}: {float(phi[-1]):.3g}")
    if (left := math.cos(float(phi[-1]))) > 0.05:
        raise Wrong(f"{why[1]} {left:.2g}")
    if bool((phi.diff() <= 0).any()):
        raise Wrong(why[3])
    if float((phi - phi[-1] * t).abs().max()) < 0.02:
        raise Wrong(why[4])
    bend = phi.diff().diff().abs() / phi.diff().mean()  # of a smooth angle: of the order 1/400
    if float(bend.max()) > 0.2:
        raise Wrong(f"{why[6]} {float(bend.max()):.1g} of its mean within a 400th")
    print(f"right: an angle from 0 to {float(phi[-1]):.3f}, so that a(1) = {left:.3f}")


class _Odd(GaussianPath):
    """A path off the circle, on which a formula for another path is wrong."""

    def a(self, t):
        return 1 - 0.9 * t**1.5

    def b(self, t):
        return 0.2 * t + 0.9 * t**2


# The loss ---------------------------------------------------------------------------------------


def _loss(net, path, x0, eps, t, *, mix=lambda a, b, x0, eps: a * x0 + b * eps, square=False,
          goal=lambda x0, eps: x0, told=lambda t: t,
          reduce=lambda e: e.square().mean(1)) -> Tensor:  # fmt: skip
    """The right loss, or one with the slips named: each replaces one of its parts."""
    a, b = path.a(t)[:, None], path.b(t)[:, None]
    a, b = (a**2, b**2) if square else (a, b)
    return reduce(net(mix(a, b, x0, eps), told(t)) - goal(x0, eps))


LOSS_SLIPS = {
    "your target is the noise; here the network predicts the data x0": partial(
        _loss, goal=lambda x0, eps: eps
    ),
    "the network saw the clean data: ask it at xt": partial(_loss, mix=lambda a, b, x0, eps: x0),
    "you exchanged a and b: xt = a x0 + b ε": partial(
        _loss, mix=lambda a, b, x0, eps: b * x0 + a * eps
    ),
    "you mixed with a² and b²: the coefficients of x0 and ε are a and b": partial(
        _loss, square=True
    ),
    "the network was told 1 − t": partial(_loss, told=lambda t: 1 - t),
    "you summed over the coordinates: take their mean": partial(
        _loss, reduce=lambda e: e.square().sum(1)
    ),
    "that is one number for the whole batch: keep one for each sample, (B,)": partial(
        _loss, reduce=lambda e: e.square().mean()
    ),
    "that is its square root": partial(_loss, reduce=lambda e: e.square().mean(1).sqrt()),
}


def x0_loss(function: Callable) -> None:
    """Checks x0_loss(net, path, x0, eps, t) -> (B,), the mean square over the coordinates.

    x0, eps (B, D), t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    weight = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    net = lambda xt, t: torch.sin(weight * xt + 2 * t[:, None]) - 0.4
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    x0, eps = _draws(B, D, seed=21), _draws(B, D, seed=22)
    answer = ask("the loss", function, _loss, LOSS_SLIPS, net, _Odd(), x0, eps, t)
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads from the loss to the network: was its "
            "answer detached?"
        )
    print("right: the loss of each sample, at its own time")


# The sampler ------------------------------------------------------------------------------------


def _sample(denoise, path, xT, ts, *, asked=0, last=False, std=False, keep=1.0, times=1) -> Tensor:
    """DDIM's end, or one with a slip: asked at the wrong end, short of a step, noise lost …"""
    x = xT
    for i in range(len(ts) - 1 - last):
        t, s = ts[i], ts[i + 1]
        x0 = denoise(x, ts[i + asked])
        eps = (x - path.a(t) * x0) / (1 if std else path.b(t))
        x = path.a(s) * x0 + keep * path.b(s) * eps * times
    return x


def _squared(denoise, path, xT, ts) -> Tensor:
    x = xT
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        x0 = denoise(x, t)
        x = path.a(s) * x0 + (path.b(s) / path.b(t)) ** 2 * (x - path.a(t) * x0)
    return x


def _unscaled(denoise, path, xT, ts) -> Tensor:
    x = xT
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        x0 = denoise(x, t)
        x = path.a(s) * x0 + path.b(s) / path.b(t) * (x - x0)
    return x


def _circle(denoise, path, xT, ts) -> Tensor:
    return _sample(denoise, paths.Cosine(), xT, ts)


SAMPLE_SLIPS = {
    "you return the last guess x̂0; the state goes one step further, with the noise b_s ε̂": (
        lambda denoise, path, xT, ts: denoise(_sample(denoise, path, xT, ts[:-1]), ts[-2])
    ),
    "the coefficients are the path's own, path.a(t) and path.b(t); you used cos and sin of πt/2": (
        _circle
    ),
    "the denoiser is asked at t, where x stands, not at s, where it goes": partial(
        _sample, asked=1
    ),
    "you stopped one step early: the last step goes to ts[-1]": partial(_sample, last=True),
    "ε̂ = (xt − a_t x̂0)/b_t: you left out the division by b_t": partial(_sample, std=True),
    "the noise that is left, b_s ε̂, is missing": partial(_sample, keep=0.0),
    "you scaled the noise by (b_s/b_t)²: its coefficient, not its variance, goes from b_t to b_s": (
        _squared
    ),
    "ε̂ = (xt − a_t x̂0)/b_t: you left out a_t": _unscaled,
}


def sample(function: Callable) -> None:
    """Checks sample(denoise, path, xT, ts) -> x at ts[-1], by DDIM's steps, ts falling.

    xT (B, D), ts (N,). Raises NotYet, or Wrong with a diagnosis.
    """
    denoise = lambda xt, t: 0.6 * torch.tanh(xt * (1 + like(t, xt))) + 0.3
    ts = torch.tensor([0.95, 0.7, 0.4, 0.25, 0.1], dtype=torch.float64)
    xT = _draws(B, D, seed=23)
    ask("the sample", function, _sample, SAMPLE_SLIPS, denoise, _Odd(), xT, ts)
    print("right: the end of four steps, for five samples")


SLIPS = {
    angle: ANGLE_SLIPS, x0_loss: LOSS_SLIPS, sample: SAMPLE_SLIPS, order: ORDER_SLIPS,
    estimate: ESTIMATE_SLIPS,
}  # fmt: skip
