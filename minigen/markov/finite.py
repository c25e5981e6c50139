"""Finite chains: matrices P[i, j] = P(j | i), with exact answers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from minigen.shapes import check_tensor

Matrix = Real[Tensor, "n n"]  # 0 and 1 may be whole numbers: all is computed in floats


def _transition(P: Real[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """P in float64 on the CPU, refused unless its rows are distributions."""
    check_tensor(P, "a transition matrix")
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


def _real(P: Tensor) -> torch.dtype:
    """The dtype of P, or the default float where it holds whole numbers."""
    return torch.result_type(P, 1.0)


def closed_classes(P: Matrix) -> list[list[int]]:
    """The sets of states that reach one another and lead nowhere else.

    A chain has one stationary law for each: exactly one if and only if there is one closed class.
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


def stationary(P: Matrix) -> Float[Tensor, " n"]:
    """The distribution π that a step leaves as it is, 0 on states that are left for ever.

    π P = π, from the linear system (I − Pᵀ + 1 1ᵀ) π = 1.
    Summing its rows gives Σ π = 1, which leaves πP = π. Solved in float64.
    Raises ValueError where π is not unique.
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
    return pi.to(P.device, _real(P))


def simulate(
    P: Matrix,
    start: int | Sequence[int] | Int[Tensor, " B"],
    n: int,
    *,
    generator: torch.Generator | None = None,
) -> Int[Tensor, " N"] | Int[Tensor, "N B"]:
    """A path of n states that begins with `start`: (n,), or (n, B) for B starts, int64."""
    total = _transition(P).cumsum(1)
    total[total == total[:, -1:]] = 1.0  # a uniform number below 1 then finds the last possible one
    x = torch.as_tensor(start, device=P.device)
    whole = x.numel() and x.ndim < 2 and not x.is_floating_point()
    if n < 1 or not whole or int(x.min()) < 0 or int(x.max()) >= len(P):
        raise ValueError(f"a path needs n ≥ 1 and a start among 0 … {len(P) - 1}: {n}, {start}")
    dtype = torch.promote_types(P.dtype, torch.float32)
    total, states = total.to(P.device, dtype), [x.reshape(-1).long()]
    for _ in range(n - 1):
        u = torch.rand(len(states[0]), 1, generator=generator, device=P.device, dtype=dtype)
        states.append((u >= total[states[-1]]).sum(1))
    path = torch.stack(states)
    return path if x.ndim else path[:, 0]


def spectral_gap(P: Matrix) -> Float[Tensor, ""]:
    """How fast a chain forgets where it began: what is not π shrinks as |λ₂|ⁿ.

    1 − |λ₂|, λ₂ the eigenvalue of second largest modulus; 0 with two closed classes or a period.
    [Levin & Peres 2017, chapter 12]
    """
    size = torch.linalg.eigvals(_transition(P)).abs().sort(descending=True).values
    return (1 - size[1:2].sum()).clamp(0, 1).to(P.device, _real(P))  # |λ₂| = 1 + 1e-16


def total_variation(p: Real[Tensor, "... n"], q: Real[Tensor, "... n"]) -> Float[Tensor, "..."]:
    """The largest difference in the probability of any event, ½ Σ |p − q|, in [0, 1]."""
    check_tensor(p, "p")
    check_tensor(q, "q")
    axes = min(p.ndim, q.ndim)
    if p.shape[-axes:] != q.shape[-axes:]:
        raise ValueError(f"p and q are laws of shapes {tuple(p.shape)} and {tuple(q.shape)}")
    return (0.5 * p - 0.5 * q).abs().sum(-1)


def _check_law(pi: Real[Tensor, " n"], P: Matrix) -> None:
    """Raises TypeError or ValueError unless pi has a number for each state of P."""
    check_tensor(P, "P")
    check_tensor(pi, "pi")
    if P.shape != 2 * pi.shape:
        raise ValueError(f"P is (n, n) and pi (n,), got {tuple(P.shape)} and {tuple(pi.shape)}")


def is_reversible(P: Matrix, pi: Real[Tensor, " n"]) -> bool:
    """Whether π_i P_ij = π_j P_ji for all i, j (detailed balance), but for rounding."""
    _check_law(pi, P)
    flow = pi[:, None] * (1.0 * P)
    eps = max(torch.finfo(_real(z)).eps for z in (P, pi))
    return bool(((flow - flow.T).abs() <= 16 * eps * flow.max()).all())


def metropolis_matrix(Q: Matrix, pi: Real[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """The chain that proposes with Q and settles on π, which need not sum to 1.

    P_ij = min(Q_ij, π_j Q_ji / π_i), i ≠ j.
    That is Q_ij times the acceptance min(1, π_j Q_ji / (π_i Q_ij)); what is refused stays.
    [Hastings 1970]
    """
    _transition(Q)
    _check_law(pi, Q)
    if not bool((pi > 0).all() & torch.isfinite(pi).all()):
        raise ValueError(f"pi must hold {len(Q)} positive numbers, got {pi}")
    P = torch.minimum(Q, pi * Q.T / pi[:, None])
    P.diagonal().zero_()
    return P + torch.diag((1 - P.sum(1)).clamp(min=0))  # the clamp meets rounding only
