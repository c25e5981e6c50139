"""Lecture 13: more latent channels reconstruct better; is their law as easily learned?

Autoencoders of 32 × 32 letters by squares and a small KL, at factor 4 (8 × 8 latents) and 8
(4 × 4), with 1 to 8 channels: equal widths, batches and steps. On the standardised latents of each,
the same residual perceptron of flattened latents learns the velocity of rectified flow, given the
letter, for equally many steps, and draws 520 letters in 20 Euler steps. Three seeds of both.
Columns: values of a latent; of reconstructed test letters PSNR, the reader's accuracy and Fréchet
distance; the last two of drawn letters. Floor: the test letters. Dummy: noise, decoded.
"""

import torch

from data.letter_recipes import compressed, psnr, read
from minigen import data, flow, latent, nets, paths, targets, train

SEEDS, CODER_STEPS, PRIOR_STEPS, N = 3, 120, 300, 520
SIZES = [(factor, channels) for factor in (4, 8) for channels in (1, 2, 4, 8)]
asked = torch.arange(N) % 26


def prior(z, label, seed):
    """The velocity of the latents' rectified flow, the average of its weights."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = nets.ResMLP(tuple(z.shape[1:]), hidden=256, depth=3, classes=26)
    batches, ema = data.batches(z, label, size=128, generator=generator), train.Ema(net, 0.99)

    def loss():
        z0, y = next(batches)
        t = flow.uniform_times(len(z0), generator=generator)
        return flow.loss(net, z0, torch.randn(z0.shape, generator=generator), t, y).mean()

    rate = train.cosine(3e-3, PRIOR_STEPS, warmup=20)
    for _ in train.fit(loss, net, steps=PRIOR_STEPS, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    return net


def drawn(net, seed):
    """Latents of A to Z in turn, and the noise that they were drawn from."""
    start = torch.randn(N, *net.shape, generator=torch.Generator().manual_seed(1000 + seed))
    denoise = paths.denoiser(net, paths.Linear(), targets.velocity, asked)
    *_, z = flow.euler(denoise, paths.Linear(), start, flow.grid(20))
    return z, start


def measured(factor, channels, seed):
    """PSNR, accuracy, Fréchet of reconstructions; the last two of drawings; and of noise."""
    (x, label), (seen, right) = data.letters("train"), data.letters("test")
    torch.manual_seed(seed)
    coder = latent.ConvAutoencoder((1, 32, 32), channels=channels, factor=factor, width=8)
    compressed(coder, x, seed, steps=CODER_STEPS)
    with torch.no_grad():
        z, again = coder.encode(x)[0], coder.decode(coder.encode(seen)[0])
    scale = latent.Standard.fit(z)
    net, found = prior(scale.to(z), label, seed), [float(psnr(again, seen).mean())]
    with torch.no_grad():
        pictures = [coder.decode(scale.back(z)) for z in drawn(net, seed)]
    for image, y in ((again, right), *((picture, asked) for picture in pictures)):
        found += read(image, y)
    return found


def main():
    heads = "PSNR, dB", "accuracy", "Fréchet", "drawn, accuracy", "Fréchet", "noise, accuracy"
    print("factor  channels  values" + "".join(f"{h:>18s}" for h in (*heads, "Fréchet")))
    for factor, channels in SIZES:
        runs = torch.tensor([measured(factor, channels, seed) for seed in range(SEEDS)])
        pairs = zip(runs.mean(0).tolist(), (runs.std(0) / SEEDS**0.5).tolist(), strict=True)
        places = (2, 3, 2, 3, 1, 3, 0)
        cells = [f"{m:.{k}f} ± {e:.{k}f}" for (m, e), k in zip(pairs, places, strict=True)]
        print(f"{factor:6d}{channels:10d}{channels * (32 // factor) ** 2:8d}", end="")
        print("".join(f"{cell:>18s}" for cell in cells), flush=True)
    accuracy, frechet = read(*data.letters("test"))
    print(f"test letters{'':30s}{accuracy:>18.3f}{frechet:>18.2f}")


if __name__ == "__main__":
    main()
