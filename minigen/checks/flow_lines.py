"""The check of lecture 8's first program, the loss of a flow."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minigen import checks
from minigen.checks import Wrong, ask

B, IMAGE = 5, (5, 2, 3, 4)
draws = partial(checks.draws, std=1.3)


def check_call(what: str, x, t, shape: tuple[int, ...]) -> None:
    """Raises Wrong unless `what` was given a batch of states and a time in [0, 1] for each."""
    if not isinstance(t, Tensor) or t.shape != shape[:1]:
        got = f"shape {tuple(t.shape)}" if isinstance(t, Tensor) else f"{t!r}"
        raise Wrong(f"the {what} takes one time for each sample, t of shape {shape[:1]}, got {got}")
    far = float(t[(t - 0.5).abs().argmax()])
    if not -0.001 < far < 1.001:
        raise Wrong(f"the {what} was asked at t = {far:.4g}: time runs from 0 to 1 here")
    if not isinstance(x, Tensor) or x.shape != shape:
        got = tuple(x.shape) if isinstance(x, Tensor) else repr(x)
        raise Wrong(f"the {what} takes states of shape {shape}, got {got}")


# The loss ---------------------------------------------------------------------------------------


class Net(nn.Module):
    """A stand-in for a network: its answer depends on the state and the time, and has a weight."""

    def __init__(self, shape: tuple[int, ...] = IMAGE):
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, xt, t, label=None) -> Tensor:  # no types: check_call says it better
        check_call("network", xt, t, self.shape)
        return torch.sin(self.weight * xt + 2 * t.reshape(-1, *(1,) * (xt.ndim - 1))) - 0.4


def _straight(x0: Tensor, eps: Tensor, k: Tensor) -> Tensor:
    return (1 - k) * x0 + k * eps


def _mean_square(error: Tensor) -> Tensor:
    return error.square().flatten(1).mean(1)


def mean_loss(net, x0, eps, t, *, goal=lambda x0, eps, k: eps - x0, mix=_straight,
              told=lambda t: t, reduce=_mean_square) -> Tensor:  # fmt: skip
    """The right loss, or one with the slips named: each replaces one of its four parts."""
    k = t.reshape(-1, *(1,) * (x0.ndim - 1))
    return reduce(net(mix(x0, eps, k), told(t)) - goal(x0, eps, k))


def _quarter(x0: Tensor, eps: Tensor, k: Tensor) -> Tensor:
    return torch.cos(math.pi / 2 * k) * x0 + torch.sin(math.pi / 2 * k) * eps


REVERSED = {"mix": lambda x0, eps, k: _straight(eps, x0, k)}
BACK = {"goal": lambda x0, eps, k: x0 - eps}
VARIANCE = "that mix keeps the variance; the straight line is (1 − t) x0 + t ε, with no "
LOSS_SLIPS = {
    "your target is x0 − ε, the direction from noise to data (Liu et al., whose time runs the "
    "other way); here t rises with the noise, dx_t/dt = ε − x0": partial(mean_loss, **BACK),
    "your mix is t x0 + (1 − t) ε, with data at t = 1; here t = 0 is data": partial(
        mean_loss, **REVERSED
    ),
    "that is the loss with time reversed, data at t = 1 (Liu et al.); here t = 0 is data: mix "
    "(1 − t) x0 + t ε, target ε − x0": partial(mean_loss, **REVERSED, **BACK),
    "the mix is right, but the network was told 1 − t": partial(mean_loss, told=lambda t: 1 - t),
    "you summed the squares over the data axes: take their mean": partial(
        mean_loss, reduce=lambda e: e.square().flatten(1).sum(1)
    ),
    "that is one number for the whole batch: keep one for each sample, (B,)": partial(
        mean_loss, reduce=lambda e: e.square().mean()
    ),
    "that is one number, and a sum: take the mean over the data axes of each sample": partial(
        mean_loss, reduce=lambda e: e.square().sum()
    ),
    VARIANCE + "cosine and sine": partial(mean_loss, mix=_quarter),
    VARIANCE + "roots": partial(
        mean_loss, mix=lambda x0, eps, k: (1 - k).sqrt() * x0 + k.sqrt() * eps
    ),
    VARIANCE + "√(1 − t²)": partial(
        mean_loss, mix=lambda x0, eps, k: (1 - k**2).sqrt() * x0 + k * eps
    ),
    "every sample has its own time, you used the first one's for all": (
        lambda net, x0, eps, t: mean_loss(net, x0, eps, t[:1].expand(len(t)))
    ),
    "the mix took the first sample's time for all": partial(
        mean_loss, mix=lambda x0, eps, k: _straight(x0, eps, k[:1])
    ),
    "your target is the noise ε: the velocity is ε − x0": partial(
        mean_loss, goal=lambda x0, eps, k: eps
    ),
    "your target is the data x0: the velocity is ε − x0": partial(
        mean_loss, goal=lambda x0, eps, k: x0
    ),
    "your target is v = a ε − b x0, here (1 − t) ε − t x0: the velocity is ε − x0": partial(
        mean_loss, goal=lambda x0, eps, k: (1 - k) * eps - k * x0
    ),
    "your target is the mix x_t itself: the velocity is its slope in t, ε − x0": partial(
        mean_loss, goal=_straight
    ),
    "your target is ε + x0: the velocity is the slope of (1 − t) x0 + t ε in t, ε − x0": partial(
        mean_loss, goal=lambda x0, eps, k: eps + x0
    ),
    "your target is xt − x0 = t (ε − x0), the way behind; the velocity is ε − x0": partial(
        mean_loss, goal=lambda x0, eps, k: k * (eps - x0)
    ),
    "x0 keeps its whole weight in your mix: (1 − t) x0 + t ε": partial(
        mean_loss, mix=lambda x0, eps, k: x0 + k * eps
    ),
    "that mix and target are of a diffusion with roots, predicting ε: here (1 − t) x0 + t ε, and "
    "ε − x0": partial(
        mean_loss,
        mix=lambda x0, eps, k: (1 - k).sqrt() * x0 + k.sqrt() * eps,
        goal=lambda x0, eps, k: eps,
    ),
    "the mean comes after the square: errors of both signs cancel in yours": partial(
        mean_loss, reduce=lambda e: e.flatten(1).mean(1).square()
    ),
    "that is the norm, a root of a sum: the mean of the squares is asked for": partial(
        mean_loss, reduce=lambda e: e.flatten(1).norm(dim=1)
    ),
    "those are the squares of all entries: take the mean over the data axes, .flatten(1).mean(1)": (
        partial(mean_loss, reduce=torch.square)
    ),
    "the network was told t = 1 throughout": partial(mean_loss, told=torch.ones_like),
    "the network was told t = 0 throughout": partial(mean_loss, told=torch.zeros_like),
    "the network saw the clean data: ask it at the mix x_t": partial(
        mean_loss, mix=lambda x0, eps, k: x0
    ),
    "the network saw the pure noise: ask it at the mix x_t": partial(
        mean_loss, mix=lambda x0, eps, k: eps
    ),
    "you took absolute values: the conditional mean is what squares lead to": partial(
        mean_loss, reduce=lambda e: e.abs().flatten(1).mean(1)
    ),
    "that is its square root": partial(mean_loss, reduce=lambda e: _mean_square(e).sqrt()),
    "that is half of it": partial(mean_loss, reduce=lambda e: _mean_square(e) / 2),
}


def reaches(answer: Tensor, weight: Tensor) -> bool:
    """Whether a gradient leads from the answer to the weight."""
    if not answer.requires_grad:
        return False
    (found,) = torch.autograd.grad(answer.sum(), weight, retain_graph=True, allow_unused=True)
    return found is not None


def check_gradient(answer: Tensor, net: Net) -> None:
    """Raises Wrong where nothing could be learned from the answer."""
    if not reaches(answer, net.weight):
        raise Wrong(
            "the values are right, but no gradient leads from the loss to the network's weights: "
            "was it computed under no_grad, or detached?"
        )


def flow_loss(function: Callable) -> None:
    """Checks flow_loss(net, x0, eps, t) -> (B,), the mean square over the data axes.

    x0, eps (B, C, H, W), t (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    x0, eps = draws(*IMAGE, seed=8), draws(*IMAGE, seed=9) - 0.7
    t = torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    net = Net()
    answer = ask("the loss", function, mean_loss, LOSS_SLIPS, net, x0, eps, t)
    check_gradient(answer, net)
    print(f"right: the loss of {B} images of shape {IMAGE[1:]}, each at its own time")
