"""The checks of lecture 8 accept every right answer, and name what no value tells."""

import pytest
import torch

from minigen import flow, paths, targets
from minigen.checks import Wrong
from minigen.checks import flow as check


def image(t):
    return t.reshape(-1, 1, 1, 1)


def by_hand(net, x0, eps, t):
    xt = torch.lerp(x0, eps, image(t))
    return ((eps - x0 - net(xt, t)) ** 2).mean(dim=(1, 2, 3))


def sample_by_sample(net, x0, eps, t):
    rows = [x + s * (e - x) for x, e, s in zip(x0, eps, t, strict=True)]
    errors = net(torch.stack(rows), t) + x0 - eps
    return torch.stack([error.pow(2).mean() for error in errors])


def by_the_library(net, velocity, eps, t, n):
    """The first field read as a denoiser, walked by the library's sampler."""
    path = paths.Linear()

    def first(x, t, label):
        return velocity(x, t.expand(len(x)))

    denoise = paths.denoiser(first, path, targets.velocity)
    return flow.loss(net, *flow.reflow_pairs(denoise, eps, flow.grid(n), walk=flow.euler), t)


@torch.no_grad()
def ended(velocity, x, n):
    for i in range(n):
        x = x - velocity(x, torch.full((len(x),), 1 - i / n)) / n
    return x


def counted(net, velocity, eps, t, n):
    return by_rows(net, ended(velocity, eps, n), eps, t)


def falling(net, velocity, eps, t, n):
    x, now = eps.clone(), torch.ones(len(eps), dtype=eps.dtype)
    for _ in range(n):
        x -= velocity(x, now) / n  # in place, in a copy of its own
        now -= 1 / n
    return by_rows(net, x.detach(), eps, t)


def by_rows(net, x0, eps, t):
    xt = x0 + t[:, None] * (eps - x0)
    return (eps - x0 - net(xt, t)).square().mean(1)


LOSSES = [flow.loss, by_hand, sample_by_sample]
WALKS = [by_the_library, counted, falling]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.flow_loss, f) for f in LOSSES] + [(check.reflow_loss, f) for f in WALKS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def mixed(shape):
    """The loss with t of another shape in the mix."""
    return lambda net, x0, eps, t: net((1 - shape(t)) * x0 + shape(t) * eps, t) - (eps - x0)


def once_more(net, velocity, eps, t, n):
    velocity(eps, torch.zeros(len(eps)))
    return counted(net, velocity, eps, t, n)


def distilled(net, velocity, eps, t, n):
    """The first field itself as the target."""
    return (net(eps, t) - velocity(eps, t)).square().mean(1)


def through_the_walk(net, velocity, eps, t, n):
    x = ended.__wrapped__(velocity, eps, n)  # with its gradient
    return by_rows(net, x, eps, t)


def still_net(net, velocity, eps, t, n):
    """The gradient leads to the first velocity alone."""
    frozen = lambda x, t: net(x, t).detach()
    return through_the_walk(frozen, velocity, eps, t, n)


def only(asks):
    """An answer that does no more than this."""
    return lambda net, velocity, eps, t, n: asks(velocity, eps)


def walks_on_its_input(net, velocity, eps, t, n):
    return counted(net, velocity, eps.neg_(), t, n)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.flow_loss, mixed(lambda t: t), r"only as \(B, 1, 1, 1\)"),
        (check.flow_loss, mixed(lambda t: t[:, None]), r"in line .*only as \(B, 1, 1, 1\)"),
        (check.flow_loss, lambda net, x0, eps, t: net(x0, image(t)), r"\(5,\), got shape \(5, 1"),
        (check.flow_loss, lambda net, x0, eps, t: net(x0, 0.5), r"time for each.*got 0\.5"),
        (check.flow_loss, lambda net, x0, eps, t: net(x0[0], t), "takes states of shape"),
        (check.flow_loss, lambda net, x0, e, t: net(x0, 1000 * t), "at t = 800: time runs from 0"),
        (check.flow_loss, mixed(image), r"has shape \(5, 2, 3, 4\), expected \(5,\)"),
        (check.flow_loss, lambda *args: 1.1 * by_hand(*args), r"is 1\.1 times what is right"),
        (check.flow_loss, lambda *args: by_hand(*args).tolist(), "should be one tensor"),
        (check.flow_loss, torch.no_grad()(by_hand), "no gradient leads"),
        (check.flow_loss, lambda net, x0, *rest: by_hand(net, x0.neg_(), *rest), "writes into"),
        (check.reflow_loss, once_more, "asked 8 times, down to t = 0: 7 steps need 7"),
        (check.reflow_loss, distilled, "target is the line's velocity"),
        (check.reflow_loss, only(lambda u, x: x.mean(1)), "is right, yours gives"),
        (check.reflow_loss, only(lambda u, x: u(x, 1.0)), r"t of shape \(5,\), got 1\.0"),
        (check.reflow_loss, only(lambda u, x: u(x, torch.ones(5, 1))), r"got shape \(5, 1"),
        (check.reflow_loss, only(lambda u, x: u(x, -torch.ones(5))), "at t = -1: time runs"),
        (check.reflow_loss, only(lambda u, x: u(x[:1], torch.ones(5))), "takes states of"),
        (check.reflow_loss, torch.no_grad()(counted), "no gradient leads"),
        (check.reflow_loss, still_net, "no gradient leads from the loss to the network"),
        (check.reflow_loss, through_the_walk, "back through the walk into the first velocity"),
        (check.reflow_loss, walks_on_its_input, "writes into"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
