"""The check of lecture 16's second program, the target of a shortcut model."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws

B, D = 6, 3  # samples, dimensions


class _Mean:
    """A mean velocity u(x, t, s) with a weight, such as a network; it keeps what it was asked."""

    def __init__(self):
        self.weight = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def __call__(self, x, t, s) -> Tensor:
        n = len(x)  # some of the samples may be asked for alone
        for given, name, shape in ((x, "x", (n, D)), (t, "t", (n,)), (s, "s", (n,))):
            if not isinstance(given, Tensor) or given.shape != shape:
                got = tuple(given.shape) if isinstance(given, Tensor) else repr(given)
                raise Wrong(f"u takes {name} of shape {shape}, got {got}")
        if bool((s > t).any()):
            raise Wrong("u was asked for a way with s > t: time falls from t to s")
        self.calls += 1
        t, s = t[:, None], s[:, None]
        return torch.sin(self.weight * x + 2 * t) * (1 + s) + 0.5 * (t - s) * x.roll(1, 1) - 0.3


def _column(c: Tensor) -> Tensor:
    return c[:, None]


def _shares(t, mid, s):
    """The share of either part of the way; 1 and 0 where there is no way."""
    first = torch.where(t > s, (t - mid) / torch.where(t > s, t - s, 1.0), 1.0)
    return first, 1 - first


def _shortcut(u, x0, eps, t, mid, s, *, mix=lambda x0, eps, t: (1 - t) * x0 + t * eps,
              first=lambda t, mid, s: (t, mid), second=lambda t, mid, s: (mid, s),
              there=lambda xt, u1, t, mid, s, x0, eps: xt - (t - mid) * u1, shares=_shares,
              join=lambda p, q, u1, u2: p * u1 + q * u2, still=lambda x0, eps, joined: eps - x0,
              ) -> Tensor:  # fmt: skip
    """The right target, or one with the slips named: each replaces a part of it."""
    with torch.no_grad():
        xt = mix(x0, eps, _column(t))
        u1 = u(xt, *first(t, mid, s))
        columns = (_column(t), _column(mid), _column(s))
        u2 = u(there(xt, u1, *columns, x0, eps), *second(t, mid, s))
        joined = join(*map(_column, shares(t, mid, s)), u1, u2)
        return torch.where(_column(t > s), joined, still(x0, eps, joined))


def _itself(u, x0, eps, t, mid, s) -> Tensor:
    own = u((1 - _column(t)) * x0 + _column(t) * eps, t, s)
    return torch.where(_column(t > s), own, eps - x0)


def _end(u, x0, eps, t, mid, s) -> Tensor:
    """The point that the two steps lead to."""
    xt = (1 - _column(t)) * x0 + _column(t) * eps
    return xt - _column(t - s) * _shortcut(u, x0, eps, t, mid, s, still=lambda x0, eps, j: j)


def _halfway(u, x0, eps, t, mid, s) -> Tensor:
    return _shortcut(u, x0, eps, t, (t + s) / 2, s)


def _first_for_all(u, x0, eps, t, mid, s) -> Tensor:
    return _shortcut(u, x0, eps, *(c[:1].expand_as(c) for c in (t, mid, s)))


def _ways(t, mid, s):
    return t - mid, mid - s


def _shares_with_nan(t, mid, s):
    return (t - mid) / (t - s), (mid - s) / (t - s)


_one = partial(partial, _shortcut)
_pair = lambda share: lambda t, mid, s: (torch.full_like(t, share), torch.full_like(t, share))
SHORTCUT_SLIPS = {
    "you took the plain mean of the two velocities: that is right only for a mid halfway; each "
    "counts for its share of the way": _one(shares=_pair(0.5)),
    "you went by way of the middle, (t + s)/2: `mid` is given, anywhere between": _halfway,
    "that is divided by t, and the way is t − s long": _one(
        shares=lambda t, mid, s: ((t - mid) / t, (mid - s) / t)
    ),
    "your shares are swapped: the first velocity holds from t to mid": _one(
        shares=lambda t, mid, s: _shares(t, mid, s)[::-1]
    ),
    "that is the way, (t − mid) u1 + (mid − s) u2: a velocity is asked for, divide by t − s": _one(
        shares=_ways
    ),
    "you added the two velocities: their mean over the way is asked for": _one(shares=_pair(1.0)),
    "that is the first velocity alone": _one(join=lambda p, q, u1, u2: u1),
    "that is the second velocity alone": _one(join=lambda p, q, u1, u2: u2),
    "the second velocity is asked where the first step ends; you asked it at x_t": _one(
        there=lambda xt, u1, t, mid, s, x0, eps: xt
    ),
    "your first step goes toward the noise: from t down to mid it is − (t − mid) u1": _one(
        there=lambda xt, u1, t, mid, s, x0, eps: xt + (t - mid) * u1
    ),
    "your first step is too long, t − s: it ends at mid": _one(
        there=lambda xt, u1, t, mid, s, x0, eps: xt - (t - s) * u1
    ),
    "your first step is mid long: from t to mid it is t − mid": _one(
        there=lambda xt, u1, t, mid, s, x0, eps: xt - mid * u1
    ),
    "you went to mid with the pair's own velocity, or mixed the pair again there, which is "
    "consistency training's step: here the state goes where u1 takes it": _one(
        there=lambda xt, u1, t, mid, s, x0, eps: (1 - mid) * x0 + mid * eps
    ),
    "the first velocity is asked for the way to mid, you asked for the whole, to s": _one(
        first=lambda t, mid, s: (t, s)
    ),
    "the first velocity is asked for the way to mid, you asked at one time, t to t": _one(
        first=lambda t, mid, s: (t, t)
    ),
    "the second velocity is asked for the way from mid to s, you asked from t to s": _one(
        second=lambda t, mid, s: (t, s)
    ),
    "the second velocity is asked for the way from mid to s, you asked from t to mid": _one(
        second=lambda t, mid, s: (t, mid)
    ),
    "the second velocity is asked for the way from mid to s, you asked at one time, mid to mid": (
        _one(second=lambda t, mid, s: (mid, mid))
    ),
    "you gave u the length of the way as its last argument (Frans et al. do): here u(x, t, s) "
    "takes the time at which it ends": _one(
        first=lambda t, mid, s: (t, t - mid), second=lambda t, mid, s: (mid, mid - s)
    ),
    "that is u(x_t, t, s), the network's own answer: the target is made of two shorter ones": (
        _itself
    ),
    "that is the point at s to which the two steps lead: their mean velocity is asked for": _end,
    "where s = t there is no way to halve: the target is the pair's velocity, eps − x0, the only "
    "thing that the data say": _one(still=lambda x0, eps, joined: joined),
    "where s = t your shares are 0/0: give the samples with no way eps − x0, by torch.where": (
        _one(shares=_shares_with_nan, still=lambda x0, eps, joined: joined)
    ),
    "where s = t your target is x0 − eps: dx/dt = eps − x0, as t = 1 is noise": _one(
        still=lambda x0, eps, joined: x0 - eps
    ),
    "where s = t your target is 0: the velocity there is eps − x0": _one(
        still=lambda x0, eps, joined: 0 * x0
    ),
    "where s = t your target is eps: the velocity there is eps − x0": _one(
        still=lambda x0, eps, joined: eps
    ),
    "your target has the wrong sign: x falls by (t − s) u from t to s, so the two ways are added": (
        _one(join=lambda p, q, u1, u2: -(p * u1 + q * u2))
    ),
    "your path goes the wrong way, and its velocity with it: t = 0 is data": _one(
        mix=lambda x0, eps, t: t * x0 + (1 - t) * eps, still=lambda x0, eps, joined: x0 - eps
    ),
    "your target is eps − x0 everywhere, which is flow matching: where s < t it is made of u": (
        lambda u, x0, eps, t, mid, s: eps - x0
    ),
    "your path goes the wrong way: x_t = (1 − t) x0 + t eps, t = 0 is data": _one(
        mix=lambda x0, eps, t: t * x0 + (1 - t) * eps
    ),
    "every sample has its own times, you used the first one's for all": _first_for_all,
}  # fmt: skip


def _case() -> tuple:
    """u, x0, eps, t, mid, s; of the last two samples s = mid = t."""
    x0, eps = draws(B, D, seed=163), draws(B, D, seed=164, mean=0.0)
    t, share, cut = (draws(B, seed=k, mean=0.0) % 1 for k in (165, 166, 167))
    t = 0.3 + 0.7 * t
    s = t * 0.6 * share
    mid = s + (0.15 + 0.25 * cut) * (t - s)  # never halfway
    still = torch.arange(B) >= B - 2
    return _Mean(), x0, eps, t, torch.where(still, t, mid), torch.where(still, t, s)


def shortcut_target(function: Callable) -> None:
    """Checks shortcut_target(u, x0, eps, t, mid, s) -> (B, D), which keeps no gradient.

    x0, eps (B, D); t ≥ mid ≥ s, all (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    u, *rest = _case()
    answer = ask("the target", function, lambda _, *r: _shortcut(_Mean(), *r), SHORTCUT_SLIPS,
                 u, *rest)  # fmt: skip
    if answer.requires_grad:
        raise Wrong(
            "the values are right, but your target has a gradient: it is held fixed, or the loss "
            "could also fall by moving the two short answers towards the long one (torch.no_grad "
            "around them, or .detach())"
        )
    if u.calls > 2:
        raise Wrong(f"the values are right, but u was asked {u.calls} times: two do")
    print(f"right: {B} samples, of which two have no way to go, two calls of u, no gradient")
