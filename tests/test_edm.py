"""Preconditioning as a target and an input scale, Karras's levels, and his stochastic walk."""

import inspect
import math

import pytest
import torch
from cases import PATHS, ends, line, mixture
from torch.testing import assert_close

from minigen import ddpm, edm, flow, guidance, nets, oracle, paths, targets, train

F64 = torch.float64
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
SIGMA = torch.tensor([0.0, 0.002, 0.3, 0.6, 1.0, 7.0, 80.0], dtype=F64)
S = 0.6  # the sigma_data of most tests: not 1, where many slips cannot be seen


def number(x):
    return torch.tensor(x, dtype=F64)


def normal(mean=0.0, std=S):
    """One heap on the line."""
    return oracle.GaussianMixture(number([1.0]), number([[mean]]), number([[std]]))


def seeded(k=0):
    return torch.Generator().manual_seed(k)


def moments_agree(x, mean, var):
    """Whether mean and variance of normal draws x are within 4 standard errors."""
    n = len(x)
    assert abs(float(x.mean()) - mean) < 4 * math.sqrt(var / n)
    assert abs(float(x.var()) / var - 1) < 4 * math.sqrt(2 / n)


# Preconditioning --------------------------------------------------------------------------------


def test_the_three_wishes():
    c_skip, c_out, c_in = edm.coefficients(SIGMA, S)
    of_input = c_in**2 * (S**2 + SIGMA**2)
    error = lambda c: (1 - c) ** 2 * S**2 + c**2 * SIGMA**2  # E (x0 − c x̄)²
    assert_close(of_input, torch.ones_like(SIGMA), rtol=0, atol=1e-14)
    assert_close(error(c_skip), c_out**2, rtol=1e-13, atol=1e-30)  # so the target's variance is 1
    for c in (c_skip - 1e-3, c_skip + 1e-3):  # the least of a parabola of curvature S² + σ²
        assert_close(error(c) - c_out**2, 1e-6 * (S**2 + SIGMA**2), rtol=1e-6, atol=1e-14)


def test_the_coefficients_of_data_without_noise_and_of_noise_alone():
    c_skip, c_out, c_in = edm.coefficients(number([0.0, 1e9, math.inf]), 0.5)
    assert_close(c_skip, number([1.0, 2.5e-19, 0.0]), rtol=1e-12, atol=0)
    assert_close(c_out, number([0.0, 0.5, 0.5]), rtol=1e-12, atol=0)
    assert_close(c_in, number([2.0, 1e-9, 0.0]), rtol=1e-12, atol=0)
    assert all(
        c.dtype == torch.float32 and c.shape == () for c in edm.coefficients(torch.ones(()), 2.0)
    )


def test_unit_variance_in_and_out_of_data_that_are_not_normal():
    law, t = line(), torch.tensor(0.4, dtype=F64)
    x0 = law.sample(400_000, generator=seeded())[0] - law.mean()
    eps, s, path = (
        torch.randn(x0.shape, generator=seeded(1), dtype=F64),
        float(law.cov()),
        PATHS["vp"],
    )
    s, seen = math.sqrt(s), []
    edm.scale_input(lambda x, t: seen.append(x) or x, path, s)(path.mix(x0, eps, t), t)
    for x in (*seen, targets.value(edm.target(s), path, x0, eps, t)):
        squares = x.square()
        assert abs(float(squares.mean()) - 1) < 4 * float(squares.std()) / math.sqrt(len(x))


@every_path
def test_the_target_is_what_edms_network_predicts(path):
    x0, eps = torch.randn(7, 3, dtype=F64) + 0.5, torch.randn(7, 3, dtype=F64)
    t = torch.linspace(0.03, 0.97, 7, dtype=F64)
    c_skip, c_out, c_in = (c[:, None] for c in edm.coefficients(path.sigma(t), S))
    xt = path.mix(x0, eps, t)
    bar = xt / path.a(t)[:, None]
    F = targets.value(edm.target(S), path, x0, eps, t)
    assert_close(F, (x0 - c_skip * bar) / c_out, rtol=1e-9, atol=1e-9)
    net = lambda x, t, label=None: torch.sin(x) + 0.3
    D = paths.denoiser(edm.scale_input(net, path, S), path, edm.target(S))(xt, t)
    assert_close(D, c_skip * bar + c_out * net(c_in * bar, t), rtol=1e-12, atol=1e-12)
    loss = targets.loss(edm.scale_input(net, path, S), path, edm.target(S), x0, eps, t)
    assert_close(loss, ((D - x0) / c_out).square().mean(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "vp", "edm", "ddpm-cosine-37"])
