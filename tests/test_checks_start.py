"""The check of lecture 0 accepts every right answer, and names what no value tells."""

import pytest
import torch

from minigen import ddim, paths
from minigen.checks import Wrong
from minigen.checks import start as check


def step(xt, eps_hat, a_t, b_t, a_s, b_s):
    """As in the lecture."""
    a_t, b_t, a_s, b_s = (level[:, None, None, None] for level in (a_t, b_t, a_s, b_s))
    return a_s * (xt - b_t * eps_hat) / a_t + b_s * eps_hat


def image_by_image(xt, eps_hat, a_t, b_t, a_s, b_s):
    rows = []
    for i, (x, eps) in enumerate(zip(xt, eps_hat, strict=True)):
        guess = (x - b_t[i] * eps) / a_t[i]
        rows.append(a_s[i] * guess + b_s[i] * eps)
    return torch.stack(rows)


def by_coefficients(xt, eps_hat, a_t, b_t, a_s, b_s):
    """A xt + E ε̂."""
    shape = -1, *[1] * (xt.ndim - 1)
    return (a_s / a_t).reshape(shape) * xt + (b_s - a_s * b_t / a_t).reshape(shape) * eps_hat


@pytest.mark.parametrize("right", [step, image_by_image, by_coefficients])
def test_every_right_form_is_accepted(right, capsys):
    check.step_back(right)
    assert capsys.readouterr().out.startswith("right")


def test_it_is_the_step_of_the_sampler_of_lecture_4():
    path, g = paths.Cosine(), torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 5, 1, 3, 4, generator=g, dtype=torch.float64)
    ts = torch.tensor([0.7, 0.4], dtype=torch.float64)
    (theirs,) = ddim.sample(lambda x, t: (x - path.b(t) * eps) / path.a(t), path, x, ts)
    levels = (f(t).expand(5) for t in ts for f in (path.a, path.b))
    torch.testing.assert_close(step(x, eps, *levels), theirs)


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda x, e, a, b, c, d: c * (x - b * e) / a + d * e, r"as \(B, 1, 1, 1\)"),
        (lambda *args: step(*args) + 0.01, "is right, yours gives"),
        (lambda x, *args: step(x.mul_(1.0).add_(1), *args), "writes into a tensor"),
        (lambda *args: step(*args)[0], "has shape"),
    ],
)
def test_what_no_value_tells_is_named_too(answer, message):
    with pytest.raises(Wrong, match=message):
        check.step_back(answer)
