"""Samplers of a law known up to a constant: B chains side by side, which yield their states."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from minigen.shapes import X, check_batch, check_finite, like, noise, per_sample, readable

LogProb = Callable[[X], Float[Tensor, "B"]]  # log p up to a constant, in nats


class State(NamedTuple):
    """Where B chains are after a step, and which of them took the proposal."""

    x: X
    accepted: Bool[Tensor, "B"]


def random_walk(
    x: X, *, step: float | Tensor, generator: torch.Generator | None = None
) -> tuple[X, Tensor | float]:
    """The proposal y = x + step z, and log q(x | y) − log q(y | x) = 0: it is symmetric."""
    scale = like(step, x) if isinstance(step, Tensor) else step
    return x + scale * noise(x, generator=generator), 0.0


def metropolis_hastings(
    log_prob: LogProb,
    x: X,
    *,
    step: float | Float[Tensor, "B"],
    n: int,
    generator: torch.Generator | None = None,
    propose: Callable = random_walk,
) -> Iterator[State]:
    """Proposes y, and takes it with the probability that leaves p as it is, n times.

    min(1, p(y) q(x|y) / (p(x) q(y|x))).
    `step` is the proposal's standard deviation in units of x, one for all chains or one for each.
    `propose(x, step=, generator=)` returns y and log q(x|y) − log q(y|x), (B,) or a number. p may
    be 0, though not at the start. Raises ValueError where the log density is NaN or +inf, on an
    accelerator noticed a little later. [Metropolis et al. 1953; Hastings 1970]
    """
    _check_walk(step, n)

    def move(x: X, log_x: Tensor):
        y, log_q = propose(x, step=step, generator=generator)
        log_y = log_prob(y)
        return y, (log_y,), log_y - log_x + log_q

    return _steps(move, x, (_start(log_prob, x),), n, generator)


def mala(
    log_prob: LogProb,
    x: X,
    *,
    step: float | Float[Tensor, "B"],
    n: int,
    generator: torch.Generator | None = None,
) -> Iterator[State]:
    """Metropolis-adjusted Langevin: proposes a noisy step up the gradient, n times.

    y = x + h ∇log p(x) + √(2h) z, with h = step in squared units of x.
    The acceptance needs log q(x|y) − log q(y|x) = (‖y − x − h ∇_x‖² − ‖x − y − h ∇_y‖²) / 4h.
    Raises as `metropolis_hastings`, and where no gradient leads from log_prob to x.
    [Roberts & Tweedie 1996]
    """
    _check_walk(step, n)
    h = like(step, x) if isinstance(step, Tensor) else step
    root = (2 * h) ** 0.5

    def squares(v: X) -> Tensor:
        return (v * v / (4 * h)).flatten(1).sum(1) if v.ndim > 1 else v * v / (4 * h)

    def move(x: X, log_x: Tensor, grad_x: X):
        y = x + h * grad_x + root * noise(x, generator=generator)
        log_y, grad_y = _with_gradient(log_prob, y)
        log_q = squares(y - x - h * grad_x) - squares(x - y - h * grad_y)
        return y, (log_y, grad_y), log_y - log_x + log_q

    _start(log_prob, x)
    return _steps(move, x, _with_gradient(log_prob, x), n, generator)


def _check_walk(step, n: int) -> None:
    low = float(step.min()) if isinstance(step, Tensor) else step
    if not 0 < low < math.inf or n < 1:
        raise ValueError(f"step and n must be positive, got step {low:g} and n {n}")


def _start(log_prob: LogProb, x: X) -> Float[Tensor, "B"]:
    """log p at the start, which must be finite: a chain that begins where p = 0 has no ratio."""
    check_batch(x, "x")
    value = log_prob(x).detach()
    if value.shape != x.shape[:1]:
        raise ValueError(
            f"log_prob must give a number for each of the {len(x)} chains, ({len(x)},), got "
            f"{tuple(value.shape)}: sum over the data axes"
        )
    if not bool(torch.isfinite(value).all()):
        i = int((~torch.isfinite(value)).nonzero()[0])
        raise ValueError(f"log_prob is {float(value[i])} at the start of chain {i}, x = {x[i]}")
    return value


def _with_gradient(log_prob: LogProb, x: X) -> tuple[Tensor, X]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_prob(x)
        if not value.requires_grad:
            raise ValueError("mala follows the gradient, but log_prob cannot be differentiated")
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


def _steps(move: Callable, x: X, info: tuple, n: int, generator) -> Iterator[State]:
    """n times: a proposal, what is known there, and the log of its acceptance; `info` travels."""
    look = 1 if readable(x) else 100  # a look at the values waits for the device
    dtype = torch.promote_types(x.dtype, torch.float32)  # in half precision u is often 0
    bad = torch.zeros_like(info[0], dtype=torch.bool)
    for i in range(n):
        with torch.no_grad():
            y, info_y, log_alpha = move(x, *info)
            bad |= ~(info_y[0] < math.inf)  # NaN too
            if ((i + 1) % look == 0 or i + 1 == n) and bool(bad.any()):
                raise ValueError(
                    f"log_prob became NaN or +inf within {i + 1} steps, in chain "
                    f"{int(bad.nonzero()[0])}: where p is 0 it should be -inf"
                )
            u = torch.rand(log_alpha.shape, generator=generator, device=x.device, dtype=dtype)
            accepted = u.log() < log_alpha
            after, before = (y, *info_y), (x, *info)
            x, *info = map(_choose, [accepted] * len(after), after, before)
        yield State(x, accepted)


def _choose(accepted: Bool[Tensor, "B"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(per_sample(accepted, new), new, old)


def gibbs(
    conditionals: Sequence[Callable], x: X, *, n: int, generator: torch.Generator | None = None
) -> Iterator[State]:
    """Draws every coordinate from its law given all others, in order: n sweeps (systematic scan).

    `conditionals[i](x, generator=)` returns coordinate i, (B,), or the whole state with a block of
    it drawn anew. A sweep leaves p as it is, but is not reversible. [Geman & Geman 1984]
    """
    _check_walk(1.0, n)
    check_finite(x, "x")

    def sweeps():
        y = x
        for _ in range(n):
            for i, draw in enumerate(conditionals):
                y = _redraw(y, i, draw, generator)
            yield State(y, torch.ones(len(y), dtype=torch.bool, device=y.device))

    return sweeps()


def gibbs_random_scan(
    conditionals: Sequence[Callable], x: X, *, n: int, generator: torch.Generator | None = None
) -> Iterator[State]:
    """As `gibbs`, but each of n steps draws one coordinate, for each chain its own: reversible."""
    _check_walk(1.0, n)
    check_finite(x, "x")

    def steps():
        y = x
        for _ in range(n):
            which = torch.randint(
                len(conditionals), (len(y),), generator=generator, device=y.device
            )
            y = y.clone()
            for i, draw in enumerate(conditionals):
                rows = (which == i).nonzero()[:, 0]
                if len(rows):
                    y[rows] = _redraw(y[rows], i, draw, generator)
            yield State(y, torch.ones(len(y), dtype=torch.bool, device=y.device))

    return steps()


def _redraw(x: X, i: int, draw: Callable, generator) -> X:
    new = draw(x, generator=generator)
    if not torch.can_cast(new.dtype, x.dtype):
        raise TypeError(f"conditional {i} draws {new.dtype}, but x is {x.dtype}: start from floats")
    if new.shape == x.shape:
        return new
    if new.shape != x.shape[:1] or x.ndim != 2 or i >= x.shape[1]:
        raise ValueError(
            f"conditional {i} must return coordinate {i}, ({len(x)},), or the whole state, "
            f"{tuple(x.shape)}, got {tuple(new.shape)}"
        )
    y = x.clone()
    y[:, i] = new
    return y