def test_both_ends_are_finite_also_where_a_or_b_is_zero(name):
    path, at = PATHS[name], number([0.0, 1.0])
    c, d = edm.target(S)(path, at)
    assert (float(c[0]), float(d[0])) == (0.0, -1.0)  # without noise: −eps
    if float(path.a(at)[1]) == 0:
        assert_close(c[1], number(1 / S), rtol=1e-15, atol=0)  # noise alone: the data
        assert float(d[1]) == 0
    net = edm.scale_input(lambda x, t: x, path, S)
    x = torch.ones(2, 3, dtype=F64)
    assert bool(torch.isfinite(net(x, at)).all())
    D = paths.denoiser(net, path, edm.target(S))
    assert_close(D(x, at)[0], x[0], rtol=1e-14, atol=0)  # xt is the data
    assert bool(torch.isfinite(D(x, at)).all())
    assert bool(
        torch.isfinite(targets.convert(edm.target(S), targets.eps, path, x, x, at)[0]).all()
    )


@pytest.mark.parametrize("name", ["cosine", "vp", "ddpm-linear", "ddpm-cosine-37"])
def test_sigma_data_one_is_minus_v_where_the_variance_is_kept(name):
    path, t = PATHS[name], torch.linspace(0, 1, 41, dtype=F64)
    for own, v in zip(edm.target(1.0)(path, t), targets.v(path, t), strict=True):
        assert_close(own, -v, rtol=0, atol=1e-14)
    assert_close(edm._spread(path, t, 1.0), torch.ones_like(t), rtol=0, atol=1e-14)


@every_path
def test_of_normal_data_nothing_is_left_to_predict(path):
    t, x = torch.linspace(0.02, 0.98, 9, dtype=F64), torch.randn(9, 1, dtype=F64)
    hat, F = normal().denoiser(path)(x, t), edm.target(S)
    assert_close(targets.convert(targets.x0, F, path, hat, x, t), 0 * x, rtol=0, atol=1e-9)
    zero = edm.scale_input(nets.MLP(1, hidden=8), path, S)  # at birth
    x0 = normal().sample(40_000, generator=seeded())[0].float()
    for t in (0.05, 0.5, 0.9):
        eps = torch.randn(x0.shape, generator=seeded(2))
        loss = targets.loss(zero, path, F, x0, eps, torch.tensor(t))
        assert abs(float(loss.detach().mean()) - 1) < 4 * math.sqrt(2 / len(x0))


def test_the_floor_is_below_one_and_scales_with_the_target():
    law, path, t = line(), PATHS["cosine"], torch.tensor(0.4, dtype=F64)
    s = math.sqrt(float(law.cov() + law.mean() ** 2))
    floor = float(law.floor(edm.target(s), path, t, 20_000, generator=seeded()))
    mmse = float(law.mmse(path, t, 20_000, generator=seeded()))
    _, c_out, _ = edm.coefficients(path.sigma(t), s)
    assert floor == pytest.approx(mmse / float(c_out) ** 2, rel=1e-9) and 0 < floor < 1


def test_two_targets_of_one_sigma_data_are_one():
    a, b, other = edm.target(0.5), edm.target(torch.tensor(0.5)), edm.target(1.0)
    assert a == b and hash(a) == hash(b) and a != other and a.__name__ == "edm.target(0.5)"
    assert paths.read(a, b, PATHS["linear"], number(1.0)) == (0, 1)
    with pytest.raises(ValueError, match=r"x0 does not determine edm\.target\(0\.5\) at t = 0"):
        paths.reading(lambda x, t: x, PATHS["vp"], a)(torch.ones(2, 3), torch.tensor(0.0))
    with pytest.raises(AttributeError):
        a.sigma_data = 2.0


# The scaled net ---------------------------------------------------------------------------------


def test_the_scaled_net_is_a_module_that_fit_trains():
    torch.manual_seed(0)
    inner, path = nets.MLP(2, hidden=16), PATHS["cosine"]
    net, law, g = edm.scale_input(inner, path, S), mixture(torch.float32), seeded()

    def loss():
        x0, t = law.sample(64, generator=g)[0], torch.rand(64, generator=g)
        return targets.loss(net, path, edm.target(S), x0, torch.randn(64, 2, generator=g), t).mean()

    before = [p.clone() for p in inner.parameters()]
    assert {*net.parameters()} == {*inner.parameters()}
    assert len([*train.fit(loss, net, steps=5, progress=False)]) == 5
    assert all(
        not torch.equal(p, q) for p, q in zip(before[-2:], [*inner.parameters()][-2:], strict=True)
    )
    with pytest.raises(TypeError, match="float64 but the net's parameters are torch.float32"):
        paths.denoiser(net, path, edm.target(S))(torch.ones(2, 2, dtype=F64), torch.tensor(0.5))


