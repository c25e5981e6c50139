"""Solvers for few calls: the exact map, the same algorithms by others' formulas, their orders."""

import math

import pytest
import torch
from cases import PATHS, ends, line, mixture
from torch.testing import assert_close

from minigen import ddim, ddpm, flow, guidance, nets, oracle, paths, solvers, targets

pytestmark = pytest.mark.long

F64 = torch.float64
WALKS = {"2m": solvers.dpmpp_2m, "2s": solvers.dpmpp_2s, "taylor": solvers.taylor}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_walk = pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS.keys())
STARTS = torch.tensor([-1.6, -0.5, 0.2, 0.8, 1.9], dtype=F64)


def grid(*times):
    return torch.tensor(times, dtype=F64)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def counted(denoise):
    """The denoiser, and the list of the times at which it was asked."""
    asked = []

    def field(x, t):
        asked.append(float(t))
        return denoise(x, t)

    return field, asked


# ---- the same steps by others' formulas ---------------------------------------------------------


def by_sigma(denoise, path, xT, ts, middle=False):
    """2M, or 2S, in x/a and τ = −log σ, step by step, as in k-diffusion's coordinates."""
    z, old, states = xT / path.a(ts[0]), None, []
    for i in range(len(ts) - 1):
        sigma, after = path.sigma(ts[i]), path.sigma(ts[i + 1])
        ask = lambda z, t: denoise(path.a(t) * z, t)
        D = ask(z, ts[i])
        if after == 0:
            z = D
        else:
            tau, end = -torch.log(sigma), -torch.log(after)
            h = end - tau
            if middle:
                half = path.time(torch.exp(-(tau + 0.5 * h)))
                y = path.sigma(half) / sigma * z - torch.expm1(-0.5 * h) * D
                D = ask(y, half)
            elif i:
                r = (tau + torch.log(path.sigma(ts[i - 1]))) / h
                D, old = (1 + 1 / (2 * r)) * D - 1 / (2 * r) * old, D
            else:
                old = D
            z = after / sigma * z - torch.expm1(-h) * D
        states.append(path.a(ts[i + 1]) * z)
    return states


@every_path
@pytest.mark.parametrize("middle", [False, True], ids=["2m", "2s"])
def test_they_are_the_sigma_forms_on_the_same_levels(path, middle):
    walk, law = (solvers.dpmpp_2s if middle else solvers.dpmpp_2m), mixture()
    xT, ts = noise(5, 2), grid(0.95, 0.83, 0.6, 0.41, 0.2, 0.07, 0.0)
    got = [*walk(law.denoiser(path), path, xT, ts)]
    want = by_sigma(law.denoiser(path), path, xT, ts, middle)
    assert_close(torch.stack(got), torch.stack(want), rtol=1e-10, atol=1e-10)


def along(law, path, x, t, d):
    """dx̂0/dℓ along the exact flow on the line, by a central difference in t."""
    up, down = (
        law.denoiser(path)(oracle.flow_map_1d(law, path, x, t, s), s) for s in (t + d, t - d)
    )
    ell = 0.5 * (path.log_snr(t + d) - path.log_snr(t - d))
    return (up - down) / ell


