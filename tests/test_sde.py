"""Truths of lecture 9: f and g of every path, one marginal for every noise, log p by the ODE."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from cases import PATHS, ends, line, mixture
from laws import draws
from torch.testing import assert_close

from minigen import flow, nets, oracle, paths, score, sde, targets

pytestmark = pytest.mark.long

F64 = torch.float64
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
smooth = pytest.mark.parametrize(
    "path", [p for p in PATHS.values() if not isinstance(p, paths.DDPM)], ids=str
)


def grid(*times):
    return torch.tensor(times, dtype=F64)


def seeded(k=3):
    return torch.Generator().manual_seed(k)


def within(values, truth, errors=4.0, bias=0.0):
    """The mean of the values is the truth within so many standard errors, and a known bias."""
    values = values.double()
    stderr = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - truth) < errors * stderr + bias, (values.mean(), truth)


def linear_denoiser(path, mean, var):
    """E[x0 | xt] of N(mean, var), by hand."""

    def denoise(x, t):
        a, b = path.a(t), path.b(t)
        return mean + a * var / (a**2 * var + b**2) * (x - a * mean)

    return denoise


# The equation -----------------------------------------------------------------------------------


def beta(t, path):
    return path.beta_min + t * (path.beta_max - path.beta_min)


CLOSED = {
    "linear": lambda t, p: (-1 / (1 - t), 2 * t / (1 - t)),
    "cosine": lambda t, p: (
        -math.pi / 2 * torch.tan(math.pi / 2 * t),
        math.pi * torch.tan(math.pi / 2 * t),
    ),
    "vp": lambda t, p: (-beta(t, p) / 2, beta(t, p)),
    "sub-vp": lambda t, p: (-beta(t, p) / 2, beta(t, p) * (1 - p.a(t) ** 4)),
    "ve": lambda t, p: (0 * t, 2 * p.b(t) ** 2 * math.log(p.sigma_max / p.sigma_min)),
    "edm": lambda t, p: (0 * t, 2 * p.sigma_max**2 * t),
}


@pytest.mark.parametrize("name", CLOSED)
def test_the_table_of_f_and_g(name):
    """In closed form, from t = 0 on; [Song et al. 2021, eq. 25, 27, 29] where they have it."""
    path, t = PATHS[name], grid(0.0, 1e-3, 0.3, 0.77, 0.99)
    f, g2 = CLOSED[name](t, path)
    assert_close(sde.drift(path, t), f, rtol=1e-11, atol=1e-12)
    assert_close(sde.diffusion(path, t), g2, rtol=1e-10, atol=1e-12)
    one = sde.diffusion(path, t[2].float())
    assert one.shape == () and one.dtype == torch.float32
    assert_close(one.double(), g2[2], rtol=1e-6, atol=1e-6)


@every_path
def test_mean_and_variance_obey_their_equations(path):
    """dm/dt = f m and dV/dt = 2fV + g² for m = 3a, V = 0.4a² + b², by central differences."""
    t, h = grid(0.1237, 0.4531, 0.8019), 1e-6
    m, V = (lambda t: 3 * path.a(t)), (lambda t: 0.4 * path.a(t) ** 2 + path.b(t) ** 2)
    slope = lambda y: (y(t + h) - y(t - h)) / (2 * h)
    f, g2 = sde.drift(path, t), sde.diffusion(path, t)
    assert_close(slope(m), f * m(t), rtol=1e-7, atol=1e-7)
    assert_close(slope(V), 2 * f * V(t) + g2, rtol=1e-7, atol=1e-7)
    snr = lambda t: path.log_snr(t)
    assert_close(g2, -(path.b(t) ** 2) * slope(snr), rtol=1e-6, atol=1e-7)


def test_a_table_tends_to_its_sde():
    """ᾱ_T of β_i = β(i/T)/T against exp(−∫β)."""
    limit = float(paths.VP().a(torch.tensor(1.0, dtype=F64)) ** 2)
    table = lambda T: beta(torch.arange(1, T + 1, dtype=F64) / T, paths.VP()) / T
    ratios = [float(torch.prod(1 - table(T))) / limit for T in (10**3, 10**4, 10**5)]
    assert [round(r, 3) for r in ratios[:2]] == [0.925, 0.992]
    assert ratios[2] == pytest.approx(1, abs=1e-3)
    table = paths.DDPM(table(2000))
    i = torch.arange(0, 2000, 199)
    t = (i + 0.5).double() / 2000  # amid the knots
    assert_close(sde.diffusion(table, t), -2000 * torch.log1p(-table.betas[i]))


@pytest.mark.parametrize("noise", [0.0, 0.7, 1.0, 2.0])
@smooth
def test_fokker_planck_for_every_noise(path, noise):
    """∂p/∂t = −∂(v p) − ½ noise² g² ∂²p: v is the drift on the way back, noise 1 Anderson's.

    With the forward equation's drift f x the last sign is +.
    """
    law, h, k = line(), 1e-5, 1e-4
    x, t = torch.linspace(-3, 2.5, 41, dtype=F64)[:, None], torch.tensor(0.37, dtype=F64)
    density = lambda x, t: law.at(path, t).log_prob(x).exp()
    f, g2 = sde.drift(path, t), sde.diffusion(path, t)
    rate = (density(x, t + h) - density(x, t - h)) / (2 * h)
    bend = (density(x + k, t) - 2 * density(x, t) + density(x - k, t)) / k**2

    def flux(x, n2):
        s = law.at(path, t).score(x)
        return ((f * x - 0.5 * (1 + n2) * g2 * s)[:, 0]) * density(x, t)

    ahead = lambda x: (f * x)[:, 0] * density(x, t)
    div = lambda y: (y(x + k) - y(x - k)) / (2 * k)
    size = float(rate.abs().max())
    back = -div(lambda x: flux(x, noise**2)) - 0.5 * noise**2 * g2 * bend
    assert float((rate - back).abs().max()) < 1e-5 * max(1, size)
    forward = -div(ahead) + 0.5 * g2 * bend
    assert float((rate - forward).abs().max()) < 1e-5 * max(1, size)


def by_quadrature(path, p, q, times):
    """½ g² E_p (s_p − s_q)² at each of the times, and KL(p ‖ q) at the first and the last."""
    x = torch.linspace(-9, 9, 1801, dtype=F64)[:, None]
    gaps, kls = [], []
    for t in times:
        p_t, q_t = p.at(path, t), q.at(path, t)
        density = p_t.log_prob(x).exp()
        gap = (p_t.score(x) - q_t.score(x))[:, 0].square()
        gaps.append(0.5 * sde.diffusion(path, t) * torch.trapezoid(density * gap, x[:, 0]))
        kls.append(torch.trapezoid(density * (p_t.log_prob(x) - q_t.log_prob(x)), x[:, 0]))
    return torch.stack(gaps), float(kls[0]), float(kls[-1])


@pytest.mark.parametrize("path", [paths.VP(), paths.SubVP(), paths.Cosine()], ids=str)
def test_the_kl_is_the_scores_difference_weighted_by_g2(path):
    """KL(p ‖ q) = ½ ∫ g² E_p ‖s_p − s_q‖² dt + KL at the end. [Song et al. 2021b, theorem 1]"""
    one = oracle.GaussianMixture.isotropic(torch.tensor([[0.5]], dtype=F64), 1.5**0.5)
    nodes, weights = (torch.tensor(y) for y in np.polynomial.legendre.leggauss(60))
    u = torch.cat([grid(-1.0), nodes, grid(1.0)])
    times = ((u + 1) / 2) ** 2 * 0.97  # many near the data
    rate, start, end = by_quadrature(path, line(), one, times)
    integral = float((weights * rate[1:-1] * (nodes + 1) / 2 * 0.97).sum())  # dt = (u + 1)/2 du
    assert start == pytest.approx(0.598995, abs=2e-6)
    assert integral + end == pytest.approx(start, abs=1e-5)
    assert integral > 0.9 * start  # what is left at the end alone would not do


def test_a_latent_prior_is_judged_by_its_conditional_scores():
    """The cross entropy by LSGM's theorem 1, with q(zt | z0); its cut-off is b² = 1e-5."""
    path, (m, v), (n, w) = paths.VP(), (0.6, 0.5), (-0.2, 0.8)  # q, p: mean, variance
    low = float(path.time(torch.tensor(1e-5, dtype=F64).sqrt() / (1 - 1e-5) ** 0.5))
    u = torch.linspace(math.log(low), 0, 40_001, dtype=F64)
    t = u.exp().clamp(max=1)
    a, b2, g2 = path.a(t), path.b2(t), sde.diffusion(path, t)
    V = a**2 * w + b2  # of p; z_t = a z0 + b ε, so the two scores' difference is linear in (z0, ε)
    from_eps = b2.sqrt() / V - 1 / b2.sqrt()
    square = (a / V) ** 2 * (v + (m - n) ** 2) + from_eps**2
    found = float(torch.trapezoid(0.5 * g2 * square * t, u))
    found += 0.5 * math.log(2 * math.pi * math.e * float(path.b2(t[0])))
    exact = 0.5 * math.log(2 * math.pi * w) + (v + (m - n) ** 2) / (2 * w)
    assert found == pytest.approx(exact, abs=1e-4)


