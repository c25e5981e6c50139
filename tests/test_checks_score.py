"""The checks of lecture 5 accept every right answer and tell the usual wrong ones apart."""

import math

import pytest
import torch

from minigen import score as library
from minigen.checks import NotYet, Wrong
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


@pytest.mark.parametrize("right", [loss, by_the_target, sample_by_sample, library.denoising_loss])
def test_denoising_accepts_every_right_form(right, capsys):
    check.denoising(right)
    assert capsys.readouterr().out.startswith("right")


def wrong_loss(f, points=lambda x, c, eps: x + c * eps):
    """A loss from s at the noisy points, c = σ as a column, and eps."""
    return lambda score, x, sigma, eps: f(
        score(points(x, sigma[:, None], eps), sigma), sigma[:, None], eps
    )


def half_square(v):
    return 0.5 * v.square().sum(1)


LOSS = {
    "you subtracted eps": wrong_loss(lambda s, c, e: half_square(c * s - e)),
    "you left that out": wrong_loss(lambda s, c, e: half_square(s + e)),
    "multiplied the score by σ²": wrong_loss(lambda s, c, e: half_square(c**2 * s + e)),
    "without the weight": wrong_loss(lambda s, c, e: half_square(s + e / c)),
    "you kept eps/σ": wrong_loss(lambda s, c, e: half_square(c * s + e / c)),
    "divided eps by σ²": wrong_loss(lambda s, c, e: half_square(c * s + e / c**2)),
    "that is ½ ‖s + eps/σ²‖²": wrong_loss(lambda s, c, e: half_square(s + e / c**2)),
    "NCSN's weight is σ²": wrong_loss(lambda s, c, e: c[:, 0] * half_square(s + e / c)),
    "once more": wrong_loss(lambda s, c, e: c[:, 0] ** 2 * half_square(c * s + e)),
    "mean over the data axes": wrong_loss(lambda s, c, e: 0.5 * ((c * s + e) ** 2).mean(1)),
    "½ is missing": wrong_loss(lambda s, c, e: ((c * s + e) ** 2).sum(1)),
    "that is the norm": wrong_loss(lambda s, c, e: 0.5 * (c * s + e).norm(dim=1)),
    "you added √σ eps": wrong_loss(
        lambda s, c, e: half_square(c * s + e), lambda x, c, e: x + c.sqrt() * e
    ),
    "you added σ² eps": wrong_loss(
        lambda s, c, e: half_square(c * s + e), lambda x, c, e: x + c * c * e
    ),
    "eps without its σ": wrong_loss(lambda s, c, e: half_square(c * s + e), lambda x, c, e: x + e),
    "you asked it at x": wrong_loss(lambda s, c, e: half_square(c * s + e), lambda x, c, e: x),
    "you gave the score σ²": lambda score, x, sigma, eps: loss(
        lambda y, s: score(y, s**2), x, sigma, eps
    ),
    "the first one's for all": lambda score, x, sigma, eps: loss(
        score, x, sigma[:1].expand(len(x)), eps
    ),
    "averaged over the batch": lambda *args: loss(*args).mean(),
    "summed over the batch": lambda *args: loss(*args).sum(),
    "no gradient leads": lambda *args: loss(*args).detach(),
    "the score takes sigma as": lambda score, x, sigma, eps: loss(
        lambda y, s: score(y, s[:, None]), x, sigma, eps
    ),
    "only as (B, 1)": lambda score, x, sigma, eps: half_square(
        sigma * score(x + sigma * eps, sigma) + eps
    ),
    "is right, yours gives": lambda *args: loss(*args) + 0.01,
    "has shape": lambda *args: loss(*args)[:, None],
    "should be a tensor": lambda *args: loss(*args).tolist(),
    "could not be called as the task says": lambda score, x, sigma: 0,
    "NaN": lambda *args: loss(*args) * math.nan,
}


@pytest.mark.parametrize("words", LOSS)
def test_denoising_names_the_slip(words):
    with pytest.raises(Wrong) as error:
        check.denoising(LOSS[words])
    said = str(error.value)
    assert [w for w in LOSS if w in said] == [words]


def clean(score, x, sigma):
    """The last step, Tweedie's formula."""
    return x + sigma**2 * score(x, sigma)


def walk(score, x, sigmas, step, n, noises, last=clean):
    """As in the lecture."""
    for sigma, level in zip(sigmas, noises, strict=True):
        h = step * sigma**2 / sigmas[-1] ** 2
        for z in level:
            x = x + h * score(x, sigma) + torch.sqrt(2 * h) * z
    return last(score, x, sigmas[-1])


