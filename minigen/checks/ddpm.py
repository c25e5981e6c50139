"""Checks of the exercises of lecture 3."""

from collections.abc import Callable

import torch

from minigen import ddpm, paths
from minigen.checks import Wrong, call, compare
from minigen.shapes import X

_BETAS = torch.linspace(0.02, 0.3, 40, dtype=torch.float64)  # mid-schedule, no two ᾱ alike
_ABAR = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - _BETAS, 0)])


def _draw(*shape: int) -> torch.Tensor:
    """Draws of mean 0.7 and variance 4, the same ones each time."""
    return 0.7 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()


def posterior(function: Callable) -> None:
    """Exercise 3: mean (B, D) and variance (B,) of q(x_{t−1} | x_t, x0). Raises Wrong or NotYet."""
    x0, xt = _draw(2, 5, 3)
    t = torch.tensor([17, 2, 1, 23, 9])
    answer = call(function, x0, xt, t, _BETAS)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"two things are asked for, mean and variance; got {type(answer).__name__}")
    T = len(_BETAS)
    q = ddpm.posterior(paths.DDPM(_BETAS), x0, xt, t.double() / T, (t - 1).double() / T)
    try:
        compare("the mean", answer[0], q.mean, _mean_slips(x0, xt, t, q.mean))
    except Wrong as wrong:
        if "NaN" in str(wrong) and bool(torch.isfinite(answer[0][t > 1]).all()):
            raise Wrong("the mean is NaN at t = 1 only: there 1 − ᾱ_0 = 0 is divided by") from None
        raise
    compare("the variance", answer[1], q.var, _variance_slips(t, q.var))
    print("posterior: right, mean and variance, each sample at its own step.")


def _mean_slips(x0: X, xt: X, t: torch.Tensor, mean: X) -> dict[str, X]:
    """What the usual slips make of the mean."""
    b, a, now, before = _BETAS[t - 1], 1 - _BETAS[t - 1], _ABAR[t], _ABAR[t - 1]
    b_late, now_late = _BETAS[t], _ABAR[t + 1]
    wrapped = _ABAR[1:][t - 2]  # index −1 at t = 1
    to_x0, to_xt = before.sqrt() * b / (1 - now), a.sqrt() * (1 - before) / (1 - now)

    def combine(to_x0, to_xt):
        return to_x0[:, None] * x0 + to_xt[:, None] * xt

    return {
        "√ᾱ_t stands where √α_t belongs, in front of xt: one step has the factor of one step": (
            combine(to_x0, now.sqrt() * (1 - before) / (1 - now))
        ),
        "√α_{t−1} stands where √ᾱ_{t−1} belongs, in front of x0: all steps up to t − 1": (
            combine(_single(t - 1).sqrt() * b / (1 - now), to_xt)
        ),
        "right but at t = 1, where ᾱ_0 = 1 belongs; your index −1 took the last one, ᾱ_T": combine(
            wrapped.sqrt() * b / (1 - now), a.sqrt() * (1 - wrapped) / (1 - now)
        ),
        "ᾱ is read one step too late; with ᾱ_0 = 1 in front of the table, ᾱ_t is abar[t]": combine(
            now.sqrt() * b / (1 - now_late), a.sqrt() * (1 - now) / (1 - now_late)
        ),
        "ᾱ_{t−1} stands in front of x0 without its root": combine(before * b / (1 - now), to_xt),
        "α_t stands in front of xt without its root": combine(to_x0, a.sqrt() * to_xt),
        "the sign between the two parts is minus; the cross terms of the squares are plus": (
            combine(to_x0, -to_xt)
        ),
        "the sign of the whole mean is flipped": -mean,
        "x0 and xt have changed places": combine(to_xt, to_x0),
        "the division by 1 − ᾱ_t is missing": (1 - now)[:, None] * mean,
        "1 − ᾱ_{t−1} stands below the fractions where 1 − ᾱ_t belongs": (
            ((1 - now) / (1 - before))[:, None] * mean
        ),
        "betas[t] is β_{t+1}: the table begins with β_1, so β_t is betas[t − 1]": combine(
            now.sqrt() * b_late / (1 - now_late),
            (1 - b_late).sqrt() * (1 - now) / (1 - now_late),
        ),
    }


