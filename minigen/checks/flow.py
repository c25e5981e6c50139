"""Checks of the exercises of lecture 8, rectified flow."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask
from minigen.checks.flow_lines import (
    BACK,
    LOSS_SLIPS,
    REVERSED,
    B,
    Net,
    check_call,
    check_gradient,
    draws,
    flow_loss,
    mean_loss,
    reaches,
)

D, N = 3, 7  # dimensions, steps


class _Field:
    """A first velocity that depends on state and time; it has a weight, and keeps its times."""

    def __init__(self):
        self.weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        self.times: list[float] = []

    def __call__(self, x, t) -> Tensor:
        check_call("velocity", x, t, (B, D))
        if bool((t != t[0]).any()):
            raise Wrong(
                "the first velocity was asked at another time for each sample: it makes the pairs, "
                "and on its walk all have the same time; the net's target is the line's velocity"
            )
        self.times.append(float(t[0]))
        k = t.to(x)[:, None]
        return torch.sin(self.weight * x + 4 * k) + 0.6 * x.flip(1) * k - 0.5


def _falling(count: int) -> Tensor:
    """`count` times from 1 to 0, both among them."""
    return torch.linspace(1, 0, count, dtype=torch.float64)


def _euler(velocity, x1, n, *, times=lambda n: _falling(n + 1)[:-1], step=lambda n: -1 / n,
           at=lambda x, x1: x) -> Tensor:  # fmt: skip
    """The right walk, x ← x + step u(x, t) at each of the times, or one with the slips named."""
    x = x1
    for t in times(n):
        x = x + step(n) * velocity(at(x, x1), t.expand(len(x)))
    return x


def _heun(velocity, x, n) -> Tensor:
    for t in _falling(n + 1)[:-1].tolist():
        now, then = (torch.full((len(x),), s, dtype=x.dtype) for s in (t, t - 1 / n))
        u = velocity(x, now)
        x = x - (u + velocity(x - u / n, then)) / (2 * n)
    return x


def _learn_the_first(net, velocity, eps, t, n) -> Tensor:
    first = velocity(eps, torch.ones_like(t))
    return mean_loss(net, _euler(velocity, eps, n), eps, t, goal=lambda *_: first)


def _reflow(net, velocity, eps, t, n, *, ends=_euler, loss=mean_loss, **slip) -> Tensor:
    """The right loss on the pairs (end of the walk from eps, eps), or one with the slips named."""
    return loss(net, ends(velocity, eps, n, **slip), eps, t)


PLUS = {"step": lambda n: 1 / n}
FROM_0 = {"times": lambda n: _falling(n + 1)[1:].flip(0)}
TO_1 = {"times": lambda n: _falling(n + 1)[:-1].flip(0)}
UP = "on the walk time falls from 1 (noise) to 0 (data); you began at t = 0 and went up"
REFLOW_SLIPS = {
    "torch.linspace(1, 0, n) has n times and n − 1 gaps, so its gaps are not 1/n, and its last "
    "time is 0: take n + 1 times without the last": partial(_reflow, times=_falling),
    "you took n − 1 steps: torch.linspace(1, 0, n) has only n − 1 gaps, take n + 1 times": partial(
        _reflow, times=lambda n: _falling(n)[:-1], step=lambda n: -1 / (n - 1)
    ),
    "you took n + 1 steps of 1/n, more than the whole way, the last one from t = 0": partial(
        _reflow, times=lambda n: _falling(n + 1)
    ),
    "your walk goes the wrong way: dx = u dt, and dt = −1/n on the way to the data": partial(
        _reflow, **PLUS
    ),
    "you read the velocity at the end of each step, t − 1/n; Euler reads it where it stands": (
        partial(_reflow, times=lambda n: _falling(n + 1)[1:])
    ),
    "you read the velocity in the middle of each step; Euler reads it where it stands": partial(
        _reflow, times=lambda n: _falling(n + 1)[:-1] - 0.5 / n
    ),
    UP: partial(_reflow, **FROM_0),
    UP + ", with dt = +1/n": partial(_reflow, **FROM_0, **PLUS),
    UP + " to t = 1": partial(_reflow, **TO_1),
    UP + " to t = 1, with dt = +1/n": partial(_reflow, **TO_1, **PLUS),
    "you took n − 1 steps of 1/n, so the walk ends before the data": partial(
        _reflow, times=lambda n: _falling(n + 1)[:-2]
    ),
    "your walk begins at t = 1 − 1/n; the noise stands at t = 1, its first velocity is missing": (
        partial(_reflow, times=lambda n: _falling(n + 1)[1:-1])
    ),
    "your steps are longer than 1/n: n of 1/(n − 1) are more than the whole way": partial(
        _reflow, step=lambda n: -1 / (n - 1)
    ),
    "your steps are shorter than 1/n: n of 1/(n + 1) do not reach the data": partial(
        _reflow, step=lambda n: -1 / (n + 1)
    ),
    "you read the velocity at the noise eps in every step: read it where the walk stands": partial(
        _reflow, at=lambda x, x1: x1
    ),
    "the walk is Heun's, two velocities a step: Euler's takes one": partial(_reflow, ends=_heun),
    "your target is the first velocity at eps: the target is the line's velocity, ε − x0": (
        _learn_the_first
    ),
    "your target is v = (1 − t) ε − t x0: the line's velocity is ε − x0": partial(
        _reflow, loss=partial(mean_loss, goal=lambda x0, eps, k: (1 - k) * eps - k * x0)
    ),
    "the target is the data, the walk's end: the line's velocity is ε − x0": partial(
        _reflow, loss=partial(mean_loss, goal=lambda x0, eps, k: x0)
    ),
    "the net was asked at the noise eps: ask it on the line, at x_t": partial(
        _reflow, loss=partial(mean_loss, mix=lambda x0, eps, k: eps)
    ),
    "the line is right, but the net was told 1 − t": partial(
        _reflow, loss=partial(mean_loss, told=lambda t: 1 - t)
    ),
    "that is one number for the whole batch, a sum: keep one for each pair, a mean": partial(
        _reflow, loss=partial(mean_loss, reduce=lambda e: e.square().sum())
    ),
    "the velocity was asked at t = 1 in every step": partial(_reflow, times=torch.ones),
    "the step is missing: x moves by u/n, not by u": partial(_reflow, step=lambda n: -1),
    "the walk was one step of length 1: take n": partial(
        _reflow, ends=lambda u, x, n: _euler(u, x, 1)
    ),
    "the walk was its first step alone": partial(_reflow, times=lambda n: torch.ones(1)),
    "you walked with the network that is to be trained: the pairs are made by the first "
    "velocity": lambda net, velocity, *rest: _reflow(net, net, *rest),
    "your target is x0 − ε; the line's velocity is dx_t/dt = ε − x0": partial(
        _reflow, loss=partial(mean_loss, **BACK)
    ),
    "your line is t x0 + (1 − t) ε, with data at t = 1; here t = 0 is data": partial(
        _reflow, loss=partial(mean_loss, **REVERSED)
    ),
    "the target is the noise ε: the line's velocity is ε − x0": partial(
        _reflow, loss=partial(mean_loss, goal=lambda x0, eps, k: eps)
    ),
    "the net was asked at the walk's end: ask it on the line, at x_t": partial(
        _reflow, loss=partial(mean_loss, mix=lambda x0, eps, k: x0)
    ),
    "you summed over the data axes: take their mean": partial(
        _reflow, loss=partial(mean_loss, reduce=lambda e: e.square().flatten(1).sum(1))
    ),
    "that is one number for the whole batch: keep one for each pair, (B,)": partial(
        _reflow, loss=partial(mean_loss, reduce=lambda e: e.square().mean())
    ),
}


def reflow_loss(function: Callable) -> None:
    """Checks reflow_loss(net, velocity, eps, t, n) -> (B,): the net's loss on the velocity's pairs.

    The pairs are eps (B, D) and the end of n Euler steps of velocity(x, t) from it; both functions
    take t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    net, field, eps = Net((B, D)), _Field(), draws(B, D, seed=10)
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    # The truth walks in a field of its own: the times are those of the learner's calls alone.
    answer = ask(
        f"the loss after a walk of n = {N} steps", function,
        lambda net, _, *args: _reflow(net, _Field(), *args), REFLOW_SLIPS,
        net, field, eps, t, N,
    )  # fmt: skip
    if len(field.times) != N:
        raise Wrong(
            f"the values are right, but the velocity was asked {len(field.times)} times, down to "
            f"t = {min(field.times):.3g}: {N} steps need {N}, and none at t = 0, where a velocity "
            f"read from a denoiser is 0/0"
        )
    check_gradient(answer, net)
    if reaches(answer, field.weight):
        raise Wrong(
            "the values are right, but a gradient leads back through the walk into the first "
            "velocity, which is not trained: its pairs are data, so walk under torch.no_grad(), "
            "or end with x0.detach()"
        )
    print(f"right: {N} steps make the pairs, the first from t = 1, the last from t = 1/{N}")


SLIPS = {flow_loss: LOSS_SLIPS, reflow_loss: REFLOW_SLIPS}
