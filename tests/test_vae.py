"""The VAE: bounds against the linear-Gaussian model's exact evidence, posterior and optimum."""

import math

import pytest
import torch
from torch import distributions as dist
from torch.testing import assert_close

from minigen import vae
from minigen.vae import bounds
from minigen.vae.linear_gaussian import LinearGaussian

double = {"dtype": torch.float64}


def draws(*shape, seed=0, device="cpu", dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, **double).to(device, dtype)


def linear(D=4, k=2, device="cpu", dtype=torch.float64) -> LinearGaussian:
    return LinearGaussian(draws(D, k).to(device, dtype), 1 + draws(D).to(device, dtype), 0.6)


def upright(D=5, k=2, device="cpu", dtype=torch.float64) -> LinearGaussian:
    """Its W has orthogonal columns of different lengths, so its posterior is diagonal."""
    W = torch.linalg.qr(draws(D, k)).Q * torch.linspace(0.7, 1.9, k, **double)
    return LinearGaussian(W.to(device, dtype), 1 + draws(D).to(device, dtype), 0.6)


def unit() -> LinearGaussian:
    """x | z ~ N(z, 1): log p(0.8) = −1.42551, posterior N(0.4, 0.5)."""
    one = torch.ones(1, 1, **double)
    return LinearGaussian(one, torch.zeros(1, **double), 1.0)


def as_vae(model: LinearGaussian, encoder=None) -> vae.VAE:
    """The model's decoder, with the exact posterior as encoder unless another is given."""

    def exact(x):
        q = model.posterior(x)
        return torch.cat([q.mean, q.variance.log()], 1)

    noise = vae.Gaussian().to(model.W).requires_grad_(False)
    noise.log_var.copy_(2 * model.sigma.log())  # after .to: all digits of float64
    decoder = lambda z: z @ model.W.T + model.b
    return vae.VAE(encoder or exact, decoder, noise)


def constant(mean, log_var):
    """An encoder that answers every x with one q, each argument (k,)."""
    return lambda x: torch.cat([mean, log_var]).expand(len(x), -1)


def cubature(monkeypatch, k):
    """The 2k draws ±√k e_j have mean 0 and covariance I: averages of quadratics are exact."""
    points = math.sqrt(k) * torch.cat([torch.eye(k, **double), -torch.eye(k, **double)])
    full = lambda z, generator=None: points[:, None].expand(z.shape).to(z)
    monkeypatch.setattr(bounds, "noise", full)
    return 2 * k


def covariances(n, k):
    root = 0.5 * draws(n, k, k, seed=3)
    return root @ root.mT + 0.1 * torch.eye(k, **double)


# The exact model --------------------------------------------------------------------------------


