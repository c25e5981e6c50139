"""Lecture 16: one call on the ring of eight, for the same CPU time: the baselines and the dummies.

Radius 1.5, standard deviation 0.12, on the linear path; one net u(x, t, s) for all methods of this
script and of distill_ring_consistency and distill_ring_means, three seeds, 45 seconds of one core
for each, teachers' calls and simulation included (reflow's trained teacher is the row "flow
matching", its own time not counted). Columns: steps; RMS distance to the exact flow map Φ(eps, 1,
0) after 1, 2 and 4 calls; the mean of cos 8θ over the answers' angles, 0 for a circle. Dummies:
each noise's angle at the ring's radius, also with the law's spread of radii; the centre of the heap
in whose sector the noise lies, which knows the heaps and nothing within them; a draw of the data;
the data's mean. The row "exact map" says what the law's own cos 8θ is.
"""

import copy
import math

import torch
from torch import nn

from benchmarks.claims import _seconds
from minigen import distill, flow, oracle, paths, targets, train

SEEDS, BUDGET, B, N, POOL = 3, 45.0, 256, 4000, 65_536
LINEAR, STD = paths.Linear(), 0.12
LAW = oracle.GaussianMixture.ring(8, 1.5, STD)
EXACT = LAW.denoiser(LINEAR)
CALLS = 1, 2, 4
EPS = torch.randn(N, 2, generator=torch.Generator().manual_seed(99))


