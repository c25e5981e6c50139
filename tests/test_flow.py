"""Rectified flow against the oracle: its velocity, its ODE's exact map, its straightness."""

import itertools
import math

import numpy as np
import pytest
import torch
from cases import PATHS, line, mixture
from torch.testing import assert_close

from minigen import ddim, flow, guidance, nets, oracle, paths, targets

F64 = torch.float64
LINEAR = paths.Linear()
MEAN, STD = torch.tensor([0.8, -0.3], dtype=F64), torch.tensor([0.5, 1.3], dtype=F64)
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def time(t):
    return torch.tensor(t, dtype=F64)


def gaussian(mean=MEAN, std=STD):
    return oracle.GaussianMixture(torch.ones(1, dtype=F64), mean[None], std[None])


def hermite(n, dims):
    """Points (n^dims, dims) and weights: E over N(0, I), exact for degrees below 2n in each."""
    z, w = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(n))
    w = w / math.sqrt(2 * math.pi)
    points = torch.cartesian_prod(*[z] * dims)
    return points, torch.cartesian_prod(*[w] * dims).prod(1)


def gaussian_pairs(n=4):
    """x0 ~ N(MEAN, STD²), eps, independent, and the weight of each pair."""
    z, w = hermite(n, 4)
    return MEAN + STD * z[:, :2], z[:, 2:], w


def strange(xt, t):
    """Any function will do where the claim is about every denoiser."""
    return torch.sin(3 * xt) - 0.4 * xt.flip(-1) * t


