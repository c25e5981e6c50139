"""DDPM: textbook formulas at the knots, the bound against exact likelihoods, sampler moments."""

import math

import pytest
import torch
from cases import PATHS, line, mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from minigen import ddpm, guidance, nets, paths, targets
from minigen.ddpm import losses
from minigen.normal import Normal, kl, log_bins
from minigen.oracle import GaussianMixture

BETAS = ddpm.linear_betas()
PATH = paths.DDPM(BETAS)
ABAR = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - BETAS, 0)])
BETA_TILDE = (1 - ABAR[:-1]) / (1 - ABAR[1:]) * BETAS
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def knot(i: int, T: int = 1000) -> torch.Tensor:
    return torch.tensor(i / T, dtype=torch.float64)


def gaussian(mean: float, std: float) -> GaussianMixture:
    return GaussianMixture.isotropic(torch.tensor([[mean]], dtype=torch.float64), std)


# tables


def test_tables_have_their_papers_values():
    assert_close(BETAS[[0, -1]], torch.tensor([1e-4, 0.02], dtype=torch.float64))
    assert_close(BETAS.diff(), (0.0199 / 999) * torch.ones(999, dtype=torch.float64))
    root = ddpm.quadratic_betas(50).sqrt()
    assert_close(root.diff(), root.diff()[:1].expand(49), rtol=1e-10, atol=0)
    s = ddpm.sigmoid_betas(201)
    assert_close(s[100], torch.tensor((1e-4 + 0.02) / 2, dtype=torch.float64))
    assert_close(s + s.flip(0), torch.full_like(s, 1e-4 + 0.02))  # odd about its middle
    for table in (ddpm.linear_betas, ddpm.quadratic_betas, ddpm.sigmoid_betas, ddpm.cosine_betas):
        betas = table(17)
        assert betas.shape == (17,) and betas.dtype == torch.float64
        assert bool(((betas > 0) & (betas < 1)).all())
        assert bool((betas.diff() > 0).all())


def test_cosine_table_is_squared():
    # errata A14: with cos in place of cos², ᾱ_500 = 0.7027 and ᾱ_900 = 0.155
    abar = paths.DDPM(ddpm.cosine_betas()).alpha_bars
    assert abs(float(abar[500]) - 0.4938) < 5e-5
    assert abs(float(abar[900]) - 0.0241) < 5e-5
    assert float(ddpm.cosine_betas()[-1]) == 0.999


# the posterior


def brute_posterior(t: int, x0: float, xt: float) -> tuple[float, float]:
    """Mean and variance of q(x_{t−1} | xt, x0), its two factors multiplied on a grid."""
    x = torch.linspace(-6, 6, 400_001, dtype=torch.float64)
    log_p = -0.5 * (xt - (1 - BETAS[t - 1]).sqrt() * x) ** 2 / BETAS[t - 1]
    log_p -= 0.5 * (x - ABAR[t - 1].sqrt() * x0) ** 2 / (1 - ABAR[t - 1])
    p = torch.softmax(log_p, 0)
    mean = (p * x).sum()
    return float(mean), float((p * (x - mean) ** 2).sum())


@pytest.mark.parametrize("t", [10, 500, 990])
def test_posterior_is_the_product_of_gaussians(t):
    mean, var = brute_posterior(t, 1.3, -0.7)
    x0, xt = (torch.tensor([[x]], dtype=torch.float64) for x in (1.3, -0.7))
    q = ddpm.posterior(PATH, x0, xt, knot(t), knot(t - 1))
    assert abs(float(q.mean) - mean) < 1e-11 and abs(float(q.var) - var) < 1e-12
    if t == 500:
        assert abs(mean - -0.691884) < 1e-6 and abs(var - 0.0100314) < 1e-7


def test_posterior_at_the_knots_is_the_textbooks(double, device):
    x0, xt = torch.randn(2, 7, 3, dtype=double, device=device)
    for t in (2, 137, 500, 1000):
        b, a, abar, before = BETAS[t - 1], 1 - BETAS[t - 1], ABAR[t], ABAR[t - 1]
        mean = before.sqrt() * b / (1 - abar) * x0 + a.sqrt() * (1 - before) / (1 - abar) * xt
        q = ddpm.posterior(PATH, x0, xt, knot(t).to(device), knot(t - 1).to(device))
        assert_close(q.mean, mean, rtol=1e-11, atol=1e-11)
        assert_close(q.var.cpu(), BETA_TILDE[t - 1], rtol=1e-10, atol=0)
        beta = ddpm.forward_variance(PATH, knot(t), knot(t - 1))
        assert_close(beta, b, rtol=1e-10, atol=0)


