"""The checks of lecture 7 accept every right answer, and name what no value tells."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from minigen import gan
from minigen.checks import Wrong
from minigen.checks import gan as check

sig = torch.sigmoid


def by_the_library(real, fake):
    return gan.nonsaturating.critic(real, fake), gan.nonsaturating.generator(fake)


def by_cross_entropy(real, fake):
    bce = lambda a, y: F.binary_cross_entropy_with_logits(a, y, reduction="none")
    one, zero = torch.ones_like(real), torch.zeros_like(fake)
    return bce(real, one) + bce(fake, zero), bce(fake, one)


def by_logsigmoid(real, fake):
    return [-F.logsigmoid(real) - F.logsigmoid(-fake), -F.logsigmoid(fake)]


def by_logaddexp(real, fake):
    zero = torch.zeros(())
    add = lambda a: torch.logaddexp(a, zero.to(a))
    return add(-real) + add(fake), add(-fake)


def norms(g):
    return g.flatten(1).norm(dim=1)


def penalty(critic, real, fake, u, create_graph=True, value=lambda g: (norms(g) - 1) ** 2):
    u = u.reshape(-1, 1, 1, 1)
    x = (u * real + (1 - u) * fake).requires_grad_()
    return value(torch.autograd.grad(critic(x).sum(), x, create_graph=create_graph)[0])


def with_weights(critic, real, fake, u):
    x = torch.lerp(fake, real, u[:, None, None, None]).requires_grad_()
    score = critic(x)
    (g,) = torch.autograd.grad(score, x, torch.ones_like(score), create_graph=True)
    return (g.square().sum((1, 2, 3)).sqrt() - 1).square()


def by_einsum(*case):
    length = lambda g: torch.einsum("bchw,bchw->b", g, g) ** 0.5
    return penalty(*case, value=lambda g: (length(g) - 1) ** 2)


def by_vmap(critic, real, fake, u):
    x = real * u.view(5, 1, 1, 1) + fake * (1 - u).view(5, 1, 1, 1)
    g = torch.func.vmap(torch.func.grad(lambda x: critic(x[None])[0]))(x)
    return (norms(g) - 1) ** 2


LOSSES = [by_the_library, by_cross_entropy, by_logsigmoid, by_logaddexp]
PENALTIES = [penalty, with_weights, by_einsum, by_vmap]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.nonsaturating, f) for f in LOSSES] + [(check.gradient_penalty, f) for f in PENALTIES],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def generator_is(wrong):
    return lambda r, f: (by_the_library(r, f)[0], wrong(f))


def cross_entropy_of_logits(r, f):
    bce = F.binary_cross_entropy
    return bce(r, torch.ones_like(r), reduction="none") + bce(f, 0 * f, reduction="none"), -f


def clamped(r, f):
    bce = lambda a, y: F.binary_cross_entropy(sig(a), torch.full_like(a, y), reduction="none")
    return bce(r, 1.0) + bce(f, 0.0), bce(f, 1.0)


def with_eps(r, f, eps=1e-8):
    log = lambda d: torch.log(d + eps)
    return -log(sig(r)) - log(1 - sig(f)), -log(sig(f))


def in_double(r, f):
    r, f = sig(r.double()), sig(f.double())
    return -r.log() - (1 - f).log(), -f.log()


LOSS_MISTAKES = [
    # where the critic's loss is right, the slips that may be in both are named in the generator's
    (generator_is(lambda f: F.softplus(-sig(f))), "generator's loss: the sigmoid is applied twice"),
    (generator_is(lambda f: F.softplus(-f).mean()), "generator's.* mean of the batch"),
    (generator_is(lambda f: F.softplus(-f).sum()), "generator's.* summed the batch"),
    (generator_is(lambda f: 1.01 * F.softplus(-f)), r"generator's loss is 1\.01 times what"),
    (lambda r, f: [1.01 * a for a in by_the_library(r, f)], r"critic's loss is 1\.01 times what"),
    (lambda r, f: by_the_library(r, f)[::-1], "the critic's comes first"),
    (lambda r, f: by_the_library(r, f)[0], "return both losses.*type Tensor"),
    (lambda r, f: (*by_the_library(r, f), 0), "got a tuple of 3 values"),
    (cross_entropy_of_logits, "takes probabilities"),
    (lambda r, f: with_eps(r, f, eps=0), r"critic's .*σ\(−200\) is 0"),
    (generator_is(lambda f: -sig(f).log()), r"generator's .*σ\(−200\) is 0"),
    (generator_is(lambda f: torch.log(1 + torch.exp(-f))), "overflows"),
    (in_double, r"critic's .*1 − σ\(120\) even in float64"),
    (clamped, "a clamp or a small number"),
    (with_eps, "a clamp or a small number"),
    (lambda r, f: by_the_library(r, f.detach()), "critic's .*does not reach the logits"),
    (generator_is(lambda f: F.softplus(-f.detach())), "generator's .*does not reach the logits"),
]


def by_backward(critic, real, fake, u):
    x = torch.lerp(fake, real, u[:, None, None, None]).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own word on create_graph
        critic(x).sum().backward(create_graph=True)
    return (norms(x.grad) - 1) ** 2


def half_detached(g):
    return norms(g) * norms(g).detach() - 2 * norms(g) + 1


def forgot_to_ask(critic, real, fake, u):
    return torch.autograd.grad(critic(real).sum(), real)[0]


def of_many_numbers(critic, real, fake, u):
    x = torch.lerp(fake, real, u[:, None, None, None]).requires_grad_()
    return torch.autograd.grad(critic(x), x)[0]


def tuple_kept(critic, real, fake, u):
    x = torch.lerp(fake, real, u[:, None, None, None]).requires_grad_()
    return (norms(torch.autograd.grad(critic(x).sum(), x, create_graph=True)) - 1) ** 2


PENALTY_MISTAKES = [
    (lambda *case: penalty(*case, value=lambda g: 1.01 * norms(g)), "penalty is wrong: where"),
    (lambda *case: penalty(*case, create_graph=False), "would teach nothing"),
    (lambda *case: penalty(*case, value=half_detached), "some part was detached"),
    (by_backward, "left a gradient of the logits"),
    (lambda c, r, f, u: penalty(c, r, f, torch.rand(u.shape).to(u)), "draw nothing yourself"),
    (forgot_to_ask, "no way back from the number"),
    (
        lambda critic, r, f, u: critic(r.flatten(1)),
        "leave them as they are, and flatten the gradient",
    ),
    (lambda critic, r, f, u: penalty(critic, u * r, f, u), r"only as \(B, 1, 1, 1\)"),
    (lambda critic, r, f, u: critic(u[:, None] * r), r"only as \(B, 1, 1, 1\)"),
    (lambda critic, r, f, u: critic(u[:, None, None] * r), r"only as \(B, 1, 1, 1\)"),
    (tuple_kept, r"has a tuple .*\(grad,\) = torch.autograd.grad"),
    (of_many_numbers, "differentiates many numbers"),
    (lambda critic, r, f, u: penalty(critic, r.mul_(2), f, u), "writes into a tensor"),
]


@pytest.mark.parametrize(
    "exercise, answer, message",
    [(check.nonsaturating, *mistake) for mistake in LOSS_MISTAKES]
    + [(check.gradient_penalty, *mistake) for mistake in PENALTY_MISTAKES],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