# ---- the velocity ----------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.15, 0.5, 0.93])
def test_the_velocity_is_the_mean_of_eps_minus_x0(t):
    """By quadrature over x0, and by its two closed forms."""
    law, t = line(), time(t)
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None]
    x0 = torch.linspace(-9, 8, 20_001, dtype=F64)
    eps = (x - (1 - t) * x0) / t
    weight = law.log_prob(x0[:, None]).exp() * torch.exp(-0.5 * eps**2)
    want = ((eps - x0) * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    u = flow.velocity(law.denoiser(LINEAR), LINEAR)(x, t)
    assert_close(u, want, rtol=0, atol=1e-10)
    score = law.at(LINEAR, t).score(x)
    assert_close(u, -(x + t * score) / (1 - t), rtol=0, atol=1e-11)


@every_path
def test_it_is_the_probability_flows_field_on_every_path(path, device, double):
    law = mixture(double, device)
    xt = torch.randn(5, 2, dtype=double, device=device) + 0.4
    for t in (time(0.37).to(xt), torch.linspace(0.1, 0.9, 5).to(xt)):
        u = flow.velocity(law.denoiser(path), path)(xt, t)
        assert_close(u, law.velocity(path)(xt, t), rtol=1e-11, atol=1e-10)


@every_path
def test_the_continuity_equation(path):
    """∂_t log p + u·∇ log p + div u = 0, at points of the plane, with exact derivatives."""
    law, x = mixture(), mixture().sample(7, generator=torch.Generator().manual_seed(1))[0]
    for t in (time(0.2013), time(0.6107)):  # no knots of a table
        x, s = x.clone().requires_grad_(), t.clone().requires_grad_()
        dx, dt = torch.autograd.grad(law.at(path, s).log_prob(x).sum(), (x, s))
        each = [law.at(path, t + h).log_prob(x).detach() for h in (1e-6, -1e-6)]
        per_point = (each[0] - each[1]) / 2e-6
        assert_close(per_point.sum(), dt, rtol=1e-6, atol=1e-6)
        u = flow.velocity(law.denoiser(path), path)
        div = (
            sum((u(x + h, t) - u(x - h, t))[:, i] for i, h in enumerate(1e-5 * torch.eye(2))) / 2e-5
        )
        rest = per_point + (u(x, t) * dx).sum(1) + div
        assert_close(rest.detach(), torch.zeros(7, dtype=F64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8, 1.0])
def test_no_function_of_the_state_explains_what_is_left(t):
    """E[(u* − (eps − x0)) φ(xt)] = 0, ends included: u*(x, 1) = x − E x0, u*(x, 0) = E eps − x."""
    (x0, eps, w), t = gaussian_pairs(), time(t)
    xt = LINEAR.mix(x0, eps, t)
    ends = {0.0: lambda x: -x, 1.0: lambda x: x - MEAN}
    exact = lambda x: flow.velocity(gaussian().denoiser(LINEAR), LINEAR)(x, t)
    u = ends.get(float(t), exact)(xt)
    if t == 1:
        assert_close(u, exact(xt), rtol=0, atol=1e-13)
    assert_close(u, gaussian().velocity(LINEAR)(xt, t), rtol=0, atol=1e-12)
    for phi in (torch.ones_like(xt), xt, xt**2, xt.flip(1)):
        left = ((u - (eps - x0)) * phi * w[:, None]).sum(0)
        assert_close(left, torch.zeros(2, dtype=F64), rtol=0, atol=1e-11)


# ---- the loss --------------------------------------------------------------------------------


def irreducible(t, s):
    return s**2 / ((1 - t) ** 2 * s**2 + t**2)


def test_the_least_loss_is_nowhere_zero_and_its_peak_is_not_the_middle():
    """Var(eps − x0 | xt) = s²/((1 − t)² s² + t²): 1 at 0, s² at 1, 1 + s² at t = s²/(1 + s²)."""
    x0, eps, w = gaussian_pairs()
    u = gaussian().velocity(LINEAR)
    net = lambda xt, t, label: u(xt, t)
    for t in (0.0, 0.2, 0.5, 0.8, 1.0):
        least = (flow.loss(net, x0, eps, time(t)) * w).sum()
        assert_close(least, irreducible(t, STD).mean(), rtol=1e-12, atol=0)
    known = [1.0, 1.25, 0.8, 0.25]
    assert_close(
        torch.tensor([irreducible(t, 0.5) for t in (0.0, 0.2, 0.5, 1.0)]), torch.tensor(known)
    )
    ts = torch.linspace(0, 1, 10_001, dtype=F64)
    for s in (0.5, 1.3):
        curve = irreducible(ts, s)
        assert abs(float(ts[curve.argmax()]) - s**2 / (1 + s**2)) < 1e-4
        assert abs(float(curve.max()) - (1 + s**2)) < 1e-6


def test_its_least_value_on_a_mixture_is_the_oracles_floor(generator, device, double):
    law, t, n = mixture(double, device), time(0.45).to(device), 40_000
    x0, _ = law.sample(n, generator=generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=double, device=device)
    u = flow.velocity(law.denoiser(LINEAR), LINEAR)
    got = flow.loss(lambda xt, t, label: u(xt, t), x0, eps, t)
    want = law.floor(targets.velocity, LINEAR, t, n, generator=generator)
    assert abs(float(got.mean() - want)) < 4 * float(got.std()) / n**0.5


def test_it_is_the_general_loss_of_the_velocity(dtype, device, generator):
    shape, label = (5, 2, 3, 4), torch.arange(5, device=device)
    x0, eps = (torch.randn(shape, dtype=dtype, device=device, generator=generator) for _ in "ab")
    net = lambda xt, t, label: torch.sin(xt * (1 + label + t)[:, None, None, None])
    t = flow.uniform_times(5, generator=generator).to(dtype)
    got = flow.loss(net, x0 + 1.5, eps, t, label)
    want = targets.loss(net, LINEAR, targets.velocity, x0 + 1.5, eps, t, label)
    tol = {"rtol": 1e-12, "atol": 1e-12} if dtype == F64 else {"rtol": 1e-4, "atol": 1e-5}
    assert got.shape == (5,)
    assert_close(got, want, **tol)


# ---- times -----------------------------------------------------------------------------------


def test_uniform_times(generator, device):
    t, n = flow.uniform_times(20_000, generator=generator), 20_000
    assert t.shape == (n,) and t.device.type == device.type and bool(((t >= 0) & (t <= 1)).all())
    for power in (1, 2, 3):  # E t^k = 1/(k + 1)
        spread = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2)
        assert abs(float((t**power).mean()) - 1 / (power + 1)) < 4 * spread / n**0.5


