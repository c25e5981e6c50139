"""Paths and targets: the algebra holds on every path, for every target, dtype and shape."""

import hypothesis.strategies as st
import pytest
import torch
from cases import PATHS, TARGETS
from hypothesis import given, settings
from torch.testing import assert_close

from minigen import ddpm, nets, paths, shapes, targets

every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda f: f.__name__)
BASIC = [paths.Linear(), paths.Cosine(), paths.VP(), paths.DDPM(ddpm.linear_betas())]


@every_path
@every_target
@settings(max_examples=15)
@given(
    shape=st.sampled_from([(3, 2), (5, 1), (2, 3, 4), (4, 1, 8, 8)]),
    per_sample=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_solve_undoes_value(path, target, shape, per_sample, seed, dtype, device):
    g = torch.Generator(device).manual_seed(seed)
    draw = {"generator": g, "dtype": dtype, "device": device}
    x0, eps = 2 + 3 * torch.randn(shape, **draw), torch.randn(shape, **draw)
    t = 0.1 + 0.8 * torch.rand(shape[:1] if per_sample else (), **draw)
    xt, y = path.mix(x0, eps, t), targets.value(target, path, x0, eps, t)
    got_x0, got_eps = targets.solve(target, path, y, xt, t)
    # a backward-stable 2×2 solve loses the digits of its condition number, and no more
    p, q = paths.read(target, targets.x0, path, shapes.wide(t))
    r, s = paths.read(target, targets.eps, path, shapes.wide(t))
    size = xt.abs().amax() + y.abs().amax()
    tol = 40 * torch.finfo(dtype).eps
    for got, true, row in ((got_x0, x0, (p, q)), (got_eps, eps, (r, s))):
        condition = sum(float(c.abs().amax()) for c in row)
        assert_close(got, true, rtol=0, atol=tol * float(size) * (1 + condition))
    assert got_x0.dtype == dtype and got_x0.device.type == device.type


@every_path
@every_target
def test_targets_of_the_same_point_convert_into_each_other(path, target, double, device):
    x0 = torch.randn(3, 5, dtype=double, device=device) * 2 + 1
    eps, t = torch.randn_like(x0), torch.tensor([0.2, 0.5, 0.7], dtype=double, device=device)
    y = targets.value(targets.eps, path, x0, eps, t)
    got = targets.convert(targets.eps, target, path, y, path.mix(x0, eps, t), t)
    assert_close(got, targets.value(target, path, x0, eps, t), rtol=1e-9, atol=1e-9)


@every_path
def test_derivatives_are_slopes(path, double, device):
    # between the knots of a table; at a knot the rate jumps
    t = torch.tensor([0.11037, 0.4321, 0.50371, 0.8702], dtype=double, device=device)
    h = 1e-6
    assert_close(path.da(t), (path.a(t + h) - path.a(t - h)) / (2 * h), rtol=1e-6, atol=1e-7)
    assert_close(path.db(t), (path.b(t + h) - path.b(t - h)) / (2 * h), rtol=1e-6, atol=1e-7)
    assert_close(path.da(t[0]), path.da(t)[0])


@every_path
def test_slopes_written_by_hand_are_the_derived_ones(path, dtype, device):
    """At the ends and at knots too; they carry gradients."""
    t = torch.tensor([0.0, 0.2, 0.5037, 0.87, 1.0], dtype=dtype, device=device, requires_grad=True)
    tol = 1e-12 if dtype == torch.float64 else 3e-5
    plain = paths.GaussianPath
    assert_close(path.da(t), plain.da(path, t), rtol=tol, atol=tol)
    assert_close(path.db2(t), plain.db2(path, t), rtol=tol, atol=tol)
    if not isinstance(path, paths.Linear):
        assert path.da(t).requires_grad or not bool(path.da(t).any())


@every_path
@pytest.mark.parametrize("name", ["da", "db", "db2"])
def test_derivatives_are_the_same_in_inference_mode(path, name, dtype):
    """torch 2.6 alone would answer 0 there."""
    t = torch.linspace(0, 1, 7, dtype=dtype)
    want = getattr(path, name)(t)
    with torch.inference_mode():
        assert_close(getattr(path, name)(t), want, rtol=0, atol=0)
        inside = torch.linspace(0, 1, 7, dtype=dtype)
        assert_close(getattr(path, name)(inside), want, rtol=0, atol=0)


def test_derivatives_record_gradients_where_the_caller_does():
    t = torch.linspace(0.2, 0.8, 3, requires_grad=True)
    assert paths.VP().db(t).requires_grad
    with torch.no_grad():
        assert not paths.VP().db(t).requires_grad and not torch.is_grad_enabled()


def test_the_first_derivative_warns_of_nothing(run_python):
    """torch itself warns there of its own jit, which the caller can do nothing about."""
    run_python(
        "import torch, warnings; from minigen import paths; warnings.simplefilter('error')\n"
        "print(paths.Cosine().da(torch.zeros(3)))"
    )


@every_path
def test_ends_and_monotone_noise(path, dtype, device):
    t = torch.linspace(0, 1, 200, dtype=dtype, device=device)
    snr = path.log_snr(t)
    assert bool((snr.diff() < 0).all())
    assert_close(path.a(t[0]), torch.ones_like(t[0]))
    assert_close(path.sigma(t)[1:], torch.exp(-snr / 2)[1:], rtol=1e-5, atol=1e-6)
    if not isinstance(path, paths.VE):
        assert float(path.b(t[0])) == 0.0
        assert torch.signbit(path.b(t[0])).item() is False  # −0 would make log_snr NaN


@pytest.mark.parametrize("path", BASIC[1:], ids=str)
def test_variance_preserving_paths_preserve_variance(path, double):
    t = torch.linspace(0, 1, 101, dtype=double)
    assert_close(path.a(t) ** 2 + path.b(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14)


def test_v_is_the_derivative_along_the_angle():
    # on a VP path xt = cos φ x0 + sin φ eps, and v = dxt/dφ [Salimans & Ho 2022]
    t = torch.tensor(0.37, dtype=torch.float64)
    c, d = targets.velocity(paths.Cosine(), t)
    rate = torch.pi / 2  # dφ/dt of the cosine path
    assert_close(torch.stack(targets.v(paths.Cosine(), t)), torch.stack([c, d]) / rate)


def test_known_values():
    t = torch.tensor(0.3, dtype=torch.float64)
    assert_close(paths.VE().sigma(torch.ones_like(t)), 50.0 * torch.ones_like(t))
    assert_close(paths.VE().b(torch.zeros_like(t)), 0.01 * torch.ones_like(t))
    half = torch.full_like(t, 0.5)  # the noise of VE grows geometrically
    assert_close(paths.VE().b(half), torch.full_like(t, (0.01 * 50.0) ** 0.5))
    x = torch.ones(1, 2, dtype=torch.float64)
    assert_close(targets.value(targets.velocity, paths.Linear(), 3 * x, 5 * x, t), 2 * x)
    # ∫β of VP at t = 1 is (0.1 + 20)/2
    assert_close(paths.VP().a(torch.ones_like(t)), torch.exp(torch.tensor(-10.05 / 2).double()))
    for target in (targets.eps, targets.x0):  # the loss of predicting 0 is the target's mean square
        loss = targets.loss(
            lambda x, t, label: 0 * x, paths.Linear(), target, 2 * x, -2 * x, t[None]
        )
        assert_close(loss, torch.tensor([4.0], dtype=torch.float64))


def test_table_is_the_chain_at_its_knots_and_continuous_between(dtype, device):
    betas = ddpm.linear_betas()
    path = paths.DDPM(betas)
    i = torch.arange(1001, device=device)
    t = i.to(dtype) / 1000
    abar = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - betas, 0)]).to(device)
    tol = 1e-13 if dtype == torch.float64 else 3e-7
    assert_close(path.a(t), abar.sqrt().to(dtype), rtol=tol, atol=tol)
    assert_close(path.b(t), (1 - abar).sqrt().to(dtype), rtol=1e-4 * (tol > 1e-9), atol=50 * tol)
    assert_close(path.alpha_bars.to(device), abar, rtol=0, atol=1e-14)
    assert path.alpha_bars[0] == 1 and path.T == 1000 and path.alphas.shape == (1000,)
    # halfway between two knots log ᾱ is halfway
    mid = path.log_alpha_bar(torch.tensor(0.5005, dtype=torch.float64))
    assert_close(mid, abar[500:502].cpu().log().mean(), rtol=1e-12, atol=0)


