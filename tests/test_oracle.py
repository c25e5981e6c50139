"""The oracle against quadrature, autograd, differences and ODE solutions that are not its own."""

import math

import numpy as np
import pytest
import torch
from cases import PATHS, TARGETS, line, mixture
from torch.testing import assert_close

from minigen import ddpm, oracle, paths, score, shapes, targets
from minigen.oracle import GaussianMixture

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
GRID = torch.linspace(-14, 14, 56001, dtype=torch.float64)[:, None]
STEP = float(GRID[1] - GRID[0])
DDPM = paths.DDPM(ddpm.linear_betas())
T25 = torch.tensor(0.25, dtype=torch.float64)


def by_quadrature(m, path, xt, t):
    """p_t, E[x0 | xt] and Var(x0 | xt) by Bayes' rule on a grid of x0."""
    a, b = path.a(t), path.b(t)
    kernel = torch.exp(-0.5 * ((xt - a * GRID.T) / b) ** 2) / (b * math.sqrt(2 * math.pi))
    joint = kernel * m.log_prob(GRID).exp()
    p = joint.sum(1) * STEP
    mean = (joint * GRID.T).sum(1) * STEP / p
    return p, mean, (joint * GRID.T**2).sum(1) * STEP / p - mean**2


@every_path
@pytest.mark.parametrize("t", [0.25, 0.5, 0.8])
def test_marginal_denoiser_and_eps_by_quadrature(path, t):
    m, t = line(), torch.tensor(t, dtype=torch.float64)
    xt = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
    p, mean, var = by_quadrature(m, path, xt, t)
    marginal = m.at(path, t)
    assert_close(marginal.log_prob(xt).exp(), p, rtol=0, atol=1e-10)
    assert_close(m.denoiser(path)(xt, t)[:, 0], mean, rtol=0, atol=1e-10)
    a, b = path.a(t), path.b(t)
    assert_close(m.eps(path)(xt, t)[:, 0], (xt[:, 0] - a * mean) / b, rtol=0, atol=1e-9)
    assert_close(marginal.score(xt)[:, 0], -(xt[:, 0] - a * mean) / b**2, rtol=0, atol=1e-9)
    # Tweedie's second formula: Var(x0 | xt) = (b/a)² (1 + b² s′)
    h = 1e-5
    slope = (marginal.score(xt + h) - marginal.score(xt - h))[:, 0] / (2 * h)
    if float(a) > 0.05:
        assert_close(m._variance(path, xt, t)[:, 0], var, rtol=0, atol=1e-9)
        assert_close(var, (b / a) ** 2 * (1 + b**2 * slope), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shared", [False, True])
def test_score_is_the_gradient_of_log_prob(shared, dtype, device, generator):
    m = mixture(dtype, device)
    if shared:
        m = GaussianMixture.isotropic(m.means, 0.4, m.weights)
    x = (3 * torch.randn(7, 2, dtype=dtype, device=device, generator=generator)).requires_grad_()
    (gradient,) = torch.autograd.grad(m.log_prob(x).sum(), x)
    tol = 1e-12 if dtype == torch.float64 else 2e-4
    assert_close(m.score(x.detach()), gradient, rtol=tol, atol=10 * tol)


def test_log_prob_is_torch_distributions_and_posterior_is_bayes(double, device):
    m = mixture(double, device)
    x = torch.randn(7, 2, dtype=double, device=device) * 2
    parts = torch.distributions.Independent(torch.distributions.Normal(m.means, m.stds), 1)
    joint = parts.log_prob(x[:, None]) + m.weights.log()
    assert_close(m.log_prob(x), torch.logsumexp(joint, 1), rtol=1e-12, atol=1e-12)
    assert_close(m.posterior(x), torch.softmax(joint, 1), rtol=1e-11, atol=1e-14)
    shared = GaussianMixture.isotropic(m.means, 0.7, m.weights)
    parts = torch.distributions.Independent(torch.distributions.Normal(m.means, 0.7), 1)
    joint = parts.log_prob(x[:, None]) + m.weights.log()
    assert_close(shared.log_prob(x), torch.logsumexp(joint, 1), rtol=1e-12, atol=1e-12)
    assert_close(shared.posterior(x), torch.softmax(joint, 1), rtol=1e-11, atol=1e-14)


@every_path
@pytest.mark.parametrize("shared", [False, True])
def test_one_time_and_a_time_per_sample_agree(path, shared, double, device):
    m = mixture(double, device)
    if shared:
        m = GaussianMixture.isotropic(m.means, 0.4, m.weights)
    x = torch.randn(5, 2, dtype=double, device=device)
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=double, device=device)
    fields = [m.denoiser(path), m.denoiser(path, 1), m.eps(path), m.velocity(path)]
    fields += [m.denoiser(path, torch.tensor([0, 1, 2, 1, 0], device=device)), m.classifier(path)]
    for f in fields[:4] + fields[5:]:
        one_by_one = torch.cat([f(x[i : i + 1], t[i]) for i in range(5)])
        assert_close(f(x, t), one_by_one, rtol=1e-11, atol=1e-12)
    labelled = fields[4](x, t)
    for i, k in enumerate([0, 1, 2, 1, 0]):
        assert_close(labelled[i : i + 1], m.only(k).denoiser(path)(x[i : i + 1], t[i]))


