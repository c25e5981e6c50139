"""f-divergences and W1 against closed forms, quadrature and their own definitions."""

import math

import pytest
import torch
from laws import DOUBLE, GRID, draws, integral, two_laws

from minigen import gan, oracle
from minigen.gan.divergences import log_ratio

NAMES = ["kl", "reverse_kl", "pearson", "js", "hellinger"]


# ---- f-divergences ---------------------------------------------------------------------------


def closed_form(name, m, s, n, t):
    """D(N(m, s²) ‖ N(n, t²))."""
    kl = lambda m, s, n, t: math.log(t / s) + (s * s + (m - n) ** 2) / (2 * t * t) - 0.5
    if name == "kl":
        return kl(m, s, n, t)
    if name == "reverse_kl":
        return kl(n, t, m, s)
    if name == "hellinger":
        total = s * s + t * t
        return 2 - 2 * math.sqrt(2 * s * t / total) * math.exp(-((m - n) ** 2) / (4 * total))
    if name == "pearson":  # ∫ p²/q is a Gaussian integral if 2 t² > s²
        wide = 2 * t * t - s * s
        return t * t / (s * math.sqrt(wide)) * math.exp((m - n) ** 2 / wide) - 1
    log_p, log_q, p, q = two_laws((m, s), (n, t))
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    return float(0.5 * integral(p * (log_p - middle) + q * (log_q - middle)))