def test_the_evidence_and_posterior_obey_bayes_rule():
    model, x, z = linear(), 2 * draws(5, 4, seed=1), draws(5, 2, seed=2)
    likelihood = dist.Normal(z @ model.W.T + model.b, 0.6).log_prob(x).sum(1)
    prior = dist.Normal(0.0, 1.0).log_prob(z).sum(1)
    evidence = likelihood + prior - model.posterior(x).log_prob(z)  # for every z
    assert_close(model.log_prob(x), evidence, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("D, k", [(1, 1), (4, 2), (7, 3)])
def test_the_elbo_is_the_evidence_at_the_exact_posterior(D, k, device, double):
    model = linear(D, k, device, double)
    x = 2 * draws(5, D, seed=1, device=device)
    q = model.posterior(x)
    gap = model.log_prob(x) - model.elbo(x, q.mean, q.covariance_matrix)
    assert float(gap.abs().max()) < 1e-12
    shared = model.elbo(x, q.mean, q.covariance_matrix[0])  # one covariance for all
    assert_close(shared, model.log_prob(x), rtol=1e-12, atol=1e-12)


def test_the_gap_is_the_kl_to_the_posterior_for_every_q():
    model, x = linear(4, 3), 2 * draws(5, 4, seed=1)
    mean, cov = draws(5, 3, seed=2), covariances(5, 3)
    q = dist.MultivariateNormal(mean, cov)
    gap = model.log_prob(x) - model.elbo(x, mean, cov)
    assert_close(gap, dist.kl_divergence(q, model.posterior(x)), rtol=1e-12, atol=1e-12)
    assert bool((gap > 0.01).all())


@pytest.mark.parametrize("k", [1, 2, 5])
def test_pca_reaches_the_greatest_likelihood(k):
    D, n = 6, 50
    x = 3 + draws(n, D, seed=4) @ draws(D, D, seed=5)
    model = LinearGaussian.fit(x.reshape(n, 2, 3), k)
    value = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    least = value[k:].mean()
    best = math.log(2 * math.pi) * D + value[:k].log().sum() + (D - k) * least.log() + D
    assert_close(model.log_prob(x).mean(), -0.5 * best, rtol=1e-12, atol=1e-12)
    for seed in range(5):  # and no neighbour has more
        W, b = (p + 0.01 * draws(*p.shape, seed=seed) for p in (model.W, model.b))
        for other in ((W, model.b, model.sigma), (model.W, b, model.sigma)):
            assert LinearGaussian(*other).log_prob(x).mean() < -0.5 * best
    for factor in (0.99, 1.01):
        other = LinearGaussian(model.W, model.b, factor * model.sigma)
        assert other.log_prob(x).mean() < -0.5 * best


def test_pca_and_its_draws_keep_dtype_and_device(dtype, device, generator):
    x = 1 + draws(400, 4, device=device, dtype=dtype) @ draws(4, 4, device=device, dtype=dtype)
    model = LinearGaussian.fit(x, 2)
    y = model.sample(20_000, generator=generator)
    assert y.dtype == dtype and y.device == x.device and y.shape == (20_000, 4)
    cov = model.W @ model.W.T + model.sigma**2 * torch.eye(4, dtype=dtype, device=device)
    error = (cov.diagonal().outer(cov.diagonal()) + cov**2).div(len(y)).sqrt()
    assert bool(((torch.cov(y.T) - cov).abs() < 4.5 * error).all())
    assert bool(((y.mean(0) - model.b).abs() < 4.5 * (cov.diagonal() / len(y)).sqrt()).all())
    assert model.posterior(x).mean.dtype == model.log_prob(x).dtype == dtype


# Divergences ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5, 2, 3, 4)])
def test_kl_normal_is_torchs_summed_over_latents(shape, dtype, device):
    mean, log_var, mean2, log_var2 = draws(4, *shape, device=device, dtype=dtype)
    tol = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    std = lambda log_var: torch.exp(0.5 * log_var)

    def truth(m2, v2):
        p = dist.Normal(m2, v2)
        return dist.kl_divergence(dist.Normal(mean, std(log_var)), p).flatten(1).sum(1)

    zero = torch.zeros_like(mean)
    assert_close(vae.kl_normal(mean, log_var), truth(zero, zero + 1), **tol)
    assert_close(vae.kl_normal(mean, log_var, mean2, log_var2), truth(mean2, std(log_var2)), **tol)
    one = (mean2[:1], log_var2[:1])  # a second normal that all samples share
    assert_close(vae.kl_normal(mean, log_var, *one), truth(one[0], std(one[1])), **tol)
    numbers = truth(zero + 0.3, zero + math.exp(-0.2))
    assert_close(vae.kl_normal(mean, log_var, 0.3, -0.4), numbers, **tol)
    assert float(vae.kl_normal(mean, log_var, mean, log_var).abs().max()) == 0


def test_kl_normal_keeps_its_digits_near_the_prior():
    log_var = torch.tensor([[1e-3], [-3e-4]])  # float32, as in training
    exact = 0.5 * (torch.expm1(log_var.double()) - log_var.double()).sum(1)
    assert_close(vae.kl_normal(0 * log_var, log_var).double(), exact, rtol=1e-3, atol=0)


def test_the_residual_kl_reads_variances():
    # erratum H3: the formula is right where σ is a standard deviation
    m, dm, log_v, log_dv = draws(4, 5, 3)
    q = dist.Normal(m + dm, torch.exp(0.5 * (log_v + log_dv)))
    kl = dist.kl_divergence(q, dist.Normal(m, torch.exp(0.5 * log_v))).sum(1)
    assert_close(vae.kl_residual(dm, log_dv, log_v), kl, rtol=1e-14, atol=1e-14)
    v, dv = log_v.exp(), log_dv.exp()
    printed = 0.5 * (dm**2 / v + dv - dv.log() - 1).sum(1)
    assert_close(vae.kl_residual(dm, log_dv, log_v), printed, rtol=1e-13, atol=1e-13)
    whole = vae.kl_normal(m + dm, log_v + log_dv, m, log_v)
    assert_close(whole, kl, rtol=1e-13, atol=1e-13)
    as_log_std = vae.kl_residual(dm, 2 * log_dv, 2 * log_v)
    assert float((as_log_std - kl).abs().min()) > 0.01


def test_free_bits_take_the_mean_before_the_maximum():
    mean = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]], **double, requires_grad=True)
    log_var = torch.zeros(2, 3, **double)  # KL ½ mean²: batch means 0, 1, ½
    assert_close(vae.free_bits(mean, log_var, 0.0), vae.kl_normal(mean, log_var).mean())
    assert vae.free_bits(mean, log_var, 0.75).item() == 0.75 + 1 + 0.75
    assert vae.free_bits(mean, log_var, 3.0).item() == 9
    (grad,) = torch.autograd.grad(vae.free_bits(mean, log_var, 0.75), mean)
    assert_close(grad, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], **double))


