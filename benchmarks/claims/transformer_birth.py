"""Lecture 12: does it matter that adaLN-zero's gates, and the last layer, are born as zero?

One DiT of eight blocks on digits, rectified flow's velocity, four ways to be born; weights that are
not named here, batches and noise are equal, so that differences to the first way are paired.
"zero": as the library has it, gates, shifts, scales and the last layer 0, each block the identity.
"gates 1": as "zero", but the gates are born as 1: a usual pre-norm transformer. "default": torch's
own initial weights in the layers that steer. "default, last too": in the last layer as well.
80 steps of 64 digits, three seeds each; warm-up of 20 steps, then half a cosine down to 0.
"Mean loss": over all steps of the training. "Held-out": on the test digits, the averaged weights.
Dummy: the velocity 0. "Moved at birth": the mean |output − input| of all eight blocks together,
before training.
"""

import torch

from benchmarks.claims.transformer_nets import SHAPE, cell, held_out, velocity_loss
from minigen import data, train
from minigen.transformer import DiT

SEEDS, STEPS, RATES, DEPTH, GRAIN = 3, 80, (4e-3,), 8, 1 / 8
train_set, test_set = data.digits("train"), data.digits("test")


def zero(net):
    """As the library has it."""


def gates_one(net):
    """The two gates of each block are the third and the last sixth of what steers it."""
    for block in net.blocks:
        _, _, first, _, _, second = block.steer.bias.data.chunk(6)
        first.fill_(1.0)
        second.fill_(1.0)


def default(net):
    """What torch gives any linear layer."""
    for layer in (net.steer, *(block.steer for block in net.blocks)):
        layer.reset_parameters()


def default_last(net):
    """The last layer too."""
    default(net)
    net.last.reset_parameters()


BIRTHS = {
    "zero": zero,
    "gates 1": gates_one,
    "default": default,
    "default, last too": default_last,
}


@torch.no_grad()
def moved(net):
    """Mean |output − input| of all blocks at half noise."""
    rows = torch.nn.functional.silu(net.time_rows(test_set[0], torch.tensor(0.5)))
    tokens = h = net.tokens(test_set[0])
    for block in net.blocks:
        h = block(h, rows)
    return float((h - tokens).abs().mean())


def trained(net, lr, seed, steps=STEPS):
    """The losses of all steps; the net then has the averaged weights."""
    g, ema = torch.Generator().manual_seed(seed), train.Ema(net, 0.998)
    batches = data.batches(*train_set, size=64, generator=g)
    loss = lambda: velocity_loss(net, *next(batches), GRAIN, g)
    rate = train.cosine(lr, steps, warmup=20)
    losses = [*train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False)]
    ema.copy_to(net)
    return losses


def measured(birth, lr, seed):
    """Mean loss, held-out loss, and how far the blocks move a token at birth."""
    torch.manual_seed(seed)
    net = DiT(SHAPE, 4, 32, DEPTH, 4, 10)
    BIRTHS[birth](net)
    far = moved(net)
    losses = trained(net, lr, seed)
    return [float(torch.stack(losses).mean()), held_out(net, *test_set, GRAIN), far]


def main():
    titles = ("mean loss", "less zero's", "held-out", "less zero's", "moved at birth")
    for lr in RATES:
        print(f"{f'rate {lr:g}':20s}" + "".join(f"{title:>18s}" for title in titles))
        runs = {birth: [measured(birth, lr, seed) for seed in range(SEEDS)] for birth in BIRTHS}
        first = torch.tensor(runs["zero"])
        for birth, these in runs.items():
            these = torch.tensor(these)
            less = these - first
            columns = (these[:, 0], less[:, 0], these[:, 1], less[:, 1], these[:, 2])
            print(f"{birth:20s}" + "".join(f"{cell(c.tolist(), 4):>18s}" for c in columns))
    nothing = lambda xt, t, label: torch.zeros_like(xt)
    print(f"{'the velocity 0':56s}{held_out(nothing, *test_set, GRAIN):18.4f}")


if __name__ == "__main__":
    main()
