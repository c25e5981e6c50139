"""Lecture 12: does a 3×3 convolution between neighbours stand in for a DiT's positions?

A DiT on digits, rectified flow's velocity, 16 tokens of 2×2 pixels. "nothing": the positions are
set to 0, so that the net is equivariant to any permutation of its tokens. "Mix-FFN": still none,
but a depthwise 3×3 convolution over the grid of tokens stands inside each block's perceptron, after
its first layer (as in Sana, Xie et al. 2025, but without its gate). Its padding by zeros tells a
token that it stands at a border; "Mix-FFN, torus" pads with tokens of the opposite border, which
tells it nothing of the kind. Steps, rate, batches and noise are equal; three trainings each; 360
digits by 20 Euler steps. "Held-out": loss on the test digits, and paired with that of positions.
Dummy: one Gaussian a class; floor: the test digits.
"""

import torch
from torch import nn

from benchmarks.claims.transformer_birth import trained
from benchmarks.claims.transformer_nets import SHAPE, cell, drawn, dummies, held_out
from minigen import data, judge
from minigen.transformer import DiT

SEEDS, STEPS, RATE, GRAIN, SIDE = 3, 250, 6e-3, 1 / 8, 4
label = torch.arange(10).repeat(36)


class Neighbours(nn.Module):
    """Each channel of the tokens, seen as an image, through a 3×3 filter of its own."""

    def __init__(self, width, padding):
        super().__init__()
        named = {"padding": 1, "padding_mode": padding, "groups": width}
        self.filter = nn.Conv2d(width, width, 3, **named)

    def forward(self, h):
        return self.filter(h.mT.unflatten(2, (SIDE, SIDE))).flatten(2).mT


def net(positions, padding=None):
    """A DiT with or without positions, and with a filter in its perceptrons."""
    made = DiT(SHAPE, 2, 32, 2, 4, 10)
    if not positions:
        made.places.zero_()
    for block in made.blocks if padding else ():
        block.mlp.insert(1, Neighbours(128, padding))
    return made


NETS = {
    "nothing": lambda: net(False),
    "Mix-FFN, torus": lambda: net(False, "circular"),
    "Mix-FFN": lambda: net(False, "zeros"),
    "positions": lambda: net(True),
    "positions, Mix-FFN": lambda: net(True, "zeros"),
}


def measured(name, seed):
    """The verdict on 360 digits, and the held-out loss."""
    torch.manual_seed(seed)
    made = NETS[name]()
    trained(made, RATE, seed, STEPS)
    return judge.digits(drawn(made, label, seed)[0], label), held_out(
        made, *data.digits("test"), GRAIN
    )


def main():
    runs = {name: [measured(name, seed) for seed in range(SEEDS)] for name in NETS}
    rows = {name: [verdict for verdict, _ in these] for name, these in runs.items()}
    gauss = "a Gaussian a class"
    rows[gauss] = dummies(data.digits, judge.digits)[gauss]
    print(judge.table(rows))
    print(f"\n{'':18s}{'parameters':>12s}{'held-out loss':>20s}{'less positions’':>20s}")
    reference = torch.tensor([loss for _, loss in runs["positions"]])
    for name, these in runs.items():
        losses = torch.tensor([loss for _, loss in these])
        size = sum(p.numel() for p in NETS[name]().parameters())
        less = cell((losses - reference).tolist(), 4)
        print(f"{name:18s}{size:12,d}{cell(losses.tolist(), 4):>20s}{less:>20s}")


if __name__ == "__main__":
    main()
