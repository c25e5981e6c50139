"""The checks of lecture 4 accept every right answer, and name what no value tells."""

import pytest
import torch

from minigen import ddim
from minigen.checks import Wrong
from minigen.checks import ddim as check


def step(xt, eps_hat, abar_t, abar_s, eta, z):
    """As in the lecture."""
    abar_t, abar_s = abar_t[:, None], abar_s[:, None]
    x0 = (xt - (1 - abar_t).sqrt() * eps_hat) / abar_t.sqrt()
    var = eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    return abar_s.sqrt() * x0 + (1 - abar_s - var).sqrt() * eps_hat + var.sqrt() * z


def by_posterior_coefficients(xt, eps_hat, abar_t, abar_s, eta, z):
    """x_s = A x̂0 + k x_t + ς z."""
    a_t, a_s = abar_t.sqrt().reshape(-1, 1), abar_s.sqrt().reshape(-1, 1)
    b_t, b_s = (1 - a_t**2) ** 0.5, (1 - a_s**2) ** 0.5
    std = eta * b_s / b_t * (1 - (a_t / a_s) ** 2) ** 0.5
    k = (b_s**2 - std**2) ** 0.5 / b_t
    return (a_s - k * a_t) * (xt - b_t * eps_hat) / a_t + k * xt + std * z


def sample_by_sample(xt, eps_hat, abar_t, abar_s, eta, z):
    """A loop over the batch; fresh noise only if there is any."""
    rows = []
    for i in range(len(xt)):
        t, s = float(abar_t[i]), float(abar_s[i])
        var = eta**2 * (1 - s) / (1 - t) * (1 - t / s)
        x0 = (xt[i] - (1 - t) ** 0.5 * eps_hat[i]) / t**0.5
        rows.append(s**0.5 * x0 + (1 - s - var) ** 0.5 * eps_hat[i] + var**0.5 * z[i])
    return torch.stack(rows)


def by_acos(a, b, u):
    p, q = a.flatten(1), b.flatten(1)
    angle = torch.acos((p * q).sum(1) / p.norm(dim=1) / q.norm(dim=1)).reshape(-1, 1, 1)
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def by_rotation(a, b, u):
    """Turn a towards the part of b at right angles to it, each with its own length."""
    p, q = a.flatten(1), b.flatten(1)
    p, q = p / p.norm(dim=1, keepdim=True), q / q.norm(dim=1, keepdim=True)
    angle = torch.atan2((q - (p * q).sum(1, keepdim=True) * p).norm(dim=1), (p * q).sum(1))
    w = torch.stack([torch.sin((1 - u) * angle), torch.sin(u * angle)]) / torch.sin(angle)
    return torch.einsum("b,bij->bij", w[0], a) + torch.einsum("b,bij->bij", w[1], b)


STEPS = [step, by_posterior_coefficients, sample_by_sample]
ARCS = [ddim.slerp, by_acos, by_rotation]


@pytest.mark.parametrize(
    "exercise, right", [(check.ddim_step, f) for f in STEPS] + [(check.slerp, f) for f in ARCS]
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def made_at_s(xt, eps, abar_t, abar_s, eta, z):
    """x̂0 of level s, and the way back to s as it should be."""
    t, s = abar_t[:, None], abar_s[:, None]
    x0 = (xt - (1 - s).sqrt() * eps) / s.sqrt()
    var = eta**2 * (1 - s) / (1 - t) * (1 - t / s)
    return s.sqrt() * x0 + (1 - s - var).sqrt() * eps + var.sqrt() * z


def ddpm_mean(xt, eps, abar_t, abar_s, eta, z):
    alpha = (abar_t / abar_s)[:, None]
    return (xt - (1 - alpha) / (1 - abar_t[:, None]).sqrt() * eps) / alpha.sqrt()


def unshaped(xt, eps, abar_t, abar_s, eta, z):
    return abar_s.sqrt() * (xt - (1 - abar_t).sqrt() * eps) / abar_t.sqrt()


def no_lengths(a, b, u):
    angle = torch.acos((10 * a * b).flatten(1).sum(1)).reshape(-1, 1, 1)
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.ddim_step, made_at_s, "at η = 0 you return xt: one level is used twice"),
        (check.ddim_step, ddpm_mean, "at η = 0 that is DDPM's mean"),
        (check.ddim_step, unshaped, r"only as \(B, 1\)"),
        (check.ddim_step, lambda *args: step(*args) + 0.01, "is right, yours gives"),
        (check.ddim_step, lambda x, *args: torch.full_like(x, torch.nan), "roots is negative"),
        (check.ddim_step, lambda *args: step(*args).T, "has shape"),
        (check.ddim_step, lambda *args: 3.0, "should be one tensor"),
        (check.slerp, no_lengths, "divide the dot product by both lengths"),
        (check.slerp, lambda a, b, u: by_acos(a.div_(a.norm()), b, u), "writes into a tensor"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