def test_labels_reach_the_net_and_guidance_asks_both_at_once():
    torch.manual_seed(0)
    inner, path, x, t = (
        nets.MLP(2, hidden=8, classes=3),
        PATHS["vp"],
        torch.randn(4, 2),
        torch.rand(4),
    )
    inner.last.reset_parameters()
    net, label, calls = edm.scale_input(inner, path, S), torch.tensor([0, 2, 1, 0]), []
    scaled = x / (path.a(t) ** 2 * S**2 + path.b(t) ** 2).sqrt()[:, None]
    assert_close(net(x, t, label), inner(scaled, t, label))
    assert_close(net(x, t), inner(scaled, t))
    assert not torch.equal(net(x, t), net(x, t, label))
    inner.register_forward_hook(lambda *_: calls.append(1))
    cond, uncond = (paths.denoiser(net, path, edm.target(S), k) for k in (label, None))
    guided = guidance.cfg(cond, uncond, 2.0)(x, t)
    assert len(calls) == 1
    assert_close(guided, 2 * cond(x, t) - uncond(x, t), rtol=1e-4, atol=1e-5)


# Noise levels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "vp", "ddpm-linear"])
def test_the_levels_drawn_are_log_normal(name):
    t = edm.log_normal_times(PATHS[name], 20_000, 0.3, 0.8, generator=seeded(5))
    assert t.dtype == torch.float32 and t.shape == (20_000,)
    log = torch.log(PATHS[name].sigma(t.double()))
    moments_agree(log, 0.3, 0.64)
    assert abs(float(((log - log.mean()) / log.std()).pow(3).mean())) < 4 * math.sqrt(6 / 20_000)


def test_levels_beyond_the_path_count_as_its_ends():
    t = edm.log_normal_times(paths.EDM(math.exp(-1.2)), 10_000, generator=seeded())
    assert abs(float((t == 1).float().mean()) - 0.5) < 4 * 0.5 / 100
    t = edm.log_normal_times(paths.VE(0.3, 50.0), 10_000, generator=seeded())  # log 0.3 = −1.204
    assert abs(float((t == 0).float().mean()) - 0.5) < 4 * 0.5 / 100
    same = [edm.log_normal_times(PATHS["vp"], 5, generator=seeded(k)) for k in (1, 1, 2)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])


@every_path
def test_karras_levels_on_any_path(path):
    low, high = 0.02, 0.9 * min(7.0, float(path.sigma(number(1.0))))
    ts = edm.grid(path, 9, low, high, 5.0)
    assert (
        ts.shape == (10,) and ts.dtype == F64 and float(ts[-1]) == 0 and bool((ts.diff() < 0).all())
    )
    ramp = high**0.2 + torch.arange(9, dtype=F64) / 8 * (low**0.2 - high**0.2)
    assert_close(path.sigma(ts[:-1]), ramp**5, rtol=1e-9, atol=0)


def test_the_ends_of_the_grid_and_of_rho():
    ts = edm.grid(paths.EDM(), 18)
    assert (float(ts[0]), float(ts[-1])) == (1.0, 0.0) and float(ts[-2]) == 0.002 / 80
    assert_close(
        80 * edm.grid(paths.EDM(), 5, 1.0, 9.0, 1.0), number([9.0, 7.0, 5.0, 3.0, 1.0, 0.0])
    )
    ratios = edm.grid(paths.EDM(), 5, 1.0, 16.0, 1e6)[:-1]
    assert_close(80 * ratios, number([16.0, 8.0, 4.0, 2.0, 1.0]), rtol=1e-5, atol=0)
    assert edm.grid(paths.EDM(), 1).tolist() == [1.0, 0.0]
    assert_close(edm.grid(paths.Linear(), 2, 1 / 3, 3.0), number([0.75, 0.25, 0.0]))


