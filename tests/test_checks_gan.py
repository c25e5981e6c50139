"""The checks of lecture 7's exercises: right answers pass in several forms, slips are named."""

import warnings

import pytest
import torch
import torch.nn.functional as F

from minigen import gan
from minigen.checks import NotYet, Wrong
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


@pytest.mark.parametrize("answer", [by_the_library, by_cross_entropy, by_logsigmoid, by_logaddexp])
def test_right_losses_pass(answer, capsys):
    check.nonsaturating(answer)
    assert "right" in capsys.readouterr().out


def right_critic(r, f):
    return F.softplus(-r) + F.softplus(f)


def critic_is(wrong):
    return lambda r, f: (wrong(r, f), F.softplus(-f))


def generator_is(wrong):
    return lambda r, f: (right_critic(r, f), wrong(r, f))


def cross_entropy_of_logits(r, f):
    bce = F.binary_cross_entropy
    return bce(r, torch.ones_like(r), reduction="none") + bce(f, 0 * f, reduction="none")


def clamped(r, f):
    bce = lambda a, y: F.binary_cross_entropy(sig(a), torch.full_like(a, y), reduction="none")
    return bce(r, 1.0) + bce(f, 0.0), bce(f, 1.0)


def with_eps(r, f):
    log = lambda d: torch.log(d + 1e-8)
    return -log(sig(r)) - log(1 - sig(f)), -log(sig(f))


LOSS_SLIPS = [
    (critic_is(lambda r, f: -right_critic(r, f)), "which the critic maximises"),
    (critic_is(lambda r, f: F.softplus(r) + F.softplus(-f)), "real and fake have changed places"),
    (critic_is(lambda r, f: F.softplus(-r)), "term of the fakes is missing"),
    (critic_is(lambda r, f: F.softplus(f)), "term of the real data is missing"),
    (critic_is(lambda r, f: F.softplus(-r) + F.softplus(-f)), "both terms are −log D"),
    (critic_is(lambda r, f: F.softplus(-r) - F.softplus(f)), "subtracted"),
    (critic_is(lambda r, f: -r.log() - (1 - f).log()), "logarithms of the logits"),
    (critic_is(lambda r, f: right_critic(sig(r), sig(f))), "applied twice"),
    (critic_is(lambda r, f: -sig(r) - (1 - sig(f)) + 1), "no likelihood"),
    (critic_is(lambda r, f: f - r), "Wasserstein"),
    (critic_is(lambda r, f: F.relu(1 - r) + F.relu(1 + f)), "hinge"),
    (critic_is(lambda r, f: right_critic(r, f) / 2), "half of it"),
    (critic_is(lambda r, f: right_critic(r, f).mean()), "mean of the batch"),
    (critic_is(lambda r, f: right_critic(r, f).sum()), "summed the batch"),
    (critic_is(cross_entropy_of_logits), "takes probabilities"),
    (critic_is(lambda r, f: 1.01 * right_critic(r, f)), "critic's loss is wrong: where"),
    (generator_is(lambda r, f: -F.softplus(f)), "saturating form"),
    (generator_is(lambda r, f: F.logsigmoid(f)), "generator maximises"),
    (generator_is(lambda r, f: F.softplus(f)), "critic's loss on fakes"),
    (generator_is(lambda r, f: F.softplus(-r)), "no influence"),
    (generator_is(lambda r, f: -f.log()), "logarithm of the logit:"),
    (generator_is(lambda r, f: F.softplus(-sig(f))), "applied twice"),
    (generator_is(lambda r, f: -sig(f)), "that is −D"),
    (generator_is(lambda r, f: 1 - sig(f)), "that is 1 − D"),
    (generator_is(lambda r, f: -f), "hinge and Wasserstein"),
    (generator_is(lambda r, f: -right_critic(r, f)), "zero-sum"),
    (generator_is(lambda r, f: F.softplus(-f).mean()), "mean of the batch"),
    (generator_is(lambda r, f: F.softplus(-f).sum()), "summed the batch"),
    (generator_is(lambda r, f: 1.01 * F.softplus(-f)), "generator's loss is wrong: where"),
    (lambda r, f: by_the_library(r, f)[::-1], "the critic's comes first"),
    (lambda r, f: right_critic(r, f), "return both losses.*got Tensor"),
    (lambda r, f: (*by_the_library(r, f), 0), "got 3 values"),
    (
        lambda r, f: (-sig(r).log() - (1 - sig(f)).log(), -sig(f).log()),
        r"critic's .*σ\(−200\) is 0",
    ),
    (generator_is(lambda r, f: -sig(f).log()), r"generator's .*σ\(−200\) is 0"),
    (generator_is(lambda r, f: torch.log(1 + torch.exp(-f))), "overflows"),
    (clamped, "a clamp or a small number"),
    (with_eps, "a clamp or a small number"),
]


@pytest.mark.parametrize("answer, message", LOSS_SLIPS)
def test_wrong_losses_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.nonsaturating(answer)


def point(real, fake, u):
    u = u.reshape(-1, 1, 1, 1)
    return u * real + (1 - u) * fake


def slope(critic, x, create_graph=True, reduce=torch.sum):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(reduce(critic(x)), x, create_graph=create_graph)[0]


def penalty(at=point, value=None, **more):
    """A gradient penalty at a point, from the gradient."""
    value = value or (lambda g: (g.flatten(1).norm(dim=1) - 1) ** 2)
    return lambda critic, real, fake, u: value(slope(critic, at(real, fake, u), **more))


def norms(g):
    return g.flatten(1).norm(dim=1)


