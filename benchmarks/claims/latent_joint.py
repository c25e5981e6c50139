"""Lecture 13: is a latent prior better trained with its encoder than after it?

Data whose answer is known: x1, x2, x3 = √ρ u + √(1 − ρ) noise are three views of u, and x4 stands
alone; all have variance 1. Either u or x4 has two narrow bumps, the rest is normal. One latent,
q(z | x) = N(V x + c, s²), a linear decoder with a noise for each x. Then the latents' law, and with
it the bound of the best prior, is a mixture's, and the entropy H(x) is every bound's floor.

The learned prior is a diffusion: v on VP, zero at birth, which is N(0, 1) exactly. Two stages: a
VAE for 1,000 steps, then the prior for 2,000. Jointly (LSGM): all for 3,000 steps; or for 2,000
after the VAE's; or "begun at x4": an encoder and decoder that know x4 alone, their prior learned
for 1,000 steps, then all for 2,000.

In nats, mean ± standard error over trainings: −ELBO of the encoder and decoder with their best
prior, by quadrature; what the prior that they have costs above it, the divergence of the latents'
law from it, on 4,000 fresh points; and the sum. "At x4": in how many trainings V weighs x4 more
than all three views. Dummy: no training.
"""

import copy
import math

import torch
from torch import nn

from minigen import latent, nets, paths, targets, train

SEEDS, BATCH, FIRST, SECOND, HIDDEN, WIDTH, T_MIN = 5, 128, 1000, 2000, 32, 0.1, 1e-4
CASES = {"bumps in u": (0.8, "u"), "bumps in x4": (0.8, "x4"), "no bumps": (0.8, "")}  # ρ, where
RUNS, PATH = len(CASES) * SEEDS, paths.VP()
ENDS = PATH.sigma(torch.tensor([T_MIN, 1.0], dtype=torch.float64)).log()
LOG_2PI = math.log(2 * math.pi)


class Law:
    """The data of every run: two normals, ± `mean` (R, 4), of one covariance `within` (R, 4, 4)."""

    def __init__(self):
        each = [self.parts(*case) for case in CASES.values() for _ in range(SEEDS)]
        self.mean, self.within = (torch.stack(part) for part in zip(*each, strict=True))
        self.cov = self.within + self.mean[:, :, None] * self.mean[:, None]
        self.root = torch.linalg.cholesky(self.within)
        self.normal = 0.5 * torch.logdet(2 * math.pi * math.e * self.cov)  # the best VAE's bound

    @staticmethod
    def parts(rho, bumps):
        views = math.sqrt(rho) * torch.tensor([1.0, 1, 1, 0], dtype=torch.float64)
        alone = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
        mean = math.sqrt(1 - WIDTH**2) * {"u": views, "x4": alone, "": 0 * alone}[bumps]
        cov = torch.diag(1 - views**2) + torch.outer(views, views)
        return mean, cov - torch.outer(mean, mean)

    def draw(self, n, g):
        sign = 1 - 2.0 * torch.randint(2, (RUNS, n, 1), generator=g)
        eps = torch.randn(RUNS, n, 4, generator=g)
        return sign * self.mean.float()[:, None] + eps @ self.root.float().mT

    def entropy(self):
        """H(x): along `mean`, an eigenvector of `within`, two bumps; across it a normal."""
        length = self.mean.norm(dim=1)
        along = self.mean / length.clamp(min=1e-9)[:, None]
        var = torch.einsum("ri,rij,rj->r", along, self.within, along)
        normal = 0.5 * torch.logdet(2 * math.pi * math.e * self.within)
        var = torch.where(length > 0, var, 1.0)  # without bumps any direction will do
        return normal - half_log(var) + two_bumps(length, var)


def half_log(var):
    """The entropy of a normal."""
    return 0.5 * (LOG_2PI + 1 + torch.log(var))


def log_bumps(z, mean, var):
    """log density of an equal mixture of N(±mean, var)."""
    each = [torch.distributions.Normal(m, var.sqrt()).log_prob(z) for m in (mean, -mean)]
    return torch.logaddexp(*each) - math.log(2)


