"""Denoising diffusion probabilistic models: the chain, its posterior, the bound, the sampler.

Times t are continuous, 0 = data; step i of a chain of T is t = i/T. Between any two times s < t of
a path, q(xt | xs) = N(α xs, β) with α = a_t/a_s and β = b_t² (1 − SNR_t/SNR_s), which at
neighbouring knots of `paths.DDPM` are √α_t and β_t. So every formula here holds for sub-sequences
too.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen import targets
from minigen.normal import Normal, kl, log_bins
from minigen.paths import GaussianPath, NetDenoiser, along, denoiser
from minigen.shapes import Denoiser, Label, Net, Time, X, check_grid, check_time, like, noise, wide

Variance = Callable[[GaussianPath, Time, Time], Time]  # (path, t, s) -> variance of p(xs | xt)


# The tables -------------------------------------------------------------------------------------


def linear_betas(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Float[Tensor, "T"]:
    """β from beta_1 to beta_T in equal steps, (T,) float64. [Ho et al. 2020, section 4]"""
    return torch.linspace(beta_1, beta_T, T, dtype=torch.float64)


def quadratic_betas(
    T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02
) -> Float[Tensor, "T"]:
    """√β from √beta_1 to √beta_T in equal steps, (T,) float64. [Song, Meng & Ermon 2021]"""
    return torch.linspace(beta_1**0.5, beta_T**0.5, T, dtype=torch.float64).square()


def sigmoid_betas(T: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Float[Tensor, "T"]:
    """β = beta_1 + (beta_T − beta_1) σ(u), u from −6 to 6 in equal steps, (T,) float64."""
    u = torch.linspace(-6, 6, T, dtype=torch.float64)
    return beta_1 + (beta_T - beta_1) * torch.sigmoid(u)


def cosine_betas(T: int = 1000, s: float = 0.008) -> Float[Tensor, "T"]:
    """β_t = min(1 − ᾱ_t/ᾱ_{t−1}, 0.999), ᾱ_t = f(t)/f(0), f(t) = cos²((t/T + s)/(1 + s) π/2).

    (T,) float64. The cut keeps the last step from destroying everything. [Nichol & Dhariwal 2021,
    eq. 17]
    """
    t = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((t + s) / (1 + s) * torch.pi / 2).square()
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


# One step, forwards and back --------------------------------------------------------------------


def bridge(a_t: Time, b_t: Time, a_s: Time, b_s: Time) -> tuple[Time, Time, Time, Time]:
    """(k0, k, β, β̃) of a step between t and s < t, from the path's coefficients at both.

    E[xs | xt, x0] = k0 x0 + k xt, Var(xt | xs) = β, Var(xs | xt, x0) = β̃. [Kingma et al. 2021]
    """
    # 1 − SNR_t/SNR_s, the step's share of the noise in xt; 1 at s = 0
    share = -torch.expm1(2 * torch.log((a_t / a_s) * (b_s / b_t)))
    return a_s * share, (a_t / a_s) * (b_s / b_t) ** 2, b_t**2 * share, b_s**2 * share


def _bridge(path: GaussianPath, t: Time, s: Time) -> tuple[Time, Time, Time, Time]:
    return bridge(path.a(t), path.b(t), path.a(s), path.b(s))


def forward_variance(path: GaussianPath, t: Time, s: Time) -> Time:
    """β = b_t² (1 − SNR_t/SNR_s), the variance of q(xt | xs); β_t at neighbouring knots."""
    return _bridge(path, t, s)[2]


def posterior_variance(path: GaussianPath, t: Time, s: Time) -> Time:
    """β̃ = b_s² (1 − SNR_t/SNR_s), the variance of q(xs | xt, x0); 0 at s = 0. [Ho et al., eq. 7]"""
    return _bridge(path, t, s)[3]


def interpolated_variance(path: GaussianPath, t: Time, s: Time, v: Tensor) -> Tensor:
    """exp(v log β + (1 − v) log β̃), between β̃ (v = 0) and β (v = 1). [Nichol & Dhariwal, eq. 15]

    `v` has the shape of the data. β̃ = 0 at s = 0: there the β̃ of the step before takes its place.
    """
    low = torch.log(_positive(path, t, s, posterior_variance))
    return torch.exp(torch.lerp(like(low, v), like(torch.log(forward_variance(path, t, s)), v), v))


def _positive(path: GaussianPath, t: Time, s: Time, variance: Variance) -> Time:
    """The variance, or where that is 0 (β̃ into the data) that of the step before, 2t − s to t."""
    var = variance(path, t, s)
    return torch.where(var > 0, var, variance(path, (2 * t - s).clamp(max=1), t))


def posterior(path: GaussianPath, x0: X, xt: X, t: Time, s: Time) -> Normal:
    """q(xs | xt, x0) for 0 ≤ s < t: what the chain's step back looks like once x0 is known.

    mean = a_s (1 − r) x0 + (a_t/a_s)(b_s/b_t)² xt, var = b_s² (1 − r), r = SNR_t/SNR_s; at
    neighbouring knots √ᾱ_{t−1} β_t/(1 − ᾱ_t) x0 + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) xt and β̃_t. [Ho et
    al. 2020, eq. 6–7]
    Raises ValueError unless s < t.
    """
    if check_time(t).device.type == "cpu" and not bool((check_time(s) < t).all()):
        raise ValueError(f"the posterior goes back in time and needs s < t, got t = {t}, s = {s}")
    t, s = wide(t), wide(s)
    k0, k, _, var = _bridge(path, t, s)
    return Normal(like(k0, x0) * x0 + like(k, xt) * xt, var.to(xt.dtype))


# Losses -----------------------------------------------------------------------------------------


def simple_loss(
    net: Net, path: GaussianPath, x0: X, t: Time, eps: X, label: Label | None = None
) -> Float[Tensor, " B"]:
    """‖ε_θ(xt, t) − eps‖² / D for each sample. [Ho et al. 2020, eq. 14]"""
    return targets.loss(net, path, targets.eps, x0, eps, t, label)


def bound_weight(
    path: GaussianPath, t: Time, s: Time, variance: Variance = forward_variance
) -> Time:
    """The weight of ‖ε_θ − eps‖² (a sum over axes) in the bound's term at t, in nats.

    β_t² / (2 ς² α_t (1 − ᾱ_t)) with ς² = variance(path, t, s) > 0; with it,
    `bound_weight(...) * D * simple_loss(...)` is the term but for a constant. [Ho et al. 2020, eq.
    12]
    """
    k0 = _bridge(path, t, s)[0]
    return (k0 * path.sigma(t)) ** 2 / (2 * variance(path, t, s))


# The model's step back and the bound ------------------------------------------------------------


@dataclass(frozen=True)
class Learned:
    """The denoiser of a network with two outputs a value, (ε_θ, u), which brings its own variance.

    Its variance is `interpolated_variance` with v = (1 + u)/2, half way for a net that is zero at
    birth. The outputs are the halves of the net's first data axis. [Nichol & Dhariwal 2021, section
    3.1]
    """

    net: Net
    path: GaussianPath
    label: Label | int | None = None

    def split(self, xt: X, t: Time) -> tuple[X, X]:
        """x0_hat and v from one forward pass."""
        labels = NetDenoiser(self.net, self.path, targets.eps, self.label)._labels(xt)
        return _read(self.path, self.net(xt, t, labels), xt, t)[1:]

    def __call__(self, xt: X, t: Time) -> X:
        return self.split(xt, t)[0]


def _read(path: GaussianPath, out: Tensor, xt: X, t: Time) -> tuple[X, X, X]:
    """(ε_θ, x0_hat, v) of a two-output net; no gradient flows through x0_hat, hence the mean."""
    if out.shape[1] != 2 * xt.shape[1]:
        raise ValueError(
            f"a learned variance needs two outputs a value: for states {tuple(xt.shape)} the net "
            f"gave {tuple(out.shape)}; build it with out=2"
        )
    eps, u = out.chunk(2, 1)
    x0_hat, _ = targets.solve(targets.eps, path, eps.detach(), xt, t)
    return eps, x0_hat, (1 + u) / 2


def reverse(
    denoise: Denoiser,
    path: GaussianPath,
    xt: X,
    t: Time,
    s: Time,
    *,
    variance: Variance = posterior_variance,
) -> Normal:
    """p(xs | xt): the posterior with the denoiser's E[x0 | xt] in place of x0.

    Its variance is variance(path, t, s), or a `Learned` denoiser's own. [Ho et al. 2020, section
    3.2]
    """
    if isinstance(denoise, Learned):
        x0_hat, v = denoise.split(xt, t)
        var = interpolated_variance(path, t, s, v)
    else:
        x0_hat, var = denoise(xt, t), variance(path, wide(t), wide(s)).to(xt.dtype)
    return Normal(posterior(path, x0_hat, xt, t, s).mean, var)


@dataclass(frozen=True)
class Bound:
    """The variational bound −log p(x0) ≤ prior + Σ steps + reconstruction: mean over samples, in
    nats.

    `steps[i − 1]` is E KL(q(x_{i−1} | x_i, x0) ‖ p(x_{i−1} | x_i)) for i = 2 … T; steps[0] = 0, for
    that step is `reconstruction` = −E log p(x0 | x_1). `stderr` is the standard error of `total`.
    """

    prior: Float[Tensor, ""]
    steps: Float[Tensor, " T"]
    reconstruction: Float[Tensor, ""]
    stderr: Float[Tensor, ""]
    dim: int

    @property
    def total(self) -> Float[Tensor, ""]:
        """prior + Σ steps + reconstruction, nats per sample."""
        return self.prior + self.steps.sum() + self.reconstruction

    @property
    def bits_per_dim(self) -> Float[Tensor, ""]:
        """total / (D log 2)."""
        return self.total / (self.dim * math.log(2))


@torch.no_grad()
def bound(
    net_or_denoiser: Net | Denoiser,
    path: GaussianPath,
    x0: X,
    *,
    ts: Float[Tensor, " N"] | None = None,
    variance: Variance = posterior_variance,
    label: Label | int | None = None,
    levels: int | None = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """The variational bound on −log p(x0), term by term, with one draw of xt a term. [Ho et al.,
    eq. 5]

    prior KL(q(x_T | x0) ‖ N(0, I)); KL(q(xs | xt, x0) ‖ p(xs | xt)) for each step of `ts` (falling,
    to 0; the knots of `paths.DDPM` unless given); −log p(x0 | x_1), a density, or with `levels` the
    probability of x0's bin among so many grey levels on [−1, 1]. An nn.Module is read as an
    ε-network, any other callable as a denoiser. Where `variance` is 0 in the last step, the step
    before lends its own.
    Raises ValueError for NaN in x0, a grid that does not end at 0, or a path without knots and no
    `ts`.
    """
    module = isinstance(net_or_denoiser, nn.Module)
    denoise = denoiser(net_or_denoiser, path, targets.eps, label) if module else net_or_denoiser
    ts = check_grid(_knots(path) if ts is None else ts)
    if ts[-1] != 0:
        raise ValueError(f"the bound speaks of the data, so ts must end at 0, not at {ts[-1]:g}")
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("x0 holds NaN or infinite values")
    t, s = ts[:-1], ts[1:]
    a, b, var = path.a(t), path.b(t), _positive(path, t, s, variance)
    k0, k, _, q_var = _bridge(path, t, s)
    # to Python floats, once: the loop then waits for no device
    a, b, k0, k = a.tolist(), b.tolist(), k0.tolist(), k.tolist()
    var, q_var, t, s = (c.to(x0).unbind() for c in (var, q_var, t, s))
    one = torch.ones_like(var[0])
    terms = [kl(Normal(a[0] * x0, one * b[0] ** 2), Normal(torch.zeros_like(x0), one))]
    for i, x0_hat in enumerate(along(denoise, ts[:-1], x0)):
        xt = a[i] * x0 + b[i] * noise(x0, generator=generator)
        if isinstance(denoise, Learned):
            guess, v = denoise.split(xt, t[i])
            p = Normal(k0[i] * guess + k[i] * xt, interpolated_variance(path, t[i], s[i], v))
        else:
            p = Normal(k0[i] * x0_hat(xt) + k[i] * xt, var[i])
        if i < len(t) - 1:
            terms.append(kl(Normal(k0[i] * x0 + k[i] * xt, q_var[i]), p))
        else:
            terms.append(-log_bins(p, x0, levels) if levels else -p.log_prob(x0))
    terms = torch.stack(terms)
    steps = terms[1:].flip(0).mean(1)
    stderr = terms.sum(0).std() / len(x0) ** 0.5
    return Bound(
        terms[0].mean(),
        torch.cat([torch.zeros_like(steps[:1]), steps[1:]]),
        steps[0],
        stderr,
        x0[0].numel(),
    )


def _knots(path: GaussianPath) -> Float[Tensor, " N"]:
    """The times of a chain, T/T … 0/T."""
    if not hasattr(path, "T"):
        raise ValueError(f"{path} has no knots: give the grid, ts=torch.linspace(1, 0, n + 1)")
    return torch.arange(path.T, -1, -1, dtype=torch.float64) / path.T


def hybrid_loss(
    net: Net,
    path: GaussianPath,
    x0: X,
    t: Time,
    eps: X,
    label: Label | None = None,
    *,
    weight: float = 1e-3,
) -> Float[Tensor, " B"]:
    """L_simple + weight · T · L_t / D of a two-output net, L_t the bound's term at t in nats, (B,).

    In the second part the mean is held fixed, so that it teaches the variance only.
    [Nichol & Dhariwal 2021, eq. 16]. t must lie on the knots i/T of the path, i ≥ 1.
    """
    knots = (wide(t) * path.T).round().clamp(min=1)
    if t.device.type == "cpu" and bool(((knots - t * path.T).abs() > 1e-2).any()):
        raise ValueError(f"hybrid_loss needs t at the knots i/{path.T}, i ≥ 1, got {t}")
    t, s = knots / path.T, (knots - 1) / path.T
    xt = path.mix(x0, eps, t)
    out, x0_hat, v = _read(path, net(xt, t.to(xt.dtype), label), xt, t)
    q = posterior(path, x0, xt, t, s)
    p = Normal(posterior(path, x0_hat, xt, t, s).mean, interpolated_variance(path, t, s, v))
    term = torch.where(s > 0, kl(q, p), -p.log_prob(x0)) / x0[0].numel()
    return (out - eps).square().flatten(1).mean(1) + weight * path.T * term


# Sampling ---------------------------------------------------------------------------------------


def ancestral(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    variance: Variance = posterior_variance,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """Samples p(xs | xt) down the grid, without gradients, and yields each state: x ← k0 E[x0 | x]
    + k x + √variance z.

    ts falls from xT's time to 0, any sub-sequence; the last step adds no noise. `variance` is
    `posterior_variance` or `forward_variance`; a `Learned` denoiser uses its own. [Ho et al.,
    Algorithm 2]
    Raises ValueError for a grid that does not fall, TypeError for xT of another dtype than the net.
    """
    ts, x = check_grid(ts), xT
    t, s = ts[:-1], ts[1:]
    if isinstance(denoise, Learned):
        for i in range(len(t)):
            with torch.no_grad():
                p = reverse(denoise, path, x, t[i].to(x), s[i].to(x))
                x = p.sample(generator=generator) if i < len(t) - 1 else p.mean
            yield x
        return
    k0, k = (c.tolist() for c in _bridge(path, t, s)[:2])
    std = variance(path, t, s).sqrt().tolist()
    for i, x0_hat in enumerate(along(denoise, t, xT)):
        with torch.no_grad():
            x = torch.add(x * k[i], x0_hat(x), alpha=k0[i])
            if i < len(std) - 1:
                x.add_(noise(x, generator=generator), alpha=std[i])
        yield x
