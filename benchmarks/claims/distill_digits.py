"""Lecture 16: digits in one call, every method for the same CPU time from the same weights.

Each student starts as the bundled flow network (`distill_recipes.student`) and has 24 seconds of
one core, its teacher's calls included; three seeds; one net u(x, t, s, digit) for all. Learning
rates are those that distill_rates found best for each method, with another seed. A row is the
course's verdict, five samples of 360 a seed; errors are those of the mean over seeds. Below: the
flow network itself at 1, 4 and 20 calls, another noise a seed. Dummy: the mean of each digit, which
is read well and is no sample. Reflow's pairs and regression's are made within the budget.
"""

import copy

import torch

from benchmarks.claims.distill_ring import trained
from benchmarks.claims.distill_ring_consistency import robust
from data import distill_recipes
from minigen import data, distill, flow, judge, paths, targets
from minigen.shapes import like

SEEDS, BUDGET, B, POOL = 3, 24.0, 256, 8192
LINEAR, CALLS = paths.Linear(), (1, 4)
OLD = distill_recipes.teacher()


def guide(label):
    """The flow network's E[x0 | xt, digit]."""
    return paths.denoiser(OLD, LINEAR, targets.velocity, label)


def to_zero(net, label):
    """f(x, t) = x − t u(x, t, 0, digit)."""
    return lambda x, t: x - like(t, x) * net(x, t, torch.zeros_like(t), label)


def source(g):
    """Functions of nothing: data with the flow's grain, noise, digits; and times in [0, 1)."""
    batches = data.batches(*data.digits("train"), size=B, generator=g)

    def draw():
        x0, label = next(batches)
        x0 = x0 + (torch.rand(x0.shape, generator=g) - 0.5) / 8
        return x0, torch.randn(x0.shape, generator=g), label

    return draw, lambda: torch.rand(B, generator=g)


def consistency(g, rate, taught):
    """Neighbours of 8 levels at first and 64 in the end; x_s from the flow or from the data."""
    draw, _ = source(g)

    def loss(net, spent):
        x0, eps, label = draw()
        n = int(8 + 56 * spent)
        i, f = torch.randint(1, n + 1, (len(x0),), generator=g), to_zero(net, label)
        who = guide(label) if taught else None
        squares = distill.consistency_loss(f, f, LINEAR, x0, eps, i / n, (i - 1) / n, teacher=who)
        return n**0.5 * robust(squares)

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)[0]


def mean_flow(g, rate):
    """v from the data; half of the ways are none."""
    draw, rand = source(g)

    def loss(net, spent):
        x0, eps, label = draw()
        one, two = rand(), rand()
        t, s = torch.maximum(one, two), torch.minimum(one, two)
        s = s.where(rand() < 0.5, t)
        u = lambda x, t, s: net(x, t, s, label)
        squares = distill.mean_flow_loss(u, x0, eps, t, s)
        return squares / (squares.detach() + 1e-2).sqrt()

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)[0]


def regression(g, rate):
    """`digits_onestep`, for a shorter time and on fewer trajectories."""
    pool, ts = [], distill_recipes.KNOTS.float()

    def loss(net, spent):
        if not pool:
            pool.extend(distill_recipes.trajectories(OLD, POOL, g))
        row = torch.randint(POOL, (B,), generator=g)
        return distill_recipes.way_loss(net, *(part[row] for part in pool), ts, g)

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)[0]


def reflow(g, rate):
    """Lines between the ends of the same trajectories."""
    pool = []

    def loss(net, spent):
        if not pool:
            states, label = distill_recipes.trajectories(OLD, POOL, g)
            pool.extend((states[:, -1].clone(), states[:, 0].clone(), label))
        row, t = torch.randint(POOL, (B,), generator=g), torch.rand(B, generator=g)
        x0, eps, label = (part[row] for part in pool)
        return flow.loss(lambda x, t, label: net(x, t, t, label), x0, eps, t, label)

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)[0]


