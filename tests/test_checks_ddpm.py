"""The checks of lecture 3 accept every right answer, and name what no value tells."""

import pytest
import torch

from minigen import ddpm, paths
from minigen.checks import Wrong
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


def by_the_library(x0, xt, t, betas):
    t, T = t.double(), len(betas)
    q = ddpm.posterior(paths.DDPM(betas), x0, xt, t / T, (t - 1) / T)
    return q.mean, q.var


def step(xt, eps_hat, t, betas, z):
    b, abar = betas[t - 1], torch.cumprod(1 - betas, 0)[t - 1]
    return (xt - b / (1 - abar).sqrt() * eps_hat) / (1 - b).sqrt() + (t > 1) * b.sqrt() * z


def step_through_x0(xt, eps_hat, t, betas, z):
    b, _, now, before = (float(c) for c in tables(torch.tensor(t), betas))
    x0 = (xt - (1 - now) ** 0.5 * eps_hat) / now**0.5
    mean = (before**0.5 * b * x0 + (1 - b) ** 0.5 * (1 - before) * xt) / (1 - now)
    return mean + b**0.5 * z if t > 1 else mean


def one_step_early(x0, xt, t, betas):
    return textbook(x0, xt, t - 1, betas)


def one_step_early_in_a_table_without_a_one(x0, xt, t, betas):
    abar, t = torch.cumprod(1 - betas, 0), t - 1
    b, now, before = betas[t - 1][:, None], abar[t - 1][:, None], abar[t - 2][:, None]
    mean = (before.sqrt() * b * x0 + (1 - b).sqrt() * (1 - before) * xt) / (1 - now)
    return mean, ((1 - before) / (1 - now) * b)[:, 0]


def counted_from_0(xt, eps_hat, t, betas, z):
    """Right but for its last line, which tests the index of the tables."""
    i, abar = t - 1, torch.cumprod(1 - betas, 0)
    mean = (xt - betas[i] / (1 - abar[i]).sqrt() * eps_hat) / (1 - betas[i]).sqrt()
    return mean + betas[i].sqrt() * z if i > 1 else mean


def table_without_a_one(x0, xt, t, betas):
    abar = torch.cumprod(1 - betas, 0)
    b, now, before = (c[:, None] for c in (betas[t - 1], abar[t], abar[t - 1]))
    mean = (before.sqrt() * b * x0 + (1 - b).sqrt() * (1 - before) * xt) / (1 - now)
    return mean, ((1 - before) / (1 - now) * b)[:, 0]


POSTERIORS = [textbook, by_the_library, in_eps_form]
STEPS = [step, step_through_x0]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.posterior, f) for f in POSTERIORS] + [(check.reverse_step, f) for f in STEPS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert "right" in capsys.readouterr().out


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.posterior, by_precision, "NaN at t = 1 only"),
        (check.posterior, lambda x0, xt, t, betas: (x0 / 0, t / 0), "mean holds NaN"),
        (check.posterior, lambda *args: (textbook(*args)[0].T, 0), r"\(3, 5\), expected \(5, 3\)"),
        (check.posterior, lambda *args: (textbook(*args)[0], args[2].double()), "e variance is wr"),
        (check.posterior, lambda *args: textbook(*args)[::-1], "have changed places"),
        (check.posterior, lambda x0, *args: x0, "mean and variance; got a value of type Tensor"),
        (check.posterior, lambda *args: (1.0, 2.0), "mean should be one tensor"),
        (check.posterior, one_step_early, "one step too early"),
        (check.posterior, one_step_early_in_a_table_without_a_one, "one step too early"),
        (check.posterior, lambda x0, xt, t, betas: (betas[t] * x0, betas), r"only as \(B, 1\)"),
        (check.posterior, lambda x0, *args: textbook(x0.neg_(), *args), "writes into a tensor"),
        (check.posterior, table_without_a_one, "ᾱ is read one step too late"),
        (check.reverse_step, counted_from_0, "at t = 2 the noise is missing"),
        (check.reverse_step, lambda *args: step(*args) + 0.01, "is right, yours gives"),
        (check.reverse_step, lambda xt, *args: step(xt.neg_(), *args), "writes into a tensor"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
