"""Lecture 7: eight heaps on a ring. What longer training, momentum and a bound on the critic do.

"Aimed" is the share of points whose direction is within 11.25° of a heap's: half of all directions,
so a circle scores .50, the data .95. "Inside" is within 3 standard deviations of a centre (.99).
Six trainings a row, mean ± standard error; the losses and nets are those of the lecture.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from minigen import ddpm, gan, metrics, nets, oracle, paths, targets, train

LAW = oracle.GaussianMixture.ring(8, 1.4, math.sqrt(0.02))  # that of data.eight_gaussians
N, POINTS = 6, 10_000  # trainings a row, points of each


class Team(nn.Module):
    """N independent nets of linear layers and leaky ReLUs; each takes its share of the rows."""

    def __init__(self, *sizes: int, n: int = N):
        super().__init__()
        pairs = [*zip(sizes[:-1], sizes[1:], strict=True)]
        fill = lambda i, *shape: nn.Parameter((2 * torch.rand(n, *shape) - 1) / math.sqrt(i))
        self.weights = nn.ParameterList(fill(i, i, o) for i, o in pairs)
        self.biases = nn.ParameterList(fill(i, 1, o) for i, o in pairs)

    def forward(self, x):
        h = x.unflatten(0, (len(self.weights[0]), -1))
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(b, F.leaky_relu(h, 0.2) if k else h, w)
        return h.flatten(0, 1)


def play(loss, g, *, steps=2000, batch=64, **options):
    """N generators trained at once on the ring: points of each, (N, POINTS, 2)."""
    torch.manual_seed(0)
    G = Team(2, 64, 64, 64, 2)
    critic = nn.Sequential(Team(2, 64, 64, 64, 1), nn.Flatten(0))
    latents = lambda n: torch.randn(n, 2, generator=g)
    ema = train.Ema(G, 0.99)
    rules = {"lr": train.cosine(3e-3, steps), "steps": steps, "progress": False, "ema": ema}
    real = lambda: LAW.sample(N * batch, generator=g)[0]
    for _ in gan.alternate(G, critic, loss, real, latents=latents, **rules | options):
        pass
    with ema.applied(), torch.no_grad():
        return G(latents(N * POINTS)).reshape(N, POINTS, 2)


def diffuse(steps, g):
    """N small diffusion models on the ring, one after another, in 50 ancestral steps."""
    chain, made = paths.DDPM(ddpm.quadratic_betas(1000)), []
    normal = lambda n: torch.randn(n, 2, generator=g)
    for seed in range(N):
        torch.manual_seed(seed)
        net = nets.MLP(2, hidden=64)

        def loss(net=net):
            t = torch.randint(1, 1001, (128,), generator=g) / 1000
            x = LAW.sample(128, generator=g)[0]
            return ddpm.simple_loss(net, chain, x, t, normal(128)).mean()

        ema, lr = train.Ema(net, 0.99), train.cosine(1e-2, steps, 30)
        for _ in train.fit(loss, net, steps=steps, lr=lr, ema=ema, progress=False):
            pass
        ema.copy_to(net)
        denoise = paths.denoiser(net, chain, targets.eps)
        grid = torch.linspace(1, 0, 51)
        *_, x = ddpm.ancestral(denoise, chain, normal(POINTS), grid, generator=g)
        made.append(x)
    return torch.stack(made)


def aimed(x):
    """The share of points whose direction is within 11.25° of a heap's."""
    turn = torch.rad2deg(torch.atan2(x[:, 1], x[:, 0])) % 45
    return float((torch.minimum(turn, 45 - turn) < 11.25).float().mean())


def line(name, made, g):
    """Heaps hit in all, the share aimed at a heap, that inside one, the sliced distance."""
    hit, rows = 0, []
    for x in made:
        inside = (torch.cdist(x, LAW.means).amin(1) < 3 * LAW.stds[0, 0]).float().mean()
        fresh = LAW.sample(len(x), generator=g)[0]
        hit += int(metrics.mode_coverage(x, LAW).hit)
        apart = metrics.sliced_wasserstein(x, fresh, directions=32, generator=g)
        rows.append([aimed(x), float(inside), float(apart)])
    rows = torch.tensor(rows)
    cells = zip(rows.mean(0).tolist(), (rows.std(0) / math.sqrt(len(rows))).tolist(), strict=True)
    print(f"{name:34s}{hit:3d}/{8 * len(made)}", *(f"  {m:.3f} ± {e:.3f}" for m, e in cells))


def circle(g):
    """A uniform circle through the centres, N samples."""
    turn = 2 * math.pi * torch.rand(N, POINTS, generator=g)
    return 1.4 * torch.stack([turn.cos(), turn.sin()], -1)


def gans(g):
    """The rows that are trained as games: the name and what `play` is called with."""
    game, wgan = gan.nonsaturating, gan.wasserstein
    r1 = {"penalty": lambda critic, real, fake: 0.1 * gan.r1(critic, real)}
    for steps in (400, 2000):
        yield f"R1, {steps} rounds of 64", (game, {"steps": steps, **r1})
    yield "R1, 4000 rounds of 128", (game, {"steps": 4000, "batch": 128, **r1})
    for beta in (0.3, 0.5, 0.7, 0.9):
        yield f"R1, momentum β₁ = {beta}", (game, {"betas": (beta, 0.9), **r1})
    for beta in (0.0, 0.5, 0.9):
        yield f"no R1, momentum β₁ = {beta}", (game, {"betas": (beta, 0.9)})
    yield "Wasserstein, nothing bounds it", (wgan, {})
    for limit in (0.05, 0.2, 0.5):
        clip = lambda critic, limit=limit: gan.clip_weights(critic, limit)
        yield f"Wasserstein, clipped at {limit}", (wgan, {"constrain": clip})
    for weight in (0.1, 1.0, 10.0):
        yield f"Wasserstein, segments, λ = {weight:g}", (wgan, {"penalty": segments(weight, g)})


def segments(weight, g):
    """The gradient penalty on segments as `alternate` takes it."""
    return lambda critic, real, fake: weight * gan.gradient_penalty(critic, real, fake, generator=g)


if __name__ == "__main__":
    g = torch.Generator().manual_seed(7)
    print(f"{'six trainings each':34s}heaps hit  aimed           inside           sliced W2")
    line("data (floor)", LAW.sample(N * POINTS, generator=g)[0].reshape(N, POINTS, 2), g)
    line("a circle", circle(g), g)
    flat = LAW.cov()[0, 0].sqrt() * torch.randn(N, POINTS, 2, generator=g)
    line("one Gaussian, the data's covariance", flat, g)
    for name, (loss, options) in gans(g):
        line(name, play(loss, g, **options), g)
    for steps in (3000, 6000):
        line(f"diffusion, {steps} steps of 128", diffuse(steps, g), g)
