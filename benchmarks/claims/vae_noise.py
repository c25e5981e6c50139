"""Lecture 2: how much of a VAE's likelihood is its latents, and how much its noise?

Linear-Gaussian models with 8 to 63 latents and one σ (PCA), with 8 and 24 and one σ for each pixel
(factor analysis), and VAEs with 8 latents and either noise, three trainings each, for the lecture's
750 steps and for 2,400.
"""

import math

import torch
from sklearn.decomposition import FactorAnalysis
from torch import nn

from minigen import data, train, vae

SEEDS = 3
TRAIN, TEST = data.digits("train")[0], data.digits("test")[0]


def dequantise(x, g):
    """Uniform noise of one grey level's width."""
    return x + (torch.rand(x.shape, generator=g) - 0.5) / 8


def linear() -> None:
    """Print the exact log-likelihoods of linear models."""
    g = torch.Generator().manual_seed(0)
    many = dequantise(TRAIN.repeat(5, 1, 1, 1), g).flatten(1).double()
    test = dequantise(TEST, g).flatten(1).double()
    for k in (8, 12, 24, 32, 48, 63):
        value = float(vae.LinearGaussian.fit(many, k).log_prob(test).mean())
        print(f"linear, {k:2} latents, one σ          {value:6.1f}")
    for k in (8, 24):
        fit = FactorAnalysis(k, max_iter=3000, tol=1e-3).fit(many.numpy())
        print(f"linear, {k:2} latents, σ of each pixel {fit.score(test.numpy()):6.1f}")


def trained(each_pixel: bool, seed: int, steps: int) -> tuple[vae.VAE, torch.Generator]:
    """Lecture 2's VAE with 8 latents, and its generator as the training left it."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    likelihood = vae.Gaussian(-3.0)
    if each_pixel:
        likelihood.log_var = nn.Parameter(torch.full((1, 8, 8), -3.0))
    net = vae.mlp((1, 8, 8), 8, hidden=128, likelihood=likelihood)
    rows = lambda: dequantise(TRAIN[torch.randint(len(TRAIN), (128,), generator=g)], g)
    loss = lambda: -vae.elbo(net, rows(), generator=g).total.mean()
    rate = train.cosine(6e-3, steps, 50)
    for _ in train.fit(loss, net, steps=steps, lr=rate, progress=False):
        pass
    return net, g


def measured(each_pixel: bool, seed: int, steps: int) -> list[float]:
    """ELBO and IWAE-500 on test digits of a VAE with 8 latents."""
    net, g = trained(each_pixel, seed, steps)
    test = dequantise(TEST, g)
    with torch.no_grad():
        bound = vae.elbo(net, test, samples=20, generator=g).total.mean()
        return [float(bound), float(vae.iwae(net, test, samples=500, generator=g).mean())]


def main() -> None:
    print("log-likelihood of test digits, nats per image; VAEs: mean ± standard error, 3 trainings")
    print(f"\n{'':32s}  log p(x)")
    linear()
    print(f"\n{'':32s} steps {'ELBO':>14s} {'IWAE-500':>14s}")
    for steps in (750, 2400):
        for each_pixel, name in ((False, "one σ"), (True, "σ of each pixel")):
            row = torch.tensor([measured(each_pixel, s, steps) for s in range(SEEDS)])
            pm = row.std(0) / math.sqrt(SEEDS)
            said = [f"{m:.1f} ± {e:.1f}" for m, e in zip(row.mean(0), pm, strict=True)]
            print(f"VAE, 8 latents, {name:16s} {steps:5d} {said[0]:>14s} {said[1]:>14s}")


if __name__ == "__main__":
    main()