def test_logit_normal_times(generator):
    from scipy.integrate import quad

    n, mass = 20_000, 2 * 0.5 * (1 + math.erf(math.log(3) / math.sqrt(2))) - 1
    logit = lambda t: math.log(t / (1 - t))
    density = lambda t: math.exp(-0.5 * logit(t) ** 2) / math.sqrt(2 * math.pi) / (t * (1 - t))
    assert abs(quad(density, 0.25, 0.75, epsabs=1e-12)[0] - mass) < 1e-9
    assert abs(mass - 0.728063) < 1e-6
    t = flow.logit_normal_times(n, generator=generator)
    inside = float(((t > 0.25) & (t < 0.75)).double().mean())
    assert abs(inside - mass) < 4 * math.sqrt(mass * (1 - mass) / n)
    z = torch.logit(flow.logit_normal_times(n, 0.7, 1.6, generator=generator).double())
    assert abs(float(z.mean()) - 0.7) < 4 * 1.6 / n**0.5
    assert abs(float(z.std()) - 1.6) < 4 * 1.6 / (2 * n) ** 0.5


def test_a_shift_moves_the_mean_of_the_logit(device):
    g = [torch.Generator(device).manual_seed(3) for _ in "ab"]
    a = flow.shift(flow.logit_normal_times(50, 0.2, 0.8, generator=g[0]), 3.0)
    b = flow.logit_normal_times(50, 0.2 + math.log(3.0), 0.8, generator=g[1])
    assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_shifts_form_a_group(device, double):
    t = torch.linspace(0, 1, 11, dtype=double, device=device)
    assert_close(flow.shift(t, 3.0), 3 * t / (1 + 2 * t), rtol=1e-15, atol=1e-15)
    assert_close(flow.shift(flow.shift(t, 3.0), 1 / 3), t, rtol=0, atol=1e-15)
    assert_close(flow.shift(flow.shift(t, 2.0), 1.5), flow.shift(t, 3.0), rtol=0, atol=1e-15)
    assert_close(flow.shift(t, 1.0), t, rtol=0, atol=1e-15)
    mid = t[1:-1]
    moved = torch.logit(flow.shift(mid, 0.4)) - torch.logit(mid)
    assert_close(moved, torch.full_like(mid, math.log(0.4)), rtol=0, atol=1e-14)


def test_a_shift_never_leaves_the_interval():
    t = torch.linspace(0, 1, 50, dtype=F64)
    for ratio in (1e-3, 0.1, 0.3, 1.0, 3.0, 7.3, 1e4):
        moved = flow.shift(t, ratio)
        assert moved[0] == 0 and moved[-1] == 1
        assert bool((moved.diff() > 0).all() & (moved <= 1).all())


def test_a_shift_keeps_what_the_pixels_tell_of_their_mean(generator, double, device):
    """Their mean has std t/((1 − t)√n): the same for 4n pixels at the time shifted by 2."""
    t, stds = time(0.4).to(device), []
    for pixels, s in ((64, t), (256, flow.shift(t, 2.0))):
        eps = torch.randn(8000, pixels, generator=generator, dtype=double, device=device)
        seen = LINEAR.mix(torch.full_like(eps, 0.7), eps, s)
        stds.append(float((seen.mean(1) / (1 - s)).std()))
        assert abs(stds[-1] / (0.4 / 0.6 / 8) - 1) < 4 / math.sqrt(2 * 8000)


def test_the_grid_has_n_steps_that_end_at_the_data():
    for n, ratio in ((1, 1.0), (7, 1.0), (10, 3.0), (7, 0.2)):
        ts = flow.grid(n, ratio)
        assert ts.shape == (n + 1,) and ts.dtype == F64 and ts[0] == 1 and ts[-1] == 0
        assert_close(flow.shift(1 - torch.arange(n + 1, dtype=F64) / n, ratio), ts)
        assert_close(ts, flow.grid(n, shift=ratio))


# ---- the samplers ----------------------------------------------------------------------------


def ends(walk, *args):
    *_, x = walk(*args)
    return x


