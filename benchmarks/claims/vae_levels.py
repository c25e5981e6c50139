"""Lecture 2: is the two-level VAE better because it has levels, or because it is wider?

Its controls: flat nets of as many latents (12), of as many parameters, and of both, and the
two-level net itself whose prior of z1 is not told z2. Eight trainings each, for the lecture's 600
steps and (but one) for four times as many. IWAE-500 tells a better model from a better q.
"""

import math

import torch
from torch import nn

from minigen import data, train, vae

SEEDS = 8
TRAIN, TEST = data.digits("train")[0].flatten(1), data.digits("test")[0].flatten(1)


def network(wide: int, out: int, hidden: int = 128) -> nn.Module:
    """Two hidden layers."""
    inner = [nn.Linear(wide, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
    return nn.Sequential(*inner, nn.Linear(hidden, out))


def normal(mean, log_var):
    """N(mean, diag exp(log_var))."""
    return torch.distributions.Normal(mean, (0.5 * log_var).exp())


class TwoLevels(nn.Module):
    """As in the lecture; `told` = 0 cuts the way from z2 to the prior of z1."""

    def __init__(self, told: float = 1.0):
        super().__init__()
        self.told = told
        self.top, self.prior = network(64, 8), network(4, 16)
        self.news, self.decoder = network(64 + 4, 16), network(8 + 4, 64)
        self.likelihood = vae.Gaussian(-3.0)

    def draw(self, x, g):
        """log p(x | z1, z2), z2 with its mean and log_var, z1 with m, log v, Δm and log Δv."""
        mean, log_var = self.top(x).chunk(2, 1)
        z2 = vae.reparameterize(mean, log_var, generator=g)
        m, log_v = (self.told * self.prior(z2)).chunk(2, 1)
        dm, dlog_v = self.news(torch.cat([x, z2], 1)).chunk(2, 1)
        z1 = vae.reparameterize(m + dm, log_v + dlog_v, generator=g)
        log_p = self.likelihood(self.decoder(torch.cat([z1, z2], 1))).log_prob(x)
        return log_p, (z2, mean, log_var), (z1, m, log_v, dm, dlog_v)

    def weights(self, x, g):
        """log p(x, z1, z2)/q(z1, z2 | x) at one draw for each image."""
        log_p, (z2, mean, log_var), (z1, m, log_v, dm, dlog_v) = self.draw(x, g)
        zero = torch.zeros_like(mean)
        kl2 = normal(mean, log_var).log_prob(z2) - normal(zero, zero).log_prob(z2)
        kl1 = normal(m + dm, log_v + dlog_v).log_prob(z1) - normal(m, log_v).log_prob(z1)
        return log_p - (kl2.sum(1) + kl1.sum(1))

    def loss(self, x, g):
        """−ELBO of each image, the KLs exact."""
        log_p, (_, mean, log_var), (_, _, log_v, dm, dlog_v) = self.draw(x, g)
        return vae.kl_residual(dm, dlog_v, log_v) + vae.kl_normal(mean, log_var) - log_p


class Flat(nn.Module):
    """One level: `latent` latents, networks of `hidden` units."""

    def __init__(self, latent: int, hidden: int):
        super().__init__()
        self.vae = vae.mlp(64, latent, hidden=hidden, likelihood=vae.Gaussian(-3.0))

    def weights(self, x, g):
        return vae.iwae(self.vae, x, samples=1, generator=g)

    def loss(self, x, g):
        return -vae.elbo(self.vae, x, generator=g).total


NETS = {
    "flat, 8 latents": lambda: Flat(8, 128),
    "flat, 8 latents, as large": lambda: Flat(8, 187),
    "flat, 12 latents": lambda: Flat(12, 128),
    "flat, 12 latents, as large": lambda: Flat(12, 184),
    "two levels, z1 not told z2": lambda: TwoLevels(0.0),
    "two levels": TwoLevels,
}


def measured(name: str, seed: int, steps: int) -> list[float]:
    """Parameters, ELBO and IWAE-500 on test digits, after so many steps."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = NETS[name]()
    level = lambda x: x + (torch.rand(x.shape, generator=g) - 0.5) / 8
    rows = lambda: level(TRAIN[torch.randint(len(TRAIN), (128,), generator=g)])
    loss = lambda: net.loss(rows(), g).mean()
    rate = train.cosine(6e-3, steps, 50)
    for _ in train.fit(loss, net, steps=steps, lr=rate, progress=False):
        pass
    test = level(TEST)
    with torch.no_grad():
        log_w = torch.stack([net.weights(test, g) for _ in range(500)])
    tight = torch.logsumexp(log_w, 0) - math.log(500)
    return [sum(p.numel() for p in net.parameters()), float(log_w.mean()), float(tight.mean())]


def spread(values: torch.Tensor) -> str:
    """Mean ± standard error over seeds."""
    return f"{values.mean():.1f} ± {values.std() / math.sqrt(len(values)):.1f}"


def main() -> None:
    print("test digits, nats per image; mean ± standard error over 8 trainings\n")
    print(f"{'':28s} parameters  steps {'ELBO':>14s} {'IWAE-500':>14s}")
    for steps in (600, 2400):
        for name in [n for n in NETS if steps == 600 or n != "flat, 8 latents, as large"]:
            row = torch.tensor([measured(name, s, steps) for s in range(SEEDS)]).double()
            print(
                f"{name:28s} {int(row[0, 0]):10,d}  {steps:5d} "
                f"{spread(row[:, 1]):>14s} {spread(row[:, 2]):>14s}"
            )


if __name__ == "__main__":
    main()
