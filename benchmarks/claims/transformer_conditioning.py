"""Lecture 12: how should a transformer hear a caption? Four ways, equal in weights and CPU time.

Words of two of ten capitals in two fonts, 16 × 32 in patches of 8. `judge.unseen` holds out a
fifth of the 100 pairs, two for each letter in each place. Each way is given 14 s of CPU time at
one learning rate; they take their steps in turn, so that a busy machine is busy for all.

  adaLN        the two tokens, by a matrix for each place, are added to the time's row
  in context   the two tokens stand in the image's stream, in the same weights
  cross        the image asks the tokens in each block (CrossDiT)
  joint        two streams with weights of their own, attended together (MMDiT)

The widths are such that the weights agree within 5 %: joint has two sets in a block, so narrow
ones. Loss: of the velocity on fresh words, at eight times, per pixel. Letters: how often
`judge.read` reads both, of 96 captions seen and 96 held out, in 20 Euler steps without guidance.
Dummy, which should be near 0: the same reading against the letters in the other order (words of
two different ones). Mean ± standard error over three trainings.

Some 300 steps are too few to write by: only the losses tell the four apart, and they say who learns
sooner at this rate, not who ends better.
"""

import time

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.claims.transformer_nets import cell
from minigen import data, flow, judge, paths, targets, train
from minigen.transformer import Block, CrossDiT, MMDiT, attention
from minigen.transformer.words import Captioned

SEEDS, SECONDS, BATCH, RATE, N = 3, 14, 32, 2e-3, 96
LETTERS, FONTS, SHAPE = "AEHKLMSTVX", 2, (1, 16, 32)


class Stream(Captioned):
    """One stream of `DiT`'s blocks, and a caption of two tokens."""

    def __init__(self, width):
        super().__init__(SHAPE, len(data.CHARACTERS), 2, 8, width, 3, 4, None, 1)
        self.blocks = nn.ModuleList(Block(width, 4, True, attention) for _ in range(3))

    def streamed(self, h, rows):
        for block in self.blocks:
            h = block(h, rows)
        return h


class Pooled(Stream):
    def __init__(self, width):
        super().__init__(width)
        self.pool = nn.Linear(2 * width, width)

    def body(self, xt, rows, c):
        rows = F.silu(rows + self.pool(c.flatten(1)))
        return self.image(self.streamed(self.tokens(xt), rows), rows)


class InContext(Stream):
    def body(self, xt, rows, c):
        rows, h = F.silu(rows), self.tokens(xt)
        both = self.streamed(torch.cat([h, c], 1), rows)
        return self.image(both[:, : h.shape[1]], rows)


def made(kind, width):
    return lambda: kind(SHAPE, len(data.CHARACTERS), 2, 8, width, 3, 4)


WAYS = {
    "adaLN": lambda: Pooled(88),
    "in context": lambda: InContext(88),
    "cross": made(CrossDiT, 76),
    "joint": made(MMDiT, 68),
}


class Training:
    """A net, its steps to come, and the CPU time that those taken have cost."""

    def __init__(self, make, x, ids, seed):
        torch.manual_seed(seed)
        self.net, self.spent, self.count = make(), 0.0, 0
        g = torch.Generator().manual_seed(seed)
        batches, self.ema = data.batches(x, ids, size=BATCH, generator=g), train.Ema(self.net, 0.98)

        def loss():
            x0, ids = next(batches)
            eps, t = torch.randn(x0.shape, generator=g), flow.uniform_times(BATCH, generator=g)
            return flow.loss(self.net, x0, eps, t, ids).mean()

        at = train.cosine(RATE, 1000, warmup=50)
        rate = lambda n: at(int(1000 * self.spent / SECONDS))
        given = {"lr": rate, "clip": 1.0, "ema": self.ema, "progress": False}
        self.steps = train.fit(loss, self.net, steps=10**6, **given)

    def step(self):
        before = time.process_time()
        next(self.steps)
        self.spent, self.count = self.spent + time.process_time() - before, self.count + 1


def words(n, seed):
    """Of n words those in these fonts: (x, ids) of pairs to train on, and of pairs held out."""
    g = torch.Generator().manual_seed(seed)
    x, ids, font = data.words(n, characters=LETTERS, generator=g)
    held, kept = judge.unseen(ids), font < FONTS
    return tuple((x[part & kept], ids[part & kept]) for part in (~held, held))


def right(x, ids):
    return float((judge.read(x) == ids).all(1).double().mean())


def measured(net, fresh, seed):
    """The loss; how often both letters are right, and how often right in the other order."""
    x0, ids = (k[:N] for k in fresh)
    g = torch.Generator().manual_seed(1000 + seed)
    eps = torch.randn(x0.shape, generator=g)
    with torch.no_grad():
        loss = [flow.loss(net, x0, eps, t, ids).mean() for t in (torch.arange(8) + 0.5) / 8]
    told = lambda xt, t, _: net(xt, t, ids)
    denoise = paths.denoiser(told, paths.Linear(), targets.velocity)
    *_, x = flow.euler(denoise, paths.Linear(), eps, flow.grid(20))
    two = ids[:, 0] != ids[:, 1]
    return [float(sum(loss)) / 8, right(x, ids), right(x[two], ids[two].flip(1))]


def main():
    (x, ids), _ = words(20_000, 10)
    fresh, found = dict(zip(("seen", "held out"), words(6_000, 11), strict=True)), {}
    for seed in range(SEEDS):
        runs = {name: Training(make, x, ids, seed) for name, make in WAYS.items()}
        while (run := min(runs.values(), key=lambda run: run.spent)).spent < SECONDS:
            run.step()
        for name, run in runs.items():
            run.ema.copy_to(run.net)
            row = [k for part in fresh.values() for k in measured(run.net, part, seed)]
            found.setdefault(name, []).append([*row, run.count])
    names = [k for part in fresh for k in (f"{part}: loss", "letters", "other order")]
    print(f"{'':12s}{'weights':>9s}{'steps':>7s}" + "".join(f"{name:>16s}" for name in names))
    for name, rows in found.items():
        *columns, steps = zip(*rows, strict=True)
        weights = sum(p.numel() for p in WAYS[name]().parameters())
        line = f"{name:12s}{weights:9,d}{sum(steps) / SEEDS:7.0f}"
        print(line + "".join(f"{cell(column, 3):>16s}" for column in columns))
    print("\nrenderings read right: " + ", ".join(f"{k} {right(*v):.3f}" for k, v in fresh.items()))


if __name__ == "__main__":
    main()