@every_path
@settings(max_examples=20)
@given(t=st.floats(0.05, 1.0), share=st.floats(0.02, 0.98))
def test_posterior_keeps_the_marginal(path, t, share):
    # if x0 and xt are on the path, so is xs: k0 + k a_t = a_s and k² b_t² + β̃ = b_s²
    t = torch.tensor(t, dtype=torch.float64)
    s = t * share
    one = torch.ones(1, 1, dtype=torch.float64)
    k0 = ddpm.posterior(path, one, 0 * one, t, s).mean
    k = ddpm.posterior(path, 0 * one, one, t, s).mean
    assert_close((k0 + k * path.a(t)).squeeze(), path.a(s), rtol=1e-11, atol=1e-12)
    coefficients = paths.bridge(path, t, s)
    var = ddpm.posterior_variance(path, t, s)
    beta = ddpm.forward_variance(path, t, s)
    assert_close(
        torch.stack(coefficients), torch.stack([*(c.squeeze() for c in (k0, k)), beta, var])
    )
    # the step forward from s to t gives b_t² back from b_s²
    assert_close((k * path.b(t)).squeeze() ** 2 + var, path.b(s) ** 2, rtol=1e-9, atol=1e-14)
    ratio = (path.a(t) / path.a(s)) ** 2
    assert_close(
        ratio * path.b(s) ** 2 + ddpm.forward_variance(path, t, s),
        path.b(t) ** 2,
        rtol=1e-10,
        atol=0,
    )


def test_posterior_into_the_data_is_the_data(dtype, device):
    x0, xt = torch.randn(2, 4, 3, dtype=dtype, device=device)
    zero = torch.zeros((), dtype=dtype, device=device)
    q = ddpm.posterior(PATH, x0, xt, torch.full((4,), 0.3, dtype=dtype, device=device), zero)
    assert_close(q.mean, x0)
    assert bool((q.var == 0).all())


@pytest.mark.parametrize("std", [1e-4, 0.5, 1.0, 2.0])
def test_reverse_variance_of_gaussian_data(std):
    # Var(x_{t−1} | xt) = β̃ + k0² Var(x0 | xt) = V_{t−1} β / (α V_{t−1} + β)
    t, v = 300, std**2
    before = float(ABAR[t - 1] * v + 1 - ABAR[t - 1])
    exact = before * float(BETAS[t - 1]) / (float(1 - BETAS[t - 1]) * before + float(BETAS[t - 1]))
    k0 = ddpm.posterior(
        PATH, torch.ones(1, 1).double(), torch.zeros(1, 1).double(), knot(t), knot(t - 1)
    ).mean
    spread = gaussian(0.7, std).mmse(PATH, knot(t), 10)
    got = float(ddpm.posterior_variance(PATH, knot(t), knot(t - 1)) + k0**2 * spread)
    assert abs(got / exact - 1) < 1e-9
    if std == 2.0:
        assert abs(exact - 0.0060761) < 1e-7 < exact - float(BETAS[t - 1])  # above β: errata A33


def test_normal_is_torchs(generator, device, double):
    mean = torch.randn(5, 3, dtype=double, device=device)
    x = torch.randn_like(mean)
    for var in (torch.tensor(0.3), torch.rand(5) + 0.1, torch.rand(5, 3) + 0.1):
        var = var.to(mean)
        wide = var if var.ndim != 1 else var[:, None]
        truth = torch.distributions.Normal(mean, wide.sqrt().expand(5, 3)).log_prob(x).sum(1)
        assert_close(Normal(mean, var).log_prob(x), truth)
    many = Normal(mean[:1].expand(40_000, 3), torch.tensor(0.3).to(mean))
    z = (many.sample(generator=generator) - mean[:1]) / 0.3**0.5
    assert float(z.mean().abs()) < 4 / 120_000**0.5
    assert abs(float(z.var()) - 1) < 4 * (2 / 120_000) ** 0.5


# losses


