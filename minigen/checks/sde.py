"""Checks of the exercises of lecture 9: one step back along the family of equations."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask
from minigen.checks.sde_trace import TRACE_SLIPS, hutchinson_divergence

B, D = 5, 3
T, S = 0.62, 0.45  # the step's times
F, G2 = -0.85, 1.9  # the forward drift's factor and the squared noise, at T
draws = partial(checks.draws, std=1.3)


class _Score:
    """A score that depends on state and time, and keeps the times it was asked at."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, x, t=None) -> Tensor:
        if t is None:
            raise Wrong("the score depends on the time too: score(x, t)")
        if not isinstance(x, Tensor) or x.shape != (B, D):
            got = tuple(x.shape) if isinstance(x, Tensor) else repr(x)
            raise Wrong(f"the score takes states of shape {(B, D)}, got {got}")
        t = torch.as_tensor(t, dtype=x.dtype)
        if t.shape not in ((), (B,)):
            raise Wrong(f"the score takes t of shape () or {(B,)}, got {tuple(t.shape)}")
        self.times.append(float(t.reshape(-1)[0]))
        return torch.sin(1.3 * x) - (0.6 + t.reshape(-1, 1)) * x + 0.5 * x.flip(1)


def _half_sum(noise: float) -> float:
    return 0.5 * (1 + noise**2)


def _root(g2, h, noise) -> Tensor:
    """noise g √(t − s)."""
    return noise * torch.sqrt(g2 * h)


def _step(score, x, t, s, f, g2, noise, z, *, weight=_half_sum, std=_root, drift=lambda f, x: f * x,
          pull=lambda w, g2, s: -w * g2 * s, dt=lambda h: -h, at=lambda x, f, h: x,
          when=lambda t, s: t, keep=lambda x, f, h: x) -> Tensor:  # fmt: skip
    """The right step, or one with the slip named: each replaces one of its parts."""
    h = t - s
    change = drift(f, x) + pull(weight(noise), g2, score(at(x, f, h), when(t, s)))
    return keep(x, f, h) + change * dt(h) + std(g2, h, noise) * z


def _swapped(score, x, t, s, *rest) -> Tensor:
    return _step(score, x, s, t, *rest)


def _noise_first(score, x, t, s, f, g2, noise, z) -> Tensor:
    """The noise is added, and the drift taken from there."""
    return _step(score, x + _root(g2, t - s, noise) * z, t, s, f, g2, noise, 0 * z)


def _score_after(score, x, t, s, f, g2, noise, z) -> Tensor:
    """As _noise_first, but f x is that of the step's start."""
    noisy = x + _root(g2, t - s, noise) * z
    return noisy + (f * x - _half_sum(noise) * g2 * score(noisy, t)) * (s - t)