@every_path
def test_fields_are_one_2x2_system(path, double):
    m, t = mixture(double), torch.tensor(0.6, dtype=double)
    xt = torch.randn(5, 2, dtype=double) * 2
    for target, y in [
        (targets.eps, m.eps(path)(xt, t)),
        (targets.velocity, m.velocity(path)(xt, t)),
        (targets.score, m.at(path, t).score(xt)),
    ]:
        x0, eps = targets.solve(target, path, y, xt, t)
        assert_close(x0, m.denoiser(path)(xt, t), rtol=1e-8, atol=1e-8)
        assert_close(eps, m.eps(path)(xt, t), rtol=1e-8, atol=1e-8)


@every_path
def test_the_classifier_turns_the_score_into_the_class_score(path, double):
    # ∇ log p_t(x) + ∇ log p_t(k | x) = ∇ log p_t(x | k): Bayes' rule in score space
    m, t, k = mixture(double), torch.tensor(0.4, dtype=double), 2
    x = torch.randn(5, 2, dtype=double, requires_grad=True)
    log_p = m.classifier(path)(x, t)
    assert_close(log_p.exp().sum(1), torch.ones(5, dtype=double))
    (gradient,) = torch.autograd.grad(log_p[:, k].sum(), x)
    x = x.detach()
    expected = m.only(k).at(path, t).score(x)
    assert_close(m.at(path, t).score(x) + gradient, expected, rtol=1e-10, atol=1e-11)


def test_the_marginal_keeps_its_ends():
    m, path = mixture(), paths.Linear()
    start, end = (m.at(path, torch.tensor(t, dtype=torch.float64)) for t in (0.0, 1.0))
    assert_close(start.means, m.means)
    assert_close(start.stds, m.stds)
    assert_close(end.means, torch.zeros_like(m.means))
    assert_close(end.stds, torch.ones_like(m.stds))
    x = torch.randn(4, 2, dtype=torch.float64)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    assert_close(m.denoiser(path)(x, zero), x)  # at t = 0 there is nothing to remove
    assert_close(m.denoiser(path)(x, one), m.mean().expand(4, 2))


def test_sample_moments(double, device, generator):
    m, n = mixture(double, device), 200_000
    x, label = m.sample(n, generator=generator)
    assert x.dtype == double and label.shape == (n,) and label.dtype == torch.int64
    se = (m.cov().diagonal() / n).sqrt()
    assert bool(((x.mean(0) - m.mean()).abs() < 4 * se).all())
    assert_close(torch.cov(x.T), m.cov(), rtol=0.03, atol=0.03)
    share = torch.bincount(label, minlength=3) / n
    tolerance = 4 * (m.weights * (1 - m.weights) / n).sqrt()
    assert bool(((share - m.weights).abs() < tolerance).all())


def test_floor_of_the_simple_loss_is_one_minus_b2_fisher():
    # identities: the least L_simple at t is 1 − b² J, J = E s²; at ᾱ_250 of the linear table 0.5276
    m, b = line(), DDPM.b(T25)
    marginal = m.at(DDPM, T25)
    J = float((marginal.score(GRID)[:, 0] ** 2 * marginal.log_prob(GRID).exp()).sum() * STEP)
    exact = 1 - float(b) ** 2 * J
    assert abs(exact - 0.5276) < 1e-4
    floor = m.floor(targets.eps, DDPM, T25, 200_000, generator=torch.Generator().manual_seed(0))
    assert abs(float(floor) - exact) < 4e-3


