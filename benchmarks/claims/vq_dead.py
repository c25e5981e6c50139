"""Lecture 14: which codes die, what mends it, and is a codebook in full use a good one?

A small VQ-VAE of 32 × 32 letters in each row: 64 vectors of 4 values (8 × 8, factor 4), 256 codes,
squares + codebook + ¼ commitment, 300 steps of 64 letters, three seeds. "Random" codes start as
N(0, 1); "start" is k-means++ on the latents of 512 letters, before the first step or at step 60, up
to which nothing is quantised; "revival" replaces, each 20 steps up to step 240, the codes that no
vector of the batch picks. "EMA": codes are running means (decay .9), not moved by a gradient. Codes
"× 10" and "÷ 256" start at another scale than the latents (with ÷ 256 about that of 1/256, a common
start); "latents × 10" are the encoder's answer times 10, and a tenth of it decoded. Columns, on 520
test letters: codes in use, of 256; the perplexity of the ids of 1, 16 and all 520 letters; PSNR,
accuracy and Fréchet distance of what is reconstructed. Dummies: ids drawn evenly, decoded by "start
at 60 + revival", so that all are in use; the mean of the training letters. Ceiling: no quantiser.
"""

import torch
from torch import nn

from data.letter_recipes import psnr, read
from minigen import data, train, vq

SEEDS, STEPS, CODES, WIDTH, EVERY = 3, 300, 256, 4, 20
QUANTISERS = vq.Quantizer | vq.Residual | vq.MultiScale
BEST = "start at 60 + revival"
HEADS = "in use", "perplexity of 1", "of 16", "of 520", "PSNR, dB", "accuracy", "Fréchet"
PLACES = 0, 1, 0, 0, 2, 3, 1


class Times(nn.Module):
    """x times a number."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale * x


def unquantised(z):
    """z as it is, and terms of 0."""
    return vq.Quantized(z, None, z.new_zeros(len(z)), z.new_zeros(len(z)))


def letters_vqvae(seed, codes=CODES, **quantizer):
    """The small autoencoder of letters around a quantiser."""
    torch.manual_seed(seed)
    return vq.ConvVQVAE((1, 32, 32), codes, WIDTH, 4, 8, **quantizer)


def taught(net, seed, *, warm=0, start=True, revive=True, beta=0.25, steps=STEPS):
    """Train on letters: unquantised for `warm` steps, then with the codebook it has, or `start`s.

    It `revive`s each 20 steps, but for the last fifth.
    """
    x, generator = data.letters("train")[0], torch.Generator().manual_seed(seed)
    batches, seen = data.batches(x, size=64, generator=generator), []
    all_of_them = [m for m in net.modules() if isinstance(m, QUANTISERS)]

    def loss():
        seen[:] = next(batches)
        part = net.loss(seen[0])
        return (part.reconstruction + part.codebook + beta * part.commitment).mean()

    @torch.no_grad()
    def tend(n):
        if n == warm:
            for each in all_of_them:
                each.__dict__.pop("forward", None)
            if start:
                net.quantizer.start(net.encoder(x[:512]), generator=generator)
        elif revive and n > warm and n % EVERY == 0 and n <= 0.8 * steps:
            net.quantizer.revive(net.encoder(seen[0]), generator=generator)

    for each in all_of_them:
        each.forward = unquantised  # until step `warm`
    run = train.fit(loss, net, steps=steps, lr=train.cosine(3e-3, steps), progress=False)
    for n in range(steps):
        tend(n)
        next(run)
    return net.eval()


@torch.no_grad()
def used(ids, codes=CODES):
    """Codes in use, and the perplexity of the ids of 1, 16 and all letters."""
    few = [torch.stack([vq.perplexity(i, codes) for i in ids.split(n)]).mean() for n in (1, 16)]
    return [len(ids.unique()), *map(float, few), float(vq.perplexity(ids, codes))]


def looks(again, x, label):
    """PSNR, accuracy and Fréchet distance of reconstructions."""
    return [float(psnr(again, x).mean()), *read(again, label)]


def line(name, runs, places=PLACES, width=36):
    """Mean ± standard error over the seeds, in the last columns where there are fewer."""
    runs = torch.tensor(runs, dtype=torch.double)
    own, mean = places[-runs.shape[1] :], runs.mean(0).tolist()
    cells = [f"{m:.{k}f}" for m, k in zip(mean, own, strict=True)]
    if len(runs) > 1:
        errors = (runs.std(0) / len(runs) ** 0.5).tolist()
        cells = [f"{c} ± {e:.{k}f}" for c, e, k in zip(cells, errors, own, strict=True)]
    cells = [""] * (len(places) - len(own)) + cells
    print(f"{name:{width}s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)


def plain(net):
    """The net as it is."""


def codes(scale):
    """Its random codes `scale` times as large."""
    return lambda net: net.quantizer.entries.data.mul_(scale)


def latents(net):
    """Its latents 10 times as large."""
    net.encoder, net.decoder = (
        nn.Sequential(net.encoder, Times(10)),
        nn.Sequential(Times(0.1), net.decoder),
    )


def rows():
    """name -> (what is changed, how it is taught, the decay of running means)."""
    bare, late = {"start": False, "revive": False}, {"warm": 60}
    return {
        "random": (plain, bare, None),
        "random, codes × 10": (codes(10), bare, None),
        "random, codes ÷ 256": (codes(1 / 256), bare, None),
        "random, latents × 10": (latents, bare, None),
        "random + revival": (plain, {"start": False}, None),
        "start at 0": (plain, {"revive": False}, None),
        "start at 0 + revival": (plain, {}, None),
        "random at 60": (plain, late | bare, None),
        "start at 60": (plain, late | {"revive": False}, None),
        BEST: (plain, late, None),
        f"{BEST}, latents × 10": (latents, late, None),
        "random, EMA": (plain, bare, 0.9),
        f"{BEST}, EMA": (plain, late, 0.9),
        "no quantiser": (plain, {"warm": STEPS}, None),
    }


@torch.no_grad()
def measured(net, x, label):
    """A row's numbers; without a quantiser the last three."""
    if "forward" in net.quantizer.__dict__:
        return looks(net.decoder(net.encoder(x)), x, label)
    ids = net.encode(x)
    return used(ids) + looks(net.decode(ids), x, label)


@torch.no_grad()
def by_chance(net, x, label, seed):
    """The dummy: ids drawn evenly, whatever the letter is."""
    ids = torch.randint(CODES, (len(x), 8, 8), generator=torch.Generator().manual_seed(seed))
    return used(ids) + looks(net.decode(ids), x, label)


def main():
    (x, label), dummy = data.letters("test"), []
    print(" " * 36 + "".join(f"{head:>16s}" for head in HEADS))
    for name, (change, how, decay) in rows().items():
        runs = []
        for seed in range(SEEDS):
            net = letters_vqvae(seed, decay=decay)
            change(net)
            taught(net, seed, **how)
            runs.append(measured(net, x, label))
            if name == BEST:
                dummy.append(by_chance(net, x, label, seed))
        line(name, runs)
    line("ids by chance", dummy)
    mean = looks(data.letters("train")[0].mean(0).expand_as(x), x, label)
    line("the mean letter", [mean] * SEEDS)


if __name__ == "__main__":
    main()
