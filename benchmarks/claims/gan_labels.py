"""Lecture 7: a convolutional GAN on pairs (digit, label). Do the labels matter, what do they buy?

Three trainings a row, the same but for what the row names: with "labels shuffled" each real digit
comes with the label of another of its batch. Judged by `minigen.judge` on the label asked for;
"judged as the next digit" are the samples of the first row, read against label + 1. A dummy: test
digits with the labels of others.
"""

import torch
from torch import nn

from minigen import data, gan, judge, train

N, B, STEPS = 3, 64, 1000  # trainings a row, pairs a round, rounds


def pair(x, label):
    """Images (B, 1, 8, 8) and labels (B,) as one tensor (B, 2, 8, 8): a channel is the label."""
    return torch.cat([x, label.to(x.dtype).reshape(-1, 1, 1, 1).expand_as(x)], 1)


class Drawer(nn.Module):
    """The generator: latents (B, 17), the last of them the label, to pairs."""

    def __init__(self):
        super().__init__()
        conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1)
        up, bend = nn.Upsample(scale_factor=2), nn.LeakyReLU(0.2)
        wide = nn.Linear(32, 256), nn.Unflatten(1, (64, 2, 2)), bend  # 2 × 2 places
        finer = up, conv(64, 32), bend, up, conv(32, 16), bend  # 4 × 4, then 8 × 8
        self.body = nn.Sequential(*wide, *finer, conv(16, 1), nn.Tanh())
        self.place = nn.Embedding(10, 16)

    def forward(self, z):
        label = z[:, -1].long()
        return pair(self.body(torch.cat([z[:, :-1], self.place(label)], 1)), label)


class Projection(nn.Module):
    """The critic of pairs, w·φ(x) + b + v_label·φ(x)/8."""

    def __init__(self):
        super().__init__()
        conv = lambda i, o, side, stride: nn.Conv2d(i, o, side, stride, padding=1)
        bend = nn.LeakyReLU(0.2)
        seen = conv(1, 16, 3, 1), bend, conv(16, 32, 4, 2), bend, conv(32, 64, 4, 2), bend
        self.features = nn.Sequential(*seen, nn.Flatten(), nn.Linear(256, 64), bend)
        self.plain, self.place = nn.Linear(64, 1), nn.Embedding(10, 64)

    def forward(self, xy):
        x, label = xy[:, :1], xy[:, 1, 0, 0].long()
        seen = self.features(x)
        return self.plain(seen).squeeze(1) + (seen * self.place(label)).sum(1) / 8


def play(images, labels, seed, *, shuffled=False):
    """One training: 360 digits, 36 of each label in turn, (360, 1, 8, 8)."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    G, critic = Drawer(), Projection()

    def real():
        at = torch.randint(len(images), (B,), generator=g)
        given = at[torch.randperm(B, generator=g)] if shuffled else at
        return pair(images[at], labels[given])

    def latents(n, label=None):
        label = torch.randint(10, (n,), generator=g) if label is None else label
        return torch.cat([torch.randn(n, 16, generator=g), label[:, None].float()], 1)

    ema, rate = train.Ema(G, 0.99), train.cosine(5e-3, STEPS)
    rules = {"lr": rate, "steps": STEPS, "ema": ema, "progress": False}
    r1 = lambda critic, real, fake: 0.1 * gan.r1(critic, real)
    for _ in gan.alternate(
        G, critic, gan.nonsaturating, real, latents=latents, penalty=r1, **rules
    ):
        pass
    ema.copy_to(G)
    with torch.no_grad():
        return G(latents(360, torch.arange(10).repeat(36)))[:, :1]


if __name__ == "__main__":
    (images, labels), (test, truth) = data.digits("train"), data.digits("test")
    asked, rows = torch.arange(10).repeat(36), {}
    for name, shuffled in (("labels", False), ("labels shuffled", True)):
        made = [play(images, labels, seed, shuffled=shuffled) for seed in range(N)]
        rows[name] = [judge.digits(x, asked) for x in made]
        if not shuffled:
            rows["judged as the next digit"] = [judge.digits(x, (asked + 1) % 10) for x in made]
    g = torch.Generator().manual_seed(7)
    others = [truth[torch.randperm(len(truth), generator=g)] for _ in range(N)]
    rows["dummy: others' labels"] = [judge.digits(test, label) for label in others]
    print(judge.table(rows))
