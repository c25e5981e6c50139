"""Lecture 9: what is the likelihood of the digits, by the ODE and by all that came before it?

One table for the 360 test digits. Nats: the log-density of an image with uniform noise of one grey
level's width, the same noise in every row; where a row is the probability of the 17 levels
themselves, 64 log 8 is added, so that all rows have one scale. Bits per pixel of the levels are
(log 8 − nats/64)/log 2, for log P(levels) ≥ E log p(x + u) − 64 log 8. So every row is a valid
bound, and more nats are better; but a row of levels has lost nothing to that inequality.

ODE: `sde.log_prob` from the time with σ = low to the last one, 30 Runge–Kutta steps equal in log σ
and Hutchinson's divergence. The model is p_t at that time, read in x̄ = x/a: a density like any
other, so `low` is a choice, and all three are shown. Nets are given the label, and log 10 is taken
off: Σ_y p(x | y)/10 is at least one of its terms. Noise and velocity nets were trained on digits
with that noise, three trainings each; digits_eps, the lectures' noise network, on digits without:
the chain's rows of levels are its own ground, the others are not. ±: the standard error over
digits, and over trainings. Dummies: pixels that know nothing of each other, and normals.
"""

import math

import torch

from benchmarks.claims.sde_encoding import (
    KINDS,
    LABEL,
    TEST,
    TRAIN,
    TRAIN_Y,
    bundled,
    chain,
    dequantise,
)
from benchmarks.claims.vae_noise import trained
from data.digit_recipes import labelled
from minigen import ddpm, paths, sde, vae

SEEDS, STEPS, N, FEW, DRAWS = 3, 1500, 30, 10, 10
LOWS = (0.01, 0.03, 0.1)
LEVELS = 64 * math.log(8)  # nats between the probability of the levels and the density
NOISY = dequantise(TEST, torch.Generator().manual_seed(0))
SEEN = dequantise(TRAIN[:360], torch.Generator().manual_seed(1))


def say(name, how, means, error):
    """One row: the mean of each training, nats, and the standard error over digits."""
    means = torch.tensor(means, dtype=torch.double)
    nats = float(means.mean())
    trainings = f"± {float(means.std()) / len(means) ** 0.5:.1f}" if len(means) > 1 else "–"
    bits, bits_error = (LEVELS - nats) / 64 / math.log(2), error / 64 / math.log(2)
    row = f"{name:43s}{nats:7.1f} ± {error:.1f}{trainings:>8s}{bits:10.2f} ± {bits_error:.2f}"
    print(f"{row}   {how}", flush=True)


def line(name, how, runs):
    """A row of `runs`, the nats of each digit, one (360,) for each training."""
    runs = torch.stack([run.double() for run in runs])
    error = float(runs.mean(0).std()) / runs.shape[1] ** 0.5
    say(name, how, runs.mean(1).tolist(), error)


def ode(net, path, target, x, label, low, *, n=N, divergence=sde.hutchinson, seed=0):
    """log p(x) of each digit, nats, by the ODE from σ = low."""
    high = min(float(path.sigma(torch.ones(()).double())), 40.0)
    ts = path.time(torch.logspace(math.log10(low), math.log10(high), n + 1, dtype=torch.float64))
    ts = torch.cat([ts[ts < 1 - 1e-6], torch.ones(1).double()])  # linear: one more, to σ = ∞
    a, g = float(path.a(ts[0])), torch.Generator().manual_seed(seed)
    denoise = paths.denoiser(net.requires_grad_(False), path, target, label)
    nats = sde.log_prob(denoise, path, a * x, ts, divergence=divergence, generator=g)
    return nats + 64 * math.log(a) - math.log(10)


def linear():
    """Models whose log p(x) is exact, fitted to digits with five draws of the noise."""
    g = torch.Generator().manual_seed(0)
    many, which = dequantise(TRAIN.repeat(5, 1, 1, 1), g).flatten(1).double(), TRAIN_Y.repeat(5)
    x = NOISY.flatten(1).double()
    normal = lambda rows: torch.distributions.MultivariateNormal(rows.mean(0), rows.T.cov())
    counts = torch.stack([(TRAIN == k / 8 - 1).flatten(1).double().sum(0) for k in range(17)])
    share = (counts + 1) / (len(TRAIN) + 17)  # each pixel's levels, and one of each more
    place = ((TEST.flatten(1) + 1) * 8).round().long()
    alone = share.log().gather(0, place).sum(1) + LEVELS
    line("levels of each pixel alone", "levels; exact", [alone])
    line("  given the class", "levels; exact", [by_class(place)])
    for k in (8, 24):
        found = vae.LinearGaussian.fit(many, k).log_prob(x)
        line(f"pPCA, {k} latents", "density; exact", [found])
    line("one normal", "density; exact", [normal(many).log_prob(x)])
    each = torch.stack([normal(many[which == k]).log_prob(x) for k in range(10)])
    line("a normal a class", "density; exact", [each.logsumexp(0) - math.log(10)])


