"""Lecture 4: fewer steps with η = 0 and η = 1, on three trained networks instead of one.

The noise network of the digits and two trained like it, from other seeds. Each draws five times
360 digits for every η and N; the five verdicts are averaged, and the error is that of three
networks. Within-class variance, the sum over pixels of the variance of the digits of one class,
sees what the Fréchet distance does not: samples that are too much alike. "+ grain" is the row above
again, the same samples with noise of std 0.13 on each pixel: what recall and precision say of grain
alone. Both samplers get it, as noise raises the recall of any sample. "difference" is η = 0 less
η = 1, network by network. With 500 steps next to nothing is lost in a step, so what remains of a
gap is the networks'.
"""

import torch

from data.digit_recipes import digits_path, eps_loss, labelled
from minigen import data, ddim, judge, nets, paths, targets, train

SEEDS, GRAIN = (0, 1, 2), 0.13
RUNS = {5: 5, 10: 5, 20: 5, 50: 5, 500: 2}  # steps: runs of each network
test_x, test_y = data.digits("test")
path = digits_path()


def trained(seed, steps=2600):
    """The recipe of data/digit_recipes.py; its own seed, 0, is the one that is bundled."""
    if seed:
        return labelled(seed, eps_loss, steps)[0]
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_eps"), net)
    return net


def variance(x, label):
    """Variance within a class, summed over pixels, mean over the classes."""
    x = x.clamp(-judge.LIMIT, judge.LIMIT).flatten(1)
    return float(torch.stack([x[label == k].var(0).sum() for k in range(10)]).mean())


def measured(net, eta, n, g):
    """Verdict and within-class variance of n steps, without and with grain; means over the runs."""
    denoise = paths.denoiser(net, path, targets.eps, test_y)
    own = torch.Generator().manual_seed(n)  # for the grain
    rows = []
    for _ in range(RUNS[n]):
        xT = torch.randn(360, 1, 8, 8, generator=g)
        *_, x = ddim.sample(denoise, path, xT, torch.linspace(1, 0, n + 1), eta=eta, generator=g)
        both = x, x + GRAIN * torch.randn(x.shape, generator=own)
        rows.append([[*judge.digits(y, test_y), variance(y, test_y)] for y in both])
    return torch.tensor(rows, dtype=torch.double).mean(0)


def line(name, runs):
    """One row: mean and, for several networks, the standard error of each number."""
    cells = []
    for column, p in zip(runs.T, (3, 2, 3, 3, 3, 2), strict=True):
        cell = f"{float(column.mean()):.{p}f}"
        if len(column) > 1:
            cell += f" ± {float(column.std()) / len(column) ** 0.5:.{p}f}"
        cells.append(f"{cell:>16s}")
    return f"{name:18s}" + "".join(cells)


def main():
    names = "accuracy", "Fréchet", "recall", "precision", "memorised", "variance"
    networks = [trained(seed) for seed in SEEDS]
    g = torch.Generator().manual_seed(0)
    print(" " * 18 + "".join(f"{name:>16s}" for name in names))
    for n in RUNS:
        both = {eta: torch.stack([measured(net, eta, n, g) for net in networks]) for eta in (0, 1)}
        for eta, rows in both.items():
            print(line(f"η = {eta}, N = {n}", rows[:, 0]))
            print(line("  + grain", rows[:, 1]))
        lead = both[0] - both[1]
        print(line("difference", lead[:, 0]))
        print(line("  + grain", lead[:, 1]))
    floor = [*judge.floor(), variance(test_x, test_y)]
    print(line("test digits", torch.tensor([floor], dtype=torch.double)))


if __name__ == "__main__":
    main()