def test_bound_weight_turns_the_simple_loss_into_the_term():
    # ‖μ̃ − μ_θ‖² / 2ς² = w ‖ε_θ − ε‖², and at the knots w = β² / (2 ς² α (1 − ᾱ))
    t = 400
    x0, eps, eps_hat = torch.randn(3, 6, 2, dtype=torch.float64)
    xt = PATH.mix(x0, eps, knot(t))
    guess, _ = targets.solve(targets.eps, PATH, eps_hat, xt, knot(t))
    mu, mu_hat = (ddpm.posterior(PATH, x, xt, knot(t), knot(t - 1)).mean for x in (x0, guess))
    for variance in (ddpm.forward_variance, ddpm.posterior_variance):
        w = ddpm.bound_weight(PATH, knot(t), knot(t - 1), variance)
        var = variance(PATH, knot(t), knot(t - 1))
        b, abar = BETAS[t - 1], ABAR[t]
        assert_close(w, b**2 / (2 * var * (1 - b) * (1 - abar)), rtol=1e-10, atol=0)
        loss = ddpm.simple_loss(lambda x, t, label: eps_hat, PATH, x0, knot(t), eps)
        assert_close(((mu - mu_hat) ** 2).sum(1) / (2 * var), w * 2 * loss, rtol=1e-9, atol=1e-12)


def test_simple_loss_of_a_zero_net_is_the_noise(device, dtype):
    x0, eps = torch.randn(2, 5, 1, 4, 4, dtype=dtype, device=device)
    t = torch.rand(5, dtype=dtype, device=device)
    loss = ddpm.simple_loss(lambda x, t, label: 0 * x, PATH, x0, t, eps)
    assert_close(loss, eps.square().mean((1, 2, 3)))


# the bound


def exact_quadrature(monkeypatch):
    """For Gaussian data every term is quadratic in (x0, z): ±1 in place of N(0, 1) is exact."""
    signs = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    monkeypatch.setattr(losses, "noise", lambda x, generator=None: signs)
    return torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)


@pytest.mark.long
def test_bound_of_the_exact_chain_on_a_standard_normal_is_its_nll(monkeypatch):
    x0 = exact_quadrature(monkeypatch)
    got = ddpm.bound(gaussian(0.0, 1.0).denoiser(PATH), PATH, x0, variance=ddpm.forward_variance)
    nll = 0.5 * math.log(2 * math.pi * math.e)
    assert abs(float(got.total) - nll) < 1e-10
    # errata A19: the three parts
    parts = [float(got.prior), float(got.steps.sum()), float(got.reconstruction)]
    assert_close(torch.tensor(parts), torch.tensor([2e-5, 4.605, -3.186]), rtol=2e-2, atol=6e-4)
    assert_close(got.total, got.prior + got.steps.sum() + got.reconstruction)
    assert abs(float(got.bits_per_dim) - nll / math.log(2)) < 1e-10
    assert got.steps.shape == (1000,) and got.steps[0] == 0 and bool((got.steps[1:] > 0).all())


@pytest.mark.parametrize("std, mean", [(0.5, 0.0), (2.0, -1.0)])
def test_bound_exceeds_nll_by_what_the_variances_lack(monkeypatch, std, mean):
    # with the true reverse variance (which knows std) the bound of Gaussian data is its NLL; the
    # two fixed choices cost more, for narrow data β more than β̃
    x0 = mean + std * exact_quadrature(monkeypatch)
    nll = 0.5 * math.log(2 * math.pi * math.e * std**2)

    def true_variance(path, t, s):
        vs = path.a(s) ** 2 * std**2 + path.b(s) ** 2
        alpha2 = (path.a(t) / path.a(s)) ** 2
        beta = ddpm.forward_variance(path, t, s)
        return vs * beta / (alpha2 * vs + beta)

    path = paths.DDPM(ddpm.linear_betas(60, 1e-3, 0.4))
    denoise = gaussian(mean, std).denoiser(path)

    def total(variance):
        return float(ddpm.bound(denoise, path, x0, variance=variance).total)

    # what is left is the prior: N(a_T x0, b_T²) is not quite N(0, 1)
    prior = float(ddpm.bound(denoise, path, x0).prior)
    assert 0 <= total(true_variance) - nll <= prior + 1e-9
    for variance in (ddpm.forward_variance, ddpm.posterior_variance):
        assert total(variance) > total(true_variance)