def test_vp_and_ve_have_one_score_in_two_scales():
    """s_VP(x, t) = s_VE(x/a; b/a)/a."""
    vp, ve, law, x = paths.VP(), paths.EDM(200.0), mixture(), draws(5, 2)
    t = torch.tensor(0.43, dtype=F64)
    a, level = vp.a(t), ve.time(vp.sigma(t))
    assert_close(law.at(vp, t).score(x), law.at(ve, level).score(x / a) / a, rtol=0, atol=1e-13)


# From data to noise -----------------------------------------------------------------------------


@every_path
def test_forward_is_itos_step(path):
    ts, x0 = grid(0.0, 0.05, 0.3, 0.31), mixture().sample(4, generator=seeded())[0]
    states = [*sde.forward(path, x0, ts, generator=seeded(1))]
    x, g = x0, seeded(1)
    for got, t, s in zip(states, ts[:-1], ts[1:], strict=True):
        z = torch.randn(x.shape, generator=g, dtype=F64)
        f, g2 = sde.drift(path, t), sde.diffusion(path, t)
        x = x + f * x * (s - t) + torch.sqrt(g2 * (s - t)) * z
        assert_close(got, x, rtol=1e-12, atol=1e-12)


@smooth
def test_forward_reaches_the_paths_marginal(path):
    """Mean a m and variance a² v + b² − b(0)² a²/a(0)², up to O(Δt)."""
    ts, x0 = torch.linspace(0, 0.6, 301, dtype=F64), torch.full((6000, 1), 1.3, dtype=F64)
    *_, x = sde.forward(path, x0, ts, generator=seeded())
    a, b = float(path.a(ts[-1])), float(path.b(ts[-1]))
    var = b**2 - (a * float(path.b(ts[0]))) ** 2
    within(x[:, 0], 1.3 * a, bias=0.01 * 1.3)
    within((x[:, 0] - 1.3 * a) ** 2, var, bias=0.03 * var)