def errors_on_the_line(walk, path, high, low, steps):
    """The greatest error after so many steps of the exact flow of a mixture on the line."""
    law, x = line(), torch.tensor([-1.6, -0.5, 0.2, 0.8, 1.9], dtype=F64)
    exact, errors = oracle.flow_map_1d(law, path, x, time(high), time(low)), []
    for n in steps:
        ts = torch.linspace(high, low, n + 1, dtype=F64)
        y = ends(walk, law.denoiser(path), path, x[:, None], ts)[:, 0]
        errors.append(float((y - exact).abs().max()))
    return errors


def orders(errors):
    """log2 of the ratios of errors as the steps are halved."""
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_the_kinks_of_a_table_cost_heun_little():
    """On the knots of T = 1000, where ᾱ's slope jumps, an error of about 1/T stays."""
    coarse, fine = errors_on_the_line(flow.heun, PATHS["ddpm-linear"], 0.9, 0.1, (20, 160))
    assert coarse < 0.02 and fine < 2e-3


@pytest.mark.long
@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("walk, order", [(flow.euler, 1), (flow.heun, 2)])
def test_the_orders_from_noise_to_data(walk, order, name):
    """Heun's last step, Euler's, costs no order: the error of one step is of second order."""
    found = orders(errors_on_the_line(walk, PATHS[name], 1.0, 0.0, (50, 100, 200)))
    assert all(abs(o - order) < 0.15 * order for o in found), found


def test_on_the_linear_path_euler_is_ddim(dtype, device):
    xT = torch.randn(5, 3, dtype=dtype, device=device) + 0.5
    tol = {"rtol": 1e-12, "atol": 1e-12} if dtype == F64 else {"rtol": 1e-4, "atol": 1e-5}
    ts = flow.grid(9, 2.0)
    walks = flow.euler(strange, LINEAR, xT, ts), ddim.sample(strange, LINEAR, xT, ts)
    states = list(zip(*walks, strict=True))
    assert len(states) == 9
    for x, y in states:
        assert x.dtype == dtype
        assert_close(x, y, **tol)


def test_a_networks_velocity_is_stepped_as_it_is(dtype, device):
    torch.manual_seed(0)
    net = nets.MLP(2, hidden=8, classes=3).to(device, dtype)
    net.last.reset_parameters()  # away from the zero output at birth
    label = torch.tensor([0, 2, 1, 1, 0], device=device)
    xT, ts = torch.randn(5, 2, dtype=dtype, device=device), flow.grid(6)
    denoise = paths.denoiser(net, LINEAR, targets.velocity, label)
    x = xT
    with torch.no_grad():
        for t, s in itertools.pairwise(ts):
            x = x + float(s - t) * net(x, t.to(x), label)
    before = xT.clone()
    got = ends(flow.euler, denoise, LINEAR, xT, ts)
    tol = {"rtol": 1e-11, "atol": 1e-12} if dtype == F64 else {"rtol": 1e-4, "atol": 1e-5}
    assert_close(got, x, **tol)
    assert torch.equal(xT, before) and not got.requires_grad


def test_guidance_of_denoisers_is_guidance_of_velocities():
    law, gamma, ts = mixture(), 2.5, flow.grid(8)
    c, u = law.denoiser(LINEAR, label=1), law.denoiser(LINEAR)
    x = xT = torch.randn(4, 2, dtype=F64)
    for t, s in itertools.pairwise(ts):
        u_c, u_u = (flow.velocity(f, LINEAR)(x, t) for f in (c, u))
        x = x + (s - t) * (u_u + gamma * (u_c - u_u))
    got = ends(flow.euler, guidance.cfg(c, u, gamma), LINEAR, xT, ts)
    assert_close(got, x, rtol=1e-11, atol=1e-11)


