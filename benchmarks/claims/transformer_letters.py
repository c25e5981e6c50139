"""Lecture 12: with equal CPU time, which of the three nets draws better letters of 32×32 pixels?

As `transformer_nets`, on 26 capitals in 21 fonts (`data.letters`), without grain: a DiT in patches
of 8 pixels and one in patches of 4, a U-Net, the ResMLP. Nothing was tuned for the letters: the
rates are those of the digits. Three trainings each; a sample is 520 letters, A to Z in turn, by
20 Euler steps. Dummies: one Gaussian a class, and copies of training letters.
"""

import torch

from benchmarks.claims.transformer_nets import costs, dummies, raced
from minigen import data, judge, nets
from minigen.transformer import DiT

SEEDS, SECONDS, SHAPE = 3, 20, (1, 32, 32)
NETS = {  # name -> net, learning rate
    "ResMLP": (lambda: nets.ResMLP(SHAPE, 256, 4, 26), 3e-3),
    "U-Net": (lambda: nets.UNet(SHAPE, 8, (1, 2, 4), 26), 1e-2),
    "DiT, patch 4": (lambda: DiT(SHAPE, 4, 64, 2, 4, 26), 1e-2),
    "DiT, patch 8": (lambda: DiT(SHAPE, 8, 64, 2, 4, 26), 1e-2),
}
label = torch.arange(520) % 26


def main():
    settings = {"grain": 0.0, "seconds": SECONDS}
    runs = [
        raced(NETS, data.letters, judge.letters, label, seed=seed, **settings)
        for seed in range(SEEDS)
    ]
    rows = {name: [run[name][0] for run in runs] for name in NETS}
    print(judge.table(rows | dummies(data.letters, judge.letters), judge.letters))
    costs(NETS, runs)


if __name__ == "__main__":
    main()