def _variance_slips(t: torch.Tensor, var: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the usual slips make of the variance."""
    b, now, before = _BETAS[t - 1], _ABAR[t], _ABAR[t - 1]
    return {
        "this is β_t, the variance of the step forward; β̃_t is smaller": b,
        "this is the standard deviation; the square of it is asked for": var.sqrt(),
        "the fraction is upside down: 1 − ᾱ_{t−1} belongs on top": (1 - now) / (1 - before) * b,
        "this is 1/β̃_t, the precision": 1 / var,
        "1 − α_{t−1} stands where 1 − ᾱ_{t−1} belongs": (1 - _single(t - 1)) / (1 - now) * b,
    }


def _single(t: torch.Tensor) -> torch.Tensor:
    """α_t of one step, α_0 = 1."""
    return torch.cat([torch.ones(1, dtype=torch.float64), 1 - _BETAS])[t]


def reverse_step(function: Callable) -> None:
    """Exercise 4: one step of DDPM's Algorithm 2 with ς² = β_t. Raises Wrong or NotYet."""
    xt, eps_hat, z = _draw(3, 5, 3)
    for t in (23, 1):
        b, a, now = _BETAS[t - 1], 1 - _BETAS[t - 1], _ABAR[t]
        mean = (xt - b / (1 - now).sqrt() * eps_hat) / a.sqrt()
        truth = mean + b.sqrt() * z if t > 1 else mean
        slips = _slips_of_the_mean(xt, eps_hat, t, truth - mean)
        slips |= _slips_of_the_noise(z, t, mean)
        compare(f"x_{{t−1}} at t = {t}", call(function, xt, eps_hat, t, _BETAS, z), truth, slips)
    print("reverse_step: right, mid-chain and in the last step.")


def _slips_of_the_mean(xt: X, eps_hat: X, t: int, rest: X) -> dict[str, X]:
    """Steps with a wrong mean and the right noise `rest`."""
    b, a, now = _BETAS[t - 1], 1 - _BETAS[t - 1], _ABAR[t]
    b_late, now_late = _BETAS[t], _ABAR[t + 1]
    front = (xt / a.sqrt(), b / (1 - now).sqrt() * eps_hat)
    late = (xt - b_late / (1 - now_late).sqrt() * eps_hat) / (1 - b_late).sqrt()
    return {
        "1/√ᾱ_t stands in front, which undoes all steps at once; one step back has 1/√α_t": (
            (xt - b / (1 - now).sqrt() * eps_hat) / now.sqrt() + rest
        ),
        "√(1 − α_t) stands below β_t where √(1 − ᾱ_t) belongs: x_t holds all steps' noise": (
            (xt - b / (1 - a).sqrt() * eps_hat) / a.sqrt() + rest
        ),
        "this jumps to x̂0: bars stand everywhere, so every step returns the denoised mean": (
            (xt - (1 - now).sqrt() * eps_hat) / now.sqrt() + rest
        ),
        "1/√α_t is applied to xt only; it stands in front of the whole bracket": (
            front[0] - front[1] + rest
        ),
        "1 − ᾱ_t stands below β_t without its root": (
            (xt - b / (1 - now) * eps_hat) / a.sqrt() + rest
        ),
        "the predicted noise is added, it should be taken away": (
            (xt + b / (1 - now).sqrt() * eps_hat) / a.sqrt() + rest
        ),
        "betas[t] is β_{t+1}: the table begins with β_1, so β_t is betas[t − 1]": (
            late + rest * (b_late / b).sqrt()
        ),
    }


def _slips_of_the_noise(z: X, t: int, mean: X) -> dict[str, X]:
    """Steps with the right mean and a wrong noise."""
    b = _BETAS[t - 1]
    if t == 1:
        last = "noise is added in the last step; at t = 1 the mean is the answer"
        return {last: mean + b.sqrt() * z}
    beta_tilde = (1 - _ABAR[t - 1]) / (1 - _ABAR[t]) * b
    return {
        "the noise is missing: add √β_t z": mean,
        "the noise has the factor β_t, a variance; its standard deviation is √β_t": mean + b * z,
        "this is √β̃_t z; the task asks for ς² = β_t": mean + beta_tilde.sqrt() * z,
    }
