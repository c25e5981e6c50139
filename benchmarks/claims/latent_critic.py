"""Lecture 13: what does a patch critic add to reconstructions, and is it there in the image?

Autoencoders of 32 × 32 letters (factor 4, 4 channels), trained by squares and a small KL, three
seeds. From each, three go on for equally many steps on equal batches: as before, and with the hinge
loss of a critic that sees 10 × 10 patches, at two weights (the critic learns in all three).
Rows, on 520 test letters: PSNR; edges, the mean squared step between neighbouring pixels, as a
share of the letters' own; what the reader reads right, and Fréchet, both of the reconstructions.
"In x": with y of the row and y₀ of the plain net, the correlation of y − y₀, what was added, with
x − y₀, what was missing: 1 if all that was added is there in the image, 0 if all is invented. For
y₀ = E[x | z], whatever another decoder adds to it is uncorrelated with x − y₀: 0.
The last two columns: the same nets on 520 digits and lower-case letters, which no net has seen.
Controls: an unsharp mask of the plain reconstructions, with edges as the stronger critic's; the
plain reconstructions blurred. Mean ± standard error over the seeds.
"""

import copy
import string

import torch
import torch.nn.functional as F
from torch import nn

from data.letter_recipes import compressed, psnr, read
from minigen import data, gan, latent, train, vae

SEEDS, START, MORE, WEIGHTS = 3, 200, 120, {"plain": 0.0, "critic 0.01": 0.01, "critic 0.05": 0.05}
OTHERS = string.digits + string.ascii_lowercase


def patch_critic():
    """(B, 1, 32, 32) -> one logit for each of 64 patches, (64 B,)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 1, 1), nn.Flatten(0),
    )  # fmt: skip


def go_on(net, x, seed, weight):
    """More steps of a copy of the net, with a critic of this weight: the average of its weights."""
    net, generator = copy.deepcopy(net), torch.Generator().manual_seed(100 + seed)
    torch.manual_seed(100 + seed)
    critic, ema, last = patch_critic(), train.Ema(net, 0.98), {}
    batches = data.batches(x, size=64, generator=generator)

    def loss():
        (real,) = next(batches)
        mean, log_var = net.encode(real)
        fake = net.decode(vae.reparameterize(mean, log_var, generator=generator))
        last.update(real=real, fake=fake.detach())
        kl = vae.kl_normal(mean, log_var).mean() / mean[0].numel()
        play = gan.hinge.generator(critic(fake)).mean()
        return (fake - real).square().mean() + 1e-3 * kl + weight * play

    def teach():
        return gan.hinge.critic(critic(last["real"]), critic(last["fake"])).mean()

    rate = train.cosine(1e-3, MORE)
    make = train.fit(loss, net, steps=MORE, lr=rate, ema=ema, progress=False)
    for _ in zip(make, train.fit(teach, critic, steps=MORE, lr=2e-3, progress=False), strict=True):
        pass
    ema.copy_to(net)
    return net


def edges(x):
    """The mean squared step between neighbouring pixels."""
    return x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()


def blurred(x):
    """The mean of 3 × 3 pixels; beyond the border there is paper."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), value=-1.0), 3, stride=1)


def unsharp(y, goal):
    """y and a multiple of what blurring takes from it, so that its edges are `goal`."""
    fine = y - blurred(y)
    low, high = 0.0, 10.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if edges(y + middle * fine) < goal else (low, middle)
    return y + low * fine


def row(y, plain, x, label):
    """PSNR, edges, accuracy, Fréchet, and how much of what y adds to the plain one is in x."""
    added, missing = y - plain, x - plain
    share = float(F.cosine_similarity(added.flatten(), missing.flatten(), dim=0))
    share = share if bool(added.any()) else float("nan")
    return [float(psnr(y, x).mean()), float(edges(y) / edges(x)), *read(y, label), share]


@torch.no_grad()
def measured(nets, x, label, others):
    """name -> the columns, for the nets of one seed."""
    again = {name: net.decode(net.encode(x)[0]) for name, net in nets.items()}
    plain, sharp = again["plain"], again["critic 0.05"]
    again["plain, unsharp mask"] = unsharp(plain, edges(sharp))
    again["plain, blurred"] = blurred(plain)
    found = {name: row(y, plain, x, label) for name, y in again.items()}
    strange = {name: net.decode(net.encode(others)[0]) for name, net in nets.items()}
    strange["plain, unsharp mask"] = unsharp(strange["plain"], edges(strange["critic 0.05"]))
    strange["plain, blurred"] = blurred(strange["plain"])
    for name, y in strange.items():
        found[name] += [float(psnr(y, others).mean()), float(edges(y) / edges(others))]
    return found


def main():
    x, (seen, label) = data.letters("train")[0], data.letters("test")
    generator, runs = torch.Generator().manual_seed(3), []
    others = data.glyphs(520, 32, characters=OTHERS, generator=generator)[0]
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = latent.ConvAutoencoder((1, 32, 32), channels=4, factor=4, width=8)
        compressed(net, x, seed, steps=START)
        nets = {name: go_on(net, x, seed, weight) for name, weight in WEIGHTS.items()}
        runs.append(measured(nets, seen, label, others))
    heads = "PSNR", "edges", "accuracy", "Fréchet", "in x", "PSNR, other", "edges, other"
    print(" " * 20 + "".join(f"{head:>16s}" for head in heads))
    for name in runs[0]:
        values = torch.tensor([run[name] for run in runs])
        mean, error = values.mean(0).tolist(), (values.std(0) / SEEDS**0.5).tolist()
        cells = [
            f"{m:.{k}f} ± {e:.{k}f}" if m == m else "–"
            for m, e, k in zip(mean, error, (2, 3, 3, 2, 2, 2, 3), strict=True)
        ]
        print(f"{name:20s}" + "".join(f"{cell:>16s}" for cell in cells))
    accuracy, frechet = read(seen, label)
    print(f"{'test letters':20s}{'':32s}{accuracy:>16.3f}{frechet:>16.2f}")


if __name__ == "__main__":
    main()
