"""What DDPM minimises: the simple loss, and the variational bound that it stands for."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen import targets
from minigen.normal import Normal, kl, log_bins
from minigen.paths import GaussianPath, bridge, denoiser, reading
from minigen.shapes import (
    Denoiser,
    Label,
    Net,
    Time,
    X,
    check_batch,
    check_finite,
    check_grid,
    clock,
    noise,
    readable,
    wide,
)

from .chain import (
    Learned,
    Variance,
    eps_and_v,
    forward_variance,
    interpolated_variance,
    never_zero,
    posterior,
    posterior_variance,
)


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
    `bound_weight(...) * D * simple_loss(...)` is the term but for a constant.
    [Ho et al. 2020, eq. 12]
    """
    return (bridge(path, t, s).to_x0 * path.sigma(t)) ** 2 / (2 * variance(path, t, s))


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
    """L_simple + weight · T · L_t / D of a two-output net, L_t the bound's term at t in nats.

    In the second part the mean is held fixed, so that it teaches the variance only. t must lie on
    the knots i/T of the path, i ≥ 1. [Nichol & Dhariwal 2021, eq. 16]
    """
    _knots(path)  # there must be some
    knots = (wide(t) * path.T).round().clamp(min=1)
    if readable(t) and bool(((knots - t * path.T).abs() > 1e-2).any()):
        raise ValueError(f"hybrid_loss needs t at the knots i/{path.T}, i ≥ 1, got {t}")
    t, s = knots / path.T, (knots - 1) / path.T
    xt = path.mix(x0, eps, t)
    out, v = eps_and_v(net(xt, t.to(torch.promote_types(xt.dtype, torch.float32)), label), xt)
    x0_hat = targets.convert(targets.eps, targets.x0, path, out.detach(), xt, t)
    q = posterior(path, x0, xt, t, s)  # a point at s = 0, where the term is the reconstruction's:
    q = Normal(q.mean, torch.where(s > 0, q.var, 1.0))  # any variance does whose log has a gradient
    p = Normal(posterior(path, x0_hat, xt, t, s).mean, interpolated_variance(path, t, s, v))
    term = torch.where(s > 0, kl(q, p), -p.log_prob(x0)) / x0[0].numel()
    return (out - eps).square().flatten(1).mean(1) + weight * path.T * term


@dataclass(frozen=True)
class Bound:
    """−log p(x0) ≤ prior + Σ steps + reconstruction: each a mean over samples, in nats.

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
    learned: Learned | None = None,
    label: Label | int | None = None,
    levels: int | None = None,
    generator: torch.Generator | None = None,
) -> Bound:
    """The variational bound on −log p(x0), term by term, with one draw of xt a term.

    prior KL(q(x_T | x0) ‖ N(0, I)); KL(q(xs | xt, x0) ‖ p(xs | xt)) for each step of `ts` (falling,
    to 0; the knots of `paths.DDPM` unless given); −log p(x0 | x_1), a density, or with `levels` the
    probability of x0's bin among so many grey levels on [−1, 1]. An nn.Module is read as an
    ε-network, any other callable as a denoiser. Where `variance` is 0 in the last step, the step
    before lends its own. [Ho et al. 2020, eq. 5]
    """
    module = isinstance(net_or_denoiser, nn.Module)
    denoise = denoiser(net_or_denoiser, path, targets.eps, label) if module else net_or_denoiser
    ts = check_grid(_knots(path) if ts is None else ts)
    if ts[-1] != 0:
        raise ValueError(f"the bound speaks of the data, so ts must end at 0, not at {ts[-1]:g}")
    check_batch(x0, "x0")
    check_finite(x0)
    if levels is not None and levels < 2:
        raise ValueError(f"levels are grey levels on [−1, 1], at least 2, got {levels}")
    t, s = ts[:-1], ts[1:]
    step, var = bridge(path, t, s), never_zero(path, t, s, variance)
    # to Python floats, once: the loop then waits for no device
    a, b, k0, k = (c.tolist() for c in (path.a(t), path.b(t), step.to_x0, step.to_xt))
    var, q_var = (c.to(x0).unbind() for c in (var, step.backward))
    x0_hat, times = reading(denoise, path, targets.x0).prepared(t, x0)
    one, ends = torch.ones_like(var[0]), clock(s, x0)
    terms = [kl(Normal(a[0] * x0, one * b[0] ** 2), Normal(torch.zeros_like(x0), one))]
    for i in range(len(t)):
        xt = a[i] * x0 + b[i] * noise(x0, generator=generator)
        mean = k0[i] * x0_hat(xt, i) + k[i] * xt
        p = Normal(mean, var[i] if learned is None else learned(xt, times[i], ends[i]))
        if i < len(t) - 1:
            terms.append(kl(Normal(k0[i] * x0 + k[i] * xt, q_var[i]), p))
        else:
            terms.append(-log_bins(p, x0, levels) if levels else -p.log_prob(x0))
    return _summed(torch.stack(terms), x0[0].numel())


def _knots(path: GaussianPath) -> Float[Tensor, " N"]:
    """The times of a chain, T/T … 0/T."""
    if not hasattr(path, "T"):
        raise ValueError(
            f"{path} has no knots: take a paths.DDPM, or ts=torch.linspace(1, 0, n + 1)"
        )
    return torch.arange(path.T, -1, -1, dtype=torch.float64) / path.T


def _summed(terms: Float[Tensor, "N B"], dim: int) -> Bound:
    """The means over samples of the prior's term and of each step's, noise first."""
    steps = terms[1:].flip(0).mean(1)
    n = terms.shape[1]
    stderr = terms.sum(0).std() / n**0.5 if n > 1 else torch.full_like(steps[0], torch.nan)
    rest = torch.cat([torch.zeros_like(steps[:1]), steps[1:]])
    return Bound(terms[0].mean(), rest, steps[0], stderr, dim)
