"""Train the bundled checkpoints: python data/make_checkpoints.py [--seed 0] [--only NAME].

Each is trained on the train split of the digits in one thread, measured against the test split, and
written to --to (data/) with the command, the seed, the commit and what was measured.
"""

import argparse
import functools
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from minigen import (
    data,
    ddim,
    ddpm,
    flow,
    guidance,
    judge,
    latent,
    metrics,
    nets,
    paths,
    targets,
    train,
)
from minigen.transformer import MMDiT

HERE = Path(__file__).parent
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


def letters_reader(seed: int):
    """The judge of 32 × 32 capitals, trained on a pool of its own."""
    x, label, _ = data.glyphs(26_000, 32, characters=data.CAPITALS, generator=pool())
    torch.manual_seed(seed)
    net = reader(seed, nets.Reader((1, 32, 32), 26), x, label)
    x, label = data.letters("test")
    accuracy = metrics.accuracy(net, x, label)
    return net, {"test accuracy": str(metrics.share_with_error(accuracy, len(x)))}


def words_reader(seed: int):
    """The judge of words of two capitals, trained on a pool of its own with all pairs in it."""
    first = data.CHARACTERS.index("A")
    x, ids, _ = data.words(26_000, characters=data.CAPITALS, generator=pool())
    torch.manual_seed(seed)
    net = reader(seed, nets.Reader((1, 16, 32), 26, length=2, width=128), x, ids - first)
    fresh = torch.Generator().manual_seed(1)
    x, ids, _ = data.words(2_000, characters=data.CAPITALS, generator=fresh)
    right = (net(x).argmax(2) + first == ids).all(1).float().mean()
    return net, {"both letters right": str(metrics.share_with_error(right, len(x)))}


def pool() -> torch.Generator:
    """The seed of the readers' images: neither that of `data.letters` nor a sampler's."""
    return torch.Generator().manual_seed(2)


