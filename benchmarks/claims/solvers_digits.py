"""Lecture 11: with few calls, which solver draws the better digits, on which network and grid?

Noise networks on lecture 3's chain and velocity networks on the linear path, three trainings each,
of equal digits, steps and seeds. Every solver starts from the same noise, at the chain's last level
σ = 36.9, and walks the same levels σ = b/a. Two rules of the grid: equal steps of log σ down to
0.03 and one to 0; and equal steps of t = σ/(1 + σ), the linear path's own time.

Calls are evaluations of the network: Heun and 2S take (n + 1)/2 steps of two, the last of one.
Taylor has n jvps besides. Heun walks in x/(a + b), where any path is linear, and in σ (Karras et
al.); on the linear path Euler is DDIM. RMS is the distance, per pixel, to where the network's own
ODE ends from that noise (2M, 300 steps): the solver's error alone, but for what any solver leaves
below the last level. Fréchet, recall and accuracy are of 360 digits; "less DDIM's" is paired, start
by start. Mean ± standard error over trainings. Floor: 360 test digits. Dummies: the start itself,
which no solver moved, and a draw of one Gaussian a class.
"""

import math

import torch

from benchmarks.claims.flow_solvers import NETWORKS, straight_heun
from benchmarks.claims.judge_controls import Controls
from data.digit_recipes import labelled
from minigen import data, ddim, flow, judge, paths, solvers

SEEDS, STEPS, CALLS, FINE, LOW, HIGH = 3, 1500, (5, 10, 20, 40), 300, 0.03, 36.9
label = torch.arange(10).repeat(36)


def log_grid(n, low=LOW):
    """n steps: levels equal in log σ, then 0."""
    sigmas = torch.logspace(math.log10(HIGH), math.log10(low), n, dtype=torch.float64)
    return torch.cat([sigmas, torch.zeros(1).double()])


def linear_grid(n):
    """n steps: levels equal in σ/(1 + σ), down to 0."""
    taus = torch.linspace(HIGH / (1 + HIGH), 0, n + 1, dtype=torch.float64)
    return taus / (1 - taus)


GRIDS = {"log σ": log_grid, "σ/(1 + σ)": linear_grid}


def in_sigma(denoise, path, x, ts):
    """Heun's method in x̄ = x/a along σ."""
    edm, sigmas = paths.EDM(HIGH * 1.001), path.sigma(ts)

    def scaled(y, t):
        time = path.time(edm.sigma(t.double())).to(t)
        return denoise(float(path.a(time)) * y, time)

    *_, y = flow.heun(scaled, edm, x / float(path.a(ts[0])), edm.time(sigmas))
    yield y


SOLVERS = {  # name: walk, calls a step
    "DDIM": (ddim.sample, 1),
    "Euler in x": (flow.euler, 1),
    "Heun": (straight_heun, 2),
    "Heun in σ": (in_sigma, 2),
    "2S": (solvers.dpmpp_2s, 2),
    "2M": (solvers.dpmpp_2m, 1),
    "Taylor": (solvers.taylor, 1),
}


def end(walk, denoise, path, z, sigmas):
    """Where a walk down these levels ends; it starts with the spread √(a² + b²)."""
    # exactly 0 at the end: bisection stops beside it, and no solver would know its last step
    ts = torch.where(sigmas > 0, path.time(sigmas), 0.0)
    *_, x = walk(denoise, path, z * float(torch.hypot(path.a(ts[0]), path.b(ts[0]))), ts)
    return x


def measured(kind, seed):
    """(grid, solver, calls) -> RMS, Fréchet, recall, accuracy of one training."""
    loss, path, target = NETWORKS[kind]
    denoise = paths.denoiser(labelled(seed, loss, STEPS)[0], path, target, label)
    z = torch.randn(360, 1, 8, 8, generator=torch.Generator().manual_seed(1000 + seed))
    exact, found = end(solvers.dpmpp_2m, denoise, path, z, log_grid(FINE, 0.003)), {}
    for grid, levels in GRIDS.items():
        for solver, (walk, cost) in SOLVERS.items():
            if solver == "Euler in x" and path == paths.Linear():
                continue
            for calls in CALLS:
                x = end(walk, denoise, path, z, levels((calls + cost - 1) // cost))
                found[grid, solver, calls] = row(x, float((x - exact).square().mean().sqrt()))
    found["", "the ODE's end", CALLS[0]] = row(exact, 0.0)
    found["", "the start", CALLS[0]] = row(z, float((z - exact).square().mean().sqrt()))
    return found


def row(x, rms):
    """RMS and the judge's first three."""
    verdict = judge.digits(x, label)
    return [rms, verdict.frechet, verdict.recall, verdict.accuracy]


def cell(values, places):
    """Mean ± standard error over the trainings."""
    values = torch.tensor(values, dtype=torch.double)
    return (
        f"{float(values.mean()):.{places}f} ± {float(values.std()) / len(values) ** 0.5:.{places}f}"
    )


def table(made, name, column, places, less=None):
    """One measure for every network, grid, solver; `less`: the solver that is taken off."""
    print(f"\n{name:44s}" + "".join(f"{f'{calls} calls':>16s}" for calls in CALLS))
    for kind, runs in made.items():
        for grid, solver in dict.fromkeys((g, s) for g, s, _ in runs[0]):
            if less and (solver == less or not grid):
                continue
            line = f"{kind:14s}{grid:12s}{solver:18s}"
            for calls in [n for n in CALLS if (grid, solver, n) in runs[0]]:
                off = [run[grid, less, calls][column] if less else 0.0 for run in runs]
                values = [run[grid, solver, calls][column] for run in runs]
                line += f"{cell([v - o for v, o in zip(values, off, strict=True)], places):>16s}"
            print(line)


def main():
    made = {kind: [measured(kind, seed) for seed in range(SEEDS)] for kind in NETWORKS}
    table(made, "RMS to the ODE's end", 0, 3)
    table(made, "Fréchet", 1, 1)
    table(made, "Fréchet less DDIM's, paired", 1, 1, less="DDIM")
    table(made, "recall", 2, 2)
    table(made, "accuracy", 3, 3)
    controls = Controls(data.digits)
    dummy = [judge.digits(controls.gaussians(), controls.y) for _ in range(5)]
    print(f"\n{judge.table({'a Gaussian a class': dummy})}")


if __name__ == "__main__":
    main()
