"""The cross-entropy theorem: what a diffusion prior thinks of a latent, against the exact law."""

import math

import pytest
import torch
from torch.testing import assert_close

from minigen import latent, oracle, paths

F64 = torch.float64
B = 5


def images(*shape):
    g = torch.Generator().manual_seed(0)
    return 0.4 + 1.7 * torch.randn(shape, generator=g, dtype=F64)


def test_the_levels_are_even_in_log_sigma_and_one_in_each_stratum():
    """An error of .3 in each of 3 numbers: ∫ 3 · .3²/σ² d log σ by just these levels."""
    path, seen, z = paths.VP(), [], images(B, 3)
    guess = lambda zt, t: seen.append(t) or z - 0.3
    got = latent.cross_entropy(guess, path, z, n=7, t_min=0.01)
    low, high = path.sigma(torch.tensor([0.01, 1.0], dtype=F64)).log()
    sigma = path.sigma(torch.cat(seen)).reshape(7, B)
    where = 7 * (sigma.log() - low) / (high - low)
    assert torch.equal(where.floor(), torch.arange(7.0, dtype=F64)[:, None].expand(7, B))
    assert float((where % 1).std()) > 0.1  # and drawn within it, for each latent anew
    least = latent.cross_entropy(lambda zt, t: z, path, z, n=1, t_min=0.01)
    assert_close(got - least, (high - low) * (3 * 0.09 / sigma.square()).mean(0))


def test_latents_shaped_as_images_are_summed_over_all_axes():
    z = images(B, 2, 3, 1)
    guess = lambda zt, t: 0.6 * zt
    flat, deep = (
        latent.cross_entropy(guess, paths.VP(), x, n=3, generator=torch.Generator().manual_seed(0))
        for x in (z.reshape(B, 6), z)
    )
    assert_close(flat, deep)
    assert not latent.cross_entropy(guess, paths.VP(), z.requires_grad_(), n=1).isnan().any()


def test_the_exact_denoiser_gives_minus_log_p_of_every_latent():
    """E over the noise of z at t_min too: with t_min small, −log p(z0), for a mixture."""
    g = torch.Generator().manual_seed(0)
    means = torch.tensor([[-1.5, 0.3], [0.8, 1.0], [0.2, -2.0]], dtype=F64)
    law = oracle.GaussianMixture.isotropic(means, torch.tensor([0.6, 0.9, 0.7], dtype=F64))
    z = law.sample(3, generator=g)[0]
    runs = latent.cross_entropy(
        law.denoiser(paths.VP()), paths.VP(), z.repeat(20_000, 1), n=40, t_min=1e-5, generator=g
    ).reshape(-1, 3)
    error = runs.std(0) / len(runs) ** 0.5
    assert float(error.max()) < 0.025
    assert bool(((runs.mean(0) + law.log_prob(z)).abs() < 4 * error + 1e-3).all())


def test_the_cross_entropy_theorem_of_two_normals():
    """E_q −log p for q = N(.7, .5²), p = N(0, .8²): in closed form, and by the score's formula."""
    g, path = torch.Generator().manual_seed(0), paths.VP()
    z = 0.7 + 0.5 * torch.randn(200_000, 1, generator=g, dtype=F64)
    p = oracle.GaussianMixture.isotropic(torch.zeros(1, 1, dtype=F64), 0.8)
    got = latent.cross_entropy(p.denoiser(path), path, z, n=8, t_min=1e-5, generator=g)
    exact = 0.5 * math.log(2 * math.pi * 0.64) + (0.25 + 0.49) / (2 * 0.64)
    error = float(got.std()) / len(z) ** 0.5
    assert error < 0.012 and abs(float(got.mean()) - exact) < 4 * error + 1e-3
    # a prior that is wrong costs the divergence more
    q = oracle.GaussianMixture.isotropic(torch.full((1, 1), 0.7, dtype=F64), 0.5)
    least = latent.cross_entropy(q.denoiser(path), path, z, n=8, t_min=1e-5, generator=g)
    gap = 0.5 * (0.25 / 0.64 - 1 - math.log(0.25 / 0.64)) + 0.49 / (2 * 0.64)
    assert abs(float((got - least).mean()) - gap) < 0.02


def test_the_integral_is_that_of_squared_scores():
    """½ ∫ g² ‖∇log q(z_t | z0) − ∇log p(z_t)‖² dt, by quadrature in t, for one latent."""
    path, z0 = paths.VP(), torch.tensor([[0.9]], dtype=F64)
    p = oracle.GaussianMixture.isotropic(torch.full((1, 1), 0.2, dtype=F64), 0.8)
    t = torch.linspace(1e-3, 1, 20_001, dtype=F64)
    a, b2, var = path.a(t), path.b2(t), path.a(t) ** 2 * 0.64 + path.b2(t)
    # z_t = a z0 + b e: the two scores differ by −e/b + (a (z0 − .2) + b e)/var, squared on average
    square = (a * (0.9 - 0.2) / var) ** 2 + b2 * (1 / var - 1 / b2) ** 2
    beta = path.beta_min + t * (path.beta_max - path.beta_min)
    want = 0.5 * torch.trapezoid(beta * square, t) + 0.5 * math.log(2 * math.pi * math.e) * 1
    want = want + 0.5 * path.b2(t[0]).log() + 0.5 * a[-1] ** 2 * 0.81 / b2[-1]
    g = torch.Generator().manual_seed(1)
    many = z0.repeat(100_000, 1)
    got = latent.cross_entropy(p.denoiser(path), path, many, n=10, t_min=1e-3, generator=g)
    assert abs(float(got.mean() - want)) < 4 * float(got.std()) / 100_000**0.5 + 1e-4


def test_a_denoiser_that_knows_leaves_the_ends():
    """Without any error: the KL at t = 1 and the entropy at t_min."""
    path, z = paths.VP(beta_max=1.0), images(B, 2)
    a2, b2 = (float(f(torch.ones(()).double())) for f in (lambda t: path.a(t) ** 2, path.b2))
    first = float(path.b2(torch.tensor(0.01, dtype=F64)))
    want = 0.5 * a2 / b2 * z.square().sum(1) + math.log(2 * math.pi * math.e * first)
    got = latent.cross_entropy(lambda zt, t: z, path, z, n=3, t_min=0.01)
    assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_path_without_an_end_is_named():
    z = images(B, 2)
    with pytest.raises(ValueError, match=r"need b\(t_min\) > 0 and a\(1\) > 0"):
        latent.cross_entropy(lambda z, t: z, paths.Linear(), z, n=4)
    with pytest.raises(ValueError, match=r"need b\(t_min\) > 0"):
        latent.cross_entropy(lambda z, t: z, paths.VP(), z, n=4, t_min=0.0)


def test_the_gain_of_a_learned_prior_is_the_divergence_from_the_standard_normal():
    """For Gaussian latents: E −log N(z; 0, I) minus the entropy, against KL in closed form."""
    g = torch.Generator().manual_seed(2)
    mean, std = torch.tensor([0.6, -0.3]).double(), torch.tensor([0.5, 1.4]).double()
    z = mean + std * torch.randn(100_000, 2, generator=g, dtype=F64)
    q = oracle.GaussianMixture(torch.ones(1, dtype=F64), mean[None], std[None])
    gain = q.log_prob(z) + 0.5 * z.square().sum(1) + math.log(2 * math.pi)
    kl = 0.5 * (mean**2 + std**2 - 2 * std.log() - 1).sum()
    assert abs(float(gain.mean() - kl)) < 4 * float(gain.std()) / len(z) ** 0.5
