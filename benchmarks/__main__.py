"""The speed figures of minigen beside the least work that could do the same: `make bench`.

Each line is a ratio of CPU times on one thread. The two sides run in turn, so that a busy machine
slows both; the ratio of each turn is taken, and its median and quartiles are shown.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO

import torch

from minigen import (
    ddim,
    ddpm,
    edm,
    flow,
    guidance,
    nets,
    oracle,
    paths,
    sde,
    solvers,
    targets,
    train,
)

STEPS, N = 50, 512
BARS = {"DDPM": 1.08, "2M": 1.10, "reverse SDE": 1.15, "churn": 1.10}  # where it is not 1.05
Pair = tuple[Callable[[], object], Callable[[], object]]


def ratio(ours: Callable, least: Callable, turns: int) -> list[float]:
    """CPU time of ours over that of least, in each of so many turns, the order alternating."""
    clock, ratios = time.process_time, []
    for _ in range(3):  # caches, allocators and fused kernels settle
        ours(), least()
    for turn in range(turns):
        spent = {}
        for side in (ours, least) if turn % 2 else (least, ours):
            start = clock()
            side()
            spent[side] = clock() - start
        ratios.append(spent[ours] / spent[least])
    return ratios


def row(name: str, ratios: list[float], bar: float | None) -> None:
    low, median, high = statistics.quantiles(ratios, n=4)
    goal = f"≤ {bar:.2f}  {'met' if median <= bar else 'MISSED'}" if bar else ""
    print(f"{name:48s} {median:6.3f}  [{low:.3f}, {high:.3f}]  {goal}", flush=True)


def samplers(net: torch.nn.Module, path: paths.GaussianPath, target, xT: torch.Tensor) -> dict:
    """A whole trajectory, all its states kept, against as many bare forward passes."""
    denoise, ts = paths.denoiser(net, path, target), torch.linspace(1, 0, STEPS + 1)
    generator, times = torch.Generator().manual_seed(0), ts[:-1].unbind()

    def forwards(calls: int = 1):
        @torch.no_grad()
        def run():
            kept = []
            for t in times:
                for _ in range(calls):
                    y = net(xT, t)
                kept.append(y)

        return run

    kinds = {
        "DDIM": (lambda: ddim.sample(denoise, path, xT, ts), 1),
        "DDPM": (lambda: ddpm.ancestral(denoise, path, xT, ts, generator=generator), 1),
        "Euler": (lambda: flow.euler(denoise, path, xT, ts), 1),
        "Heun": (lambda: flow.heun(denoise, path, xT, ts), 2),
        "2M": (lambda: solvers.dpmpp_2m(denoise, path, xT, ts), 1),
        "reverse SDE": (lambda: sde.reverse(denoise, path, xT, ts, generator=generator), 1),
        "churn": (
            lambda: edm.stochastic(
                denoise, path, xT, ts, churn=5.0, s_max=2.0, generator=generator
            ),
            2,
        ),
    }
    return {
        name: (lambda walk=walk: [*walk()], forwards(calls))
        for name, (walk, calls) in kinds.items()
    }


def learned(path: paths.GaussianPath, target) -> nets.MLP:
    """A small net after a short training: one that is still zero would blow the states up."""
    net, data = nets.MLP(2, hidden=128, depth=3), oracle.GaussianMixture.ring()
    generator = torch.Generator().manual_seed(0)

    def loss():
        x0, t = data.sample(N, generator=generator)[0], torch.rand(N, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        return targets.loss(net, path, target, x0, eps, t).mean()

    for _ in train.fit(loss, net, steps=300, progress=False):
        pass
    return net


def preconditioned(xT: torch.Tensor) -> Pair:
    """DDIM of a net with EDM's scale of the input and target, against its bare forwards."""
    path, ts = paths.Linear(), torch.linspace(1, 0, STEPS + 1)
    scaled = edm.scale_input(learned(path, edm.target(1.0)), path, 1.0)
    denoise, times = paths.denoiser(scaled, path, edm.target(1.0)), ts[:-1].unbind()

    @torch.no_grad()
    def forwards():
        return [scaled.net(xT, t) for t in times]

    return (lambda: [*ddim.sample(denoise, path, xT, ts)]), forwards


def alive(net: torch.nn.Module) -> torch.nn.Module:
    """A net whose outputs have a std of about 1, in place of the zeros it is born with."""
    torch.nn.init.normal_(net.last.weight, std=1 / 16, generator=torch.Generator().manual_seed(0))
    return net


