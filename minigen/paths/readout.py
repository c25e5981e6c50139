"""Reading one quantity off another, and the one walk that every one-step sampler is.

Any quantity of the course is c(t) x0 + d(t) eps, and so is the state, xt = a x0 + b eps. So what a
network predicts and the state it sees are two linear equations in (x0, eps), and every other
quantity is affine in the two: its denoiser, its score, its velocity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import (
    Denoiser,
    Label,
    Net,
    Time,
    X,
    check_answer,
    check_batch,
    check_dtype,
    check_generator,
    check_label,
    check_length,
    check_time,
    check_times,
    clock,
    like,
    noise,
    readable,
    wide,
)

from .gaussian import GaussianPath

Target = Callable[[GaussianPath, Time], tuple[Time, Time]]  # -> (c, d) of c x0 + d eps


def x0(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """The clean data, which a denoiser predicts: (c, d) = (1, 0)."""
    return torch.ones_like(t), torch.zeros_like(t)


def check_target(target) -> None:
    """Raises TypeError unless target is a function."""
    if not callable(target):
        raise TypeError(f"a target is a function, such as targets.eps, not {target!r}")


def read(src: Target, dst: Target, path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """The (p, q) with dst = p xt + q src, for any two targets.

    p = (ed − fc)/det, q = (fa − eb)/det, det = ad − bc; src = c x0 + d eps, dst = e x0 + f eps.

    Infinite or NaN where src does not determine dst, det = 0; where dst is a multiple of src, p = 0
    even there.
    """
    if src == dst:
        return torch.zeros_like(t), torch.ones_like(t)
    a, b, (c, d), (e, f) = path.a(t), path.b(t), src(path, t), dst(path, t)
    det, apart = a * d - b * c, e * d - f * c
    p, q = apart / det, (f * a - e * b) / det
    multiple, ratio = (det == 0) & (apart == 0), torch.where(d == 0, e / c, f / d)
    return torch.where(multiple, 0.0, p), torch.where(multiple, ratio, q)


def checked_read(src: Target, dst: Target, path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """`read` in float64; raises ValueError at a time where src does not determine dst."""
    t = wide(check_time(t))
    p, q = read(src, dst, path, t)
    if readable(t) and not bool((known := torch.isfinite(p + q)).all()):
        t = t[~known].reshape(-1)[0]
        why = "b = 0, no noise to tell it from" if path.b(t) == 0 else "det = 0"
        why = "a = 0, no data to read" if path.a(t) == 0 else why
        src, dst = (getattr(target, "__name__", target) for target in (src, dst))
        raise ValueError(
            f"{src} does not determine {dst} at t = {t:g}, where this path has {why}: leave that "
            f"time out of the grid, or train another target"
        )
    return p, q


@dataclass(frozen=True)
class Readout:
    """A quantity read off what a network predicts: (xt, t) -> dst = p xt + q net(xt, t, label)."""

    net: Net
    path: GaussianPath
    src: Target
    label: Label | int | None = None
    dst: Target = x0

    def __call__(self, xt: X, t: Time) -> X:
        check_batch(xt, "xt")
        check_times(t, xt)
        p, q = (like(k, xt) for k in checked_read(self.src, self.dst, self.path, t))
        return p * xt + q * self.for_batch(xt)(xt, t)

    def labels(self, x: X) -> Label | None:
        """The label of each sample of x; raises ValueError where there are more or fewer."""
        if isinstance(self.label, int):
            return torch.full((len(x),), self.label, device=x.device)
        if self.label is not None:
            check_length(self.label, x, "labels")
        return self.label

    def for_batch(self, x: X) -> Callable[[X, Time], X]:
        """The network with the labels of a batch like x; raises where dtypes or sizes don't fit."""
        check_dtype(self.net, x)
        net, label = self.net, self.labels(x)
        return lambda x, t: check_answer(net(x, t, label), x)

    def prepared(
        self, ts: Float[Tensor, " N"], x: X
    ) -> tuple[Callable[[X, int], X], tuple[Tensor, ...]]:
        """(x, i) -> the quantity at ts[i], its coefficients computed once; and those times."""
        p, q = (k.tolist() for k in checked_read(self.src, self.dst, self.path, ts))
        net, times = self.for_batch(x), clock(ts, x)

        def at(x: X, i: int) -> X:
            y = net(x, times[i])
            if p[i] == 0:
                return y if q[i] == 1 else y * q[i]
            return torch.add(x * p[i], y, alpha=q[i])

        return at, times


def denoiser(
    net: Net, path: GaussianPath, target: Target, label: Label | int | None = None
) -> Denoiser:
    """The denoiser of a network trained on a target, one class or a label for each sample bound.

    E[x0 | xt] = p xt + q net(xt, t, label).

    For a net that reads captions, the label is their ids (B, L), or None for all. When called,
    raises ValueError at a time where the target does not determine x0.
    """
    check_target(target)
    captions = isinstance(label, Tensor) and label.ndim == 2  # checked by the net that reads them
    if label is not None and not captions:
        check_label(label)
        label = label if isinstance(label, Tensor) and label.ndim else int(label)
    return Readout(net, path, target, label)


def reading(denoise: Denoiser, path: GaussianPath, dst: Target) -> Readout:
    """The quantity dst as a denoiser gives it, straight from its network where it is a readout.

    Any other function, clipped or your own, predicts x0.
    """
    if isinstance(denoise, Readout):
        if denoise.dst is not x0:
            name = getattr(denoise.dst, "__name__", denoise.dst)
            raise ValueError(f"a denoiser is asked for, E[x0 | xt], and this reads {name}")
        if denoise.path != path:
            raise ValueError(f"the network was trained on {denoise.path}, but this is {path}")
        return replace(denoise, dst=dst)
    return Readout(lambda xt, t, label: denoise(xt, t), path, x0, dst=dst)


def walk(
    quantity: Readout,
    x: X,
    t: Float[Tensor, " N"],
    keep: Float[Tensor, " N"] | float,
    step: Float[Tensor, " N"],
    std: Float[Tensor, " N"] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """The walk of every one-step sampler, a step from each of the times t; yields each state after.

    x ← keep x + step quantity(x, t) + std z, that is A x + Q net(x, t) + std z.

    The quantity is p x + q net(x, t), so A = keep + step p and Q = step q. All coefficients are
    computed, and what can be wrong is found, at the call; the walk itself keeps no gradients.
    """
    check_batch(x, "xT")
    check_generator(x, generator)
    p, q = checked_read(quantity.src, quantity.dst, quantity.path, t)
    A, Q = (keep + step * p).tolist(), (step * q).tolist()
    std = [0.0] * len(t) if std is None else std.tolist()
    net, times = quantity.for_batch(x), clock(t, x)

    def states() -> Iterator[X]:
        y = x
        for i, t in enumerate(times):
            with torch.no_grad():
                y = torch.add(y if A[i] == 1 else y * A[i], net(y, t), alpha=Q[i])
                if std[i]:
                    y.add_(noise(y, generator=generator), alpha=std[i])
            yield y

    return states()
