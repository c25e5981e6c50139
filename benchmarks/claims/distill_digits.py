"""Lecture 16: digits in one call, every method for the same CPU time from the same weights.

Each student starts as the bundled flow network (`distill_recipes.student`) and has 24 seconds of
one core, its teacher's calls included; three seeds; one net u(x, t, s, digit) for all. Learning
rates are those of least mean distance in one call in distill_rates, distill_rates_consistency and
distill_rates_means, with other seeds. A row is the course's verdict, five samples of 360 a seed;
errors are those of the mean over seeds. All methods have the same noise with the same seed, so
below the table their distances are compared in pairs. Jumps are on flow.grid(n, 0.5), but for
progressive students, which know their own even times only; the one of 4 steps has three fifths of
the budget. Dummy: the mean of each digit, which is read well and is no sample. Reflow's pairs and
regression's are made within the budget.
"""

import copy
from functools import partial

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


def consistency(g, rate, *, taught):
    """Neighbours of 8 levels at first and 64 in the end; x_s from the flow or from the data."""
    draw, _ = source(g)

    def loss(net, spent):
        x0, eps, label = draw()
        n = int(8 + 56 * spent)
        i, f = torch.randint(1, n + 1, (len(x0),), generator=g), to_zero(net, label)
        who = guide(label) if taught else None
        squares = distill.consistency_loss(f, f, LINEAR, x0, eps, i / n, (i - 1) / n, teacher=who)
        return n**0.5 * robust(squares)

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)


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

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)


def regression(g, rate):
    """`digits_onestep`, for a shorter time and on fewer trajectories."""
    pool, ts = [], distill_recipes.KNOTS.float()

    def loss(net, spent):
        if not pool:
            pool.extend(distill_recipes.trajectories(OLD, POOL, g))
        row = torch.randint(POOL, (B,), generator=g)
        return distill_recipes.way_loss(net, *(part[row] for part in pool), ts, g)

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)


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

    return trained(loss, distill_recipes.student(OLD), BUDGET, rate)


def progressive(g, rate, halvings=5):
    """32 steps of the flow halved to 1: the students of 4 steps and of 1."""
    draw, _ = source(g)
    net, teacher, found, steps = distill_recipes.student(OLD), guide, {}, 0
    for k in reversed(range(halvings)):
        n = 2**k

        def loss(net, spent, n=n, teacher=teacher):
            x0, eps, label = draw()
            t = torch.randint(1, n + 1, (len(x0),), generator=g) / n
            xt, s = LINEAR.mix(x0, eps, t), (t - 1 / n).clamp(min=0)
            goal = distill.progressive_target(teacher(label), LINEAR, xt, t, t - 0.5 / n, s)
            return ((to_zero(net, label)(xt, t) - goal) / like(t, xt)).square().flatten(1).mean(1)

        found[n], more = trained(loss, net, BUDGET / halvings, rate)
        steps += more
        teacher = lambda label, net=found[n]: to_zero(net, label)
        net = copy.deepcopy(found[n]).requires_grad_(True)
    return found, steps


def verdict(x):
    """The mean of five verdicts."""
    label = torch.arange(360) % 10
    runs = [judge.digits(part, label) for part in x.split(360)]
    return judge.Verdict(*torch.tensor(runs).mean(0).tolist())


def walked(u, seed, calls, shift=0.5):
    """Digits 0 to 9 in turn by jumps of u(x, t, s, label)."""
    return verdict(distill_recipes.draw(u, seed, calls, shift=shift))


def many(net, seed, calls):
    """By consistency's steps, with fresh noise between them."""
    label, g = torch.arange(1800) % 10, torch.Generator().manual_seed(1000 + seed)
    xT, ts = torch.randn(1800, 1, 8, 8, generator=g), torch.linspace(1, 0, calls + 1)[:-1]
    *_, x = distill.multistep(to_zero(net, label), LINEAR, xT, ts, generator=g)
    return verdict(x)


same = lambda net: net
still = lambda net: lambda x, t, s, label: net(x, t, t, label)
long = lambda net: lambda x, t, s, label: net(x, t, torch.zeros_like(t), label)
METHODS = {  # (g, rate) -> net and steps; what is read of the net, the rate, how it is walked
    "the map by regression": (regression, same, 1e-2, walked),
    "consistency, from the flow": (partial(consistency, taught=True), same, 1e-4, many),
    "consistency, from data": (partial(consistency, taught=False), same, 1e-4, many),
    "mean flow": (mean_flow, same, 1e-3, walked),
    "progressive": (progressive, long, 3e-3, partial(walked, shift=1.0)),  # its own even times
    "reflow": (reflow, still, 3e-2, walked),
}


def row(name, seed, rate=None):
    """Verdicts after 1 and 4 calls, of one training, and its steps."""
    torch.manual_seed(seed)
    make, read, best, walk = METHODS[name]
    found, steps = make(torch.Generator().manual_seed(seed), rate or best)
    found = found if isinstance(found, dict) else dict.fromkeys(CALLS, found)
    return {f"{name}, {n}": walk(read(found[n]), seed, n) for n in CALLS}, steps


def rows(seed):
    """name: verdict; and each method's steps."""
    table, steps = {}, {}
    for name in METHODS:
        found, steps[name] = row(name, seed)
        table |= found
    old = lambda x, t, s, label: OLD(x, t, label)
    table |= {f"the flow network, {n}": walked(old, seed, n) for n in (1, 4, 20)}
    x, label = data.digits("train")
    means = torch.stack([x[label == k].mean(0) for k in range(10)])
    table["dummy: each digit's mean"] = verdict(means[torch.arange(1800) % 10])
    return table, steps


def main():
    tables, steps = zip(*map(rows, range(SEEDS)), strict=True)
    print(judge.table({name: [table[name] for table in tables] for name in tables[0]}))
    print("\nsteps in the budget; Fréchet less that of regression, in pairs: 1 call, 4 calls")
    far = lambda name: torch.tensor([table[name].frechet for table in tables])
    for name in METHODS:
        taken = sum(count[name] for count in steps) / SEEDS
        apart = [far(f"{name}, {n}") - far(f"the map by regression, {n}") for n in CALLS]
        cells = "".join(f"{x.mean():10.2f} ± {x.std() / SEEDS**0.5:5.2f}" for x in apart)
        print(f"{name:30s}{taken:7.0f}{cells}")


if __name__ == "__main__":
    main()
