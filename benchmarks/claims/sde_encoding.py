"""Lecture 9: do two networks that know nothing of each other encode a digit to one latent?

The ODE is the data's and the path's, not the network's: in x̄ = x/a and σ = b/a it is the same ODE
for every path. The 360 test digits, with noise of one grey level's width, are carried from σ = 0.1
to σ = 30 by Heun's method on 60 equal steps of log σ, with their labels. Noise networks on lecture
3's chain and velocity networks on the linear path, 1,500 steps on data with the same noise; no two
share seed or batches. "No digit in common": velocity networks, each trained on its own half of the
digits; "the same half": two on one half. The bundled networks saw more steps (noise, on data
without grain) or as many (velocity).

A row: what two encodings z and z′ of the same digits have in common. Correlation over the 64
pixels, each less its mean over the class; distance ‖z − z′‖ as a share of √(‖z‖² + ‖z′‖²), about 1
for independent latents; how often z is nearer to its own z′ than to that of any other digit; and
"beyond", the partial correlation, given the exact encoding of the digit under one Gaussian a class:
agreement on more than mean and covariance. Mean ± standard error over pairs.

Controls: z′ of another digit of the same class; the solver, on a third of the steps; short
training; none (a net that is zero at birth); Gaussians, whose ODE is solved exactly.
"""

import itertools
import math

import torch

from benchmarks.claims.vae_noise import dequantise
from data.digit_recipes import digits_path, eps_loss, labelled
from minigen import data, flow, nets, paths, targets, train

SEEDS, STEPS, SHORT, LOW, HIGH, N = 3, 1500, 100, 0.1, 30.0, 60
chain, linear = digits_path(), paths.Linear()
TRAIN, TRAIN_Y = data.digits("train")
TEST, LABEL = data.digits("test")


def noise_loss(net, x0, y, g):
    """Lecture 3's loss on data with grain."""
    return eps_loss(net, dequantise(x0, g), y, g)


def flow_loss(net, x0, y, g):
    """Lecture 8's, at uniform times, on data with grain."""
    t = flow.uniform_times(len(x0), generator=g)
    eps = torch.randn(x0.shape, generator=g)
    return flow.loss(net, dequantise(x0, g), eps, t, y).mean()


KINDS = {
    "noise": (noise_loss, chain, targets.eps),
    "velocity": (flow_loss, linear, targets.velocity),
}
BUNDLED = {"digits_eps": "noise", "digits_flow": "velocity"}


def bundled(name):
    """A network of the lectures."""
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint(name), net)
    return net


@torch.no_grad()
def encode(net, path, target, x, n=N):
    """x̄ at σ = HIGH from x̄ = x at σ = LOW: Heun's method in log σ."""
    sigmas = torch.logspace(math.log10(LOW), math.log10(HIGH), n + 1, dtype=torch.float64)
    ts, denoise = path.time(sigmas), paths.denoiser(net, path, target, LABEL)
    # dx̄/d log σ = x̄ − x̂0
    slope = lambda y, i: y - denoise(float(path.a(ts[i])) * y, ts[i].float())
    h, y = math.log(HIGH / LOW) / n, x
    k = slope(y, 0)
    for i in range(n):
        after = slope(y + h * k, i + 1)
        y = y + 0.5 * h * (k + after)
        k = slope(y, i + 1)
    return y


def gaussian(x, classes=True):
    """The exact encoding under one Gaussian a class (or one for all) of the training digits."""
    g, z = torch.Generator().manual_seed(5), torch.empty(len(x), 64).double()
    many, which = dequantise(TRAIN.repeat(5, 1, 1, 1), g).flatten(1).double(), TRAIN_Y.repeat(5)
    for k in range(10):
        rows = many[which == k] if classes else many
        value, U = torch.linalg.eigh(rows.T.cov())
        scale = ((value + HIGH**2) / (value + LOW**2)).sqrt()
        mean, here = rows.mean(0), LABEL == k
        z[here] = mean + ((x[here].flatten(1).double() - mean) @ U * scale) @ U.T
    return z


def centred(z):
    """Each pixel less its mean over the class."""
    return z - torch.stack([z[LABEL == k].mean(0) for k in range(10)])[LABEL]


def correlation(u, v, w=None):
    """Mean over digits of the correlation over pixels; partial, where w is given."""
    if w is not None:
        w = torch.nn.functional.normalize(w, dim=1)
        u, v = (x - (x * w).sum(1, keepdim=True) * w for x in (u, v))
    return float(torch.nn.functional.cosine_similarity(u, v).mean())


