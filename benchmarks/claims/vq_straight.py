"""Lecture 14: what is the straight-through gradient worth, and what does the commitment hold back?

The VQ-VAE of `vq_dead`'s row "start at 0 + revival", one thing changed at a time, three seeds.
Straight-through with β = 0, ¼, 1 (¼ is that row). "Looked up": the decoder is given the code
itself, so that no gradient of the image reaches the encoder, which β = ¼ alone moves; "encoder at
birth": with β = 0, nothing does. "Soft": in training the decoder sees a mean of all codes, each by
exp(−‖z − e‖²/2s²), s² the mean squared distance of a value to its nearest code; nearest codes in
the test. "Afterwards": an autoencoder that has never seen a code, and k-means++ with 10 rounds of
k-means on its latents. Columns, on 520 test letters: standard deviation of the latents z; the mean
‖z − e‖² as a share of their variance; codes in use, of 256; PSNR, accuracy and Fréchet distance of
what is reconstructed. Dummy: the mean of the training letters.
"""

import torch

from benchmarks.claims.vq_dead import (
    CODES,
    SEEDS,
    STEPS,
    WIDTH,
    letters_vqvae,
    line,
    looks,
    taught,
)
from minigen import data, vq

HEADS = "std of z", "‖z − e‖², share", "in use", "PSNR, dB", "accuracy", "Fréchet"
PLACES = 2, 3, 0, 2, 3, 1


class LookedUp(vq.Quantizer):
    """The gradient of the image goes to the codes, and none of it to z."""

    def forward(self, z):
        part = super().forward(z)
        return part._replace(z=self.lookup(part.ids))


class Soft(vq.Quantizer):
    """A mean of the codes in training, the nearest one after it."""

    def forward(self, z):
        part = super().forward(z)
        if not self.training:
            return part
        flat = z.movedim(1, -1)
        far = (flat.unsqueeze(-2) - self.entries).square().sum(-1)
        share = (-far / (2 * part.commitment.detach().mean())).softmax(-1)
        return part._replace(z=(share @ self.entries).movedim(-1, 1))


def afterwards(seed):
    """A codebook for latents that were learnt without one."""
    net = letters_vqvae(seed)
    taught(net, seed, warm=STEPS)
    quantizer = vq.Quantizer(CODES, WIDTH, decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        z = net.encoder(data.letters("train")[0][:512])
        quantizer.start(z, generator=generator)
        for _ in range(10):  # running means without a memory are a round of k-means
            quantizer(z)
    net.quantizer = quantizer.eval()
    return net


def within(kind=vq.Quantizer, beta=0.25):
    """A row's net, given the seed: this quantiser from the first step on."""

    def made(seed):
        net = letters_vqvae(seed)
        torch.manual_seed(seed)
        net.quantizer = kind(CODES, WIDTH)
        return taught(net, seed, beta=beta)

    return made


@torch.no_grad()
def measured(net, x, label):
    """A row's numbers."""
    z = net.encoder(x)
    ids = net.quantizer.nearest(z)
    apart = (z - net.quantizer.lookup(ids)).square().sum(1).mean()
    share = float(apart / z.transpose(0, 1).flatten(1).var(1).sum())
    return [float(z.std()), share, len(ids.unique()), *looks(net.decode(ids), x, label)]


def main():
    (x, label), train_x = data.letters("test"), data.letters("train")[0]
    rows = {f"straight-through, β = {b:g}": within(beta=b) for b in (0.0, 0.25, 1.0)} | {
        "looked up, β = 0.25": within(LookedUp),
        "encoder at birth": within(LookedUp, 0.0),
        "soft, β = 0.25": within(Soft),
        "afterwards": afterwards,
    }
    print(" " * 28 + "".join(f"{head:>16s}" for head in HEADS))
    for name, made in rows.items():
        line(name, [measured(made(seed), x, label) for seed in range(SEEDS)], PLACES, 28)
    line("the mean letter", [looks(train_x.mean(0).expand_as(x), x, label)], PLACES, 28)


if __name__ == "__main__":
    main()