def test_v_is_a_eps_minus_b_x0():
    """dxt/dφ at angle φ = πt/2; x0 = a xt − b v, eps = b xt + a v. The sign −v leads elsewhere."""
    path = paths.Cosine()
    x0, eps, t = 0.7 + torch.randn(7, 1, dtype=F64), torch.randn(7, 1, dtype=F64), time(0.37)
    a, b, xt = path.a(t), path.b(t), path.mix(x0, eps, t)
    v = targets.value(targets.v, path, x0, eps, t)
    assert_close(v, a * eps - b * x0, rtol=1e-13, atol=1e-14)
    assert_close(a * xt - b * v, x0, rtol=1e-13, atol=1e-14)
    assert_close(b * xt + a * v, eps, rtol=1e-13, atol=1e-14)
    by_angle = targets.value(targets.velocity, path, x0, eps, t) / (math.pi / 2)
    assert_close(v, by_angle, rtol=1e-12, atol=1e-13)
    ahead, back = (path.mix(x0, eps, t + 2 / math.pi * h) for h in (1e-6, -1e-6))
    assert_close((ahead - back) / 2e-6, v, rtol=0, atol=1e-9)
    printed = torch.stack([torch.stack([a, b]), torch.stack([-a, b])])  # y = b eps − a x0
    assert_close(torch.linalg.det(printed), 2 * a * b)  # singular at both ends, v's is 1


class Counted:
    """A denoiser that remembers its times."""

    def __init__(self, denoise):
        self.denoise, self.times = denoise, []

    def __call__(self, xt, t):
        self.times.append(float(t))
        return self.denoise(xt, t)


def test_evaluations_and_where_they_fall():
    def times(walk, path, ts):
        denoise = Counted(mixture().denoiser(path))
        ends(walk, denoise, path, torch.randn(3, 2, dtype=F64), ts)
        return denoise.times

    ts = flow.grid(4)
    assert times(flow.euler, LINEAR, ts) == [1.0, 0.75, 0.5, 0.25]
    assert times(flow.heun, LINEAR, ts) == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    ve = PATHS["ve"]  # whose b(0) > 0
    assert times(flow.heun, ve, ts) == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0]
    assert times(flow.heun, LINEAR, flow.grid(1)) == [1.0]


# ---- Gaussian data ---------------------------------------------------------------------------


def affine(walk, n, mean=1.0, std=0.2):
    """Mean and std of what n steps make of N(0, 1): the map is affine, so two points tell."""
    law = gaussian(torch.tensor([mean], dtype=F64), torch.tensor([std], dtype=F64))
    start = torch.tensor([[0.0], [1.0]], dtype=F64)
    x = ends(walk, law.denoiser(LINEAR), LINEAR, start, flow.grid(n))
    return float(x[0]), float(x[1] - x[0])


def test_eulers_mean_is_exact_and_its_std_of_first_order():
    """On n + 1 times; n times from 1 to 0 with step 1/n would add up to more than 1."""
    for n, std in ((10, 0.154), (50, 0.190)):
        mean, found = affine(flow.euler, n)
        assert abs(mean - 1) < 1e-12 and round(found, 3) == std
    errors = [0.2 - affine(flow.euler, n)[1] for n in (50, 100, 200)]
    assert all(abs(o - 1) < 0.15 for o in orders(errors)), errors
    errors = [abs(0.2 - affine(flow.heun, n)[1]) for n in (30, 60, 120)]
    assert all(abs(o - 2) < 0.15 for o in orders(errors)), errors


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.sqrt()) @ vectors.T


def test_the_map_of_a_gaussian_is_the_symmetric_root():
    """x_t = (1 − t) m + ((1 − t)² Σ + t² I)^½ eps: m + Σ^½ eps at the end, optimal transport."""
    from scipy.integrate import solve_ivp

    half = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
    cov, mean = half @ half.T + 0.2 * torch.eye(3), torch.tensor([0.8, -1.0, 0.3], dtype=F64)
    eye, eps = torch.eye(3, dtype=F64), torch.randn(4, 3, dtype=F64)

    def denoise(xt, t):
        a, k = 1 - t, (1 - t) ** 2 * cov + t**2 * eye
        return mean + a * torch.linalg.solve(k, (xt - a * mean).T).T @ cov

    def slope(t, x):
        field = flow.velocity(denoise, LINEAR)
        return field(torch.from_numpy(x).reshape(4, 3), time(t)).flatten().numpy()

    found = solve_ivp(slope, (1, 0.1), eps.flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-13)
    want = 0.9 * mean + eps @ root(0.81 * cov + 0.01 * eye)
    assert_close(torch.from_numpy(found.y[:, -1]).reshape(4, 3), want, rtol=0, atol=1e-9)
    want, errors = mean + eps @ root(cov), []
    for n in (80, 160):
        errors.append(
            float((ends(flow.heun, denoise, LINEAR, eps, flow.grid(n)) - want).abs().max())
        )
    assert errors[1] < 3e-3 and 3.5 < errors[0] / errors[1] < 4.5, errors


