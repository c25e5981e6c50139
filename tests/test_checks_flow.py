"""The checks of lecture 8's exercises: right answers pass in several forms, slips are named."""

import math

import pytest
import torch

from minigen import flow
from minigen.checks import NotYet, Wrong
from minigen.checks import flow as check


def image(t):
    return t.reshape(-1, 1, 1, 1)


def straight(x0, eps, t):
    return (1 - image(t)) * x0 + image(t) * eps


def mean(error):
    return error.square().flatten(1).mean(1)


def loss(mix=straight, goal=lambda x0, eps: eps - x0, reduce=mean, told=lambda t: t):
    """A loss in its four parts, any of which may slip."""
    return lambda net, x0, eps, t: reduce(net(mix(x0, eps, t), told(t)) - goal(x0, eps))


def by_hand(net, x0, eps, t):
    xt = torch.lerp(x0, eps, t[:, None, None, None])
    return ((eps - x0 - net(xt, t)) ** 2).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("answer", [flow.loss, by_hand, loss()])
def test_right_losses_pass(answer, capsys):
    check.flow_loss(answer)
    assert "right" in capsys.readouterr().out


def swapped(x0, eps, t):
    return straight(eps, x0, t)


def direction(x0, eps):
    return x0 - eps


def circle(x0, eps, t):
    return torch.cos(math.pi / 2 * image(t)) * x0 + torch.sin(math.pi / 2 * image(t)) * eps


def without_gradient(net, x0, eps, t):
    with torch.no_grad():
        return by_hand(net, x0, eps, t)


@pytest.mark.parametrize(
    "answer, message",
    [
        (loss(goal=direction), r"your target is x0 − ε"),
        (loss(mix=swapped), r"your mix is t x0 \+ \(1 − t\) ε"),
        (loss(mix=swapped, goal=direction), "time reversed"),
        (loss(told=lambda t: 1 - t), "was told 1 − t"),
        (loss(mix=lambda x0, eps, t: (1 - t) * x0 + t * eps), r"only as \(B, 1, 1, 1\)"),
        (
            loss(mix=lambda x0, eps, t: (1 - t[:, None]) * x0 + t[:, None] * eps),
            r"did not fit \(.*only as \(B, 1, 1, 1\)",
        ),
        (loss(told=image), r"takes one time for each sample, t of shape \(5,\), got shape \(5, 1"),
        (loss(told=lambda t: 0.5), r"takes one time for each sample.*got 0\.5"),
        (loss(mix=lambda x0, eps, t: x0.flatten(1)), "takes states of shape"),
        (loss(reduce=lambda e: e.square().flatten(1).sum(1)), "you summed the squares"),
        (loss(reduce=lambda e: e.square().mean()), "one number for the whole batch"),
        (loss(reduce=lambda e: e.square().sum()), "one number, and a sum"),
        (loss(mix=circle), "no cosine and sine"),
        (loss(mix=lambda x, e, t: (1 - image(t)).sqrt() * x + image(t).sqrt() * e), "no roots"),
        (loss(mix=lambda x, e, t: (1 - image(t) ** 2).sqrt() * x + image(t) * e), "1 − t²"),
        (lambda net, x0, eps, t: by_hand(net, x0, eps, t[:1].expand(5)), "you used the first"),
        (loss(mix=lambda x0, eps, t: straight(x0, eps, t[:1])), "mix took the first"),
        (loss(goal=lambda x0, eps: eps), "target is the noise"),
        (loss(goal=lambda x0, eps: x0), "target is the data"),
        (loss(mix=lambda x0, eps, t: x0), "saw the clean data"),
        (loss(mix=lambda x0, eps, t: eps), "saw the pure noise"),
        (loss(reduce=lambda e: e.abs().flatten(1).mean(1)), "absolute values"),
        (loss(reduce=lambda e: mean(e).sqrt()), "its square root"),
        (loss(reduce=lambda e: mean(e) / 2), "half of it"),
        (loss(reduce=lambda e: e.square().mean(1)), "has shape"),
        (loss(reduce=lambda e: 1.1 * mean(e)), "is right, yours gives"),
        (loss(reduce=lambda e: mean(e).tolist()), "should be a tensor"),
        (without_gradient, "no gradient leads"),
    ],
)
def test_wrong_losses_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.flow_loss(answer)


