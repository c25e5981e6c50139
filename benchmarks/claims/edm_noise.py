"""Lecture 10: where does training on one law of σ pay, and does the sample see it?

EDM's target and weight, one small network, equal steps and batches, a mixture in the plane; only
the law of σ in training differs. Five trainings each. A column: E‖F_net − F‖² over the exact law at
that σ, in thousandths: what the loss exceeds its exact floor by (F has variance about 1). Centres
of a log-normal law are those of log(σ/2 σ_data). "off by": E‖x − y‖ in thousandths, where x and y
are where Heun's method (Karras's levels, 35 calls) ends from one start with the network and with
the exact denoiser. "distance": energy distance of 4,000 such x to as many of the exact law, in
thousandths; below, the same of y, and of the exact law itself.
"""

import math

import torch

from minigen import edm, flow, metrics, nets, oracle, paths, targets, train

SEEDS, STEPS, BATCH, N = 5, 1500, 256, 4000
LEVELS = (0.005, 0.02, 0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
mixture = oracle.GaussianMixture.isotropic(
    torch.tensor([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.5], [1.6, 0.7]]),
    0.15,
    torch.tensor([0.4, 0.2, 0.3, 0.1]),
)
cosine, levels = paths.Cosine(), paths.EDM(80.0)
STD = float(mixture.sample(100_000, generator=torch.Generator().manual_seed(0))[0].std())
F = edm.target(STD)


def log_normal(centre):
    """log(σ/2 σ_data) ~ N(centre, 1.2²), as times of the cosine path."""
    mean = centre + math.log(2 * STD)
    return lambda n, g: edm.log_normal_times(cosine, n, mean=mean, generator=g)


def uniform_log(n, g):
    """log σ uniform from 0.002 to 80."""
    low, high = math.log(0.002), math.log(80.0)
    return cosine.time(torch.exp(low + (high - low) * torch.rand(n, generator=g)))


def of_flow(n, g):
    """Uniform times of the linear path."""
    return cosine.time(paths.Linear().sigma(flow.uniform_times(n, generator=g)))


LAWS = {
    "log-normal, centre -1.2": log_normal(-1.2),
    "uniform in log σ": uniform_log,
    "uniform in flow's t": of_flow,
    "log-normal, centre -2.7": log_normal(-2.7),
    "log-normal, centre 0.3": log_normal(0.3),
}


def trained(law, seed):
    """The scaled network after STEPS steps of EDM's loss, σ drawn from this law."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    inner = nets.MLP(2, hidden=64, depth=3)
    net, ema = edm.scale_input(inner, cosine, STD), train.Ema(inner, 0.99)

    def loss():
        x0 = mixture.sample(BATCH, generator=g)[0]
        t, eps = law(BATCH, g), torch.randn(x0.shape, generator=g)
        return targets.loss(net, cosine, F, x0, eps, t).mean()

    rate = train.cosine(4e-3, STEPS, 50)
    for _ in train.fit(loss, inner, steps=STEPS, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(inner)
    return net


def excess(net):
    """1000 E‖F_net − F‖² / 2 at each of LEVELS, over draws of the exact law."""
    g, exact, found = torch.Generator().manual_seed(7), mixture.denoiser(cosine), []
    learned = paths.denoiser(net, cosine, F)
    for sigma in torch.tensor(LEVELS):
        t = cosine.time(sigma)
        x = mixture.at(cosine, t).sample(N, generator=g)[0]
        with torch.no_grad():
            error = (learned(x, t) - exact(x, t)).square().mean()
        found.append(1000 * float(error / edm.coefficients(sigma, STD)[1] ** 2))
    return found


def walked(denoise, seed):
    """N samples, from a start that is the seed's."""
    g = torch.Generator().manual_seed(1000 + seed)

    def at_level(x, t):
        s = cosine.time(levels.sigma(t))
        return denoise(cosine.a(s) * x, s)

    start = 80 * torch.randn(N, 2, generator=g)
    *_, x = flow.heun(at_level, levels, start, edm.grid(levels, 18))
    return x


def distance(x, seed):
    """1000 × the energy distance of a sample to the exact law."""
    y = mixture.sample(N, generator=torch.Generator().manual_seed(2000 + seed))[0]
    return 1000 * float(metrics.energy_distance(x, y))


def measured(net, ends, seed):
    """The columns for one training; `ends` are those of the exact denoiser's walk."""
    x = walked(paths.denoiser(net, cosine, F), seed)
    off = 1000 * float((x - ends).norm(dim=1).mean())
    return [*excess(net), off, distance(x, seed)]


def row(name, runs):
    """Mean ± standard error of each column over the seeds."""
    runs = torch.tensor(runs, dtype=torch.double)
    cells = zip(runs.mean(0).tolist(), (runs.std(0) / len(runs) ** 0.5).tolist(), strict=True)
    texts = ["" if math.isnan(m) else f"{m:.2f} ± {e:.2f}" for m, e in cells]
    print(f"{name:26s}" + "".join(f"{text:>16s}" for text in texts))


def main():
    heads = [f"σ = {sigma:g}" for sigma in LEVELS] + ["off by", "distance"]
    print(f"{'':26s}" + "".join(f"{head:>16s}" for head in heads))
    ends = [walked(mixture.denoiser(cosine), seed) for seed in range(SEEDS)]
    for name, law in LAWS.items():
        row(name, [measured(trained(law, seed), ends[seed], seed) for seed in range(SEEDS)])
    born = lambda xt, t, y: torch.zeros_like(xt)
    row("at birth, F = 0", [measured(born, ends[seed], seed) for seed in range(SEEDS)])
    blank = [math.nan] * (len(LEVELS) + 1)
    row("exact denoiser", [[*blank, distance(x, seed)] for seed, x in enumerate(ends)])
    fresh = [mixture.sample(N, generator=torch.Generator().manual_seed(k))[0] for k in range(SEEDS)]
    row("exact law", [[*blank, distance(x, seed)] for seed, x in enumerate(fresh)])


if __name__ == "__main__":
    main()