# The way back -----------------------------------------------------------------------------------


@every_path
def test_without_noise_it_is_eulers_ode(path):
    law, ts, xT = mixture(), grid(0.95, 0.6, 0.31, 0.0), 1.4 * draws(5, 2)
    if path.a(torch.tensor(1.0, dtype=F64)) == 0:
        ts[0] = 1.0  # where f is infinite, and u is not
    ours = sde.reverse(law.denoiser(path), path, xT, ts, noise=0.0)
    for got, want in zip(ours, flow.euler(law.denoiser(path), path, xT, ts), strict=True):
        assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [0.6, 1.0, 1.9])
@every_path
def test_the_step_is_that_of_the_family(path, noise):
    """x + [f x − ½ (1 + noise²) g² s] (s − t) + noise g √(t − s) z, with the oracle's own score."""
    law, ts, x = mixture(), grid(0.9, 0.65, 0.2, 0.15), draws(5, 2)
    states = sde.reverse(law.denoiser(path), path, x, ts, noise=noise, generator=seeded(1))
    g = seeded(1)
    for got, t, s in zip(states, ts[:-1], ts[1:], strict=True):
        z = torch.randn(x.shape, generator=g, dtype=F64)
        f, g2, h = sde.drift(path, t), sde.diffusion(path, t), s - t
        pull = f * x - 0.5 * (1 + noise**2) * g2 * law.at(path, t).score(x)
        x = x + pull * h + noise * torch.sqrt(g2 * -h) * z
        assert_close(got, x, rtol=1e-9, atol=1e-9)


