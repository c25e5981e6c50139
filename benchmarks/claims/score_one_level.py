"""Lecture 5: a score learned at one noise level is lost where no data was. Does sampling fail?

One heap of width 0.2, in ten dimensions and in the plane. Langevin with the score learned at σ =
0.1 only, from the data and from N(0, 12² I). The controls: the exact score on the same walk; the
same walk from the data; the ladder from 12 to 0.1, with the same network, training steps and calls
in sampling. Two networks, since what one does where it was never taught is its own affair: a plain
MLP, and the scaled one of the lecture. "Home" is the share of walkers within √d + 4 widths of the
heap.
"""

import math
from functools import partial

import torch

from minigen import nets, oracle, score, train

TOP, LEVEL, SEEDS, STEPS = 12.0, 0.1, 5, 1000
PLACE = 1.5 * torch.randn(1, 10, generator=torch.Generator().manual_seed(0))
WIDTH = math.hypot(0.2, LEVEL)


def heap(d, width):
    """One normal of this width in d dimensions."""
    return oracle.GaussianMixture.isotropic(PLACE[:, :d], width, torch.ones(1))


def plain(net, x, sigma, u):
    """The network itself, divided by σ."""
    return net(x, u) / sigma[:, None]


def scaled(net, x, sigma, u):
    """The lecture's: s = −x/(c² + σ²) plus a network on scaled x."""
    radius = (sigma**2 + 1.5**2).sqrt()[:, None]
    size = 1.5 / radius / (sigma**2 + WIDTH**2).sqrt()[:, None]
    return size * net(x / radius, u) - x / radius**2


def trained(form, top, seed, d=10):
    """The score x, σ -> s learned between two levels in d dimensions, and its generator."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net, span = nets.MLP(d, hidden=96), math.log(top / LEVEL) or 1.0

    def model(x, sigma):
        sigma = sigma.expand(len(x)).to(x)
        return form(net, x, sigma, ((sigma / LEVEL).log() / span).clamp(0, 1))

    def loss():
        x = heap(d, 0.2).sample(512, generator=g)[0]
        sigma = LEVEL * (top / LEVEL) ** torch.rand(512, generator=g)
        return score.denoising_loss(model, x, sigma, torch.randn(x.shape, generator=g)).mean()

    ema = train.Ema(net, 0.999)
    rate = train.cosine(8e-3, STEPS, 50)
    for _ in train.fit(loss, net, steps=STEPS, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return model, g


def home(x):
    """The share of walkers near the heap, x (B, d)."""
    d = x.shape[1]
    return float(((x - PLACE[:, :d]).norm(dim=1) / WIDTH < math.sqrt(d) + 4).float().mean())


def one_level(field, g, d=10):
    """Error on the data, and the shares at home of walks from the data and from far."""
    begin = heap(d, WIDTH).sample(1000, generator=g)[0]
    with torch.no_grad():
        exact = heap(d, WIDTH).score(begin)
        error = float((field(begin) - exact).square().sum() / exact.square().sum())
    shares = []
    for x in (begin, TOP * torch.randn(1000, d, generator=g)):
        *_, x = score.langevin(field, x, step=0.15 * WIDTH**2, n=1000, generator=g)
        shares.append(home(x))
    return error, *shares


def ladder(model, g):
    """The same for the ladder: 20 levels of 50 steps; it does not start at the data."""
    error = one_level(partial(model, sigma=torch.tensor(LEVEL)), g)[0]
    begin, levels = TOP * torch.randn(1000, 10, generator=g), score.sigmas(TOP, LEVEL, 20)
    step = 0.15 * LEVEL**2
    *_, x = score.annealed_langevin(model, begin, levels, step=step, n=50, generator=g)
    return error, math.nan, home(x)


def row(name, runs):
    """One line: means with standard errors over the seeds, and the seeds' last numbers."""
    runs = torch.tensor(runs, dtype=torch.float64)
    mean, error = runs.mean(0), runs.std(0) / math.sqrt(len(runs))
    cells = "   ".join(f"{m:6.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True))
    seeds = " ".join(f"{v:.2f}" for v in runs[:, 2].tolist())
    print(f"{name:24s}{cells}   {seeds}".replace("   nan ± nan  ", "       –       "))


def main():
    print(f"{'':24s}error on data     home from data    home from far    far, by training seed")
    at = torch.tensor(LEVEL)
    for d in (10, 2):
        exact = heap(d, WIDTH).score
        walks = [one_level(exact, torch.Generator().manual_seed(s), d) for s in range(SEEDS)]
        row(f"exact, one level, {d}-D", walks)
        for name, form in (("plain", plain), ("scaled", scaled)):
            single = [trained(form, LEVEL, seed, d) for seed in range(SEEDS)]
            runs = [one_level(partial(m, sigma=at), g, d) for m, g in single]
            row(f"{name}, one level, {d}-D", runs)
    for name, form in (("plain", plain), ("scaled", scaled)):
        row(f"{name}, ladder, 10-D", [ladder(*trained(form, TOP, seed)) for seed in range(SEEDS)])


if __name__ == "__main__":
    main()
