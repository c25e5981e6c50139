"""Lecture 14: how many bits for which quality? PCA, one codebook, several in turn, several scales.

Above, without a network: the mean training letter; the nearest training letter; PCA of the training
letters, each coefficient by the Lloyd–Max levels of a normal, one bit after another to where it
lowers the squared error most. Then networks, three seeds of each: the autoencoder of `vq_dead`
(8 × 8 latents of 4 values), k-means++ at step 60, revival, 300 steps of 64 letters. "VQ": one id a
vector. "Residual": in turn, of which the first ones are decoded; trained with 2 turns, or with 4.
"Multi-scale": 1, 2, 4 and 8 squared. Below, one training each of 4,500 steps, at twice the
width and with 8 values: the bundled `letters_vq` and `letters_scales`. Columns: bits of the ids of
a letter, counted without a prior (N log₂ K); on 520 test letters PSNR, accuracy and Fréchet
distance of what is decoded.
"""

import math

import torch

from benchmarks.claims.vq_dead import SEEDS, letters_vqvae, line, looks, taught
from minigen import data, train

STEPS, WIDTH = 300, 34
HEADS, PLACES = ("bits", "PSNR, dB", "accuracy", "Fréchet"), (0, 2, 3, 1)


def lloyd_max(levels):
    """The levels of least squared error for N(0, 1), and that error."""
    normal, at = torch.distributions.Normal(0.0, 1.0), torch.linspace(-2, 2, levels + 2)[1:-1]
    at, end = at.double(), torch.tensor([math.inf], dtype=torch.double)
    for _ in range(3000):
        edges = torch.cat([-end, (at[1:] + at[:-1]) / 2, end])
        mass = normal.cdf(edges).diff()
        at = -torch.exp(-edges.square() / 2).diff() / (math.sqrt(2 * math.pi) * mass)
    return at, 1 - float(mass @ at.square())


def pca(x, seen, budgets):
    """bits -> `seen`, from the coefficients of x's principal components in so many bits."""
    flat, mean = x.flatten(1).double(), x.flatten(1).double().mean(0)
    variance, axes = torch.linalg.eigh((flat - mean).T.cov())
    std = variance.clamp(min=0).sqrt()
    scaled = (seen.flatten(1).double() - mean) @ axes / std.clamp(min=1e-9)
    levels, errors = zip(*(lloyd_max(2**b) for b in range(8)), strict=True)
    gain, bits, found = -torch.tensor(errors).diff(), torch.zeros(len(std), dtype=torch.long), {}
    for n in range(1, max(budgets) + 1):
        bits[int((std.square() * gain[bits]).argmax())] += 1
        if n in budgets:
            each = zip(scaled.T, bits, strict=True)
            near = [levels[b][(z[:, None] - levels[b]).abs().argmin(1)] for z, b in each]
            again = mean + (torch.stack(near, 1) * std) @ axes.T
            found[n] = again.float().reshape(seen.shape)
    return found


def nearest(x, seen):
    """The training letter nearest to each of `seen`."""
    return x[torch.cdist(seen.flatten(1), x.flatten(1)).argmin(1)]


@torch.no_grad()
def measured(net, codes, x, label):
    """The numbers for the first turn, the first two, … of a net."""
    ids, found = net.encode(x), []
    if isinstance(ids, torch.Tensor):
        return [[ids[0].numel() * math.log2(codes), *looks(net.decode(ids), x, label)]]
    for k in range(1, len(ids) + 1):
        bits = sum(i[0].numel() for i in ids[:k]) * math.log2(codes)
        found.append([bits, *looks(net.decode(ids[:k]), x, label)])
    return found


def trained(codes, **how):
    """The net of this quantiser for each seed."""
    for seed in range(SEEDS):
        yield taught(letters_vqvae(seed, codes, **how), seed, warm=60, steps=STEPS)


def main():
    (x, _), (seen, label) = data.letters("train"), data.letters("test")
    print(" " * WIDTH + "".join(f"{head:>16s}" for head in HEADS))
    still = {"the mean letter": (0, x.mean(0).expand_as(seen))}
    still |= {"the nearest training letter": (math.log2(len(x)), nearest(x, seen))}
    made = pca(x, seen, (16, 64, 128, 256, 384, 512))
    still |= {f"PCA, {bits} bits": (bits, again) for bits, again in made.items()}
    for name, (bits, again) in still.items():
        line(name, [[bits, *looks(again, seen, label)]], PLACES, WIDTH)
    scales = {"scales": (1, 2, 4, 8)}
    nets = {
        "VQ, 16 codes": (16, trained(16)),
        "VQ, 256 codes": (256, trained(256)),
        "Residual, 2 × 16 codes": (16, trained(16, depth=2)),
        "Residual, 4 × 16 codes": (16, trained(16, depth=4)),
        "Multi-scale, 64 codes": (64, trained(64, **scales)),
    }
    for name, codes in (("letters_vq", 128), ("letters_scales", 64)):
        nets[name] = codes, [train.rebuild(data.checkpoint(name)).requires_grad_(False)]
    for name, (codes, each) in nets.items():
        table = [*zip(*(measured(net, codes, seen, label) for net in each), strict=True)]
        for k, runs in enumerate(table, 1):
            line(f"{name}, first {k}" if len(table) > 1 else name, [*runs], PLACES, WIDTH)


if __name__ == "__main__":
    main()