def variance_of_the_chain(path, start, n, noise):
    """Var of the last state on N(0, start) data, from the sampler's own states: x ← c x + σ z."""
    ts = torch.linspace(1, 0, n + 1, dtype=F64)
    denoise, xT = linear_denoiser(path, 0.0, start), torch.tensor([[0.0], [1.0]], dtype=F64)
    states = [xT, *sde.reverse(denoise, path, xT, ts, noise=noise, generator=seeded())]
    g = seeded()
    V = float(path.a(ts[0]) ** 2 * start + path.b2(ts[0]))
    for x, y in zip(states[:-1], states[1:], strict=True):
        z = torch.randn(2, 1, generator=g, dtype=F64)
        (x0, x1), (y0, y1), (z0, z1) = x[:, 0].tolist(), y[:, 0].tolist(), z[:, 0].tolist()
        # two equations, y = c x + σ z for each sample
        det = x0 * z1 - x1 * z0
        c, std = (y0 * z1 - y1 * z0) / det, (x0 * y1 - x1 * y0) / det
        V = c * c * V + std * std
    return V


def test_weak_order_one_in_numbers():
    """VP, N(0, ¼): the variance of Euler–Maruyama's last state is wrong by O(Δt)."""
    errors = [variance_of_the_chain(paths.VP(), 0.25, n, 1.0) - 0.25 for n in (500, 1000, 2000)]
    assert errors[0] == pytest.approx(7.1e-4, rel=0.01)
    orders = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert orders == pytest.approx([1.010, 1.005], abs=1e-3)


WALKS = {
    "noise 0": partial(sde.reverse, noise=0.0),
    "noise ½": partial(sde.reverse, noise=0.5),
    "noise 1": sde.reverse,
    "noise 2": partial(sde.reverse, noise=2.0),
    "corrected": partial(sde.predictor_corrector, snr=0.1),
}


@pytest.mark.parametrize("path", ["vp", "sub-vp", "edm", "linear"])
@pytest.mark.parametrize("name", WALKS)
def test_every_noise_has_the_data_at_its_end(path, name):
    """The mean, the variance and the weight of a mixture's part, from 4000 walks of 300 steps."""
    law, path = line(), PATHS[path]
    top = 0.999 if isinstance(path, paths.Linear) else 1.0
    ts = top * torch.linspace(1, 0, 301, dtype=F64) ** 2
    xT, _ = law.at(path, ts[0]).sample(4000, generator=seeded(5))
    draws_ = {} if name == "noise 0" else {"generator": seeded(6)}
    *_, x = WALKS[name](law.denoiser(path), path, xT, ts, **draws_)
    x, mean, var = x[:, 0], float(law.mean()[0]), float(law.cov()[0, 0])
    within(x, mean, bias=0.01)
    within((x - mean) ** 2, var, bias=0.02)
    within((x < -0.5).double(), 0.3, bias=0.005)


