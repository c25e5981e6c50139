"""The checks of lecture 3: right answers in any form pass, each usual slip is named."""

import pytest
import torch

from minigen import checks
from minigen.checks import ddpm as check


def tables(t, betas):
    abar = torch.cat([torch.ones_like(betas[:1]), torch.cumprod(1 - betas, 0)])
    return betas[t - 1], 1 - betas[t - 1], abar[t], abar[t - 1]


def textbook(x0, xt, t, betas):
    b, a, now, before = (c[:, None] for c in tables(t, betas))
    mean = (before.sqrt() * b * x0 + a.sqrt() * (1 - before) * xt) / (1 - now)
    return mean, ((1 - before) / (1 - now) * b)[:, 0]


def by_precision(x0, xt, t, betas):
    b, a, _, before = (c[:, None] for c in tables(t, betas))
    precision = a / b + 1 / (1 - before)
    return (a.sqrt() / b * xt + before.sqrt() / (1 - before) * x0) / precision, 1 / precision[:, 0]


def in_eps_form(x0, xt, t, betas):
    b, a, now, before = tables(t, betas)
    b_, a_, now_ = b[:, None], a[:, None], now[:, None]
    eps = (xt - now_.sqrt() * x0) / (1 - now_).sqrt()
    return [(xt - b_ / (1 - now_).sqrt() * eps) / a_.sqrt(), (1 - before) / (1 - now) * b]


def in_float32(x0, xt, t, betas):
    mean, var = textbook(x0.float(), xt.float(), t, betas.float())
    return mean.double(), var.double()


def by_snr(x0, xt, t, betas):
    _, a, now, before = (c[:, None] for c in tables(t, betas))
    ratio = now / (1 - now) * (1 - before) / before  # SNR_t / SNR_{t−1}
    mean = before.sqrt() * (1 - ratio) * x0 + ratio / a.sqrt() * xt
    return mean, ((1 - before) * (1 - ratio))[:, 0]


@pytest.mark.parametrize("right", [textbook, by_snr, in_eps_form])
def test_posterior_accepts_right_answers(right, capsys):
    check.posterior(right)
    assert "right" in capsys.readouterr().out


def wrong_posterior(change):
    def answer(x0, xt, t, betas):
        b, a, now, before = (c[:, None] for c in tables(t, betas))
        return change(x0, xt, b, a, now, before, t, betas)

    return answer


def usual(x0, xt, b, a, now, before):
    return (before.sqrt() * b * x0 + a.sqrt() * (1 - before) * xt) / (1 - now)


def var(b, now, before):
    return ((1 - before) / (1 - now) * b)[:, 0]


SLIPS = {
    "√ᾱ_t stands where √α_t": lambda x0, xt, b, a, now, before, t, betas: (
        (before.sqrt() * b * x0 + now.sqrt() * (1 - before) * xt) / (1 - now),
        var(b, now, before),
    ),
    "√α_{t−1} stands where √ᾱ_{t−1}": lambda x0, xt, b, a, now, before, t, betas: (
        (
            torch.cat([torch.ones(1), 1 - betas])[t - 1].sqrt()[:, None] * b * x0
            + a.sqrt() * (1 - before) * xt
        )
        / (1 - now),
        var(b, now, before),
    ),
    "right but at t = 1": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, torch.cumprod(1 - betas, 0)[t - 2][:, None]),
        var(b, now, before),
    ),
    "ᾱ is read one step too late": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, torch.cumprod(1 - betas, 0)[t][:, None], now),
        var(b, now, before),
    ),
    "in front of x0 without its root": lambda x0, xt, b, a, now, before, t, betas: (
        (before * b * x0 + a.sqrt() * (1 - before) * xt) / (1 - now),
        var(b, now, before),
    ),
    "in front of xt without its root": lambda x0, xt, b, a, now, before, t, betas: (
        (before.sqrt() * b * x0 + a * (1 - before) * xt) / (1 - now),
        var(b, now, before),
    ),
    "is minus": lambda x0, xt, b, a, now, before, t, betas: (
        (before.sqrt() * b * x0 - a.sqrt() * (1 - before) * xt) / (1 - now),
        var(b, now, before),
    ),
    "sign of the whole mean": lambda x0, xt, b, a, now, before, t, betas: (
        -usual(x0, xt, b, a, now, before),
        var(b, now, before),
    ),
    "division by 1 − ᾱ_t is missing": lambda x0, xt, b, a, now, before, t, betas: (
        (1 - now) * usual(x0, xt, b, a, now, before),
        var(b, now, before),
    ),
    "1 − ᾱ_{t−1} stands below": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before) * (1 - now) / (1 - before),
        var(b, now, before),
    ),
    "changed places": lambda x0, xt, b, a, now, before, t, betas: (
        usual(xt, x0, b, a, now, before),
        var(b, now, before),
    ),
    "this is β_t": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before),
        b[:, 0],
    ),
    "standard deviation": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before),
        var(b, now, before).sqrt(),
    ),
    "upside down": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before),
        ((1 - now) / (1 - before) * b)[:, 0],
    ),
    "the precision": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before),
        1 / var(b, now, before),
    ),
    "1 − α_{t−1} stands": lambda x0, xt, b, a, now, before, t, betas: (
        usual(x0, xt, b, a, now, before),
        torch.cat([torch.zeros(1), betas])[t - 1] / (1 - now[:, 0]) * b[:, 0],
    ),
}


