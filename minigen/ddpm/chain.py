"""The chain: its posterior, the model's step back, and the sampler that walks it."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.normal import Normal
from minigen.paths import GaussianPath, Readout, bridge, reading, walk
from minigen.shapes import (
    Denoiser,
    Label,
    Net,
    Time,
    X,
    check_generator,
    check_grid,
    check_pair,
    clock,
    like,
    readable,
    wide,
)

Variance = Callable[[GaussianPath, Time, Time], Time]  # (path, t, s) -> variance of p(xs | xt)
Learned = Callable[[X, Time, Time], X]  # (xt, t, s) -> that of each value, from a network


# One step, forwards and back --------------------------------------------------------------------


def forward_variance(path: GaussianPath, t: Time, s: Time) -> Time:
    """β = b_t² (1 − SNR_t/SNR_s), the variance of q(xt | xs); β_t at neighbouring knots."""
    return bridge(path, t, s).forward


def posterior_variance(path: GaussianPath, t: Time, s: Time) -> Time:
    """β̃ = b_s² (1 − SNR_t/SNR_s), the variance of q(xs | xt, x0); 0 at s = 0. [Ho et al., eq. 7]"""
    return bridge(path, t, s).backward


def interpolated_variance(path: GaussianPath, t: Time, s: Time, v: Tensor) -> Tensor:
    """exp(v log β + (1 − v) log β̃), between β̃ (v = 0) and β (v = 1). [Nichol & Dhariwal, eq. 15]

    `v` has the shape of the data. β̃ = 0 at s = 0: there the β̃ of the step before takes its place.
    """
    low = torch.log(never_zero(path, t, s, posterior_variance))
    return torch.exp(torch.lerp(like(low, v), like(torch.log(forward_variance(path, t, s)), v), v))


def never_zero(path: GaussianPath, t: Time, s: Time, variance: Variance) -> Time:
    """The variance, or where that is 0 (β̃ into the data) that of the step before, 2t − s to t."""
    var = variance(path, t, s)
    none, before = var <= 0, (2 * t - s).clamp(max=1)
    if readable(none) and bool((none & (before <= t)).any()):
        raise ValueError(
            "the variance of the step is 0, and no step is before it to lend its own: give "
            "variance=ddpm.forward_variance, or more times"
        )
    return torch.where(
        none, variance(path, torch.where(none, before, t), torch.where(none, t, s)), var
    )


def posterior(path: GaussianPath, x0: X, xt: X, t: Time, s: Time) -> Normal:
    """q(xs | xt, x0) for 0 ≤ s < t: what the chain's step back looks like once x0 is known.

    mean = a_s (1 − r) x0 + (a_t/a_s)(b_s/b_t)² xt, var = b_s² (1 − r), r = SNR_t/SNR_s; at
    neighbouring knots √ᾱ_{t−1} β_t/(1 − ᾱ_t) x0 + √α_t (1 − ᾱ_{t−1})/(1 − ᾱ_t) xt and β̃_t.
    [Ho et al. 2020, eq. 6–7]
    """
    check_pair(x0, xt, t)
    step = bridge(path, wide(t), wide(s))
    mean = like(step.to_x0, x0) * x0 + like(step.to_xt, xt) * xt
    return Normal(mean, step.backward.to(xt.dtype))


# The model's step back --------------------------------------------------------------------------


def eps_and_v(out: Tensor, xt: X) -> tuple[X, X]:
    """(ε_θ, v) of a two-output net, the halves of its first data axis, v = (1 + u)/2."""
    if out.shape[1] != 2 * xt.shape[1]:
        raise ValueError(
            f"a learned variance needs two outputs a value: for states {tuple(xt.shape)} the net "
            f"gave {tuple(out.shape)}; build it with out=2"
        )
    eps, u = out.chunk(2, 1)
    return eps, (1 + u) / 2


def learned_variance(
    net: Net, path: GaussianPath, label: Label | int | None = None
) -> tuple[Denoiser, Learned]:
    """The denoiser and the variance of a network with two outputs a value, (ε_θ, u).

    The variance (xt, t, s) is `interpolated_variance` with v = (1 + u)/2, half way for a net that
    is zero at birth; give it to `ancestral`, `reverse` or `bound` as `learned=`. The denoiser may
    be clipped or guided. One forward pass serves both. [Nichol & Dhariwal 2021, section 3.1]
    """
    both = Readout(net, path, targets.eps, label)
    last = (None, None, None)  # xt, t and v of the latest call

    def denoise(xt: X, t: Time) -> X:
        nonlocal last
        eps, v = eps_and_v(net(xt, t, both.labels(xt)), xt)
        last = xt, t, v
        return targets.convert(targets.eps, targets.x0, path, eps, xt, t)

    def variance(xt: X, t: Time, s: Time) -> X:
        nonlocal last
        if last[0] is not xt or last[1] is not t:
            denoise(xt, t)
        v, last = last[2], (None, None, None)  # used once: the weights may change before the next
        return interpolated_variance(path, wide(t), wide(s), v)

    return denoise, variance


def reverse(
    denoise: Denoiser,
    path: GaussianPath,
    xt: X,
    t: Time,
    s: Time,
    *,
    variance: Variance = posterior_variance,
    learned: Learned | None = None,
) -> Normal:
    """p(xs | xt): the posterior with the denoiser's E[x0 | xt] in place of x0.

    Its variance is variance(path, t, s), or learned(xt, t, s). [Ho et al. 2020, section 3.2]
    """
    mean = posterior(path, denoise(xt, t), xt, t, s).mean
    if learned is not None:
        return Normal(mean, learned(xt, t, s))
    return Normal(mean, variance(path, wide(t), wide(s)).to(xt.dtype))


# Sampling ---------------------------------------------------------------------------------------


def ancestral(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    variance: Variance = posterior_variance,
    learned: Learned | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """Samples p(xs | xt) down the grid, without gradients, and yields each state.

    x ← a_s (1 − r) x̂0 + (a_t/a_s)(b_s/b_t)² x + √variance z, r = SNR_t/SNR_s.

    ts falls from xT's time, any sub-sequence; a step into the data, s = 0, adds no noise.
    `variance` is `posterior_variance` or `forward_variance`; `learned(xt, t, s)` stands in for it
    where it is given, the second of the two functions of `learned_variance`.
    [Ho et al. 2020, Algorithm 2]
    """
    ts = check_grid(ts)
    t, s = ts[:-1], ts[1:]
    if learned is not None:
        return _learned_walk(denoise, path, xT, ts, learned, generator)
    step, std = bridge(path, t, s), variance(path, t, s).sqrt()
    std[s == 0] = 0
    x0_hat = reading(denoise, path, targets.x0)
    return walk(x0_hat, xT, t, step.to_xt, step.to_x0, std, generator=generator)


def _learned_walk(denoise, path, xT, ts, learned, generator) -> Iterator[X]:
    check_generator(xT, generator)
    times = clock(ts, xT)

    def states() -> Iterator[X]:
        x = xT
        for (t, s), end in zip(pairwise(times), ts[1:].tolist(), strict=True):
            with torch.no_grad():
                if end == 0:
                    x = posterior(path, denoise(x, t), x, t, s).mean
                else:
                    p = reverse(denoise, path, x, t, s, learned=learned)
                    x = p.sample(generator=generator)
            yield x

    return states()