def test_noise_may_be_one_for_each_step():
    law, path, xT, ts = mixture(), paths.Linear(), draws(5, 2), grid(0.9, 0.7, 0.4, 0.1)
    noise = grid(0.0, 1.3, 0.5)
    states = [*sde.reverse(law.denoiser(path), path, xT, ts, noise=noise, generator=seeded())]
    g, x = seeded(), xT
    for i, n in enumerate(noise.tolist()):
        (x,) = sde.reverse(law.denoiser(path), path, x, ts[i : i + 2], noise=n, generator=g)
        assert_close(states[i], x, rtol=1e-12, atol=1e-12)


# Corrections ------------------------------------------------------------------------------------


def test_no_correction_is_the_reverse_sde():
    law, path, xT, ts = mixture(), paths.VP(), draws(5, 2), torch.linspace(1, 0, 6, dtype=F64)
    a = sde.reverse(law.denoiser(path), path, xT, ts, generator=seeded())
    walk = partial(sde.predictor_corrector, corrections=0)
    b = walk(law.denoiser(path), path, xT, ts, generator=seeded())
    for x, y in zip(a, b, strict=True):
        assert_close(x, y, rtol=1e-12, atol=1e-12)


@every_path
def test_the_correction_is_langevins_with_the_ratio_asked_for(path):
    """h makes ‖h s‖ the share snr of ‖√(2h) z‖, both of them means over the batch."""
    law, ts, xT, g = mixture(), grid(0.8, 0.5), draws(5, 2), seeded()
    *_, got = sde.predictor_corrector(
        law.denoiser(path), path, xT, ts, snr=0.3, corrections=2, generator=seeded()
    )
    *_, x = sde.reverse(law.denoiser(path), path, xT, ts, generator=g)
    for _ in range(2):
        s, z = law.at(path, ts[1]).score(x), torch.randn(x.shape, generator=g, dtype=F64)
        ratio = s.norm(dim=1).mean() / z.norm(dim=1).mean()
        h = 2 * (0.3 / ratio) ** 2
        drift, shake = h * s, torch.sqrt(2 * h) * z
        assert float(drift.norm(dim=1).mean() / shake.norm(dim=1).mean()) == pytest.approx(0.3)
        x = x + drift + shake
    assert_close(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(6000, 1), (3000, 1, 2, 2)])
def test_corrections_widen_a_normal_law_by_what_snr_says(shape):
    """Langevin's steps leave the variance (1 + snr²) V, whatever the start."""
    path, ts, snr, var = paths.VP(), grid(0.5, 0.3), 0.5, 0.6
    denoise = linear_denoiser(path, 0.8, var)
    *_, x = sde.predictor_corrector(
        denoise, path, torch.zeros(shape, dtype=F64), ts, snr=snr, corrections=25,
        generator=seeded(),
    )  # fmt: skip
    a, V = float(path.a(ts[1])), float(path.a(ts[1]) ** 2 * var + path.b2(ts[1]))
    within(x.flatten(), 0.8 * a)
    within((x.flatten() - 0.8 * a) ** 2, V * (1 + snr**2), bias=5e-4 * V)


@pytest.mark.parametrize("corrections", [0, 1, 3])
@pytest.mark.parametrize("path", ["vp", "ve"])
def test_the_calls_that_corrections_cost(path, corrections):
    path, law, seen = PATHS[path], mixture(), []

    def denoise(x, t):
        seen.append(float(t))
        return law.denoiser(path)(x, t)

    ts = torch.linspace(1, 0, 5, dtype=F64)
    walk = partial(sde.predictor_corrector, corrections=corrections, generator=seeded())
    assert len([*walk(denoise, path, draws(3, 2), ts)]) == 4
    last = corrections if path.b(ts[-1]) > 0 else 0
    assert len(seen) == 4 + 3 * corrections + last
    assert seen[: 1 + corrections] == [1.0] + corrections * [0.75]


# Likelihood -------------------------------------------------------------------------------------