def walk(times, step=lambda n: -1 / n):
    """x ← x + step u(x, t) over times(n)."""

    def answer(velocity, x1, n):
        x = x1
        for t in times(n):
            x = x + step(n) * velocity(x, t.expand(len(x)))
        return x

    return answer


def right_times(n):
    return torch.linspace(1, 0, n + 1)[:-1]


def counted(velocity, x1, n):
    x = x1
    for i in range(n):
        x -= velocity(x, torch.full((len(x),), 1 - i / n)) / n  # in place
    return x


def falling(velocity, x1, n):
    x, t = x1, torch.ones(len(x1), dtype=x1.dtype)
    for _ in range(n):
        x, t = x - velocity(x, t) / n, t - 1 / n
    return x


@pytest.mark.parametrize("answer", [walk(right_times), counted, falling])
def test_right_walks_pass(answer, capsys):
    check.euler(answer)
    assert "right" in capsys.readouterr().out


def up(n):
    return right_times(n).flip(0)


def too_many(velocity, x1, n):
    x, h = x1, 1 / n
    for i in range(n + 1):
        u = velocity(x, torch.full((len(x),), 1 - i / n))
        x = x - h * u if i < n else x
    return x


def keep_all(velocity, x1, n):
    states = [x1]
    for t in right_times(n):
        states.append(states[-1] - velocity(states[-1], t.expand(len(x1))) / n)
    return states


def plus(n):
    return 1 / n


@pytest.mark.parametrize(
    "answer, message",
    [
        (walk(lambda n: torch.linspace(1, 0, n)), "n times and n − 1 gaps.*last time is 0"),
        (walk(lambda n: torch.linspace(1, 0, n)[:-1], lambda n: -1 / (n - 1)), "took n − 1 steps"),
        (walk(lambda n: torch.linspace(1, 0, n + 1)), r"took n \+ 1 steps"),
        (walk(right_times, plus), "wrong way"),
        (walk(lambda n: torch.linspace(1, 0, n + 1)[1:]), "at the end of each step"),
        (walk(lambda n: right_times(n) - 0.5 / n), "in the middle of each step"),
        (walk(lambda n: torch.arange(n) / n), "began at t = 0 and went up$"),
        (walk(lambda n: torch.arange(n) / n, plus), r"went up, with dt = \+1/n"),
        (walk(up), "went up to t = 1$"),
        (walk(up, plus), r"went up to t = 1, with dt = \+1/n"),
        (walk(lambda n: torch.ones(n)), "asked at t = 1 in every step"),
        (walk(right_times, lambda n: -1.0), "step is missing"),
        (walk(lambda n: torch.ones(1), lambda n: -1.0), "one step of length 1"),
        (walk(lambda n: torch.ones(1)), "first step alone"),
        (too_many, "asked 8 times, down to t = 0: 7 steps need 7"),
        (keep_all, "should be a tensor"),
        (lambda velocity, x1, n: x1, "is right, yours gives"),
        (lambda velocity, x1, n: x1 - velocity(x1, 1.0), r"t of shape \(5,\), got 1\.0"),
        (lambda velocity, x1, n: velocity(x1, torch.ones(5, 1)), r"got shape \(5, 1\)"),
        (lambda velocity, x1, n: velocity(x1[:1], torch.ones(5)), "takes states of shape"),
        (lambda velocity, x1, n: velocity(x1, torch.rand(5)), "all samples walk together"),
    ],
)
def test_wrong_walks_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.euler(answer)


@pytest.mark.parametrize("stub", [lambda *a: None, lambda *a: ...])
def test_stubs_are_not_yet(stub):
    for checked in (check.flow_loss, check.euler):
        with pytest.raises(NotYet):
            checked(stub)