def test_active_units_are_those_whose_mean_moves():
    mean = 5 + torch.tensor([[0.0, 1.0, 0.01, 0.2], [0.0, -1.0, 0.01, -0.2]])
    assert vae.active_units(mean) == 2
    assert vae.active_units(mean, threshold=0.1) == 1  # variances 2 and 0.08
    with pytest.raises(ValueError, match="two samples or more"):
        vae.active_units(mean[:1])


# The bounds -------------------------------------------------------------------------------------


def test_a_draw_of_q_has_its_moments_and_is_repeatable(dtype, device):
    mean = torch.tensor([0.7, -2.0], dtype=dtype, device=device).expand(40_000, 2)
    log_var = torch.tensor([-1.0, 0.8], dtype=dtype, device=device).expand(40_000, 2)
    draw = lambda: vae.reparameterize(
        mean, log_var, generator=torch.Generator(device).manual_seed(1)
    )
    z, var = draw(), log_var[0].exp()
    assert z.dtype == dtype and torch.equal(z, draw())
    assert bool(((z.mean(0) - mean[0]).abs() < 4 * (var / len(z)).sqrt()).all())
    assert bool(((z.var(0) / var - 1).abs() < 4 * math.sqrt(2 / len(z))).all())


@pytest.mark.parametrize("D, k", [(1, 1), (3, 5), (8, 2)])
def test_sums_run_over_pixels_and_latents(D, k):
    # with a decoder that ignores z and a constant q both parts are known without drawing
    decoder = lambda z: 0.3 * torch.ones(len(z), D, **double)
    q = constant(torch.full((k,), 0.9, **double), torch.full((k,), -0.5, **double))
    model = vae.VAE(q, decoder, vae.Gaussian(-1.0).double())
    bound = vae.elbo(model, torch.full((4, D), 1.7, **double), samples=3, beta=0.25)
    one = -0.5 * (math.log(2 * math.pi) - 1 + 1.4**2 * math.e)
    kl = 0.5 * k * (0.81 + math.exp(-0.5) + 0.5 - 1)
    assert_close(bound.reconstruction, torch.full((4,), D * one, **double))
    assert_close(bound.kl, torch.full((4,), kl, **double))
    assert_close(bound.total, torch.full((4,), D * one - 0.25 * kl, **double))


def test_the_average_of_draws_is_the_exact_elbo(monkeypatch):
    model, x = linear(5, 3), 2 * draws(7, 5, seed=1)
    mean, log_var = draws(2, 7, 3, seed=2)
    samples = cubature(monkeypatch, 3)
    other = as_vae(model, lambda x: torch.cat([mean, log_var], 1))
    bound = vae.elbo(other, x, samples=samples)
    exact = model.elbo(x, mean, torch.diag_embed(log_var.exp()))
    assert_close(bound.total, exact, rtol=1e-12, atol=1e-12)
    assert bool((bound.total < model.log_prob(x)).all())


