"""The checks of lecture 5 accept every right answer, and name what no value tells."""

import math

import pytest
import torch

from minigen import score as library
from minigen.checks import Wrong
from minigen.checks import score as check


def loss(score, x, sigma, eps):
    """As in the lecture."""
    c = sigma[:, None]
    return 0.5 * (c * score(x + c * eps, sigma) + eps).square().sum(1)


def by_the_target(score, x, sigma, eps):
    """σ² times the squared distance from ∇ log N(x̃; x, σ²)."""
    noisy = x + torch.einsum("b,bd->bd", sigma, eps)
    target = (x - noisy) / sigma.reshape(-1, 1) ** 2
    return sigma**2 / 2 * torch.linalg.vector_norm(score(noisy, sigma) - target, dim=1) ** 2


def sample_by_sample(score, x, sigma, eps):
    rows = []
    for i in range(len(x)):
        s = score((x[i] + sigma[i] * eps[i])[None], sigma[i : i + 1])[0]
        rows.append(((sigma[i] * s + eps[i]) ** 2).sum() / 2)
    return torch.stack(rows)


def clean(score, x, sigma):
    """The last step, Tweedie's formula."""
    return x + sigma**2 * score(x, sigma)


def walk(score, x, sigmas, step, n, noises):
    """As in the lecture."""
    for sigma, level in zip(sigmas, noises, strict=True):
        h = step * sigma**2 / sigmas[-1] ** 2
        for z in level:
            x = x + h * score(x, sigma) + torch.sqrt(2 * h) * z
    return clean(score, x, sigmas[-1])


def with_floats(score, x, sigmas, step, n, noises):
    for i in range(len(sigmas)):
        alpha = 2 * step * float(sigmas[i]) ** 2 / float(sigmas.min()) ** 2
        for k in range(n):
            x = x + alpha / 2 * score(x, float(sigmas[i]))
            x += math.sqrt(alpha) * noises[i, k]  # into its own x, no more the caller's
    return clean(score, x, float(sigmas.min()))


def a_level_for_each_sample(score, x, sigmas, step, n, noises):
    for i in range(len(sigmas)):
        h = step * (sigmas[i] / sigmas[-1]) ** 2
        for k in range(n):
            x = x + h * score(x, sigmas[i].expand(len(x))) + (2 * h) ** 0.5 * noises[i, k]
    return clean(score, x, sigmas[-1])


def by_the_library(score, x, sigmas, step, n, noises):
    draws = iter(noises.flatten(0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "noise", lambda x, generator=None: next(draws) if len(x) else x)
        *_, last = library.annealed_langevin(score, x, sigmas, step=step, n=n)
    return clean(score, last, sigmas[-1])


LOSSES = [loss, by_the_target, sample_by_sample, library.denoising_loss]
WALKS = [walk, with_floats, a_level_for_each_sample, by_the_library]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.denoising, f) for f in LOSSES] + [(check.annealed, f) for f in WALKS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def unshaped(score, x, sigma, eps):
    return 0.5 * (sigma * score(x + sigma * eps, sigma) + eps).square().sum(1)


def level_as_a_column(score, x, sigma, eps):
    return loss(lambda y, s: score(y, s[:, None]), x, sigma, eps)


def asks_at_all_levels(score, x, sigmas, *rest):
    return score(x, sigmas)


def step_first(score, x, sigmas, step, n, noises):
    return walk(score, x, sigmas, step, n, [[noises[k, i] for k in range(n)] for i in range(3)])


def one_level_too_far(score, x, sigmas, step, n, noises):
    return x + noises[len(sigmas), 0]


def one_step_too_far(score, x, sigmas, step, n, noises):
    return x + sum(noises[i, k + 1] for i in range(len(sigmas)) for k in range(n))


def own_noise(exercise):
    """The exercise's answer with a noise that it draws itself."""
    draw = torch.Generator().manual_seed(0)
    return lambda *args: exercise(*args[:-1], torch.randn(args[-1].shape, generator=draw))


def in_place(score, x, *args):
    x += 1
    return walk(score, x, *args)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.denoising, lambda *args: loss(*args).detach(), "no gradient leads"),
        (check.denoising, level_as_a_column, "the score takes sigma as"),
        (check.denoising, unshaped, r"only as \(B, 1\)"),
        (check.denoising, lambda *args: loss(*args) + 0.01, "is right, yours gives"),
        (check.denoising, lambda *args: loss(*args)[:, None], "has shape"),
        (check.denoising, lambda *args: loss(*args).tolist(), "should be one tensor"),
        (check.denoising, lambda *args: loss(*args) * math.nan, "holds NaN"),
        (check.annealed, lambda *args: [walk(*args)] * 2, "got a list of 2 tensors"),
        (check.annealed, asks_at_all_levels, r"'return score\(x, sigmas\)'"),
        (check.annealed, step_first, "level comes first in noises"),
        (check.denoising, own_noise(loss), "draw nothing yourself"),
        (check.annealed, own_noise(walk), "draw nothing yourself"),
        (check.annealed, in_place, "writes into a tensor"),
        (check.annealed, lambda *args: walk(*args) + 0.01, "is right, yours gives"),
        (check.annealed, lambda *args: walk(*args)[0], "has shape"),
        (check.annealed, lambda *args: 1.0, "should be one tensor"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)


@pytest.mark.parametrize("answer", [one_level_too_far, one_step_too_far])
def test_another_index_out_of_range_is_left_to_speak(answer):
    with pytest.raises(IndexError, match="out of bounds"):
        check.annealed(answer)