class Net(nn.Module):
    """The mean velocity u(x, t, s): random waves of (x, t, t − s), and two layers on them."""

    def __init__(self, waves=64, hidden=128):
        super().__init__()
        numbers = torch.randn(4, waves) * torch.tensor([1.5, 1.5, 0.5, 0.5])[:, None]
        self.register_buffer("numbers", numbers)
        self.register_buffer("phases", 2 * math.pi * torch.rand(waves))
        self.layers = nn.Sequential(
            *(nn.Linear(4 + waves, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()),
            nn.Linear(hidden, 2),
        )
        nn.init.zeros_(self.layers[-1].weight)

    def forward(self, x, t, s):
        t, s = (time.reshape(-1, 1).expand(len(x), 1) for time in (t, s))
        seen = torch.cat([x, t, t - s], 1)
        return self.layers(torch.cat([seen, torch.cos(seen @ self.numbers + self.phases)], 1))


def exact_map(eps, n=200):
    """Φ(eps, 1, 0) by Heun's method in float64, steps shorter near the data."""
    law = LAW.to(torch.float64)
    *_, x = flow.heun(law.denoiser(LINEAR), LINEAR, eps.double(), flow.grid(n, shift=0.5))
    return x.float()


def still(net):
    """u(x, t, t), whatever the way."""
    return lambda x, t, s: net(x, t, t)


def velocity(net):
    """The net's u(x, t, t) as a denoiser of the linear path."""
    return paths.denoiser(lambda x, t, label=None: net(x, t, t), LINEAR, targets.velocity)


def trained(loss, net, budget=BUDGET, lr=3e-3):
    """The average of net's weights after `budget` CPU-s of loss(net, share of it spent), its steps.

    The loss has a value for each sample.
    """
    ema = train.Ema(net, 0.998)
    part = lambda spent: loss(net, spent)
    steps = _seconds.fit(part, net, budget, lr, warmup=100, ema=ema, clip=1.0)
    average = copy.deepcopy(net)
    ema.copy_to(average)
    return average.requires_grad_(False), steps


def draws(g):
    """Functions of nothing: data and noise, B of each; B times in [0, 1)."""
    both = lambda: (LAW.sample(B, generator=g)[0], torch.randn(B, 2, generator=g))
    return both, lambda: torch.rand(B, generator=g)


def matching(g):
    """The loss of flow matching, loss(net, spent)."""
    both, rand = draws(g)

    def loss(net, spent):
        (x0, eps), t = both(), rand()
        return flow.loss(lambda x, t, label: net(x, t, t), x0, eps, t)

    return loss


def regression(g):
    """The exact map itself, on noises that are simulated once, within the budget."""
    pool = []

    def loss(net, spent):
        if not pool:
            eps = torch.randn(POOL, 2, generator=g)
            *_, x = flow.heun(EXACT, LINEAR, eps, flow.grid(40, shift=0.5))
            pool.extend((eps, x))
        row, one = torch.randint(POOL, (B,), generator=g), torch.ones(B)
        eps, x = (part[row] for part in pool)
        return (net(eps, one, 0 * one) - (eps - x)).square().mean(1)

    return loss


def reflow(g, teacher):
    """Lines between the ends of a trained teacher's trajectories, simulated within the budget."""
    pool = []

    def loss(net, spent):
        if not pool:
            eps = torch.randn(POOL // 4, 2, generator=g)
            pool.extend(flow.reflow_pairs(velocity(teacher), eps, flow.grid(10, shift=0.5)))
        row, t = torch.randint(POOL // 4, (B,), generator=g), torch.rand(B, generator=g)
        x0, eps = (part[row] for part in pool)
        return flow.loss(lambda x, t, label: net(x, t, t), x0, eps, t)

    return loss


def rms(x, goal):
    return float((x - goal).square().sum(1).mean().sqrt())


def heaps(x):
    """The mean of cos 8θ: 1 for the heaps' centres, 0 for a ring; the centre of all has none."""
    eighth = torch.cos(8 * torch.atan2(x[:, 1], x[:, 0]))
    return float(eighth.where(x.norm(dim=1) > 0, torch.nan).mean())


def jumps(u, calls):
    *_, x = distill.jump(u, EPS, flow.grid(calls))
    return x


def dummies(g):
    """name: answers to EPS."""
    radius = EPS.norm(dim=1, keepdim=True)
    moved = 1.5 + STD / 0.65 * (radius - 1.25)  # a noise's radius is 1.25 ± 0.65
    return {
        "dummy: a circle": 1.5 * EPS / radius,
        "dummy: a circle with spread": moved * EPS / radius,
        "dummy: the sector's centre": LAW.means[torch.cdist(EPS, LAW.means).argmin(1)],
        "dummy: a draw of the data": LAW.sample(N, generator=g)[0],
        "dummy: the data's mean": torch.zeros(N, 2),
    }


def seeded(seed):
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def rows(seed):
    """name: (steps, answers after 1, 2, 4 calls, has it a map)."""
    g = seeded(seed)
    teacher, n = trained(matching(g), Net())
    u = still(teacher)
    table = {"flow matching": (n, [jumps(u, k) for k in CALLS])}
    table["… 8, 16, 32 calls"] = n, [jumps(u, k) for k in (8, 16, 32)]
    net, n = trained(reflow(g, teacher), copy.deepcopy(teacher).requires_grad_(True))
    table["reflow"] = n, [jumps(still(net), k) for k in CALLS]
    net, n = trained(regression(g), Net())
    table["the exact map by regression"] = n, [jumps(net, 1)]
    return table | {name: (0, [x]) for name, x in dummies(g).items()}


def show(rows):
    """The table of rows(seed), mean ± standard error over seeds."""
    goal = exact_map(EPS)
    assert rms(exact_map(EPS, 100), goal) < 3e-4, "the exact map needs more steps"
    heads = "RMS, 1 call", "2 calls", "4 calls", "cos 8θ, 1", "2 calls", "4 calls"
    print(f"{'':31s}{'steps':>6s}" + "".join(f"{head:>16s}" for head in heads), flush=True)
    tables = [rows(seed) for seed in range(SEEDS)]
    empty = [""] * len(CALLS)
    for name, (_, _, *mapless) in tables[0].items():
        runs = [table[name] for table in tables]
        steps = sum(run[0] for run in runs) / SEEDS
        points = [run[1] for run in runs]
        far = [[rms(x, goal) for x in run] for run in points]
        far = [run[:1] for run in far] if mapless else far
        cells = []
        for part in far, [[heaps(x) for x in run] for run in points]:
            part = torch.tensor(part, dtype=torch.double)
            pairs = zip(part.mean(0).tolist(), (part.std(0) / SEEDS**0.5).tolist(), strict=True)
            said = ["" if mean != mean else f"{mean:.3f} ± {error:.3f}" for mean, error in pairs]
            cells += (said + empty)[: len(empty)]
        print(f"{name:31s}{steps:6.0f}" + "".join(f"{cell:>16s}" for cell in cells))
    print(f"{'exact map':31s}{'':6s}{'':48s}{heaps(goal):16.3f}")


if __name__ == "__main__":
    show(rows)