def test_the_oracles_log_p_is_met():
    """2-D mixture, 200 steps, even in time or in log σ."""
    law = mixture()
    x, _ = law.sample(20, generator=seeded())
    edm, n = paths.EDM(80.0), 201
    levels = torch.logspace(math.log10(0.02), math.log10(80), n, dtype=F64)
    for path, ts in (
        (paths.VP(), torch.linspace(1e-3, 1, n, dtype=F64)),
        (edm, edm.time(levels)),
    ):
        prior = law.at(path, ts[-1]).log_prob
        got = sde.log_prob(law.denoiser(path), path, x, ts, prior=prior)
        assert got.shape == (20,)
        assert_close(got, law.at(path, ts[0]).log_prob(x), rtol=0, atol=1e-6)


def test_order_four():
    law, path = mixture(), paths.Linear()
    x, _ = law.sample(8, generator=seeded())
    errors = []
    for n in (40, 80):
        ts = torch.linspace(0.05, 0.95, n + 1, dtype=F64)
        prior = law.at(path, ts[-1]).log_prob
        got = sde.log_prob(law.denoiser(path), path, x, ts, prior=prior)
        errors.append(float((got - law.at(path, ts[0]).log_prob(x)).abs().max()))
    assert 3.8 < math.log2(errors[0] / errors[1]) < 4.5, errors


def test_from_the_data_themselves_where_the_velocity_can_be_read():
    """N(m, v) images on the straight path from t = 0 to 1: the net gives u at both ends."""
    path, var, m = paths.Linear(), 0.49, 0.8

    def net(x, t, label=None):
        a, b = 1 - t, t
        V = a**2 * var + b**2
        return -m + (b - a * var) / V * (x - a * m)

    x = m + 0.7 * draws(3, 1, 2, 2)
    denoise = paths.denoiser(net, path, targets.velocity)
    got = sde.log_prob(denoise, path, x, torch.linspace(0, 1, 101, dtype=F64))
    law = torch.distributions.Normal(m, var**0.5)
    assert_close(got, law.log_prob(x).flatten(1).sum(1), rtol=0, atol=1e-6)


def test_no_step_cures_a_wrong_last_marginal():
    """With N(0, σ_max²) for the true law at the end log p is wrong by what the two differ there."""
    law, path, gaps = line(), paths.EDM(80.0), []
    x, _ = law.sample(20, generator=seeded())
    for n in (60, 120):
        ts = path.time(torch.logspace(math.log10(0.02), math.log10(80), n + 1, dtype=F64))
        got = sde.log_prob(law.denoiser(path), path, x, ts)
        gaps.append(float((got - law.at(path, ts[0]).log_prob(x)).abs().max()))
    assert gaps[0] == pytest.approx(gaps[1], rel=2e-2) and gaps[0] > 1e-3
    end = oracle.flow_map_1d(law, path, x[:, 0], ts[0], ts[-1])[:, None]
    true = law.at(path, ts[-1]).log_prob(end)
    wrong = torch.distributions.Normal(0.0, 80.0).log_prob(end[:, 0])
    assert gaps[1] == pytest.approx(float((wrong - true).abs().max()), rel=2e-3)


def test_hutchinson_adds_no_bias_to_log_p():
    law, path, ts = mixture(), paths.VP(), torch.linspace(1e-3, 1, 13, dtype=F64)
    x = grid(0.4, -0.7).expand(500, 2)
    exact = sde.log_prob(law.denoiser(path), path, x[:1], ts)
    for draw in (score.gaussian, score.rademacher):
        walk = partial(sde.log_prob, divergence=partial(sde.hutchinson, draw=draw))
        got = walk(law.denoiser(path), path, x, ts, generator=seeded())
        assert float(got.std()) > 0.05
        within(got, float(exact[0]))
    again = walk(law.denoiser(path), path, x, ts, generator=seeded())
    assert torch.equal(got, again)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 2)])