@every_path
@pytest.mark.parametrize("target", TARGETS, ids=lambda f: f.__name__)
def test_floor_is_the_loss_of_the_exact_net(path, target):
    m, t, n = mixture(), torch.tensor(0.55, dtype=torch.float64), 60_000
    g = torch.Generator().manual_seed(1)

    def net(xt, t, label=None):  # the best function of (xt, t): c E[x0 | xt] + d E[eps | xt]
        return targets.value(target, path, m.denoiser(path)(xt, t), m.eps(path)(xt, t), t)

    x0, _ = m.sample(n, generator=g)
    loss = targets.loss(net, path, target, x0, shapes.noise(x0, generator=g), t)
    floor = m.floor(target, path, t, n, generator=g)
    # the floor averages exact variances, so its own error is the smaller one
    assert abs(float(loss.mean() - floor)) < 5 * float(loss.std()) / n**0.5

    def off(xt, t, label=None):  # and anything else is worse by its mean square error
        return net(xt, t) + 0.1

    worse = targets.loss(off, path, target, x0, shapes.noise(x0, generator=g), t)
    assert abs(float(worse.mean() - floor) - 0.01) < 6 * float(worse.std()) / n**0.5


def test_mmse_obeys_the_i_mmse_relation():
    # d/dsnr I(x0; xt) = mmse/2, with I from the entropy of the marginal [Guo, Shamai & Verdú 2005]
    m = line()

    def information(snr):
        noisy = GaussianMixture(m.weights, snr**0.5 * m.means, (snr * m.stds**2 + 1).sqrt())
        log_p = noisy.log_prob(GRID)
        return float(-(log_p.exp() * log_p).sum() * STEP) - 0.5 * math.log(2 * math.pi * math.e)

    slope = (information(1.3 + 1e-4) - information(1.3 - 1e-4)) / 2e-4
    assert abs(slope - 0.204258) < 1e-6
    t = torch.tensor(1 / (1 + 1.3**0.5), dtype=torch.float64)  # Linear: a/b = √1.3
    assert abs(float(paths.Linear().log_snr(t)) - math.log(1.3)) < 1e-12
    mmse = m.mmse(paths.Linear(), t, 400_000, generator=torch.Generator().manual_seed(0))
    assert abs(float(mmse) / 2 - slope) < 2e-3


