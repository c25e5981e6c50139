"""Checks of the exercises of lecture 8, rectified flow."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigen import flow, paths, targets
from minigen.checks import Wrong, call, compare

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


class _Net(nn.Module):
    """A stand-in for a network: its answer depends on the state and the time, and has a weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, xt, t, label=None) -> Tensor:  # no types: _check_call says it better
        _check_call("network", xt, t, IMAGE)
        return torch.sin(self.weight * xt + 2 * t.reshape(-1, 1, 1, 1)) - 0.4


def _square(error: Tensor) -> Tensor:
    return error.square().flatten(1).mean(1)


def _loss_slips(net: Callable, x0: Tensor, eps: Tensor, t: Tensor) -> dict[str, Tensor]:
    """The usual wrong losses, each with its diagnosis."""
    k = t.reshape(-1, 1, 1, 1)
    xt, swapped, u = (1 - k) * x0 + k * eps, k * x0 + (1 - k) * eps, eps - x0
    first, angle = (1 - k[:1]) * x0 + k[:1] * eps, math.pi / 2 * k
    error = net(xt, t) - u
    per_image = _square(error)
    variance = "that mix keeps the variance; the straight line is (1 − t) x0 + t ε, with no "
    return {
        "your target is x0 − ε, the direction from noise to data (Liu et al., whose time runs the "
        "other way); here t rises with the noise, dx_t/dt = ε − x0": _square(net(xt, t) + u),
        "your mix is t x0 + (1 − t) ε, with data at t = 1; here t = 0 is data": (
            _square(net(swapped, t) - u)
        ),
        "that is the loss with time reversed, data at t = 1 (Liu et al.); here t = 0 is data: mix "
        "(1 − t) x0 + t ε, target ε − x0": _square(net(swapped, t) + u),
        "the mix is right, but the network was told 1 − t": _square(net(xt, 1 - t) - u),
        "you summed the squares over the data axes: take their mean": per_image * x0[0].numel(),
        "that is one number for the whole batch: keep one for each sample, (B,)": per_image.mean(),
        "that is one number, and a sum: take the mean over the data axes of each sample": (
            error.square().sum()
        ),
        variance + "cosine and sine": (
            _square(net(torch.cos(angle) * x0 + torch.sin(angle) * eps, t) - u)
        ),
        variance + "roots": _square(net((1 - k).sqrt() * x0 + k.sqrt() * eps, t) - u),
        variance + "√(1 − t²)": _square(net((1 - k**2).sqrt() * x0 + k * eps, t) - u),
        "every sample has its own time, you used the first one's for all": (
            _square(net(first, t[:1].expand(len(t))) - u)
        ),
        "the mix took the first sample's time for all": _square(net(first, t) - u),
        "your target is the noise ε: the velocity is ε − x0": _square(net(xt, t) - eps),
        "your target is the data x0: the velocity is ε − x0": _square(net(xt, t) - x0),
        "the network saw the clean data: ask it at the mix x_t": _square(net(x0, t) - u),
        "the network saw the pure noise: ask it at the mix x_t": _square(net(eps, t) - u),
        "you took absolute values: the conditional mean is what squares lead to": (
            error.abs().flatten(1).mean(1)
        ),
        "that is its square root": per_image.sqrt(),
        "that is half of it": per_image / 2,
    }  # fmt: skip