def test_the_exact_divergence_is_the_trace(shape):
    x = draws(4, *shape)
    field = lambda x: (
        torch.sin(2 * x) * x.reshape(len(x), -1).mean(1).reshape(-1, *[1] * len(shape))
    )
    jacobian = torch.stack([torch.func.jacrev(lambda y: field(y[None])[0])(y) for y in x])
    D = x[0].numel()
    trace = jacobian.reshape(4, D, D).diagonal(dim1=1, dim2=2).sum(1)
    with torch.no_grad():
        assert_close(sde.exact_divergence(field, x), trace, rtol=1e-12, atol=1e-12)
    assert not sde.exact_divergence(field, x.requires_grad_()).requires_grad


def test_the_divergence_of_a_field_that_turns_or_stands_still():
    x = draws(4, 2)
    turn = lambda x: torch.stack([-x[:, 1], x[:, 0]], 1)
    assert_close(sde.exact_divergence(turn, x), torch.zeros(4, dtype=F64))
    half = lambda x: torch.stack([x[:, 0], torch.ones_like(x[:, 0])], 1)
    assert_close(sde.exact_divergence(half, x), torch.ones(4, dtype=F64))
    for divergence in (sde.exact_divergence, sde.hutchinson):
        with pytest.raises(ValueError, match="no gradient leads from field"):
            divergence(lambda x: turn(x.detach()), x)
        with pytest.raises(ValueError, match="for states .* gave"):
            divergence(lambda x: x[:, 0], x)


@pytest.mark.parametrize("draw", [score.gaussian, score.rademacher])
def test_hutchinsons_mean_and_variance(draw):
    """tr A and 2 ‖A_sym‖²_F; signs take the diagonal's part off."""
    A = grid(0.5, 2.0, -1.0, 0.3, -0.8, 0.1, 0.6, 1.1, 1.7).reshape(3, 3)
    n = 20_000
    got = sde.hutchinson(lambda x: x @ A.T, draws(n, 3), draw=draw, generator=seeded())
    sym = (A + A.T) / 2
    var = 2 * float(sym.square().sum())
    if draw is score.rademacher:
        var -= 2 * float(sym.diagonal().square().sum())
    within(got, float(A.trace()))
    within((got - A.trace()) ** 2, var)


# Bad input --------------------------------------------------------------------------------------


class Back(paths.GaussianPath):
    """A path whose noise level falls again, which no SDE has."""

    def a(self, t):
        return torch.ones_like(t)

    def b(self, t):
        return 0.1 + t * (1 - t)


def test_what_no_sde_has_is_named():
    ts, x = torch.linspace(0, 1, 5, dtype=F64), draws(3, 2)
    denoise = mixture().denoiser(paths.Linear())
    for path in (paths.Linear(), paths.Cosine()):
        for call in (
            lambda p: sde.drift(p, ts),
            lambda p: sde.diffusion(p, ts[-1]),
            lambda p: sde.forward(p, x, ts),
            lambda p: sde.reverse(denoise, p, x, ts.flip(0)),
            lambda p: sde.predictor_corrector(denoise, p, x, ts.flip(0)),
        ):
            with pytest.raises(ValueError, match=r"has a = 0 at t = 1, where the SDE's drift"):
                call(path) if isinstance(path, paths.Linear) else call(paths.Linear())
    with pytest.raises(ValueError, match=r"no SDE has the marginals of .* t = 0\.75 .* falls"):
        sde.diffusion(Back(), ts)
    for f in (sde.drift, sde.diffusion):
        with pytest.raises(ValueError, match="t must lie in"):
            f(paths.VP(), grid(1.2))


def test_a_grid_the_wrong_way_round_is_named():
    path, x, ts = paths.VP(), draws(3, 2), torch.linspace(0.1, 1, 5, dtype=F64)
    denoise = mixture().denoiser(path)
    for call in (partial(sde.forward, path), partial(sde.log_prob, denoise, path)):
        with pytest.raises(ValueError, match=r"must rise from data .*mean ts\.flip\(0\)"):
            call(x, ts.flip(0))
        with pytest.raises(ValueError, match="must rise"):
            call(x, grid(0.1, 0.5, math.nan))
        with pytest.raises(ValueError, match=r"all in \[0, 1\]"):
            call(x, 2 * ts)
        with pytest.raises(ValueError, match="at least two times"):
            call(x, ts[:1])
    for call in (sde.reverse, sde.predictor_corrector):
        with pytest.raises(ValueError, match="must decrease from noise"):
            call(denoise, path, x, ts)


