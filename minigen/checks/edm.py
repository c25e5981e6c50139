"""Checks of the exercises of lecture 10: EDM's denoiser (Karras's levels: `edm_levels`)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask
from minigen.checks.edm_levels import LEVEL_SLIPS, karras_levels

B, D = 5, 3
draws = partial(checks.draws, std=1.4)


def network(x, sigma) -> Tensor:
    """A stand-in for the network F: what it says depends on its input and on the noise level."""
    if not isinstance(sigma, Tensor) or sigma.shape != (B,):
        got = f"shape {tuple(sigma.shape)}" if isinstance(sigma, Tensor) else f"{sigma!r}"
        raise Wrong(f"F takes one noise level for each sample, sigma of shape ({B},), got {got}")
    if not isinstance(x, Tensor) or x.shape != (B, D):
        got = tuple(x.shape) if isinstance(x, Tensor) else repr(x)
        raise Wrong(f"F takes samples of shape ({B}, {D}), got {got}")
    return torch.sin(1.3 * x + sigma[:, None]) - 0.4


def _root(sigma: Tensor, s: float) -> Tensor:
    return (sigma**2 + s**2).sqrt()


def _skip(sigma: Tensor, s: float) -> Tensor:
    return s**2 / (sigma**2 + s**2)


def _out(sigma: Tensor, s: float) -> Tensor:
    return sigma * s / _root(sigma, s)


def _in(sigma: Tensor, s: float) -> Tensor:
    return 1 / _root(sigma, s)


def _sum(sigma: Tensor, s: float) -> Tensor:
    return sigma + s


def denoised(
    F, x, sigma, s, *, skip=_skip, out=_out, scale=_in, told=lambda sigma: sigma
) -> Tensor:
    """The right D, or one with the slip named: each replaces one of its four parts."""
    c_skip, c_out, c_in = (torch.as_tensor(c(sigma, s)) for c in (skip, out, scale))
    column = lambda c: c[:, None] if c.ndim else c
    return column(c_skip) * x + column(c_out) * F(column(c_in) * x, told(sigma))


DENOISE_SLIPS = {
    "F saw x itself, whose size grows with σ: it takes c_in x": partial(
        denoised, scale=lambda sigma, s: 1.0
    ),
    "your c_in is 1/(σ² + s²): a scale divides by the standard deviation, the root": partial(
        denoised, scale=lambda sigma, s: 1 / (sigma**2 + s**2)
    ),
    "your c_in is 1/σ, as if there were no data in x: it has variance σ² + s²": partial(
        denoised, scale=lambda sigma, s: 1 / sigma
    ),
    "your c_in is 1/√(σ² + 1): that is right for data of variance 1 only": partial(
        denoised, scale=lambda sigma, s: _in(sigma, 1.0)
    ),
    "your c_in is √(σ² + s²): it divides": partial(denoised, scale=_root),
    "your c_out is σs/(σ² + s²), without the root": partial(
        denoised, out=lambda sigma, s: sigma * s / (sigma**2 + s**2)
    ),
    "the root is missing in c_in and c_out: both divide by √(σ² + s²)": partial(
        denoised,
        scale=lambda sigma, s: 1 / (sigma**2 + s**2),
        out=lambda sigma, s: sigma * s / (sigma**2 + s**2),
    ),
    "your c_in is 1/(σ + s): variances add, the standard deviation is √(σ² + s²)": partial(
        denoised, scale=lambda sigma, s: 1 / _sum(sigma, s)
    ),
    "your c_out is σs/(σ + s): variances add, c_out is σs/√(σ² + s²)": partial(
        denoised, out=lambda sigma, s: sigma * s / _sum(sigma, s)
    ),
    "c_in and c_out have σ + s below: variances add, it is √(σ² + s²)": partial(
        denoised,
        scale=lambda sigma, s: 1 / _sum(sigma, s),
        out=lambda sigma, s: sigma * s / _sum(sigma, s),
    ),
    "all three have σ + s where √(σ² + s²) belongs: variances add": partial(
        denoised,
        scale=lambda sigma, s: 1 / _sum(sigma, s),
        out=lambda sigma, s: sigma * s / _sum(sigma, s),
        skip=lambda sigma, s: (s / _sum(sigma, s)) ** 2,
    ),
    "your c_out is σ, which grows without end: at high noise it is s": partial(
        denoised, out=lambda sigma, s: sigma
    ),
    "your c_out is s, also without noise: there x is the data, and c_out 0": partial(
        denoised, out=lambda sigma, s: torch.full_like(sigma, s)
    ),
    "your c_out is σ/√(σ² + s²): at high noise F predicts x0/s, so that c_out is s": partial(
        denoised, out=lambda sigma, s: sigma / _root(sigma, s)
    ),
    "your c_out is its own square, σ²s²/(σ² + s²)": partial(
        denoised, out=lambda sigma, s: _out(sigma, s) ** 2
    ),
    "your c_out has the wrong sign: F predicts (x0 − c_skip x)/c_out": partial(
        denoised, out=lambda sigma, s: -_out(sigma, s)
    ),
    "your c_skip is σ²/(σ² + s²), the noise's share: at low noise x is kept, c_skip → 1": partial(
        denoised, skip=lambda sigma, s: sigma**2 / (sigma**2 + s**2)
    ),
    "your c_skip is 1: with so much of the noise in x, F would have to take it away": partial(
        denoised, skip=lambda sigma, s: 1.0
    ),
    "your c_skip is 0: at low noise F would have to copy x": partial(
        denoised, skip=lambda sigma, s: 0.0
    ),
    "your c_skip is s/√(σ² + s²), a root too many": partial(
        denoised, skip=lambda sigma, s: s / _root(sigma, s)
    ),
    "your c_skip is s/(σ² + s²): its numerator is the variance s²": partial(
        denoised, skip=lambda sigma, s: s / (sigma**2 + s**2)
    ),
    "c_skip and c_out have changed places": partial(denoised, skip=_out, out=_skip),
    "the skip has c_in x in it: c_skip is for x itself": partial(
        denoised, skip=lambda sigma, s: _skip(sigma, s) * _in(sigma, s)
    ),
    "you took 1 for sigma_data, whatever it is": lambda F, x, sigma, s: denoised(F, x, sigma, 1.0),
    "you took 0.5 for sigma_data, that of Karras's images": (
        lambda F, x, sigma, s: denoised(F, x, sigma, 0.5)
    ),
    "sigma_data is a standard deviation, and you took it for a variance": (
        lambda F, x, sigma, s: denoised(F, x, sigma, s**0.5)
    ),
    "sigma is a standard deviation, and you took it for a variance": (
        lambda F, x, sigma, s: denoised(F, x, sigma.sqrt(), s, told=lambda _: sigma)
    ),
    "every sample has its own noise level, you used the first one's for all": (
        lambda F, x, sigma, s: denoised(F, x, sigma[:1].expand(len(x)), s)
    ),
    "the coefficients took the first sample's noise level for all": (
        lambda F, x, sigma, s: denoised(F, x, sigma[:1].expand(len(x)), s, told=lambda _: sigma)
    ),
    "F was told ¼ log σ, as Karras's network is; this one takes σ itself": partial(
        denoised, told=lambda sigma: sigma.log() / 4
    ),
    "F was told log σ; this one takes σ itself": partial(denoised, told=torch.log),
    "F was told c_in σ: only the state is scaled": (
        lambda F, x, sigma, s: denoised(F, x, sigma, s, told=lambda k: k * _in(k, s))
    ),
    "that is F's own answer: read it as x0, c_skip x + c_out F": partial(
        denoised, skip=lambda sigma, s: 0.0, out=lambda sigma, s: 1.0
    ),
    "you read F as the noise, x − σ F: it predicts (x0 − c_skip x)/c_out": partial(
        denoised, skip=lambda sigma, s: 1.0, out=lambda sigma, s: -sigma
    ),
    "c_skip x alone is left: what F says is added to it, times c_out": partial(
        denoised, out=lambda sigma, s: 0.0
    ),
    "the skip is left out, and F's answer not read as x0: that is c_in x": (
        lambda F, x, sigma, s: _in(sigma, s)[:, None] * x
    ),
    "you return (F − c_skip x)/c_out, what F should have said were it x0": (
        lambda F, x, sigma, s: (
            (F(_in(sigma, s)[:, None] * x, sigma) - _skip(sigma, s)[:, None] * x)
            / _out(sigma, s)[:, None]
        )
    ),
}


def edm_denoise(function: Callable) -> None:
    """Checks edm_denoise(F, x, sigma, sigma_data) -> (B, dim), EDM's estimate of x0.

    x = x0 + sigma eps (B, dim), sigma (B,), F(x_in, sigma) -> (B, dim). Raises NotYet, or Wrong
    with a diagnosis.
    """
    x, s = draws(B, D, seed=31), 0.6 + 0.2 * float(torch.sigmoid(draws(1, seed=32)))
    sigma = torch.exp(0.8 * draws(B, seed=33, mean=0.0))
    ask("D(x; σ)", function, denoised, DENOISE_SLIPS, network, x, sigma, s)
    print(f"right: {B} samples, each at its own noise level, with sigma_data = {s:.3f}")


SLIPS = {edm_denoise: DENOISE_SLIPS, karras_levels: LEVEL_SLIPS}
