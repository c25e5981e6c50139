"""The checks of lecture 4 accept every right answer and tell the usual wrong ones apart."""

import pytest
import torch

from minigen import ddim
from minigen.checks import NotYet, Wrong
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


@pytest.mark.parametrize("right", [step, by_posterior_coefficients, sample_by_sample])
def test_ddim_step_accepts_every_right_form(right, capsys):
    check.ddim_step(right)
    assert capsys.readouterr().out.startswith("right")


def wrong_step(**change):
    """The lecture's step with one slip, written out on its own."""

    def slipped(xt, eps, abar_t, abar_s, eta, z):
        t, s = abar_t[:, None], abar_s[:, None]
        a_t, a_s = (t, s) if change.get("abar") else (t.sqrt(), s.sqrt())
        sign = -1 if change.get("sign") else 1
        x0 = (xt - sign * (1 - t).sqrt() * eps) / a_t
        beta = 1 - t if change.get("beta") else 1 - t / s
        tilde = beta if change.get("forward") else (1 - s) / (1 - t) * beta
        var = (eta if change.get("eta") else eta**2) * tilde
        kept = 1 - s - (0 if change.get("root") else var)  # NaN at s = 0 with the forward variance
        if change.get("stay"):
            return t.sqrt() * x0 + (1 - t - var).clamp(min=0).sqrt() * eps + var.sqrt() * z
        return a_s * x0 + kept.sqrt() * eps + (var if change.get("std") else var.sqrt()) * z

    return slipped


STEP = {
    "abar": "its root",
    "sign": "you added it",
    "eta": "η² β̃",
    "root": "left out ς²",
    "std": "you took the variance",
    "stay": "the step ends at s",
    "beta": "1 − ᾱ_t/ᾱ_s",
    "forward": "adds noise even at s = 0",
}


@pytest.mark.parametrize("slip", STEP)
def test_ddim_step_names_the_slip(slip):
    with pytest.raises(Wrong) as error:
        check.ddim_step(wrong_step(**{slip: True}))
    said = str(error.value)
    assert [name for name, words in STEP.items() if words in said] == [slip]


def test_ddim_step_names_a_batch_that_meets_the_data_axes():
    def unshaped(xt, eps, abar_t, abar_s, eta, z):
        return abar_s.sqrt() * (xt - (1 - abar_t).sqrt() * eps) / abar_t.sqrt()

    with pytest.raises(Wrong, match=r"only as \(B, 1\)"):
        check.ddim_step(unshaped)

    def first_for_all(xt, eps, abar_t, abar_s, eta, z):
        return step(xt, eps, abar_t[:1], abar_s[:1], eta, z)

    with pytest.raises(Wrong, match="the first one's for all"):
        check.ddim_step(first_for_all)


def test_ddim_step_says_what_it_saw_of_an_answer_it_cannot_explain():
    with pytest.raises(Wrong, match=r"is right, yours gives"):
        check.ddim_step(lambda *args: step(*args) + 0.01)
    with pytest.raises(Wrong, match="your roots is negative"):
        check.ddim_step(lambda *args: torch.full_like(args[0], torch.nan))
    with pytest.raises(Wrong, match="has shape"):
        check.ddim_step(lambda *args: step(*args).T)
    with pytest.raises(Wrong, match="should be a tensor"):
        check.ddim_step(lambda *args: 3.0)


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


@pytest.mark.parametrize("right", [ddim.slerp, by_acos, by_rotation])
def test_slerp_accepts_every_right_form(right, capsys):
    check.slerp(right)
    assert capsys.readouterr().out.startswith("right")


def whole_batch(a, b, u):
    angle = torch.acos((a * b).sum() / a.norm() / b.norm())
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def by_rows(a, b, u):
    angle = torch.acos(torch.cosine_similarity(a, b, dim=-1))[..., None]
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


def unit_vectors(a, b, u):
    size = lambda x: x.flatten(1).norm(dim=1).reshape(-1, 1, 1)
    return by_acos(a / size(a), b / size(b), u)


def undivided(a, b, u):
    p, q = a.flatten(1), b.flatten(1)
    angle = torch.acos(torch.cosine_similarity(p, q)).reshape(-1, 1, 1)
    return torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b


def no_lengths(a, b, u):
    angle = torch.acos((10 * a * b).flatten(1).sum(1)).reshape(-1, 1, 1)
    return (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / torch.sin(angle)


SLERP = {
    "straight line": lambda a, b, u: (1 - u) * a + u * b,
    "weights exchanged": lambda a, b, u: by_acos(b, a, u),
    "one for the whole batch": whole_batch,
    "one for each row": by_rows,
    "lengths of a and b are lost": unit_vectors,
    "divide by sin": undivided,
    "divide the dot product": no_lengths,
}


@pytest.mark.parametrize("words", SLERP)
def test_slerp_names_the_slip(words):
    with pytest.raises(Wrong) as error:
        check.slerp(SLERP[words])
    assert [name for name in SLERP if name in str(error.value)] == [words]


@pytest.mark.parametrize("exercise", [check.ddim_step, check.slerp])
def test_a_stub_is_not_yet_begun(exercise):
    def stub(*args): ...

    with pytest.raises(NotYet, match="stub returns nothing yet"):
        exercise(stub)
    with pytest.raises(NotYet):
        exercise(lambda *args: ...)