def two_bumps(mean, var):
    """Its entropy, by quadrature; (R,) both."""
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)[:, None]
    z = grid * (mean.abs() + 8 * var.sqrt())
    log_p = log_bumps(z, mean, var)
    return torch.trapezoid(-log_p.exp() * log_p, z, dim=0)


class Linear(nn.Module):
    """q(z | x) and p(x | z) of every run."""

    def __init__(self, g):
        super().__init__()
        self.V = nn.Parameter(0.5 * torch.randn(RUNS, 4, generator=g))
        self.W = nn.Parameter(0.5 * torch.randn(RUNS, 4, generator=g))
        self.log_sigma, self.b = (nn.Parameter(torch.zeros(RUNS, 4)) for _ in range(2))
        self.log_s, self.c = (nn.Parameter(torch.zeros(RUNS)) for _ in range(2))

    def encode(self, x, g):
        """z ~ q(z | x), (R, B)."""
        z = torch.einsum("ri,rbi->rb", self.V, x) + self.c[:, None]
        return z + self.log_s.exp()[:, None] * torch.randn(z.shape, generator=g)

    def rest(self, x, z):
        """−log p(x | z) − H(q(z | x)), (R, B)."""
        error = x - z[..., None] * self.W[:, None] - self.b[:, None]
        p = 0.5 * (error / self.log_sigma.exp()[:, None]).square() + self.log_sigma[:, None]
        return p.sum(2) + 2 * LOG_2PI - self.log_s[:, None] - 0.5 * (LOG_2PI + 1)

    def exact(self, law):
        """−ELBO with the law of the latents for a prior, (R,)."""
        state = (p.double() for p in (self.V, self.W, self.b, self.c, self.log_s, self.log_sigma))
        V, W, b, c, log_s, log_sigma = state
        A, s2 = torch.eye(4).double() - W[:, :, None] * V[:, None], torch.exp(2 * log_s)
        bias = W * c[:, None] + b
        error = (A @ law.cov @ A.mT).diagonal(dim1=1, dim2=2) + W**2 * s2[:, None] + bias**2
        p = (0.5 * error * torch.exp(-2 * log_sigma) + log_sigma).sum(1) + 2 * LOG_2PI
        return p - half_log(s2) + two_bumps(*self.latents(law))

    def latents(self, law):
        """The law of z − c: the mean of a bump, and the variance within."""
        V, s2 = self.V.double(), torch.exp(2 * self.log_s.double())
        return (V * law.mean).sum(1), torch.einsum("ri,rij,rj->r", V, law.within, V) + s2


class Prior(nn.Module):
    """v(z_t, t) of every run, (R·B, 1): two hidden layers, zero at birth."""

    def __init__(self, g):
        super().__init__()
        self.time = nets.Sinusoidal(16, highest=30.0)
        normal = lambda a, b: nn.Parameter(torch.randn(RUNS, a, b, generator=g) / math.sqrt(a))
        self.first, self.second = normal(17, HIDDEN), normal(HIDDEN, HIDDEN)
        self.last = nn.Parameter(torch.zeros(RUNS, HIDDEN, 1))
        self.bias = nn.Parameter(torch.zeros(2, RUNS, 1, HIDDEN))

    def forward(self, zt, t, label=None):
        h = torch.cat([zt, self.time(t.float())], dim=1).unflatten(0, (RUNS, -1))
        h = nn.functional.silu(torch.baddbmm(self.bias[0], h, self.first))
        h = nn.functional.silu(torch.baddbmm(self.bias[1], h, self.second))
        return (h @ self.last).flatten(0, 1)


def plain(z):
    """−log N(z; 0, 1)."""
    return 0.5 * (z.square() + LOG_2PI)


def learned(prior, g):
    """z -> −log p(z) of the diffusion, one level for each: `latent.cross_entropy` with gradients.

    Of eps the error is a times that of v.
    """
    a1, b1 = PATH.a(torch.ones(())), PATH.b(torch.ones(()))
    first = float(half_log(PATH.b2(torch.tensor(T_MIN, dtype=torch.float64))))

    def value(z):
        n = z.shape[1]
        u = (torch.arange(n) + torch.rand(z.shape, generator=g, dtype=torch.float64)) / n
        t = PATH.time(torch.exp(ENDS[0] + u * ENDS.diff())).float().flatten()
        flat = z.reshape(-1, 1)
        eps = torch.randn(flat.shape, generator=g)
        error = targets.loss(prior, PATH, targets.v, flat, eps, t) * PATH.a(t) ** 2
        end = 0.5 * (a1 / b1) ** 2 * z.square()
        return float(ENDS.diff()) * error.reshape(z.shape) + end + first

    return value


