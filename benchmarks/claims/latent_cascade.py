"""Lecture 13: an upsampler learns on real small images and enlarges generated ones: what is lost?

Letters: a base net draws 16 × 16, an `UpsamplingNet` makes 32 × 32 of it. The upsampler is trained
on real letters and the same letters made small: "plain" as they are, "augmented" through noise,
mix(low, eps, s) on the linear path with s uniform on [0, 0.3], which it is not told. Then it
enlarges test letters made small, "real", and those of the base net, "drawn", each through noise of
level s. Velocity nets, DiT with patches of 4, trained apart for each seed; 10 Euler steps.

Accuracy and Fréchet of 520 by `judge.letters`; "gap": drawn less real, paired; "kept": RMS of the
result made small less the low image, of grey values in [-1, 1]. Mean ± standard error over
trainings. Dummies: the small images with each pixel doubled.
"""

import torch
import torch.nn.functional as F

from benchmarks.claims.transformer_nets import cell
from data.letter_recipes import lettered, sample_letters
from minigen import data, flow, judge, latent, paths, targets, train, transformer

SEEDS, BASE_STEPS, STEPS, BATCH, MOST, CALLS = 3, 500, 300, 64, 0.3, 10
LEVELS = (0.0, 0.1, 0.2)
PATH = paths.Linear()
TRAIN, TRAIN_LABEL = data.letters("train")
TEST, TEST_LABEL = data.letters("test")


def noisy(low, s, g):
    """low through noise of level s, () or (B,)."""
    return PATH.mix(low, torch.randn(low.shape, generator=g), s)


def base(seed):
    """520 letters of 16 × 16 from a net of its own."""
    torch.manual_seed(seed)
    net = transformer.DiT((1, 16, 16), patch=4, width=64, depth=3, classes=26)
    small = latent.shrink(TRAIN, 2)
    lettered(net, lambda rows, g: (small[rows], TRAIN_LABEL[rows]), seed, BASE_STEPS)
    return sample_letters(net, seed, steps=CALLS)


def upsampler(seed, most):
    """A net for x given its low image, which it saw through noise of level 0 to `most`."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    inner = transformer.DiT((2, 32, 32), patch=4, width=64, depth=3)
    net = latent.UpsamplingNet(inner, 2)
    batches, ema = data.batches(TRAIN, size=BATCH, generator=g), train.Ema(net, 0.99)

    def loss():
        x0 = next(batches)[0]
        low = noisy(latent.shrink(x0, 2), most * torch.rand(BATCH, generator=g), g)
        eps = torch.randn(x0.shape, generator=g)
        told = lambda xt, t, label: net(xt, t, low)
        return flow.loss(told, x0, eps, flow.uniform_times(BATCH, generator=g)).mean()

    rate = train.cosine(2e-3, STEPS, 50)
    for _ in train.fit(loss, net, steps=STEPS, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


@torch.no_grad()
def enlarged(net, low, s, seed):
    """Euler steps, each low image seen through noise of level s."""
    g = torch.Generator().manual_seed(1000 + seed)
    parts = []
    for part in low.split(260):
        seen = noisy(part, torch.tensor(s), g)
        told = lambda xt, t, label, seen=seen: net(xt, t, seen)
        denoise = paths.denoiser(told, PATH, targets.velocity)
        xT = torch.randn(len(part), 1, 32, 32, generator=g)
        *_, x = flow.euler(denoise, PATH, xT, flow.grid(CALLS))
        parts.append(x)
    return torch.cat(parts)


def row(x, label, low):
    """Accuracy, Fréchet, and how far x is from the low image when it is made small."""
    verdict = judge.letters(x, label)
    kept = (latent.shrink(x, 2) - low).square().mean().sqrt()
    return [verdict.accuracy, verdict.frechet, float(kept)]


def measured(seed):
    """(net, s) -> a row of real and one of drawn low images."""
    lows = {"real": (latent.shrink(TEST, 2), TEST_LABEL)}
    lows["drawn"] = (base(seed), torch.arange(520) % 26)
    double = {
        kind: row(F.interpolate(low, scale_factor=2), label, low)
        for kind, (low, label) in lows.items()
    }
    found = {("pixels doubled", 0.0): double}
    for name, most in (("plain", 0.0), ("augmented", MOST)):
        net = upsampler(seed, most)
        for s in LEVELS:
            found[name, s] = {
                kind: row(enlarged(net, low, s, seed), label, low)
                for kind, (low, label) in lows.items()
            }
    return found


def main() -> None:
    runs = [measured(seed) for seed in range(SEEDS)]
    print(f"mean ± standard error over {SEEDS} trainings\n")
    names = "accuracy, real", "drawn", "Fréchet, real", "drawn", "gap", "kept, real", "drawn"
    print(" " * 22 + "".join(f"{name:>16s}" for name in names))
    for name, s in runs[0]:
        real, drawn = (torch.tensor([r[name, s][k] for r in runs]) for k in ("real", "drawn"))
        cells = [cell(v[:, 0].tolist(), 3) for v in (real, drawn)]
        cells += [cell(v[:, 1].tolist(), 2) for v in (real, drawn, drawn - real)]
        cells += [cell(v[:, 2].tolist(), 3) for v in (real, drawn)]
        print(f"{name:15s}s = {s:.1f}" + "".join(f"{text:>16s}" for text in cells))
    floor = judge.letters.floor()
    print(f"test letters: accuracy {floor.accuracy:.3f}, Fréchet {floor.frechet:.2f}")


if __name__ == "__main__":
    main()