def test_the_grid_of_improved_ddpm_climbs_inside_the_root():
    """u² + 1 = 1/ᾱ, so a step of the chain is u ← √((u² + 1)/α − 1); with −1 outside it is not."""
    path = paths.DDPM(ddpm.cosine_betas(50))
    u, outside = number(0.0), number(0.0)
    for i, alpha in enumerate(path.alphas):
        u, outside = ((u**2 + 1) / alpha - 1).sqrt(), ((outside**2 + 1) / alpha).sqrt() - 1
        assert_close(u, path.sigma(number((i + 1) / 50)), rtol=1e-10, atol=0)
    assert float(outside) < 0.1 * float(u)


# Steps along σ ----------------------------------------------------------------------------------


@pytest.mark.parametrize("walk, order", [(flow.euler, 2), (flow.heun, 3)])
def test_the_error_of_one_step_along_sigma(walk, order):
    law, path, x = line(), paths.EDM(4.0), number([-1.7, -0.4, 0.9, 2.2])
    errors = []
    for h in (0.04, 0.02, 0.01):
        between = number([0.3, 0.3 - h])
        exact = oracle.flow_map_1d(law, path, x, *between)
        errors.append(
            float(
                (ends(walk, law.denoiser(path), path, x[:, None], between, order=1)[:, 0] - exact)
                .abs()
                .max()
            )
        )
    found = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert abs(found[1] - order) < 0.1 and abs(found[0] - order) < 0.2, found


@pytest.mark.long
@pytest.mark.parametrize("walk, order", [(flow.euler, 1), (flow.heun, 2)])
def test_the_error_of_a_walk_on_karras_levels(walk, order):
    law, path, x = line(), paths.EDM(4.0), number([-1.7, -0.4, 0.9, 2.2])
    exact = oracle.flow_map_1d(law, path, x, *path.time(number([2.0, 0.1])))
    errors = []
    for n in (100, 200, 400):
        ts = edm.grid(path, n + 1, 0.1, 2.0, 3.0)[:-1]
        y = ends(walk, law.denoiser(path), path, x[:, None], ts, order=1)[:, 0]
        errors.append(float((y - exact).abs().max()))
    found = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert abs(found[1] - order) < 0.1, found


def test_heun_on_the_vp_path_keeps_the_exact_standard_deviation():
    """s √(s_data² + σ²) in Karras's letters, which is √(a² s² + b²)."""
    path, t = PATHS["vp"], number([0.9, 0.3])
    a, b = path.a(t), path.b(t)
    want = ((a[1] * S) ** 2 + b[1] ** 2).sqrt() / ((a[0] * S) ** 2 + b[0] ** 2).sqrt()
    denoise = lambda x, t: path.a(t) * S**2 / ((path.a(t) * S) ** 2 + path.b2(t)) * x
    ts = torch.linspace(*t.tolist(), 1001, dtype=F64)
    *_, x = flow.heun(denoise, path, torch.ones(1, 1, dtype=F64), ts)
    assert_close(x[0, 0], want, rtol=0, atol=2e-6)


def by_hand(denoise, x, sigmas, churn, s_min, s_max, s_noise, generator):
    """Karras's Algorithm 2, line by line; denoise(x, σ)."""
    n = len(sigmas) - 1
    for i in range(n):
        sigma, after = float(sigmas[i]), float(sigmas[i + 1])
        gamma = min(churn / n, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        hat = sigma + gamma * sigma
        if gamma:
            eps = s_noise * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + math.sqrt(hat**2 - sigma**2) * eps
        d = (x - denoise(x, hat)) / hat
        y = x + (after - hat) * d
        x = x + (after - hat) * 0.5 * (d + (y - denoise(y, after)) / after) if after else y
        yield x


@pytest.mark.parametrize(
    "churn, s_min, s_max, s_noise",
    [(7.0, 0.05, 50.0, 1.003), (1.0, 0.0, 70.0, 1.0), (0.0, 0.0, math.inf, 1.0)],
)
@pytest.mark.parametrize("last", [0.0, 0.01])
def test_the_walk_is_algorithm_2(churn, s_min, s_max, s_noise, last):
    law, path = mixture(), paths.EDM(80.0)
    ts = edm.grid(path, 9) if last == 0 else edm.grid(path, 9)[:-1]
    xT = 80 * torch.randn(5, 2, dtype=F64, generator=seeded())
    if churn == 1.0:
        ts = ts[2:]  # the raised levels stay on the path
    denoise = lambda x, sigma: law.denoiser(path)(x, number(sigma / 80))
    given = {"churn": churn, "s_min": s_min, "s_max": s_max, "s_noise": s_noise}
    got = edm.stochastic(law.denoiser(path), path, xT, ts, **given, generator=seeded(4))
    want = by_hand(denoise, xT, 80 * ts, **given, generator=seeded(4))
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, rtol=1e-11, atol=1e-11)


