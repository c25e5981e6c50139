"""Lecture 16: does a trained network end on the product ∏ρ_n, and is it the step that shrinks?

N(0, 0.5²) data, Karras et al.'s N levels from 0.002 to 80; within `Consistency` a gain a level, or
a perceptron, trained on pairs of neighbouring levels, weights averaged, alike for all targets.
Three of these: x_s of the same pair (training), a DDIM step of the exact denoiser (distillation),
and the exact flow map's step, the control: what the network or the optimiser does to the spread
shows there, too. Columns: the standard deviation of 200,000 one-step samples over the right one,
three seeds; its limit, the product or 1; and how many standard errors the mean is off.
"""

import torch

from minigen import distill, edm, nets, oracle, paths, train

SEEDS, B, STD = 3, 1024, 0.5
KARRAS, T_MIN = paths.EDM(80.0), 0.002 / 80
LAW = oracle.GaussianMixture.isotropic(torch.zeros(1, 1), STD)


def log_time(t):
    """Features of log σ, as the low levels are close in t."""
    return nets.Sinusoidal(16, lowest=0.5, highest=16.0)((80 * t).log() / 10)


def flow_map(xt, t, s):
    """Where the ODE takes xt: x √((σ_d² + σ_s²)/(σ_d² + σ_t²)) on a normal law."""
    spread = lambda t: STD**2 + KARRAS.sigma(t).square()
    return xt * (spread(s) / spread(t)).sqrt()[:, None]


def loss_of(kind, f, x0, eps, t, s):
    """The squares of the kind asked for, (B,)."""
    if kind == "exact steps":
        xt = KARRAS.mix(x0, eps, t)
        with torch.no_grad():
            goal = f(flow_map(xt, t, s), s)
        return (f(xt, t) - goal).square().mean(1)
    guide = LAW.denoiser(KARRAS) if kind == "DDIM steps" else None
    return distill.consistency_loss(f, f, KARRAS, x0, eps, t, s, teacher=guide)


class Gains(torch.nn.Module):
    """net(x, t) = w_n x on level n: all that a normal law asks for."""

    def __init__(self, ts):
        super().__init__()
        self.ts, self.w = ts, torch.nn.Parameter(torch.zeros(len(ts)))

    def forward(self, x, t):
        return x * self.w[torch.searchsorted(self.ts, t)].reshape(-1, 1)


def perceptron(ts):
    """The same net for all levels."""
    return nets.MLP(1, hidden=64, depth=2, embedding=log_time)


NETS = {  # how it is made, its rate, its steps, the numbers of levels
    "gains": (Gains, 2e-2, 2000, (10, 20, 40)),
    "perceptron": (perceptron, 5e-3, 3000, (10,)),
}


def times(n):
    """The levels as rising times; the first is t_min to the last bit, below which f refuses."""
    return edm.grid(KARRAS, n)[:-1].flip(0).float().clamp(min=T_MIN)


def share(form, kind, n, seed):
    """Standard deviation of one-step samples over that of the data at t_min."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    (make, lr, steps, _), ts = NETS[form], times(n)
    net = make(ts)
    f = distill.Consistency(net, KARRAS, STD, T_MIN)
    ema = train.Ema(net, 0.995)

    def loss():
        x0, _ = LAW.sample(B, generator=g)
        eps, i = torch.randn(B, 1, generator=g), torch.randint(1, n, (B,), generator=g)
        return loss_of(kind, f, x0, eps, ts[i], ts[i - 1]).mean()

    rate = train.cosine(lr, steps, warmup=50)
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    xT = (STD**2 + 80**2) ** 0.5 * torch.randn(200_000, 1, generator=g)
    with torch.no_grad():
        return float(f(xT, torch.tensor(1.0)).std()) / (STD**2 + 0.002**2) ** 0.5


def line(form, n, kind, product):
    """The row of one net, number of levels and kind of target."""
    runs = torch.tensor([share(form, kind, n, seed) for seed in range(SEEDS)]).double()
    mean, error = float(runs.mean()), float(runs.std()) / SEEDS**0.5
    right = 1.0 if kind == "exact steps" else product
    cells = f"{mean:.3f} ± {error:.3f}", f"{right:.3f}", f"{(mean - right) / error:+.1f}"
    return f"{form:12s}{n:6d}  {kind:12s}" + "".join(f"{cell:>18s}" for cell in cells)


def main():
    heads = "share of the std", "limit", "errors off"
    print(f"{'net':12s}levels  {'target':12s}" + "".join(f"{head:>18s}" for head in heads))
    for form in NETS:
        for n in NETS[form][-1]:
            product = float(distill.training_shrinkage(KARRAS.sigma(times(n).double()), STD))
            for kind in ("training", "DDIM steps", "exact steps"):
                print(line(form, n, kind, product), flush=True)


if __name__ == "__main__":
    main()
