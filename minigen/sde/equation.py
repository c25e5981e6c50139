"""The equation of a path, dx = f x dt + g dw, and its way from data to noise.

With f = a′/a and g² = b² d log(b²/a²)/dt its states have the marginals of xt = a x0 + b eps.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.paths import GaussianPath
from minigen.shapes import (
    Time,
    X,
    check_batch,
    check_generator,
    check_grid,
    check_time,
    noise,
    readable,
    wide,
)


def drift(path: GaussianPath, t: Time) -> Time:
    """f = a′/a, which gives the mean: d E[xt | x0]/dt = f E[xt | x0].

    In 1/time, finite at t = 0. Raises ValueError at a time with a = 0, where f is infinite.
    """
    return drift_at(path, wide(check_time(t))).to(t.dtype)


def diffusion(path: GaussianPath, t: Time) -> Time:
    """g², which gives the variance: d b²/dt = 2f b² + g².

    g² = d(b²)/dt − 2f b² = b² d log(b²/a²)/dt, finite at t = 0; β on a VP path.

    Raises ValueError at a time with a = 0, and where b/a falls, which no noise can do.
    [Song et al. 2021, section 3.4; Kingma et al. 2021, appendix A]
    """
    return rates(path, wide(check_time(t)))[1].to(t.dtype)


def drift_at(path: GaussianPath, t: Time) -> Time:
    """`drift` at times that have been checked, in their dtype."""
    a = path.a(t)
    if readable(t) and bool((a == 0).any()):
        t = t[a == 0].reshape(-1)[0]
        raise ValueError(
            f"{path} has a = 0 at t = {t:g}, where the SDE's drift a′/a is infinite: leave that "
            f"time out of the grid, and begin or end a little below it"
        )
    return path.da(t) / a


def rates(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """(f, g²), `drift` and `diffusion`, at times that have been checked, in their dtype."""
    f = drift_at(path, t)
    g2 = path.db2(t) - 2 * f * path.b2(t)
    if readable(t) and bool((g2 < 0).any()):
        t = t[g2 < 0].reshape(-1)[0]
        raise ValueError(
            f"no SDE has the marginals of {path}: at t = {t:g} its noise level b/a falls, and "
            f"g² would be negative"
        )
    return f, g2


def rising(ts) -> Float[Tensor, " N"]:
    """`check_grid` for a grid from data to noise."""
    if isinstance(ts, Tensor) and ts.ndim == 1 and len(ts) > 1:
        falls = (~(ts.diff() > 0)).nonzero()
        if len(falls):
            i = int(falls[0])
            raise ValueError(
                f"here ts must rise from data (0) to noise (1), but ts[{i}] = {ts[i]:g} is followed"
                f" by ts[{i + 1}] = {ts[i + 1]:g}; did you mean ts.flip(0)?"
            )
        return check_grid(ts.flip(0)).flip(0)
    return check_grid(ts)  # and raises


def forward(
    path: GaussianPath,
    x0: X,
    ts: Float[Tensor, " N"],
    *,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """From data to noise by Euler–Maruyama, along a rising grid; yields each state.

    x ← x + f x Δt + g √Δt z with f and g at the step's start, as Itô's integral has them.

    Mean and variance are right to O(Δt). x0 is the state at ts[0]: on VE, whose b(0) > 0, not yet
    the data. Raises ValueError for a falling grid, or one that holds a time with a = 0.
    """
    check_batch(x0, "x0")
    check_generator(x0, generator)
    ts = rising(ts)
    h, (f, g2) = ts.diff(), (c[:-1] for c in rates(path, ts))
    steps = list(zip((1 + f * h).tolist(), torch.sqrt(g2 * h).tolist(), strict=True))

    def states() -> Iterator[X]:
        x = x0
        for keep, std in steps:
            with torch.no_grad():
                x = torch.add(x * keep, noise(x, generator=generator), alpha=std)
            yield x

    return states()
