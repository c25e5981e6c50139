"""The checks of lecture 1's exercises: right answers pass in several forms, slips are named."""

import math

import pytest
import torch

from minigen import markov
from minigen.checks import NotYet, Wrong
from minigen.checks import markov as check


def propose(x, s, z):
    return x * torch.exp(s * z)


def right(log_prob, x, s, z, u):
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


@pytest.mark.parametrize("answer", [right, with_ratios, with_the_library])
def test_right_steps_pass(answer, capsys):
    check.positive_step(answer)
    assert "right" in capsys.readouterr().out


def step_with(log_ratio, take=lambda log_u, u, log_alpha: log_u < log_alpha, move=propose):
    def answer(log_prob, x, s, z, u):
        y = move(x, s, z)
        log_alpha = log_prob(y) - log_prob(x) + log_ratio(x, y)
        return torch.where(take(u.log(), u, log_alpha), y, x)

    return answer


def hastings(x, y):
    return y.log() - x.log()


@pytest.mark.parametrize(
    "answer, message",
    [
        (step_with(lambda x, y: 0.0), "left out q"),
        (step_with(lambda x, y: x.log() - y.log()), "upside down"),
        (step_with(lambda x, y: y / x), "ratio y/x itself"),
        (lambda f, x, s, z, u: x if u < f(x) else propose(x, s, z), "let each sample decide"),
        (lambda f, x, s, z, u: (right(f, x, s, z, u),) * 2, "should be a tensor"),
        (step_with(lambda x, y: 0.0, move=lambda x, s, z: x + s * z), "you added s z"),
        (step_with(hastings, lambda log_u, u, a: u < a), "you compared u"),
        (step_with(hastings, lambda log_u, u, a: log_u >= a), "stay where you should move"),
        (lambda f, x, s, z, u: propose(x, s, z), "accepted every proposal"),
        (lambda f, x, s, z, u: x, "is wrong: where"),
        (lambda f, x, s, z, u: (y := right(f, x, s, z, u))[y != x], "counts again"),
        (lambda f, x, s, z, u: 1.0, "should be a tensor"),
    ],
)
def test_wrong_steps_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.positive_step(answer)


def covariances(x, lags):
    d = x - x.mean()
    return torch.stack([(d[: len(d) - k] * d[k:]).mean() for k in range(lags)])


def error(x, lags):
    c = covariances(x, lags)
    return torch.sqrt((c[0] + 2 * c[1:].sum()) / len(x))


def error_as_float(x, lags):
    rho = markov.autocorrelation(x, lags).tolist()
    v = float(x.var(correction=0))
    return math.sqrt(v * (1 + 2 * sum(rho[1:])) / len(x))


@pytest.mark.parametrize("answer", [error, error_as_float])
def test_right_errors_pass(answer, capsys):
    check.standard_error(answer)
    assert "right" in capsys.readouterr().out


def error_with(tau):
    return lambda x, lags: torch.sqrt(covariances(x, lags)[0] * tau(covariances(x, lags)) / len(x))


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda x, lags: x.std(correction=0) / math.sqrt(len(x)), "independent draws"),
        (error_with(lambda c: 1 + (c[1:] / c[0]).sum()), "counts twice"),
        (error_with(lambda c: 1 + 2 * (c / c[0]).sum()), "begins at k = 1"),
        (lambda x, lags: error(x, lags) ** 2, "the root"),
        (lambda x, lags: error(x, lags) * math.sqrt(len(x)), "spread of the states"),
        (lambda x, lags: error(x, lags) * math.sqrt(len(x) / (len(x) - 1)), "n − 1"),
        (lambda x, lags: error(x, lags + 1), "took one more"),
        (error_with(lambda c: 1 + 2 * c[1:].sum()), "summed the covariances"),
        (error_with(lambda c: 1 / (1 + 2 * (c[1:] / c[0]).sum())), "you divided by it"),
        (lambda x, lags: sum((x[:-k] * x[k:]).mean() for k in range(lags)), r"d\[: n - k\]"),
        (lambda x, lags: error(x, lags).reshape(1), r"has shape \(1,\)"),
    ],
)
def test_wrong_errors_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.standard_error(answer)


def test_two_more_slips_of_the_error():
    def divided_by_n(x, lags):
        d, n = x - x.mean(), len(x)
        c = torch.stack([(d[: n - k] * d[k:]).sum() / n for k in range(lags)])
        return torch.sqrt((c[0] + 2 * c[1:].sum()) / n)

    def not_centred(x, lags):
        c = torch.stack([(x[: len(x) - k] * x[k:]).mean() for k in range(lags)])
        return torch.sqrt((c[0] + 2 * c[1:].sum()) / len(x))

    for answer, message in ((divided_by_n, "n − k pairs"), (not_centred, "about the mean")):
        with pytest.raises(Wrong, match=message):
            check.standard_error(answer)


@pytest.mark.parametrize("stub", [lambda *a: None, lambda *a: ...])
def test_stubs_are_not_yet(stub):
    for checked in (check.positive_step, check.standard_error):
        with pytest.raises(NotYet):
            checked(stub)