def alike(z, other, exact):
    """The four columns, of two encodings of the same digits."""
    z, other = z.flatten(1).double(), other.flatten(1).double()
    size = (z.square().sum(1) + other.square().sum(1)).sqrt()
    distance = ((z - other).norm(dim=1) / size).mean()
    nearest = (torch.cdist(z, other).argmin(1) == torch.arange(len(z))).double().mean()
    u, v, w = (centred(x) for x in (z, other, exact))
    beyond = math.nan if torch.equal(other, exact) else correlation(u, v, w)
    return [correlation(u, v), float(distance), float(nearest), beyond]


def another(z, g):
    """The latents, those of each class put out of order: no digit keeps its own."""
    out = z.clone()
    for k in range(10):
        here = (LABEL == k).nonzero().flatten()
        out[here] = z[here[torch.randperm(len(here), generator=g)].roll(1)]
    return out


def line(name, rows):
    """Mean ± standard error over the pairs, and how many pairs there are."""
    rows = torch.tensor(rows, dtype=torch.double)
    cells = [f"{float(m):.3f}" for m in rows.mean(0)]
    if len(rows) > 1:
        errors = rows.std(0) / len(rows) ** 0.5
        cells = [f"{cell} ± {float(e):.3f}" for cell, e in zip(cells, errors, strict=True)]
    cells = ["–" if cell.startswith("nan") else cell for cell in cells]
    print(f"{name:40s}" + "".join(f"{c:>16s}" for c in cells) + f"{len(rows):7d}")


def half_loss(rows):
    """flow_loss on these training digits only; where a label was left out, it stays out."""

    def loss(net, x0, y, g):
        pick = rows[torch.randint(len(rows), (len(y),), generator=g)]
        return flow_loss(net, TRAIN[pick], torch.where(y == 10, 10, TRAIN_Y[pick]), g)

    return loss


def halves(x, seed):
    """Latents of three velocity networks: on one half of the digits, the other, the first again."""
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    one, other = order.chunk(2)
    found = []
    for number, rows in ((100 + 2 * seed, one), (101 + 2 * seed, other), (200 + seed, one)):
        net, _ = labelled(number, half_loss(rows), STEPS)
        found.append(encode(net, linear, targets.velocity, x))
    return found


def main():
    x = dequantise(TEST, torch.Generator().manual_seed(0))
    exact, g = gaussian(x), torch.Generator().manual_seed(1)
    made, z = {}, {}
    for i, (kind, (loss, path, target)) in enumerate(KINDS.items()):
        for steps in (STEPS, SHORT):
            seeds = [10 * i + s + (steps == SHORT) * 50 for s in range(1, SEEDS + 1)]
            made[kind, steps] = [labelled(seed, loss, steps)[0] for seed in seeds]
            z[kind, steps] = [encode(net, path, target, x) for net in made[kind, steps]]
    noise, flows = z["noise", STEPS], z["velocity", STEPS]
    pairs = lambda zs: list(itertools.combinations(zs, 2))
    each = lambda zs, ws: list(zip(zs, ws, strict=True))
    ours = [encode(bundled(name), *KINDS[kind][1:], x) for name, kind in BUNDLED.items()]

    rows = {"two noise nets": pairs(noise), "two velocity nets": pairs(flows)}
    rows["a noise net, a velocity net"] = each(noise, flows)
    rows["the two bundled nets"] = [tuple(ours)]
    parts = [halves(x, seed) for seed in range(SEEDS)]
    rows["two velocity nets, the same half"] = [(one, again) for one, _, again in parts]
    rows["two velocity nets, no digit in common"] = [(one, other) for one, other, _ in parts]
    rows["  another digit of the class"] = [(p, another(q, g)) for p, q in each(noise, flows)]
    for kind, (_, path, target) in KINDS.items():
        coarse = [encode(net, path, target, x, N // 3) for net in made[kind, STEPS]]
        rows[f"  a {kind} net, {N} and {N // 3} steps"] = each(z[kind, STEPS], coarse)
    for kind in KINDS:
        rows[f"  two {kind} nets of {SHORT} steps"] = pairs(z[kind, SHORT])
        rows[f"  {kind} nets of {STEPS} and {SHORT} steps"] = each(z[kind, STEPS], z[kind, SHORT])
    zero = encode(nets.ResMLP((1, 8, 8), hidden=8, depth=1, classes=10), *KINDS["noise"][1:], x)
    rows["  two noise nets at birth"] = [(zero, zero)]
    rows["  a noise net, one at birth"] = [(p, zero) for p in noise]
    for name, known in (("one Gaussian a class", exact), ("one Gaussian", gaussian(x, False))):
        rows[f"  a noise net, {name}"] = [(p, known) for p in noise]
        rows[f"  a velocity net, {name}"] = [(p, known) for p in flows]
    names = "correlation", "distance", "nearest", "beyond"
    print(" " * 40 + "".join(f"{name:>16s}" for name in names) + "  pairs")
    for name, found in rows.items():
        line(name, [alike(p, q, exact) for p, q in found])


if __name__ == "__main__":
    main()
