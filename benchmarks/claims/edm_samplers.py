"""Lecture 10: the sampler alone, on networks that exist: what do grid, order and churn do?

The bundled noise network (lecture 3's chain) and velocity network (linear path), and three fresh
velocity networks. All walk in (x0 + σ eps, σ), from σ = 36 to 0, so that Euler's method is DDIM on
any path and only grid and order differ. Grids: Karras's levels with ρ = 7 or equal steps of log σ,
both down to 0.002 and then 0; or equal steps of the network's own time. Churn: each step first goes
back to 1.2 σ, where 0.05 ≤ σ ≤ 20. Errors: three samples of a bundled network, or three networks.
"""

import torch

from benchmarks.claims.edm_targets import gaussians
from data.digit_recipes import digits_path, labelled
from minigen import data, edm, flow, judge, nets, paths, targets, train

SEEDS, STEPS, CALLS, TOP = 3, 800, (9, 19, 35), 36.0
linear, levels = paths.Linear(), paths.EDM(80.0)
label = torch.arange(10).repeat(36)


def flow_loss(net, x0, y, g):
    """The loss of data/digit_recipes.py: uniform times, noise of one grey level on the data."""
    x0 = x0 + (torch.rand(x0.shape, generator=g) - 0.5) / 8
    t = flow.uniform_times(len(x0), generator=g)
    return flow.loss(net, x0, torch.randn(x0.shape, generator=g), t, y).mean()


def bundled(name):
    """A network of data/."""
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint(name), net)
    return net


def networks():
    """name -> path, target and three networks, three times the same if bundled."""
    fresh = [labelled(seed, flow_loss, STEPS)[0] for seed in range(1, SEEDS + 1)]
    return {
        "noise": (digits_path(), targets.eps, [bundled("digits_eps")] * SEEDS),
        "velocity": (linear, targets.velocity, [bundled("digits_flow")] * SEEDS),
        "fresh velocity": (linear, targets.velocity, fresh),
    }


# From σ = TOP to 0 in n steps: times of `levels` ------------------------------------------------


def karras(path, n):
    return edm.grid(levels, n, sigma_max=TOP)


def equal_ratios(path, n):
    return edm.grid(levels, n, sigma_max=TOP, rho=1e5)


def own_time(path, n):
    """Equal steps of the path's own time."""
    first = float(path.time(torch.tensor(TOP, dtype=torch.float64)))
    return levels.time(path.sigma(torch.linspace(first, 0, n + 1, dtype=torch.float64)))


def euler(denoise, start, grid, calls, g):
    return flow.euler(denoise, levels, start, grid(calls))


def heun(denoise, start, grid, calls, g):
    return flow.heun(denoise, levels, start, grid((calls + 1) // 2))


def churned(denoise, start, grid, calls, g):
    ts = grid((calls + 1) // 2)
    how = {"churn": 0.2 * (len(ts) - 1), "s_min": 0.05, "s_max": 20.0, "generator": g}
    return edm.stochastic(denoise, levels, start, ts, **how)


GRIDS = {"Karras": karras, "equal log σ": equal_ratios, "own time": own_time}
ROWS = {(s, k): (w, GRIDS[k]) for s, w in (("DDIM", euler), ("Heun", heun)) for k in GRIDS}
ROWS["churn", "Karras"] = churned, karras


def at_levels(denoise, path):
    """A denoiser on any path, as one on `levels`."""

    def at_level(x, t):
        s = path.time(levels.sigma(t))
        return denoise(path.a(s) * x, s)

    return at_level


def verdict(net, path, target, row, calls, seed):
    walk, grid = ROWS[row]
    g = torch.Generator().manual_seed(1000 + seed)
    start = TOP * torch.randn(360, 1, 8, 8, generator=g)
    denoise = at_levels(paths.denoiser(net, path, target, label), path)
    *_, x = walk(denoise, start, lambda n: grid(path, n), calls, g)
    return judge.digits(x, label)


def main():
    made = networks()
    for calls in CALLS:
        print(f"{calls} calls")
        rows = {
            f"{name:15s}{row[0]:6s}{row[1]}": [
                verdict(net, path, target, row, calls, seed) for seed, net in enumerate(nets_)
            ]
            for name, (path, target, nets_) in made.items()
            for row in ROWS
        }
        rows["a Gaussian a class"] = [gaussians(seed) for seed in range(SEEDS)]
        print(judge.table(rows))
        print()


if __name__ == "__main__":
    main()
