"""Checks of the exercises of lecture 13, diffusion in a latent space."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws
from minigen.checks.latent_upsampler import UPSAMPLED_SLIPS, upsampled
from minigen.paths import VP

B, N, T_MIN = 5, 3, 0.02  # latents, noise levels for each, the least time
PATH = VP(beta_max=3.0)  # a(1) is not small: what is left of z0 at t = 1 can be seen


def prior(zt, t) -> Tensor:
    """E[z0 | zt] of the prior ⅓ N(−1.2, .5²) + ⅔ N(.9, .7²), number by number."""
    if not isinstance(t, Tensor) or zt.ndim != 1 or t.shape != zt.shape:
        got = tuple(t.shape) if isinstance(t, Tensor) else repr(t)
        raise Wrong(
            f"the denoiser takes latents (B,) and a time for each, (B,), one level after another; "
            f"got latents {tuple(zt.shape)}, t {got}"
        )
    weights, means, var = zt.new_tensor([[1 / 3, 2 / 3], [-1.2, 0.9], [0.25, 0.49]])
    a, b2, zt = PATH.a(t)[..., None], PATH.b2(t)[..., None], zt[..., None]
    total = a**2 * var + b2
    p = torch.softmax(weights.log() - 0.5 * ((zt - a * means) ** 2 / total + total.log()), -1)
    return (p * (means + a * var / total * (zt - a * means))).sum(-1)


def _ends(t_min) -> Tensor:
    return torch.tensor([t_min, 1.0], dtype=torch.float64)


def _even_levels(path, u, t_min) -> Tensor:
    low, high = path.sigma(_ends(t_min)).log()
    return path.time(torch.exp(low + u * (high - low)))


def _width(path, t_min) -> Tensor:
    return path.sigma(_ends(t_min)).log().diff()


def _g2(path, t) -> Tensor:
    """Of dz = (a'/a) z dt + g dw."""
    return path.db2(t) - 2 * path.b2(t) * path.da(t) / path.a(t)


def _cross_entropy(denoise, path, z0, mean, std, u, eps, t_min, *, levels=_even_levels,
                   mix=lambda path, z0, eps, t: path.a(t) * z0 + path.b(t) * eps,
                   asked=lambda path, z0, zt, t: (zt, t),
                   target=lambda path, z0, mean, std, zt, eps, t: z0,
                   weight=lambda path, t: 1 / path.sigma(t) ** 2, power=torch.square,
                   width=_width, over=lambda terms: terms.mean(0), front=1.0,
                   end=lambda path, z0, a, b: 0.5 * (a * z0 / b) ** 2,
                   constant=lambda b2, std, last: 0.5 * torch.log(2 * math.pi * math.e * b2),
                   ) -> Tensor:  # fmt: skip
    """The right estimate, or one with the slips named: each replaces a part of it."""

    def term(u, eps) -> Tensor:
        t = levels(path, u, t_min)
        zt = mix(path, z0, eps, t)
        error = target(path, z0, mean, std, zt, eps, t) - denoise(*asked(path, z0, zt, t))
        return width(path, t_min) * weight(path, t) * power(error)

    terms = torch.stack([term(*level) for level in zip(u, eps, strict=True)])
    first, last = _ends(t_min)
    left = end(path, z0, path.a(last), path.b(last))
    return front * over(terms) + left + constant(path.b2(first), std, path.b2(last))


def _of_the_encoder(path, z0, mean, std, zt, eps, t) -> Tensor:
    """E[z0 | zt, x], whose error to x̂0 is what the scores of q(zt | x) and p(zt) differ by."""
    gain = path.a(t) * std**2 / (path.a(t) ** 2 * std**2 + path.b2(t))
    return mean + gain * (zt - path.a(t) * mean)


def _scores(path, t) -> Tensor:
    """Of the two scores' squared difference the part that (z0 − x̂0)² lacks, a²/b⁴."""
    return (path.a(t) / path.b2(t)) ** 2


def _even_in_t(path, u, t_min) -> Tensor:
    return t_min + u * (1 - t_min)


def _even_in_sigma(path, u, t_min) -> Tensor:
    low, high = path.sigma(_ends(t_min))
    return path.time(low + u * (high - low))


def _right_but(change: Callable) -> Callable:
    return lambda *given: change(_cross_entropy(*given))


_one = partial(partial, _cross_entropy)
OVER_T = {"width": lambda path, t_min: 1 - t_min}
LEVEL_SLIPS = {
    "the squared difference belongs to q(z_t | z0); you took the score of q(z_t | x), which goes "
    "with KL(q ‖ p) and not with the constant ½ log 2πe b²": _one(target=_of_the_encoder),
    "you took half of the integral: ½ g² dt ‖difference of the scores‖² is (z0 − ẑ0)²/σ² d log σ, "
    "and no ½ is left": _one(front=0.5),
    "your integral is twice too large: ½ ∫ g² ‖difference of the scores‖² dt is ∫ (z0 − ẑ0)²/σ² "
    "d log σ, and d log σ is half as long as the log-SNR's": _one(front=2.0),
    "that is the difference of the scores without g²: ½ ∫ g² ‖…‖² dt, and the levels are even in "
    "log σ": _one(weight=lambda path, t: 0.5 * _scores(path, t)),
    "that is the difference of the scores without g², over t: ½ ∫ g² ‖…‖² dt": _one(
        weight=lambda path, t: 0.5 * _scores(path, t), **OVER_T
    ),
    "you averaged ½ g² ‖…‖² as if the times were even in t: they are even in log σ, so the weight "
    "is (z0 − ẑ0)²/σ²": _one(
        weight=lambda path, t: 0.5 * _g2(path, t) * _scores(path, t), **OVER_T
    ),
    "your levels are even in t, your weight is that of levels even in log σ": _one(
        levels=_even_in_t
    ),
    "your levels are even in t, with the right weight: right in the mean, but the levels asked for "
    "are even in log σ, and need fewer draws": _one(
        levels=_even_in_t, weight=lambda path, t: 0.5 * _g2(path, t) * _scores(path, t), **OVER_T
    ),
    "your levels are even in σ: log σ goes evenly from log σ(t_min) to log σ(1)": _one(
        levels=_even_in_sigma
    ),
    "your levels run the other way, u = 0 is σ(t_min)": _one(
        levels=lambda path, u, t_min: _even_levels(path, 1 - u, t_min)
    ),
    "the integral is a mean over the levels times its length, log σ(1) − log σ(t_min)": _one(
        width=lambda path, t_min: 1.0
    ),
    "the length of the integral over log σ is log σ(1) − log σ(t_min), not 1 − t_min": _one(
        **OVER_T
    ),
    "you summed over the n levels: an integral is their mean, times its length": _one(
        over=lambda terms: terms.sum(0)
    ),
    "you divided the sum over the n levels by n − 1: their mean is asked for": _one(
        over=lambda terms: terms.sum(0) / (len(terms) - 1)
    ),
    "the squared error is to be divided by σ²": _one(weight=lambda path, t: 1.0),
    "you divided the squared error by σ, not σ²": _one(weight=lambda path, t: 1 / path.sigma(t)),
    "you divided the squared error by b²; σ² = b²/a²": _one(weight=lambda path, t: 1 / path.b2(t)),
    "you multiplied the squared error by σ²": _one(weight=lambda path, t: path.sigma(t) ** 2),
    "the error is to be squared": _one(power=lambda error: error),
    "you took the absolute error, not its square": _one(power=torch.abs),
    "the denoiser is asked at the noisy z_t, you asked it at z0": _one(
        asked=lambda path, z0, zt, t: (z0, t)
    ),
    "you gave the denoiser σ; its second argument is t": _one(
        asked=lambda path, z0, zt, t: (zt, path.sigma(t).clamp(max=1.0))
    ),
    "z_t = a z0 + b eps: you left out a, z0 + b eps": _one(
        mix=lambda path, z0, eps, t: z0 + path.b(t) * eps
    ),
    "that is z0 + σ eps: the denoiser wants z_t = a z0 + b eps": _one(
        mix=lambda path, z0, eps, t: z0 + path.sigma(t) * eps
    ),
    "you compared the denoiser's answer with eps: it is a guess of z0": _one(
        target=lambda path, z0, mean, std, zt, eps, t: eps
    ),
    "you compared the denoiser's answer with z_t: it is a guess of z0": _one(
        target=lambda path, z0, mean, std, zt, eps, t: zt
    ),
    "you compared the denoiser's answer with the encoder's mean: this z0 is what the prior has to "
    "explain": _one(target=lambda path, z0, mean, std, zt, eps, t: mean),
    "you gave all latents the first one's levels and noise": (
        lambda d, path, z0, mean, std, u, eps, t_min: _cross_entropy(
            d, path, z0, mean, std, u[:, :1].expand_as(u), eps[:, :1].expand_as(eps), t_min
        )
    ),
}  # fmt: skip
END_SLIPS = {
    "the end at t = 1 is missing, KL(N(a z0, b²) ‖ N(0, b²))": _one(end=lambda path, z0, a, b: 0.0),
    "the end lacks its ½: KL(N(a z0, b²) ‖ N(0, b²)) = ½ a² z0²/b²": _one(
        end=lambda path, z0, a, b: (a * z0 / b) ** 2
    ),
    "the end is ½ a² z0²/b²; you left out b²": _one(end=lambda path, z0, a, b: 0.5 * (a * z0) ** 2),
    "the end is ½ a² z0²/b²; you left out a²": _one(end=lambda path, z0, a, b: 0.5 * (z0 / b) ** 2),
    "you took the divergence from N(0, 1); here the prior at t = 1 is N(0, b²)": _one(
        end=lambda path, z0, a, b: 0.5 * ((a * z0) ** 2 + b**2 - 2 * b.log() - 1)
    ),
    "you took −log N(a z0; 0, b²) for the end: it is a divergence, KL(N(a z0, b²) ‖ N(0, b²))": (
        _one(end=lambda path, z0, a, b: 0.5 * ((a * z0 / b) ** 2 + (2 * math.pi * b**2).log()))
    ),
    "the constant is missing, ½ log 2πe b²(t_min)": _one(constant=lambda b2, std, last: 0.0),
    "end and constant are missing: the integral alone is no cross-entropy": _one(
        end=lambda path, z0, a, b: 0, constant=lambda b2, std, last: 0.0
    ),
    "the constant is ½ log 2πe b², you left out e": _one(
        constant=lambda b2, std, last: 0.5 * torch.log(2 * math.pi * b2)
    ),
    "the constant is ½ log 2πe b², you left out the ½": _one(
        constant=lambda b2, std, last: torch.log(2 * math.pi * math.e * b2)
    ),
    "the constant has b², the variance; you took b": _one(
        constant=lambda b2, std, last: 0.5 * torch.log(2 * math.pi * math.e * b2.sqrt())
    ),
    "the constant has b² at t_min; you took it at t = 1": _one(
        constant=lambda b2, std, last: 0.5 * torch.log(2 * math.pi * math.e * last)
    ),
    "the constant is the entropy of N(·, b²) at t_min; you took that of the encoder, ½ log 2πe std²"
    ": with it belongs the score of q(z_t | x)": _one(
        constant=lambda b2, std, last: 0.5 * torch.log(2 * math.pi * math.e * std**2)
    ),
    "the constant has the wrong sign: + ½ log 2πe b²(t_min)": _one(
        constant=lambda b2, std, last: -0.5 * torch.log(2 * math.pi * math.e * b2)
    ),
    "that is log p(z0), or a bound of it: minus its sign is asked for": _right_but(lambda h: -h),
    "that is in bits: nats are natural logarithms": _right_but(lambda h: h / math.log(2)),
    "one number for each latent is asked for, (B,); you took their mean": _right_but(torch.mean),
    "one number for each latent is asked for, (B,); you summed them": _right_but(torch.sum),
}
ENTROPY_SLIPS = LEVEL_SLIPS | END_SLIPS


def _case() -> tuple:
    """denoise, path, z0, mean, std, u, eps, t_min: latents of one number, levels in strata."""
    mean, std = draws(B, seed=141, mean=0.3), 0.4 + draws(B, seed=142, mean=0.0).abs()
    z0 = mean + std * draws(B, seed=143, mean=0.0)
    u = (torch.arange(N)[:, None] + draws(N, B, seed=144) % 1) / N
    return prior, PATH, z0, mean, std, u, draws(N, B, seed=145, mean=0.0), T_MIN


def cross_entropy(function: Callable) -> None:
    """Checks cross_entropy(denoise, path, z0, mean, std, u, eps, t_min) -> (B,), in nats.

    z0, mean, std (B,); u, eps (n, B). Raises NotYet, or Wrong with a diagnosis.
    """
    ask("−log p(z0)", function, _cross_entropy, ENTROPY_SLIPS, *_case())
    print(f"right: {B} latents, {N} noise levels each, in nats")


SLIPS = {upsampled: UPSAMPLED_SLIPS, cross_entropy: ENTROPY_SLIPS}