def with_weights(critic, real, fake, u):
    x = torch.lerp(fake, real, u[:, None, None, None]).requires_grad_()
    score = critic(x)
    (g,) = torch.autograd.grad(score, x, torch.ones_like(score), create_graph=True)
    return (g.square().sum((1, 2, 3)).sqrt() - 1).square()


def by_einsum(critic, real, fake, u):
    g = slope(critic, real * u.view(5, 1, 1, 1) + fake * (1 - u).view(5, 1, 1, 1))
    return (torch.einsum("bchw,bchw->b", g, g) ** 0.5 - 1) ** 2


def by_vmap(critic, real, fake, u):
    g = torch.func.vmap(torch.func.grad(lambda x: critic(x[None])[0]))(point(real, fake, u))
    return (norms(g) - 1) ** 2


@pytest.mark.parametrize("answer", [penalty(), with_weights, by_einsum, by_vmap])
def test_right_penalties_pass(answer, capsys):
    check.gradient_penalty(answer)
    assert "right" in capsys.readouterr().out


def forgot_to_ask(critic, real, fake, u):
    x = point(real, fake, u)
    return (norms(torch.autograd.grad(critic(x).sum(), x)[0]) - 1) ** 2


def in_real(critic, real, fake, u, of=0):
    pair = [real.requires_grad_(), fake.requires_grad_()]
    g = torch.autograd.grad(critic(point(*pair, u)).sum(), pair[of], create_graph=True)[0]
    return (norms(g) - 1) ** 2


def by_backward(critic, real, fake, u):
    x = point(real, fake, u).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own word on create_graph
        critic(x).sum().backward(create_graph=True)
    return (norms(x.grad) - 1) ** 2


def half_detached(critic, real, fake, u):
    norm = norms(slope(critic, point(real, fake, u)))
    return norm * norm.detach() - 2 * norm + 1


def flattened(critic, real, fake, u):
    return (norms(slope(critic, point(real, fake, u).flatten(1))) - 1) ** 2


PENALTY_SLIPS = [
    (penalty(lambda r, f, u: r), "at the real data only"),
    (penalty(lambda r, f, u: f), "at the fakes only"),
    (penalty(lambda r, f, u: point(f, r, u)), "as good.*another point"),
    (penalty(lambda r, f, u: u[:, None, None, None] * r + f), "share is 1 − u"),
    (penalty(lambda r, f, u: point(r, f, u[:1])), "first one's for all"),
    (penalty(lambda r, f, u: (r + f) / 2), "middle of each segment"),
    (in_real, "differentiated in real"),
    (lambda *a: in_real(*a, of=1), "differentiated in fake"),
    (penalty(reduce=torch.mean), "too small by B"),
    (penalty(value=lambda g: (g.norm() - 1) ** 2), "over the whole batch"),
    (penalty(value=lambda g: norms(g) ** 2 - 1), "‖∇‖² − 1: the norm comes first"),
    (penalty(value=lambda g: (norms(g) ** 2 - 1) ** 2), "root of the squared norm"),
    (penalty(value=lambda g: norms(g) ** 2), "penalty about 0"),
    (penalty(value=norms), "itself"),
    (penalty(value=lambda g: norms(g) - 1), "square is missing"),
    (penalty(value=lambda g: (norms(g) - 1).abs()), "square it"),
    (penalty(value=lambda g: (norms(g) - 1).relu() ** 2), "one-sided"),
    (penalty(value=lambda g: norms(g - 1) ** 2), "the norm of ∇ − 1"),
    (penalty(value=lambda g: ((norms(g) - 1) ** 2).mean()), "the batch's mean"),
    (penalty(value=lambda g: ((norms(g) - 1) ** 2).sum()), "summed the batch"),
    (penalty(value=lambda g: (g.norm(dim=1) - 1) ** 2), r"one axis of the image.*dim=1\)"),
    (penalty(value=lambda g: ((g.norm(dim=3) - 1) ** 2).mean((1, 2))), "dim=3, then a mean"),
    (penalty(value=lambda g: 1.01 * (norms(g) - 1) ** 2), "penalty is wrong: where"),
    (penalty(create_graph=False), "would teach nothing"),
    (half_detached, "some part was detached"),
    (by_backward, "left a gradient of the logits"),
    (forgot_to_ask, "must require a gradient"),
    (flattened, "flatten the gradient, not the image"),
    (lambda critic, r, f, u: by_einsum(critic, u * r, f, u), "number for each sample"),
]


@pytest.mark.parametrize("answer, message", PENALTY_SLIPS)
def test_wrong_penalties_are_diagnosed(answer, message):
    with pytest.raises(Wrong, match=message):
        check.gradient_penalty(answer)


def test_the_slips_differ_from_the_right_answers_and_each_other():
    """No diagnosis can be given to another slip's values."""
    real, fake = torch.tensor([0.9, 0.4, 0.2, -0.5]), torch.tensor([0.2, -0.6, -1.9, 1.1])
    groups = [check._critic_slips(real, fake, right_critic(real, fake))]
    groups.append(check._generator_slips(real, fake, F.softplus(-fake)))
    u = torch.tensor([0.15, 0.7, 0.35, 0.9, 0.6], dtype=torch.float64)
    critic, pair = check._Critic(), [check._draws(5, 1, 2, 3, seed=s) for s in (3, 4)]
    groups.append(check._penalty_slips(critic, *pair, u))
    for slips in groups:
        values = list(slips.values())
        for i, a in enumerate(values):
            assert not any(check.same(a, b) for b in values[:i]), list(slips)[i]


@pytest.mark.parametrize("stub", [lambda *a: None, lambda *a: ...])
def test_stubs_are_not_yet(stub):
    for checked in (check.nonsaturating, check.gradient_penalty):
        with pytest.raises(NotYet):
            checked(stub)