def test_constant_weights_make_every_bound_exact(device, double, generator, monkeypatch):
    # erratum F7: it is the logarithm of the integral, log 0.2404, that is bounded
    evidence = math.exp(-0.16) / math.sqrt(4 * math.pi)  # N(0.8; 0, 2)
    bound = vae.iwae(as_vae(unit()), torch.tensor([[0.8]], dtype=torch.float64), samples=3)
    assert_close(float(bound), math.log(evidence), rtol=1e-12, atol=0)
    assert round(evidence, 4) == 0.2404
    model = upright(5, 2, device, double)
    x = 2 * draws(7, 5, seed=1, device=device)
    for chunk in (bounds.CHUNK, 70, 1):  # 35 values of x: all draws at once, two and one at a time
        monkeypatch.setattr(bounds, "CHUNK", chunk)
        bound = vae.iwae(as_vae(model), x, samples=9, generator=generator)
        assert_close(bound, model.log_prob(x), rtol=1e-12, atol=1e-12)


def test_iwae_is_the_log_mean_of_the_weights_it_drew(monkeypatch):
    model, x = linear(4, 3), 2 * draws(5, 4, seed=1)
    mean, log_var = draws(2, 5, 3, seed=2)
    other, seen = as_vae(model, lambda x: torch.cat([mean, log_var], 1)), []
    decode = other.decoder
    other.decoder = lambda z: decode(seen.append(z) or z)
    monkeypatch.setattr(bounds, "CHUNK", 60)  # three draws of 5 × 4 values at a time
    bound = vae.iwae(other, x, samples=7)
    assert [len(z) for z in seen] == [15, 15, 5]
    z = torch.cat(seen).reshape(7, 5, 3)
    log_q = dist.Normal(mean, torch.exp(0.5 * log_var)).log_prob(z).sum(-1)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    log_p = log_p + dist.Normal(z @ model.W.T + model.b, 0.6).log_prob(x).sum(-1)
    mean_weight = torch.exp(log_p - log_q).mean(0)
    assert_close(bound, mean_weight.log(), rtol=1e-11, atol=1e-11)


def test_iwae_grows_from_the_elbo_to_the_evidence(generator, device, double):
    x = torch.full((20_000, 1), 0.8, dtype=double, device=device)
    mean, var = 0.7, 0.3
    q = constant(*(torch.tensor([p], dtype=double, device=device) for p in (mean, math.log(var))))
    model = as_vae(unit(), q).to(device)
    model.decoder = lambda z: z
    last, last_error, log_p = -math.inf, 0.0, float(unit().log_prob(x[:1].cpu()))
    for samples in (1, 4, 16, 64):
        bound = vae.iwae(model, x, samples=samples, generator=generator)
        value, error = float(bound.mean()), float(bound.std()) / math.sqrt(len(x))
        assert value > last + 4 * math.hypot(error, last_error)
        assert value < log_p + 4 * error
        if samples == 1:
            point, cov = (torch.tensor([[p]], **{"dtype": torch.float64}) for p in (mean, var))
            exact = float(unit().elbo(x[:1].cpu(), point, cov))
            assert abs(value - exact) < 4 * error
            single = vae.elbo(model, x, generator=generator).total
            assert abs(float(single.mean()) - exact) < 4 * float(single.std()) / math.sqrt(len(x))
        last, last_error = value, error
    assert log_p - last < 0.01


def test_the_joint_maximum_is_the_evidence_at_the_posterior():
    # erratum H1: both terms together; the first alone pulls q away from the posterior
    model, x = unit(), torch.tensor([[0.8]], **double)
    mean, var = (torch.tensor(p, **double, requires_grad=True) for p in ([[0.4]], [[0.5]]))
    bound = model.elbo(x, mean, var)
    assert_close(bound.item(), -1.42551, rtol=0, atol=5e-6)
    assert_close(bound, model.log_prob(x), rtol=1e-12, atol=0)
    for grad in torch.autograd.grad(bound.sum(), (mean, var)):
        assert float(grad.abs().max()) < 1e-12
    q = as_vae(model, lambda x: torch.cat([mean, var.log()], 1))
    first = vae.elbo(q, x.expand(1, 1), samples=1, beta=0.0).total
    assert abs(float(torch.autograd.grad(first.sum(), var)[0])) > 1e-3
    grid = torch.linspace(0.05, 2, 40, **double)
    m, v = torch.meshgrid(grid, grid, indexing="ij")
    all_q = model.elbo(x.expand(1600, 1), m.reshape(-1, 1), v.reshape(-1, 1, 1))
    assert bool((all_q <= model.log_prob(x)).all())
    best = int(all_q.argmax())
    assert m.flatten()[best] == pytest.approx(0.4) and v.flatten()[best] == pytest.approx(0.5)


