"""Score matching by quadrature with the exact scores, Langevin by its exact laws."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from cases import PATHS, line, mixture
from torch.testing import assert_close

from minigen import markov, nets, paths, score, targets
from minigen.oracle import GaussianMixture

F64 = torch.float64
LINE = torch.linspace(-12, 11, 3001, dtype=F64)[:, None]  # far beyond the mass of `line()`


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def blurred(data: GaussianMixture, sigma: float) -> GaussianMixture:
    """The law of x + sigma eps."""
    return GaussianMixture(data.weights, data.means, (data.stds**2 + sigma**2).sqrt())


def psi(x):
    """A score that is not the right one, with a slope that varies."""
    return -0.7 * x + 0.4 * torch.tanh(x) + 0.1


def bent(x):
    """A field in the plane that is no gradient: its Jacobian is not symmetric."""
    y, z = x.unbind(-1)
    return torch.stack([-0.7 * y + 0.4 * torch.tanh(z - y), torch.sin(y) - 0.2 * z + 0.3], -1)


def plane():
    """A grid over the mass of `mixture()`, and the weight of each point: p times its area."""
    y, z = torch.linspace(-9, 9, 301, dtype=F64), torch.linspace(-7, 7, 301, dtype=F64)
    x = torch.cartesian_prod(y, z)
    return x, mixture().log_prob(x).exp() * (y[1] - y[0]) * (z[1] - z[0])


def integral(p: GaussianMixture, f):
    """E f(x) over p on the line; the trapezium rule is exact to rounding for such functions."""
    return (p.log_prob(LINE).exp() * f).sum() * (LINE[1, 0] - LINE[0, 0])


def by_autograd(p: GaussianMixture):
    """∇ log p as a function that can be differentiated once more."""

    def exact(x):
        return torch.autograd.grad(p.log_prob(x).sum(), x, create_graph=True)[0]

    return exact


def fisher(p: GaussianMixture):
    """J = E ‖∇ log p‖²."""
    return 2 * integral(p, score.explicit_loss(p.score, torch.zeros_like, LINE))


def blurring_pairs(data: GaussianMixture):
    """Points x and draws eps with weights: E over data and N(0, 1) by two quadratures."""
    eps, w = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(80))
    x = LINE[::4]
    weight = data.log_prob(x).exp() * 4 * (LINE[1, 0] - LINE[0, 0])
    weight = weight[:, None] * w / math.sqrt(2 * math.pi)
    n = len(eps)
    return x.repeat_interleave(n, 0), eps.repeat(len(x))[:, None], weight.flatten()


def test_implicit_is_explicit_but_for_half_of_fishers_information():
    p = line()
    explicit = integral(p, score.explicit_loss(psi, p.score, LINE))
    implicit = integral(p, score.implicit_loss(psi, LINE).detach())
    assert_close(explicit - implicit, fisher(p) / 2, rtol=0, atol=1e-10)
    assert_close(fisher(p) / 2, torch.tensor(2.18511, dtype=F64), rtol=0, atol=5e-6)
    # at the true score nothing is left but −J/2: J = −E s′
    assert_close(
        integral(p, score.implicit_loss(by_autograd(p), LINE).detach()),
        -fisher(p) / 2,
        rtol=0,
        atol=1e-10,
    )


def test_the_same_in_the_plane():
    (x, weight), p = plane(), mixture()
    explicit = score.explicit_loss(bent, p.score, x) @ weight
    half = score.explicit_loss(p.score, torch.zeros_like, x) @ weight
    assert_close(explicit - score.implicit_loss(bent, x).detach() @ weight, half, rtol=0, atol=1e-9)


def test_explicit_loss_is_half_the_squared_distance():
    x = torch.randn(5, 1, 2, 3, dtype=F64)
    loss = score.explicit_loss(lambda x: x + 2, lambda x: x, x)
    assert_close(loss, torch.full((5,), 0.5 * 6 * 4, dtype=F64), rtol=1e-12, atol=0)


def net_with_shape(shape):
    torch.manual_seed(0)
    size = math.prod(shape)
    layers = torch.nn.Linear(size, 7), torch.nn.Tanh(), torch.nn.Linear(7, size)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Unflatten(1, shape)).double()


def test_the_trace_and_its_gradient_are_those_of_the_whole_jacobian():
    net, x = net_with_shape((1, 2, 2)), torch.randn(5, 1, 2, 2, dtype=F64)
    J = torch.func.vmap(torch.func.jacrev(lambda y: net(y[None])[0].flatten()))(x).reshape(5, 4, 4)
    whole = J.diagonal(dim1=1, dim2=2).sum(1) + 0.5 * net(x).square().flatten(1).sum(1)
    loss = score.implicit_loss(net, x)
    assert_close(loss, whole, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), [*net.parameters()][:3]) for y in (loss, whole)]
    assert_close(*slopes, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        assert_close(score.implicit_loss(net, x), whole, rtol=1e-12, atol=1e-12)
        assert not score.implicit_loss(net, x).requires_grad
        assert not score.sliced_loss(net, x).requires_grad
    assert not x.requires_grad


def sphere(x, *, generator):
    return torch.nn.functional.normalize(score.gaussian(x, generator=generator), dim=1)


def test_slices_have_the_trace_as_mean_and_the_known_variances(generator, double, device):
    n, d = 60_000, 5
    A = torch.randn(d, d, generator=torch.Generator().manual_seed(3), dtype=F64) - torch.eye(d)
    sym, A = 0.5 * (A + A.T), A.to(device, double)
    x = torch.zeros(n, d, dtype=double, device=device)  # where s = 0: the loss is vᵀAv alone
    square, diagonal = float(sym.square().sum()), float(sym.diagonal().square().sum())
    expected = {score.gaussian: 2 * square, score.rademacher: 2 * (square - diagonal)}
    for draw, variance in expected.items():
        for m in (1, 3):
            with torch.no_grad():
                q = score.sliced_loss(
                    lambda x: x @ A.T, x, directions=m, draw=draw, generator=generator
                )
            error = float(q.mean() - A.trace())
            assert abs(error) < 4 * math.sqrt(variance / m / n)
            spread = (q - q.mean()).square()
            assert abs(float(spread.mean()) - variance / m) < 4 * float(spread.std()) / n**0.5
    with torch.no_grad():
        q = score.sliced_loss(lambda x: x @ A.T, x, draw=sphere, generator=generator)
    assert abs(float(d * q.mean() - A.trace())) < 4 * d * float(q.std()) / n**0.5  # errata C9
    v = score.rademacher(x, generator=generator)
    assert bool((v.abs() == 1).all()) and float(v.mean().abs()) < 4 / (n * d) ** 0.5
    assert_close(v.T @ v / n, torch.eye(d).to(v), rtol=0, atol=5 / n**0.5)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch's own, at its first jvp
def test_a_slice_is_the_jacobian_along_its_direction_and_learns():
    net, x = net_with_shape((1, 2, 2)), torch.randn(5, 1, 2, 2, dtype=F64)
    g = [torch.Generator().manual_seed(1) for _ in range(2)]
    loss = score.sliced_loss(net, x, draw=score.gaussian, generator=g[0])
    v = torch.randn(x.shape, generator=g[1], dtype=F64)
    _, slope = torch.func.jvp(net, (x,), (v,))
    whole = (v * slope).flatten(1).sum(1) + 0.5 * net(x).square().flatten(1).sum(1)
    assert_close(loss, whole, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(y.sum(), [*net.parameters()][:3]) for y in (loss, whole)]
    assert_close(*slopes, rtol=1e-10, atol=1e-12)


def test_denoising_is_explicit_matching_to_the_blurred_density():
    # σ² DSM = σ² ½ E(ψ − s_σ)² + ½ (1 − σ² J_σ)
    sigma = torch.tensor(0.6, dtype=F64)
    p = blurred(line(), 0.6)
    x, eps, weight = blurring_pairs(line())
    loss = score.denoising_loss(lambda x, sigma: psi(x), x, sigma, eps) @ weight
    explicit = integral(p, score.explicit_loss(psi, p.score, LINE))
    expected = sigma**2 * explicit + 0.5 * (1 - sigma**2 * fisher(p))
    assert_close(loss, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sigma, floor", [(0.01, 0.4998), (0.1, 0.479), (1.0, 0.262), (5.0, 0.039)])
def test_ncsns_weight_leaves_a_floor_between_nothing_and_a_half(sigma, floor):
    p = blurred(line(), sigma)
    x, eps, weight = blurring_pairs(line())
    sigmas = torch.full((len(x),), sigma, dtype=F64)
    loss = float(score.denoising_loss(lambda x, s: p.score(x), x, sigmas, eps) @ weight)
    grid = LINE if sigma < 2 else 4 * LINE
    J = (p.log_prob(grid).exp() @ p.score(grid).square()).item() * float(grid[1] - grid[0])
    assert (
        abs(loss - 0.5 * (1 - sigma**2 * J)) < 1e-10 and round(loss, len(str(floor)) - 2) == floor
    )


def test_the_true_score_of_the_noisy_data_is_where_the_denoising_loss_rests():
    # errata C1: with the gradient in the clean variable the target has the other sign
    sigma, p = torch.tensor(0.5, dtype=F64), blurred(line(), 0.5)
    x, eps, weight = blurring_pairs(line())

    def in_the_clean_variable(field, x, sigma, eps):
        y = x + sigma * eps
        return 0.5 * (sigma * field(y, sigma) - (y - x) / sigma).square()[:, 0]

    for loss, sign in ((score.denoising_loss, 1), (in_the_clean_variable, -1)):
        for way in (torch.ones_like, torch.tanh, torch.cos):
            for tried in (1, -1):
                shift = torch.zeros((), dtype=F64, requires_grad=True)
                mean = (
                    loss(lambda y, s: tried * p.score(y) + shift * way(y), x, sigma, eps) @ weight  # noqa: B023
                )
                (slope,) = torch.autograd.grad(mean, shift)
                assert (abs(float(slope)) < 1e-10) == (tried == sign) or way is torch.ones_like


def test_denoising_loss_takes_each_samples_own_level(generator, double, device):
    # paired: L(ψ) − L(s_σ) = σ² explicit(ψ, s_σ) on average, at every level
    n, data = 20_000, mixture(double, device)
    x, _ = data.sample(n, generator=generator)
    sigma = torch.tensor([0.2, 0.7, 3.0], dtype=double, device=device)[torch.arange(n) % 3]
    eps = torch.randn(n, 2, dtype=double, device=device, generator=generator)
    path = paths.VE(1e-3, 10.0)
    t = torch.log(sigma / 1e-3) / math.log(1e4)
    exact = lambda x, s: data.at(path, torch.log(s / 1e-3) / math.log(1e4)).score(x)
    noisy = x + sigma[:, None] * eps
    gain = score.denoising_loss(lambda x, s: bent(x), x, sigma, eps)
    gain = gain - score.denoising_loss(exact, x, sigma, eps)
    apart = sigma**2 * score.explicit_loss(bent, data.at(path, t).score, noisy)
    for level in sigma.unique():
        d = (gain - apart)[sigma == level]
        assert abs(float(d.mean())) < 4 * float(d.std()) / len(d) ** 0.5
    # by hand, one image with its own σ
    net, image = net_with_shape((1, 2, 2)), torch.randn(3, 1, 2, 2, dtype=F64)
    eps, sigma = torch.randn_like(image), tensor(0.5, 2.0, 0.1)
    loss = score.denoising_loss(lambda x, s: net(x) / s.reshape(-1, 1, 1, 1), image, sigma, eps)
    row = net((image[1] + 2 * eps[1])[None])[0] + eps[1]
    assert_close(loss[1], 0.5 * row.square().sum(), rtol=1e-12, atol=0)


def test_entropy_grows_under_noise_by_half_of_fishers_information():
    # de Bruijn: dh/dt = ½ J_t, where t is the variance of the noise
    def entropy(t):
        p = blurred(line(), math.sqrt(t))
        return float(integral(p, -p.log_prob(LINE)))

    slope = (entropy(0.5001) - entropy(0.4999)) / 2e-4
    half = float(fisher(blurred(line(), math.sqrt(0.5)))) / 2
    assert abs(slope - half) < 1e-6 and abs(half - 0.464295) < 1e-6


def test_the_density_follows_the_heat_equation():
    # ∂p/∂t = ½ p″ = ½ p (s′ + s²), and s′ + ½ s² is the implicit loss at the true score
    x = torch.linspace(-3, 3, 7, dtype=F64)[:, None]

    def density(t):
        return blurred(line(), math.sqrt(t)).log_prob(x).exp()

    p = blurred(line(), math.sqrt(0.5))
    twice = score.implicit_loss(by_autograd(p), x).detach() + 0.5 * p.score(x).square()[:, 0]
    slope = (density(0.5 + 1e-4) - density(0.5 - 1e-4)) / 2e-4
    assert_close(slope, 0.5 * density(0.5) * twice, rtol=0, atol=1e-6)


def test_the_entropy_gradient_follows_from_a_learned_score(generator, double, device):
    # ∇_θ H = −E[s ∂g_θ/∂θ] = 1/σ for g = σ eps; here s = c x, c by implicit matching
    sigma, eps = 1.7, torch.randn(40_000, 1, dtype=double, device=device, generator=generator)
    x = sigma * eps
    c = torch.zeros((), dtype=double, device=device, requires_grad=True)
    (at_0,) = torch.autograd.grad(score.implicit_loss(lambda x: c * x, x).mean(), c)
    one = torch.ones_like(c, requires_grad=True)
    (at_1,) = torch.autograd.grad(score.implicit_loss(lambda x: one * x, x).mean(), one)
    learned = -at_0 / (at_1 - at_0)  # the loss is a parabola in c
    assert abs(float(-(learned * x * eps).mean()) - 1 / sigma) < 1e-12
    exact = (x / sigma**2 * eps)[:, 0]  # −s ∂g/∂σ with the true score
    assert abs(float(exact.mean()) - 1 / sigma) < 4 * float(exact.std()) / 200
    assert abs(float(learned) + 1 / sigma**2) < 4 * math.sqrt(2 / 40_000) / sigma**2


# Langevin dynamics ------------------------------------------------------------------------------


def sigma_points(mean, cov):
    """16 or 4 pairs (x, z) with exactly the moments of N(mean, cov) and N(0, I), uncorrelated."""
    root, d = torch.linalg.cholesky(cov), len(mean)
    corners = math.sqrt(d) * torch.cat([torch.eye(d), -torch.eye(d)]).to(cov)
    x, z = mean + corners @ root.T, corners
    return x.repeat_interleave(2 * d, 0), z.repeat(2 * d, 1)


def one_step(monkeypatch, target, step, x, z):
    monkeypatch.setattr(score, "noise", lambda x, generator=None: z[: len(x)])
    (y,) = score.langevin(target, x, step=step, n=1)
    return y, torch.cov(y.T, correction=0)


COV = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=F64)
MEAN = torch.tensor([0.7, -1.5], dtype=F64)


@pytest.mark.parametrize("step", [0.02, 0.1, 0.13])
def test_a_gaussian_keeps_its_mean_and_widens_as_the_formula_says(step, monkeypatch):
    inverse = torch.linalg.inv(COV)
    stationary = COV @ torch.linalg.inv(torch.eye(2, dtype=F64) - step / 2 * inverse)
    x, z = sigma_points(MEAN, 0.5 * (stationary + stationary.T))
    y, cov = one_step(monkeypatch, lambda x: -(x - MEAN) @ inverse, step, x, z)
    assert_close(y.mean(0), MEAN, rtol=0, atol=1e-12)
    assert_close(cov, stationary, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5, 1.5])
def test_variances_of_a_normal_follow_their_recursion_to_the_fixed_point(step, monkeypatch):
    # errata C3: drift h with noise variance 2h; the mixed conventions end at 0.526 or 2.05
    for variance, after in ((9.0, (1 - step) ** 2 * 9 + 2 * step), (1 / (1 - step / 2),) * 2):
        x, z = sigma_points(tensor(0.0), tensor([variance]))
        _, cov = one_step(monkeypatch, lambda x: -x, step, x, z)
        assert_close(cov, torch.tensor(after, dtype=F64), rtol=1e-12, atol=0)


def test_transient_and_stationary_variance_of_many_chains(generator, double, device):
    n = 40_000
    x = 3 * torch.randn(n, 1, dtype=double, device=device, generator=generator)
    states = list(score.langevin(lambda x: -x, x, step=0.3, n=4, generator=generator))
    expected = 9 * 0.7**8 + 0.6 * sum(0.7 ** (2 * j) for j in range(4))
    assert abs(float(states[-1].var()) - expected) < 4 * expected * math.sqrt(2 / n)
    *_, last = score.langevin(lambda x: -x, x, step=0.5, n=25, generator=generator)
    assert abs(float(last.var()) - 4 / 3) < 4 * 4 / 3 * math.sqrt(2 / n)


def test_the_step_is_stable_below_twice_the_least_variance():
    inverse = torch.linalg.inv(COV)
    bound = 2 * float(torch.linalg.eigvalsh(COV).min())
    for factor, stable in ((0.97, True), (1.03, False)):
        x = torch.full((3, 2), 5.0, dtype=F64)
        *_, x = score.langevin(lambda x: -x @ inverse, x, step=factor * bound, n=400)
        assert (float(x.abs().max()) < 100) == stable


def test_the_bias_on_a_mixture_is_of_first_order(monkeypatch):
    # the kernel on a grid: mean and std of a step are what it does with the noise 0 and 1
    p, x = line(), torch.linspace(-5.5, 4.5, 401, dtype=F64)[:, None]
    truth = float(p.cov())

    def bias(step):
        mean, _ = one_step(monkeypatch, p.score, step, x, torch.zeros_like(x))
        moved, _ = one_step(monkeypatch, p.score, step, x, torch.ones_like(x))
        P = torch.softmax(-0.5 * ((x.T - mean) / (moved - mean)) ** 2, 1)
        pi = markov.stationary(P)
        m = pi @ x[:, 0]
        return float(pi @ (x[:, 0] - m) ** 2) - truth

    found = [bias(h) for h in (0.02, 0.01, 0.005, 0.0025, 0.00125)]
    assert [round(b, 4) for b in found] == [0.0255, 0.0104, 0.0045, 0.0021, 0.0010]
    ratios = [found[i] / found[i + 1] for i in range(4)]
    assert [round(r, 2) for r in ratios] == [2.45, 2.29, 2.17, 2.09]  # towards 2


def test_the_ladder_falls_in_equal_ratios():
    ladder = score.sigmas(8.0, 0.05, 12)
    assert ladder.dtype == F64 and ladder.shape == (12,)
    assert_close(ladder[[0, -1]], tensor(8.0, 0.05), rtol=1e-14, atol=0)
    ratio = ladder[1:] / ladder[:-1]
    assert_close(ratio, torch.full((11,), (0.05 / 8) ** (1 / 11), dtype=F64), rtol=1e-13, atol=0)


def test_each_level_has_its_step_and_its_score(monkeypatch, dtype, device):
    ladder, x = tensor(3.0, 1.2, 0.5), torch.zeros(4, 2, 2, dtype=dtype, device=device)
    seen = []

    def constant(x, sigma):
        seen.append(sigma)
        return torch.ones_like(x) * sigma

    h = 0.01 * (ladder / 0.5) ** 2
    for z, move in ((0.0, h * ladder), (1.0, h * ladder + (2 * h).sqrt())):
        monkeypatch.setattr(score, "noise", lambda x, generator=None, z=z: torch.full_like(x, z))
        states = [x, *score.annealed_langevin(constant, x, ladder, step=0.01, n=2)]
        assert len(states) == 7 and states[-1].dtype == dtype and states[-1].device == x.device
        steps = torch.stack(states).double().cpu().diff(dim=0)[:, 0, 0, 0]
        assert_close(steps, move.repeat_interleave(2), rtol=1e-5, atol=1e-6)
    assert all(s.shape == () and s.dtype == dtype for s in seen)
    assert [round(float(s), 5) for s in seen] == [3.0, 3.0, 1.2, 1.2, 0.5, 0.5] * 2


FAR = GaussianMixture(tensor(0.2, 0.8), tensor([-6.0], [6.0]), tensor([0.05**0.5], [0.05**0.5]))


def far_from_truth(x):
    """W1 to FAR by sorted samples, and the share of the left mode, 0.2."""
    truth, _ = FAR.sample(len(x), generator=torch.Generator().manual_seed(4))
    return float((x.sort(0).values - truth.sort(0).values).abs().mean()), float(
        (x < 0).double().mean()
    )


@pytest.mark.long
def test_a_falling_ladder_finds_the_weights_of_far_modes_and_a_rising_one_does_not():
    generator = torch.Generator().manual_seed(1)
    ladder, n = score.sigmas(8.0, 0.05, 12), 1_500
    noisy = lambda x, sigma: blurred(FAR, float(sigma)).score(x)
    x = 8 * torch.randn(n, 1, dtype=F64, generator=generator)
    *_, down = score.annealed_langevin(noisy, x, ladder, step=1e-4, n=120, generator=generator)
    w1, left = far_from_truth(down)
    assert w1 < 0.9 and abs(left - 0.2) < 0.06, (w1, left)
    up = x
    for sigma in ladder.flip(0):
        h = 1e-4 * float(sigma / 0.05) ** 2
        one = lambda x, sigma=sigma: noisy(x, sigma)
        *_, up = score.langevin(one, up, step=h, n=120, generator=generator)
    assert far_from_truth(up)[0] > 3
    with pytest.raises(ValueError, match="the ladder must fall, large noise first"):
        score.annealed_langevin(noisy, x, ladder.flip(0), step=1e-4, n=120)


@pytest.mark.parametrize("level", [None, 0.7])
def test_walks_draw_what_they_are_given_and_leave_the_start_alone(level, generator, dtype, device):
    net = torch.nn.Linear(3, 3).to(device, dtype)
    x = torch.ones(4, 3, dtype=dtype, device=device)

    def walk(seed):
        g = torch.Generator(device).manual_seed(seed)
        if level is None:
            return score.langevin(net, x, step=0.1, n=3, generator=g)
        ladder = torch.tensor([level, 0.1])
        return score.annealed_langevin(lambda x, s: net(x), x, ladder, step=0.1, n=3, generator=g)

    a, b, c = (list(walk(seed)) for seed in (0, 0, 1))
    assert all(map(torch.equal, a, b)) and not torch.equal(a[0], c[0])
    assert bool((x == 1).all()) and not any(y.requires_grad for y in a)
    assert a[-1].dtype == dtype and len({y.data_ptr() for y in a}) == len(a)
    if device.type == "cpu":
        before = generator.get_state()
        lazy = score.langevin(net, x, step=0.1, n=3, generator=generator)
        assert torch.equal(generator.get_state(), before)  # nothing is drawn before the first step
        next(lazy)
        assert not torch.equal(generator.get_state(), before)


def test_a_step_costs_one_evaluation():
    calls = []

    def counted(x):
        calls.append(1)
        return -x

    assert len(list(score.langevin(counted, torch.ones(3, 2), step=0.1, n=5))) == len(calls) == 5


# The bridge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_a_denoiser_read_as_a_score_is_the_exact_score(path):
    data, x = (
        mixture(),
        2 * torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(2)),
    )
    times = tensor(0.05, 0.2, 0.45, 0.7, 0.9)
    read = score.from_denoiser(data.denoiser(path), path)
    for t in (*times, times):
        exact = data.at(path, t).score(x)
        assert_close(read(x, t), exact, rtol=1e-9, atol=1e-9)
        # s = −eps/b, and in the coordinates x/a that of p_σ, σ = b/a
        b, a = path.b(t).reshape(-1, 1), path.a(t).reshape(-1, 1)
        assert_close(read(x, t), -data.eps(path)(x, t) / b, rtol=1e-9, atol=1e-9)
        for i in range(5 if t.ndim else 0):
            p = blurred(data, float(path.sigma(t[i])))
            assert_close(a[i] * read(x, t)[i], p.score((x / a)[i : i + 1])[0], rtol=1e-9, atol=1e-9)


def test_a_net_that_predicts_the_noise_is_a_score(device):
    torch.manual_seed(0)
    net = nets.ResMLP((1, 4, 4), hidden=16).to(device)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x, t = torch.randn(3, 1, 4, 4, device=device), torch.tensor([0.3, 0.6, 0.9], device=device)
    for path in (paths.Cosine(), paths.VE()):
        read = score.from_denoiser(targets.denoiser(net, path, targets.eps), path)
        b = path.b(t).reshape(-1, 1, 1, 1)
        assert_close(read(x, t), -net(x, t) / b, rtol=1e-3, atol=1e-4)


LEVELS = tensor(0.5, 0.6, 0.7, 0.8)


@pytest.mark.parametrize(
    "loss",
    [
        lambda s, x: score.explicit_loss(s, torch.cos, x),
        lambda s, x: score.implicit_loss(s, x),
        lambda s, x: score.sliced_loss(s, x, generator=torch.Generator().manual_seed(0)),
        lambda s, x: score.denoising_loss(lambda x, sigma: s(x), x, LEVELS, 0.3 + 0 * x),
        lambda s, x: torch.stack(
            [*score.langevin(s, x, step=0.1, n=3, generator=torch.Generator().manual_seed(0))]
        ).reshape(3, -1),
    ],
)
def test_data_of_one_number_are_points_on_the_line(loss):
    x = tensor(-1.0, 0.4, 2.0, 0.7)
    assert_close(loss(psi, x), loss(psi, x[:, None]))


# What is refused --------------------------------------------------------------------------------

# Read once more without the shapes checked at run time, which would speak before the module does.
_spec = importlib.util.spec_from_file_location("plain_score", score.__file__)
plain = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plain)

X3 = torch.zeros(3, 2)
ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plain.explicit_loss(lambda x: x[:, :1], lambda x: x, X3), r"has that shape too"),
        (lambda: plain.explicit_loss(lambda x: x, lambda x: x.sum(1), X3), r"got \(3,\)"),
        (lambda: plain.explicit_loss(lambda x: None, lambda x: x, X3), "got NoneType"),
        (lambda: plain.implicit_loss(lambda x: x.detach(), X3), "no gradient leads from"),
        (lambda: plain.sliced_loss(lambda x: X3.clone().requires_grad_(), X3), "no gradient leads"),
        (
            lambda: plain.sliced_loss(lambda x: -x, X3, directions=0),
            "directions must be a whole number",
        ),
        (lambda: plain.sigmas(0.1, 1.0, 5), "a ladder falls"),
        (lambda: plain.sigmas(1.0, 0.0, 5), "sigma_min > 0"),
        (lambda: plain.sigmas(1.0, -0.1, 5), "sigma_min -0.1"),
        (lambda: plain.sigmas(1.0, 0.1, 1), "n 1"),
        (
            lambda: plain.langevin(lambda x: -x, X3, step=0.0, n=3),
            "step must be positive and finite, got 0",
        ),
        (lambda: plain.langevin(lambda x: -x, X3, step=math.nan, n=3), "finite, got nan"),
        (
            lambda: plain.langevin(lambda x: -x, X3, step=0.1, n=0),
            "n must be a whole number of at least 1, got 0",
        ),
        (lambda: plain.langevin(lambda x: -x, X3, step=0.1, n=2.5), "whole number"),
        (lambda: plain.langevin(lambda x: x.sum(1), X3, step=0.1, n=1), "has that shape too"),
    ],
)
def test_bad_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "ladder, message",
    [
        (torch.tensor([1.0, 1.0]), r"sigmas\[0\] = 1 is followed by sigmas\[1\] = 1"),
        (torch.tensor([1.0, 0.1, 0.5]), r"did you mean sigmas.flip\(0\)"),
        (torch.tensor([1.0, 0.0]), "every sigma must be positive"),
        (torch.tensor([1.0, -0.5]), "every sigma must be positive"),
        (torch.tensor([math.inf, 1.0]), "positive and finite"),
        (torch.tensor([]), r"must have shape \(N,\), got \(0,\)"),
        (torch.tensor([2, 1]), "must be a float tensor"),
    ],
)
def test_bad_ladders_are_refused_before_the_first_step(ladder, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plain.annealed_langevin(lambda x, s: -x, X3, ladder, step=0.1, n=2)


@pytest.mark.parametrize(
    "sigma, eps, message",
    [
        (torch.tensor(0.0), X3, "positive and finite, its least is 0"),
        (torch.tensor([1.0, -2.0, 1.0]), X3, "its least is -2"),
        (torch.tensor([1.0, 2.0]), X3, r"shape \(\) or \(3,\), got \(2,\)"),
        (1.0, X3, "must be a float tensor"),
        (ONE, torch.zeros(3, 1), "x and eps share one shape"),
        (ONE, torch.zeros(1, 2), "x and eps share one shape"),
        (ONE, X3.double(), "x and eps share one dtype"),
    ],
)
def test_bad_levels_are_refused(sigma, eps, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plain.denoising_loss(lambda x, s: -x, X3, sigma, eps)


def test_a_time_without_noise_has_no_score():
    path = paths.Linear()
    read = plain.from_denoiser(lambda x, t: x, path)
    for t in (torch.tensor(0.0), torch.tensor([0.5, 0.0, 0.5])):
        with pytest.raises(
            ValueError, match="x0 does not determine score at t = 0, where this path has b = 0"
        ):
            read(X3, t)


EVERY = [
    lambda s, x: plain.explicit_loss(s, s, x),
    lambda s, x: plain.implicit_loss(s, x),
    lambda s, x: plain.sliced_loss(s, x),
    lambda s, x: plain.denoising_loss(s, x, ONE, x),
    lambda s, x: plain.langevin(s, x, step=0.1, n=2),
]


@pytest.mark.parametrize("call", EVERY)
def test_data_that_are_no_batch_of_floats_are_named(call):
    minus = lambda x, sigma=None: -x
    with pytest.raises(ValueError, match="x holds no samples"):
        call(minus, X3[:0])
    for bad in (X3.long(), X3.numpy()):
        with pytest.raises(TypeError, match="x must be a float tensor"):
            call(minus, bad)
    net = torch.nn.Linear(2, 2)
    with pytest.raises(TypeError, match="the states are torch.float64 but the net"):
        call(net, X3.double())
    with pytest.raises(ValueError, match="has that shape too, got ndarray"):
        call(lambda x, sigma=None: x.detach().numpy(), X3)
