"""Lecture 12: is there a learning rate at which a DiT diverges, and with QK-norm trains?

A DiT of four blocks on digits, rectified flow's velocity, Adam at a constant rate, no warm-up, no
clipping: all that usually hides a rate that is too high is left out. With and without QK-norm, from
the same weights, on the same 80 batches of 32 and noise; three seeds. "Held-out": on the test
digits, the averaged weights; the velocity 0 has the loss in the last line. "Worst": the largest
loss of a step in the second half of the training. "Logit": the largest |q·k|/√d of 64 test digits
in any block and head, looked at ten times in the training. Here d = 8; with the norm it is at most
√d = 2.8 at birth, and √d max|w| max|w′| later, w and w′ the norms' own weights, which are learnt.
"""

import torch

from benchmarks.claims.transformer_nets import SHAPE, cell, held_out, velocity_loss
from minigen import data, train
from minigen.transformer import DiT, attention

SEEDS, STEPS, RATES, GRAIN = 3, 80, (1e-2, 3e-2, 1e-1), 1 / 8
train_set, test_set = data.digits("train"), data.digits("test")


class Watched:
    """The attention kernel, which notes the largest logit while it is looked at."""

    def __init__(self):
        self.looking, self.largest = False, 0.0

    def __call__(self, q, k, v):
        if self.looking:
            logits = q @ k.mT / q.shape[3] ** 0.5
            self.largest = max(self.largest, float(logits.abs().max()))
        return attention(q, k, v)


def measured(qk_norm, lr, seed):
    """Held-out loss, worst late loss, largest logit of one training."""
    torch.manual_seed(seed)
    mix = Watched()
    net = DiT(SHAPE, 2, 32, 4, 4, 10, qk_norm=qk_norm, mix=mix)
    g, ema = torch.Generator().manual_seed(seed), train.Ema(net, 0.998)
    batches = data.batches(*train_set, size=32, generator=g)
    loss = lambda: velocity_loss(net, *next(batches), GRAIN, g)
    worst = 0.0
    try:
        for n, value in enumerate(
            train.fit(loss, net, steps=STEPS, lr=lr, ema=ema, progress=False)
        ):
            worst = max(worst, float(value)) if n >= STEPS // 2 else 0.0
            if (n + 1) % (STEPS // 10) == 0:
                look(net, mix)
    except ValueError:  # a loss that is no longer finite
        return [torch.inf, torch.inf, mix.largest]
    ema.copy_to(net)
    return [held_out(net, *test_set, GRAIN), worst, mix.largest]


@torch.no_grad()
def look(net, mix):
    """Note the logits on test digits at half noise."""
    x, y = test_set[0][:64], test_set[1][:64]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    mix.looking = True
    net(0.5 * (x + noise), torch.tensor(0.5), y)
    mix.looking = False


def main():
    print(f"{'rate':8s}{'QK-norm':>8s}{'held-out':>20s}{'worst':>20s}{'logit':>20s}")
    for lr in RATES:
        for qk_norm in (False, True):
            columns = [*zip(*(measured(qk_norm, lr, s) for s in range(SEEDS)), strict=True)]
            cells = [cell(c, places) for c, places in zip(columns, (4, 4, 2), strict=True)]
            name = f"{lr:<8g}{'with' if qk_norm else 'without':>8s}"
            print(f"{name}{cells[0]:>20s}{cells[1]:>20s}{cells[2]:>20s}", flush=True)
    nothing = lambda xt, t, label: torch.zeros_like(xt)
    print(f"{'the velocity 0':16s}{held_out(nothing, *test_set, GRAIN):20.4f}")


if __name__ == "__main__":
    main()
