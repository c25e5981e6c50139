"""DDIM: the family's marginals, DDPM and Euler as its ends, the exact flow as its limit."""

import math

import pytest
import torch
from cases import PATHS, line, mixture
from torch.testing import assert_close

from minigen import ddim, ddpm, nets, oracle, paths, shapes, targets
from minigen.oracle import GaussianMixture
from minigen.paths import readout

PATH = paths.DDPM(ddpm.linear_betas())
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def gaussian(mean: float, std: float) -> GaussianMixture:
    return GaussianMixture.isotropic(torch.tensor([[mean]], dtype=torch.float64), std)


def grid(n: int, path=PATH, low: float = 0.0) -> torch.Tensor:
    """n steps down from a time at which every path still has a signal."""
    high = 1.0 if isinstance(path, paths.DDPM) else 0.95
    return torch.linspace(high, low, n + 1, dtype=torch.float64)


def strange(xt, t):
    """Any function will do where the claim is about every denoiser."""
    return torch.sin(3 * xt) - 0.4 * xt.flip(-1) * t


@every_path
def test_eta_one_is_ddpm_for_any_denoiser(path, dtype, device):
    ts, tol = grid(23, path), 1e-11 if dtype == torch.float64 else 2e-4
    xT = torch.randn(5, 3, dtype=dtype, device=device) + 0.5
    g = [torch.Generator(device).manual_seed(2) for _ in range(2)]
    a = ddim.sample(strange, path, xT, ts, eta=1.0, generator=g[0])
    b = ddpm.ancestral(strange, path, xT, ts, generator=g[1])
    if isinstance(path, paths.VE):  # its data end keeps σ_min, where ancestral adds no noise
        a, b = list(a)[:-1], list(b)[:-1]
    for x, y in zip(a, b, strict=True):
        assert_close(x, y, rtol=tol, atol=tol)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, "at the bound"])
@every_path
def test_every_member_keeps_the_marginals(path, eta, monkeypatch):
    # fix x0 = m ± s and eps = ±1: linear maps of them have the exact second moments of the chain
    x0 = 0.7 + 0.5 * torch.tensor([1, 1, 1, 1, -1, -1, -1, -1], dtype=torch.float64)[:, None]
    eps = torch.tensor([1, 1, -1, -1, 1, 1, -1, -1], dtype=torch.float64)[:, None]
    ts = grid(1, path, low=0.4)
    z = torch.tensor([1, -1, 1, -1, 1, -1, 1, -1], dtype=torch.float64)[:, None]
    monkeypatch.setattr(readout, "noise", lambda x, generator=None: z)
    if eta == "at the bound":  # ς² = b_s²: no predicted noise is left, all of it is fresh
        eta = float(path.b(ts[1]) / ddpm.posterior_variance(path, ts[0], ts[1]).sqrt())
    xt = path.mix(x0, eps, ts[0])
    (xs,) = ddim.sample(lambda x, t: x0, path, xt, ts, eta=eta)  # one that knows x0
    a, b = path.a(ts[1]), path.b(ts[1])
    assert_close(xs.mean(), 0.7 * a, rtol=1e-12, atol=1e-13)
    assert_close(xs.var(correction=0), 0.25 * a**2 + b**2, rtol=1e-12, atol=0)


@every_path
def test_fresh_noise_has_the_std_eta_root_beta_tilde(path, monkeypatch):
    # errata B2: ς = η √β̃, so at η = ½ a quarter of the variance, not half of it
    ts, xt = grid(1, path, low=0.4), torch.randn(4, 2, dtype=torch.float64)

    def after(z):
        monkeypatch.setattr(readout, "noise", lambda x, generator=None: z * torch.ones_like(x))
        return next(ddim.sample(strange, path, xt, ts, eta=0.5))

    std = 0.5 * ddpm.posterior_variance(path, ts[0], ts[1]).sqrt()
    assert_close(after(1.0) - after(0.0), std.expand(4, 2), rtol=1e-11, atol=1e-13)


@every_path
def test_eta_zero_is_euler_in_scaled_coordinates(path, double, device):
    # x̄ = x/a, ρ = b/a: x̄_s = x̄_t + (ρ_s − ρ_t) eps
    ts = grid(1, path, low=0.33)
    xt = torch.randn(6, 2, dtype=double, device=device)
    (xs,) = ddim.sample(strange, path, xt, ts)
    t, s = ts.to(xt)
    eps = (xt - path.a(t) * strange(xt, t)) / path.b(t)
    euler = path.a(s) * (xt / path.a(t) + (path.sigma(s) - path.sigma(t)) * eps)
    assert_close(xs, euler, rtol=1e-11, atol=1e-12)


