"""The checks of lecture 1 accept every right answer, and name what no value tells."""

import math

import pytest
import torch

from minigen import markov
from minigen.checks import Wrong
from minigen.checks import markov as check


def propose(x, s, z):
    return x * torch.exp(s * z)


def step(log_prob, x, s, z, u):
    y = propose(x, s, z)
    return torch.where(u.log() < log_prob(y) - log_prob(x) + y.log() - x.log(), y, x)


def with_ratios(log_prob, x, s, z, u):
    y = propose(x, s, z)
    alpha = (log_prob(y).exp() * y / (log_prob(x).exp() * x)).clamp(max=1)
    x = x.clone()
    x[u < alpha] = y[u < alpha]
    return x


def with_the_library(log_prob, x, s, z, u):
    """The same step by minigen's own sampler, its random numbers replaced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *a, **k: u)
        walk = markov.metropolis_hastings(
            lambda x: log_prob(x[:, 0]),
            x[:, None],
            step=s,
            n=1,
            propose=lambda x, *, step, generator: (propose(x, step, z[:, None]), step * z),
        )
        return next(walk).x[:, 0]


def error(x, lags):
    d = x - x.mean()
    c = torch.stack([(d[: len(d) - k] * d[k:]).mean() for k in range(lags)])
    return torch.sqrt((c[0] + 2 * c[1:].sum()) / len(x))


def error_as_float(x, lags):
    rho = markov.autocorrelation(x, lags).tolist()
    v = float(x.var(correction=0))
    return math.sqrt(v * (1 + 2 * sum(rho[1:])) / len(x))


STEPS = [step, with_ratios, with_the_library]
ERRORS = [error, error_as_float]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.positive_step, f) for f in STEPS] + [(check.standard_error, f) for f in ERRORS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert "right" in capsys.readouterr().out


def one_for_all(log_prob, x, s, z, u):
    return x if u < log_prob(x) else propose(x, s, z)


def only_the_moved(log_prob, x, *rest):
    y = step(log_prob, x, *rest)
    return y[y != x]


def which_moved(log_prob, x, *rest):
    return step(log_prob, x, *rest) != x


def in_place(log_prob, x, s, z, u):
    y = step(log_prob, x, s, z, u)
    x[y != x] = y[y != x]
    return x


def empty_slice(x, lags):
    return sum((x[:-k] * x[k:]).mean() for k in range(lags))


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.positive_step, one_for_all, "let each sample decide"),
        (check.positive_step, only_the_moved, "counts again"),
        (check.positive_step, which_moved, "you returned which chains move"),
        (check.positive_step, in_place, "writes into a tensor"),
        (check.positive_step, lambda *args: (step(*args),) * 2, "should be one tensor"),
        (check.positive_step, lambda f, x, *args: x + 1, "is wrong: where"),
        (check.standard_error, empty_slice, r"d\[: n - k\]"),
        (check.standard_error, lambda *args: error(*args).reshape(1), r"has shape \(1,\)"),
        (check.standard_error, lambda *args: error_as_float(*args) + 0.01, "is wrong: where"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