@every_path
def test_without_churn_it_is_heuns(path):
    law, xT = mixture(), torch.randn(5, 2, dtype=F64, generator=seeded())
    for ts in (number([0.9, 0.5, 0.2, 0.0]), number([0.9, 0.5, 0.2])):
        states = edm.stochastic(law.denoiser(path), path, xT, ts, churn=0.0)
        for a, b in zip(states, flow.heun(law.denoiser(path), path, xT, ts), strict=True):
            assert_close(a, b, rtol=1e-12, atol=1e-12)


@every_path
def test_a_raised_state_has_the_law_of_its_new_time(path):
    """q(x_t̂ | x_t) takes the marginal at t to that at t̂."""
    law, t, seen = normal(0.8, 0.5), number(0.4), {}
    x = law.at(path, t).sample(40_000, generator=seeded(1))[0]

    def field(x, t):
        seen.setdefault(float(t), x)
        return law.denoiser(path)(x, t)

    next(edm.stochastic(field, path, x, torch.stack([t, t / 2]), churn=0.5, generator=seeded(2)))
    (hat, raised), *_ = seen.items()
    sigma = path.sigma(number([0.4, hat]))
    assert float(sigma[1] / sigma[0]) == pytest.approx(math.sqrt(2), rel=1e-9)  # 0.5 is too much
    there = law.at(path, number(hat))
    moments_agree(raised, float(there.mean()), float(there.cov()))


def test_one_steps_noise_has_the_share_of_its_walk():
    """γ = churn/n, of the whole grid's n, also at levels without churn."""
    path, ts, seen = paths.Linear(), number([0.9, 0.6, 0.5, 0.4, 0.3]), []
    field = lambda x, t: seen.append(float(t)) or 0.5 * x
    [
        *edm.stochastic(
            field,
            path,
            torch.ones(2, 1, dtype=F64),
            ts,
            churn=0.8,
            s_max=1.0,
            s_min=0.8,
            generator=seeded(),
        )
    ]
    sigma = path.sigma(number(seen[::2])) / path.sigma(ts[:-1])
    assert_close(sigma, number([1.0, 1.0, 1.2, 1.0]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("n, var", [(32, 0.2762), (128, 0.2538), (512, 0.2503)])
def test_the_variance_of_a_walk_with_churn_and_the_exact_denoiser(n, var):
    """Data N(0, 0.25): churn 40 costs, and its error is gone as the steps get short."""
    path = paths.EDM(80.0)
    denoise = lambda x, t: 0.25 / (0.25 + (80 * t) ** 2) * x
    x = math.sqrt(80**2 + 0.25) * torch.randn(40_000, 1, dtype=F64, generator=seeded(n))
    given = {"churn": 40.0, "s_min": 0.05, "s_max": 50.0, "generator": seeded(n + 1)}
    *_, x = edm.stochastic(denoise, path, x, edm.grid(path, n), **given)
    moments_agree(x, 0.0, var)


@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_a_walk_to_the_data_costs_one_call_less_than_two_a_step(churn):
    calls, path = [], paths.EDM()
    field = lambda x, t: calls.append(t) or 0.5 * x
    [*edm.stochastic(field, path, torch.ones(2, 1), edm.grid(path, 18), churn=churn, s_max=50.0)]
    assert len(calls) == 35


def test_no_graph_is_kept_and_the_start_stays():
    x = torch.ones(2, 1, requires_grad=True)
    states = [
        *edm.stochastic(
            lambda x, t: 0.5 * x, paths.EDM(), x, edm.grid(paths.EDM(), 3, 0.1, 5.0), churn=1.0
        )
    ]
    assert not any(s.requires_grad for s in states) and bool((x == 1).all())


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, -0.5, math.nan, math.inf])
def test_a_bad_sigma_data_is_named(wrong):
    for call in (
        lambda: edm.target(wrong),
        lambda: edm.coefficients(SIGMA, wrong),
        lambda: edm.scale_input(nets.MLP(2, hidden=8), PATHS["vp"], wrong),
    ):
        with pytest.raises(ValueError, match=f"sigma_data must be finite and > 0, got {wrong}"):
            call()


