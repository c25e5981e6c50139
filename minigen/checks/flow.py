"""Checks of the exercises of lecture 8, rectified flow."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minigen.checks import Wrong, ask

B, D, N, IMAGE = 5, 3, 7, (5, 2, 3, 4)


def _draws(*shape: int, seed: int) -> Tensor:
    """Values with a mean far from 0, float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return 0.7 + 1.3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def _check_call(what: str, x, t, shape: tuple[int, ...]) -> None:
    """Raises Wrong unless `what` was given a batch of states and one time for each."""
    if not isinstance(t, Tensor) or t.shape != shape[:1]:
        got = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"{t!r}"
        raise Wrong(f"the {what} takes one time for each sample, t of shape {shape[:1]}, got {got}")
    if not isinstance(x, Tensor) or x.shape != shape:
        got = tuple(x.shape) if isinstance(x, Tensor) else repr(x)
        raise Wrong(f"the {what} takes states of shape {shape}, got {got}")


# The loss ---------------------------------------------------------------------------------------


class _Net(nn.Module):
    """A stand-in for a network: its answer depends on the state and the time, and has a weight."""

    def __init__(self, shape: tuple[int, ...] = IMAGE):
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, xt, t, label=None) -> Tensor:  # no types: _check_call says it better
        _check_call("network", xt, t, self.shape)
        return torch.sin(self.weight * xt + 2 * t.reshape(-1, *(1,) * (xt.ndim - 1))) - 0.4


def _straight(x0: Tensor, eps: Tensor, k: Tensor) -> Tensor:
    return (1 - k) * x0 + k * eps


def _mean_square(error: Tensor) -> Tensor:
    return error.square().flatten(1).mean(1)


def _loss(net, x0, eps, t, *, goal=lambda x0, eps: eps - x0, mix=_straight, told=lambda t: t,
          reduce=_mean_square) -> Tensor:  # fmt: skip
    """The right loss, or one with the slips named: each replaces one of its four parts."""
    k = t.reshape(-1, *(1,) * (x0.ndim - 1))
    return reduce(net(mix(x0, eps, k), told(t)) - goal(x0, eps))


def _quarter(x0: Tensor, eps: Tensor, k: Tensor) -> Tensor:
    return torch.cos(math.pi / 2 * k) * x0 + torch.sin(math.pi / 2 * k) * eps


REVERSED = {"mix": lambda x0, eps, k: _straight(eps, x0, k)}
BACK = {"goal": lambda x0, eps: x0 - eps}
VARIANCE = "that mix keeps the variance; the straight line is (1 − t) x0 + t ε, with no "
LOSS_SLIPS = {
    "your target is x0 − ε, the direction from noise to data (Liu et al., whose time runs the "
    "other way); here t rises with the noise, dx_t/dt = ε − x0": partial(_loss, **BACK),
    "your mix is t x0 + (1 − t) ε, with data at t = 1; here t = 0 is data": partial(
        _loss, **REVERSED
    ),
    "that is the loss with time reversed, data at t = 1 (Liu et al.); here t = 0 is data: mix "
    "(1 − t) x0 + t ε, target ε − x0": partial(_loss, **REVERSED, **BACK),
    "the mix is right, but the network was told 1 − t": partial(_loss, told=lambda t: 1 - t),
    "you summed the squares over the data axes: take their mean": partial(
        _loss, reduce=lambda e: e.square().flatten(1).sum(1)
    ),
    "that is one number for the whole batch: keep one for each sample, (B,)": partial(
        _loss, reduce=lambda e: e.square().mean()
    ),
    "that is one number, and a sum: take the mean over the data axes of each sample": partial(
        _loss, reduce=lambda e: e.square().sum()
    ),
    VARIANCE + "cosine and sine": partial(_loss, mix=_quarter),
    VARIANCE + "roots": partial(_loss, mix=lambda x0, eps, k: (1 - k).sqrt() * x0 + k.sqrt() * eps),
    VARIANCE + "√(1 − t²)": partial(_loss, mix=lambda x0, eps, k: (1 - k**2).sqrt() * x0 + k * eps),
    "every sample has its own time, you used the first one's for all": (
        lambda net, x0, eps, t: _loss(net, x0, eps, t[:1].expand(len(t)))
    ),
    "the mix took the first sample's time for all": partial(
        _loss, mix=lambda x0, eps, k: _straight(x0, eps, k[:1])
    ),
    "your target is the noise ε: the velocity is ε − x0": partial(_loss, goal=lambda x0, eps: eps),
    "your target is the data x0: the velocity is ε − x0": partial(_loss, goal=lambda x0, eps: x0),
    "the network saw the clean data: ask it at the mix x_t": partial(
        _loss, mix=lambda x0, eps, k: x0
    ),
    "the network saw the pure noise: ask it at the mix x_t": partial(
        _loss, mix=lambda x0, eps, k: eps
    ),
    "you took absolute values: the conditional mean is what squares lead to": partial(
        _loss, reduce=lambda e: e.abs().flatten(1).mean(1)
    ),
    "that is its square root": partial(_loss, reduce=lambda e: _mean_square(e).sqrt()),
    "that is half of it": partial(_loss, reduce=lambda e: _mean_square(e) / 2),
}