def test_transitions_between_knots_compose():
    # one VP path: the step from s to t is the step s → m followed by m → t, at any m
    path = paths.DDPM(ddpm.cosine_betas(37))
    s, m, t = torch.tensor([0.21, 0.402, 0.77], dtype=torch.float64)
    beta = ddpm.forward_variance
    ratio = (path.a(t) / path.a(m)) ** 2
    assert_close(beta(path, t, s), ratio * beta(path, m, s) + beta(path, t, m), rtol=1e-12, atol=0)


class Unit(torch.nn.Module):
    """A net whose answer is its label."""

    def forward(self, xt, t, label=None):
        fill = 9.0 if label is None else label.to(xt.dtype)[:, None]
        return torch.zeros_like(xt) + fill


@every_target
def test_denoiser_reads_x0_and_its_grid_form_agrees(target, double, device):
    path, x0 = paths.VP(), torch.randn(7, 3, dtype=double, device=device) * 2 + 1
    eps, ts = torch.randn_like(x0), torch.tensor([0.9, 0.5, 0.2], dtype=double, device=device)

    def net(xt, t, label=None):  # knows the truth
        return targets.value(target, path, x0, eps, t)

    denoise = paths.denoiser(net, path, target)
    at, times = denoise.prepared(ts.cpu(), x0)
    for i, t in enumerate(ts):
        xt = path.mix(x0, eps, t)
        assert_close(denoise(xt, t), x0, rtol=1e-10, atol=1e-10)
        assert_close(at(xt, i), x0, rtol=1e-10, atol=1e-10)
        assert times[i] == t and times[i].device.type == device.type
    many = ts[[0, 1, 2, 0, 1, 2, 0]]
    assert_close(denoise(path.mix(x0, eps, many), many), x0, rtol=1e-10, atol=1e-10)
    plain, _ = paths.reading(lambda x, t: x * t, path, targets.x0).prepared(ts.cpu(), x0)
    assert_close(plain(x0, 1), 0.5 * x0)