def test_what_is_no_number_or_no_tensor_is_named(run_python):
    source = """
        import torch
        from minigen import edm, paths
        sigma, vp = torch.tensor([1.0, 2.0]), paths.VP()
        for call in (
            lambda: edm.target(0), lambda: edm.target("half"), lambda: edm.target(True),
            lambda: edm.target(sigma), lambda: edm.coefficients(1.0, 0.5),
            lambda: edm.coefficients(torch.tensor(1), 0.5),
            lambda: edm.scale_input("net", vp, 0.5), lambda: edm.grid(vp, 4, rho="seven"),
            lambda: edm.grid(vp, 2.5), lambda: edm.log_normal_times(vp, 4, std="wide"),
            lambda: edm.scale_input(lambda x, t: x, vp, 0.5)(torch.ones(1, 2), sigma / 2),
        ):
            try:
                call()
            except (TypeError, ValueError) as error:
                print(f"{type(error).__name__}: {error}")
        print(edm.target(2) == edm.target(2.0) == edm.target(torch.tensor(2)))
    """
    assert run_python(inspect.cleandoc(source)).splitlines() == [
        "ValueError: sigma_data must be finite and > 0, got 0",
        "TypeError: sigma_data is one number, got 'half'",
        "TypeError: sigma_data is one number, got True",
        "TypeError: sigma_data is one number, got shape (2,)",
        "TypeError: sigma must be a float tensor, got 1.0: use torch.as_tensor",
        "TypeError: sigma must be a float tensor, got tensor(1): use torch.as_tensor",
        "TypeError: a net is a function of (xt, t, label), got 'net'",
        "TypeError: rho is one number, got 'seven'",
        "ValueError: n must be a whole number of at least 1, got 2.5",
        "TypeError: std is one number, got 'wide'",
        "ValueError: 2 times were given for a batch of 1",  # else the sample becomes two
        "True",
    ]


EDM, ONE = paths.EDM(80.0), torch.ones(2, 1)
walk = lambda ts=(0.5, 0.1), path=EDM, **a: edm.stochastic(
    lambda x, t: 0.5 * x, path, ONE, torch.tensor(ts), **{"churn": 1.0, **a}
)


@pytest.mark.parametrize("call, match", [
    (lambda: edm.coefficients(torch.tensor([1.0, -2.0]), 0.5), "holds -2: a noise level is ≥ 0"),
    (lambda: edm.coefficients(torch.tensor(math.nan), 0.5), "holds nan"),
    (lambda: edm.log_normal_times(EDM, 0), "at least 1"),
    (lambda: edm.log_normal_times(EDM, 5, std=0.0), "std must be finite and > 0"),
    (lambda: edm.log_normal_times(EDM, 5, mean=math.nan), "a finite mean, got nan"),
    (lambda: edm.grid(EDM, 0), "at least 1"),
    (lambda: edm.grid(EDM, 4, rho=0.0), "rho must be finite and > 0"),
    (lambda: edm.grid(EDM, 4, 2.0, 1.0), "fall from sigma_max to sigma_min; got sigma_max 1, .* 2"),
    (lambda: edm.grid(EDM, 4, sigma_min=0.0), "sigma_min must be finite and > 0"),
    (lambda: edm.grid(EDM, 4, sigma_max=81.0), r"sigma = 81 is not on EDM.* to 80 \(t = 1\)"),
    (lambda: edm.grid(paths.VE(), 4), "above 0.01, where VE.* ends; got .* sigma_min 0.002"),
    (lambda: edm.grid(paths.VE(), 4, 0.01, 1.0), "above 0.01"),
    (lambda: walk(churn=-1.0), "churn ≥ 0 .* got churn -1.0"),
    (lambda: walk(churn=math.nan), "churn ≥ 0"),
    (lambda: walk(s_noise=0.0), "s_noise must be finite and > 0"),
    (lambda: walk(s_min=3.0, s_max=2.0), "got churn 1.0, s_min 3.0, s_max 2.0"),
    (lambda: walk(s_min=-1.0), "0 ≤ s_min"),
    (lambda: walk((0.1, 0.5)), "ts must decrease"),
    (lambda: walk((1.0, 0.5)), r"raises sigma = 80 at ts\[0\] = 1 to 113.1, but EDM.* = 80: start"),
    (lambda: walk((1.0, 0.5), paths.Linear()), "raises sigma = inf at .* below some s_max"),
])  # fmt: skip
def test_a_bad_call_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_level_that_is_not_raised_may_lie_at_the_end_of_the_path():
    for path in (EDM, paths.Linear()):
        assert len([*walk((1.0, 0.5, 0.0), path, s_max=0.5)]) == 2