def guided() -> Pair:
    """Guided DDIM on 64 labelled digits, γ = 2, against two bare forward passes a step."""
    net, path = alive(nets.ResMLP((1, 8, 8), classes=10)), paths.VP()
    generator = torch.Generator().manual_seed(0)
    xT, label = torch.randn(64, 1, 8, 8, generator=generator), torch.arange(64) % 10
    ts = torch.linspace(1, 0, STEPS + 1)
    cond, uncond = (paths.denoiser(net, path, targets.eps, k) for k in (label, None))
    denoise, times = guidance.cfg(cond, uncond, 2.0), ts[:-1].unbind()

    @torch.no_grad()
    def forwards():
        for t in times:
            net(xT, t, label)
            net(xT, t)

    return (lambda: [*ddim.sample(denoise, path, xT, ts)]), forwards


def steps(net: torch.nn.Module, x0: torch.Tensor) -> Pair:
    """One step of `fit` with an average and a bar, against one of Adam written by hand."""
    path, generator = paths.DDPM(ddpm.linear_betas()), torch.Generator().manual_seed(0)

    def loss():
        t = torch.rand(len(x0), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        return targets.loss(net, path, targets.eps, x0, eps, t).mean()

    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    run = train.fit(loss, net, steps=10**9, ema=train.Ema(net), generator=generator)

    def by_hand():
        for _ in range(10):
            value = loss()
            adam.zero_grad()
            value.backward()
            adam.step()

    return (lambda: [next(run) for _ in range(10)]), by_hand


def score(mixture: oracle.GaussianMixture, features: int, n: int = 10_000) -> Pair:
    """The exact score against two matrix products and a softmax of the same sizes.

    log w_k is linear in (x, x²), 2D features, or in x alone where all components are equally wide.
    """
    K, D = mixture.means.shape
    generator = torch.Generator().manual_seed(0)
    x = mixture.sample(n, generator=generator)[0]
    w = torch.randn(K, features, generator=generator)
    y = torch.randn(n, features, generator=generator)
    return (lambda: mixture.score(x)), (lambda: (w.T @ (w @ y.T).softmax(0)).T.contiguous())


def mixture(K: int, D: int, spread: float = 1.0, alike: bool = True) -> oracle.GaussianMixture:
    generator = torch.Generator().manual_seed(K)
    means = spread * torch.randn(K, D, generator=generator)
    stds = 0.3 * torch.ones(K, D) if alike else 0.2 + 0.3 * torch.rand(K, D, generator=generator)
    return oracle.GaussianMixture(torch.full((K,), 1 / K), means, stds)


def cpu_of_import(module: str) -> float:
    """CPU seconds of a fresh process that imports a module."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'ratio of CPU times, one thread':48s} median  [quartiles]      bar")
    generator = torch.Generator().manual_seed(1)
    points, images = (torch.randn(s, generator=generator) for s in ((N, 2), (128, 1, 8, 8)))
    table, line = paths.DDPM(ddpm.linear_betas()), paths.Linear()
    for path, target, what in ((table, targets.eps, "ε"), (line, targets.velocity, "velocity")):
        for name, pair in samplers(learned(path, target), path, target, points).items():
            # the reverse SDE cannot start where a = 0
            if name in ("DDIM", "DDPM", "2M") or (path is line) != (name == "reverse SDE"):
                bar = BARS.get(name, 1.05)
                row(f"{name}, 50 steps ÷ bare forwards, MLP, {what}", ratio(*pair, 61), bar)
    row("DDIM, 50 steps ÷ bare forwards, scaled input", ratio(*preconditioned(points), 61), 1.20)
    unet = alive(nets.UNet((1, 8, 8)))
    pair = samplers(unet, line, targets.velocity, images[:64])["Euler"]
    row("Euler, 50 steps ÷ bare forwards, U-Net 8×8", ratio(*pair, 11), 1.05)
    row("guided DDIM, 50 steps ÷ 100 bare forwards", ratio(*guided(), 101), 1.0)
    for name, net, x0, bar in (
        ("MLP 3×128", nets.MLP(2), points, 1.10),
        ("ResMLP 8×8", nets.ResMLP((1, 8, 8)), images, 1.10),
        ("U-Net 8×8", nets.UNet((1, 8, 8)), images[:64], 1.02),
    ):
        with redirect_stderr(StringIO()):  # the bar is drawn, but would tear the table
            ratios = ratio(*steps(net, x0), 61 if bar > 1.05 else 15)
        row(f"fit step with EMA ÷ by hand, {name}", ratios, bar)
    for K in (5, 20, 100):
        for alike, features, kind in ((True, 2, "equal"), (False, 4, "own")):
            pair = score(mixture(K, 2, alike=alike), features)
            row(f"score ÷ products and softmax, K={K}, {kind} stds", ratio(*pair, 61), 1.3)
    near, far = (score(mixture(1437, 64, spread), 64, 500)[0] for spread in (0.1, 3.0))
    row("exact score K=1437 D=64, far apart ÷ near", ratio(far, near, 21), 1.3)
    imports = [(cpu_of_import("minigen"), cpu_of_import("torch")) for _ in range(9)]
    row("import minigen ÷ import torch", [a / b for a, b in imports], 1.08)


if __name__ == "__main__":
    main()
