"""The checks of lecture 6 accept every right answer, and name what no value tells."""

import pytest
import torch

from minigen import guidance
from minigen.checks import Wrong
from minigen.checks import guidance as check


def doubled(net, xt, t, label, gamma):
    null = torch.full_like(label, net.classes)
    c, u = net(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([label, null])).chunk(2)
    return torch.lerp(u, c, gamma)


def other_order(net, xt, t, label, gamma):
    null = torch.full_like(label, net.classes)
    out = net(xt.repeat(2, 1), t.repeat(2), torch.cat([null, label]))
    return (1 - gamma) * out[: len(xt)] + gamma * out[len(xt) :]


def leaf(xt):
    return xt.detach().requires_grad_()


def by_the_library(eps, xt, t, a, b, log_p, gamma):
    return eps - gamma * b * guidance.log_prob_gradient(log_p, xt, t)


def by_backward(eps, xt, t, a, b, log_p, gamma):
    xt.requires_grad_()
    log_p(xt, t).sum().backward()
    return eps - gamma * b * xt.grad


def by_the_score(eps, xt, t, a, b, log_p, gamma):
    """ε = −b s, with s the score of the data and of the class."""
    x = leaf(xt)
    rows = [log_p(x[i : i + 1], t[i : i + 1]) for i in range(len(x))]
    return -b * (-eps / b + gamma * torch.autograd.grad(rows, x)[0])


def with_graph(eps, xt, t, a, b, log_p, gamma):
    x = leaf(xt)
    return eps - gamma * b * torch.autograd.grad(log_p(x, t).sum(), x, create_graph=True)[0]


def in_pairs(net, xt, t, label, gamma):
    """x_1 with its label, x_1 without, x_2 with, …"""
    rows = torch.stack([label, torch.full_like(label, net.classes)], 1).flatten()
    out = net(xt.repeat_interleave(2, 0), t.repeat_interleave(2), rows)
    return torch.lerp(out[1::2], out[::2], gamma)


CFG = [doubled, other_order, in_pairs]
TILTS = [by_the_library, by_backward, by_the_score]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.guided_eps, f) for f in CFG] + [(check.classifier_guided, f) for f in TILTS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def test_an_answer_that_carries_its_graph_is_right_but_told(capsys):
    check.classifier_guided(with_graph)
    assert "still carries the graph of log_p" in capsys.readouterr().out


def two_calls(net, xt, t, label, gamma):
    c, u = net(xt, t, label), net(xt, t)
    return u + gamma * (c - u)


def time_not_doubled(net, xt, t, label, gamma):
    return net(torch.cat([xt, xt]), t, torch.cat([label, label]))


def stacked(net, xt, t, label, gamma):
    return net(torch.stack([xt, xt]), torch.stack([t, t]), torch.stack([label, label]))


def level_as_a_column(eps, xt, t, a, b, log_p, gamma):
    x = leaf(xt)
    return eps - gamma * b * torch.autograd.grad(log_p(x, t[:, None]).sum(), x)[0]


def forgot_to_ask(eps, xt, t, a, b, log_p, gamma):
    return eps - gamma * b * torch.autograd.grad(log_p(xt, t).sum(), xt)[0]


def in_eps(eps, xt, t, a, b, log_p, gamma):
    of = leaf(eps)
    return eps - gamma * b * torch.autograd.grad(log_p(leaf(xt), t).sum(), of)[0]


def tuple_kept(eps, xt, t, a, b, log_p, gamma):
    x = leaf(xt)
    return eps - gamma * b * torch.autograd.grad(log_p(x, t).sum(), x)


def of_many_numbers(eps, xt, t, a, b, log_p, gamma):
    return torch.autograd.grad(log_p(x := leaf(xt), t), x)[0]


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.guided_eps, two_calls, r"called 2 times on batches of \[5, 5\]"),
        (check.guided_eps, time_not_doubled, "given xt 10, t 5, label 10 rows: double all three"),
        (check.guided_eps, lambda net, xt, t, label, g: net(xt, t, label + 2), "out of range"),
        (check.guided_eps, lambda *args: doubled(*args).mean(), "has shape"),
        (check.guided_eps, lambda *args: doubled(*args) + 0.01, "is right, yours gives"),
        (check.guided_eps, lambda net, xt, *rest: doubled(net, xt.neg_(), *rest), "writes into"),
        (check.guided_eps, stacked, r"was given \(2, 5, 3\): torch.cat"),
        (check.classifier_guided, level_as_a_column, r"t of shape \(5,\), got \(5, 1\)"),
        (check.classifier_guided, forgot_to_ask, "no way back from the number"),
        (check.classifier_guided, torch.no_grad()(with_graph), "not under no_grad"),
        (check.classifier_guided, in_eps, "the gradient is in the very x"),
        (check.classifier_guided, tuple_kept, r"\(grad,\) = torch.autograd.grad"),
        (check.classifier_guided, of_many_numbers, "take their sum"),
        (check.classifier_guided, lambda eps, *rest: 0.9 * eps, "is right, yours gives"),
        (check.classifier_guided, lambda e, *rest: by_the_library(e.neg_(), *rest), "writes into"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
