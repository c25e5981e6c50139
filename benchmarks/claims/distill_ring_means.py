"""Lecture 16: mean flows, shortcuts and progressive distillation on the ring of eight.

Net, budget, measures and dummies are those of distill_ring. Mean flows: half of the ways are none,
weights with p = ½; v from the data's pairs, or exact. Shortcuts: a quarter of the batch learns a
way from its two halves, the rest is flow matching. Progressive: 32 steps of the exact teacher,
halved five times, a fifth of the time for each.
"""

import copy

import torch

from benchmarks.claims.distill_ring import (
    BUDGET,
    CALLS,
    EXACT,
    LINEAR,
    B,
    Net,
    draws,
    jumps,
    seeded,
    show,
    trained,
)
from benchmarks.claims.distill_ring_consistency import to_zero
from minigen import distill, flow


def mean_flow(g, exact):
    """loss(net, spent), with the pair's velocity or the exact one."""
    both, rand = draws(g)
    exact_u = flow.velocity(EXACT, LINEAR)

    def loss(net, spent):
        (x0, eps), one, two = both(), rand(), rand()
        t = torch.maximum(one, two)
        s = torch.minimum(one, two).where(rand() < 0.5, t)
        if exact:  # the pair on whose line lies xt, and whose velocity is the mean one
            t = t.clamp(min=1e-3)
            s, xt, row = torch.minimum(s, t), LINEAR.mix(x0, eps, t), t[:, None]
            v = exact_u(xt, t)
            x0, eps = xt - row * v, xt + (1 - row) * v
        squares = distill.mean_flow_loss(net, x0, eps, t, s)
        return squares / (squares.detach() + 1e-2).sqrt()

    return loss


def shortcut(g):
    """loss(net, spent): two halves teach a way, of ½ to 1/64 of the whole; pairs the rest."""
    both, rand = draws(g)

    def loss(net, spent):
        x0, eps = both()
        m, times = B // 4, rand()
        half = 0.5 ** torch.randint(1, 7, (m,), generator=g)
        t = 2 * half + (1 - 2 * half) * times[:m]
        end = (t - 2 * half).clamp(min=0)
        x = LINEAR.mix(x0[:m], eps[:m], t)
        with torch.no_grad():
            one = net(x, t, t - half)
            goal = (one + net(x - half[:, None] * one, t - half, end)) / 2
        joined = (net(x, t, end) - goal).square().mean(1)
        u = lambda x, t, label: net(x, t, t)
        return torch.cat([joined, flow.loss(u, x0[m:], eps[m:], times[m:])])

    return loss


def whole(net):
    """u(x, t, 0), whatever the way: a student of progressive distillation is asked so."""
    return lambda x, t, s: net(x, t, 0 * t)


def progressive(g, halvings=5):
    """The students of 16, 8, … 1 steps by their steps; the steps of all trainings."""
    both, _ = draws(g)
    net, guide, found, total = Net(), EXACT, {}, 0
    for k in reversed(range(halvings)):
        n = 2**k

        def loss(net, spent, n=n, guide=guide):
            t = torch.randint(1, n + 1, (B,), generator=g) / n
            xt, s = LINEAR.mix(*both(), t), (t - 1 / n).clamp(min=0)
            x0 = distill.progressive_target(guide, LINEAR, xt, t, t - 0.5 / n, s)
            return (net(xt, t, 0 * t) - (xt - x0) / t[:, None]).square().mean(1)

        student, steps = trained(loss, net, BUDGET / halvings)
        found[n], total = student, total + steps
        guide = to_zero(student)
        net = copy.deepcopy(student).requires_grad_(True)
    return found, total


def rows(seed):
    """name: (steps, answers after 1, 2, 4 calls)."""
    g, table = seeded(seed), {}
    losses = {
        "mean flow, v from data": mean_flow(g, False),
        "mean flow, exact v": mean_flow(g, True),
        "shortcut": shortcut(g),
    }
    for name, loss in losses.items():
        net, steps = trained(loss, Net())
        table[name] = steps, [jumps(net, n) for n in CALLS]
    found, steps = progressive(g)
    table["progressive, exact teacher"] = steps, [jumps(whole(found[n]), n) for n in CALLS]
    return table


if __name__ == "__main__":
    show(rows)