def test_mmse_over_times_is_the_mean_over_times():
    m, n = mixture(), 50_000
    t = torch.linspace(0.1, 0.9, n, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    grid = torch.linspace(0.1, 0.9, 41, dtype=torch.float64)
    each = torch.stack([m.mmse(DDPM, s, 20_000, generator=g) for s in grid])
    mean = torch.trapezoid(each, grid) / 0.8
    assert abs(float(m.mmse(DDPM, t, n, generator=g) - mean)) < 0.02 * float(mean)


def test_float32_keeps_its_digits_off_centre_and_at_low_noise():
    far = mixture().means + 50.0
    exact = GaussianMixture.isotropic(far, 0.05)
    x, _ = exact.sample(200, generator=torch.Generator().manual_seed(0))
    rough = exact.to(torch.float32).score(x.float()).double()
    assert_close(rough, exact.score(x), rtol=0, atol=0.05)  # scores are of size 20


@pytest.mark.long
@every_path
def test_flow_map_solves_the_ode(path):
    m = line()
    t, s = (torch.tensor(u, dtype=torch.float64) for u in (0.9, 0.2))
    x = torch.tensor([-1.5, -0.2, 0.1, 0.9, 2.0], dtype=torch.float64) * path.b(t)
    # Runge–Kutta of order 4, step after step between knots, on the oracle's velocity
    knots = getattr(path, "T", 100)
    nodes = (
        torch.arange(round(0.9 * knots), round(0.2 * knots) - 1, -1, dtype=torch.float64) / knots
    )
    x_rk, f = x[:, None].clone(), m.velocity(path)
    t, s = nodes[0], nodes[-1]
    for a, b in zip(nodes[:-1], nodes[1:], strict=True):
        inside = a - 1e-12  # a table's rate jumps at its knots: take the one inside the step
        h = b - a
        k1 = f(x_rk, inside)
        k2 = f(x_rk + h / 2 * k1, a + h / 2)
        k3 = f(x_rk + h / 2 * k2, a + h / 2)
        k4 = f(x_rk + h * k3, b + 1e-12)
        x_rk = x_rk + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    exact = oracle.flow_map_1d(m, path, x, t, s)
    assert_close(exact, x_rk[:, 0], rtol=1e-4, atol=1e-5)
    back = oracle.flow_map_1d(m, path, exact, s, t)
    assert_close(back, x, rtol=1e-11, atol=1e-11)


def test_flow_map_of_a_gaussian_is_a_scaling_even_far_out():
    # x(t) − a m ∝ √(a² s² + b²)
    m = GaussianMixture.isotropic(torch.tensor([[1.5]], dtype=torch.float64), 0.5)
    path = paths.VP()
    t, s = (torch.tensor(u, dtype=torch.float64) for u in (0.7, 0.1))
    at, as_ = m.at(path, t), m.at(path, s)
    z = torch.tensor([-12.0, -3.0, 0.0, 2.5, 11.0], dtype=torch.float64)
    x = at.means[0] + at.stds[0] * z
    got = oracle.flow_map_1d(m, path, x, t, s)
    assert_close(got, as_.means[0] + as_.stds[0] * z, rtol=1e-12, atol=1e-12)


def test_images_are_read_flat():
    g = torch.Generator().manual_seed(0)
    flat = torch.randn(9, 12, generator=g, dtype=torch.float64)
    m = GaussianMixture.isotropic(flat, 0.3)
    x, t = torch.randn(4, 3, 2, 2, generator=g, dtype=torch.float64), T25
    for f in (m.denoiser(DDPM), m.eps(DDPM), m.velocity(DDPM), m.denoiser(DDPM, 3)):
        assert f(x, t).shape == x.shape
        assert_close(f(x, t).flatten(1), f(x.flatten(1), t))
    assert_close(m.score(x).flatten(1), m.score(x.flatten(1)))


def test_finite_data_and_its_denormals():
    # the mixture on a finite data set: its denoiser is the softmax-weighted mean of the data
    g = torch.Generator().manual_seed(0)
    data = torch.randn(500, 64, generator=g)
    m = GaussianMixture.isotropic(data, 0.0)
    t = torch.tensor(0.02)
    a, b = DDPM.a(t), DDPM.b(t)
    xt = a * data[:5] + b * torch.randn(5, 64, generator=g)
    weights = torch.softmax(-0.5 * torch.cdist(xt.double(), a * data.double()) ** 2 / b**2, 1)
    assert_close(m.denoiser(DDPM)(xt, t).double(), weights @ data.double(), rtol=0, atol=1e-5)


def test_no_weight_is_a_denormal():
    # weights from 1 down to e^-200: between e^-87 and e^-103 float32 would hold denormals
    m = GaussianMixture.isotropic(torch.linspace(0, 20, 2000)[:, None], 1.0)
    r = m.posterior(torch.zeros(3, 1))
    assert float(r.min()) >= torch.finfo(torch.float32).tiny
    assert_close(r.sum(1), torch.ones(3))


def test_ring_and_isotropic():
    m = GaussianMixture.ring(5, radius=3.0, std=0.1)
    assert m.means.shape == (5, 2) and m.means.dtype == torch.float32
    assert_close(m.means.norm(dim=1), torch.full((5,), 3.0))
    assert_close(m.mean(), torch.zeros(2), rtol=0, atol=1e-6)
    # each axis: var + radius²/2
    assert_close(m.cov(), (0.01 + 4.5) * torch.eye(2), rtol=1e-5, atol=1e-5)
    own = GaussianMixture.isotropic(m.means, torch.linspace(0.1, 0.5, 5))
    assert_close(own.stds[:, 0], torch.linspace(0.1, 0.5, 5))


@pytest.mark.parametrize(
    "weights, means, stds, sentence",
    [
        ([0.5, 0.6], [[0.0], [1.0]], [[1.0], [1.0]], "sum to 1"),
        ([1.5, -0.5], [[0.0], [1.0]], [[1.0], [1.0]], "positive"),
        ([0.5, 0.5], [[0.0], [np.nan]], [[1.0], [1.0]], "NaN"),
        ([0.5, 0.5], [[0.0], [1.0]], [[1.0], [-1.0]], "stds at least 0"),
    ],
)
def test_bad_mixtures_are_refused(weights, means, stds, sentence):
    with pytest.raises(ValueError, match=sentence):
        GaussianMixture(torch.tensor(weights), torch.tensor(means), torch.tensor(stds))


def test_bad_questions_are_refused():
    m = mixture()
    with pytest.raises(ValueError, match="label 3 is out of range for 3 classes"):
        m.only(3)
    with pytest.raises(ValueError, match=r"on the line, got \(3,\), 2-D"):
        oracle.flow_map_1d(m, DDPM, torch.zeros(3).double(), T25, T25)
    with pytest.raises(ValueError, match="one time"):
        m.floor(targets.eps, DDPM, torch.zeros(3), 10)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        m.at(DDPM, torch.tensor(1.5))


# ---- gradients -------------------------------------------------------------------------------


def shared(law):
    """The same means with one std for all, which takes another road through the sums."""
    return GaussianMixture(law.weights, law.means, torch.full_like(law.stds, 0.6))


@pytest.mark.parametrize("law", [mixture(), shared(mixture())], ids=["own", "shared"])
def test_the_score_is_the_gradient_of_the_log_density_twice(law):
    x = law.sample(5, generator=torch.Generator().manual_seed(0))[0].requires_grad_()
    (grad,) = torch.autograd.grad(law.log_prob(x).sum(), x, create_graph=True)
    assert_close(grad, law.score(x), rtol=1e-12, atol=1e-12)
    for i in range(2):
        by_log_prob, by_score = (
            torch.autograd.grad(s[:, i].sum(), x, retain_graph=True)[0]
            for s in (grad, law.score(x))
        )
        assert_close(by_log_prob, by_score, rtol=1e-10, atol=1e-10)
    (third,) = torch.autograd.grad(by_score.sum() + (law.score(x) ** 3).sum(), x)
    assert bool(torch.isfinite(third).all())
    assert score.implicit_loss(law.score, x).shape == (5,)


@pytest.mark.parametrize("name", ["denoiser", "eps", "velocity"])
@pytest.mark.parametrize("law", [mixture(), shared(mixture())], ids=["own", "shared"])
@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, at its first jvp
def test_every_field_has_derivatives_in_x_and_t_both_ways(law, name):
    """Forward and reverse mode, under vmap, agree with each other and with differences."""
    path = PATHS["vp"]
    f = getattr(law, name)(path)
    one = lambda x, t: f(x[None], t)[0]
    x, t = 0.5 + torch.randn(4, 2).double(), torch.linspace(0.2, 0.8, 4, dtype=torch.float64)
    h = 1e-6
    for arg in (0, 1):
        back = torch.func.vmap(torch.func.jacrev(one, argnums=arg))(x, t)
        forth = torch.func.vmap(torch.func.jacfwd(one, argnums=arg))(x, t)
        assert_close(back, forth, rtol=1e-11, atol=1e-11)
    assert_close(back, (f(x, t + h) - f(x, t - h)) / (2 * h), rtol=1e-6, atol=1e-6)
    t = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(x, t).sum(), t)
    assert_close(slope, back.sum(1), rtol=1e-11, atol=1e-11)


