"""Lecture 10: is it EDM's target, its loss weight or its noise levels that help on digits?

One network, input scale, time, batches, steps, sampler and grid: on the cosine path, with lecture
10's scaled input, every target is one of the state x0 + σ eps. Rows differ in three things only:
what the network predicts (and so how it is read), the weight of its error in F's units, and the
law of σ in training. σ_data is the digits' std, the log-normal law is moved with it. Three
trainings each; Heun's method walks Karras's levels in (x0 + σ eps, σ), two samples of 360 each.
Dummies: the network at birth, F = 0, and one Gaussian a class.
"Held-out error": E‖x̂0 − x0‖² / c_out² of the test digits at four σ; F = 0 has about 1.
"""

import math

import torch

from data.digit_recipes import digits_path, labelled
from minigen import data, edm, flow, judge, paths, targets

SEEDS, STEPS, CALLS, LEVELS = 3, 500, (17, 35), (0.1, 0.5, 2.0, 10.0)
train_x, train_y = data.digits("train")
test_x, test_y = data.digits("test")
STD = float(train_x.std())
cosine, levels = paths.Cosine(), paths.EDM(80.0)
F = edm.target(STD)
label = torch.arange(10).repeat(36)


def difference(path, t):
    """Flow's target on any path: eps − x0."""
    return -torch.ones_like(t), torch.ones_like(t)


# The law of σ in training, as times of the cosine path ------------------------------------------


def log_normal(n, g):
    """log σ ~ N(−1.2 + log(σ_data/½), 1.2²): EDM's law, moved to these data."""
    return edm.log_normal_times(cosine, n, mean=-1.2 + math.log(2 * STD), generator=g)


def of_flow(n, g):
    """Uniform times of the linear path."""
    return cosine.time(paths.Linear().sigma(flow.uniform_times(n, generator=g)))


def of_chain(n, g):
    """The knots of lecture 3's chain."""
    path = digits_path()
    t = torch.randint(1, path.T + 1, (n,), generator=g, dtype=torch.float64) / path.T
    return cosine.time(path.sigma(t)).float()


# The weight of ‖x̂0 − x0‖² in the loss: the target's own, or that of F ---------------------------


def own(target, t):
    return 1.0


def of_F(target, t):
    """The factor from an error of the target to the error of F that it makes."""
    return paths.read(target, F, cosine, t)[1].square()


RECIPES = {  # name -> target, weight, law of σ
    "x0": (targets.x0, own, log_normal),
    "ε": (targets.eps, own, log_normal),
    "v": (targets.v, own, log_normal),
    "ε − x0": (difference, own, log_normal),
    "F": (F, own, log_normal),
    "x0, weight of F": (targets.x0, of_F, log_normal),
    "ε, weight of F": (targets.eps, of_F, log_normal),
    "ε, chain's σ": (targets.eps, own, of_chain),
    "ε − x0, flow's σ": (difference, own, of_flow),
    "F, flow's σ": (F, own, of_flow),
}


def trained(name, seed):
    """The scaled network of one recipe."""
    target, weight, law = RECIPES[name]

    def loss(net, x0, y, g):
        t, eps = law(len(x0), g), torch.randn(x0.shape, generator=g)
        net = edm.scale_input(net, cosine, STD)
        return (weight(target, t) * targets.loss(net, cosine, target, x0, eps, t, y)).mean()

    return edm.scale_input(labelled(seed, loss, STEPS)[0], cosine, STD)


def sampled(net, target, calls, g):
    """360 digits by Heun's method on Karras's levels, in the coordinates of `levels`."""
    denoise = paths.denoiser(net, cosine, target, label)

    def at_level(x, t):
        s = cosine.time(levels.sigma(t))
        return denoise(cosine.a(s) * x, s)

    start = 80 * torch.randn(360, 1, 8, 8, generator=g)
    *_, x = flow.heun(at_level, levels, start, edm.grid(levels, (calls + 1) // 2))
    return x


def held_out(net, target):
    """E‖x̂0 − x0‖² / c_out² of the test digits at each of LEVELS."""
    g, errors = torch.Generator().manual_seed(5), []
    x, y = test_x.repeat(4, 1, 1, 1), test_y.repeat(4)
    denoise = paths.denoiser(net, cosine, target, y)
    for sigma in torch.tensor(LEVELS):
        t, eps = cosine.time(sigma), torch.randn(x.shape, generator=g)
        with torch.no_grad():
            error = (denoise(cosine.mix(x, eps, t), t) - x).square().mean()
        errors.append(float(error / edm.coefficients(sigma, STD)[1] ** 2))
    return errors


def measured(net, target, seed):
    """calls -> verdict, the mean of two samples; and the held-out errors."""
    g, found = torch.Generator().manual_seed(1000 + seed), {}
    for n in CALLS:
        both = torch.tensor([judge.digits(sampled(net, target, n, g), label) for _ in range(2)])
        found[n] = judge.Verdict(*both.mean(0).tolist())
    return found, held_out(net, target)


def gaussians(seed):
    """360 draws from one Gaussian a class."""
    g, x = torch.Generator().manual_seed(seed), torch.empty(360, 64)
    for k in range(10):
        z = train_x[train_y == k].flatten(1).double()
        root = torch.linalg.cholesky(z.T.cov() + 1e-6 * torch.eye(64))
        x[label == k] = (z.mean(0) + torch.randn(36, 64, generator=g).double() @ root.T).float()
    return judge.digits(x.reshape(-1, 1, 8, 8), label)


def main():
    born = lambda xt, t, y: torch.zeros_like(xt)
    runs = {
        name: [measured(trained(name, seed), recipe[0], seed) for seed in range(SEEDS)]
        for name, recipe in RECIPES.items()
    }
    runs["at birth"] = [measured(born, F, seed) for seed in range(SEEDS)]
    for n in CALLS:
        print(f"{n} calls")
        rows = {name: [found[n] for found, _ in these] for name, these in runs.items()}
        print(judge.table(rows | {"a Gaussian a class": [gaussians(k) for k in range(SEEDS)]}))
        print()
    print(f"{'held-out error':18s}" + "".join(f"{f'σ = {sigma:g}':>18s}" for sigma in LEVELS))
    for name, these in runs.items():
        errors = torch.tensor([error for _, error in these], dtype=torch.double)
        mean, err = errors.mean(0).tolist(), (errors.std(0) / SEEDS**0.5).tolist()
        cells = [f"{f'{m:.4f} ± {e:.4f}':>18s}" for m, e in zip(mean, err, strict=True)]
        print(f"{name:18s}" + "".join(cells))


if __name__ == "__main__":
    main()