@pytest.mark.long
def test_bound_by_monte_carlo_has_the_stderr_it_says(generator):
    data = mixture()
    path = paths.DDPM(ddpm.linear_betas(50, 1e-3, 0.2))

    def draw():
        x0, _ = data.sample(500, generator=generator)
        variance = ddpm.forward_variance
        return ddpm.bound(data.denoiser(path), path, x0, variance=variance, generator=generator)

    draws = [draw() for _ in range(30)]
    totals = torch.stack([d.total for d in draws])
    said = torch.stack([d.stderr for d in draws]).mean()
    assert 0.6 < float(totals.std() / said) < 1.5
    entropy = -data.log_prob(data.sample(100_000, generator=generator)[0]).mean()
    assert float(totals.mean()) > float(entropy)  # a bound
    assert float(totals.mean()) < float(entropy) + 0.5


def test_bound_on_any_grid_and_path_reaches_the_entropy_with_more_steps(generator):
    data = line()
    x0, _ = data.sample(4000, generator=generator)
    entropy = -data.log_prob(x0).mean()
    gaps = []
    for n in (20, 200):
        ts = torch.linspace(1, 0, n + 1, dtype=torch.float64) ** 2
        got = ddpm.bound(data.denoiser(paths.Cosine()), paths.Cosine(), x0, ts=ts,
                         variance=ddpm.forward_variance, generator=generator)  # fmt: skip
        assert got.steps.shape == (n,)
        gaps.append(float(got.total - entropy))
    assert -4 * float(got.stderr) < gaps[1] < gaps[0] / 3


def test_bins_are_a_distribution_and_refine_to_a_density():
    p = Normal(torch.tensor([[0.13]], dtype=torch.float64), torch.tensor(0.04).double())
    for levels in (17, 256):
        x = torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
        p_all = Normal(p.mean.expand(levels, 1), p.var)
        got = log_bins(p_all, x, levels)
        assert abs(float(got.exp().sum()) - 1) < 1e-12
    middle = slice(100, 150)
    density = p_all.log_prob(x) + math.log(2 / 255)
    assert_close(got[middle], density[middle], rtol=1e-3, atol=1e-3)
    far = log_bins(Normal(-x, p.var / 1e4), x, 256)  # 100 σ away: no −∞
    assert bool(torch.isfinite(far).all())


def test_bound_takes_a_net_as_eps_and_a_callable_as_denoiser(generator):
    path = paths.DDPM(ddpm.linear_betas(30, 1e-3, 0.3))
    data = mixture()

    class Exact(nn.Module):
        def forward(self, xt, t, label=None):
            return data.eps(path)(xt, t)

    x0, _ = data.sample(300, generator=generator)
    state = generator.get_state()
    as_net = ddpm.bound(Exact(), path, x0, generator=generator)
    generator.set_state(state)
    as_denoiser = ddpm.bound(data.denoiser(path), path, x0, generator=generator)
    assert_close(as_net.steps, as_denoiser.steps, rtol=1e-8, atol=1e-8)


# learned variance


def test_interpolated_variance_runs_from_beta_tilde_to_beta():
    t, s = knot(300), knot(299)
    v = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)
    low, high = ddpm.posterior_variance(PATH, t, s), ddpm.forward_variance(PATH, t, s)
    got = ddpm.interpolated_variance(PATH, t, s, v)[0]
    assert_close(got, torch.stack([low, high, (low * high).sqrt()]))
    # errata A32: β̃_1 = 0 would make the logarithm −∞; β̃_2 stands in, log β̃_2 = −9.817
    first = ddpm.interpolated_variance(PATH, knot(1), knot(0), v)[0, 0]
    assert abs(float(first.log()) - -9.817) < 1e-3


class TwoOutputs(nn.Module):
    """Knows ε of point-mass-free Gaussian data, and one number u for the variance."""

    def __init__(self, data, path, u=0.0):
        super().__init__()
        self.data, self.path = data, path
        self.u = nn.Parameter(torch.tensor(u, dtype=torch.float64))

    def forward(self, xt, t, label=None):
        return torch.cat([self.data.eps(self.path)(xt, t), self.u.expand_as(xt)], 1)


