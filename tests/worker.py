"""A training run that the tests kill, interrupt, take up again, and start on several processes.

python worker.py OUT STEPS [CHECKPOINT [PAUSE [PART]]] trains a small net in float64 on a joint
batch of which each process takes its part, and writes losses, weights and average of each
run to OUT, or to OUT.n on process n > 0.
STEPS such as 20,30 means: a run of 20 steps, then with a new net the same call with 30.
"""

import json
import sys
import time
from pathlib import Path

import torch

from minigen import nets, train


def main(out, steps, checkpoint=None, pause=0, part="shard"):
    ends = [run(int(n), checkpoint or None, float(pause), part) for n in str(steps).split(",")]
    rank = train.parallel.rank()
    Path(f"{out}.{rank}" if rank else out).write_text(json.dumps(ends))


def run(steps, checkpoint, pause, part):
    torch.manual_seed(1 + train.parallel.rank())  # fit makes all start like process 0
    net = nets.MLP(2, hidden=16, depth=2, classes=3).double()
    generator = torch.Generator().manual_seed(0)
    take = train.shard if part == "shard" else lambda *x: x

    def loss():
        x0 = 3 + 2 * torch.randn(12, 2, generator=generator, dtype=torch.float64)
        t = torch.rand(12, generator=generator, dtype=torch.float64)
        x0, t, label = take(x0, t, torch.randint(3, (12,), generator=generator))
        time.sleep(pause)
        return (net(x0, t, label) - x0).square().mean()

    ema = train.Ema(net, 0.9)
    keep = {"ema": ema, "generator": generator, "checkpoint": checkpoint, "every": 10}
    losses = []
    for value in train.fit(loss, net, steps=steps, lr=1e-2, progress=False, **keep):
        losses.append(float(value))
        print(len(losses), flush=True)
    weights = torch.cat([p.flatten() for p in net.parameters()]).tolist()
    average = torch.cat([p.flatten() for p in ema.averages]).tolist()
    return {"losses": losses, "weights": weights, "average": average}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