def in_place_with_floats(score, x, sigmas, step, n, noises):
    for i in range(len(sigmas)):
        alpha = 2 * step * float(sigmas[i]) ** 2 / float(sigmas.min()) ** 2
        for k in range(n):
            x += alpha / 2 * score(x, float(sigmas[i]))
            x += math.sqrt(alpha) * noises[i, k]
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


RIGHT = [walk, in_place_with_floats, a_level_for_each_sample, by_the_library]


@pytest.mark.parametrize("right", RIGHT)
def test_annealed_accepts_every_right_form(right, capsys):
    check.annealed(right)
    assert capsys.readouterr().out.startswith("right")


def wrong_walk(drift=lambda h: h, std=lambda h: (2 * h) ** 0.5, h=None, n=None, z=None, at=None):
    """A walk with one part replaced."""

    def answer(score, x, sigmas, step, turns, noises):
        for i in range(len(sigmas)):
            step_i = step * (h(sigmas[i], sigmas) if h else (sigmas[i] / sigmas[-1]) ** 2)
            for k in range(n or turns):
                here = sigmas[i] if at is None else sigmas[at]
                draw = noises[i, k if z is None else z]
                x = x + drift(step_i) * score(x, here) + std(step_i) * draw
        return clean(score, x, sigmas[-1 if at is None else at])

    return answer


def backwards(score, x, sigmas, step, n, noises):
    for i in reversed(range(len(sigmas))):
        h = step * (sigmas[i] / sigmas[-1]) ** 2
        for k in range(n):
            x = x + h * score(x, sigmas[i]) + torch.sqrt(2 * h) * noises[i, k]
    return clean(score, x, sigmas[-1])


def upward_from_the_least(score, x, sigmas, step, n, noises):
    for sigma, level in zip(sigmas.flip(0), noises, strict=True):
        h = step * sigma**2 / sigmas[-1] ** 2
        for z in level:
            x = x + h * score(x, sigma) + torch.sqrt(2 * h) * z
    return clean(score, x, sigmas[-1])


WALK = {
    "half the variance": wrong_walk(std=lambda h: h**0.5),
    "two conventions mixed": wrong_walk(drift=lambda h: h / 2),
    "a right walk, but its step is half": wrong_walk(lambda h: h / 2, lambda h: h**0.5),
    "the noise is missing": wrong_walk(std=lambda h: 0.0),
    "you took 2 h_i": wrong_walk(std=lambda h: 2 * h),
    "against the score": wrong_walk(drift=lambda h: -h),
    "your h_i goes with σ_i": wrong_walk(h=lambda s, ladder: s / ladder[-1]),
    "does not change with the level": wrong_walk(h=lambda s, ladder: 1.0),
    "you divided by the first σ": wrong_walk(h=lambda s, ladder: (s / ladder[0]) ** 2),
    "upside down": wrong_walk(h=lambda s, ladder: (ladder[-1] / s) ** 2),
    "divide by σ_L²": wrong_walk(h=lambda s, ladder: s**2),
    "counts the levels backwards": backwards,
    "from small noise to large: large noise comes first": lambda score, x, sigmas, *rest: walk(
        score, x, sigmas.flip(0), *rest
    ),
    "σ_L is the least of all": upward_from_the_least,
    "one step at each level": wrong_walk(n=1),
    "same noise in every step": wrong_walk(z=0),
    "the noise of the last level stays": lambda *args: walk(*args, last=lambda score, x, sigma: x),
    "you took σ_L": lambda *args: walk(*args, last=lambda f, x, sigma: x + sigma * f(x, sigma)),
    "at the first σ throughout": wrong_walk(at=0),
    "at the last σ throughout": wrong_walk(at=-1),
    "the last state alone": lambda *args: [walk(*args)] * 2,
    "is right, yours gives": lambda *args: walk(*args) + 0.01,
    "has shape": lambda *args: walk(*args)[0],
    "should be a tensor": lambda *args: 1.0,
}


@pytest.mark.parametrize("words", WALK)
def test_annealed_names_the_slip(words):
    with pytest.raises(Wrong) as error:
        check.annealed(WALK[words])
    said = str(error.value)
    named = [w for w in WALK if w in said]
    if words == "σ_L is the least of all":  # the same slip, with a word more
        named.remove("from small noise to large: large noise comes first")
    assert named == [words]


@pytest.mark.parametrize("exercise", [check.denoising, check.annealed])
def test_a_stub_is_not_yet_begun(exercise):
    def stub(*args): ...

    with pytest.raises(NotYet, match="stub returns nothing yet"):
        exercise(stub)
    with pytest.raises(NotYet):
        exercise(lambda *args: ...)
