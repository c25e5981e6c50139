"""How the one-step generator of digits was made: what `make_checkpoints` runs, and claims too."""

import time

import torch

from data.digit_recipes import RUNS, SAMPLES, quality
from minigen import data, distill, flow, nets, paths, targets, train

KNOTS = flow.grid(16, shift=0.5)  # of the teacher's trajectories: shorter steps near the data


def teacher() -> nets.ResMLP:
    """The bundled velocity of rectified flow, given the digit."""
    return train.rebuild(data.checkpoint("digits_flow")).requires_grad_(False)


def trajectories(net, n: int, generator, ts=KNOTS, part: int = 1024):
    """States (n, N, 1, 8, 8) of Heun's method on a grid, from noise, and their random digits."""
    label = torch.randint(10, (n,), generator=generator)
    eps = torch.randn(n, 1, 8, 8, generator=generator)
    walks = []
    for x, y in zip(eps.split(part), label.split(part), strict=True):
        denoise = paths.denoiser(net, paths.Linear(), targets.velocity, y)
        walks.append(torch.stack([x, *flow.heun(denoise, paths.Linear(), x, ts)], 1))
    return torch.cat(walks), label


def way_loss(net, states, label, ts, generator):
    """‖u(x_t, t, s, label) − (x_t − x_s)/(t − s)‖²/D: half of the ways are whole, from 1 to 0.

    The others join any two knots of the trajectory. Its least value is 0, at the exact flow map.
    """
    n, last = len(states), len(ts) - 1
    i = torch.randint(last, (n,), generator=generator)
    j = i + 1 + (torch.rand(n, generator=generator) * (last - i)).long()
    whole = torch.rand(n, generator=generator) < 0.5
    i, j = i.where(~whole, 0), j.where(~whole, last)
    row = torch.arange(n)
    x, y, t, s = states[row, i], states[row, j], ts[i], ts[j]
    slope = (x - y) / (t - s)[:, None, None, None]
    return (net(x, t, s, label) - slope).square().mean()


def student(old: nets.ResMLP) -> distill.TwoTimes:
    """A net of two times that answers as the velocity `old`, whatever the way, before training."""
    net = distill.TwoTimes((1, 8, 8), hidden=256, depth=4, classes=10)
    net.load_state_dict(old.state_dict(), strict=False)
    return net


def digits_onestep(seed: int, *, steps: int = 6000, pool: int = 24_576):
    """The mean velocity u(xt, t, s, digit), fitted to the ways of the bundled flow's trajectories.

    The flow map by regression, on trajectories that are computed once.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    start, ts, old = time.process_time(), KNOTS.float(), teacher()
    batches = data.batches(*trajectories(old, pool, generator), size=256, generator=generator)
    net = student(old)
    ema = train.Ema(net, 0.998)
    loss = lambda: way_loss(net, *next(batches), ts, generator)
    rate = train.cosine(2e-3, steps, warmup=100)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    found = {
        "training": f"{time.process_time() - start:.0f} s of one CPU core, trajectories and all"
    }
    found |= quality(draw(net, seed))
    for calls in (2, 4):
        more = quality(draw(net, seed, calls))
        found |= {f"{name}, {calls} calls": more[name] for name in ("frechet", "recall")}
    return net, found


def draw(net, seed: int, calls: int = 1, n: int = RUNS * SAMPLES, shift=0.5) -> torch.Tensor:
    """n digits, 0 to 9 in turn, by that many jumps from a seeded start, on flow.grid's times."""
    label = torch.arange(n) % 10
    xT = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1000 + seed))
    *_, x = distill.jump(lambda x, t, s: net(x, t, s, label), xT, flow.grid(calls, shift))
    return x
