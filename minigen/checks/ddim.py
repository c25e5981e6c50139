"""Checks of the exercises of lecture 4, DDIM."""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen import ddim, ddpm, paths
from minigen.checks import Wrong, call, compare
from minigen.shapes import like

LEVELS = ([500, 700, 300, 900, 400], [200, 699, 0, 350, 390])  # t and s of five samples


def _draws(*shape: int) -> Tensor:
    """Values with a mean far from 0, float64, always the same."""
    return 0.7 + torch.randn(shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _answer(function: Callable, *args) -> Tensor:
    """The function's answer, a tensor."""
    answer = call(function, *args)
    if not isinstance(answer, Tensor):
        raise Wrong(f"the answer should be a tensor, got {answer!r}")
    return answer


def _step(x, eps, abar_t, abar_s, eta, z, **slip) -> Tensor:
    """The right step, or one with the slips named: each replaces one quantity."""
    abar_t, abar_s = like(abar_t, x), like(abar_s, x)
    a_t, b_t = slip.get("a", torch.sqrt)(abar_t), torch.sqrt(1 - abar_t)
    x0 = (x - slip.get("sign", 1) * b_t * eps) / a_t
    beta = 1 - abar_t / (1 if slip.get("whole") else abar_s)
    variance = slip.get("knob", eta**2) * slip.get("share", (1 - abar_s) / (1 - abar_t)) * beta
    to = abar_t if slip.get("stay") else abar_s
    a_s = slip.get("a", torch.sqrt)(to)
    root = torch.sqrt((1 - to - slip.get("root", 1) * variance).clamp(min=0))
    return a_s * x0 + root * eps + slip.get("std", torch.sqrt)(variance) * z


STEP_SLIPS = {
    "you divided and multiplied by ᾱ: the signal's coefficient is its root, a = √ᾱ": {
        "a": lambda abar: abar
    },
    "x̂0 = (xt − √(1 − ᾱ_t) ε̂)/√ᾱ_t takes the noise away; you added it": {"sign": -1},
    "your ς² is η β̃, but ς = η √β̃ makes it η² β̃": {"knob": 0.6},
    "the fresh noise must be paid for: the root is √(1 − ᾱ_s − ς²), you left out ς²": {"root": 0},
    "the fresh noise z is multiplied by the standard deviation ς; you took the variance ς²": {
        "std": lambda variance: variance
    },
    "you put the noise of level t back; the step ends at s: √ᾱ_s x̂0 and 1 − ᾱ_s": {"stay": True},
    "your β is 1 − ᾱ_t, that of all steps from the data; from s to t it is 1 − ᾱ_t/ᾱ_s": {
        "whole": True
    },
    "your ς² is η² β, which adds noise even at s = 0; β̃ = (1 − ᾱ_s)/(1 − ᾱ_t) β": {"share": 1},
}


def ddim_step(function: Callable) -> None:
    """Checks ddim_step(xt, eps_hat, abar_t, abar_s, eta, z) -> xs, each sample at its own levels.

    xt, eps_hat, z (B, D); abar_t, abar_s (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    path = paths.DDPM(ddpm.linear_betas())
    abar_t, abar_s = (path.alpha_bars[i] for i in LEVELS)
    x, eps, z = _draws(3, 5, 3)
    for eta in (0.0, 0.6):
        rest = (eta, z)
        slips = {why: _step(x, eps, abar_t, abar_s, *rest, **k) for why, k in STEP_SLIPS.items()}
        first = (abar[:1].expand(5) for abar in (abar_t, abar_s))
        alike = "every sample has its own ᾱ, you used the first one's for all"
        slips[alike] = _step(x, eps, *first, *rest)
        answer = _answer(function, x, eps, abar_t, abar_s, *rest)
        truth = _step(x, eps, abar_t, abar_s, *rest)
        _compare_rows(f"x_s at eta = {eta:g}", answer, truth, slips)
    print(
        "right: x_s at eta = 0 and 0.6, for five samples at five pairs of levels, s = 0 among them"
    )


def _compare_rows(what: str, answer: Tensor, truth: Tensor, slips: dict[str, Tensor]) -> None:
    """As `compare`; rows of NaN, from a slip that makes a root negative, do not hide the slip."""
    if answer.shape != truth.shape:
        return compare(what, answer, truth, slips)
    real = ~answer.isnan().any(1)
    if bool(real.any()):
        compare(what, answer[real], truth[real], {why: x[real] for why, x in slips.items()})
    if not bool(real.all()):
        raise Wrong(f"{what} is NaN in a sample: the number under one of your roots is negative")


def _arc(a: Tensor, b: Tensor, u: float, angle: Tensor) -> Tensor:
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def _angle(a: Tensor, b: Tensor, dim) -> Tensor:
    dot = (a * b).sum(dim, keepdim=True)
    lengths = a.square().sum(dim, keepdim=True) * b.square().sum(dim, keepdim=True)
    return torch.acos(dot / lengths.sqrt())


def slerp(function: Callable) -> None:
    """Checks slerp(a, b, u), a and b (B, *D), u a number in [0, 1].

    Raises NotYet, or Wrong with a diagnosis.
    """
    a, b = _draws(2, 4, 2, 3)
    u = 0.3
    dims = tuple(range(1, a.ndim))
    angle = _angle(a, b, dims)
    unit = [x / x.square().sum(dims, keepdim=True).sqrt() for x in (a, b)]
    cosine = torch.cos(angle)
    slips = {
        "that is the straight line (1 − u) a + u b, which is too short in the middle": torch.lerp(
            a, b, u
        ),
        "u = 0 must give a and u = 1 give b: yours has the weights exchanged": _arc(b, a, u, angle),
        "your angle is one for the whole batch: take the dot product within each sample": _arc(
            a, b, u, _angle(a, b, (0, *dims))
        ),
        "your angle is one for each row: a sample is one vector, flatten all its data axes": _arc(
            a, b, u, _angle(a, b, -1)
        ),
        "you interpolated the unit vectors: the lengths of a and b are lost": _arc(*unit, u, angle),
        "divide by sin θ, or u = 0 does not give a": torch.sin(angle) * _arc(a, b, u, angle),
        "θ is the arc cosine of the dot product of the directions; you left out the arc cosine": (
            _arc(a, b, u, cosine)
        ),
    }
    answer = _answer(function, a, b, u)
    if bool(answer.isnan().any()):
        raise Wrong(
            "slerp gives NaN: an arc cosine needs a number in [−1, 1], so divide the dot product "
            "by both lengths"
        )
    compare("slerp at u = 0.3", answer, ddim.slerp(a, b, u), slips)
    print("right: slerp of four samples of shape (2, 3), each with its own angle")
