"""Lecture 8: with few calls, is it the solver that helps, the path, or the grid?

Two networks that differ in path and target only (noise on lecture 3's chain; velocity on the linear
path): same digits, steps, seeds; three trainings each. Every solver walks both, on equal steps of
the network's own time and on steps shifted by ½ towards the data. DDIM is Euler's method in the
coordinates x/(a + b); Heun walks in them too, so that the two differ in their order only. Heun in x
walks the chain as it is (on the linear path, where a + b = 1, that is the same).
A row: Fréchet distance and recall of 360 digits after 5, 10 and 20 calls. Floor: 360 test digits.
"""

import torch

from data.digit_recipes import digits_path, eps_loss, labelled
from minigen import ddim, ddpm, flow, judge, paths, targets

SEEDS, STEPS, CALLS = 3, 1500, (5, 10, 20)
chain, linear = digits_path(), paths.Linear()
label = torch.arange(10).repeat(36)


def flow_loss(net, x0, y, g):
    """This lecture's loss, at uniform times."""
    t = flow.uniform_times(len(x0), generator=g)
    return flow.loss(net, x0, torch.randn(x0.shape, generator=g), t, y).mean()


NETWORKS = {
    "noise net": (eps_loss, chain, targets.eps),
    "velocity net": (flow_loss, linear, targets.velocity),
}
GRIDS = {"equal steps": 1.0, "shifted by ½": 0.5}


def straight_heun(denoise, path, x, ts):
    """Heun's method in x/(a + b), where the path is linear, at these times of its own."""
    scale = path.a(ts) + path.b(ts)
    taus = path.b(ts) / scale

    def on_line(y, tau):
        k = int((taus - tau).abs().argmin())
        return denoise(float(scale[k]) * y, ts[k])

    return flow.heun(on_line, linear, x / float(scale[0]), taus)


def solvers(g):
    """name -> walk(denoise, path, start, calls, shift)."""
    grid = lambda n, shift: flow.grid(n, shift=shift)
    half = lambda n, shift: flow.grid((n + 1) // 2, shift=shift)  # Heun: 2 n − 1 calls
    return {
        "DDIM": lambda d, p, x, n, shift: ddim.sample(d, p, x, grid(n, shift)),
        "Heun": lambda d, p, x, n, shift: straight_heun(d, p, x, half(n, shift)),
        "Heun in x": lambda d, p, x, n, shift: flow.heun(d, p, x, half(n, shift)),
        "DDPM": lambda d, p, x, n, shift: ddpm.ancestral(d, p, x, grid(n, shift), generator=g),
    }


def verdicts(kind, seed):
    """(network, solver, grid, calls) -> verdict, for one training."""
    loss, path, target = NETWORKS[kind]
    denoise = paths.denoiser(labelled(seed, loss, STEPS)[0], path, target, label)
    g, found = torch.Generator().manual_seed(1000 + seed), {}
    for solver, walk in solvers(g).items():
        if solver == "Heun in x" and path is linear:
            continue
        for grid, shift in GRIDS.items():
            for n in CALLS:
                start = torch.randn(360, 1, 8, 8, generator=g)
                *_, x = walk(denoise, path, start, n, shift)
                found[kind, solver, grid, n] = judge.digits(x, label)
    return found


def cell(runs, places):
    """Mean ± standard error over the seeds."""
    runs = torch.tensor(runs, dtype=torch.double)
    error = float(runs.std()) / len(runs) ** 0.5
    return f"{float(runs.mean()):.{places}f} ± {error:.{places}f}"


def main():
    made = {kind: [verdicts(kind, seed) for seed in range(SEEDS)] for kind in NETWORKS}
    print(" " * 39 + "".join(f"{f'Fréchet, {n} calls':>18s}{'recall':>13s}" for n in CALLS))
    for kind, runs in made.items():
        for solver in solvers(None):
            for grid in GRIDS:
                if (kind, solver, grid, CALLS[0]) not in runs[0]:
                    continue
                line = f"{kind:14s}{solver:11s}{grid:14s}"
                for n in CALLS:
                    these = [found[kind, solver, grid, n] for found in runs]
                    distance = cell([v.frechet for v in these], 1)
                    line += f"{distance:>18s}{cell([v.recall for v in these], 2):>13s}"
                print(line)
    print(f"{'test digits':39s}{judge.floor().frechet:18.1f}{judge.floor().recall:13.2f}")


if __name__ == "__main__":
    main()