def progressive(g, rate, halvings=5):
    """32 steps of the flow halved to 1: the students of 4 steps and of 1."""
    draw, _ = source(g)
    net, teacher, found = distill_recipes.student(OLD), guide, {}
    for k in reversed(range(halvings)):
        n = 2**k

        def loss(net, spent, n=n, teacher=teacher):
            x0, eps, label = draw()
            t = torch.randint(1, n + 1, (len(x0),), generator=g) / n
            xt, s = LINEAR.mix(x0, eps, t), (t - 1 / n).clamp(min=0)
            goal = distill.progressive_target(teacher(label), LINEAR, xt, t, t - 0.5 / n, s)
            return ((to_zero(net, label)(xt, t) - goal) / like(t, xt)).square().flatten(1).mean(1)

        found[n], _ = trained(loss, net, BUDGET / halvings, rate)
        teacher = lambda label, net=found[n]: to_zero(net, label)
        net = copy.deepcopy(found[n]).requires_grad_(True)
    return found


def verdict(x):
    """The mean of five verdicts."""
    label = torch.arange(360) % 10
    runs = [judge.digits(part, label) for part in x.split(360)]
    return judge.Verdict(*torch.tensor(runs).mean(0).tolist())


def walked(u, seed, calls):
    """Digits 0 to 9 in turn by jumps of u(x, t, s, label)."""
    return verdict(distill_recipes.draw(u, seed, calls))


def many(net, seed, calls):
    """By consistency's steps, with fresh noise between them."""
    label, g = torch.arange(1800) % 10, torch.Generator().manual_seed(1000 + seed)
    xT, ts = torch.randn(1800, 1, 8, 8, generator=g), torch.linspace(1, 0, calls + 1)[:-1]
    *_, x = distill.multistep(to_zero(net, label), LINEAR, xT, ts, generator=g)
    return verdict(x)


still = lambda net: lambda x, t, s, label: net(x, t, t, label)
long = lambda net: lambda x, t, s, label: net(x, t, torch.zeros_like(t), label)
alike = lambda u: dict.fromkeys(CALLS, u)
METHODS = {  # (g, rate) -> {calls: u}, and the rate
    "the map by regression": (lambda g, rate: alike(regression(g, rate)), 1e-2),
    "consistency, from the flow": (lambda g, rate: alike(consistency(g, rate, True)), 3e-4),
    "consistency, from data": (lambda g, rate: alike(consistency(g, rate, False)), 3e-4),
    "mean flow": (lambda g, rate: alike(mean_flow(g, rate)), 3e-3),
    "progressive": (
        lambda g, rate: {n: long(net) for n, net in progressive(g, rate).items()},
        1e-2,
    ),
    "reflow": (lambda g, rate: alike(still(reflow(g, rate))), 3e-2),
}


def row(name, seed, rate=None):
    """Verdicts after 1 and 4 calls, of one training."""
    torch.manual_seed(seed)
    make, best = METHODS[name]
    found = make(torch.Generator().manual_seed(seed), rate or best)
    walk = many if name.startswith("consistency") else walked
    return {f"{name}, {n}": walk(found[n], seed, n) for n in CALLS}


def rows(seed):
    """name: verdict."""
    table = {}
    for name in METHODS:
        table |= row(name, seed)
    old = lambda x, t, s, label: OLD(x, t, label)
    table |= {f"the flow network, {n}": walked(old, seed, n) for n in (1, 4, 20)}
    x, label = data.digits("train")
    means = torch.stack([x[label == k].mean(0) for k in range(10)])
    table["dummy: each digit's mean"] = verdict(means[torch.arange(1800) % 10])
    return table


def main():
    tables = [rows(seed) for seed in range(SEEDS)]
    print(judge.table({name: [table[name] for table in tables] for name in tables[0]}))


if __name__ == "__main__":
    main()