@pytest.mark.parametrize(
    "kwargs, sentence",
    [
        ({"noise": -0.1}, "noise must be finite and not negative"),
        ({"noise": math.nan}, "noise must be finite"),
        ({"noise": math.inf}, "noise must be finite"),
        ({"noise": torch.ones(3)}, r"a number or one for each of 4 steps, got .*3"),
        ({"snr": 0.0}, "snr must be positive"),
        ({"snr": -1.0}, "snr must be positive"),
        ({"snr": math.inf}, "snr must be positive and finite"),
        ({"snr": math.nan}, "snr must be positive"),
        ({"corrections": -1}, "corrections must be a whole number"),
        ({"corrections": True}, "corrections must be a whole number"),
    ],
)
def test_a_bad_setting_is_named_before_the_first_state(kwargs, sentence):
    path, x, ts = paths.VP(), draws(3, 2), torch.linspace(1, 0.1, 5, dtype=F64)
    walk = sde.reverse if "noise" in kwargs else sde.predictor_corrector
    with pytest.raises(ValueError, match=sentence):
        walk(mixture().denoiser(path), path, x, ts, **kwargs)


def test_other_bad_calls_are_named():
    path, ts = paths.VP(), torch.linspace(0, 1, 5, dtype=F64)
    x, denoise = draws(3, 2), mixture().denoiser(paths.VP())
    with pytest.raises(ValueError, match=r"at t = 0, where this path has b = 0"):
        sde.log_prob(denoise, path, x, ts)
    with pytest.raises(ValueError, match="x0 holds no samples"):
        sde.forward(path, x[:0], ts)
    for call in (partial(sde.forward, path), partial(sde.log_prob, denoise, path)):
        with pytest.raises(ValueError, match="generator is on cpu but the data is on meta"):
            call(x.to("meta"), ts[1:], generator=seeded())
    net = paths.denoiser(nets.MLP(2, hidden=8), path, targets.v)
    with pytest.raises(TypeError, match="float64 but the net's parameters are torch.float32"):
        sde.log_prob(net, path, x, ts[1:])
    with pytest.raises(ValueError, match="was trained on VP"):
        sde.log_prob(net, paths.SubVP(), x, ts[1:])


def test_on_any_device_and_dtype(device, dtype):
    """A net with labels; no graph is kept, and the samples stay as they were."""
    torch.manual_seed(0)
    net, path = nets.MLP(2, hidden=8, classes=4).to(device, dtype), paths.VP()
    net.last.reset_parameters()
    denoise = paths.denoiser(net, path, targets.v, torch.tensor([0, 3, 1], device=device))
    x, ts = torch.randn(3, 2, device=device, dtype=dtype), torch.linspace(0.1, 0.9, 5)
    before, g = x.clone(), torch.Generator(device).manual_seed(0)
    for divergence in (sde.exact_divergence, sde.hutchinson):
        got = sde.log_prob(denoise, path, x, ts, divergence=divergence, generator=g)
        assert got.shape == (3,) and got.dtype == dtype and not got.requires_grad
        assert got.device == x.device and bool(torch.isfinite(got).all())
    states = [*sde.forward(path, x, ts, generator=g)]
    assert len(states) == 4 and states[-1].dtype == dtype and states[-1].device == x.device
    assert torch.equal(x, before)


def test_the_last_step_draws_its_noise_too():
    law, path, ts = line(), paths.VP(), grid(0.5, 0.0)
    x = torch.zeros(3, 1, dtype=F64)
    one = ends(sde.reverse, law.denoiser(path), path, x, ts, generator=seeded())
    assert float(one.std()) > 0.1
