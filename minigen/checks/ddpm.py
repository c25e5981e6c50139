"""Checks of the exercises of lecture 3."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, call, compare, described, draws, same

_BETAS = torch.linspace(0.02, 0.3, 40, dtype=torch.float64)  # mid-schedule, no two ᾱ alike
_draw = partial(draws, seed=3, std=2.0)


def _at(t, betas: Tensor, table=lambda abar: abar, factors=lambda betas: 1 - betas, late=0):
    """β_t, α_t, α_{t−1}, ᾱ_t, ᾱ_{t−1} and β̃_t; `table` may spoil that of ᾱ, which begins at ᾱ_0."""
    one = torch.ones_like(betas[:1])
    alpha = torch.cat([one, 1 - betas])
    abar = table(torch.cat([one, torch.cumprod(factors(betas), 0)]))
    q = SimpleNamespace(beta=betas[t - 1 + late], a=alpha[t + late], a_before=alpha[t - 1 + late])
    q.bar, q.bar_before = abar[t], abar[t - 1]
    q.tilde = (1 - q.bar_before) / (1 - q.bar) * q.beta
    return q


# Exercise 3 -------------------------------------------------------------------------------------


def _posterior(x0, xt, t, betas, *, table=lambda abar: abar, factors=lambda betas: 1 - betas,
               of_x0=lambda q: q.bar_before.sqrt(), of_xt=lambda q: q.a.sqrt(), sign=1,
               below=lambda q: 1 - q.bar, noise=lambda q: 1 - q.bar_before,
               below_xt=None, var=lambda q: q.tilde, late=0) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The right mean and variance, or those with the slip named: each replaces one quantity."""
    q = _at(t, betas, table, factors, late)
    to_x0 = of_x0(q) * q.beta / below(q)
    to_xt = sign * of_xt(q) * noise(q) / (below_xt or below)(q)
    return to_x0[:, None] * x0 + to_xt[:, None] * xt, var(q)


POSTERIOR_SLIPS = {
    "√ᾱ_t stands where √α_t belongs, in front of xt: one step has the factor of one step": partial(
        _posterior, of_xt=lambda q: q.bar.sqrt()
    ),
    "√α_{t−1} stands where √ᾱ_{t−1} belongs, in front of x0: all steps up to t − 1": partial(
        _posterior, of_x0=lambda q: q.a_before.sqrt()
    ),
    "right but at t = 1, where ᾱ_0 = 1 belongs; your index −1 took the last one, ᾱ_T": partial(
        _posterior, table=lambda abar: torch.cat([abar[-1:], abar[1:]])
    ),
    "ᾱ is read one step too late; with ᾱ_0 = 1 in front of the table, ᾱ_t is abar[t]": partial(
        _posterior, table=lambda abar: abar[1:]
    ),
    "ᾱ is the product of 1 − β; you multiplied the β themselves": partial(
        _posterior, factors=lambda betas: betas
    ),
    "all bars are forgotten: α_t stands for ᾱ_t, and α_{t−1} for ᾱ_{t−1}": partial(
        _posterior,
        of_x0=lambda q: q.a_before.sqrt(),
        below=lambda q: 1 - q.a,
        noise=lambda q: 1 - q.a_before,
        var=lambda q: (1 - q.a_before) / (1 - q.a) * q.beta,
    ),
    "the bars are forgotten on top, slip A6: √ᾱ_{t−1} and 1 − ᾱ_{t−1} are of all steps up to "
    "t − 1": partial(_posterior, of_x0=lambda q: q.a_before.sqrt(), noise=lambda q: 1 - q.a_before),
    "√ᾱ_t stands in front of xt, and 1 − α_t below it, slip A3: the bars have changed places": (
        partial(_posterior, of_xt=lambda q: q.bar.sqrt(), below_xt=lambda q: 1 - q.a)
    ),
    "√ᾱ_t stands in front of xt, and 1 − ᾱ_{t−1} below it, slip A1: √α_t and 1 − ᾱ_t": partial(
        _posterior, of_xt=lambda q: q.bar.sqrt(), below_xt=lambda q: 1 - q.bar_before
    ),
    "both roots are lost: √ᾱ_{t−1} stands in front of x0, √α_t in front of xt": partial(
        _posterior, of_x0=lambda q: q.bar_before, of_xt=lambda q: q.a
    ),
    "√ᾱ_t stands in front of x0 where √ᾱ_{t−1} belongs": partial(
        _posterior, of_x0=lambda q: q.bar.sqrt()
    ),
    "1 − ᾱ_t stands in front of xt where 1 − ᾱ_{t−1} belongs": partial(
        _posterior, noise=lambda q: 1 - q.bar
    ),
    "1 − ᾱ_t stands below the fractions under a root, which does not belong there": partial(
        _posterior, below=lambda q: (1 - q.bar).sqrt()
    ),
    "the part of xt is missing": partial(_posterior, sign=0),
    "every sample has its own step, you used the first one's for all": (
        lambda x0, xt, t, betas: _posterior(x0, xt, t[:1].expand(len(t)), betas)
    ),
    "ᾱ_{t−1} stands in front of x0 without its root": partial(
        _posterior, of_x0=lambda q: q.bar_before
    ),
    "α_t stands in front of xt without its root": partial(_posterior, of_xt=lambda q: q.a),
    "the sign between the two parts is minus; the cross terms of the squares are plus": partial(
        _posterior, sign=-1
    ),
    "the sign of the whole mean is flipped": partial(_posterior, below=lambda q: q.bar - 1),
    "x0 and xt have changed places": lambda x0, xt, t, betas: _posterior(xt, x0, t, betas),
    "the division by 1 − ᾱ_t is missing": partial(
        _posterior, below=lambda q: torch.ones_like(q.bar)
    ),
    "1 − ᾱ_{t−1} stands below the fractions where 1 − ᾱ_t belongs": partial(
        _posterior, below=lambda q: 1 - q.bar_before
    ),
    "betas[t] is β_{t+1}: the table begins with β_1, so β_t is betas[t − 1]; your ᾱ is right": (
        partial(_posterior, late=1)
    ),
    "betas[t] is β_{t+1}, and your ᾱ is ᾱ_{t+1}: both tables begin at t = 1, so t is entry t − 1": (
        lambda x0, xt, t, betas: _posterior(x0, xt, t + 1, betas)
    ),
    "this is β_t, the variance of the step forward; β̃_t is smaller": partial(
        _posterior, var=lambda q: q.beta
    ),
    "this is the standard deviation; the square of it is asked for": partial(
        _posterior, var=lambda q: q.tilde.sqrt()
    ),
    "the fraction is upside down: 1 − ᾱ_{t−1} belongs on top": partial(
        _posterior, var=lambda q: (1 - q.bar) / (1 - q.bar_before) * q.beta
    ),
    "this is 1/β̃_t, the precision": partial(_posterior, var=lambda q: 1 / q.tilde),
    "this is 1 − ᾱ_{t−1}, the variance of x_{t−1} given x0 alone; xt narrows it": partial(
        _posterior, var=lambda q: 1 - q.bar_before
    ),
    "the division by 1 − ᾱ_t is missing in it": partial(
        _posterior, var=lambda q: (1 - q.bar_before) * q.beta
    ),
    "this is β̃_t squared": partial(_posterior, var=lambda q: q.tilde**2),
    "1 − α_{t−1} stands where 1 − ᾱ_{t−1} belongs": partial(
        _posterior, var=lambda q: (1 - q.a_before) / (1 - q.bar) * q.beta
    ),
}


