"""The checks of lecture 2 accept every right answer and tell the usual wrong ones apart."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions as dist

from minigen.checks import NotYet, Wrong, same
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


@pytest.mark.parametrize("right", [elbo, by_distributions, by_cross_entropy, draw_by_draw])
def test_elbo_accepts_every_right_form(right, capsys):
    check.elbo(right)
    assert capsys.readouterr().out.startswith("right")


def normal_kl(m, v):
    return 0.5 * (v + m**2 - v.log() - 1)


def slipped(reconstruct=lambda pixels: pixels.sum(-1).mean(0), kl=None, sign=-1, logits=None):
    """The lecture's bound with one part exchanged, written out on its own."""

    def bound(x, l, m, log_var):
        l = logits(l) if logits else l
        pixels = x * F.logsigmoid(l) + (1 - x) * F.logsigmoid(-l)
        divergence = kl(m, log_var) if kl else normal_kl(m, log_var.exp()).sum(1)
        return reconstruct(pixels) + sign * divergence

    return bound


def reversed_kl(m, l):
    p, q = dist.Normal(0.0, 1.0), dist.Normal(m, torch.exp(0.5 * l))
    return dist.kl_divergence(p, q).sum(1)


def raw_logarithm(x, logits, m, l):
    pixels = x * logits.log() + (1 - x) * (1 - logits).log()
    return pixels.sum(-1).mean(0) - normal_kl(m, l.exp()).sum(1)


def unsquashed(x, logits, m, l):
    loss = F.binary_cross_entropy(logits, x.expand_as(logits), reduction="none")
    return -loss.sum(-1).mean(0) - normal_kl(m, l.exp()).sum(1)


def as_probs(x, logits, m, l):
    p = dist.Bernoulli(logits).log_prob(x).sum(-1).mean(0)
    return p - normal_kl(m, l.exp()).sum(1)


def default_reduction(x, logits, m, l):
    loss = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits))
    return -loss - normal_kl(m, l.exp()).sum(1)


def no_axis(x, logits, m, l):
    return -F.binary_cross_entropy_with_logits(logits, x)


ELBO = {
    "mean over the pixels": slipped(lambda pixels: pixels.mean(-1).mean(0)),
    "mean over the latents": slipped(kl=lambda m, l: normal_kl(m, l.exp()).mean(1)),
    "both are means": slipped(
        lambda pixels: pixels.mean((0, 2)), lambda m, l: normal_kl(m, l.exp()).mean(1)
    ),
    "you summed the draws of z": slipped(lambda pixels: pixels.sum((0, 2))),
    "first draw of z only": slipped(lambda pixels: pixels[0].sum(-1)),
    "log of the mean likelihood": slipped(lambda pixels: pixels.sum(-1).exp().mean(0).log()),
    "you added it": slipped(sign=1),
    "the KL is missing": slipped(sign=0),
    "log_var for a log-std": slipped(kl=lambda m, l: normal_kl(m, (2 * l).exp()).sum(1)),
    "log_var for the variance itself": slipped(kl=lambda m, l: normal_kl(m, l).sum(1)),
    "log_var for the standard deviation": slipped(kl=lambda m, l: normal_kl(m, l**2).sum(1)),
    "KL(p ‖ q), from the prior": slipped(kl=reversed_kl),
    "is the ½ there twice": slipped(kl=lambda m, l: 0.5 * normal_kl(m, l.exp()).sum(1)),
    "enters your KL with the other sign": slipped(
        kl=lambda m, l: 0.5 * (l.exp() + m**2 + l - 1).sum(1)
    ),
    "forgotten − log_var": slipped(kl=lambda m, l: 0.5 * (l.exp() + m**2 - 1).sum(1)),
    "−1 of your KL is missing": slipped(kl=lambda m, l: 0.5 * (l.exp() + m**2 - l).sum(1)),
    "ends in + 1": slipped(kl=lambda m, l: 0.5 * (l.exp() + m**2 - l + 1).sum(1)),
    "KL is averaged over the batch": slipped(kl=lambda m, l: normal_kl(m, l.exp()).sum(1).mean()),
    "averaged the logits": slipped(
        lambda pixels: pixels.sum(-1).mean(0), logits=lambda l: l.mean(0, keepdim=True)
    ),
    "averaged the probabilities": slipped(lambda pixels: pixels.exp().mean(0).log().sum(-1)),
    "squared error": lambda x, l, m, v: (
        -(x - torch.sigmoid(l)).square().sum(-1).mean(0) - normal_kl(m, v.exp()).sum(1)
    ),
    "not softplus(−ℓ)": lambda x, l, m, v: (
        (x * l - F.softplus(-l)).sum(-1).mean(0) - normal_kl(m, v.exp()).sum(1)
    ),
    "twice too large": slipped(kl=lambda m, l: (l.exp() + m**2 - l - 1).sum(1)),
    "forgotten the mean": slipped(kl=lambda m, l: normal_kl(0 * m, l.exp()).sum(1)),
    "KL is one sum for the whole batch": slipped(kl=lambda m, l: normal_kl(m, l.exp()).sum()),
    "KL is one mean for the whole batch": slipped(kl=lambda m, l: normal_kl(m, l.exp()).mean()),
    "sigmoid was applied twice": slipped(logits=torch.sigmoid),
    "log of a negative number": raw_logarithm,
    "probabilities: π = sigmoid(logits), or a loss that says `with_logits` (all": unsquashed,
    "probabilities: π = sigmoid(logits), or a loss that says `with_logits` (Expected": as_probs,
    "x.expand_as(logits)": no_axis,
    "wrong sign": slipped(lambda pixels: -pixels.sum(-1).mean(0)),
    "changed places": lambda x, *rest: elbo(1 - x, *rest),
    "(1 − x) log(1 − π) is missing": lambda x, l, m, v: (
        elbo(x, l, m, v) - ((1 - x) * F.logsigmoid(-l)).sum(-1).mean(0)
    ),
    "reconstruction is one mean for the whole batch": default_reduction,
    "reconstruction is one sum for the whole batch": slipped(lambda pixels: pixels.sum()),
    "this is the loss": lambda *args: -elbo(*args),
    "this is in bits": lambda *args: elbo(*args) / math.log(2),
    "axis of the draws is still there": slipped(lambda pixels: pixels.sum(-1)),
    "batch is averaged": lambda *args: elbo(*args).mean(),
    "batch is summed": lambda *args: elbo(*args).sum(),
}


