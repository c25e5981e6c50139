"""The checks of lecture 2 accept every right answer, and name what no value tells."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions as dist

from minigen.checks import Wrong
from minigen.checks import vae as check


def elbo(x, logits, mean, log_var):
    """As in the lecture."""
    pixels = x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)
    kl = 0.5 * (log_var.exp() + mean**2 - log_var - 1).sum(1)
    return pixels.sum(-1).mean(0) - kl


def by_distributions(x, logits, mean, log_var):
    q, prior = dist.Normal(mean, torch.exp(0.5 * log_var)), dist.Normal(0.0, 1.0)
    p = dist.Independent(dist.Bernoulli(logits=logits), 1)
    return p.log_prob(x).mean(0) - dist.kl_divergence(q, prior).sum(-1)


def by_cross_entropy(x, logits, mean, log_var):
    loss = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
    return -loss.sum(-1).mean(0) + 0.5 * (1 + log_var - mean.pow(2) - log_var.exp()).sum(-1)


def draw_by_draw(x, logits, mean, log_var):
    total = torch.zeros(len(x), dtype=x.dtype)
    for some in logits:
        pi = torch.sigmoid(some)
        total += torch.where(x == 1, pi, 1 - pi).prod(1).log() / len(logits)
    for m, l in zip(mean.T, log_var.T, strict=True):
        total -= (l.exp() + m**2 - l - 1) / 2
    return total


def iwae(log_weights):
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def by_shift(w):
    top = w.amax(0, keepdim=True)
    return (top + torch.log(torch.exp(w - top).mean(0, keepdim=True)))[0]


def shifted_by(middle):
    return lambda w: middle(w) + (w - middle(w)).exp().mean(0).log()


def one_by_one(w):
    total = w[0]
    for row in w[1:]:
        total = torch.logaddexp(total, row)
    return total - torch.log(torch.tensor(float(len(w))))


BOUNDS = [elbo, by_distributions, by_cross_entropy, draw_by_draw]
WEIGHTED = [iwae, by_shift, one_by_one]


@pytest.mark.parametrize(
    "exercise, right", [(check.elbo, f) for f in BOUNDS] + [(check.iwae, f) for f in WEIGHTED]
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def unsquashed(x, logits, mean, log_var):
    return -F.binary_cross_entropy(logits, x.expand_as(logits), reduction="none").sum(-1).mean(0)


def draws_at_the_wrong_axis(x, logits, mean, log_var):
    return logits.sum(-1).mean(1) - mean.sum(-1)


def pixels_and_batch_averaged(x, logits, mean, log_var):
    missing = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits)) * (x.shape[1] - 1)
    return elbo(x, logits, mean, log_var).mean() + missing


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.elbo, unsquashed, r"says `with_logits` \(all elements"),
        (check.elbo, lambda x, l, *_: dist.Bernoulli(l).log_prob(x), r"`with_logits` \(Expected"),
        (check.elbo, lambda x, l, *_: F.binary_cross_entropy_with_logits(l, x), "x.expand_as"),
        (check.elbo, pixels_and_batch_averaged, "mean over the pixels.*; and the batch is aver"),
        (check.elbo, lambda *case: elbo(*case).log(), "log of a negative number"),
        (check.elbo, lambda *case: elbo(*case) + 0.01, "is right, yours gives"),
        (check.elbo, lambda *case: elbo(*case)[:, None], "has shape"),
        (check.elbo, lambda *case: 3.0, "should be one tensor"),
        (check.elbo, lambda x, l, m, v: elbo(x, l, m.mul_(2), v), "writes into a tensor"),
        (check.elbo, draws_at_the_wrong_axis, r"both parts of the bound are \(B,\)"),
        (check.iwae, lambda w: (w.exp() + 1).mean(0).log(), r"e\^800 = ∞ and e\^−900"),
        (check.iwae, shifted_by(lambda w: w.amin(0)), "take out each sample's largest"),
        (check.iwae, shifted_by(lambda w: w.median(0).values), "take out each sample's largest"),
        (check.iwae, shifted_by(lambda w: w[0]), "take out each sample's largest"),
        (check.iwae, shifted_by(lambda w: w[-1]), "take out each sample's largest"),
        (check.iwae, lambda w: iwae(w) + 0.01, "is right, yours gives"),
        (check.iwae, lambda w: iwae(w) * torch.nan, "NaN or infinite"),
        (check.iwae, lambda w: iwae(w)[None], "has shape"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, RuntimeError])
def test_an_error_of_the_learners_own_is_left_to_speak(error):
    def fails(*case):
        raise error("mine")

    with pytest.raises(error, match="mine"):
        check.elbo(fails)
