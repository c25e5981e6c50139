"""The checks of lecture 6's exercises: right answers pass in several forms, slips are named."""

import pytest
import torch

from minigen import guidance
from minigen.checks import NotYet, Wrong
from minigen.checks import guidance as check


def doubled(net, xt, t, label):
    null = torch.full_like(label, net.classes)
    return net(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([label, null])).chunk(2)


def with_mix(mix, ask=doubled):
    def answer(net, xt, t, label, gamma):
        c, u = ask(net, xt, t, label)
        return mix(c, u, gamma)

    return answer


def right(c, u, gamma):
    return u + gamma * (c - u)


def other_order(net, xt, t, label, gamma):
    null = torch.full_like(label, net.classes)
    u, c = net(xt.repeat(2, 1), t.repeat(2), torch.cat([null, label])).chunk(2)
    return (1 - gamma) * u + gamma * c


@pytest.mark.parametrize(
    "answer", [with_mix(right), other_order, with_mix(lambda c, u, g: torch.lerp(u, c, g))]
)
def test_right_guided_noise_passes(answer, capsys):
    check.guided_eps(answer)
    assert "right" in capsys.readouterr().out


def two_calls(net, xt, t, label):
    return net(xt, t, label), net(xt, t)


def null_is_zero(net, xt, t, label):
    labels = torch.cat([label, 0 * label])
    return net(torch.cat([xt, xt]), torch.cat([t, t]), labels).chunk(2)


def null_is_last(net, xt, t, label):
    labels = torch.cat([label, torch.full_like(label, net.classes - 1)])
    return net(torch.cat([xt, xt]), torch.cat([t, t]), labels).chunk(2)


def time_not_doubled(net, xt, t, label):
    return net(torch.cat([xt, xt]), t, torch.cat([label, label])).chunk(2)


def label_beyond(net, xt, t, label):
    labels = torch.cat([label, torch.full_like(label, net.classes + 1)])
    return net(torch.cat([xt, xt]), torch.cat([t, t]), labels).chunk(2)


def first_time(net, xt, t, label):
    return doubled(net, xt, t[:1].expand(len(t)), label)


SLIPS = [
    (with_mix(lambda c, u, g: (1 + g) * c - g * u), "with w = gamma"),
    (with_mix(lambda c, u, g: c + g * (u - c)), "changed places"),
    (with_mix(lambda c, u, g: g * c - u), "conditional noise only"),
    (with_mix(lambda c, u, g: g * c + u), r"where \(1 − gamma\) u belongs"),
    (with_mix(lambda c, u, g: c + g * (c - u)), "added to c instead of u"),
    (with_mix(lambda c, u, g: c), "not guided"),
    (with_mix(lambda c, u, g: u), "never reached the network"),
    (with_mix(lambda c, u, g: u - g * (c - u)), "its sign is turned"),
    (with_mix(lambda c, u, g: g * (c - u)), "correction alone"),
    (with_mix(right, null_is_zero), "0 is a class"),
    (with_mix(right, null_is_last), "one less is the last class"),
    (with_mix(right, first_time), "own time"),
    (with_mix(right, two_calls), "called 2 times"),
    (with_mix(right, time_not_doubled), "double all three inputs"),
    (with_mix(right, label_beyond), "out of range"),
    (with_mix(lambda c, u, g: c.mean()), "has shape"),
    (with_mix(lambda c, u, g: right(c, u, g) + 0.01), "is right, yours gives"),
]


@pytest.mark.parametrize("answer, message", SLIPS)
def test_wrong_guided_noise_is_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.guided_eps(answer)


def gradient(log_p, xt, t, reduce=torch.sum):
    x = xt.detach().requires_grad_()
    return torch.autograd.grad(reduce(log_p(x, t)), x)[0]


def guided(correct, **more):
    return lambda eps, xt, t, a, b, log_p, gamma: (
        eps + correct(gradient(log_p, xt, t, **more), a, b, gamma)
    )


def by_the_library(eps, xt, t, a, b, log_p, gamma):
    return eps - gamma * b * guidance.log_prob_gradient(log_p, xt, t)


def by_backward(eps, xt, t, a, b, log_p, gamma):
    xt.requires_grad_()
    log_p(xt, t).sum().backward()
    return eps - gamma * b * xt.grad


def in_place(eps, xt, t, a, b, log_p, gamma):
    eps -= gamma * b * guidance.log_prob_gradient(log_p, xt, t)
    return eps


@pytest.mark.parametrize(
    "answer", [by_the_library, by_backward, in_place, guided(lambda s, a, b, gamma: -gamma * b * s)]
)
def test_right_classifier_guidance_passes(answer, capsys):
    check.classifier_guided(answer)
    assert "right" in capsys.readouterr().out


def gradient_of_p(eps, xt, t, a, b, log_p, gamma):
    return eps - gamma * b * gradient(lambda x, t: log_p(x, t).exp(), xt, t)


def forgot_to_ask(eps, xt, t, a, b, log_p, gamma):
    return eps - gamma * b * torch.autograd.grad(log_p(xt, t).sum(), xt)[0]


@pytest.mark.parametrize(
    "answer, message",
    [
        (guided(lambda s, a, b, gamma: gamma * b * s), "subtract"),
        (guided(lambda s, a, b, gamma: -gamma * s), "b is missing"),
        (guided(lambda s, a, b, gamma: -gamma * b**2 * s), "multiplied by b²;"),
        (guided(lambda s, a, b, gamma: -gamma * b**2 / a * s), "multiplied by b²/a"),
        (guided(lambda s, a, b, gamma: -gamma * b / a * s), "multiplied by b/a"),
        (guided(lambda s, a, b, gamma: -gamma * a * s), "multiplied by a"),
        (guided(lambda s, a, b, gamma: -b * s), "gamma was never used"),
        (guided(lambda s, a, b, gamma: -gamma * b * s, reduce=torch.mean), "too small by B"),
        (gradient_of_p, "not of log p"),
        (lambda eps, *rest: eps, "guidance is missing"),
        (lambda eps, *rest: by_the_library(0 * eps, *rest), "correction alone"),
        (forgot_to_ask, "must require a gradient"),
        (guided(lambda s, a, b, gamma: -gamma * b * s, reduce=lambda v: v), "take their sum"),
        (lambda eps, *rest: 0.9 * eps, "is right, yours gives"),
    ],
)
def test_wrong_classifier_guidance_is_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.classifier_guided(answer)


@pytest.mark.parametrize("stub", [lambda *a: None, lambda *a: ...])
def test_stubs_are_not_yet(stub):
    for checked in (check.guided_eps, check.classifier_guided):
        with pytest.raises(NotYet):
            checked(stub)