def _check_gradient(answer: Tensor) -> None:
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads from the loss to the network's weights: "
            "was it computed under no_grad, or detached?"
        )


def flow_loss(function: Callable) -> None:
    """Checks flow_loss(net, x0, eps, t) -> (B,), the mean square over the data axes.

    x0, eps (B, C, H, W), t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    x0, eps = _draws(*IMAGE, seed=8), _draws(*IMAGE, seed=9) - 0.7
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    try:
        answer = ask("the loss", function, _loss, LOSS_SLIPS, _Net(), x0, eps, t)
    except Wrong as error:
        if "shapes did not fit" not in str(error):
            raise
        raise Wrong(
            f"{str(error).split(': a number')[0]}: t (B,) meets images (B, C, H, W) only as "
            f"(B, 1, 1, 1), for instance t.reshape(-1, 1, 1, 1); the network takes t itself"
        ) from None
    _check_gradient(answer)
    print(f"right: the loss of {B} images of shape {IMAGE[1:]}, each at its own time")


# The loss of a reflow ---------------------------------------------------------------------------


class _Field:
    """A first velocity that depends on state and time, and remembers when it was asked."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, x, t) -> Tensor:
        _check_call("velocity", x, t, (B, D))
        if bool((t != t[0]).any()):
            raise Wrong(
                f"the first velocity was asked at {t.tolist()}: it makes the pairs, and on its "
                f"walk all samples have one time; the net's target is the line's velocity"
            )
        self.times.append(float(t[0]))
        k = t.to(x)[:, None]
        return torch.sin(1.5 * x + 4 * k) + 0.6 * x.flip(1) * k - 0.5


def _falling(count: int) -> Tensor:
    """`count` times from 1 to 0, both among them."""
    return torch.linspace(1, 0, count, dtype=torch.float64)


def _euler(
    velocity, x1, n, *, times=lambda n: _falling(n + 1)[:-1], step=lambda n: -1 / n
) -> Tensor:
    """The right walk, x ← x + step u(x, t) at each of the times, or one with the slips named."""
    x = x1
    for t in times(n):
        x = x + step(n) * velocity(x, t.expand(len(x)))
    return x


def _reflow(net, velocity, eps, t, n, *, ends=_euler, loss=_loss, **slip) -> Tensor:
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
    "the velocity was asked at t = 1 in every step": partial(_reflow, times=torch.ones),
    "the step is missing: x moves by u/n, not by u": partial(_reflow, step=lambda n: -1),
    "the walk was one step of length 1: take n": partial(
        _reflow, ends=lambda u, x, n: _euler(u, x, 1)
    ),
    "the walk was its first step alone": partial(_reflow, times=lambda n: torch.ones(1)),
    "you walked with the network that is to be trained: the pairs are made by the first "
    "velocity": lambda net, velocity, *rest: _reflow(net, net, *rest),
    "your target is x0 − ε; the line's velocity is dx_t/dt = ε − x0": partial(
        _reflow, loss=partial(_loss, **BACK)
    ),
    "your line is t x0 + (1 − t) ε, with data at t = 1; here t = 0 is data": partial(
        _reflow, loss=partial(_loss, **REVERSED)
    ),
    "the target is the noise ε: the line's velocity is ε − x0": partial(
        _reflow, loss=partial(_loss, goal=lambda x0, eps: eps)
    ),
    "the net was asked at the walk's end: ask it on the line, at x_t": partial(
        _reflow, loss=partial(_loss, mix=lambda x0, eps, k: x0)
    ),
    "you summed over the data axes: take their mean": partial(
        _reflow, loss=partial(_loss, reduce=lambda e: e.square().flatten(1).sum(1))
    ),
    "that is one number for the whole batch: keep one for each pair, (B,)": partial(
        _reflow, loss=partial(_loss, reduce=lambda e: e.square().mean())
    ),
}


def reflow_loss(function: Callable) -> None:
    """Checks reflow_loss(net, velocity, eps, t, n) -> (B,): the net's loss on the velocity's pairs.

    The pairs are eps (B, D) and the end of n Euler steps of velocity(x, t) from it; both functions
    take t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    field, eps = _Field(), _draws(B, D, seed=10)
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    # The truth walks in a field of its own: the times are those of the learner's calls alone.
    answer = ask(
        f"the loss after a walk of n = {N} steps", function,
        lambda net, _, *args: _reflow(net, _Field(), *args), REFLOW_SLIPS,
        _Net((B, D)), field, eps, t, N,
    )  # fmt: skip
    if len(field.times) != N:
        raise Wrong(
            f"the values are right, but the velocity was asked {len(field.times)} times, down to "
            f"t = {min(field.times):.3g}: {N} steps need {N}, and none at t = 0, where a velocity "
            f"read from a denoiser is 0/0"
        )
    _check_gradient(answer)
    print(f"right: {N} steps make the pairs, the first from t = 1, the last from t = 1/{N}")


SLIPS = {flow_loss: LOSS_SLIPS, reflow_loss: REFLOW_SLIPS}
