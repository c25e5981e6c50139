"""Lecture 13: what do the shortcuts without parameters buy at factor 8?

The same autoencoder of 32 × 32 letters (factor 8, 8 channels, 4 × 4 latents) with `DownShortcut`
and `UpShortcut` around each change of size, and with the convolutions inside them alone: equal
parameters, initial weights, batches and steps, three seeds. PSNR on 520 test letters, of the
average of the weights, after so many steps; "paired" is the mean difference, seed by seed. The
skips of the residual blocks are in both nets. Dummy: the mean of the training letters, for all.
"""

import torch

from data.letter_recipes import psnr
from minigen import data, latent, train

SEEDS, STEPS, MARKS = 3, 250, (50, 100, 250)


def bare(net):
    """The same net, its weights too, without the shortcuts."""
    for part in (net.encoder, net.decoder):
        for i, layer in enumerate(part):
            if isinstance(layer, latent.DownShortcut | latent.UpShortcut):
                part[i] = layer.inner
    return net


def trained(net, x, seen, seed):
    """PSNR on `seen` at each of the marks."""
    generator, found = torch.Generator().manual_seed(seed), []
    batches, ema = data.batches(x, size=64, generator=generator), train.Ema(net, 0.99)

    def loss():
        return latent.loss(net, next(batches)[0], kl=1e-3, generator=generator).mean()

    rate = train.cosine(3e-3, STEPS, warmup=20)
    run = train.fit(loss, net, steps=STEPS, lr=rate, ema=ema, progress=False)
    for n, _ in enumerate(run, 1):
        if n in MARKS:
            with ema.applied(), torch.no_grad():
                found.append(float(psnr(net.decode(net.encode(seen)[0]), seen).mean()))
    return found


def line(name, runs):
    """Mean ± standard error over the seeds, a column for each mark."""
    runs = torch.tensor(runs)
    pairs = zip(runs.mean(0).tolist(), (runs.std(0) / len(runs) ** 0.5).tolist(), strict=True)
    print(f"{name:22s}" + "".join(f"{f'{m:.2f} ± {e:.2f}':>16s}" for m, e in pairs), flush=True)


def main():
    x, seen = data.letters("train")[0], data.letters("test")[0]
    made = {"with shortcuts": [], "without": []}
    print(f"{'PSNR, dB':22s}" + "".join(f"{f'{n} steps':>16s}" for n in MARKS))
    for seed in range(SEEDS):
        for name, change in zip(made, (lambda net: net, bare), strict=True):
            torch.manual_seed(seed)
            net = change(latent.ConvAutoencoder((1, 32, 32), channels=8, factor=8, width=8))
            made[name].append(trained(net, x, seen, seed))
    for name, runs in made.items():
        line(name, runs)
    line("paired", (torch.tensor(made["with shortcuts"]) - torch.tensor(made["without"])).tolist())
    print(f"{'the mean letter':22s}{float(psnr(x.mean(0), seen).mean()):>16.2f}")


if __name__ == "__main__":
    main()