def trained(law, parts, model, rated, steps, g):
    """Move the weights of `parts` down −ELBO, with `rated` for −log p(z); the runs are apart."""
    weights = [p for part in parts for p in part.parameters()]

    def loss():
        x = law.draw(BATCH, g)
        z = model.encode(x, g)
        return (model.rest(x, z) + rated(z)).mean(1).sum()

    rate = train.cosine(1e-2, steps, 50)
    for _ in train.fit(loss, weights, steps=steps, lr=rate, progress=False):
        pass


@torch.no_grad()
def know_x4(model):
    """z is x4 and a little noise, and x4 is read off z."""
    for weight in (model.V, model.W):
        weight.copy_(torch.tensor([0.0, 0, 0, 1]))
    model.log_s.fill_(-3)
    model.log_sigma[:, 3] = -3


def made(law, g):
    """name: (encoder and decoder, prior)."""
    born = Linear(g)
    vae, joint, after, there = (copy.deepcopy(born) for _ in range(4))
    first, second, third, fourth, none = (Prior(g) for _ in range(5))
    trained(law, [vae], vae, plain, FIRST, g)
    after.load_state_dict(vae.state_dict())
    know_x4(there)
    trained(law, [first], vae, learned(first, g), SECOND, g)
    trained(law, [joint, second], joint, learned(second, g), FIRST + SECOND, g)
    trained(law, [after, third], after, learned(third, g), SECOND, g)
    trained(law, [fourth], there, learned(fourth, g), FIRST, g)
    trained(law, [there, fourth], there, learned(fourth, g), SECOND, g)
    rows = {"no training": (born, none), "VAE, N(0, 1)": (vae, none), "two stages": (vae, first)}
    rows |= {"jointly": (joint, second), "jointly, after the VAE": (after, third)}
    return rows | {"jointly, begun at x4": (there, fourth)}


@torch.no_grad()
def measured(law, model, prior, g):
    """−ELBO with the best prior, what the prior costs above it, and whether V is at x4; (R,)."""
    z = model.encode(law.draw(4000, g), g)
    denoise = paths.denoiser(prior, PATH, targets.v)
    own = latent.cross_entropy(denoise, PATH, z.reshape(-1, 1), n=10, t_min=T_MIN, generator=g)
    best = log_bumps((z - model.c[:, None]).T.double(), *model.latents(law)).mean(0)
    at_x4 = model.V[:, 3].abs() > model.V[:, :3].norm(dim=1)
    return model.exact(law), own.reshape(z.shape).mean(1) + best, at_x4


def cell(values):
    """Mean ± standard error over trainings."""
    return f"{float(values.mean()):.3f} ± {float(values.std()) / math.sqrt(len(values)):.3f}"


def main() -> None:
    torch.manual_seed(0)
    g, law = torch.Generator().manual_seed(0), Law()
    rows = {name: measured(law, *parts, g) for name, parts in made(law, g).items()}
    print(f"nats, mean ± standard error over {SEEDS} trainings")
    for i, case in enumerate(CASES):
        at = slice(i * SEEDS, (i + 1) * SEEDS)
        floor, normal = (float(v[at][0]) for v in (law.entropy(), law.normal))
        print(f"\n{case}: H(x) = {floor:.3f}; a VAE's least, {normal:.3f}, is a normal's entropy")
        print(f"{'':24s}{'best prior':>16s}{'its own costs':>16s}{'−ELBO':>16s}{'at x4':>10s}")
        for name, (best, more, there) in rows.items():
            cells = [cell(v[at]) for v in (best, more, best + more)]
            line = f"{name:24s}" + "".join(f"{text:>16s}" for text in cells)
            print(f"{line}{f'{int(there[at].sum())} of {SEEDS}':>10s}")


if __name__ == "__main__":
    main()