@every_path
def test_taylors_step_has_the_slope_of_the_exact_flow(path):
    law, x, t, s = line(), STARTS[:, None], *grid(0.6013, 0.51)
    (got,) = solvers.taylor(law.denoiser(path), path, x, torch.stack([t, s]))
    (plain,) = ddim.sample(law.denoiser(path), path, x, torch.stack([t, s]))
    h = 0.5 * (path.log_snr(s) - path.log_snr(t))
    bend = path.a(s) * (h - 1 + torch.exp(-h))
    assert_close((got - plain) / bend, along(law, path, x, t, 1e-4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("target", [targets.eps, targets.x0, targets.v, targets.velocity])
@pytest.mark.parametrize("name", ["cosine", "vp", "ddpm-linear"])
def test_taylors_slope_goes_through_a_networks_readout(name, target):
    """p and q depend on t too: against central differences of the denoiser itself."""
    path, (t, s) = PATHS[name], grid(0.6013, 0.52)
    torch.manual_seed(2)
    net = nets.MLP(3, hidden=8, classes=4).double()
    torch.nn.init.normal_(net.last.weight, std=0.3)
    denoise, x = paths.denoiser(net, path, target, torch.tensor([0, 3, 1, 2, 2])), noise(5, 3)
    u, d = flow.velocity(denoise, path)(x, t).detach(), 1e-5
    up, down = (denoise(x + k * u, t + k).detach() for k in (d, -d))
    slope = (up - down) / (0.5 * (path.log_snr(t + d) - path.log_snr(t - d)))
    (got,) = solvers.taylor(denoise, path, x, torch.stack([t, s]))
    (plain,) = ddim.sample(denoise, path, x, torch.stack([t, s]))
    h = 0.5 * (path.log_snr(s) - path.log_snr(t))
    bend = path.a(s) * (h - 1 + torch.exp(-h))
    assert_close((got - plain) / bend, slope, rtol=1e-6, atol=1e-6)
    with torch.inference_mode():
        (there,) = solvers.taylor(denoise, path, x, torch.stack([t, s]))
    assert torch.equal(there, got)


# ---- what is exact ------------------------------------------------------------------------------


@every_path
@every_walk
def test_a_constant_guess_is_integrated_exactly(walk, path):
    """Whatever the grid, and DDIM's step with it."""
    c, xT, ts = noise(1, 2, seed=1) + 0.7, noise(5, 2), grid(1.0, 0.5, 0.2, 0.0)
    field = lambda x, t: c.expand_as(x)
    states = torch.stack([*walk(field, path, xT, ts)])
    a, b = path.a(ts)[:, None, None], path.b(ts)[:, None, None]
    eps = (xT - a[0] * c) / b[0]
    assert_close(states, (a * c + b * eps)[1:], rtol=1e-12, atol=1e-12)
    assert_close(states, torch.stack([*ddim.sample(field, path, xT, ts)]), rtol=1e-12, atol=1e-12)


@every_path
def test_a_guess_on_a_line_is_integrated_exactly_by_taylor(path):
    """x̂0 = c + ℓ e: x_s = keep x + b_s ∫ e^ℓ x̂0 dℓ, with ∫ e^ℓ ℓ = e^ℓ (ℓ − 1)."""
    c, e, xT, ts = noise(1, 2, seed=1), noise(1, 2, seed=2), noise(5, 2), grid(0.9, 0.5, 0.2, 0.1)
    ell = lambda t: torch.log(path.a(t) / path.b(t))
    field = lambda x, t: (c + ell(t) * e).expand_as(x)
    whole = lambda t: path.a(t) / path.b(t) * (c + (ell(t) - 1) * e)
    want = path.b(ts[-1]) * (xT / path.b(ts[0]) + whole(ts[-1]) - whole(ts[0]))
    assert_close(ends(solvers.taylor, field, path, xT, ts, order=2), want, rtol=1e-11, atol=1e-11)


@every_path
@every_walk
def test_where_no_line_goes_the_step_is_ddims(walk, path):
    law, xT = mixture(), noise(5, 2)
    for ts in (grid(0.6, 0.0), grid(1.0, 0.4)):
        from_infinity = path.a(ts[0]) == 0
        if path.b(ts[-1]) > 0 and not from_infinity and walk is not solvers.dpmpp_2m:
            continue  # 2M's first step is DDIM's from anywhere
        (got,), (want,) = ([*f(law.denoiser(path), path, xT, ts)] for f in (walk, ddim.sample))
        assert_close(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_2m_after_a_start_at_infinity(name):
    """The line through a value that lies infinitely far off is level: the second step is DDIM's."""
    path, law, xT, ts = PATHS[name], mixture(), noise(5, 2), grid(1.0, 0.8, 0.5, 0.3)
    got, plain = ([*f(law.denoiser(path), path, xT, ts)] for f in (solvers.dpmpp_2m, ddim.sample))
    assert_close(got[1], plain[1], rtol=1e-12, atol=1e-12)
    assert float((got[2] - plain[2]).abs().max()) > 1e-2


@every_walk
def test_what_a_step_costs(walk):
    """Linear path: from a = 0 and to b = 0 one call each; the jvp is one more pass, of its own."""
    field, asked = counted(mixture().denoiser(PATHS["linear"]))
    [*walk(field, PATHS["linear"], noise(5, 2), torch.linspace(1, 0, 7))]
    assert (
        len(asked)
        == {"2m": 6, "2s": 6 + 4, "taylor": 6 + 4}[next(n for n in WALKS if WALKS[n] is walk)]
    )
    assert min(asked) > 0


# ---- orders -------------------------------------------------------------------------------------


def test_the_orders_on_a_mixture_of_three():
    """σ from 10 to 0.02 in equal steps of log σ, N = 160 and 320, and the errors at 320."""
    path, s = paths.EDM(10.0), torch.full((3, 1), 0.25, dtype=F64)
    law = oracle.GaussianMixture(grid(0.3, 0.5, 0.2), grid(-1.0, 0.4, 1.2)[:, None], s)
    x = torch.linspace(-12, 12, 41, dtype=F64)[:, None]
    exact = oracle.flow_map_1d(law, path, x, *path.time(grid(10.0, 0.02)))
    table = {
        "ddim": (ddim.sample, 1.04, 1.3e-2),
        "heun": (flow.heun, 1.99, 7.9e-5),
        "2m": (solvers.dpmpp_2m, 1.98, 6.2e-5),
        "taylor": (solvers.taylor, 1.98, 3.0e-5),
    }
    for name, (walk, order, size) in table.items():
        errors = []
        for n in (160, 320):
            ts = path.time(torch.linspace(math.log(10), math.log(0.02), n + 1, dtype=F64).exp())
            y = ends(walk, law.denoiser(path), path, x, ts, order=order)
            errors.append(float((y - exact).abs().max()))
        assert abs(math.log2(errors[0] / errors[1]) - order) < 0.03, (name, errors)
        assert abs(errors[1] / size - 1) < 0.05, (name, errors)


def test_genies_derivative_and_the_errors_of_one_step():
    """x̄ = x/a, ρ = b/a, N(0, ¼): dx̄/dρ = ε, its total derivative; steps of .2 and .1 in ρ."""
    variance, rho = 0.25, grid(1.7)[0]
    law = oracle.GaussianMixture(
        *(grid(v).reshape(-1, *k) for v, k in ((1, ()), (0, (1,)), (0.5, (1,))))
    )
    path = paths.EDM(10.0)
    eps = lambda x, r: (x - law.denoiser(path)(x, r / 10)) / r
    x = 0.6 * (1 + rho**2).sqrt().reshape(1, 1)
    exact = lambda r: x * ((variance + r**2) / (variance + rho**2)).sqrt()
    first = eps(x, rho)
    total = torch.func.jvp(eps, (x, rho), (first, torch.ones_like(rho)))[1]
    d = 1e-5
    assert_close(first, (exact(rho + d) - exact(rho - d)) / (2 * d), rtol=0, atol=1e-9)
    assert_close(float(first), 0.640686, rtol=0, atol=1e-6)
    assert_close(float(total), 0.0300059, rtol=0, atol=1e-6)
    for h, by_ddim, by_genie in ((0.2, 6.7e-4, 7.3e-5), (0.1, 1.6e-4, 8.6e-6)):
        plain = x - h * first
        bent = plain + 0.5 * h * h * total
        (walked,) = ddim.sample(law.denoiser(path), path, x, torch.stack([rho, rho - h]) / 10)
        assert_close(walked, plain, rtol=0, atol=1e-12)
        for got, want in ((plain, by_ddim), (bent, by_genie)):
            assert_close(float((got - exact(rho - h)).abs()), want, rtol=0.03, atol=0)


def test_a_step_to_the_data_is_of_order_1():
    """Equal steps in t down to 0: what b = h leaves is the last step's, and falls as h or h²."""
    law, path, x = line(), PATHS["linear"], STARTS[:, None]
    whole, errors = oracle.flow_map_1d(law, path, x, *grid(0.9, 0.0)), []
    for n in (40, 80):
        ts = torch.linspace(0.9, 0, n + 1, dtype=F64)
        *_, before, y = solvers.dpmpp_2m(law.denoiser(path), path, x, ts)
        end = oracle.flow_map_1d(law, path, before, ts[-2], ts[-1])
        errors.append(float((y - end).abs().max()))  # of the last step alone
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.3  # b²: local order 2, as Euler's
    assert float((y - whole).abs().max()) < 5e-3


# ---- adaptive steps -----------------------------------------------------------------------------


@every_path
def test_adaptive_meets_its_tolerance_both_ways(path):
    law, x, (t, s) = line(), STARTS[:, None], grid(0.9, 0.1)
    exact = oracle.flow_map_1d(law, path, x, t, s)
    errors, costs = [], []
    for tol in (1e-3, 1e-6):
        field, asked = counted(law.denoiser(path))
        y, calls = solvers.adaptive(field, path, x, t, s, rtol=tol, atol=tol)
        assert calls == len(asked)
        back, _ = solvers.adaptive(law.denoiser(path), path, y, s, t, rtol=tol, atol=tol)
        errors.append(float((y - exact).abs().max()))
        costs.append(calls)
        assert float((back - x).abs().max()) < 1000 * tol
    assert errors[0] < 5e-2 and errors[1] < 1e-4 and costs[0] < costs[1]


def test_adaptive_from_noise_to_data_with_a_network():
    """a = 0 and b = 0 among its ends: a velocity says what to do at both."""
    law, path = mixture(), PATHS["linear"]
    exact = law.velocity(path)
    xT, (t, s) = noise(5, 2).reshape(5, 1, 2), grid(1.0, 0.0)
    net = paths.denoiser(
        lambda x, t, label: exact(x.flatten(1), t).reshape(x.shape), path, targets.velocity
    )
    x0, _ = solvers.adaptive(net, path, xT, t, s, rtol=1e-7, atol=1e-7)
    fine = ends(solvers.dpmpp_2m, net, path, xT, torch.linspace(1, 0, 501, dtype=F64), order=2)
    assert x0.shape == xT.shape
    assert_close(x0, fine, rtol=0, atol=2e-3)
    back, _ = solvers.adaptive(net, path, x0, s, t, rtol=1e-7, atol=1e-7)
    assert_close(back, xT, rtol=0, atol=1e-4)
    still, _ = solvers.adaptive(net, path, xT, t, t)
    assert_close(still, xT, rtol=1e-12, atol=1e-12)


def test_adaptive_in_float32_on_any_device(device):
    torch.manual_seed(0)
    net = nets.MLP(2, hidden=8).to(device)
    net.last.reset_parameters()
    denoise = paths.denoiser(net, PATHS["vp"], targets.eps)
    xT, before = torch.randn(3, 2).to(device), torch.get_rng_state()
    kept = xT.clone()
    x, calls = solvers.adaptive(denoise, PATHS["vp"], xT, torch.tensor(1.0), grid(0.0)[0])
    assert x.dtype == xT.dtype and x.device == xT.device and not x.requires_grad and calls > 8
    assert torch.equal(xT, kept) and torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rtol": 0.0}, "rtol ≥ 1e-13"),
        ({"rtol": -1e-3}, "rtol ≥ 1e-13"),
        ({"rtol": math.nan}, "rtol ≥ 1e-13"),
        ({"atol": -1e-9}, "atol ≥ 0"),
        ({"atol": math.inf}, "atol ≥ 0"),
        ({"xT": torch.ones(3, 2), "rtol": 1e-9, "atol": 1e-9}, "the rounding of torch.float32"),
        ({"t": grid(0.9, 0.8, 0.7)}, r"from one time to another, got t of \(3,\)"),
        ({"s": torch.tensor(1.2)}, r"t must lie in \[0, 1\]"),
        ({"s": grid(0.0)[0]}, "x0 does not determine v at t = 0, where .* b = 0"),
        ({"denoise": lambda x, t: x * math.nan}, "the denoiser at t = 0.9.* not finite"),
        ({"denoise": lambda x, t: x[:, :1]}, "for states .* the net or denoiser"),
        ({"xT": torch.ones(0, 2)}, "xT holds no samples"),
    ],
)
def test_bad_calls_of_adaptive_are_named(change, message):
    call = {
        "denoise": mixture().denoiser(PATHS["vp"]), "path": PATHS["vp"], "xT": noise(3, 2),
        "t": grid(0.9)[0], "s": grid(0.1)[0], "rtol": 1e-5, "atol": 1e-5,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        solvers.adaptive(**call)


def test_a_pole_on_the_way_has_no_step_that_is_small_enough():
    pole = lambda x, t: torch.ones_like(x) / (t - 0.5) ** 2
    with pytest.raises(ValueError, match="no step was small enough"):
        solvers.adaptive(pole, PATHS["vp"], noise(3, 2), *grid(0.9, 0.1))


@every_walk
def test_a_wrong_grid_or_path_is_named_at_the_call(walk):
    law, xT = mixture(), noise(3, 2)
    with pytest.raises(ValueError, match="must decrease from noise"):
        walk(law.denoiser(PATHS["vp"]), PATHS["vp"], xT, grid(0.1, 0.9))
    with pytest.raises(ValueError, match="xT holds no samples"):
        walk(law.denoiser(PATHS["vp"]), PATHS["vp"], xT[:0], grid(0.9, 0.1))
    net = paths.denoiser(nets.MLP(2, hidden=8).double(), PATHS["linear"], targets.eps)
    with pytest.raises(ValueError, match="eps does not determine x0 at t = 1"):
        walk(net, PATHS["linear"], xT, grid(1.0, 0.5))


def test_every_guidance_but_a_classifiers_has_a_derivative():
    law, path, xT, ts = mixture(), PATHS["vp"], noise(3, 2), grid(0.9, 0.5, 0.1)
    for field in (
        guidance.cfg(law.denoiser(path, 1), law.denoiser(path), 3.0),
        guidance.clip(law.denoiser(path), -1.0, 1.0),
    ):
        assert bool(torch.isfinite(ends(solvers.taylor, field, path, xT, ts, order=2)).all())
    toward = guidance.classifier(
        law.denoiser(path), path, lambda x, t: law.classifier(path)(x, t)[:, 1]
    )
    with pytest.raises(RuntimeError, match="functorch"):
        ends(solvers.taylor, toward, path, xT, ts, order=2)


def test_on_a_table_the_denoiser_and_its_slope_use_one_segment():
    """At the knots too: taylor on a chain's own times keeps its order, where Heun's is lost."""
    law, path, x = line(), paths.DDPM(ddpm.linear_betas(100)), STARTS[:, None]
    exact = oracle.flow_map_1d(law, path, x, *grid(0.9, 0.1))
    errors = {}
    for name, walk in (("taylor", solvers.taylor), ("heun", flow.heun)):
        for n in (40, 80):
            ts = torch.linspace(0.9, 0.1, n + 1, dtype=F64)
            y = ends(walk, law.denoiser(path), path, x, ts, order=2)
            errors.setdefault(name, []).append(float((y - exact).abs().max()))
    orders = {name: math.log2(e[0] / e[1]) for name, e in errors.items()}
    assert abs(orders["taylor"] - 2) < 0.3 and errors["heun"][1] > 5 * errors["taylor"][1], errors
