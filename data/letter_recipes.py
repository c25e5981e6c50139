"""How letters were compressed, and how the networks on their latents were trained."""

import time

import torch

from data.digit_recipes import RUNS, STEPS, quality
from minigen import data, flow, guidance, judge, latent, paths, targets, train, transformer
from minigen.vae import reparameterize


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
    """The first two of `judge.letters`: accuracy and Fréchet distance."""
    return judge.letters(x, label)[:2]


def psnr(again, x) -> torch.Tensor:
    """The peak signal-to-noise ratio of each image in dB, (B,); a peak of 2 from −1 to 1."""
    return 10 * torch.log10(4 / (again - x).square().flatten(1).mean(1))


def letters_latent(seed: int):
    """The velocity u(zt, t, letter) of `letters_autoencoder`'s latents, scaled to variance 1."""
    torch.manual_seed(seed)
    space = LetterLatents()
    net = transformer.DiT(space.shape, patch=2, width=96, depth=4, classes=26)
    start = time.process_time()
    lettered(net, space.draw, seed, steps=3000)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    x = space.decode(sample_letters(net, seed, RUNS * 520))
    return net, cost | quality(x, judge.letters, size=520, classes=26)


class LetterLatents:
    """The letters as `letters_autoencoder` encodes them: draws of variance 1, and images again."""

    def __init__(self):
        net = train.rebuild(data.checkpoint("letters_autoencoder")).requires_grad_(False)
        x, self.label = data.letters("train")
        codes = zip(*(net.encode(part) for part in x.split(260)), strict=True)
        self.net, (self.mean, self.log_var) = net, (torch.cat(part) for part in codes)
        self.scale, self.shape = latent.Standard.fit(self.mean), self.mean.shape[1:]

    def draw(self, rows, generator):
        """z ~ q(z | x) of these letters, scaled."""
        z = reparameterize(self.mean[rows], self.log_var[rows], generator=generator)
        return self.scale.to(z), self.label[rows]

    def decode(self, z):
        """The images that scaled latents stand for."""
        parts = self.scale.back(z).split(260)
        return torch.cat([self.net.decode(part) for part in parts])


def lettered(net, draw, seed: int, steps: int, rate: float = 2e-3) -> None:
    """Train a velocity net on the letters draw(rows, generator) -> (x0, label), to its average."""
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(torch.arange(5200), size=128, generator=generator)
    ema = train.Ema(net, 0.998)

    def loss():
        x0, label = draw(next(batches)[0], generator)
        label = guidance.drop_label(label, 0.1, net.classes, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        t = flow.uniform_times(len(x0), generator=generator)
        return flow.loss(net, x0, eps, t, label).mean()

    rates = train.cosine(rate, steps, warmup=min(100, steps // 5))
    for _ in train.fit(loss, net, steps=steps, lr=rates, ema=ema, progress=False):
        pass
    ema.copy_to(net)


def sample_letters(net, seed: int, n: int = 520, steps: int = STEPS) -> torch.Tensor:
    """n letters, A to Z in turn, by Euler steps of a velocity net from a seeded start."""
    eps = torch.randn(n, *net.shape, generator=torch.Generator().manual_seed(1000 + seed))
    parts = []
    for xT, label in zip(eps.split(260), (torch.arange(n) % 26).split(260), strict=True):
        denoise = paths.denoiser(net, paths.Linear(), targets.velocity, label)
        *_, x = flow.euler(denoise, paths.Linear(), xT, flow.grid(steps))
        parts.append(x)
    return torch.cat(parts)