def test_more_draws_do_not_move_the_optimum(monkeypatch):
    # erratum H2: a sum over K = 8 draws with one KL has its optimum at N(0.711, 0.111)
    signs = torch.tensor([1.0, -1.0], **double).repeat(4)[:, None, None]
    monkeypatch.setattr(bounds, "noise", lambda z, generator=None: signs.expand(z.shape))
    mean, log_var = (torch.zeros(1, 1, **double, requires_grad=True) for _ in range(2))
    model = as_vae(unit(), lambda x: torch.cat([mean, log_var], 1))
    optimiser = torch.optim.LBFGS([mean, log_var], max_iter=60, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -vae.elbo(model, torch.tensor([[0.8]], **double), samples=8).total.sum()
        value.backward()
        return value

    optimiser.step(loss)
    assert_close(mean.item(), 0.4, rtol=0, atol=1e-5)
    assert_close(log_var.exp().item(), 0.5, rtol=0, atol=1e-5)


def test_the_reparametrised_gradient_is_right_on_average(generator, device, double):
    # unit decoder: d ELBO/dμ = x − 2μ, d ELBO/d log v = ½ − v
    n, mu, log_var = 100_000, 0.6, -0.9
    m, l = (torch.full((n, 1), p, dtype=double, device=device) for p in (mu, log_var))
    m, l = m.requires_grad_(), l.requires_grad_()
    model = vae.VAE(lambda x: torch.cat([m, l], 1), lambda z: z, vae.Gaussian(0.0).to(m))
    x = torch.full((n, 1), 0.8, dtype=double, device=device)
    vae.elbo(model, x, generator=generator).total.sum().backward()
    for grad, exact in ((m.grad, 0.8 - 2 * mu), (l.grad, 0.5 - math.exp(log_var))):
        error = float(grad.std()) / math.sqrt(n)
        assert error < 3e-3
        assert abs(float(grad.mean()) - exact) < 4 * error


def test_probabilistic_pca_is_a_stationary_point_of_the_linear_vae(monkeypatch):
    x = 3 + draws(40, 5, seed=4) @ draws(5, 5, seed=5)
    pca, net = LinearGaussian.fit(x, 2), vae.mlp(5, 2, depth=0).double()
    encoder, decoder = net.encoder[1], net.decoder[0]
    W, var = pca.W, pca.sigma**2
    gain = torch.linalg.solve(W.T @ W + var * torch.eye(2, **double), W.T)
    with torch.no_grad():
        encoder.weight.zero_()[:2] = gain
        encoder.bias[:2] = -gain @ pca.b
        encoder.bias[2:] = pca.posterior(x).variance[0].log()
        decoder.weight.copy_(W)
        decoder.bias.copy_(pca.b)
        net.likelihood.log_var.copy_(var.log())
    bound = vae.elbo(net, x, samples=cubature(monkeypatch, 2)).total.mean()
    assert_close(bound, pca.log_prob(x).mean(), rtol=1e-11, atol=1e-11)
    bound.backward()
    for name, parameter in net.named_parameters():
        assert float(parameter.grad.abs().max()) < 1e-9, name


# The model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["elbo", "iwae"])
@pytest.mark.parametrize("shape", [3, (1, 2, 4)])
def test_the_bound_is_differentiable_in_every_parameter(shape, bound):
    torch.manual_seed(0)
    net = vae.mlp(shape, 2, hidden=7, depth=2).double()
    x = draws(5, *net.decoder[-1].unflattened_size, seed=1)

    def value():
        g = torch.Generator().manual_seed(3)
        if bound == "elbo":
            return vae.elbo(net, x, samples=3, beta=0.7, generator=g).total.mean()
        return vae.iwae(net, x, samples=3, generator=g).mean()

    value().backward()
    for name, parameter in net.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name
        way, h = draws(*parameter.shape, seed=7), 1e-5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * h * way
                ends.append(float(value()))
                parameter -= sign * h * way
        slope = (ends[0] - ends[1]) / (2 * h)
        assert_close(float((parameter.grad * way).sum()), slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("likelihood", [vae.Bernoulli, vae.Gaussian])
@pytest.mark.parametrize("shape", [3, (1, 2, 4)])
def test_plain_nets_keep_shape_dtype_and_device(shape, likelihood, dtype, device, generator):
    net = vae.mlp(shape, 2, hidden=6, likelihood=likelihood()).to(device, dtype)
    D = (shape,) if isinstance(shape, int) else shape
    x = torch.rand(5, *D, generator=generator, device=device, dtype=dtype)
    mean, log_var = net.encode(x)
    assert mean.shape == log_var.shape == (5, 2)
    bound = vae.elbo(net, x, samples=3, generator=generator)
    for value in (*bound, vae.iwae(net, x, samples=3, generator=generator)):
        assert value.shape == (5,) and value.dtype == dtype and value.device == x.device
    assert net.decode(mean).mean.shape == x.shape
    y = net.sample(4, generator=generator)
    assert y.shape == (4, *D) and y.dtype == dtype and y.device == x.device
    assert not y.requires_grad


def test_samples_come_from_the_model_and_the_generator_alone(device, dtype):
    model = upright(3, 2, device, dtype)
    net = vae.VAE(as_vae(model).encoder, as_vae(model).decoder, as_vae(model).likelihood, latent=2)
    state = torch.get_rng_state()
    draw = lambda seed, n: net.sample(n, generator=torch.Generator(device).manual_seed(seed))
    x = draw(0, 20_000)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, draw(0, 20_000)) and not torch.equal(x, draw(1, 20_000))
    cov = model.W @ model.W.T + 0.36 * torch.eye(3, dtype=dtype, device=device)
    error = (cov.diagonal().outer(cov.diagonal()) + cov**2).div(len(x)).sqrt()
    assert bool(((torch.cov(x.T) - cov).abs() < 4.5 * error).all())
    assert bool(((x.mean(0) - model.b).abs() < 4.5 * (cov.diagonal() / len(x)).sqrt()).all())
    assert net.sample(2).shape == (2, 3)  # without a generator: the global one


def test_bernoulli_is_a_probability_over_binary_images(generator, device, dtype):
    logits = draws(1, 1, 2, 2, device=device, dtype=dtype)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).reshape(16, 1, 2, 2)
    images = images.to(device, dtype)
    p = vae.Bernoulli()(logits.expand(16, 1, 2, 2))
    assert float(p.log_prob(images).exp().sum()) == pytest.approx(1, abs=1e-6)
    net = vae.VAE(lambda x: x, lambda z: logits.expand(len(z), 1, 2, 2), vae.Bernoulli(), latent=1)
    net.to(device)
    x = net.sample(20_000, generator=generator)
    assert set(x.unique().tolist()) == {0.0, 1.0}
    share = torch.sigmoid(logits)
    error = (share * (1 - share) / len(x)).sqrt()
    assert bool(((x.mean(0) - share[0]).abs() < 4.5 * error[0]).all())


