"""The checks of lecture 9 accept every right answer, and name what no value tells."""

import math

import pytest
import torch

from minigen import paths, sde, targets
from minigen.checks import Wrong
from minigen.checks import sde as check

# A step back ------------------------------------------------------------------------------------


def in_one_line(score, x, t, s, f, g2, noise, z):
    pull = 0.5 * (1 + noise**2) * g2 * score(x, t)
    return x + (f * x - pull) * (s - t) + noise * (g2 * (t - s)) ** 0.5 * z


def backwards(score, x, t, s, f, g2, noise, z):
    """With h > 0, and floats."""
    h, g = float(t - s), math.sqrt(g2)
    x_new = (1 - float(f) * h) * x
    x_new += (1 + noise**2) / 2 * g**2 * h * score(x, t.expand(len(x)))
    return x_new.add_(z, alpha=noise * g * math.sqrt(h))


def by_the_ode_and_langevin(score, x, t, s, f, g2, noise, z):
    """An Euler step of the ODE and a Langevin step of h = ½ noise² g² (t − s), from one score."""
    value, h = score(x, float(t)), 0.5 * noise**2 * g2 * (t - s)
    ode = (f * x - 0.5 * g2 * value) * (s - t)
    return x + ode + h * value + torch.sqrt(2 * h) * z


class Given(paths.GaussianPath):
    """A path with the f and g² of the check at its time t."""

    def __init__(self, t, f, g2):
        self.at, self.f, self.g2 = float(t), float(f), float(g2)

    def a(self, t):
        return torch.exp(self.f * t)

    def b2(self, t):
        return self.g2 * torch.expm1(2 * self.f * t) / (2 * self.f)

    def b(self, t):
        return self.b2(t).sqrt()


def by_the_library(score, x, t, s, f, g2, noise, z):
    """With f and g² constant: the library's step, but for the noise, which it draws itself."""
    path = Given(t, f, g2)
    denoise = paths.denoiser(lambda x, t, label: score(x, t), path, targets.score)
    ts = torch.stack([t, s])
    (y,) = sde.reverse(denoise, path, x, ts, noise=noise, generator=torch.Generator())
    if not noise:
        return y
    drawn = torch.randn(x.shape, generator=torch.Generator(), dtype=x.dtype)
    return y + noise * torch.sqrt(g2 * (t - s)) * (z - drawn)


# The estimate -----------------------------------------------------------------------------------


def by_backward(field, x, v):
    x = x.clone().requires_grad_()
    field(x).backward(v)
    return (x.grad * v).sum((1, 2))


def by_vjp(field, x, v):
    _, pull = torch.func.vjp(field, x)
    return torch.einsum("bij,bij->b", pull(v)[0], v)


def by_jvp(field, x, v):
    """Forward mode: ∇field v, then vᵀ; the same number."""
    _, push = torch.func.jvp(field, (x,), (v,))
    return (v * push).reshape(len(x), -1).sum(-1)


def sample_by_sample(field, x, v):
    found = []
    for one, probe in zip(x, v, strict=True):
        one = one.clone().requires_grad_()
        (grad,) = torch.autograd.grad((field(one[None])[0] * probe).sum(), one)
        found.append((grad * probe).sum())
    return torch.stack(found)


def by_the_room(field, x, v):
    return sde.hutchinson(field, x, draw=lambda x, generator: v)


@pytest.mark.parametrize(
    "exercise, right",
    [
        (check.reverse_step, f)
        for f in (in_one_line, backwards, by_the_ode_and_langevin, by_the_library)
    ]
    + [
        (check.hutchinson_divergence, f)
        for f in (by_backward, by_vjp, by_jvp, sample_by_sample, by_the_room)
    ],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def test_one_call_is_praised_only_where_it_was_one(capsys):
    check.hutchinson_divergence(by_backward)
    check.hutchinson_divergence(sample_by_sample)
    one, many = capsys.readouterr().out.splitlines()
    assert "from one call," in one and "from 5 calls" in many


def twice(score, x, t, s, *rest):
    score(x, s)
    return in_one_line(score, x, t, s, *rest)


def without(noise_of):
    """The right step, which fails for some noise alone."""
    return lambda score, x, t, s, f, g2, noise, z: in_one_line(
        score, x, t, s, f, g2, noise_of(noise), z
    )


def asks(*args):
    """An answer that does no more than ask the score so."""
    return lambda score, x, t, s, *rest: score(*[a(x, t) for a in args])


def divided_by_noise(score, x, t, s, f, g2, noise, z):
    return in_one_line(score, x, t, s, f, g2, noise, z) + 0 * x / torch.as_tensor(noise)


def exact_too(field, x, v):
    field(x), field(x)
    return by_backward(field, x, v)


def own_probe(field, x, v):
    return by_backward(field, x, torch.randn_like(v))


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.reverse_step, twice, "the score was asked 2 times"),
        (check.reverse_step, without(lambda n: max(n, 0.5)), "step with noise 0.0 is wrong"),
        (check.reverse_step, without(lambda n: min(n, 0.7)), "step with noise 1.0 is wrong"),
        (check.reverse_step, divided_by_noise, "step with noise 0.0 holds NaN"),
        (check.reverse_step, asks(lambda x, t: x[0], lambda x, t: t), r"states of shape \(5, 3\)"),
        (check.reverse_step, asks(lambda x, t: x, lambda x, t: t.expand(5, 1)), r"got \(5, 1\)"),
        (check.reverse_step, asks(lambda x, t: x), r"depends on the time too"),
        (check.reverse_step, lambda score, x, t, s, *rest: (s - t)[:, None] * x, "0-d tensors"),
        (check.reverse_step, lambda score, x, *rest: in_one_line(score, x.neg_(), *rest), "writes"),
        (check.reverse_step, lambda *args: in_one_line(*args).sum(1), r"shape \(5,\), expected"),
        (check.reverse_step, lambda *args: 1.2 * in_one_line(*args), "is 1.2 times what is right"),
        (
            check.reverse_step,
            lambda score, x, t, s, f, g2, noise, z: in_one_line(
                score, x, t, s, f, g2, noise, torch.randn_like(z)
            ),
            "draw nothing yourself",
        ),
        (check.hutchinson_divergence, exact_too, "asked 3 times"),
        (check.hutchinson_divergence, own_probe, "draw nothing yourself"),
        (check.hutchinson_divergence, lambda field, x, v: field(x[0]), "takes states of shape"),
        (check.hutchinson_divergence, lambda f, x, v: f(x.flatten(1)), "takes states of shape"),
        (
            check.hutchinson_divergence,
            lambda field, x, v: torch.autograd.grad((field(x) * v).sum(), x)[0],
            "finds no way back",
        ),
        (
            check.hutchinson_divergence,
            lambda field, x, v: torch.autograd.grad(field(x.requires_grad_()), x)[0],
            "differentiates many numbers",
        ),
        (
            check.hutchinson_divergence,
            lambda f, x, v: torch.autograd.grad((f(x.requires_grad_()) * v).sum(), x) * v,
            "gives a tuple",
        ),
        (check.hutchinson_divergence, lambda *args: by_vjp(*args)[:, None], r"shape \(5, 1\)"),
        (check.hutchinson_divergence, lambda f, x, v: by_vjp(f, x.mul_(1.1), v), "writes into"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