def by_class(place):
    """As `share`, for each class: naive Bayes, log Σ_y ∏ p(pixel | y)/10."""
    each = []
    for y in range(10):
        rows = TRAIN[TRAIN_Y == y]
        counts = torch.stack([(rows == k / 8 - 1).flatten(1).double().sum(0) for k in range(17)])
        share = (counts + 0.1) / (len(rows) + 1.7)
        each.append(share.log().gather(0, place).sum(1))
    return torch.stack(each).logsumexp(0) - math.log(10) + LEVELS


def autoencoder(each_pixel, steps, seed):
    """Lecture 2's VAE: ELBO and IWAE-500 of each digit."""
    net, g = trained(each_pixel, seed, steps)
    with torch.no_grad():
        elbo = vae.elbo(net, NOISY, samples=20, generator=g).total
        return elbo, vae.iwae(net, NOISY, samples=500, generator=g)


def chains(name, networks):
    """Lecture 3's bound of these noise networks, variance β: of the levels, and of the density."""
    for steps, what in ((1000, "levels"), (1000, "density"), (100, "levels"), (100, "density")):
        ts, totals, errors = torch.linspace(1, 0, steps + 1, dtype=torch.float64), [], []
        x, levels, more = (TEST, 17, LEVELS) if what == "levels" else (NOISY, None, 0.0)
        if steps == 1000 and (what == "levels") == (name == "noise net"):
            continue  # the slow ones only on the data that the net was trained for
        for seed, net in enumerate(networks):
            g = torch.Generator().manual_seed(seed)
            kind = {"variance": ddpm.forward_variance, "levels": levels, "label": LABEL}
            b = ddpm.bound(net, chain, x, ts=ts, generator=g, **kind)
            totals.append(more - float(b.total) - math.log(10))
            errors.append(float(b.stderr))
        say(f"{name}, {steps} steps", f"{what}; the chain, a bound", totals, errors[0])


def controls(net, path, target):
    """What the numbers of the ODE are worth: solver and divergence, on a few digits."""
    x, label, low = NOISY[:FEW], LABEL[:FEW], LOWS[1]
    ask = lambda n, divergence, seed=0: ode(
        net, path, target, x, label, low, n=n, divergence=divergence, seed=seed
    ).double()
    exact, coarser = ask(N, sde.exact_divergence), ask(N // 2, sde.exact_divergence)
    drawn = torch.stack([ask(N, sde.hutchinson, seed) for seed in range(DRAWS)])
    gap, error = float((drawn.mean(0) - exact).mean()), float(drawn.std(0).square().mean().sqrt())
    print(f"\na velocity net, σ from {low}, {FEW} digits by the exact divergence, nats:")
    print(f"  {N // 2} steps less {N}: {float((coarser - exact).mean()):+.3f}", end=", ")
    print(f"the largest of a digit {float((coarser - exact).abs().max()):.3f}")
    print(f"  Hutchinson less exact: {gap:+.2f} ± {error / (DRAWS * FEW) ** 0.5:.2f}", end=", ")
    print(f"standard deviation of one estimate of one digit {error:.1f}")


def rows(name, networks, kind, lows=LOWS):
    """The ODE's rows of these networks, and one of training digits."""
    for low in lows:
        runs = [ode(net, *kind, NOISY, LABEL, low) for net in networks]
        line(f"{name}, σ from {low}", "density; the ODE", runs)
    runs = [ode(net, *kind, SEEN, TRAIN_Y[:360], LOWS[1]) for net in networks]
    line(f"  from {LOWS[1]}, 360 training digits", "density; the ODE", runs)


def main():
    print(" " * 47 + "nats (±: digits, trainings)  bits per pixel   of what; over what")
    linear()
    for each_pixel, steps in ((False, 750), (True, 2400)):
        bounds = zip(*(autoencoder(each_pixel, steps, s) for s in range(SEEDS)), strict=True)
        name = f"VAE, {'σ of each pixel' if each_pixel else 'one σ'}, {steps} steps"
        for bound, runs in zip(("ELBO", "IWAE-500"), bounds, strict=True):
            line(f"{name}, {bound}", "density; z, a bound", runs)
    net = bundled("digits_eps")
    chains("digits_eps", [net])
    rows("digits_eps", [net], KINDS["noise"][1:])
    for kind, (loss, path, target) in KINDS.items():
        networks = [labelled(1 + s, loss, STEPS)[0] for s in range(SEEDS)]
        if path is chain:
            chains("noise net", networks)
        rows(f"{kind} net", networks, (path, target))
    short = [labelled(1 + s, loss, STEPS // 3)[0] for s in range(SEEDS)]
    rows(f"{kind} net, {STEPS // 3} training steps", short, (path, target), LOWS[1:2])
    controls(networks[0], path, target)


if __name__ == "__main__":
    main()