def posterior(function: Callable) -> None:
    """Exercise 3: mean (B, D) and variance (B,) of q(x_{t−1} | x_t, x0). Raises Wrong or NotYet."""
    t = torch.tensor([17, 2, 1, 23, 9])
    args = (*_draw(2, 5, 3), t, _BETAS)
    mean, var = _posterior(*args)
    answer = call(function, *args)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"two things are asked for, mean and variance; got {described(answer)}")
    if [getattr(a, "shape", None) for a in answer] == [var.shape, mean.shape]:
        raise Wrong("mean and variance have changed places: the mean comes first")
    slips = POSTERIOR_SLIPS.items()
    try:
        compare("the mean", answer[0], mean, {why: lambda s=s: s(*args)[0] for why, s in slips})
    except Wrong as wrong:
        late = t > 2  # where t − 2 is still an index of every table
        early, _ = _posterior(*args[:2], t - 1, _BETAS)
        whole = getattr(answer[0], "shape", None) == mean.shape
        if whole and same(answer[0][late], early[late]):
            raise Wrong("every table is read one step too early: the first step is t = 1") from None
        if "NaN" in str(wrong) and bool(torch.isfinite(answer[0][t > 1]).all()):
            raise Wrong("the mean is NaN at t = 1 only: there 1 − ᾱ_0 = 0 is divided by") from None
        raise
    compare("the variance", answer[1], var, {why: lambda s=s: s(*args)[1] for why, s in slips})
    print("posterior: right, mean and variance, each sample at its own step.")


# Exercise 4 -------------------------------------------------------------------------------------


def _step(xt, eps_hat, t, betas, z, *, front=lambda q: q.a.sqrt(), sign=-1,
          inside=lambda q: q.beta / (1 - q.bar).sqrt(), std=lambda q: q.beta.sqrt(),
          calm=1, table=lambda abar: abar, late=0) -> Tensor:  # fmt: skip
    """The right step, or one with the slip named: each replaces one quantity."""
    q = _at(t, betas, table, late=late)
    mean = (xt + sign * inside(q) * eps_hat) / front(q)
    return mean + std(q) * z if t > calm else mean