def test_hybrid_loss_is_simple_plus_the_term_and_teaches_only_the_variance(generator):
    path, data = paths.DDPM(ddpm.linear_betas(40, 1e-3, 0.3)), mixture()
    net = TwoOutputs(data, path, 0.4)
    x0, _ = data.sample(2000, generator=generator)
    eps = torch.randn_like(x0)
    for i in (1, 2, 25):
        t, s = knot(i, 40), knot(i - 1, 40)
        simple = ddpm.simple_loss(lambda x, t, label: net(x, t).chunk(2, 1)[0], path, x0, t, eps)
        denoise, learned = ddpm.learned_variance(net, path)
        p = ddpm.reverse(denoise, path, path.mix(x0, eps, t), t, s, learned=learned)
        if i == 1:
            term = -p.log_prob(x0)
        else:
            q = ddpm.posterior(path, x0, path.mix(x0, eps, t), t, s)
            normal = torch.distributions.Normal
            q, p = normal(q.mean, q.var.sqrt()), normal(p.mean, p.var.sqrt())
            term = torch.distributions.kl_divergence(q, p).sum(1)
        loss = ddpm.hybrid_loss(net, path, x0, t.expand(2000), eps, weight=0.1)
        assert_close(loss, simple + 0.1 * 40 * term / 2, rtol=1e-9, atol=1e-9)
    h, steps = 1e-5, torch.arange(2000) % 40 + 1  # the first among them, whose term is another
    values = []
    for u in (0.4 + h, 0.4 - h, 0.4):
        net.u.data.fill_(u)
        loss = ddpm.hybrid_loss(net, path, x0, steps.double() / 40, eps, weight=0.1).mean()
        values.append(float(loss.detach()))
    (gradient,) = torch.autograd.grad(loss, net.u)
    assert abs(float(gradient) - (values[0] - values[1]) / (2 * h)) < 1e-6
    t = torch.rand(2000).double()
    with pytest.raises(ValueError, match="knots i/40"):
        ddpm.hybrid_loss(net, path, x0, t, eps)


def test_the_hybrid_losss_second_part_leaves_the_mean_alone():
    torch.manual_seed(0)
    path, net = paths.DDPM(ddpm.linear_betas(40, 1e-3, 0.3)), nets.MLP(2, hidden=8, out=2)
    torch.nn.init.normal_(net.last.weight)
    x0, eps, t = torch.randn(6, 2), torch.randn(6, 2), torch.arange(1, 7) / 40
    slopes = []
    for weight in (0.0, 1.0):
        loss = ddpm.hybrid_loss(net, path, x0, t, eps, weight=weight).mean()
        slopes.append(torch.autograd.grad(loss, net.last.weight)[0])
    assert_close(slopes[0][:2], slopes[1][:2])  # the rows that give ε
    assert float((slopes[0][2:] - slopes[1][2:]).abs().max()) > 1e-3  # and those of the variance


def test_a_step_that_goes_nowhere_or_up_is_named():
    t, s = torch.tensor([0.2, 0.5], dtype=torch.float64)
    for call in (ddpm.forward_variance, ddpm.posterior_variance, paths.bridge):
        for times in ((t, s), (t, t), (torch.stack([s, t]), torch.stack([t, s]))):
            with pytest.raises(ValueError, match="needs s < t"):
                call(paths.VP(), *times)


def test_a_bound_without_a_step_to_lend_its_variance_is_named():
    x0, one = torch.randn(4, 2), torch.tensor([1.0, 0.0])
    with pytest.raises(ValueError, match="no step is before it to lend its own"):
        ddpm.bound(lambda x, t: 0 * x, PATH, x0, ts=one)
    found = ddpm.bound(lambda x, t: 0 * x, PATH, x0, ts=one, variance=ddpm.forward_variance)
    assert bool(torch.isfinite(found.total))
    alone = ddpm.bound(lambda x, t: 0 * x, PATH, x0[:1])  # whose error cannot be told
    assert bool(torch.isfinite(alone.total)) and bool(alone.stderr.isnan())
    with pytest.raises(ValueError, match="grey levels"):
        ddpm.bound(lambda x, t: 0 * x, PATH, x0, levels=1)
    with pytest.raises(ValueError, match="has no knots"):
        ddpm.hybrid_loss(nets.MLP(2, out=2), paths.VP(), x0, torch.rand(4), x0)


