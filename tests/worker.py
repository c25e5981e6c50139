"""A training run that the tests kill, interrupt, take up again, and start on several processes.

python worker.py OUT STEPS [CHECKPOINT [PAUSE [PART [KIND]]]] trains small nets in float64 on joint
batches of which each process takes its part, and writes losses, weights and average of each run to
OUT, or to OUT.n on process n > 0. KIND is `one` net, by train.fit, or a `game` of two, by
gan.alternate, or `part`: beside the net a layer that only every other loss depends on, and a batch
norm that none does, or `own`: the same with momentum and clipped gradients. STEPS such as 20,30
means: a run of 20 steps, then with new nets the same call with 30.
"""

import itertools
import json
import signal
import sys
import time
from pathlib import Path

import torch

from minigen import data, gan, nets, train
from minigen.train import processes

F64 = torch.float64


def main(out, steps, checkpoint=None, pause=0, part="shard", kind="one"):
    ends = [
        run(int(n), checkpoint or None, float(pause), part, kind) for n in f"{steps}".split(",")
    ]
    rank = processes.rank()
    Path(f"{out}.{rank}" if rank else out).write_text(json.dumps(ends))


def run(steps, checkpoint, pause, part, kind):
    torch.manual_seed(1 + processes.rank())  # the loop makes all start like process 0
    generator = torch.Generator().manual_seed(0)
    take = train.shard if part == "shard" else lambda *x: x[0] if len(x) == 1 else x
    net = nets.MLP(2, hidden=16, depth=2, classes=3).to(F64)
    critic = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Linear(8, 1), torch.nn.Flatten(0))
    ema = train.Ema(net, 0.9)
    keep = {"ema": ema, "generator": generator, "checkpoint": checkpoint, "every": 10}
    keep |= {"steps": steps, "lr": 1e-2, "progress": False}

    points = 3 + 2 * torch.randn(101, 2, generator=torch.Generator().manual_seed(7), dtype=F64)
    stream = data.batches(points, size=12, generator=generator)
    norm, head, count = (
        torch.nn.BatchNorm1d(2).to(F64),
        torch.nn.Linear(2, 2).to(F64),
        itertools.count(),
    )

    def real():
        time.sleep(pause)
        return take(next(stream)[0])

    def loss():
        t = torch.rand(12, generator=generator, dtype=F64)
        t, label = take(t, torch.randint(3, (12,), generator=generator))
        x0 = real()
        return (net(x0, t, label) - x0).square().mean()

    def loss_with_parts():
        norm(x := real())
        return loss() + (head(x).square().mean() if next(count) % 2 == 0 else 0)

    if kind == "one":
        training = train.fit(loss, net, **keep)
    elif kind in ("part", "own"):
        every = torch.nn.ModuleList([net, norm, head])
        sgd = torch.optim.SGD(every.parameters(), momentum=0.9)
        keep |= {"optimizer": sgd, "clip": 1.0} if kind == "own" else {}
        training = train.fit(loss_with_parts, every, **keep)
    else:
        torch.nn.utils.parametrizations.spectral_norm(critic.to(F64)[1])  # with buffers, too
        latents = lambda n: take(torch.randn(12, 2, generator=generator, dtype=F64))
        training = gan.alternate(
            Player(net), critic, gan.nonsaturating, real, latents=latents, critic_steps=2,
            penalty=lambda critic, x, fake: 0.1 * gan.r1(critic, x), **keep,
        )  # fmt: skip
    losses = []
    for value in training:
        losses.append([float(v) for v in value] if kind == "game" else float(value))
        print(len(losses), flush=True)
    players = {"one": [net], "game": [net, critic]}.get(kind, [net, norm, head])
    weights = torch.cat([p.flatten() for player in players for p in player.parameters()]).tolist()
    average = torch.cat([p.flatten() for p in ema.averages]).tolist()
    seen = norm.running_mean.tolist()
    return {"losses": losses, "weights": weights, "average": average, "seen": seen}


class Player(torch.nn.Module):
    """The net at one time: latents (n, 2) -> points (n, 2)."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, z):
        return self.net(z, torch.tensor(0.5, dtype=F64))


if __name__ == "__main__":
    # a script's job in the background inherits that an interrupt is ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    main(*sys.argv[1:])
