"""Checks of the exercises of lecture 4, DDIM."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import ddim, ddpm, paths
from minigen.checks import Wrong, ask, draws
from minigen.shapes import like

LEVELS = ([500, 700, 300, 900, 400], [200, 699, 0, 350, 390])  # t and s of five samples
_draws = partial(draws, seed=4)


# One step ---------------------------------------------------------------------------------------


def _step(x, eps, abar_t, abar_s, eta, z, *, a=torch.sqrt, b=torch.sqrt, front=None, sign=1,
          power=2, beta=lambda abar_t, abar_s: 1 - abar_t / abar_s, std=torch.sqrt, stay=False,
          share=lambda abar_t, abar_s: (1 - abar_s) / (1 - abar_t),
          rest=lambda b2, v: (b2 - v).sqrt(), low=False) -> Tensor:  # fmt: skip
    """The right step, or one with the slips named: each replaces one quantity."""
    abar_t, abar_s = like(abar_t, x), like(abar_s, x)
    x0 = (x - sign * b(1 - abar_t) * eps) / a(abar_t)
    variance = eta**power * share(abar_t, abar_s) * beta(abar_t, abar_s)
    to = abar_t if stay else abar_s
    back = 1 - (abar_t if low else to)
    return (front or a)(to) * x0 + rest(back, variance) * eps + std(variance) * z


def _variance(abar_t, abar_s, eta) -> Tensor:
    return eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)


def _amplitude(x, eps, abar_t, abar_s, eta, z) -> Tensor:
    return _step(x, eps, abar_t**2, abar_s**2, eta, z)


def _exchanged(x, eps, abar_t, abar_s, eta, z) -> Tensor:
    return _step(x, eps, abar_s, abar_t, eta, z)


def _first(x, eps, abar_t, abar_s, eta, z) -> Tensor:
    return _step(x, eps, *(abar[:1].expand(len(x)) for abar in (abar_t, abar_s)), eta, z)


STEP_SLIPS = {
    "you divided and multiplied by ᾱ: the signal's coefficient is its root, a = √ᾱ": partial(
        _step, a=lambda abar: abar
    ),
    "you read ᾱ as the amplitude a, so that b was √(1 − ᾱ²): a = √ᾱ, b = √(1 − ᾱ)": _amplitude,
    "you exchanged t and s: xt stands at t, where ᾱ is small, and goes to s": _exchanged,
    "η is left out: the fresh noise has std ς = η √β̃": partial(_step, power=0),
    "the fresh noise ς z is left out": partial(_step, std=torch.zeros_like),
    "x̂0 = (xt − √(1 − ᾱ_t) ε̂)/√ᾱ_t takes the noise away; you added it": partial(_step, sign=-1),
    "your ς² is η β̃, but ς = η √β̃ makes it η² β̃": partial(_step, power=1),
    "the fresh noise must be paid for: the root is √(1 − ᾱ_s − ς²), you left out ς²": partial(
        _step, rest=lambda b2, v: b2.sqrt()
    ),
    "the fresh noise must be paid for: 1 − ᾱ_s − ς² stands under the root, you added ς²": partial(
        _step, rest=lambda b2, v: (b2 + v).sqrt()
    ),
    "ς was taken from the root, √(1 − ᾱ_s) − ς; variances are subtracted, √(1 − ᾱ_s − ς²)": partial(
        _step, rest=lambda b2, v: b2.sqrt() - v.sqrt()
    ),
    "1 − ᾱ_s − ς² stands in front of ε̂ without its root": partial(_step, rest=torch.sub),
    "ε̂ is not put back: √(1 − ᾱ_s − ς²) ε̂ is missing": partial(
        _step, rest=lambda b2, v: torch.zeros_like(v)
    ),
    "z stands where ε̂ is put back; the fresh noise has only the share ς": (
        lambda x, eps, abar_t, abar_s, eta, z: (
            _step(x, eps, abar_t, abar_s, eta, z)
            + (1 - like(abar_s, x) - like(_variance(abar_t, abar_s, eta), x)).sqrt() * (z - eps)
        )
    ),
    "√ᾱ_s is missing in front of x̂0": partial(_step, front=torch.ones_like),
    "ᾱ_s stands in front of x̂0 without its root": partial(_step, front=lambda abar: abar),
    "ᾱ_t stands below the bracket of x̂0 without its root": partial(
        _step, a=lambda abar: abar, front=torch.sqrt
    ),
    "the division by √ᾱ_t is missing in x̂0": partial(_step, a=torch.ones_like, front=torch.sqrt),
    "1 − ᾱ_t stands in x̂0 without its root": partial(_step, b=lambda v: v),
    "that is x̂0 itself; the step goes back up to s": (
        lambda x, eps, abar_t, *rest: _step(x, eps, abar_t, torch.ones_like(abar_t), 0.0, x)
    ),
    "at η = 0 that is DDPM's mean, which goes with η = 1: ς = η √β̃ stands in front of z and under "
    "the root, √(1 − ᾱ_s − ς²)": (
        lambda x, eps, abar_t, abar_s, eta, z: _step(x, eps, abar_t, abar_s, 1.0, eta * z)
    ),
    "the fresh noise is η z; its std is ς = η √β̃": lambda *case: _step(
        *case, std=lambda v: torch.full_like(v, case[4])
    ),
    "your β is 1 − ᾱ_s/ᾱ_t, which is negative: from s to t, β = 1 − ᾱ_t/ᾱ_s": partial(
        _step, beta=lambda abar_t, abar_s: 1 - abar_s / abar_t
    ),
    "the fraction of your β̃ is upside down: (1 − ᾱ_s)/(1 − ᾱ_t), which is 0 at s = 0": partial(
        _step, share=lambda abar_t, abar_s: (1 - abar_t) / (1 - abar_s)
    ),
    "the fresh noise z is multiplied by the standard deviation ς; you took the variance ς²": (
        partial(_step, std=lambda variance: variance)
    ),
    "at η = 0 you return xt: one level is used twice; x̂0 is made with ᾱ_t, the way back with ᾱ_s": (
        partial(_step, stay=True)
    ),
    "1 − ᾱ_t stands under the root where ε̂ is put back; the step ends at s: 1 − ᾱ_s − ς²": partial(
        _step, low=True
    ),
    "your ς is η² √β̃; it is η √β̃": partial(_step, power=4),
    "your ς is η² √β̃ in front of z alone; it is η √β̃": (
        lambda x, eps, abar_t, abar_s, eta, z: _step(x, eps, abar_t, abar_s, eta, eta * z)
    ),
    "your ς² is η² b_s² = η² (1 − ᾱ_s): β̃ has the β from s to t, 1 − ᾱ_t/ᾱ_s, not 1 − ᾱ_t": partial(
        _step, beta=lambda abar_t, abar_s: 1 - abar_t
    ),
    "your ς² is η² β, which adds noise even at s = 0; β̃ = (1 − ᾱ_s)/(1 − ᾱ_t) β": partial(
        _step, share=lambda *levels: 1
    ),
    "your ς² is η² β, which needs a clamp at s = 0; β̃ = (1 − ᾱ_s)/(1 − ᾱ_t) β is 0 there": partial(
        _step, share=lambda *levels: 1, rest=lambda b2, v: (b2 - v).clamp(min=0).sqrt()
    ),
    "every sample has its own ᾱ, you used the first one's for all": _first,
}


def ddim_step(function: Callable) -> None:
    """Checks ddim_step(xt, eps_hat, abar_t, abar_s, eta, z) -> xs, each sample at its own levels.

    xt, eps_hat, z (B, D); abar_t, abar_s (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    abar_t, abar_s = (paths.DDPM(ddpm.linear_betas()).alpha_bars[i] for i in LEVELS)
    x, eps, z = _draws(3, 5, 3)
    for eta in (0.0, 0.6):
        try:
            ask(
                f"x_s at eta = {eta:g}", function, _step, STEP_SLIPS, x, eps, abar_t, abar_s, eta, z
            )
        except Wrong as wrong:
            if "holds NaN" not in str(wrong):
                raise
            raise Wrong(
                f"{wrong}: a number under one of your roots is negative, or 0 is divided by"
            ) from None
    print(
        "right: x_s at eta = 0 and 0.6, for five samples at five pairs of levels, s = 0 among them"
    )


# The great circle -------------------------------------------------------------------------------


def _arc(a: Tensor, b: Tensor, u: float, *, dim=(1, 2), angle=torch.acos, below=torch.sin,
         of_a=lambda u, theta: torch.sin((1 - u) * theta),
         of_b=lambda u, theta: torch.sin(u * theta), power=0.5) -> Tensor:  # fmt: skip
    """The arc from a to b with the angle between vectors that run over the axes `dim`."""
    dot = (a * b).sum(dim, keepdim=True)
    lengths = a.square().sum(dim, keepdim=True) * b.square().sum(dim, keepdim=True)
    theta = angle(dot / lengths**power)
    return (of_a(u, theta) * a + of_b(u, theta) * b) / below(theta)


COSINES = {
    "of_a": lambda u, theta: torch.cos((1 - u) * theta),
    "of_b": lambda u, theta: torch.cos(u * theta),
}


def _unit(a: Tensor, b: Tensor, u: float) -> Tensor:
    return _arc(*(x / x.square().sum((1, 2), keepdim=True).sqrt() for x in (a, b)), u)


def _rescaled(a: Tensor, b: Tensor, u: float, *, end: float = 0.0, long=torch.lerp) -> Tensor:
    """The straight line, made as long as an end, or as the lengths in proportion (end = u)."""
    line, (p, q) = (
        torch.lerp(a, b, u),
        (x.square().sum((1, 2), keepdim=True).sqrt() for x in (a, b)),
    )
    return line / line.square().sum((1, 2), keepdim=True).sqrt() * long(p, q, end)


RESCALED = "a straight line made long again turns too slowly at its ends: weigh a and b by sines"
SLERP_SLIPS = {
    RESCALED: _rescaled,
    f"{RESCALED} of the angle": lambda a, b, u: _rescaled(a, b, u, end=u),
    "the weights √(1 − u) and √u keep the length only at a right angle, and turn unevenly": (
        lambda a, b, u: (1 - u) ** 0.5 * a + u**0.5 * b
    ),
    "that is the straight line (1 − u) a + u b, which is too short in the middle": torch.lerp,
    "u = 0 must give a and u = 1 give b: yours has the weights exchanged": (
        lambda a, b, u: _arc(b, a, u)
    ),
    "your angle is one for the whole batch: take the dot product within each sample": partial(
        _arc, dim=(0, 1, 2)
    ),
    "your angle is one for each row: a sample is one vector, flatten all its data axes": partial(
        _arc, dim=-1
    ),
    "you interpolated the unit vectors: the lengths of a and b are lost": _unit,
    "divide by sin ω, or u = 0 does not give a": partial(_arc, below=torch.ones_like),
    "divide by sin ω; you divided by ω": partial(_arc, below=lambda theta: theta),
    "ω is the arc cosine of the dot product; you took the arc sine": partial(
        _arc, angle=torch.asin
    ),
    "cos uω a + sin uω b turns towards a vector at right angles to a, which b is not: the weight "
    "of a is sin (1 − u)ω / sin ω": partial(
        _arc, below=torch.ones_like, of_a=lambda u, theta: torch.cos(u * theta)
    ),
    "the weights are sines of (1 − u)ω and uω; you took cosines, over sin ω": partial(
        _arc, **COSINES
    ),
    "the weights are sines of (1 − u)ω and uω over sin ω; you took cosines for all three": partial(
        _arc, **COSINES, below=torch.cos
    ),
    "cos and sin of u π/2 fit a right angle only: each sample has its own ω": (
        lambda a, b, u: math.cos(u * math.pi / 2) * a + math.sin(u * math.pi / 2) * b
    ),
    "the dot product must be divided by both lengths; you divided by their squares": partial(
        _arc, power=1.0
    ),
    "you made the straight line a unit vector: the lengths of a and b are lost": partial(
        _rescaled, long=lambda *lengths: 1
    ),
    "ω is the arc cosine of the dot product of the directions; you left out the arc cosine": (
        partial(_arc, angle=lambda cosine: cosine)
    ),
}


def slerp(function: Callable) -> None:
    """Checks slerp(a, b, u), a and b (B, *D), u a number in [0, 1].

    Raises NotYet, or Wrong with a diagnosis.
    """
    try:
        ask("slerp at u = 0.3", function, ddim.slerp, SLERP_SLIPS, *_draws(2, 4, 2, 3), 0.3)
    except Wrong as wrong:
        if "holds NaN" not in str(wrong):
            raise
        raise Wrong(
            f"{wrong}: an arc cosine needs a number in [−1, 1], so divide the dot product by both "
            f"lengths"
        ) from None
    print("right: slerp of four samples of shape (2, 3), each with its own angle")


SLIPS = {ddim_step: STEP_SLIPS, slerp: SLERP_SLIPS}
