"""Markov chains: where a rule settles, how fast it forgets, and rules that settle on a given law.

A chain moves by x' ~ P(x' | x) alone. Finite chains are matrices, P[i, j] = P(j | i), with exact
answers; the samplers run B chains side by side and yield their states. What these states are worth
is told by `diagnostics`, whose names stand here too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minigen.diagnostics import autocorrelation, effective_sample_size, estimate, rhat
from minigen.shapes import X, like, noise

__all__ = [
    "State", "autocorrelation", "closed_classes", "effective_sample_size", "estimate", "gibbs",
    "gibbs_random_scan", "is_reversible", "mala", "metropolis_hastings", "metropolis_matrix",
    "random_walk", "rhat", "simulate", "spectral_gap", "stationary", "total_variation",
]  # fmt: skip

LogProb = Callable[[X], Float[Tensor, "B"]]  # log p up to a constant, in nats


# ---- finite chains ---------------------------------------------------------------------------


def _transition(P: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """P in float64 on the CPU. Raises ValueError unless its rows are distributions."""
    if P.ndim != 2 or P.shape[0] != P.shape[1]:
        raise ValueError(f"a transition matrix is square, got {tuple(P.shape)}")
    Q = P.detach().cpu().double()
    if not bool((Q >= 0).all()):
        raise ValueError("a transition matrix holds probabilities: there is a negative or NaN")
    sums = Q.sum(1)
    worst = int((sums - 1).abs().argmax())
    if abs(float(sums[worst]) - 1) > 1e-5:
        raise ValueError(
            f"row {worst} sums to {float(sums[worst]):g}, not 1: P[i, j] is the probability of "
            f"going from i to j, so each row is a distribution"
        )
    return Q / sums[:, None]  # takes out the rounding of float32


def closed_classes(P: Float[Tensor, "n n"]) -> list[list[int]]:
    """The sets of states that reach one another and lead nowhere else.

    A chain has one stationary law for each: exactly one if and only if there is one closed class.
    Raises ValueError as `stationary`.
    """
    P = _transition(P)
    reach = (P > 0).double() + torch.eye(len(P), dtype=P.dtype)
    for _ in range(len(P).bit_length()):  # paths of 2, 4, 8, … steps
        reach = (reach @ reach > 0).double()
    recurrent = (reach <= reach.T).all(1)  # all that it reaches reaches it
    return [
        row.nonzero()[:, 0].tolist()
        for i, row in enumerate(reach > 0)
        if recurrent[i] and not bool(row[:i].any())
    ]


def stationary(P: Float[Tensor, "n n"]) -> Float[Tensor, " n"]:
    """The distribution π with π P = π, from the linear system (I − Pᵀ + 1 1ᵀ) π = 1.

    Summing its rows gives Σ π = 1, which leaves πP = π. Solved in float64; 0 on states that are
    left for ever. Raises ValueError where a row is no distribution, or where π is not unique.
    """
    classes = closed_classes(P)
    if len(classes) > 1:
        raise ValueError(
            f"the chain is reducible and its stationary law is not unique: {len(classes)} sets of "
            f"states are never left, {', '.join(map(str, classes[:3]))}"
        )
    keep, Q = classes[0], _transition(P)
    Q = Q[keep][:, keep]
    pi = torch.zeros(len(P), dtype=Q.dtype)
    one = torch.ones(len(Q), dtype=Q.dtype)
    pi[keep] = torch.linalg.solve(torch.diag(one) - Q.T + 1, one)
    return pi.to(P)


def simulate(
    P: Float[Tensor, "n n"],
    start: int | Int[Tensor, " B"],
    n: int,
    *,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " N"] | Int[Tensor, "N B"]:
    """A path of n states that begins with `start`: (n,), or (n, B) for B starts, int64.

    Raises ValueError for rows that are no distributions, a start that is no state, or n < 1.
    """
    total = _transition(P).to(P).cumsum(1)
    total[:, -1] = 1.0  # a uniform number below 1 then always finds its state
    x = torch.as_tensor(start, device=P.device)
    if n < 1 or int(x.min()) < 0 or int(x.max()) >= len(P):
        raise ValueError(f"a path needs n ≥ 1 and a start among 0 … {len(P) - 1}: {n}, {start}")
    path, x = [x.reshape(-1)], x.reshape(-1)
    for _ in range(n - 1):
        u = torch.rand(len(x), 1, generator=generator, device=P.device, dtype=P.dtype)
        x = (u >= total[x]).sum(1)
        path.append(x)
    states = torch.stack(path)
    return states if isinstance(start, Tensor) and start.ndim else states[:, 0]


def spectral_gap(P: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """1 − |λ₂|, λ₂ the eigenvalue of second largest modulus: what is not π shrinks as |λ₂|ⁿ.

    0 for a chain that never forgets: one with two closed classes, or a periodic one.
    [Levin & Peres 2017, chapter 12]
    """
    size = torch.linalg.eigvals(_transition(P)).abs().sort(descending=True).values
    return (1 - size[1:2].sum()).clamp(0, 1).to(P)  # rounding may leave |λ₂| = 1 + 1e-16


def total_variation(p: Float[Tensor, "... n"], q: Float[Tensor, "... n"]) -> Float[Tensor, "..."]:
    """½ Σ |p − q|: the largest difference in the probability of any event, in [0, 1]."""
    return 0.5 * (p - q).abs().sum(-1)


def is_reversible(P: Float[Tensor, "n n"], pi: Float[Tensor, " n"]) -> bool:
    """Whether π_i P_ij = π_j P_ji for all i, j (detailed balance), but for rounding."""
    flow = pi[:, None] * P
    return bool(((flow - flow.T).abs() <= 16 * torch.finfo(P.dtype).eps * flow.max()).all())


def metropolis_matrix(Q: Float[Tensor, "n n"], pi: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """The chain that proposes with Q and settles on π: P_ij = min(Q_ij, π_j Q_ji / π_i), i ≠ j.

    That is Q_ij times the acceptance min(1, π_j Q_ji / (π_i Q_ij)); what is refused stays. π need
    not sum to 1. Raises ValueError where a row of Q is no distribution or π is not positive.
    [Hastings 1970]
    """
    _transition(Q)
    if pi.shape != Q.shape[:1] or not bool((pi > 0).all() & torch.isfinite(pi).all()):
        raise ValueError(f"pi must hold {len(Q)} positive numbers, got {pi}")
    P = torch.minimum(Q, pi * Q.T / pi[:, None])
    P.diagonal().zero_()
    return P + torch.diag(1 - P.sum(1))


# ---- samplers --------------------------------------------------------------------------------


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
    """Proposes y and takes it with probability min(1, p(y) q(x|y) / (p(x) q(y|x))), n times.

    `step` is the proposal's standard deviation in units of x, one for all chains or one for each.
    `propose(x, step=, generator=)` returns y and log q(x|y) − log q(y|x), (B,) or a number. p needs
    no normaliser and may be 0, though not at the start. Raises ValueError for step ≤ 0, n < 1, or a
    log density that is NaN or +inf, on an accelerator noticed a little later.
    [Metropolis et al. 1953; Hastings 1970]
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
    """Metropolis-adjusted Langevin: proposes y = x + h ∇log p(x) + √(2h) z, h = step; n times.

    The acceptance needs log q(x|y) − log q(y|x) = (‖y − x − h ∇_x‖² − ‖x − y − h ∇_y‖²) / 4h.
    `step` is in squared units of x. Raises as `metropolis_hastings`, and where log_prob cannot be
    differentiated. [Roberts & Tweedie 1996]
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
    look = 1 if x.device.type == "cpu" else 100  # a look at the values waits for the device
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
            u = torch.rand(log_alpha.shape, generator=generator, device=x.device, dtype=x.dtype)
            accepted = u.log() < log_alpha
            after, before = (y, *info_y), (x, *info)
            x, *info = map(_choose, [accepted] * len(after), after, before)
        yield State(x, accepted)


def _choose(accepted: Bool[Tensor, "B"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(accepted.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def gibbs(
    conditionals: Sequence[Callable], x: X, *, n: int, generator: torch.Generator | None = None
) -> Iterator[State]:
    """Draws every coordinate from its law given all others, in order: n sweeps (systematic scan).

    `conditionals[i](x, generator=)` returns coordinate i, (B,), or the whole state with a block of
    it drawn anew. It leaves p as it is, but is not reversible. Raises ValueError for n < 1 or a
    result of another shape. [Geman & Geman 1984]
    """
    _check_walk(1.0, n)

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

    def steps():
        y = x
        for _ in range(n):
            which = torch.randint(
                len(conditionals), (len(y),), generator=generator, device=y.device
            )
            y = y.clone()
            for i, draw in enumerate(conditionals):
                rows = (which == i).nonzero()[:, 0]
                y[rows] = _redraw(y[rows], i, draw, generator)
            yield State(y, torch.ones(len(y), dtype=torch.bool, device=y.device))

    return steps()


def _redraw(x: X, i: int, draw: Callable, generator) -> X:
    new = draw(x, generator=generator)
    if new.shape == x.shape:
        return new
    if new.shape != x.shape[:1]:
        raise ValueError(
            f"conditional {i} must return coordinate {i}, ({len(x)},), or the whole state, "
            f"{tuple(x.shape)}, got {tuple(new.shape)}"
        )
    y = x.clone()
    y[:, i] = new
    return y