STEP_SLIPS = {
    "its drift goes the wrong way: on the way back dt = s − t is negative, and you multiplied by "
    "t − s. So the equation runs towards noise with the wrong sign, and explodes": partial(
        _step, dt=lambda h: h
    ),
    "the noise is √(t − s); you took the root of s − t, which is negative": _swapped,
    "the ½ is missing: the score's weight is ½ (1 + noise²) g²": partial(
        _step, weight=lambda n: 1 + n**2
    ),
    "the score's weight is g², Anderson's, whatever the noise; it is ½ (1 + noise²) g²": partial(
        _step, weight=lambda n: 1.0
    ),
    "the score's weight is ½ g², that of the ODE, and noise was added all the same: then the law "
    "spreads. Noise needs a longer pull, ½ (1 + noise²) g²": partial(_step, weight=lambda n: 0.5),
    "you took ½ (1 + noise) g²: the noise is squared in it, as a variance is": partial(
        _step, weight=lambda n: 0.5 * (1 + n)
    ),
    "you took (½ + noise²) g²: the ½ stands before the whole bracket, ½ (1 + noise²) g²": partial(
        _step, weight=lambda n: 0.5 + n**2
    ),
    "the noise came first, and the drift from there: both are taken where the step starts": (
        _noise_first
    ),
    "the score was asked once the noise was added; Euler–Maruyama asks where the step starts": (
        _score_after
    ),
    "the noise is g² (t − s) z, a variance where its root belongs, noise · √(g² (t − s))": partial(
        _step, std=lambda g2, h, n: n * g2 * h
    ),
    "the noise is noise² g² (t − s) z: that is its variance, and z is multiplied by the root": (
        partial(_step, std=lambda g2, h, n: n**2 * g2 * h)
    ),
    "the noise is g² (t − s) z whatever `noise` says; it is noise · √(g² (t − s))": partial(
        _step, std=lambda g2, h, n: g2 * h
    ),
    "you took ½ (1 + noise)² g²; it is ½ (1 + noise²) g²": partial(
        _step, weight=lambda n: 0.5 * (1 + n) ** 2
    ),
    "the score's weight is noise² g², which is right for noise 1 alone: a half of g² stays without "
    "noise, ½ (1 + noise²) g²": partial(_step, weight=lambda n: n**2),
    "the score's weight is ½ noise² g²: without noise nothing would lead to the data. It is "
    "½ (1 + noise²) g²": partial(_step, weight=lambda n: 0.5 * n**2),
    "the score's weight is ½ (1 − noise²) g²; the noise spreads, so the pull grows with it, "
    "½ (1 + noise²) g²": partial(_step, weight=lambda n: 0.5 * (1 - n**2)),
    "you added the score's term: the drift is f x − ½ (1 + noise²) g² s": partial(
        _step, pull=lambda w, g2, s: w * g2 * s
    ),
    "the score is multiplied by g, the root of g2; it is g² = g2": partial(
        _step, pull=lambda w, g2, s: -w * g2.sqrt() * s
    ),
    "you squared g2, which is g² already": partial(
        _step, pull=lambda w, g2, s: -w * g2**2 * s, std=lambda g2, h, n: n * g2 * h.sqrt()
    ),
    "the score's term has lost its g²": partial(_step, pull=lambda w, g2, s: -w * s),
    "½ (1 + noise²) multiplies f x too; it belongs to the score's term alone": lambda *args: _step(
        *args[:4], _half_sum(args[6]) * args[4], *args[5:]
    ),
    "the drift f x is missing": partial(_step, drift=lambda f, x: 0.0),
    "you took f for f x: the drift is f times the state": partial(_step, drift=lambda f, x: f),
    "f x has the wrong sign: the whole bracket f x − ½ (1 + noise²) g² s is multiplied by s − t": (
        partial(_step, drift=lambda f, x: -f * x)
    ),
    "the drift is not multiplied by the step s − t": partial(_step, dt=lambda h: -1.0),
    "the drift is multiplied by √(t − s), which is the noise's factor; it takes s − t": partial(
        _step, dt=lambda h: -h.sqrt()
    ),
    "the noise is multiplied by t − s: its variance is what grows with time, so it takes "
    "√(t − s)": partial(_step, std=lambda g2, h, n: n * g2.sqrt() * h),
    "the noise has no √(t − s)": partial(_step, std=lambda g2, h, n: n * g2.sqrt()),
    "the noise is g² √(t − s) z: its factor is g, the root of g2": partial(
        _step, std=lambda g2, h, n: n * g2 * h.sqrt()
    ),
    "the noise has lost its g": partial(_step, std=lambda g2, h, n: n * h.sqrt()),
    "you squared `noise` in front of z: its square stands in the drift, where a variance does": (
        partial(_step, std=lambda g2, h, n: n**2 * torch.sqrt(g2 * h))
    ),
    "the noise is g √(t − s) z whatever `noise` says": partial(
        _step, std=lambda g2, h, n: torch.sqrt(g2 * h)
    ),
    "the root of `noise` stands before z; it is a factor of the standard deviation": partial(
        _step, std=lambda g2, h, n: math.sqrt(n) * torch.sqrt(g2 * h)
    ),
    "the noise is too strong by √2: that factor is Langevin's, √(2h)": partial(
        _step, std=lambda g2, h, n: n * torch.sqrt(2 * g2 * h)
    ),
    "the noise z is missing": partial(_step, std=lambda g2, h, n: 0.0),
    "you subtracted the noise: its law is the same, but z is given, so add it": partial(
        _step, std=lambda g2, h, n: -_root(g2, h, n)
    ),
    "the score was asked at s, where the step ends; all coefficients belong to its start t": (
        partial(_step, when=lambda t, s: s)
    ),
    "the score was asked in the middle of the step; Euler–Maruyama asks where it stands": partial(
        _step, when=lambda t, s: (t + s) / 2
    ),
    "the score was asked at x after the step of f x: it is asked at x": partial(
        _step, at=lambda x, f, h: x - f * x * h
    ),
    "you integrated f x exactly, by e^{f (s − t)}; Euler–Maruyama's factor is 1 + f (s − t)": (
        partial(_step, keep=lambda x, f, h: torch.exp(-f * h) * x, drift=lambda f, x: 0.0)
    ),
    "you returned the change alone: add it to x": partial(_step, keep=lambda x, f, h: 0.0),
}


def reverse_step(function: Callable) -> None:
    """Checks reverse_step(score, x, t, s, f, g2, noise, z) -> x at s < t, one step back.

    score(x, t); x, z (B, D); t, s, f, g2 0-d tensors, f and g2 at t; noise ≥ 0 a number. Raises
    NotYet, or Wrong with a diagnosis.
    """
    x, z = draws(B, D, seed=90), draws(B, D, seed=91, mean=0.2)
    t, s, f, g2 = (torch.tensor(c, dtype=torch.float64) for c in (T, S, F, G2))
    for noise in (0.7, 0.0, 1.0):
        score = _Score()
        slips = STEP_SLIPS if noise == 0.7 else {}  # where each has a value of its own
        # The truth asks a score of its own: the times are those of the learner's calls alone.
        try:
            ask(f"the step with noise {noise}", function,
                lambda _, *args: _step(_Score(), *args), slips,
                score, x, t, s, f, g2, noise, z)  # fmt: skip
        except IndexError as error:
            raise Wrong(
                f"t, s, f and g2 are 0-d tensors, one number for the batch: they need no "
                f"[:, None], nor any other index ({error})"
            ) from None
        if len(score.times) != 1:
            raise Wrong(
                f"the values are right, but the score was asked {len(score.times)} times: it is "
                f"the network, which one step pays for once"
            )
    print("right: the step with noise 0.7, without noise (the ODE), and with Anderson's noise 1")


SLIPS = {reverse_step: STEP_SLIPS, hutchinson_divergence: TRACE_SLIPS}
