"""Lecture 12: with equal CPU time, does a transformer draw better digits than a U-Net or an MLP?

Two DiTs, a U-Net and the course's ResMLP learn rectified flow's velocity for the same CPU seconds:
the one that has spent least takes the next step, so all run side by side on the same machine.
Batches of 64, EMA 0.998, a tenth of the labels dropped, grain of one grey level, a learning rate
with 50 steps of warm-up that falls to 0 as the time runs out. The rate is the better of two tries
for each net, 3e-3 and 1e-2, by the held-out loss after 8 s; sizes were not tuned, but that of the
DiT in patches of 2, which had six tries of 20 s before. Three trainings each; a sample is 360
digits, by 20 Euler steps on a grid shifted by ½. Dummies: one Gaussian a class, and copies of
training digits. "Held-out loss": of the velocity, on the test digits, per pixel; "ms": CPU time to
draw one digit.
"""

import math
import time

import torch

from benchmarks.claims.judge_controls import Controls, judged
from minigen import data, flow, guidance, judge, nets, paths, targets, train
from minigen.transformer import DiT

SEEDS, SECONDS, SHAPE = 3, 40, (1, 8, 8)
NETS = {  # name -> net, learning rate
    "ResMLP": (lambda: nets.ResMLP(SHAPE, 256, 4, 10), 3e-3),
    "U-Net": (lambda: nets.UNet(SHAPE, 16, (1, 2), 10), 1e-2),
    "DiT, patch 2": (lambda: DiT(SHAPE, 2, 64, 2, 4, 10), 1e-2),
    "DiT, patch 4": (lambda: DiT(SHAPE, 4, 128, 3, 4, 10), 1e-2),
}


def velocity_loss(net, x, y, grain, g):
    """Rectified flow's loss of one batch, grain on the data."""
    x = x + grain * (torch.rand(x.shape, generator=g) - 0.5)
    eps, t = torch.randn(x.shape, generator=g), flow.uniform_times(len(x), generator=g)
    return flow.loss(net, x, eps, t, y).mean()


class Training:
    """A net that learns, and knows how much CPU time it has spent."""

    def __init__(self, net, lr, x, y, *, grain, seed, seconds, size=64):
        self.net, self.lr, self.seconds, self.spent = net, lr, seconds, 0.0
        g = torch.Generator().manual_seed(seed)
        batches, self.ema = data.batches(x, y, size=size, generator=g), train.Ema(net, 0.998)

        def loss():
            x0, label = next(batches)
            label = guidance.drop_label(label, 0.1, net.classes, generator=g)
            return velocity_loss(net, x0, label, grain, g)

        self.steps = train.fit(loss, net, steps=10**6, lr=self.rate, ema=self.ema, progress=False)

    def rate(self, n):
        """Half a cosine down to 0, in CPU time."""
        share = min(1.0, self.spent / self.seconds)
        return self.lr * min(1, (n + 1) / 50) * 0.5 * (1 + math.cos(math.pi * share))

    def step(self):
        """One step, and its time."""
        start = time.process_time()
        next(self.steps)
        self.spent += time.process_time() - start


def race(trainings):
    """Train them all for their time, side by side; their nets then have the averaged weights."""
    while (next_one := min(trainings, key=lambda each: each.spent)).spent < next_one.seconds:
        next_one.step()
    for each in trainings:
        each.ema.copy_to(each.net)


def drawn(net, label, seed):
    """A sample of these labels, and the CPU time of each in milliseconds."""
    z = torch.randn(len(label), *net.shape, generator=torch.Generator().manual_seed(1000 + seed))
    start = time.process_time()
    denoise = paths.denoiser(net, paths.Linear(), targets.velocity, label)
    *_, x = flow.euler(denoise, paths.Linear(), z, flow.grid(20, shift=0.5))
    return x, 1000 * (time.process_time() - start) / len(label)


@torch.no_grad()
def held_out(net, x, y, grain):
    """The loss on data that no training saw, four times over, with the same noise for all nets."""
    g = torch.Generator().manual_seed(5)
    return float(velocity_loss(net, x.repeat(4, 1, 1, 1), y.repeat(4), grain, g))


def raced(recipes, split, verdict, label, *, grain, seed, seconds):
    """name -> (verdict, [steps, held-out loss, ms a sample]) of one training of each."""
    made = {}
    for name, (make, lr) in recipes.items():
        torch.manual_seed(seed)
        made[name] = Training(make(), lr, *split("train"), grain=grain, seed=seed, seconds=seconds)
    race([*made.values()])
    found = {}
    for name, each in made.items():
        x, cost = drawn(each.net, label, seed)
        rest = [each.steps.step, held_out(each.net, *split("test"), grain), cost]
        found[name] = verdict(x, label), rest
    return found


def cell(values, places):
    """Mean ± standard error over the trainings."""
    values = torch.tensor(values, dtype=torch.double)
    return (
        f"{float(values.mean()):.{places}f} ± {float(values.std()) / len(values) ** 0.5:.{places}f}"
    )


def costs(recipes, runs):
    """A line a net: parameters, steps, held-out loss, time to draw."""
    print(f"\n{'':14s}{'parameters':>12s}{'steps':>16s}{'held-out loss':>18s}{'ms':>14s}")
    for name, (make, _) in recipes.items():
        steps, loss, ms = zip(*(run[name][1] for run in runs), strict=True)
        size = sum(p.numel() for p in make().parameters())
        print(f"{name:14s}{size:12,d}{cell(steps, 0):>16s}{cell(loss, 4):>18s}{cell(ms, 2):>14s}")


def dummies(dataset, verdict):
    """Rows of samples that took no learning, five draws each."""
    controls = Controls(dataset)
    made = {"a Gaussian a class": controls.gaussians, "copies": controls.copies}
    return {name: judged(verdict, controls, draw) for name, draw in made.items()}


def main():
    label = torch.arange(10).repeat(36)
    settings = {"grain": 1 / 8, "seconds": SECONDS}
    runs = [
        raced(NETS, data.digits, judge.digits, label, seed=seed, **settings)
        for seed in range(SEEDS)
    ]
    rows = {name: [run[name][0] for run in runs] for name in NETS}
    print(judge.table(rows | dummies(data.digits, judge.digits)))
    costs(NETS, runs)


if __name__ == "__main__":
    main()