def reader(seed: int, net, x, label, steps: int = 1500):
    """As `digits_classifier`: cross-entropy with noise on the images, Adam, cosine rate.

    Then the features are scaled to a mean variance of 1, and the logits' weights by the inverse.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(x, label, size=128, generator=generator)

    def loss():
        x, label = next(batches)
        noisy = x + 0.3 * torch.randn(x.shape, generator=generator)
        return F.cross_entropy(net(noisy).flatten(0, -2), label.flatten())

    for _ in train.fit(loss, net, steps=steps, lr=train.cosine(1e-3, steps), progress=False):
        pass
    net.requires_grad_(False)
    std = net.features(x[:2_600]).var(0).mean().sqrt()
    net.features[-2].weight /= std
    net.features[-2].bias /= std
    net.logits.weight *= std
    return net


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


def letters_autoencoder(seed: int):
    """32 × 32 capitals as 8 × 8 latents of 4 channels, and back: squares and a small KL."""
    torch.manual_seed(seed)
    net = latent.ConvAutoencoder((1, 32, 32), channels=4, factor=4, width=16)
    start = time.process_time()
    compressed(net, data.letters("train")[0], seed, steps=1000)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    return net, cost | kept(net, *data.letters("test"))


def compressed(net, x, seed: int, steps: int, kl: float = 1e-3) -> None:
    """Train an autoencoder on images, to the average of its weights."""
    generator = torch.Generator().manual_seed(seed)
    batches, ema = data.batches(x, size=64, generator=generator), train.Ema(net, 0.99)

    def loss():
        return latent.loss(net, next(batches)[0], kl=kl, generator=generator).mean()

    rate = train.cosine(3e-3, steps, warmup=20)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)


@torch.no_grad()
def kept(net, x, label) -> dict[str, str]:
    """What is left of images that the autoencoder has not seen, and the scale of their latents."""
    mean, log_var = net.encode(x)
    again = net.decode(mean)
    decibels = psnr(again, x)
    error = float(decibels.std()) / len(x) ** 0.5
    (right, apart), (best, floor) = read(again, label), read(x, label)
    std = mean.transpose(0, 1).flatten(1).std(1)
    return {
        "PSNR": f"{float(decibels.mean()):.2f} ± {error:.2f} dB",
        "accuracy": f"{right:.3f}, {best:.3f} before",
        "frechet": f"{apart:.2f}, {floor:.2f} before",
        "standard deviations of the latents": ", ".join(f"{s:.2f}" for s in std),
        "noise of the encoder": f"{float((0.5 * log_var).exp().mean()):.3f}",
    }


def read(x, label) -> tuple[float, float]:
    """The first two of `judge.letters`: accuracy and Fréchet distance, without its neighbours."""
    net, seen = letters_seen()
    x = x.clamp(-judge.LIMIT, judge.LIMIT)
    apart = metrics.frechet(net.features(x), seen)
    return float(metrics.accuracy(net, x, label)), float(apart)


@functools.cache
def letters_seen():
    """The reader of letters, and its features of the training letters."""
    net = train.rebuild(data.checkpoint("letters_reader")).requires_grad_(False)
    return net, net.features(data.letters("train")[0])


def psnr(again, x) -> torch.Tensor:
    """The peak signal-to-noise ratio of each image in dB, (B,); a peak of 2 from −1 to 1."""
    return 10 * torch.log10(4 / (again - x).square().flatten(1).mean(1))


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


def quality(x) -> dict[str, str]:
    """The verdict on digits 0 to 9 in turn, mean and standard error over samples of 360."""
    runs = [judge.digits(part, torch.arange(SAMPLES) % 10) for part in x.split(SAMPLES)]
    values = torch.tensor(runs, dtype=torch.double)
    mean, error = values.mean(0).tolist(), (values.std(0) / len(runs) ** 0.5).tolist()
    rows = zip(judge.Verdict._fields, mean, error, strict=True)
    return {name: f"{value:.3f} ± {stderr:.3f}" for name, value, stderr in rows}


def words_mmdit(seed: int):
    """The velocity u(xt, t, caption) of rectified flow: words of two capitals, a fifth held out.

    20,000 words, rendered once, less those of the pairs that are `judge.unseen`.
    """
    words = torch.Generator().manual_seed(3)
    x, ids, _ = data.words(20_000, characters=data.CAPITALS, generator=words)
    seen = ~judge.unseen(ids)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = MMDiT((1, 16, 32), len(data.CHARACTERS), 2, patch=8, width=96, depth=3)
    batches = data.batches(x[seen], ids[seen], size=64, generator=generator)
    ema, steps, cosine = train.Ema(net, 0.998), 2750, train.cosine(2e-3, 4000, warmup=100)
    rate = lambda n: cosine(n) * min(1, (steps - n) / 500)  # the cosine's end made shorter

    def loss():
        x0, caption = next(batches)
        caption = guidance.drop_label(caption, 0.1, net.words, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        t = flow.uniform_times(len(x0), generator=generator)
        return flow.loss(net, x0, eps, t, caption).mean()

    start = time.process_time()
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    return net, cost | reading(net, seed)


def spelled(net, ids, scale: float, seed: int) -> torch.Tensor:
    """A word for each caption by 20 Euler steps, guided by `scale`."""
    path, generator = paths.Linear(), torch.Generator().manual_seed(1000 + seed)
    told = paths.denoiser(lambda xt, t, _: net(xt, t, ids), path, targets.velocity)
    free = paths.denoiser(lambda xt, t, _: net(xt, t), path, targets.velocity)
    xT = torch.randn(len(ids), *net.shape, generator=generator)
    *_, x = flow.euler(guidance.cfg(told, free, scale), path, xT, flow.grid(STEPS))
    return x


def reading(net, seed: int) -> dict[str, str]:
    """How often the judge reads what was asked: half the pairs seen, and each held out, twice.

    And as dummies, at scale 2, how often it reads the other order, or another's caption.
    """
    capitals = torch.arange(26) + data.CHARACTERS.index("A")
    pairs, found = torch.cartesian_prod(capitals, capitals), {}
    held = judge.unseen(pairs)
    for part, ids in {"seen": pairs[~held][::2], "held out": pairs[held].repeat(2, 1)}.items():
        got = {scale: judge.read(spelled(net, ids, scale, seed)) for scale in (1.0, 2.0, 3.0, 5.0)}
        for scale, letters in got.items():
            found[f"{part}, scale {scale:g}"] = share((letters == ids).all(1))
        for place, right in zip(("first", "second"), (got[2.0] == ids).T, strict=True):
            found[f"{part}, {place} letter"] = share(right)
        two = ids[:, 0] != ids[:, 1]
        found[f"{part}, other order"] = share((got[2.0] == ids.flip(1)).all(1)[two])
        found[f"{part}, another's caption"] = share((got[2.0] == ids.flip(0)).all(1))
    return found


def share(right: torch.Tensor) -> str:
    """The share of what is right, with its binomial error."""
    return str(metrics.share_with_error(right.double().mean(), len(right)))


def commit() -> str:
    """The commit that the code stands at, with a + where files differ from it."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--abbrev=12"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"


RECIPES = {  # in this order: the judges come first
    "digits_classifier": digits_classifier,
    "letters_reader": letters_reader,
    "words_reader": words_reader,
    "digits_eps": digits_eps,
    "digits_flow": digits_flow,
    "words_mmdit": words_mmdit,
    "letters_autoencoder": letters_autoencoder,
}


def main(arguments: list[str] | None = None) -> None:
    """Make all checkpoints, or the one named by --only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--to", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in [options.only] if options.only else RECIPES:
        start = time.process_time()
        net, measured = RECIPES[name](options.seed)
        about = {"seed": options.seed, "commit": commit(), "measured": measured}
        about["command"] = f"python data/make_checkpoints.py --only {name} --seed {options.seed}"
        about["torch"] = torch.__version__
        path = options.to / f"{name}.safetensors"
        train.save(path, net, **about)
        print(f"{path}  {time.process_time() - start:.0f} CPU-s", file=sys.stderr)
        for key, value in measured.items():
            print(f"    {key}: {value}")


if __name__ == "__main__":
    main()
