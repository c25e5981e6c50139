"""Lecture 2: a decoder that can do without its latents loses likelihood by doing without them.

The bound hardly tells whether the latents of a strong decoder are used. The control is a better
estimate of log p(x) on test digits, IWAE-500, for the same nets and steps with and without the two
remedies; whether four times the steps bring the latents back, or lose them again after annealing;
and the same decoder that sees no pixels. Six seeds each.
"""

import math

import torch
from torch import nn

from minigen import data, train, vae

SEEDS, STEPS = 6, 450
REMEDIES = {
    "none": 1,
    "none, four times as long": 4,
    "none, pixels hidden": 1,
    "annealing": 1,
    "annealing, four times": 4,
    "free bits": 1,
}
TRAIN, TEST = ((data.digits(part)[0] > 0).float() for part in ("train", "test"))


class Pixelwise(nn.Module):
    """p(x | z) = ∏ p(x_i | x_<i, z), as in the lecture."""

    def __init__(self, hidden: int = 256):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, hidden), nn.Linear(hidden, 64)
        reach, pixel = torch.arange(hidden) % 63 + 1, torch.arange(64)
        self.register_buffer("sees", (pixel < reach[:, None]).float())
        self.register_buffer("serves", (reach <= pixel[:, None]).float())

    def logits(self, x):
        h = nn.functional.linear(x, self.inner.weight * self.sees, self.inner.bias).relu()
        return nn.functional.linear(h, self.outer.weight * self.serves, self.outer.bias)

    def forward(self, bias):
        return Sequence(self, bias)


class Sequence:
    """The law that Pixelwise makes of a bias."""

    def __init__(self, net, bias):
        self.net, self.bias = net, bias
        self.batch_shape, self.event_shape = bias.shape[:1], bias.shape[1:]

    def log_prob(self, x):
        x, bias = x.flatten(1), self.bias.flatten(1)
        return -nn.functional.binary_cross_entropy_with_logits(
            self.net.logits(x) + bias, x, reduction="none"
        ).sum(1)


def trained(remedy: str, seed: int, g: torch.Generator) -> vae.VAE:
    """The lecture's net after its training with one remedy."""
    torch.manual_seed(seed)
    model = vae.mlp((1, 8, 8), 8, hidden=128, likelihood=Pixelwise())
    if remedy == "none, pixels hidden":
        model.likelihood.sees.zero_()
    steps = STEPS * REMEDIES[remedy]
    count = iter(range(steps))

    def loss():
        n, x = next(count), TRAIN[torch.randint(len(TRAIN), (128,), generator=g)]
        beta = min(1.0, n / (STEPS / 2)) if remedy.startswith("annealing") else 1.0
        parts = vae.elbo(model, x, beta=beta, generator=g)
        if remedy == "free bits":
            return vae.free_bits(*model.encode(x), 0.5) - parts.reconstruction.mean()
        return -parts.total.mean()

    rate = train.cosine(1e-2, steps, 50)
    for _ in train.fit(loss, model, steps=steps, lr=rate, progress=False):
        pass
    return model


def measured(remedy: str, seed: int) -> list[float]:
    """KL, active latents, ELBO and IWAE-500 on the test digits."""
    g = torch.Generator().manual_seed(seed)
    model = trained(remedy, seed, g)
    with torch.no_grad():
        parts = vae.elbo(model, TEST, samples=100, generator=g)
        active = vae.active_units(model.encode(TRAIN)[0])
        tight = vae.iwae(model, TEST, samples=500, generator=g)
    return [float(parts.kl.mean()), active, float(parts.total.mean()), float(tight.mean())]


def spread(values: torch.Tensor) -> str:
    """Mean ± standard error over seeds."""
    return f"{values.mean():.2f} ± {values.std() / math.sqrt(len(values)):.2f}"


def main() -> None:
    rows = {
        name: torch.tensor([measured(name, s) for s in range(SEEDS)]).double() for name in REMEDIES
    }
    print("black and white test digits, nats per image; mean ± standard error over 6 trainings;")
    print("gains are over `none` with the same seed\n")
    print(
        f"{'':25s} {'KL':>12s} {'active':>12s} {'gain of ELBO':>14s} {'of IWAE-500':>14s}  better"
    )
    for name, row in rows.items():
        gain = row - rows["none"]
        columns = f"{spread(row[:, 0]):>12s} {spread(row[:, 1]):>12s}"
        gains = f"{spread(gain[:, 2]):>14s} {spread(gain[:, 3]):>14s}"
        print(f"{name:25s} {columns} {gains}  {int((gain[:, 3] > 0).sum())} of {SEEDS}")


if __name__ == "__main__":
    main()
