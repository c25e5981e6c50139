"""The checks of lecture 11 accept every right answer, and name what no value tells."""

import math

import pytest
import torch

from minigen.checks import Wrong
from minigen.checks import solvers as check


def by_ddim(x, now, before, a_t, b_t, a_s, b_s, h_before):
    """DDIM's step with the line's value in the middle for x̂0."""
    D = now
    if b_s != 0:
        r = h_before / torch.log(a_s * b_t / (b_s * a_t))
        D = (1 + 1 / (2 * r)) * now - 1 / (2 * r) * before
    return a_s * D + b_s * (x - a_t * D) / b_t


def with_math(x, now, before, a_t, b_t, a_s, b_s, h_before):
    if not float(b_s):
        return now * float(a_s)
    h = math.log(a_s / b_s) - math.log(a_t / b_t)
    D = torch.lerp(before, now, 1 + h / (2 * float(h_before)))
    return b_s / b_t * x + a_s * (1 - math.exp(-h)) * D


def in_sigma(x, now, before, a_t, b_t, a_s, b_s, h_before):
    """In x/a, as k-diffusion's coordinates are."""
    sigma, after = b_t / a_t, b_s / a_s
    if after == 0:
        return a_s * now
    h = torch.log(sigma / after)
    D = now + 0.5 * h / h_before * (now - before)
    return a_s * (after / sigma * (x / a_t) - torch.expm1(-h) * D)


def by_torch(denoise, velocity, x, t):
    return torch.func.jvp(denoise, (x, t), (velocity(x, t), torch.ones_like(t)))[1]


def of_the_line(denoise, velocity, x, t):
    """Along x + s dx/dt, t + s at s = 0."""
    u, zero = velocity(x, t), torch.zeros((), dtype=x.dtype)
    return torch.func.jvp(lambda s: denoise(x + s * u, t + s), (zero,), (zero + 1,))[1]


def by_two_reverse_passes(denoise, velocity, x, t):
    rates = velocity(x, t), torch.ones_like(t)
    return torch.autograd.functional.jvp(denoise, (x, t), rates)[1]


STEPS, SLOPES = [by_ddim, with_math, in_sigma], [by_torch, of_the_line, by_two_reverse_passes]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.step_2m, f) for f in STEPS] + [(check.total_derivative, f) for f in SLOPES],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def quotient(d):
    """A central difference along the velocity."""

    def answer(denoise, velocity, x, t):
        u = velocity(x, t)
        return (denoise(x + d * u, t + d) - denoise(x - d * u, t - d)) / (2 * d)

    return answer


def in_two_parts(denoise, velocity, x, t):
    u, still = velocity(x, t), torch.zeros_like(x)
    of_x = torch.func.jvp(denoise, (x, t), (u, torch.zeros_like(t)))[1]
    return of_x + torch.func.jvp(denoise, (x, t), (still, torch.ones_like(t)))[1]


def both(denoise, velocity, x, t):
    return torch.func.jvp(denoise, (x, t), (velocity(x, t), torch.ones_like(t)))


def along(rate):
    """A jvp with this rate of t."""
    return lambda d, u, x, t: torch.func.jvp(d, (x, t), (u(x, t), rate(t)))[1]


def clamped(x, now, before, a_t, b_t, a_s, b_s, h_before):
    return by_ddim(x, now, before, a_t, b_t, a_s, b_s.clamp(min=1e-8), h_before)


def halved(x, now, before, *numbers):
    return 0.5 * by_ddim(x, now, before, *numbers)


def in_place(x, now, before, *numbers):
    return by_ddim(x.mul_(1), now.neg_(), before, *numbers)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.step_2m, halved, r"is 0\.5 times what is right"),
        (check.step_2m, in_place, "writes into"),
        (check.step_2m, lambda x, *rest: by_ddim(x, *rest)[0], r"has shape \(3,\), expected"),
        (check.step_2m, lambda *args: by_ddim(*args).tolist(), "should be one tensor"),
        (check.step_2m, lambda x, *rest: x, "is wrong: where"),
        (check.total_derivative, quotient(1e-5), "right, but the denoiser was asked 2 times"),
        (check.total_derivative, quotient(0.1), "is wrong: where"),
        (check.total_derivative, in_two_parts, "asked 2 times.*along both rates"),
        (check.total_derivative, both, "got a tuple of 2 tensors"),
        (check.total_derivative, lambda d, u, x, t: d(x, t[0]), r"denoiser takes t of shape \(5,"),
        (check.total_derivative, lambda d, u, x, t: u(x[0], t), r"velocity takes x of shape \(5,"),
        (check.total_derivative, lambda d, u, x, t: d(x, 0.5), r"got 0\.5"),
        (check.total_derivative, along(lambda t: t.new_ones(())), r"a tensor \(B,\) of ones"),
        (check.total_derivative, along(lambda t: torch.ones_like(t)[:, None]), "of its shape"),
        (check.total_derivative, along(lambda t: 1.0), "of its shape"),
        (check.step_2m, clamped, "you put 1e-08 in its place"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