# ---- digits ----------------------------------------------------------------------------------


def test_velocity_at_the_data_end_of_a_root_path():
    """b starts as √t, so b′ = ∞ meets E[eps | xt] = 0: what is left is −½ β(0) (x + score)."""
    law, x, zero = mixture(), torch.randn(5, 2).double(), torch.zeros((), dtype=torch.float64)
    table = PATHS["ddpm-linear"]
    for path, beta in ((PATHS["vp"], 0.1), (table, -1000 * torch.log1p(-table.betas[0]))):
        want = -0.5 * beta * (x + law.score(x))
        assert_close(law.velocity(path)(x, zero), want, rtol=1e-12, atol=1e-12)
        both = law.velocity(path)(x, torch.tensor([0.0, 0.3, 0.0, 0.6, 1.0], dtype=torch.float64))
        assert_close(both[[0, 2]], want[[0, 2]], rtol=1e-12, atol=1e-12)
        assert bool(torch.isfinite(both).all())


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("case", ["ring", "many"])
def test_narrow_components_keep_their_digits_in_float32(case, own):
    """Squares of 10⁵ stds would leave .02 to 1.2 nats of rounding in their difference."""
    g = torch.Generator().manual_seed(0)
    if case == "ring":
        means = GaussianMixture.ring(8, 4.0, 0.01).means
    else:
        means = torch.randn(50, 784, generator=g)
    stds = torch.full_like(means, 0.01) * (1 + 0.3 * own * torch.rand(means.shape, generator=g))
    law = GaussianMixture(torch.full((len(means),), 1 / len(means)), means, stds)
    x, _ = law.sample(200, generator=g)
    exact = law.to(torch.float64)
    assert_close(law.log_prob(x).double(), exact.log_prob(x.double()), rtol=5e-7, atol=1e-4)
    assert_close(law.posterior(x).double(), exact.posterior(x.double()), rtol=0, atol=1e-4)
    if case == "ring":  # between two the posterior decides by a difference
        middle = (means[:1] + means[1:2]) / 2
        want = exact.posterior(middle.double())[:, :2].float()
        assert_close(law.posterior(middle)[:, :2], want, rtol=0, atol=2e-3)


