"""Checks of the exercises of lecture 16, one step: sampling with several, and shortcuts."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws
from minigen.checks.distill_shortcut import SHORTCUT_SLIPS, shortcut_target
from minigen.paths import Linear

B, D, N, T_MIN = 5, 3, 4, 0.15  # samples, dimensions, calls of f, where its answers live
PATH = Linear()  # a² + b² ≠ 1 between the ends: not every short cut for VP is right


class _OneStep:
    """A function of state and time such as a one-step network; it keeps the times it was asked."""

    def __init__(self):
        self.times: list[float] = []

    def __call__(self, x, t) -> Tensor:
        if not isinstance(t, Tensor) or t.shape not in {(), (B,)}:
            got = tuple(t.shape) if isinstance(t, Tensor) else repr(t)
            raise Wrong(f"f takes states and a time, a tensor () or (B,), got {got}")
        if x.shape != (B, D):
            raise Wrong(f"f takes states ({B}, {D}), got {tuple(x.shape)}")
        if bool((t < T_MIN).any()) or bool((t > 1).any()):
            raise Wrong(f"f was asked at t = {t.tolist()}: the times are ts, from 1 down to t_min")
        self.times.append(float(t.max()))
        k = t if t.ndim == 0 else t[:, None]
        return torch.sin(x + 3 * k) * (1.2 - k) + 0.4 * x.roll(1, 1) - 0.2


def _keep(a, a_min):
    return a / a_min


def _std(a, b, a_min, b_min):
    return torch.sqrt(b**2 - (a / a_min * b_min) ** 2)


def _multistep(f, path, xT, ts, z, t_min, *, keep=_keep, std=_std, times=lambda ts: (ts[0], ts[1:]),
               asked=lambda t, before, ts: t, fresh=lambda z, i, xT: z[i], last=True,
               onto=lambda y, state: y) -> Tensor:  # fmt: skip
    """The right walk, or one with the slips named: each replaces a part of it."""
    first, rest = times(ts)
    low = torch.tensor(t_min, dtype=xT.dtype)
    a_min, b_min = path.a(low), path.b(low)
    y, before, state = f(xT, first), first, xT
    for i, t in enumerate(rest):
        a, b = path.a(t), path.b(t)
        state = keep(a, a_min) * onto(y, state) + std(a, b, a_min, b_min) * fresh(z, i, xT)
        if last or i < len(rest) - 1:
            y = f(state, asked(t, before, ts))
        before = t
    return y if last else state


def _same_noise(f, path, xT, ts, z, t_min) -> Tensor:
    """Each answer moved on by its own noise, as DDIM does: nothing fresh in it."""
    y, state, before = f(xT, ts[0]), xT, ts[0]
    for t in ts[1:]:
        eps = (state - path.a(before) * y) / path.b(before)
        state, before = path.a(t) * y + path.b(t) * eps, t
        y = f(state, t)
    return y


def _only(f, path, xT, ts, z, t_min) -> Tensor:
    return f(xT, ts[0])


def _chained(f, path, xT, ts, z, t_min) -> Tensor:
    y = xT
    for t in ts:
        y = f(y, t)
    return y


def _once_more(f, path, xT, ts, z, t_min) -> Tensor:
    return f(_multistep(f, path, xT, ts, z, t_min), torch.tensor(t_min, dtype=ts.dtype))


_one = partial(partial, _multistep)
MULTISTEP_SLIPS = {
    "that is √(1 − (a_t/a_min)²), right for a² + b² = 1 (VP) only: the path may be any": _one(
        std=lambda a, b, a_min, b_min: torch.sqrt(1 - (a / a_min) ** 2)
    ),
    "you put the whole of b_t back: the answer lives at t_min and has noise of its own, whose "
    "share is to be left out": _one(std=lambda a, b, a_min, b_min: b),
    "that is √(b_t² − b_min²): on the way from t_min to t the answer's own noise shrinks with the "
    "signal, by a_t/a_min": _one(std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - b_min**2)),
    "that is √(b_t² − (a_t b_min)²): what is kept of the answer, and of its noise, is a_t/a_min": (
        _one(std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - (a * b_min) ** 2))
    ),
    "that is √(b_t² − (a_t/a_min) b_min²): a variance shrinks by the square, (a_t/a_min)²": _one(
        std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - a / a_min * b_min**2)
    ),
    "you subtracted standard deviations: independent noises add in their variances": _one(
        std=lambda a, b, a_min, b_min: b - a / a_min * b_min
    ),
    "your noise has the variance b_t² − … for its standard deviation: a root is missing": _one(
        std=lambda a, b, a_min, b_min: b**2 - (a / a_min * b_min) ** 2
    ),
    "you forgot that the signal shrinks: a_t/a_min of the answer is kept": _one(
        keep=lambda a, a_min: 1.0
    ),
    "that is right for a = 1 (EDM) only, x + √(b_t² − b_min²) z: here the signal shrinks by "
    "a_t/a_min": _one(
        keep=lambda a, a_min: 1.0, std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - b_min**2)
    ),
    "you noised the answer as if it were x0, a_t x + b_t z: it lives at t_min": _one(
        keep=lambda a, a_min: a, std=lambda a, b, a_min, b_min: b
    ),
    "you keep a_t of the answer: it has a_min of the data already, so a_t/a_min is kept": _one(
        keep=lambda a, a_min: a
    ),
    "you keep a_t of the answer and of its noise: it has a_min of the data already, so a_t/a_min "
    "is kept of both": _one(
        keep=lambda a, a_min: a, std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - (a * b_min) ** 2)
    ),
    "you keep a_t of the answer and add √(b_t² − b_min²): a_t/a_min is kept, of its noise too": (
        _one(keep=lambda a, a_min: a, std=lambda a, b, a_min, b_min: torch.sqrt(b**2 - b_min**2))
    ),
    "that is √(σ_t² − σ_min²), the noise of x/a: times a_t it is that of x_t": _one(
        std=lambda a, b, a_min, b_min: torch.sqrt((b / a) ** 2 - (b_min / a_min) ** 2)
    ),
    "you keep (a_t/a_min)² of the answer: its signal shrinks by a_t/a_min, its variance by the "
    "square": _one(keep=lambda a, a_min: (a / a_min) ** 2),
    "that is b_t² plus what is left of the answer's noise: this is in x_t already, take it off": (
        _one(std=lambda a, b, a_min, b_min: torch.sqrt(b**2 + (a / a_min * b_min) ** 2))
    ),
    "your signal grows, a_min/a_t: from t_min to t it shrinks, by a_t/a_min": _one(
        keep=lambda a, a_min: a_min / a
    ),
    "you forgot the noise: z is put back before each further call": _one(
        std=lambda a, b, a_min, b_min: 0.0
    ),
    "you moved each answer on with the noise that it implies, which is DDIM: fresh z is to be "
    "put back": _same_noise,
    "your noise goes onto the old state, and it belongs onto f's last answer": _one(
        onto=lambda y, state: state
    ),
    "you asked f at the time before: the state has the noise of the new time": _one(
        asked=lambda t, before, ts: before
    ),
    "you asked f at ts[0] each time: the state has the noise of the new time": _one(
        asked=lambda t, before, ts: ts[0]
    ),
    "you asked f at the last time each time: the state has the noise of the new time": _one(
        asked=lambda t, before, ts: ts[-1]
    ),
    "that is the last noisy state: f has still to be asked there": _one(last=False),
    "your walk leaves the last time of ts out": _one(times=lambda ts: (ts[0], ts[1:-1])),
    "your walk begins twice at ts[0], and the last time is left out: z[0] leads from the first "
    "answer to ts[1]": _one(times=lambda ts: (ts[0], ts[:-1])),
    "your times go the wrong way round: ts falls": _one(
        times=lambda ts: (ts[0], ts[1:].flip(0))
    ),
    "your noises are taken from the end: z[0] is the first put back": _one(
        fresh=lambda z, i, xT: z[len(z) - 1 - i]
    ),
    "you put the same noise back each time: z[i] is the i-th": _one(fresh=lambda z, i, xT: z[0]),
    "you put the last noise back each time: z[i] is the i-th": _one(fresh=lambda z, i, xT: z[-1]),
    "you took the noise off: the same law, but z is to be added": _one(
        fresh=lambda z, i, xT: -z[i]
    ),
    "you put xT back as the noise: z is there for that": _one(fresh=lambda z, i, xT: xT),
    "that is the answer of one step: ts has more times": _only,
    "you asked f once more, at t_min: its answer lives there already": _once_more,
    "you gave f its own answers without noise: each belongs to t_min, not to the next time": (
        _chained
    ),
}  # fmt: skip


def _case() -> tuple:
    """f, path, xT, ts, z, t_min: four calls, three noises."""
    xT, z = draws(B, D, seed=161), draws(N - 1, B, D, seed=162, mean=0.0)
    ts = torch.tensor([1.0, 0.7, 0.45, 0.2], dtype=torch.float64)
    return _OneStep(), PATH, xT, ts, z, T_MIN


def multistep(function: Callable) -> None:
    """Checks multistep(f, path, xT, ts, z, t_min) -> (B, D), the last answer of f.

    xT (B, D), ts (N,) falling, z (N − 1, B, D). Raises NotYet, or Wrong with a diagnosis.
    """
    f, *rest = _case()
    ask("the last answer", function, lambda _, *r: _multistep(_OneStep(), *r), MULTISTEP_SLIPS,
        f, *rest)  # fmt: skip
    if len(f.times) != N:
        raise Wrong(f"the values are right, but f was asked {len(f.times)} times, for {N} times ts")
    print(f"right: {N} calls of f, noise put back {N - 1} times")


SLIPS = {multistep: MULTISTEP_SLIPS, shortcut_target: SHORTCUT_SLIPS}
