"""Lecture 8: do reflow and minibatch transport straighten, or does more training?

Two moons, three trainings of each network: random pairs; random pairs trained on for as many steps
more as reflow is; reflow; minibatch transport. Straightness S on fresh pairs, and the sliced
Wasserstein distance to fresh moons after 1 and 4 Euler steps, and after 10 and 40 steps of Heun.
What knows only the mean and the covariance of the moons, a normal law, is the dummy.
"""

import copy

import torch

from minigen import data, flow, metrics, nets, paths, targets, train

SEEDS = 3
linear = paths.Linear()
WALKS = (flow.euler, 1), (flow.euler, 4), (flow.euler, 20), (flow.heun, 10), (flow.heun, 40)


def trained(net, pairs, steps, lr, g):
    """net after `steps` steps on the lines between pairs() = (x0, eps), weights averaged."""
    ema = train.Ema(net, 0.99)

    def loss():
        x0, eps = pairs()
        return flow.loss(net, x0, eps, flow.uniform_times(len(x0), generator=g)).mean()

    rate = train.cosine(lr, steps, 50)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


def reader(net):
    """E[x0 | xt] as the network gives it."""
    return paths.denoiser(net, linear, targets.velocity)


def far(x, g):
    """Sliced Wasserstein distance to 10,000 fresh moons."""
    fresh = data.moons(10_000, generator=g)
    return float(metrics.sliced_wasserstein(x, fresh, directions=32, generator=g))


def measured(net, pairs, g):
    """S on these pairs, and the distances after the five walks."""
    found = [float(flow.straightness(net, *pairs))]
    for walker, n in WALKS:
        start = torch.randn(10_000, 2, generator=g)
        *_, x = walker(reader(net), linear, start, flow.grid(n))
        found.append(far(x, g))
    return found


def rows(seed):
    """Each network's row, for one seed."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    noise = lambda n: torch.randn(n, 2, generator=g)
    at_random = lambda n=512: (data.moons(n, generator=g), noise(n))

    def coupled(n=128):
        x0, eps = at_random(n)
        return x0, eps[flow.couple(x0, eps)]

    fresh = lambda: nets.MLP(2, hidden=128, depth=4)
    first = trained(fresh(), at_random, 2000, 4e-3, g)
    longer = trained(copy.deepcopy(first), lambda: at_random(256), 800, 3e-3, g)
    some = data.batches(
        *flow.reflow_pairs(reader(first), noise(20_000), flow.grid(10)), size=256, generator=g
    )
    straight = trained(copy.deepcopy(first), lambda: next(some), 800, 3e-3, g)
    transport = trained(fresh(), coupled, 750, 6e-3, g)
    short = trained(fresh(), lambda: at_random(128), 750, 6e-3, g)
    many = [torch.cat(z) for z in zip(*(coupled() for _ in range(32)), strict=True)]
    back = flow.reflow_pairs(reader(first), noise(4096), flow.grid(10))
    return {
        "random pairs": measured(first, at_random(4096), g),
        "… as long as reflow": measured(longer, at_random(4096), g),
        "… as short as transport": measured(short, at_random(4096), g),
        "minibatch transport": measured(transport, many, g),
        "reflow": measured(straight, back, g),
    }


def dummies(seed):
    """Distances of a normal law with the moons' moments, and of fresh moons."""
    g = torch.Generator().manual_seed(seed)
    x = data.moons(10_000, generator=g)
    root = torch.linalg.cholesky(x.T.cov())
    law = x.mean(0) + torch.randn(10_000, 2, generator=g) @ root.T
    return {"a normal law": [far(law, g)], "fresh moons": [far(x, g)]}


def line(name, runs):
    """Mean ± standard error of each column over the seeds."""
    runs = torch.tensor(runs, dtype=torch.double)
    cells = zip(runs.mean(0).tolist(), (runs.std(0) / len(runs) ** 0.5).tolist(), strict=True)
    cells = [f"{f'{mean:.3f} ± {err:.3f}':>16s}" for mean, err in cells]
    print(f"{name:24s}" + " " * 16 * (len(cells) == 1) + "".join(cells))


def main():
    heads = "S", "1 Euler step", "4 Euler", "20 Euler", "10 Heun", "40 Heun"
    print(" " * 24 + "".join(f"{head:>16s}" for head in heads))
    for make in (rows, dummies):
        tables = [make(seed) for seed in range(SEEDS)]
        for name in tables[0]:
            line(name, [table[name] for table in tables])


if __name__ == "__main__":
    main()