@pytest.mark.parametrize("diagnosis", SLIPS)
def test_posterior_names_the_slip(diagnosis):
    with pytest.raises(checks.Wrong) as caught:
        check.posterior(wrong_posterior(SLIPS[diagnosis]))
    assert diagnosis in str(caught.value)
    assert sum(other in str(caught.value) for other in SLIPS) == 1  # and no other


def test_posterior_knows_the_step_too_late():
    def late(x0, xt, t, betas):
        return textbook(x0, xt, t + 1, betas)

    with pytest.raises(checks.Wrong, match=r"betas\[t\] is β_\{t\+1\}"):
        check.posterior(late)


def test_posterior_knows_the_division_by_zero_at_the_first_step():
    with pytest.raises(checks.Wrong, match="NaN at t = 1 only"):
        check.posterior(by_precision)


def test_posterior_sees_shapes_and_nonsense():
    def transposed(x0, xt, t, betas):  # (B, D) times (B,) at B = D hides; here it cannot
        mean, v = textbook(x0, xt, t, betas)
        return mean.T, v

    with pytest.raises(checks.Wrong, match=r"shape \(3, 5\), expected \(5, 3\)"):
        check.posterior(transposed)
    with pytest.raises(checks.Wrong, match="mean and variance; got Tensor"):
        check.posterior(lambda x0, xt, t, betas: x0)
    with pytest.raises(checks.Wrong, match="should be a tensor"):
        check.posterior(lambda x0, xt, t, betas: (1.0, 2.0))
    with pytest.raises(checks.Wrong, match="NaN"):
        check.posterior(lambda x0, xt, t, betas: (x0 / 0, t / 0))
    with pytest.raises(checks.Wrong, match="is right"):
        check.posterior(lambda x0, xt, t, betas: (x0, t.double()))
    with pytest.raises(checks.Wrong, match=r"only as \(B, 1\)"):
        check.posterior(lambda x0, xt, t, betas: (betas[t - 1] * x0, betas))
    with pytest.raises(checks.Wrong, match="could not be called"):
        check.posterior(lambda x0: x0)


def step(xt, eps_hat, t, betas, z):
    b, abar = betas[t - 1], torch.cumprod(1 - betas, 0)[t - 1]
    return (xt - b / (1 - abar).sqrt() * eps_hat) / (1 - b).sqrt() + (t > 1) * b.sqrt() * z


def step_through_x0(xt, eps_hat, t, betas, z):
    b, _, now, before = (float(c) for c in tables(torch.tensor(t), betas))
    x0 = (xt - (1 - now) ** 0.5 * eps_hat) / now**0.5
    mean = (before**0.5 * b * x0 + (1 - b) ** 0.5 * (1 - before) * xt) / (1 - now)
    return mean + b**0.5 * z if t > 1 else mean


@pytest.mark.parametrize("right", [step, step_through_x0])
def test_reverse_step_accepts_right_answers(right, capsys):
    check.reverse_step(right)
    assert "right" in capsys.readouterr().out


def wrong_step(front=None, below=None, sign=-1, noise=None, last=False, shift=0):
    def answer(xt, eps_hat, t, betas, z):
        b, abar = betas[t - 1 + shift], torch.cumprod(1 - betas, 0)[t - 1 + shift]
        f = (1 - b if front is None else front(b, abar)) ** 0.5
        g = b / (1 - abar).sqrt() if below is None else below(b, abar)
        std = b**0.5 if noise is None else noise(b, torch.cumprod(1 - betas, 0), t)
        return (xt + sign * g * eps_hat) / f + (t > 1 or last) * std * z

    return answer


STEPS = {
    "1/√ᾱ_t stands in front": wrong_step(front=lambda b, abar: abar),
    "√(1 − α_t) stands below": wrong_step(below=lambda b, abar: b.sqrt()),
    "jumps to x̂0": wrong_step(front=lambda b, abar: abar, below=lambda b, abar: (1 - abar).sqrt()),
    "noise is added, it should": wrong_step(sign=1),
    "applied to xt only": wrong_step(below=lambda b, abar: b / (1 - abar).sqrt() * (1 - b).sqrt()),
    "below β_t without its root": wrong_step(below=lambda b, abar: b / (1 - abar)),
    "betas[t] is β_{t+1}": wrong_step(shift=1),
    "added in the last step": wrong_step(last=True),
    "noise is missing": wrong_step(noise=lambda b, abar, t: 0 * b),
    "a variance": wrong_step(noise=lambda b, abar, t: b),
    "√β̃_t z": wrong_step(
        noise=lambda b, abar, t: (b * (1 - abar[t - 2]) / (1 - abar[t - 1])).sqrt()
    ),
}


@pytest.mark.parametrize("diagnosis", STEPS)
def test_reverse_step_names_the_slip(diagnosis):
    with pytest.raises(checks.Wrong) as caught:
        check.reverse_step(STEPS[diagnosis])
    assert diagnosis in str(caught.value)
    assert sum(other in str(caught.value) for other in STEPS) == 1


def test_stubs_are_not_yet():
    def stub(*args): ...

    def honest(*args):
        raise NotImplementedError

    for check_it in (check.posterior, check.reverse_step):
        for f in (stub, honest):
            with pytest.raises(checks.NotYet, match="returns nothing yet"):
                check_it(f)


def test_rounding_is_no_mistake():
    checks.compare("x", torch.ones(3).double() + 1e-8, torch.ones(3).double(), {})
    assert checks.same(torch.ones(3), torch.ones(3).double())
    assert checks.call(lambda: 3) == 3