def test_on_the_linear_path_it_is_eulers_method_on_the_velocity():
    path, data, ts = paths.Linear(), mixture(), grid(7)
    xT = torch.randn(5, 2, dtype=torch.float64)
    *_, x = ddim.sample(data.denoiser(path), path, xT, ts)
    y = xT
    for t, s in zip(ts[:-1], ts[1:], strict=True):
        y = y + (s - t) * data.velocity(path)(y, t)
    assert_close(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n", [1, 3, 10])
@every_path
def test_a_point_mass_is_reached_in_any_number_of_steps(path, n):
    x0 = torch.tensor([[1.7, -0.4]], dtype=torch.float64)
    xT = torch.randn(4, 2, dtype=torch.float64)
    *_, x = ddim.sample(lambda x, t: x0.expand(4, 2), path, xT, grid(n, path))
    noise = path.b(torch.zeros((), dtype=torch.float64))  # σ_min of VE, else 0
    assert_close(x, x0.expand(4, 2), rtol=0, atol=1e-12 + 5 * float(noise))


def test_one_step_gives_the_denoised_mean():
    data, xT = mixture(), torch.randn(4, 2, dtype=torch.float64)
    (x,) = ddim.sample(data.denoiser(PATH), PATH, xT, grid(1))
    assert_close(x, data.denoiser(PATH)(xT, grid(1)[0]), rtol=1e-12, atol=1e-12)


@pytest.mark.long
def test_std_of_gaussian_data_is_the_known_product():
    # identities: data N(0, ¼), the sampler from N(0, 1) ends at std .370 .471 .485 .498
    def final_std(n):
        i = torch.linspace(0, 1000, n + 1).round().flip(0).double()
        one = torch.ones(1, 1, dtype=torch.float64)
        *_, x = ddim.sample(gaussian(0.0, 0.5).denoiser(PATH), PATH, one, i / 1000)
        return float(x)  # the map is linear: its slope is the ratio of the stds

    steps = [10, 50, 100, 1000]
    expected = [0.370, 0.471, 0.485, 0.498]
    assert [round(final_std(n), 3) for n in steps] == expected
    limit = 0.5 / math.sqrt(float(PATH.alpha_bars[-1]) * 0.25 + 1 - float(PATH.alpha_bars[-1]))
    order = math.log2((final_std(250) - limit) / (final_std(500) - limit))
    assert abs(order - 1) < 0.05


def test_samples_of_every_eta_have_the_datas_moments(generator, device, double):
    data, n = mixture(double, device), 10_000
    for eta in (0.0, 0.5, 1.0):
        xT = torch.randn(n, 2, dtype=double, device=device, generator=generator)
        *_, x = ddim.sample(data.denoiser(PATH), PATH, xT, grid(200), eta=eta, generator=generator)
        assert_close(torch.cov(x.T), data.cov(), rtol=0.05, atol=0.06)
        assert_close(data.posterior(x).mean(0), data.weights, rtol=0, atol=0.025)


@pytest.mark.long
def test_encoding_inverts_sampling_to_first_order():
    data, x0 = line(), torch.tensor([[-2.2], [-1.5], [0.5], [1.3]], dtype=torch.float64)
    denoise, errors = data.denoiser(PATH), []
    for n in (125, 250, 500):
        *_, xT = ddim.encode(denoise, PATH, x0, grid(n))
        *_, back = ddim.sample(denoise, PATH, xT, grid(n))
        errors.append(float((back - x0).abs().max()))
    assert errors[-1] < 2e-2  # and half as much at 1,000 steps
    assert all(1.7 < errors[i] / errors[i + 1] < 2.3 for i in (0, 1)), errors
    again = [*ddim.encode(denoise, PATH, x0, grid(500).flip(0))]
    assert len(again) == 500
    assert_close(again[-1], xT)  # the grid either way round


@pytest.mark.long
def test_encoding_meets_the_exact_flow():
    data, x = line(), torch.tensor([-2.2, -1.5, 0.5, 1.3], dtype=torch.float64)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    exact = oracle.flow_map_1d(data, PATH, x, zero, one)
    *_, xT = ddim.encode(data.denoiser(PATH), PATH, x[:, None], grid(1000))
    assert float((xT[:, 0] - exact).abs().max()) < 0.02


def test_slerp_walks_the_great_circle(dtype, device, generator):
    a, b = (torch.randn(5, 1, 8, 8, dtype=dtype, device=device, generator=generator) for _ in "ab")
    assert_close(ddim.slerp(a, b, 0.0), a, rtol=1e-5, atol=1e-5)
    assert_close(ddim.slerp(a, b, 1.0), b, rtol=1e-5, atol=1e-5)

    def unit(x):
        return torch.nn.functional.normalize(x.flatten(1), dim=1)

    p, q = (x.reshape(a.shape) for x in (unit(a), unit(b)))
    quarter = ddim.slerp(p, q, 0.25).flatten(1)
    assert_close(quarter.norm(dim=1), torch.ones(5, dtype=dtype, device=device))
    angle = torch.acos((p.flatten(1) * q.flatten(1)).sum(1))
    tol = {"rtol": 1e-3, "atol": 1e-3}
    assert_close(torch.acos((p.flatten(1) * quarter).sum(1)), angle / 4, **tol)
    u = torch.linspace(0, 1, 5, dtype=dtype, device=device)  # one for each sample
    for i in range(5):
        each = ddim.slerp(a[i : i + 1], b[i : i + 1], u[i])
        assert_close(ddim.slerp(a, b, u)[i : i + 1], each, rtol=1e-4, atol=1e-5)
    # parallel vectors: the straight line, no NaN
    assert_close(ddim.slerp(a, a, 0.5), a)
    assert_close(ddim.slerp(a, 3 * a, 0.5), 2 * a, rtol=1e-3, atol=1e-3)


def test_slerp_keeps_the_norm_of_noise_where_lerp_loses_it(generator):
    a, b = (torch.randn(400, 256, generator=generator) for _ in "ab")
    norm = a.norm(dim=1).mean()
    assert abs(float(ddim.slerp(a, b, 0.5).norm(dim=1).mean() / norm) - 1) < 0.01
    assert abs(float((0.5 * (a + b)).norm(dim=1).mean() / norm) - 0.5**0.5) < 0.01


def test_bad_input_is_refused_in_words():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="no room for the predicted noise"):
        next(ddim.sample(strange, PATH, x, grid(10), eta=3.0))
    with pytest.raises(ValueError, match="eta ≥ 0"):
        next(ddim.sample(strange, PATH, x, grid(10), eta=-0.5))
    with pytest.raises(ValueError, match="must decrease"):
        next(ddim.sample(strange, PATH, x, grid(10).flip(0)))
    with pytest.raises(TypeError, match="float64 but the net"):
        denoise = paths.denoiser(nets.MLP(2), PATH, targets.eps)
        next(ddim.sample(denoise, PATH, x.double(), grid(4)))
    with pytest.raises(ValueError, match="does not determine x0 at t = 1"):
        denoise = paths.denoiser(nets.MLP(2), paths.Linear(), targets.eps)
        next(ddim.sample(denoise, paths.Linear(), x, grid(4)))
    with pytest.raises((ValueError, TypeError)):  # with shapes checked at run time, a TypeError
        ddim.slerp(x, x[:2], 0.5)
    assert shapes.check_grid(grid(4)).shape == (5,)


def test_slerp_between_near_neighbours_is_still_the_arc():
    """At an angle of 1e-4 the arc is 1e-9 from the chord, which float64 tells apart."""
    angle, u = torch.tensor(1e-4, dtype=torch.float64), 0.3
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.stack([angle.cos(), angle.sin()])[None]
    want = torch.stack([(u * angle).cos(), (u * angle).sin()])[None]
    assert_close(ddim.slerp(a, b, u), want, rtol=0, atol=1e-14)
    assert float((torch.lerp(a, b, u) - want).abs().max()) > 1e-10


def test_slerps_bad_calls_are_named(run_python):
    said = run_python(
        "import torch; from minigen import ddim\n"
        "x = torch.randn(3, 2)\n"
        "for u in (torch.rand(2), torch.rand(3, 1)):\n"
        "    try: print('nothing', ddim.slerp(x, x + 1, u))\n"
        "    except ValueError as error: print(error)\n"
        "try: print('nothing', [*ddim.encode(lambda x, t: x, None, x, torch.zeros(0))])\n"
        "except ValueError as error: print(error)"
    ).splitlines()
    assert all("u is a number or one for each of 3" in line for line in said[:2])
    assert "ts must have shape (N,), got (0,)" in said[2]
