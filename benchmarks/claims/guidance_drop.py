"""Lecture 6: is the unconditional field poor because only one label in ten was dropped?

Three trainings of the lecture's noise network with a label in ten dropped, a label in two, and all
labels; each is asked without a label (γ = 0) and, where it knows labels, with them (γ = 1).
1,300 steps, half of those of the bundled network. 360 digits by 20 DDIM steps.
"""

import torch

from data.digit_recipes import digits_path, eps_loss, labelled
from minigen import ddim, judge, paths, targets

SEEDS, STEPS = 3, 1300
chain = digits_path()
label = torch.arange(10).repeat(36)


def trained(drop, seed):
    """The noise network of data/digit_recipes.py, this share of its labels dropped."""
    return labelled(seed, eps_loss, STEPS, drop)[0]


def verdict(net, asked, seed):
    """360 digits of these labels, or of none, judged."""
    g = torch.Generator().manual_seed(1000 + seed)
    denoise = paths.denoiser(net, chain, targets.eps, asked)
    start = torch.randn(360, 1, 8, 8, generator=g)
    *_, x = ddim.sample(denoise, chain, start, torch.linspace(1, 0, 21))
    return judge.digits(x, asked)


def main():
    rows = {}
    for drop in (0.1, 0.5, 1.0):
        made = [trained(drop, seed) for seed in range(SEEDS)]
        for name, asked in (("without a label", None), ("with one", label)):
            if asked is None or drop < 1:
                runs = [verdict(net, asked, seed) for seed, net in enumerate(made)]
                rows[f"{drop:.0%} dropped, {name}"] = runs
    print(judge.table(rows))


if __name__ == "__main__":
    main()