def test_bernoulli_reads_grey_values_as_a_cross_entropy():
    logits, x = draws(5, 1, 2, 3), torch.rand(5, 1, 2, 3, **double)
    net = vae.VAE(lambda x: torch.zeros(len(x), 4), lambda z: logits, vae.Bernoulli())
    pi = torch.sigmoid(logits)
    truth = (x * pi.log() + (1 - x) * (1 - pi).log()).flatten(1).sum(1)
    assert_close(net.log_prob(x, torch.zeros(1, 5, 2))[0], truth, rtol=1e-12, atol=1e-12)


def test_the_latent_size_is_learned_at_the_first_encode():
    net = vae.VAE(lambda x: torch.zeros(len(x), 6), lambda z: z, vae.Gaussian())
    with pytest.raises(ValueError, match="latent size is not known"):
        net.sample(2)
    net.encode(torch.zeros(4, 3))
    assert net.latent == 3 and net.sample(2).shape == (2, 3)


# Bad input --------------------------------------------------------------------------------------

nothing = lambda x: x


def net_with(encoder=lambda x: torch.zeros(len(x), 4), decoder=lambda z: torch.zeros(len(z), 3)):
    return vae.VAE(encoder, decoder, vae.Gaussian())


@pytest.mark.parametrize(
    "make",
    [
        lambda: vae.VAE(nothing, nothing, vae.Gaussian(), latent=0),
        lambda: vae.mlp(3, 0),
        lambda: LinearGaussian.fit(draws(9, 3), 0),
        lambda: LinearGaussian(torch.zeros(3, 0), torch.zeros(3), 1.0),
    ],
)
def test_a_latent_of_no_size_is_refused(make):
    with pytest.raises(ValueError, match="must be a whole number of at least 1, got 0"):
        make()