LAWS = (0.3, 0.7, 1.1, 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_each_divergence_is_its_closed_form(name):
    """As E_q f(p/q), and as the expectation of `over_mean` under the mean of both."""
    divergence, want = gan.f_divergences[name], closed_form(name, *LAWS)
    log_p, log_q, p, q = two_laws(LAWS[:2], LAWS[2:])
    seen = q > 1e-250
    terms = torch.where(seen, q * divergence.f(torch.where(seen, (log_p - log_q).exp(), 1.0)), 0)
    assert integral(terms) == pytest.approx(want, rel=1e-9)
    assert integral((p + q) / 2 * divergence.over_mean(log_p - log_q)) == pytest.approx(want)
    assert abs(divergence.f(torch.ones((), dtype=DOUBLE))) < 1e-15
    assert divergence is getattr(gan, name)


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_is_tight_at_the_derivative_of_f_and_nowhere_exceeded(name):
    divergence, want = gan.f_divergences[name], closed_form(name, *LAWS)
    log_p, log_q, p, q = two_laws(LAWS[:2], LAWS[2:])
    seen = (p > 1e-100) & (q > 1e-100)
    ratio = torch.where(seen, (log_p - log_q).exp(), 1.0)

    def bound(t):
        return integral(torch.where(seen, p * t - q * divergence.conjugate(t), 0))

    best = divergence.derivative(ratio)
    assert bound(best) == pytest.approx(want, rel=1e-9)
    for v in (log_p - log_q + 0.5, torch.sin(3 * GRID[:, 0]), 0.1 * GRID[:, 0]):
        assert bound(divergence.activation(v)) < want - 1e-4
    for move in (-0.02, 0.02):  # towards another critic, which lies in the domain as well
        assert bound(torch.lerp(best, divergence.activation(GRID[:, 0].sin()), move)) < want


def test_the_best_critic_of_kl_is_the_log_ratio_plus_one():
    r = torch.tensor([-3.0, 0.4, 5.0], dtype=DOUBLE)
    torch.testing.assert_close(gan.kl.derivative(r.exp()), r + 1, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_conjugate_and_activation(name):
    """f* is the supremum over u, f′ its place, and any logit falls inside f*'s domain, rising."""
    divergence = gan.f_divergences[name]
    u = torch.logspace(-5, 5, 200_001, dtype=DOUBLE)
    v = torch.tensor([-1.9, -0.7, 0.2, 1.1, 1.8], dtype=DOUBLE)
    t = divergence.activation(v)
    assert bool((t.diff() > 0).all()) and bool((t < divergence.top).all())
    sup = (t[:, None] * u - divergence.f(u)).max(1).values
    torch.testing.assert_close(divergence.conjugate(t), sup, rtol=1e-6, atol=1e-6)
    points = torch.tensor([0.2, 0.9, 3.7], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(divergence.f(points).sum(), points)
    torch.testing.assert_close(divergence.derivative(points).detach(), slope, rtol=1e-12, atol=0)
    steepest = divergence.derivative(torch.tensor(1e12, dtype=DOUBLE))
    assert steepest > 20 if divergence.top == math.inf else abs(steepest - divergence.top) < 2e-6
    if math.isfinite(divergence.top):
        beyond = torch.tensor([divergence.top, divergence.top + 0.3], dtype=DOUBLE)
        assert bool((divergence.conjugate(beyond) == math.inf).all())
        assert divergence.bound(t, beyond) == -math.inf
    by_hand = t[:2].mean() - divergence.conjugate(t).mean()
    assert divergence.bound(t[:2], t) == pytest.approx(float(by_hand), rel=1e-14)


def test_the_js_bound_is_the_game():
    """T = activation(logit) turns the bound into ½ (V(D) + log 4), for any critic."""
    real, fake = draws(50, seed=3) + 0.4, draws(60, seed=4) - 0.2
    value = torch.sigmoid(real).log().mean() + (1 - torch.sigmoid(fake)).log().mean()
    found = gan.js.bound(gan.js.activation(real), gan.js.activation(fake))
    assert found == pytest.approx(float(value + math.log(4)) / 2, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_divergences_from_samples(name):
    """Exact up to the standard error, where the laws differ in one coordinate of two."""
    divergence, g = gan.f_divergences[name], torch.Generator().manual_seed(5)
    laws = [
        oracle.GaussianMixture(*torch.tensor([[1.0]] * 1, dtype=DOUBLE), mean[None], std[None])
        for mean, std in torch.tensor(
            [[[0.3, 2.5], [0.7, 0.4]], [[1.1, 2.5], [0.9, 0.4]]], dtype=DOUBLE
        )
    ]
    x, y = (law.sample(20_000, generator=g)[0] for law in laws)
    p, q = (law.log_prob for law in laws)
    halves = [divergence.over_mean(log_ratio(p, q, z)) for z in (x, y)]
    error = 0.5 * math.sqrt(sum(float(h.var()) for h in halves) / len(x))
    want = closed_form(name, *LAWS)
    assert abs(float(divergence(p, q, x, y)) - want) < 4 * error < 0.1 * want


@pytest.mark.parametrize("name", NAMES)
def test_no_ratio_of_densities_is_too_large(name):
    """At |log p/q| = 2000 and at ∞ no NaN: the limits of f(p/q) q/m."""
    r = torch.tensor([-math.inf, -2000.0, 2000.0, math.inf], dtype=DOUBLE)
    low, high = {
        "kl": ([0, 0], [4000, math.inf]),
        "reverse_kl": ([math.inf, 4000], [0, 0]),
        "pearson": ([2, 2], [math.inf, math.inf]),
        "js": ([math.log(2)] * 2, [math.log(2)] * 2),
        "hellinger": ([2, 2], [2, 2]),
    }[name]
    want = torch.tensor([*low, *high], dtype=DOUBLE)
    torch.testing.assert_close(gan.f_divergences[name].over_mean(r), want)


# ---- Wasserstein -----------------------------------------------------------------------------


def quantiles(mean, std, n=200_000):
    u = (torch.arange(n, dtype=DOUBLE) + 0.5) / n
    return mean + std * math.sqrt(2) * torch.erfinv(2 * u - 1)


def test_w1_of_shifted_normals_is_the_shift():
    assert gan.wasserstein_1d(quantiles(0, 1), quantiles(-1.5, 1)) == pytest.approx(1.5, abs=1e-9)
    law = quantiles(1.5, 0.8)
    gap = integral((torch.special.ndtr(GRID) - torch.special.ndtr((GRID - 1.5) / 0.8)).abs()[:, 0])
    assert gan.wasserstein_1d(quantiles(0, 1), law) == pytest.approx(float(gap), abs=1e-3)
    assert float(((quantiles(0, 1) - law) ** 2).mean()) == pytest.approx(1.5**2 + 0.2**2, abs=1e-3)


def test_w1_of_samples_of_two_sizes(device, double):
    from scipy.stats import wasserstein_distance

    x, y = 2 + draws(37, seed=1), 0.5 * draws(120, seed=2)
    found = gan.wasserstein_1d(x.to(device, double), y.to(device, double))
    assert float(found) == pytest.approx(wasserstein_distance(x.numpy(), y.numpy()), rel=1e-12)
    assert gan.wasserstein_1d(x, x.repeat(3)) == 0
    ties = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert gan.wasserstein_1d(*ties) == pytest.approx(2 / 3)  # ∫|F − G| = 1/6 + 1/2 over [1, 3]


def test_the_dual_bounds_w1_from_below():
    """−E critic loss ≤ W1 for 1-Lipschitz critics, equal for −x and a shift."""
    x, y = draws(500, seed=1), draws(500, seed=2) + 3
    w1 = gan.wasserstein_1d(x, y)
    found = [-gan.wasserstein.critic(f(x), f(y)).mean() for f in (torch.neg, torch.cos, torch.tanh)]
    assert found[1] < w1 and found[2] < w1
    assert abs(gan.wasserstein_1d(x, x + 3) + gan.wasserstein.critic(-x, -x - 3).mean()) < 1e-12
    assert abs(found[0] - (y.mean() - x.mean())) < 1e-12


def test_where_one_law_is_nothing_no_gradient_is_nan():
    """The limits of the slope: 0 wherever the weight of log p/q falls faster than it grows."""
    for name, ends in (("kl", [-math.inf]), ("reverse_kl", [math.inf])):
        r = torch.tensor(ends, dtype=DOUBLE, requires_grad=True)
        (slope,) = torch.autograd.grad(gan.f_divergences[name].over_mean(r).sum(), r)
        assert slope.tolist() == [0]
    for name in ("js", "hellinger"):
        r = torch.tensor([-math.inf, math.inf], dtype=DOUBLE, requires_grad=True)
        (slope,) = torch.autograd.grad(gan.f_divergences[name].over_mean(r).sum(), r)
        assert slope.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["js", "hellinger"])
def test_a_bounded_divergence_has_gradients_wherever_p_or_q_is_nearly_0(name):
    """Of √σ(r) by itself 0/0 would come, where σ(r) underflows."""
    r = torch.tensor([-2000.0, -3.0, 0.4, 2000.0], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(gan.f_divergences[name].over_mean(r).sum(), r)
    assert bool(slope.isfinite().all()) and slope[0] == slope[3] == 0
    assert float(slope[1]) < 0 < float(slope[2])