# ---- straightening ---------------------------------------------------------------------------


def signs():
    """x0 = m ± s, eps = ±1, all pairs: the first two moments of independent normals, exactly."""
    e = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=F64)
    return MEAN + STD * e[:, :2], e[:, 2:]


def test_straightness_is_half_pi_s_before_reflow():
    """u is affine, so the error is quadratic: moments of two signs are enough for E."""
    x0, eps = signs()
    u, want = gaussian().velocity(LINEAR), math.pi / 2 * float(STD.mean())
    off = [float(flow.straightness(u, x0, eps, n)) - want for n in (16, 32, 64)]
    assert abs(off[-1]) < 1e-4 and all(abs(o - 2) < 0.2 for o in orders(off)), off
    by_denoiser = flow.velocity(gaussian().denoiser(LINEAR), LINEAR)
    assert_close(flow.straightness(by_denoiser, x0, eps, 9), flow.straightness(u, x0, eps, 9))
    one = torch.tensor([0.5], dtype=F64)
    alone = flow.straightness(gaussian(MEAN[:1], one).velocity(LINEAR), *unit_pairs(), 100)
    assert abs(float(alone) - 0.785398) < 4e-5


def test_the_times_are_not_rounded_with_the_data():
    """Between 0.5 and 1 bfloat16 knows 128 times; 1000 are asked for."""
    x0, seen = torch.ones(2, 3, dtype=torch.bfloat16), []
    flow.straightness(lambda xt, t: seen.append(t) or xt, x0, x0, 1000)
    assert_close(torch.stack(seen), (torch.arange(1000) + 0.5) / 1000)


def test_data_of_one_number_are_points_on_the_line():
    g = torch.Generator().manual_seed(0)
    x0, eps, t = (torch.rand(6, dtype=F64, generator=g) for _ in range(3))
    bend = lambda xt, t, label=None: torch.sin(3 * xt)
    for f in (
        lambda x, y: flow.loss(bend, x, y, t),
        lambda x, y: flow.straightness(bend, x, y, 5),
        flow.transport_cost,
        flow.couple,
    ):
        assert_close(f(x0, eps), f(x0[:, None], eps[:, None]))
    assert bool((eps[flow.couple(x0, eps)][x0.argsort()].diff() > 0).all())


def unit_pairs():
    e = torch.tensor([[-1.0, -1.0], [-1, 1], [1, -1], [1, 1]], dtype=F64)
    return MEAN[:1] + 0.5 * e[:, :1], e[:, 1:]


def reflowed(xt, t):
    """The exact velocity of the coupling x0 = m + s eps: eps is read off the line xt lies on."""
    eps = (xt - (1 - t) * MEAN) / ((1 - t) * STD + t)
    return eps - (MEAN + STD * eps)


def test_after_reflow_lines_are_straight_and_one_step_is_exact(double, device):
    eps = torch.randn(6, 2, dtype=F64)
    x0 = MEAN + STD * eps
    assert float(flow.straightness(reflowed, x0, eps, 11)) < 1e-28
    denoise = paths.denoiser(lambda xt, t, label: reflowed(xt, t), LINEAR, targets.velocity)
    assert_close(ends(flow.euler, denoise, LINEAR, eps, flow.grid(1)), x0, rtol=0, atol=1e-14)
    straight = flow.straightness(gaussian().velocity(LINEAR), x0, eps, 11)
    assert float(straight) > 1e-2  # the first flow is not straight, on its own pairs either


def test_reflow_pairs_are_the_ends_of_the_flow():
    eps = torch.randn(5, 2, dtype=F64)
    for walk, ratio in ((flow.euler, 2), (flow.heun, 4)):
        errors = []
        for n in (60, 120):
            x0, start = flow.reflow_pairs(gaussian().denoiser(LINEAR), eps, flow.grid(n), walk=walk)
            assert torch.equal(start, eps)
            errors.append(float((x0 - (MEAN + STD * eps)).abs().max()))
        assert 0.85 * ratio < errors[0] / errors[1] < 1.15 * ratio, errors
    by_default = flow.reflow_pairs(gaussian().denoiser(LINEAR), eps, flow.grid(120))[0]
    assert torch.equal(by_default, x0)  # the better of the two