def test_labels_are_bound_by_the_denoiser():
    x, t = torch.zeros(4, 2), torch.tensor(0.5)
    path = paths.Linear()
    assert_close(paths.denoiser(Unit(), path, targets.x0)(x, t), x + 9)
    assert_close(paths.denoiser(Unit(), path, targets.x0, label=3)(x, t), x + 3)
    labels = torch.arange(4)
    got = paths.denoiser(Unit(), path, targets.x0, labels)(x, t)
    assert_close(got, labels[:, None].float().expand(4, 2))


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan")])
@every_path
def test_times_outside_the_unit_interval_are_refused(path, bad):
    x, t = torch.zeros(2, 3), torch.tensor([0.5, bad])
    for use in (path.a, path.b, lambda t: path.mix(x, x, t)):
        with pytest.raises(ValueError, match=r"\[0, 1\].*0 = data"):
            use(t)


def test_errors_speak_the_users_language():
    x, path = torch.zeros(4, 2), paths.Linear()
    with pytest.raises(TypeError, match="float tensor"):
        shapes.check_time(0.5)
    with pytest.raises(TypeError, match="float tensor"):
        shapes.check_time(torch.tensor(3))
    with pytest.raises(ValueError, match=r"shape \(\) or \(B,\)"):
        shapes.check_time(torch.zeros(2, 1))
    for betas in ([0.1, 1.0], [0.0, 0.5], [], [0.1, float("nan")]):
        with pytest.raises(ValueError, match=r"entries in \(0, 1\)"):
            paths.DDPM(torch.tensor(betas))
    with pytest.raises(ValueError, match="3 labels were given for a batch of 4"):
        paths.denoiser(Unit(), path, targets.eps, torch.arange(3))(x, torch.tensor(0.5))
    with pytest.raises(TypeError, match=r"float64 but the net's parameters are torch.float32"):
        paths.denoiser(nets.MLP(2), path, targets.eps)(x.double(), torch.tensor(0.5))
    with pytest.raises(ValueError, match="eps does not determine x0 at t = 1"):
        paths.denoiser(Unit(), path, targets.eps).prepared(torch.tensor([1.0, 0.5]), x)
    with pytest.raises(TypeError, match="must define a"):
        paths.GaussianPath().a(torch.tensor(0.5))


@pytest.mark.parametrize(
    "ts, sentence",
    [
        (torch.linspace(0, 1, 5), "must decrease"),
        (torch.tensor([1.0, 0.5, 0.5, 0.0]), r"ts\[1\] = 0.5 is followed by ts\[2\] = 0.5"),
        (torch.tensor([1.2, 0.5]), r"all in \[0, 1\], got \[1\.2"),
        (torch.tensor([0.5, -0.1]), r"all in \[0, 1\], got \[0\.5"),
        (torch.tensor([1.0]), "at least two"),
        (torch.zeros(2, 2), r"must have shape \(N,\), got \(2, 2\)"),
        (torch.tensor([1.0, torch.nan, 0.0]), r"ts\[0\] = 1 is followed by ts\[1\] = nan"),
    ],
)
def test_grids_that_do_not_fall_are_refused(ts, sentence):
    with pytest.raises(ValueError, match=sentence):
        shapes.check_grid(ts)
    with pytest.raises(TypeError, match="must be a float tensor, got torch.int64"):
        shapes.check_grid(torch.tensor([1, 0]))