@pytest.mark.parametrize("bound", [vae.elbo, vae.iwae])
def test_bad_arguments_are_named(bound):
    x = torch.zeros(5, 3)

    def refuses(words, net, x=x, samples=1):
        with pytest.raises(ValueError, match=words):
            bound(net, x, samples=samples)

    for width in (0, 3):
        refuses("side by side", net_with(lambda x, w=width: torch.zeros(len(x), w)))
    refuses("side by side", net_with(lambda x: torch.zeros(4)))
    refuses("side by side", net_with(lambda x: torch.zeros(len(x) + 1, 4)))
    wide = net_with(lambda x: torch.zeros(len(x), 6))
    wide.latent = 2
    refuses(r"\(5, 2 × 2\), but gave \(5, 6\)", wide)
    refuses("encoder gave NaN", net_with(lambda x: torch.full((len(x), 4), math.nan)))
    refuses("not finite", net_with(), x=torch.full((5, 3), math.inf))
    refuses("samples must be a whole number of at least 1, got 0", net_with(), samples=0)
    refuses(r"density over \(3,\)", net_with(decoder=lambda z: torch.zeros(len(z), 4)))
    refuses(r"density over \(3,\)", net_with(decoder=lambda z: torch.zeros(len(z), 1)))
    refuses(r"gave \(1,\) of them", net_with(decoder=lambda z: torch.zeros(1, 3)))
    pixels = lambda mean: dist.Normal(mean, 1.0)  # one density for each pixel
    summed = vae.VAE(net_with().encoder, net_with().decoder, pixels)
    refuses("one density", summed)
    coin = vae.mlp(3, 2, likelihood=vae.Bernoulli())
    refuses(r"needs x in \[0, 1\], got values from -1 to -1", coin, x=x - 1)
    refuses(r"\(x \+ 1\) / 2", coin, x=x + 2)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="beta is the weight"):
        vae.elbo(net_with(), torch.zeros(5, 3), beta=-0.1)
    with pytest.raises(ValueError, match="nats per latent"):
        vae.free_bits(torch.zeros(5, 2), torch.zeros(5, 2), -1.0)
    with pytest.raises(ValueError, match="share one shape"):
        vae.reparameterize(torch.zeros(2), torch.zeros(5, 2))
    for sizes in ((0, 2), ((3, 0), 2), (3, 2, 0), (3, 2, 8, -1)):
        with pytest.raises(ValueError, match="a size must be a whole number"):
            vae.mlp(*sizes)
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="sigma is a standard deviation"):
            LinearGaussian(torch.ones(3, 2), torch.zeros(3), sigma)
    for k in (3, 4):
        with pytest.raises(ValueError, match="below the number of values"):
            LinearGaussian.fit(torch.randn(9, 3), k)
    with pytest.raises(ValueError, match="no variance is left"):
        LinearGaussian.fit(draws(9, 2) @ draws(2, 4), 2)
    with pytest.raises(ValueError, match="not finite"):
        LinearGaussian.fit(torch.full((9, 3), math.nan), 1)
    with pytest.raises(ValueError, match="x has 2 values"):
        linear().log_prob(draws(5, 2))
    with pytest.raises(ValueError, match="positive definite"):
        linear().elbo(draws(5, 4), draws(5, 2), -torch.eye(2, **double))


@pytest.mark.parametrize("bound", [vae.elbo, vae.iwae])
def test_a_batch_of_none_and_an_encoder_of_two_are_named(bound):
    with pytest.raises(ValueError, match="x holds no samples"):
        bound(vae.mlp(3, 2), torch.zeros(0, 3), samples=2)
    pair = net_with(lambda x: (torch.zeros(len(x), 2), torch.zeros(len(x), 2)))
    with pytest.raises(ValueError, match=r"side by side, \(5, 2k\), but gave tuple"):
        bound(pair, torch.zeros(5, 3), samples=2)


def test_empty_batches_are_named_where_they_are_averaged():
    with pytest.raises(ValueError, match="x holds no samples"):
        LinearGaussian.fit(torch.zeros(0, 3), 1)
    with pytest.raises(ValueError, match="mean holds no samples"):
        vae.free_bits(torch.zeros(0, 2), torch.zeros(0, 2), 0.5)
    assert vae.kl_normal(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)  # of none, none