def flow_loss(function: Callable) -> None:
    """Checks flow_loss(net, x0, eps, t) -> (B,), the mean square over the data axes.

    x0, eps (B, C, H, W), t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    net, x0, eps = _Net(), _draws(*IMAGE, seed=8), _draws(*IMAGE, seed=9) - 0.7
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    try:
        answer = call(function, net, x0, eps, t)
    except Wrong as error:
        if "shapes did not fit" not in str(error):
            raise
        raise Wrong(
            f"{str(error).split(': a number')[0]}: t (B,) meets images (B, C, H, W) only as "
            f"(B, 1, 1, 1), for instance t.reshape(-1, 1, 1, 1); the network takes t itself"
        ) from None
    with torch.no_grad():
        compare("the loss", answer, flow.loss(net, x0, eps, t), _loss_slips(net, x0, eps, t))
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads from the loss to the network's weights: "
            "was it computed under no_grad, or detached?"
        )
    print(f"right: the loss of {B} images of shape {IMAGE[1:]}, each at its own time")


class _Field:
    """A velocity that depends on state and time, and remembers when it was asked."""

    def __init__(self):
        self.times: list[float] = []

    def value(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        k = t.to(x).reshape(-1, 1) if t.ndim else t.to(x)
        return torch.sin(1.5 * x + 4 * k) + 0.6 * x.flip(1) * k - 0.5

    def __call__(self, x, t) -> Tensor:
        _check_call("velocity", x, t, (B, D))
        if bool((t != t[0]).any()):
            raise Wrong(f"all samples walk together, but the velocity was asked at {t.tolist()}")
        self.times.append(float(t[0]))
        return self.value(x, t)

    def walk(self, x: Tensor, times: Tensor, step: float) -> Tensor:
        """x ← x + step u(x, t) at each of the times."""
        for t in times:
            x = x + step * self.value(x, t)
        return x


def _euler_slips(field: _Field, x: Tensor) -> dict[str, Tensor]:
    """The usual wrong walks, each with its diagnosis."""
    kind, h = {"dtype": torch.float64}, 1 / N
    good, tight = torch.linspace(1, 0, N + 1, **kind), torch.linspace(1, 0, N, **kind)
    up = "time falls from 1 (noise) to 0 (data); you began at t = 0 and went up"
    long = "torch.linspace(1, 0, n) has n times and n − 1 gaps, so its gaps are not 1/n, and its "
    slips = {
        long + "last time is 0: take n + 1 times without the last": (tight, -h),
        "you took n − 1 steps: torch.linspace(1, 0, n) has only n − 1 gaps, take n + 1 times": (
            tight[:-1], -1 / (N - 1),
        ),
        "you took n + 1 steps of 1/n, more than the whole way, the last one from t = 0": (good, -h),
        "that is the wrong way: dx = u dt, and dt = −1/n on the way to the data": (good[:-1], h),
        "you read the velocity at the end of each step, t − 1/n; Euler reads it where it stands": (
            good[1:], -h,
        ),
        "you read the velocity in the middle of each step; Euler reads it where it stands": (
            (good[1:] + good[:-1]) / 2, -h,
        ),
        up: (good[1:].flip(0), -h),
        up + ", with dt = +1/n": (good[1:].flip(0), h),
        up + " to t = 1": (good[:-1].flip(0), -h),
        up + " to t = 1, with dt = +1/n": (good[:-1].flip(0), h),
        "the velocity was asked at t = 1 in every step": (torch.ones(N, **kind), -h),
        "the step is missing: x moves by u/n, not by u": (good[:-1], -1.0),
        "that is one step of length 1: take n": (good[:1], -1.0),
        "that is the first step alone": (good[:1], -h),
    }  # fmt: skip
    return {why: field.walk(x, *k) for why, k in slips.items()}


def euler(function: Callable) -> None:
    """Checks euler(velocity, x1, n) -> x0: n Euler steps from noise, t = 1, to data, t = 0.

    velocity(x, t) takes t (B,), x1 is (B, D). Raises NotYet, or Wrong with a diagnosis.
    """
    field, x1 = _Field(), _draws(B, D, seed=10)
    denoise = paths.denoiser(field.value, paths.Linear(), targets.velocity)
    *_, truth = flow.euler(denoise, paths.Linear(), x1, flow.grid(N))
    answer = call(function, field, x1.clone(), N)
    compare(f"x0 after n = {N} steps", answer, truth, _euler_slips(field, x1))
    if len(field.times) != N:
        raise Wrong(
            f"the values are right, but the velocity was asked {len(field.times)} times, down to "
            f"t = {min(field.times):.3g}: {N} steps need {N}, and none at t = 0, where a velocity "
            f"read from a denoiser is 0/0"
        )
    print(f"right: {N} steps, the first from t = 1, the last from t = 1/{N}, none from t = 0")