def test_like_and_noise(device, dtype, generator):
    x = torch.zeros(3, 2, 5, dtype=dtype, device=device)
    coef = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float32, device=device)
    assert_close(shapes.like(coef, x + 1)[:, 0, 0], coef.to(dtype))
    assert shapes.like(coef[0], x).shape == () and shapes.like(coef, x).shape == (3, 1, 1)
    z = shapes.noise(torch.zeros(20_000, dtype=dtype, device=device), generator=generator)
    assert z.dtype == dtype and abs(float(z.mean())) < 4 / 20_000**0.5
    if device.type != "cpu":
        with pytest.raises(ValueError, match="generator is on cpu"):
            shapes.noise(x, generator=torch.Generator())


def test_wide_is_float64_but_on_mps(device):
    expected = torch.float32 if device.type == "mps" else torch.float64
    assert shapes.wide(torch.zeros(2, device=device)).dtype == expected


def test_what_is_read_as_itself_is_left_as_it_is():
    """src = dst is p = 0 and q = 1, also where det = 0; a multiple needs no xt either."""
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for path in (paths.Linear(), paths.VP()):
        for target in TARGETS:
            for t in (zero, one, one / 3):
                assert [float(k) for k in paths.read(target, target, path, t)] == [0, 1]
    assert paths.check_target(targets.eps) is None
    p, q = paths.read(targets.eps, targets.score, paths.Linear(), one)  # a = 0, so det = 0
    assert (float(p), float(q)) == (0, -1)
    p, q = paths.read(targets.velocity, targets.v, paths.Cosine(), one / 3)
    assert_close(torch.stack([p, q]), torch.tensor([0, 2 / torch.pi], dtype=torch.float64))
    x, net = torch.randn(4, 2), lambda xt, t, label: 3 * xt
    assert torch.equal(paths.denoiser(net, paths.VP(), targets.x0)(x, torch.zeros(())), 3 * x)
    u = paths.reading(
        paths.denoiser(net, paths.VP(), targets.velocity), paths.VP(), targets.velocity
    )
    assert torch.equal(u(x, torch.zeros(())), 3 * x)


@pytest.mark.parametrize("target", TARGETS, ids=lambda f: f.__name__)
def test_a_float32_velocity_comes_back_as_it_was(target):
    """Read as x0 and then as itself again it was off by 5e-3 at t = 1e-4."""
    path, t, x = paths.Linear(), torch.tensor(1e-4), torch.randn(6, 2)
    net = lambda xt, t, label: torch.sin(3 * xt)
    assert torch.equal(
        paths.reading(paths.denoiser(net, path, target), path, target)(x, t), net(x, t, None)
    )


def test_the_slope_of_the_squared_noise_is_finite_where_b_starts_as_a_root():
    zero = torch.zeros((), dtype=torch.float64)
    assert paths.VP().db(zero) == torch.inf
    assert_close(paths.VP(0.3, 20.0).db2(zero), torch.tensor(0.3, dtype=torch.float64))
    for path in PATHS.values():
        t = torch.tensor([0.11037, 0.50371], dtype=torch.float64)
        assert_close(path.db2(t), 2 * path.b(t) * path.db(t), rtol=1e-12, atol=0)
        assert_close(path.b2(t), path.b(t) ** 2, rtol=1e-12, atol=0)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_coefficient_has_the_dtype_of_its_time(path, dtype):
    for t in (torch.tensor(0.3, dtype=dtype), torch.tensor([0.3, 0.4], dtype=dtype)):
        for f in (path.a, path.b, path.da, path.db, path.b2, path.db2):
            assert f(t).dtype == dtype and f(t).shape == t.shape


