"""Lecture 14: what do the coarse codes hold? Those of one letter with the fine codes of another.

Two hierarchies of codes for the autoencoder of `vq_dead` (8 × 8 latents of 8 values, codebooks of
64, squares + codebook + ¼ commitment, k-means++ at step 60, revival, 300 steps of 64 letters, three
seeds). Multi-scale: one codebook at 1, 2, 4 and 8 squared; once as usual, once "with cuts": half of
each batch is decoded from its first 1, 2, 3 or 4 scales, an eighth each. VQ-VAE-2: a top of 2 × 2
codes, and a bottom of 8 × 8 that sees what the top says; the decoder sees both; the bottom has 64
codes or 2. Columns, on 520 test letters: bits of the first levels, as many as the row says;
PSNR and accuracy of what these alone give (the bottom of VQ-VAE-2 is then 0; of no level, the mean
letter). Then these levels of a letter A with the other levels of another letter B: the share read
as A, as B and, as a dummy, as a third letter C that no code comes from. Controls: nothing is taken
from A; all is.
"""

import math

import torch
from torch import nn

from benchmarks.claims.vq_dead import SEEDS, line, taught
from data.letter_recipes import psnr
from minigen import data, metrics, train, vq

STEPS, WIDTH, CODES = 300, 8, 64
HEADS = "bits", "PSNR, dB", "accuracy", "read as A", "as B", "as C"
PLACES = 0, 2, 3, 3, 3, 3
READER = train.rebuild(data.checkpoint("letters_reader")).requires_grad_(False)


class Cuts(vq.ConvVQVAE):
    """Half of each batch is decoded from some scales only, an equal part from each number."""

    def loss(self, x):
        z = self.encoder(x)
        part, half = self.quantizer(z), len(x) // 2
        seen = [part.z] if part.ids is None else [part.z[:half]]
        if part.ids is not None:
            rest = zip(*(each[half:].chunk(4) for each in (z, *part.ids)), strict=True)
            for k, (some, *ids) in enumerate(rest, 1):
                seen.append(some + (self.quantizer.decode(ids[:k]) - some).detach())
        error = (self.decoder(torch.cat(seen)) - x).square().flatten(1).mean(1)
        return vq.Parts(error, part.codebook, part.commitment)


class TwoLevels(nn.Module):
    """The quantiser of a VQ-VAE-2: h (B, w, 8, 8) -> a top of 2 × 2 codes and a bottom of 8 × 8.

    The bottom's z is made of h and of the top, ẑ of both, quantised.
    """

    def __init__(self, bottom):
        super().__init__()
        w, silu, conv = WIDTH, nn.SiLU, nn.Conv2d
        self.down = nn.Sequential(conv(w, 32, 4, 2, 1), silu(), conv(32, w, 4, 2, 1))
        grow = nn.Upsample(scale_factor=4)
        self.up = nn.Sequential(grow, conv(w, 32, 3, 1, 1), silu(), conv(32, w, 3, 1, 1))
        self.join, self.mix = (conv(2 * w, w, 3, padding=1) for _ in range(2))
        self.top, self.bottom = vq.Quantizer(CODES, w), vq.Quantizer(bottom, w)

    def seen(self, h):
        """The top quantised, enlarged, and what the bottom quantises."""
        top = self.top(self.down(h))
        large = self.up(top.z)
        return top, large, self.join(torch.cat([h, large], 1))

    def forward(self, h):
        top, large, z = self.seen(h)
        low = self.bottom(z)
        out = self.mix(torch.cat([low.z, large], 1))
        terms = top.commitment + low.commitment, top.codebook + low.codebook
        return vq.Quantized(out, [top.ids, low.ids], *terms)

    def encode(self, h):
        return self(h).ids

    def decode(self, ids):
        large = self.up(self.top.lookup(ids[0]))
        low = self.bottom.lookup(ids[1]) if len(ids) > 1 else torch.zeros_like(large)
        return self.mix(torch.cat([low, large], 1))

    def start(self, h, *, generator):
        self.top.start(self.down(h), generator=generator)
        self.bottom.start(self.seen(h)[2], generator=generator)

    def revive(self, h, *, generator):
        self.top.revive(self.down(h), generator=generator)
        self.bottom.revive(self.seen(h)[2], generator=generator)


def scales(kind):
    """A multi-scale net of this kind, given the seed, and the codes of each level."""

    def made(seed):
        torch.manual_seed(seed)
        return kind((1, 32, 32), CODES, WIDTH, 4, 8, scales=(1, 2, 4, 8))

    return made, [CODES] * 4


def two(bottom):
    """A VQ-VAE-2 whose bottom has so many codes."""

    def made(seed):
        torch.manual_seed(seed)
        net = vq.ConvVQVAE((1, 32, 32), CODES, WIDTH, 4, 8)
        net.quantizer = TwoLevels(bottom)
        return net

    return made, [CODES, bottom]


@torch.no_grad()
def measured(net, codes):
    """For each number of levels, from none to all: a row's numbers."""
    (x, label), mean = data.letters("test"), data.letters("train")[0].mean(0)
    ids, found = net.encode(x), []
    others = [label.roll(k) for k in range(3)]
    apart = torch.stack([others[a] != others[b] for a, b in ((0, 1), (0, 2), (1, 2))]).all(0)
    for k in range(len(ids) + 1):
        alone = net.decode(ids[:k]) if k else mean.expand_as(x)
        mixed = net.decode(ids[:k] + [i.roll(1, 0) for i in ids[k:]]).clamp(-1.2, 1.2)
        bits = sum(i[0].numel() * math.log2(c) for i, c in zip(ids[:k], codes, strict=False))
        accuracy = float(metrics.accuracy(READER, alone.clamp(-1.2, 1.2), label))
        shares = [float(metrics.accuracy(READER, mixed[apart], y[apart])) for y in others]
        found.append([bits, float(psnr(alone, x).mean()), accuracy, *shares])
    return found


def main():
    rows = {
        "multi-scale": scales(vq.ConvVQVAE),
        "with cuts": scales(Cuts),
        "VQ-VAE-2, bottom of 64": two(64),
        "bottom of 2": two(2),
    }
    print(" " * 32 + "".join(f"{head:>16s}" for head in HEADS))
    for name, (made, codes) in rows.items():
        nets = [taught(made(seed), seed, warm=60, steps=STEPS) for seed in range(SEEDS)]
        each = zip(*(measured(net, codes) for net in nets), strict=True)
        for k, runs in enumerate(each):
            line(f"{name}, first {k}", list(runs), PLACES, 32)


if __name__ == "__main__":
    main()
