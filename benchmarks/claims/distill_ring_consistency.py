"""Lecture 16: consistency on the ring of eight: from data, from an exact and a trained teacher.

Net, budget, measures and dummies are those of distill_ring; the trained teacher is its flow
matching, whose own 45 seconds are not counted. Neighbours of even levels, which grow from 10 to
160 in the course of the training; a robust distance √(d² + c²) − c. More than one call puts fresh
noise back, at even times, so it has no map to be compared with, and only cos 8θ is given.
"""

import torch

from benchmarks.claims.distill_ring import (
    CALLS,
    EPS,
    EXACT,
    LINEAR,
    B,
    Net,
    draws,
    matching,
    seeded,
    show,
    trained,
    velocity,
)
from minigen import distill


def robust(squares):
    """√(d² + c²) − c, in place of squares: a few pairs across two heaps would decide them."""
    return (squares + 1e-4).sqrt()


def to_zero(net):
    """f(x, t) = x − t u(x, t, 0), which is x at t = 0 whatever the net."""
    return lambda x, t: x - t.reshape(-1, 1) * net(x, t, torch.zeros_like(t))


def consistency(g, teacher):
    """loss(net, spent) on neighbours of ever finer levels."""
    both, _ = draws(g)

    def loss(net, spent):
        n, f = int(10 + 150 * spent), to_zero(net)
        i = torch.randint(1, n + 1, (B,), generator=g)
        pair = LINEAR, *both(), i / n, (i - 1) / n
        return n**0.5 * robust(distill.consistency_loss(f, f, *pair, teacher=teacher))

    return loss


def rows(seed):
    """name: (steps, answers after 1, 2, 4 calls, without a map)."""
    g = seeded(seed)
    flowing, _ = trained(matching(g), Net())
    teachers = {
        "consistency, from data": None,
        "consistency, exact teacher": EXACT,
        "consistency, trained teacher": velocity(flowing),
    }
    table = {}
    for name, teacher in teachers.items():
        net, steps = trained(consistency(g, teacher), Net())
        times = [torch.linspace(1, 0, n + 1)[:-1] for n in CALLS]
        walks = [distill.multistep(to_zero(net), LINEAR, EPS, ts, generator=g) for ts in times]
        table[name] = steps, [[*walk][-1] for walk in walks], "no map"
    return table


if __name__ == "__main__":
    show(rows)