def test_plausible_slips_are_named(run_python):
    """In a fresh interpreter, as users meet them."""
    said = run_python(
        "import torch; from minigen import nets, paths, shapes, targets\n"
        "x, t, path = torch.randn(4, 2), torch.tensor(0.5), paths.Linear()\n"
        "net, eps = nets.MLP(2, hidden=8, classes=3), targets.eps\n"
        "one, two = (paths.denoiser(net, path, eps, k)(x, t) for k in (2, torch.tensor(2)))\n"
        "print(torch.equal(one, two))\n"
        "narrow = lambda xt, t, label: xt[:, :1]\n"
        "for call in (lambda: paths.denoiser(net, path, eps, 'cat'),\n"
        "    lambda: paths.denoiser(net, path, eps, torch.rand(4)),\n"
        "    lambda: paths.denoiser(net, path, 'eps'),\n"
        "    lambda: targets.loss(net, path, 'x0', x, x, t),\n"
        "    lambda: targets.loss(narrow, path, eps, x, x, t),\n"
        "    lambda: targets.loss(net, path, eps, x, x[:1], t),\n"
        "    lambda: path.mix(x, x, torch.rand(3)), lambda: path.mix(x[:0], x[:0], t),\n"
        "    lambda: paths.denoiser(net, path, eps)(x, torch.rand(3)),\n"
        "    lambda: shapes.like(0.5, x)):\n"
        "    try: print('nothing', call())\n"
        "    except (ValueError, TypeError) as error: print(error)"
    ).splitlines()
    assert said[0] == "True"
    assert all("label must be an int or an int64 tensor" in line for line in said[1:3])
    assert all("a target is a function, such as targets.eps, not '" in x for x in said[3:5])
    assert "for states (4, 2) the net or denoiser gave (4, 1)" in said[5]
    assert "x0 and eps are pairs and share one shape" in said[6]
    assert "3 times were given for a batch of 4" in said[7] and "no samples" in said[8]
    assert "3 times were given for a batch of 4" in said[9]
    assert "a coefficient is a tensor, as t is, not 0.5" in said[10]


@every_target
def test_a_prepared_grid_is_the_call_for_every_quantity(target):
    path, x = paths.VP(), torch.randn(4, 2, dtype=torch.float64)
    ts = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    for dst in TARGETS:
        read = paths.reading(paths.denoiser(lambda x, t, label: x * t, path, target), path, dst)
        at, _ = read.prepared(ts, x)
        for i, t in enumerate(ts):
            assert_close(at(x, i), read(x, t), rtol=1e-12, atol=1e-12)


def test_the_noise_of_a_root_keeps_its_digits_near_the_data():
    t = torch.tensor(1e-14, dtype=torch.float64)
    assert_close(paths.VP().b2(t), 0.1 * t, rtol=1e-10, atol=0)
    assert_close(paths.VP().b(t), (0.1 * t).sqrt(), rtol=1e-10, atol=0)
    assert paths.Linear().b(t) is not t  # nobody's time is changed in place


@every_path
def test_time_undoes_sigma(path, dtype, device):
    """The closed forms, and the bisection of a path that has none."""
    t = torch.tensor([0.011, 0.3037, 0.5, 0.871, 1.0], dtype=dtype, device=device)
    sigma = path.sigma(t)
    tol = 1e-12 if dtype == torch.float64 else 1e-5
    by_bisection = paths.GaussianPath._time(path, shapes.wide(sigma)).to(dtype)
    assert path.time(sigma).dtype == dtype and path.time(sigma[1]).shape == ()
    # near t = 1 a few paths hardly move their sigma's digits, or move them by all there are
    assert_close(path.time(sigma), t, rtol=tol * 100, atol=tol * 100)
    assert_close(path.time(sigma), by_bisection, rtol=tol * 100, atol=tol * 100)
    assert_close(path.sigma(path.time(sigma[:4])), sigma[:4], rtol=tol * 10, atol=0)
    ends = torch.tensor([0.0, 1.0], dtype=dtype, device=device)
    by_bisection = paths.GaussianPath._time(path, path.sigma(shapes.wide(ends)))
    assert torch.equal(by_bisection, shapes.wide(ends))
    if float(path.b(ends[0])) == 0:  # where a sampler's last step must know that it has arrived
        assert float(path.time(torch.zeros_like(ends[0]))) == 0


@every_path
def test_a_level_that_the_path_does_not_reach_is_named(path):
    for bad in (float("nan"), -0.1, 1e30 if float(path.a(torch.ones(()).double())) else -1.0):
        with pytest.raises(ValueError, match=r"sigma = .* is not on .*, whose sigma runs from"):
            path.time(torch.tensor([float(path.sigma(torch.tensor(0.5).double())), bad]))
    with pytest.raises(ValueError, match="sigma = 0.005 is not on VE"):
        paths.VE().time(torch.tensor(0.005))


def test_sub_vp_is_quieter_than_vp_and_ends_alike(double):
    t = torch.linspace(0, 1, 11, dtype=double)
    vp, sub = paths.VP(), paths.SubVP()
    assert torch.equal(vp.a(t), sub.a(t)) and vp != sub
    assert_close(sub.b(t), vp.b2(t), rtol=1e-15, atol=0)
    assert bool((sub.b(t)[1:-1] < vp.b(t)[1:-1]).all())
    assert_close(sub.b(t[-1]), vp.b(t[-1]), rtol=1e-4, atol=0)