STEP_SLIPS = {
    "1/√ᾱ_t stands in front, which undoes all steps at once; one step back has 1/√α_t": partial(
        _step, front=lambda q: q.bar.sqrt()
    ),
    "√(1 − α_t) stands below β_t where √(1 − ᾱ_t) belongs: x_t holds all steps' noise": partial(
        _step, inside=lambda q: q.beta / (1 - q.a).sqrt()
    ),
    "this jumps to x̂0: bars stand everywhere, so every step returns the denoised mean": partial(
        _step, front=lambda q: q.bar.sqrt(), inside=lambda q: (1 - q.bar).sqrt()
    ),
    "1/√α_t is applied to xt only; it stands in front of the whole bracket": partial(
        _step, inside=lambda q: q.a.sqrt() * q.beta / (1 - q.bar).sqrt()
    ),
    "1/√α_t is missing in front of the bracket": partial(_step, front=lambda q: 1.0),
    "α_t stands in front of the bracket without its root: 1/√α_t": partial(
        _step, front=lambda q: q.a
    ),
    "√α_t multiplies the bracket; a step back divides by it": partial(
        _step, front=lambda q: 1 / q.a.sqrt()
    ),
    "1/√α_t stands in front of the noise as well; it is that of the bracket alone": partial(
        _step, std=lambda q: (q.beta / q.a).sqrt()
    ),
    "√β_t stands in front of eps_hat where β_t belongs: β_t/√(1 − ᾱ_t)": partial(
        _step, inside=lambda q: (q.beta / (1 - q.bar)).sqrt()
    ),
    "√(1 − ᾱ_t) is missing below β_t, or your ᾱ is a product of the β, nearly 0; it is one of "
    "1 − β": partial(_step, inside=lambda q: q.beta),
    "all of eps_hat is taken away: one step takes β_t/√(1 − ᾱ_t) of it": partial(
        _step, inside=lambda q: 1.0
    ),
    "α_t stands in front of eps_hat where β_t = 1 − α_t belongs": partial(
        _step, inside=lambda q: q.a / (1 - q.bar).sqrt()
    ),
    "√(1 − ᾱ_{t−1}) stands below β_t where √(1 − ᾱ_t) belongs: your index is one too low": partial(
        _step, inside=lambda q: q.beta / (1 - q.bar_before).sqrt()
    ),
    "the ᾱ is ᾱ_{t+1}: torch.cumprod begins with ᾱ_1, so ᾱ_t is its entry t − 1": partial(
        _step, table=lambda abar: abar[1:]
    ),
    "the noise is subtracted. Its sign does not matter to a sampler, but z is given, and added": (
        partial(_step, std=lambda q: -q.beta.sqrt())
    ),
    "eps_hat is added as noise; the fresh noise is z": (
        lambda xt, eps_hat, t, betas, z: _step(xt, eps_hat, t, betas, eps_hat)
    ),
    "you returned xt as it was; at t = 1 only the noise is left out": (
        lambda xt, eps_hat, t, *rest: xt if t == 1 else _step(xt, eps_hat, t, *rest)
    ),
    "1 − ᾱ_t stands below β_t without its root": partial(
        _step, inside=lambda q: q.beta / (1 - q.bar)
    ),
    "the predicted noise is added, it should be taken away": partial(_step, sign=1),
    "betas[t] is β_{t+1}: the table begins with β_1, so β_t is betas[t − 1]; your ᾱ is right": (
        partial(_step, late=1)
    ),
    "betas[t] is β_{t+1}, and your ᾱ is ᾱ_{t+1}: both tables begin at t = 1, so t is entry t − 1": (
        lambda xt, eps_hat, t, betas, z: _step(xt, eps_hat, t + 1, betas, z)
    ),
    "both roots are lost: β_t/√(1 − ᾱ_t) in front of eps_hat, and 1/√α_t in front of the bracket": (
        partial(_step, front=lambda q: q.a, inside=lambda q: q.beta / (1 - q.bar))
    ),
    "all roots are lost: √(1 − ᾱ_t) below β_t, 1/√α_t in front, √β_t z": partial(
        _step,
        front=lambda q: q.a,
        inside=lambda q: q.beta / (1 - q.bar),
        std=lambda q: q.beta,
    ),
    "noise is added in the last step; at t = 1 the mean is the answer": partial(_step, calm=0),
    "at t = 2 the noise is missing: only the last step, t = 1, has none; are your steps "
    "counted from 0?": partial(_step, calm=2),
    "the noise is missing: add √β_t z": partial(_step, std=lambda q: 0.0),
    "the noise has the factor β_t, a variance; its standard deviation is √β_t": partial(
        _step, std=lambda q: q.beta
    ),
    "this is √β̃_t z; the task asks for ς² = β_t": partial(_step, std=lambda q: q.tilde.sqrt()),
}


def reverse_step(function: Callable) -> None:
    """Exercise 4: one step of DDPM's Algorithm 2 with ς² = β_t. Raises Wrong or NotYet."""
    xt, eps_hat, z = _draw(3, 5, 3)
    for t in (23, 2, 1):
        ask(f"x_{{t−1}} at t = {t}", function, _step, STEP_SLIPS, xt, eps_hat, t, _BETAS, z)
    print("reverse_step: right, mid-chain and in the last step.")


SLIPS = {posterior: POSTERIOR_SLIPS, reverse_step: STEP_SLIPS}