# What has surprised -----------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", [vae.Gaussian, vae.Bernoulli])
def test_numbers_are_samples_of_one_coordinate(likelihood):
    torch.manual_seed(0)
    net, x = vae.mlp(1, 2, hidden=6, likelihood=likelihood()).double(), torch.rand(7, **double)
    for bound in (vae.elbo, vae.iwae):
        kind = lambda: {"samples": 3, "generator": torch.Generator().manual_seed(1)}
        both = [bound(net, z, **kind()) for z in (x, x[:, None])]
        both = [b.total if bound is vae.elbo else b for b in both]
        assert both[0].shape == (7,) and torch.equal(*both)
    one = unit()
    assert torch.equal(one.log_prob(x), one.log_prob(x[:, None]))
    assert torch.equal(one.posterior(x).mean, one.posterior(x[:, None]).mean)
    assert torch.equal(one.elbo(x, x[:, None], torch.eye(1, **double)), one.elbo(
        x[:, None], x[:, None], torch.eye(1, **double)))  # fmt: skip
    with pytest.raises(ValueError, match="below the number of values a sample, 1"):
        LinearGaussian.fit(x, 1)
    kl = vae.kl_normal(x, -x, 0.3, 0.2)
    assert kl.shape == (7,) and torch.equal(kl, vae.kl_normal(x[:, None], -x[:, None], 0.3, 0.2))


def test_a_decoder_of_numbers_still_meets_numbers():
    """Densities over (), for x of shape (B,): what stands for one value need not be (B, 1)."""
    net = vae.VAE(lambda x: torch.zeros(len(x), 2), lambda z: z[:, 0], vae.Gaussian())
    x = torch.tensor([0.5, -1.0])
    found = net.log_prob(x, torch.ones(3, 2, 1))
    want = dist.Normal(1.0, 1.0).log_prob(x).expand(3, 2)
    assert_close(found, want)


def test_a_linear_model_of_whole_numbers_computes_in_floats():
    """An integer W would round sigma to 0; float32 and float64 meet in the model's dtype."""
    whole = LinearGaussian(torch.tensor([[1], [2]]), torch.tensor([0, 1]), 0.5)
    model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 1.0]), 0.5)
    x = draws(5, 2).float()
    assert torch.equal(whole.log_prob(x), model.log_prob(x))
    assert_close(model.log_prob(x.double()), model.log_prob(x))
    assert model.posterior(x.double()).mean.dtype == torch.float32
    mixed = LinearGaussian(model.W, model.b.double(), 0.5)
    assert mixed.log_prob(x).dtype == mixed.sample(3).dtype == torch.float64
    for said in (
        lambda: LinearGaussian.fit(torch.randint(9, (20, 3)), 1),
        lambda: vae.mlp(3, 2).encode(torch.ones(5, 3, dtype=torch.int64)),
    ):
        with pytest.raises(TypeError, match="float|Float"):
            said()


def test_integers_are_named_without_the_runtime_check(run_python):
    said = run_python(
        "import torch; from minigen import vae\n"
        "x = torch.randint(9, (20, 3))\n"
        "for run in (lambda: vae.LinearGaussian.fit(x, 1), lambda: vae.elbo(vae.mlp(3, 2), x)):\n"
        "    try: run()\n"
        "    except TypeError as error: print(error)\n"
        "print(float(vae.kl_residual(x[:1, :1] * 0, torch.zeros(1, 1), 0.5)),\n"
        "      float(vae.kl_residual(x[:1, :1] * 0 + 1, torch.zeros(1, 1), 0.5)))"
    ).splitlines()
    assert said[0] == said[1] == "x must be a float tensor of shape (B, ...), got torch.int64"
    kl = [float(v) for v in said[2].split()]
    assert kl == pytest.approx([0, 0.5 * math.exp(-0.5)])  # the log-variance is not cut to 0


def test_pca_of_round_data_has_no_direction_and_no_nan():
    """Eigenvalues that are all equal but for rounding: the mean of some may exceed the next."""
    for D in range(2, 12):
        for scale in torch.linspace(0.1, 3, 40):
            x = scale * torch.cat([torch.eye(D), -torch.eye(D)]).double()
            model = LinearGaussian.fit(x, 1)
            assert bool(torch.isfinite(model.W).all()) and float(model.W.abs().max()) < 1e-6