def test_learned_variance_finds_the_true_one(generator):
    # for Gaussian data of std 1/2 the reverse variance lies between β̃ and β: gradient steps find it
    path, data = paths.DDPM(ddpm.linear_betas(10, 0.05, 0.5)), gaussian(1.0, 0.5)
    net, i = TwoOutputs(data, path), 5
    t, s = knot(i, 10), knot(i - 1, 10)
    x0, _ = data.sample(4000, generator=generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(80):
        eps = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        loss = ddpm.hybrid_loss(net, path, x0, t, eps, weight=1.0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vs = float(path.a(s) ** 2 * 0.25 + path.b(s) ** 2)
    beta = float(ddpm.forward_variance(path, t, s))
    alpha2 = float(path.a(t) / path.a(s)) ** 2
    exact = vs * beta / (alpha2 * vs + beta)
    denoise, learned = ddpm.learned_variance(net, path)
    got = float(ddpm.reverse(denoise, path, x0[:1], t, s, learned=learned).var.detach())
    assert abs(got / exact - 1) < 0.02  # a variance from 4,000 draws


def test_a_net_with_one_output_cannot_learn_a_variance():
    with pytest.raises(ValueError, match="out=2"):
        ddpm.learned_variance(nets.MLP(2), PATH)[0](torch.zeros(3, 2), torch.tensor(0.5))


# sampling


def variance_after(std: float, variance, ts) -> float:
    """The final variance of the chain on N(0, std²) from N(0, 1), by its linear recursion."""
    denoise = gaussian(0.0, std).denoiser(PATH)
    var, one = 1.0, torch.ones(1, 1, dtype=torch.float64)
    for i, (t, s) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        p = ddpm.reverse(denoise, PATH, one, t, s, variance=variance)
        var = float(p.mean) ** 2 * var + float(p.var) * (i < len(ts) - 2)
    return var


@pytest.mark.parametrize("variance", [ddpm.forward_variance, ddpm.posterior_variance])
@pytest.mark.parametrize("path_steps", [200, 20])
def test_ancestral_moments_follow_the_exact_recursion(variance, path_steps, generator):
    data, ts = gaussian(0.0, 0.5), torch.linspace(1, 0, path_steps + 1, dtype=torch.float64)
    n = 20_000
    xT = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    *_, x = ddpm.ancestral(
        data.denoiser(PATH), PATH, xT, ts, variance=variance, generator=generator
    )
    exact = variance_after(0.5, variance, ts)
    assert abs(float(x.var()) - exact) < 5 * exact * (2 / n) ** 0.5
    assert abs(float(x.mean())) < 5 * (exact / n) ** 0.5


@pytest.mark.long
def test_the_chain_on_a_standard_normal_ends_at_0_9999():
    # identities: ς² = β, no noise at t = 1
    ts = torch.linspace(1, 0, 1001, dtype=torch.float64)
    assert abs(variance_after(1.0, ddpm.forward_variance, ts) - 0.9999) < 1e-6


def test_ancestral_samples_the_mixture(double, device, generator):
    data, n = mixture(double, device), 20_000
    xT = torch.randn(n, 2, dtype=double, device=device, generator=generator)
    ts = torch.linspace(1, 0, 201)
    *_, x = ddpm.ancestral(data.denoiser(PATH), PATH, xT, ts, generator=generator)
    se = (data.cov().diagonal() / n).sqrt()
    assert bool(((x.mean(0) - data.mean()).abs() < 5 * se + 0.01).all())
    assert_close(torch.cov(x.T), data.cov(), rtol=0.04, atol=0.04)
    share = data.posterior(x).mean(0)
    assert_close(share, data.weights, rtol=0, atol=0.02)


def test_ancestral_yields_each_state_and_draws_no_last_noise(device, dtype):
    data, ts = mixture(dtype, device), torch.linspace(1, 0, 5)
    xT = torch.randn(3, 2, dtype=dtype, device=device)
    g = torch.Generator(device).manual_seed(5)
    states = [*ddpm.ancestral(data.denoiser(PATH), PATH, xT, ts, generator=g)]
    assert len(states) == 4 and all(x.shape == xT.shape and x.dtype == dtype for x in states)
    # by hand, with the same draws
    g.manual_seed(5)
    x = xT
    for i, (t, s) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        p = ddpm.reverse(data.denoiser(PATH), PATH, x, t.to(device), s.to(device))
        x = p.sample(generator=g) if i < 3 else p.mean
        assert_close(states[i], x, rtol=2e-4, atol=2e-4)
    assert not any(x.requires_grad for x in states)


def test_learned_ancestral_with_both_ends_is_the_fixed_chain(double):
    data, ts = mixture(), torch.linspace(1, 0, 20, dtype=torch.float64)
    xT = torch.randn(6, 2, dtype=double)
    for u, variance in ((-1.0, ddpm.posterior_variance), (1.0, ddpm.forward_variance)):
        denoise, learned = ddpm.learned_variance(TwoOutputs(data, PATH, u), PATH)
        g = [torch.Generator().manual_seed(1) for _ in range(2)]
        *_, a = ddpm.ancestral(denoise, PATH, xT, ts, learned=learned, generator=g[0])
        fixed = data.denoiser(PATH)
        *_, b = ddpm.ancestral(fixed, PATH, xT, ts, variance=variance, generator=g[1])
        assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_a_clipped_denoiser_keeps_the_learned_variance_and_one_pass_a_step():
    """At its own doing nothing, clipping changes nothing: neither the variance nor the cost."""
    data, ts, calls = mixture(), torch.linspace(1, 0, 9, dtype=torch.float64), []
    net = TwoOutputs(data, PATH, 0.3)
    net.register_forward_hook(lambda *_: calls.append(1))
    xT = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    denoise, learned = ddpm.learned_variance(net, PATH)
    ends = []
    for model in (denoise, guidance.clip(denoise, -1e9, 1e9)):
        g = torch.Generator().manual_seed(1)
        *_, x = ddpm.ancestral(model, PATH, xT, ts, learned=learned, generator=g)
        ends.append(x)
    assert torch.equal(*ends) and len(calls) == 2 * 8
    g = torch.Generator().manual_seed(1)
    *_, fixed = ddpm.ancestral(denoise, PATH, xT, ts, generator=g)
    assert float((fixed - ends[0]).abs().max()) > 1e-3
    t, s, x = torch.tensor(0.5).double(), torch.tensor(0.4).double(), xT.clone()
    denoise(x, t)
    first = learned(x, t, s)
    net.u.data += 0.5  # an update of the weights: what was kept is not used again
    assert float((learned(x, t, s) - first).detach().abs().max()) > 1e-3
    before = len(calls)
    bound = ddpm.bound(denoise, PATH, xT, ts=ts, learned=learned, generator=g)
    assert len(calls) == before + 8 and bool(torch.isfinite(bound.total))


def test_bad_input_is_refused_in_words():
    x, t = torch.zeros(3, 2), torch.tensor(0.5)
    with pytest.raises(ValueError, match="needs s < t"):
        ddpm.posterior(PATH, x, x, t, t)
    with pytest.raises(ValueError, match="must decrease"):
        next(ddpm.ancestral(lambda x, t: x, PATH, x, torch.linspace(0, 1, 4)))
    net = nets.MLP(2)
    with pytest.raises(TypeError, match="float64 but the net"):
        next(ddpm.ancestral(paths.denoiser(net, PATH, targets.eps), PATH, x.double(),
                            torch.linspace(1, 0, 4)))  # fmt: skip
    with pytest.raises(ValueError, match="NaN"):
        ddpm.bound(net, PATH, x / 0)
    with pytest.raises(ValueError, match="end at 0"):
        ddpm.bound(net, PATH, x, ts=torch.linspace(1, 0.1, 4))
    with pytest.raises(ValueError, match="no knots"):
        ddpm.bound(net, paths.VP(), x)
    with pytest.raises(ValueError, match="label 12 is out of range"):
        denoise = paths.denoiser(nets.MLP(2, classes=10), PATH, targets.eps, label=12)
        next(ddpm.ancestral(denoise, PATH, x, torch.linspace(1, 0, 4)))


def test_the_two_kls_differ_by_a_mutual_information():
    # identities: E KL(q(xs | xt, x0) ‖ p) − E KL(q(xs | xt) ‖ p) = I(xs; x0 | xt), whatever p is
    t, s, v = knot(500), knot(499), 0.25
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    k0 = float(ddpm.posterior(PATH, one, zero, t, s).mean)
    low, beta = (float(f(PATH, t, s)) for f in (ddpm.posterior_variance, ddpm.forward_variance))
    left = v * (1 - float(ABAR[500])) / (v * float(ABAR[500]) + 1 - float(ABAR[500]))  # Var(x0|xt)
    reverse = low + k0**2 * left
    information = 0.5 * math.log(reverse / low)
    assert abs(information - 1.14983e-4) < 1e-9
    low, beta, reverse = torch.tensor([low, beta, reverse], dtype=torch.float64)
    # E over x0 given xt of the squared distance of the means: k0² Var(x0 | xt)
    means = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * k0 * left**0.5
    for shift in (0.0, 0.3, -1.0):  # three models: the true mean plus a shift, variance β
        p = Normal(zero + shift, beta)
        wide = kl(Normal(means, low), Normal(p.mean.expand(2, 1), beta)).mean()
        narrow = kl(Normal(zero, reverse), p)
        assert abs(float(wide - narrow) - information) < 1e-12


def test_residual_of_the_best_predictor_is_orthogonal_to_it(generator):
    # E[(eps − ε*) ε*] = 0, within four standard errors
    data, n, t = line(), 200_000, torch.tensor(0.25, dtype=torch.float64)
    x0, _ = data.sample(n, generator=generator)
    eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    best = data.eps(PATH)(PATH.mix(x0, eps, t), t)
    product = (eps - best) * best
    assert abs(float(product.mean())) < 4 * float(product.std()) / n**0.5
    assert abs(float((eps * best).mean())) > 0.3  # which is far from 0 for eps itself


@pytest.mark.parametrize("i", [1, 2, 500, 999])
def test_a_step_of_float32_times_keeps_its_digits(i):
    """1 − SNR_t/SNR_s is a small difference, of coefficients that float32 knows to seven digits."""
    x0, xt = torch.randn(5, 2), torch.randn(5, 2)
    t, s = knot(i), knot(i - 1)
    exact = t.float().double(), s.float().double()
    want = ddpm.posterior(PATH, x0.double(), xt.double(), *exact)
    found = ddpm.posterior(PATH, x0, xt, t.float(), s.float())
    assert_close(found.mean.double(), want.mean, rtol=1e-5, atol=1e-6)
    assert_close(found.var.double(), want.var.double(), rtol=1e-6, atol=0)
    p = ddpm.reverse(
        lambda x, t: x0, PATH, xt, t.float(), s.float(), variance=ddpm.forward_variance
    )
    beta = ddpm.forward_variance(PATH, t.float().double(), s.float().double())
    assert p.var.dtype == torch.float32 and float(p.var) == pytest.approx(float(beta), rel=1e-6)


def test_a_learned_variance_is_that_of_its_state_time_and_label():
    torch.manual_seed(0)
    net = nets.MLP(2, hidden=8, classes=3, out=2)
    torch.nn.init.normal_(net.last.weight)
    x, y = torch.randn(2, 4, 2)
    t, u, s = torch.tensor([0.5, 0.7, 0.4])
    answers = {}
    for label in (0, 2):
        denoise, learned = ddpm.learned_variance(net, PATH, label)
        fresh = {(k, r): learned(z, when, s) for k, z in (("x", x), ("y", y))
                 for r, when in (("t", t), ("u", u))}  # fmt: skip
        for z, when, k in ((x, u, ("x", "u")), (y, t, ("y", "t"))):
            denoise(x, t)  # what it leaves behind is of x at t
            assert torch.equal(learned(z, when, s), fresh[k])
        answers[label] = fresh["x", "t"]
    assert not torch.equal(answers[0], answers[2])


def test_the_bound_knows_labels_and_keeps_no_graph():
    torch.manual_seed(0)
    net, x0, ts = nets.MLP(2, hidden=8, classes=3), torch.randn(4, 2), torch.linspace(1, 0, 6)
    torch.nn.init.normal_(net.last.weight)
    g = lambda: torch.Generator().manual_seed(0)
    found = [ddpm.bound(net, PATH, x0, ts=ts, label=k, generator=g()).total for k in (0, 2)]
    by_denoiser = paths.denoiser(net, PATH, targets.eps, 2)
    assert_close(found[1], ddpm.bound(by_denoiser, PATH, x0, ts=ts, generator=g()).total)
    assert found[0] != found[1] and not found[0].requires_grad
    two = nets.MLP(2, hidden=8, out=2)
    denoise, learned = ddpm.learned_variance(two, PATH)
    fixed = ddpm.bound(denoise, PATH, x0, ts=ts, generator=g()).total
    assert ddpm.bound(denoise, PATH, x0, ts=ts, learned=learned, generator=g()).total != fixed


def test_the_hybrid_loss_asks_with_the_label_on_the_knots():
    torch.manual_seed(0)
    path, net = (
        paths.DDPM(ddpm.linear_betas(40, 1e-3, 0.3)),
        nets.MLP(2, hidden=8, classes=3, out=2),
    )
    torch.nn.init.normal_(net.last.weight)
    x0, eps, t = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([5, 9, 20]) / 40
    a, b = (ddpm.hybrid_loss(net, path, x0, t, eps, torch.full((3,), k)) for k in (0, 2))
    assert not torch.equal(a, b)
    with pytest.raises(ValueError, match="knots i/40"):
        ddpm.hybrid_loss(net, path, x0, t + 0.3 / 40, eps)
