"""Lecture 7: few data. Does hiding a patch from the critic help, or would any other brake do?

Six trainings a row on 200 digits or on all 1,437, the same but for what the row names; judged by
`minigen.judge`. "r" is the mean sign of the critic's logits in the second half of the training, on
the digits it learns from, on the 1,237 digits after the first 200, and on fakes, all of them whole
(no hole, no shift). A dummy: the samples of the plain GAN with grain of 0.1.
"""

import functools
import math

import torch
from torch import nn

from benchmarks.claims.gan_ring import N, Team
from minigen import data, gan, judge, train
from minigen.gan import augment

SHIFT = functools.partial(augment.translate, ratio=1 / 8, fill=-1.0)  # up to one pixel
HOLE = functools.partial(augment.cutout, ratio=3 / 8, fill=-1.0)  # 3 × 3 pixels


class Augmented(nn.Module):
    """A critic that sees its input only through the augmentation."""

    def __init__(self, critic, pi, edit, generator):
        super().__init__()
        self.critic, self.pi, self.edit, self.generator = critic, pi, edit, generator

    def forward(self, x):
        return self.critic(self.edit(x, self.pi, generator=self.generator) if self.pi else x)


def play(images, others, g, *, pi=0.0, edit=HOLE, gamma=0.1, steps=1600):
    """N generators of digits, trained at once: what they draw, (N, 360, 1, 8, 8), and r (3, N)."""
    torch.manual_seed(0)
    G = nn.Sequential(Team(16, 128, 128, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    layers = nn.Sequential(nn.Flatten(), Team(64, 128, 128, 1), nn.Flatten(0))
    critic = Augmented(layers, pi, edit, g)
    latents = lambda n: torch.randn(n, 16, generator=g)
    pick = lambda x, n: x[torch.randint(len(x), (N * n,), generator=g)]
    ema, signs = train.Ema(G, 0.99), []
    rounds = gan.alternate(
        G,
        critic,
        gan.nonsaturating,
        lambda: pick(images, 64),
        latents=latents,
        steps=steps,
        lr=train.cosine(5e-3, steps),
        penalty=lambda critic, real, fake: gamma * gan.r1(critic, real),
        ema=ema,
        progress=False,
    )
    for n, _ in enumerate(rounds):
        if n >= steps // 2 and n % 40 == 0:
            with torch.no_grad():
                seen = pick(images, 100), pick(others, 100), G(latents(N * 100))
                signs.append([critic.critic(x).sign().reshape(N, -1).mean(1) for x in seen])
    ema.copy_to(G)
    with torch.no_grad():
        made = G(latents(N * 360)).reshape(N, 360, 1, 8, 8)
    return made, torch.stack([torch.stack(r) for r in signs]).mean(0)


def cells(rows, places):
    """Mean ± standard error of each column."""
    errors = rows.std(0) / math.sqrt(len(rows))
    pairs = zip(rows.mean(0).tolist(), errors.tolist(), strict=True)
    return "  ".join(f"{m:.{places}f} ± {e:.{places}f}".rjust(13) for m, e in pairs)


def line(name, made, signs=None):
    """Fréchet distance, recall, precision, memorised; and the three mean signs."""
    rows = torch.tensor([judge.digits(x) for x in made])[:, 1:]
    print(f"{name:22s}", cells(rows[:, :1], 1), cells(rows[:, 1:], 3), end="")
    print("" if signs is None else "   " + " ".join(f"{r:5.2f}" for r in signs.mean(1)))


if __name__ == "__main__":
    g, grain = (torch.Generator().manual_seed(seed) for seed in (7, 8))
    every, (test, _) = data.digits("train")[0], data.digits("test")
    few, others = every[:200], every[200:]
    heads = ("Fréchet", "recall", "precision", "memorised")
    print(
        f"{'six trainings each':22s}",
        "  ".join(h.rjust(13) for h in heads),
        "  r: own, others, fakes",
    )
    copies = few[torch.randint(200, (N, 360), generator=g)]
    line("copies of the 200", copies)
    line("copies, grain 0.2", copies + 0.2 * torch.randn(copies.shape, generator=g))
    for name, images, options in (
        ("200 digits", few, {}),
        ("200, hole", few, {"pi": 0.5}),
        ("200, hole and shift", few, {"pi": 0.5, "edit": augment.compose(SHIFT, HOLE)}),
        ("200, R1 ten times", few, {"gamma": 1.0}),
        ("200, that and a hole", few, {"pi": 0.5, "gamma": 1.0}),
        ("all 1,437 digits", every, {}),
        ("all, hole", every, {"pi": 0.5}),
    ):
        made, signs = play(images, others, g, **options)
        line(name, made, signs)
        if name == "200 digits":
            line("the same, grain 0.1", made + 0.1 * torch.randn(made.shape, generator=grain))
    print(
        f"{'360 test digits':22s}", "  ".join(f"{v:.3f}".rjust(13) for v in judge.digits(test)[1:])
    )