@pytest.mark.parametrize("words", ELBO)
def test_elbo_names_the_slip(words):
    with pytest.raises(Wrong) as error:
        check.elbo(ELBO[words])
    assert [name for name in ELBO if name in str(error.value)] == [words]


def test_elbo_names_two_slips_at_once():
    both = lambda *args: ELBO["mean over the pixels"](*args).mean()
    with pytest.raises(Wrong, match="mean over the pixels.*; and the batch is averaged"):
        check.elbo(both)


def test_elbo_says_what_it_saw_of_an_answer_it_cannot_explain():
    with pytest.raises(Wrong, match="is right, yours gives"):
        check.elbo(lambda *args: elbo(*args) + 0.01)
    with pytest.raises(Wrong, match="has shape"):
        check.elbo(lambda *args: elbo(*args)[:, None])
    with pytest.raises(Wrong, match="should be a tensor"):
        check.elbo(lambda *args: 3.0)
    with pytest.raises(ZeroDivisionError):  # an error of the learner's own is left to speak
        check.elbo(lambda *args: 1 / 0)
    with pytest.raises(ValueError, match="mine"):
        check.elbo(lambda *args: exec("raise ValueError('mine')"))


def iwae(log_weights):
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def by_shift(w):
    top = w.amax(0, keepdim=True)
    return (top + torch.log(torch.exp(w - top).mean(0, keepdim=True)))[0]


def one_by_one(w):
    total = w[0]
    for row in w[1:]:
        total = torch.logaddexp(total, row)
    return total - torch.log(torch.tensor(float(len(w))))


@pytest.mark.parametrize("right", [iwae, by_shift, one_by_one])
def test_iwae_accepts_every_right_form(right, capsys):
    check.iwae(right)
    assert capsys.readouterr().out.startswith("right")


IWAE = {
    "mean of the logs": lambda w: w.mean(0),
    "− log S is missing": lambda w: w.logsumexp(0),
    "you added log S": lambda w: w.logsumexp(0) + math.log(len(w)),
    "you divided the log by S": lambda w: w.logsumexp(0) / len(w),
    "log of the batch's size": lambda w: w.logsumexp(0) - math.log(w.shape[1]),
    "exp leaves the floats": lambda w: torch.log(torch.exp(w).mean(0)),
    "largest of the whole batch": lambda w: w.max() + torch.log(torch.exp(w - w.max()).mean(0)),
    "not put back": lambda w: torch.log(torch.exp(w - w.max(0).values).mean(0)),
    "largest log weight alone": lambda w: w.max(0).values,
    "logarithm of a logarithm": lambda w: torch.log(w.mean(0)),
    "you reduced over the batch: the": lambda w: w.logsumexp(1) - math.log(w.shape[1]),
    "you reduced over the batch, and": lambda w: w.logsumexp(1) - math.log(len(w)),
    "batch is averaged": lambda w: iwae(w).mean(),
    "that is a loss": lambda w: -iwae(w),
}


@pytest.mark.parametrize("words", IWAE)
def test_iwae_names_the_slip(words):
    with pytest.raises(Wrong) as error:
        check.iwae(IWAE[words])
    assert [name for name in IWAE if name in str(error.value)] == [words]


def test_iwae_says_what_it_saw_of_an_answer_it_cannot_explain():
    with pytest.raises(Wrong, match="is right, yours gives"):
        check.iwae(lambda w: iwae(w) + 0.01)
    with pytest.raises(Wrong, match="NaN or infinite"):
        check.iwae(lambda w: iwae(w) * torch.nan)
    with pytest.raises(Wrong, match="has shape"):
        check.iwae(lambda w: iwae(w)[None])


def test_no_two_slips_look_alike():
    # but scalars: a mean over pixels or latents, then the batch, is a mean over everything
    slips = check._elbo_slips(*check._case())
    vectors = {why: value for why, value in slips.items() if value.ndim}
    assert len(vectors) > 20
    for found in (vectors, check._iwae_slips(check._weights())):
        names = list(found)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[:i]]
        assert not [(a, b) for a, b in pairs if same(found[a], found[b])]


@pytest.mark.parametrize("exercise", [check.elbo, check.iwae])
def test_a_stub_is_not_yet_begun(exercise):
    def stub(*args): ...

    with pytest.raises(NotYet, match="stub returns nothing yet"):
        exercise(stub)
    with pytest.raises(NotYet):
        exercise(lambda *args: ...)
