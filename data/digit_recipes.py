"""How the networks for digits were trained: what `make_checkpoints` runs, and claims run again."""

import functools
import time

import torch
from torch.nn import functional as F

from minigen import data, ddim, ddpm, flow, guidance, judge, metrics, nets, paths, targets, train

RUNS, SAMPLES, STEPS = 5, 360, 20  # a sample is as large as the test set


def digits_classifier(seed: int):
    """The held-out judge: cross-entropy with a little noise on the images, Adam, cosine rate."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = nets.DigitsClassifier()
    batches = data.batches(*data.digits("train"), size=128, generator=generator)

    def loss():
        x, label = next(batches)
        noisy = x + 0.3 * torch.randn(x.shape, generator=generator)
        return F.cross_entropy(net(noisy), label)

    steps = 800
    for _ in train.fit(loss, net, steps=steps, lr=train.cosine(1e-3, steps), progress=False):
        pass
    x, label = data.digits("test")
    accuracy = metrics.accuracy(net, x, label)
    return net, {"test accuracy": str(metrics.share_with_error(accuracy, len(x)))}


@functools.cache
def digits_path() -> paths.DDPM:
    """The chain that `digits_eps` was trained on."""
    return paths.DDPM(ddpm.quadratic_betas(1000))


def eps_loss(net, x0, label, generator):
    """Lecture 3's simple loss, on the knots of that chain."""
    path = digits_path()
    t = torch.randint(1, path.T + 1, (len(x0),), generator=generator) / path.T
    eps = torch.randn(x0.shape, generator=generator)
    return ddpm.simple_loss(net, path, x0, t, eps, label).mean()


def digits_eps(seed: int):
    """ε(xt, t, digit) on the chain's knots."""
    net, cost = labelled(seed, eps_loss, 2600)
    return net, cost | quality(sample(net, digits_path(), seed))


def digits_flow(seed: int):
    """The velocity u(xt, t, digit) of rectified flow, at uniform times.

    Noise of one grey level's width on the data keeps the net from knowing each training digit by
    heart; its samples have that grain too.
    """

    def loss(net, x0, label, generator):
        x0 = x0 + (torch.rand(x0.shape, generator=generator) - 0.5) / 8
        eps = torch.randn(x0.shape, generator=generator)
        t = flow.uniform_times(len(x0), generator=generator)
        return flow.loss(net, x0, eps, t, label).mean()

    net, cost = labelled(seed, loss, 1500)
    ts = flow.grid(STEPS, shift=0.5)  # shorter steps near the data
    return net, cost | quality(sample(net, paths.Linear(), seed, target=targets.velocity, ts=ts))


def labelled(seed: int, loss, steps: int, drop: float = 0.1):
    """A net for labelled digits, a share `drop` of them left out for guidance, and its cost."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    batches = data.batches(*data.digits("train"), size=256, generator=generator)
    ema = train.Ema(net, 0.998)

    def batch_loss():
        x0, label = next(batches)
        label = guidance.drop_label(label, drop, net.classes, generator=generator)
        return loss(net, x0, label, generator)

    rate = train.cosine(3e-3, steps, warmup=100)
    start = time.process_time()
    for _ in train.fit(batch_loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net, {"training": f"{time.process_time() - start:.0f} s of one CPU core"}


def sample(net, path, seed: int, *, n=RUNS * SAMPLES, target=targets.eps, ts=None) -> torch.Tensor:
    """n digits, 0 to 9 in turn, by deterministic DDIM steps from a seeded start."""
    xT = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1000 + seed))
    denoise = paths.denoiser(net, path, target, torch.arange(n) % 10)
    ts = torch.linspace(1, 0, STEPS + 1) if ts is None else ts
    *_, x = ddim.sample(denoise, path, xT, ts)
    return x


def quality(x, judged=judge.digits, size=SAMPLES, classes=10) -> dict[str, str]:
    """The verdict on all labels in turn, mean and standard error over samples of that size."""
    runs = [judged(part, torch.arange(size) % classes) for part in x.split(size)]
    values = torch.tensor(runs, dtype=torch.double)
    mean, error = values.mean(0).tolist(), (values.std(0) / len(runs) ** 0.5).tolist()
    rows = zip(judge.Verdict._fields, mean, error, strict=True)
    return {name: f"{value:.3f} ± {stderr:.3f}" for name, value, stderr in rows}