def test_transport_costs_fall_to_w2():
    """m² + s² + 1 for random pairs, m² + (1 − s)² = W₂² after reflow, summed over both axes."""
    x0, eps = signs()
    before = (MEAN**2 + STD**2 + 1).sum()
    assert_close(flow.transport_cost(x0, eps), before, rtol=1e-13, atol=0)
    after = (MEAN**2 + (1 - STD) ** 2).sum()
    assert_close(flow.transport_cost(MEAN + STD * eps, eps), after, rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", range(6))
def test_couple_finds_the_least_of_all_permutations(seed, dtype, device):
    g = torch.Generator().manual_seed(seed)
    x0, eps = 30 + 2 * torch.randn(5, 1, 3, generator=g), torch.randn(5, 1, 3, generator=g)
    x0, eps = x0.to(device, dtype), eps.to(device, dtype)
    costs = {
        p: float(flow.transport_cost(x0.double(), eps[list(p)].double()))
        for p in itertools.permutations(range(5))
    }
    perm = flow.couple(x0, eps)
    assert perm.device.type == device.type and perm.dtype == torch.int64
    assert tuple(perm.tolist()) == min(costs, key=costs.get)


def test_couple_on_the_line_sorts(dtype, device):
    """Far from 0 too, where float32 products would confuse neighbours."""
    g = torch.Generator().manual_seed(0)
    x0 = (4096 + torch.randperm(128, generator=g) / 64)[:, None].to(device, dtype)
    eps = torch.randn(128, 1, generator=g).to(device, dtype)
    perm = flow.couple(x0, eps)
    assert bool((eps[perm][x0[:, 0].argsort(), 0].diff() > 0).all())


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("walk", [flow.euler, flow.heun])
def test_a_bad_walk_is_named_at_the_call(walk):
    """Before a state is asked for."""
    denoise, xT, ts = mixture().denoiser(LINEAR), torch.randn(3, 2, dtype=F64), flow.grid(4)
    with pytest.raises(ValueError, match="must decrease from noise"):
        walk(denoise, LINEAR, xT, ts.flip(0))
    with pytest.raises(ValueError, match="in .0, 1."):
        walk(denoise, LINEAR, xT, 1.5 * ts)
    with pytest.raises(ValueError, match="is its class empty"):
        walk(denoise, LINEAR, xT[:0], ts)
    net = paths.denoiser(nets.MLP(2, hidden=8), LINEAR, targets.velocity)
    with pytest.raises(TypeError, match="parameters are torch.float32"):
        walk(net, LINEAR, xT, ts)
    net = paths.denoiser(nets.MLP(2, hidden=8), LINEAR, targets.eps)
    with pytest.raises(ValueError, match="eps does not determine velocity at t = 1"):
        walk(net, LINEAR, xT.float(), ts)


@every_path
def test_a_velocity_without_noise_is_named(path):
    u, x = flow.velocity(mixture().denoiser(path), path), torch.randn(3, 2, dtype=F64)
    if isinstance(path, paths.VE):  # b(0) > 0
        return assert_close(u(x, time(0.0)), mixture().velocity(path)(x, time(0.0)))
    for t in (time(0.0), torch.tensor([0.5, 0.0, 0.2], dtype=F64)):
        with pytest.raises(
            ValueError, match="x0 does not determine velocity at t = 0, where this path has b = 0"
        ):
            u(x, t)


def test_bad_times_are_named():
    for n in (0, -3, 2.5, True):
        for make in (flow.uniform_times, flow.logit_normal_times, flow.grid):
            with pytest.raises((ValueError, TypeError)):
                make(n)
    for std in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a std > 0"):
            flow.logit_normal_times(3, 0.0, std)
    with pytest.raises(ValueError, match="finite mean"):
        flow.logit_normal_times(3, math.inf)
    for ratio in (0.0, -2.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="ratio > 0"):
            flow.shift(time(0.5), ratio)
        with pytest.raises(ValueError, match="ratio > 0"):
            flow.grid(3, ratio)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        flow.shift(time(1.5), 2.0)


def test_bad_couplings_are_named():
    x = torch.randn(1025, 2)
    with pytest.raises(ValueError, match=r"at most 1024 samples, got 1025.*split\(1024\)"):
        flow.couple(x, x)
    assert flow.couple(x[:1024], x[:1024]).tolist() == list(range(1024))
    for bad in (math.nan, math.inf):
        y = x[:3].clone()
        y[1, 0] = bad
        for pair in ((y, x[:3]), (x[:3], y)):
            with pytest.raises(ValueError, match="NaN or infinite"):
                flow.couple(*pair)
    u = mixture(torch.float32).velocity(LINEAR)
    for call in (flow.couple, flow.transport_cost, lambda *a: flow.straightness(u, *a)):
        with pytest.raises(ValueError, match="is its class empty"):
            call(x[:0], x[:0])
    with pytest.raises(ValueError, match="is its class empty"):
        flow.loss(lambda xt, t, label: xt, x[:0], x[:0], torch.tensor(0.5))
    with pytest.raises(ValueError, match="whole number"):
        flow.straightness(u, x, x, 0)


def test_straightness_keeps_no_graph():
    net = nets.MLP(2, hidden=8)
    assert not flow.straightness(net, torch.randn(4, 2), torch.randn(4, 2), 3).requires_grad


def test_pairs_of_half_a_walk_are_refused():
    denoise, eps = mixture().denoiser(LINEAR), torch.randn(3, 2, dtype=F64)
    for ts in (flow.grid(4)[1:], flow.grid(4)[:-1]):
        with pytest.raises(ValueError, match="must run from 1 to 0"):
            flow.reflow_pairs(denoise, eps, ts)
    with pytest.raises(ValueError, match="is its class empty"):
        flow.reflow_pairs(denoise, eps[:0], flow.grid(4))
    with pytest.raises(ValueError, match="must decrease"):
        flow.reflow_pairs(denoise, eps, flow.grid(4).flip(0))


def test_shapes_that_differ_are_named(run_python):
    """In an interpreter where nothing else checks shapes."""
    said = run_python(
        "import torch; from minigen import flow\n"
        "x, t = torch.randn(5, 2), torch.tensor(0.5)\n"
        "net = torch.nn.Linear(2, 2)\n"
        "same, one = lambda x, t, label=None: x, lambda x, t, label=None: x[:, :1]\n"
        "for call in (lambda: flow.couple(x, x[:4]), lambda: flow.transport_cost(x, x[:1]),\n"
        "    lambda: flow.straightness(same, x, x[:, :1]), lambda: flow.loss(same, x, x[:1], t),\n"
        "    lambda: flow.loss(one, x, x, t), lambda: flow.loss(same, x, x, torch.rand(5, 1)),\n"
        "    lambda: flow.couple(x.long(), x), lambda: flow.grid(2.5),\n"
        "    lambda: flow.loss(same, x, x, torch.rand(1)), lambda: flow.loss(same, x, x, 0.5),\n"
        "    lambda: flow.loss(same, x, x.double(), t), lambda: flow.couple(x.double(), x),\n"
        "    lambda: flow.loss(net, x.double(), x.double(), t)):\n"
        "    try: print('nothing', call())\n"
        "    except (ValueError, TypeError) as error: print(error)"
    ).splitlines()
    assert all("share one shape" in line for line in said[:4])
    assert "for states (5, 2) the net or denoiser gave (5, 1)" in said[4]
    assert "t must have shape () or (B,)" in said[5]
    assert said[6] == "x0 must be a float tensor of shape (B, ...), got torch.int64"
    assert "whole number" in said[7]
    assert said[8] == "1 times were given for a batch of 5"
    assert "t must be a float tensor" in said[9]
    assert "share one dtype, got torch.float32 and torch.float64" in said[10]
    assert "share one dtype, got torch.float64 and torch.float32" in said[11]
    assert "the states are torch.float64 but the net" in said[12]
