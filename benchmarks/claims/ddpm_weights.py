"""Lecture 3: what the weights w_t of the bound buy, and whether the quadratic table matters.

One net, one number of steps, three seeds of the training. L_simple against the weighted loss, with
t drawn in proportion to w_t (then each draw weighs the same) and with t uniform; and L_simple on
the linear table. Judged: the bound on 120 test digits with ς² = β_t in 1,000 steps, alone and with
a denoiser that knows the 17 grey levels for t ≤ 10; digits drawn in 100 and in 10 steps.
"""

import torch

from data.digit_recipes import labelled
from minigen import data, ddpm, judge, paths, targets

SEEDS, STEPS, RUNS = (0, 1, 2), 1000, 3
test_x, test_y = data.digits("test")
quadratic = paths.DDPM(ddpm.quadratic_betas(1000))
linear = paths.DDPM(ddpm.linear_betas(1000))
grey = torch.linspace(-1, 1, 17)


def weights(path):
    """w_1 … w_T, for ς² = β_t."""
    knots = torch.arange(path.T + 1, dtype=torch.double) / path.T
    return ddpm.bound_weight(path, knots[1:], knots[:-1]).float()


def by_simple(path, n, g):
    """t uniform, each loss counted alike."""
    return torch.randint(1, path.T + 1, (n,), generator=g), torch.ones(n)


def by_weight(path, n, g):
    """t drawn in proportion to w_t, each loss counted alike."""
    return 1 + torch.multinomial(weights(path), n, replacement=True, generator=g), torch.ones(n)


def by_uniform(path, n, g):
    """t uniform, the loss counted w_t times (in units of the mean)."""
    t, w = torch.randint(1, path.T + 1, (n,), generator=g), weights(path)
    return t, w[t - 1] / w.mean()


def trained(path, draw, seed):
    """The net of lecture 3, its t and its weights drawn by `draw`."""

    def loss(net, x0, label, g):
        t, w = draw(path, len(x0), g)
        eps = torch.randn(x0.shape, generator=g)
        return (w * ddpm.simple_loss(net, path, x0, t / path.T, eps, label)).mean()

    return labelled(seed, loss, STEPS)[0]


def knows_levels(denoise, path):
    """For t ≤ 10: E[x0 | xt] of pixels that may only be one of 17 grey levels."""

    def better(xt, t):
        if t > 0.0101:
            return denoise(xt, t)
        off = (xt[..., None] - path.a(t) * grey) / path.b(t)
        return (-0.5 * off.square()).softmax(-1) @ grey

    return better


def measured(path, draw, seed):
    """Bits per pixel, with levels known; Fréchet and recall in 100 steps; the same in 10."""
    net, g = trained(path, draw, seed), torch.Generator().manual_seed(100 + seed)
    plain = paths.denoiser(net, path, targets.eps, test_y[:120])
    bits = [
        ddpm.bound(f, path, test_x[:120], variance=ddpm.forward_variance, levels=17, generator=g)
        for f in (plain, knows_levels(plain, path))
    ]
    row, denoise = (
        [float(b.bits_per_dim) for b in bits],
        paths.denoiser(net, path, targets.eps, test_y),
    )
    for n in (100, 10):
        runs = []
        for _ in range(RUNS):
            xT, ts = torch.randn(360, 1, 8, 8, generator=g), torch.linspace(1, 0, n + 1)
            *_, x = ddpm.ancestral(denoise, path, xT, ts, generator=g)
            verdict = judge.digits(x, test_y)
            runs.append([verdict.frechet, verdict.recall])
        row += torch.tensor(runs).mean(0).tolist()
    return row


def main():
    variants = {
        "L_simple": (quadratic, by_simple),
        "w_t, t drawn by w_t": (quadratic, by_weight),
        "w_t, t uniform": (quadratic, by_uniform),
        "L_simple, linear": (linear, by_simple),
    }
    names = "bits", "levels known", "Fréchet, 100", "recall, 100", "Fréchet, 10", "recall, 10"
    print(" " * 20 + "".join(f"{name:>16s}" for name in names))
    for name, (path, draw) in variants.items():
        rows = torch.tensor([measured(path, draw, seed) for seed in SEEDS], dtype=torch.double)
        mean, error = rows.mean(0).tolist(), (rows.std(0) / len(SEEDS) ** 0.5).tolist()
        cells = [f"{m:.2f} ± {e:.2f}" for m, e in zip(mean, error, strict=True)]
        print(f"{name:20s}" + "".join(f"{cell:>16s}" for cell in cells))


if __name__ == "__main__":
    main()