def test_the_floor_at_no_noise_is_that_of_a_normal():
    """At t → 0 each point knows its component: Var(x0 | xt) = v b²/(v + b²), above 0."""
    law, g = mixture(), torch.Generator().manual_seed(0)
    for t in (1e-8, 1e-5):
        t = torch.tensor(t, dtype=torch.float64)
        found = float(law.mmse(PATHS["linear"], t, 500, generator=g))
        assert found == pytest.approx(float(t) ** 2, rel=1e-3)
        floor = float(law.floor(targets.velocity, PATHS["linear"], t, 500, generator=g))
        assert floor == pytest.approx(1.0, rel=1e-3)  # Var(eps − x0 | xt) = Var(x0 | xt)/t²


def test_the_mmse_of_a_float32_mixture_is_computed_in_float64():
    law, g = mixture(torch.float32), torch.Generator().manual_seed(0)
    t = torch.tensor(1e-4)
    assert float(law.mmse(PATHS["linear"], t, 500, generator=g)) == pytest.approx(1e-8, rel=1e-3)
    floor = law.floor(targets.velocity, PATHS["linear"], t, 500, generator=g)
    assert floor.dtype == torch.float32 and float(floor) == pytest.approx(1.0, rel=1e-3)


def test_the_flow_map_far_out_and_in_columns():
    law, path = line(), PATHS["vp"]
    x = torch.tensor([-1e4, -3.0, 0.2, 40.0, 1e4], dtype=torch.float64)
    t, s = torch.tensor([0.6, 0.1], dtype=torch.float64)
    y = oracle.flow_map_1d(law, path, x, t, s)
    assert_close(oracle.flow_map_1d(law, path, y, s, t), x, rtol=1e-9, atol=1e-9)
    assert torch.equal(oracle.flow_map_1d(law, path, x[:, None], t, s), y[:, None])
    slope = (law.at(path, s).stds.max() / law.at(path, t).stds.max()).item()
    assert float(y[-1] - y[-2]) / (1e4 - 40) == pytest.approx(slope, rel=1e-2)  # the widest rules
    with pytest.raises(ValueError, match="not finite"):
        oracle.flow_map_1d(law, path, x * torch.nan, t, s)


def test_weights_sum_to_one_but_for_rounding():
    """Four digits, as a table in a paper prints them: 1e-4, and no more."""
    means, stds = torch.zeros(2, 1), torch.ones(2, 1)
    assert GaussianMixture(torch.tensor([0.5, 0.50008]), means, stds)
    with pytest.raises(ValueError, match="sum to 1"):
        GaussianMixture(torch.tensor([0.5, 0.5002]), means, stds)


def test_points_that_are_not_of_the_mixture_are_named():
    m, x = mixture(), torch.zeros(5, 2, dtype=torch.float64)
    for call in (m.log_prob, m.score, m.posterior, lambda x: m.denoiser(DDPM)(x, T25)):
        for bad in (x[:, :1], x[0], torch.zeros(5, 3).double()):
            with pytest.raises(ValueError, match="a mixture in 2 dimensions"):
                call(bad)
        assert_close(call(x.float()), call(x))  # the mixture's wider dtype decides
    narrow = m.to(torch.float32)
    for call in (narrow.log_prob, narrow.score, narrow.posterior):
        with pytest.raises(TypeError, match="x is torch.float64, the mixture torch.float32"):
            call(x)
    for label in (-1, 7, torch.tensor([0, 1, 3, 0, 0])):
        with pytest.raises(ValueError, match="is out of range for 3 classes"):
            m.denoiser(DDPM, label)
    flat = line().to(torch.float64)
    assert_close(flat.score(x[:, 0]), flat.score(x[:, :1])[:, 0])  # on the line (B,) will do
    assert flat.log_prob(x[:, 0]).shape == (5,)
