"""Latents: what a subspace does to the score, shortcuts, scales, and the cross-entropy theorem."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from minigen import latent, oracle, paths

F64 = torch.float64
B = 5


def images(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 0.4 + 1.7 * torch.randn(shape, generator=g, dtype=F64)


# The score of data in a subspace ----------------------------------------------------------------


def test_in_the_subspace_the_score_is_the_latents_and_off_it_only_the_noise():
    """x0 = W z0 with orthonormal W (D, k): Wᵀ s_x = s_z, and the rest of s_x is −x⊥/b²."""
    g, (D, k, K) = torch.Generator().manual_seed(1), (6, 2, 3)
    W = torch.linalg.qr(torch.randn(D, k, generator=g, dtype=F64)).Q
    law = oracle.GaussianMixture.isotropic(2 * torch.randn(K, k, generator=g, dtype=F64), 0.5)
    path, t, x = paths.VP(), torch.tensor(0.3, dtype=F64), images(B, D)

    def log_p(x):  # the density of x_t itself, a mixture with covariance a² v W Wᵀ + b² I
        a, b = path.a(t), path.b(t)
        cov = (a * 0.5) ** 2 * W @ W.T + b**2 * torch.eye(D, dtype=F64)
        parts = torch.distributions.MultivariateNormal(a * law.means @ W.T, cov)
        return torch.logsumexp(parts.log_prob(x[:, None]) + law.weights.log(), 1)

    x.requires_grad_()
    (score,) = torch.autograd.grad(log_p(x).sum(), x)
    x = x.detach()
    assert_close(score @ W, law.at(path, t).score(x @ W), rtol=0, atol=1e-12)
    off = x - x @ W @ W.T
    assert_close(score - score @ W @ W.T, -off / path.b2(t), rtol=0, atol=1e-12)


# The autoencoder --------------------------------------------------------------------------------


def linear_pair(D=6, k=2):
    torch.manual_seed(0)
    return latent.Autoencoder(nn.Linear(D, 2 * k), nn.Linear(k, D)).double()


def test_the_loss_is_its_parts_for_each_sample():
    model, x = linear_pair(), images(B, 6)
    g = torch.Generator().manual_seed(3)
    mean, log_var = model.encode(x)
    z = mean + torch.exp(0.5 * log_var) * torch.randn(mean.shape, generator=g, dtype=F64)
    kl = 0.5 * (mean**2 + log_var.exp() - log_var - 1).mean(1)
    want = (model.decode(z) - x).square().mean(1) + 0.3 * kl
    got = latent.loss(model, x, kl=0.3, generator=torch.Generator().manual_seed(3))
    assert_close(got, want, rtol=1e-12, atol=0)
    got.sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_a_linear_autoencoder_learns_the_principal_subspace():
    g, x = torch.Generator().manual_seed(0), images(400, 6)
    x = (x - x.mean(0)) * torch.tensor([3, 2.5, 1, 0.5, 0.4, 0.3], dtype=F64)
    model = linear_pair()
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(800):
        adam.zero_grad()
        latent.loss(model, x, kl=0.0, generator=g).mean().backward()
        adam.step()
    with torch.no_grad():
        error = float((model.decode(model.encode(x)[0]) - x).square().sum(1).mean())
    best = float(torch.linalg.eigvalsh(x.T @ x / len(x))[:4].sum())  # what two directions leave
    assert best <= error < 1.02 * best


def test_an_autoencoder_that_does_not_fit_is_named():
    x = images(B, 6)
    odd = latent.Autoencoder(nn.Linear(6, 3).double(), nn.Linear(1, 6).double())
    with pytest.raises(ValueError, match=r"mean and log_var along the second axis, \(5, 2c, …\)"):
        odd.encode(x)
    short = latent.Autoencoder(nn.Linear(6, 4).double(), nn.Linear(2, 5).double())
    with pytest.raises(ValueError, match=r"for states \(5, 6\) the net or denoiser gave \(5, 5\)"):
        latent.loss(short, x)
    with pytest.raises(ValueError, match="kl is the weight of a divergence"):
        latent.loss(linear_pair(), x, kl=-1.0)


# Unit variance ----------------------------------------------------------------------------------


def test_standard_latents_have_mean_0_and_variance_1_in_each_channel():
    z = images(40, 3, 2, 4) * torch.tensor([0.1, 1, 7], dtype=F64)[:, None, None] + 2
    scale = latent.Standard.fit(z)
    unit = scale.to(z)
    assert_close(unit.mean((0, 2, 3)), torch.zeros(3, dtype=F64), rtol=0, atol=1e-12)
    assert_close(unit.transpose(0, 1).flatten(1).std(1), torch.ones(3, dtype=F64))
    assert_close(scale.back(unit), z, rtol=1e-12, atol=1e-12)
    latent.check_standard(unit)
    with pytest.raises(ValueError, match=r"channel 0 .* standard deviation of 0.17.*Standard.fit"):
        latent.check_standard(z)
    with pytest.raises(ValueError, match="channel 1 of the latents is constant"):
        latent.Standard.fit(z * torch.tensor([1, 0, 1])[:, None, None])
    with pytest.raises(ValueError, match=r"have 3 channels, got z \(40, 2, 2, 4\)"):
        scale.to(z[:, :2])


# Space and channels -----------------------------------------------------------------------------


@pytest.mark.parametrize("channels, factor", [(3, 2), (2, 3), (4, 1)])
def test_space_and_channels_are_exchanged_without_loss(channels, factor):
    x = images(B, channels, 2 * factor, 3 * factor)
    deep = latent.space_to_channel(x, factor)
    assert deep.shape == (B, channels * factor**2, 2, 3)
    assert torch.equal(latent.channel_to_space(deep, factor), x)
    assert_close(deep.norm(), x.norm())
    assert_close(latent.shrink(x, factor), nn.functional.avg_pool2d(x, factor))


def test_down_undoes_up_exactly_and_up_after_down_is_a_projection():
    nothing = lambda out, scale: Zero(out, scale)
    up = latent.UpShortcut(nothing(2, 2.0), 4, 2, 2)
    down = latent.DownShortcut(nothing(4, 0.5), 2, 4, 2)
    small, large = images(B, 4, 3, 2), images(B, 2, 6, 4)
    assert torch.equal(down(up(small)), small)
    once = up(down(large))
    assert_close(up(down(once)), once, rtol=0, atol=1e-14)
    assert float((once - large).abs().max()) > 0.5


class Zero(nn.Module):
    """A layer that adds nothing, of the right shape."""

    def __init__(self, out, scale):
        super().__init__()
        self.out, self.scale = out, scale

    def forward(self, x):
        h, w = (round(n * self.scale) for n in x.shape[2:])
        return x.new_zeros(len(x), self.out, h, w)


def test_shortcuts_and_factors_that_do_not_fit_are_named():
    x = images(B, 3, 4, 6)
    with pytest.raises(ValueError, match="factor of 3 must divide H and W"):
        latent.space_to_channel(x, 3)
    with pytest.raises(ValueError, match="factor² = 4 must divide the channels"):
        latent.channel_to_space(x, 2)
    with pytest.raises(ValueError, match="12 channels cannot be averaged to 5"):
        latent.DownShortcut(Zero(5, 0.5), 3, 5)
    with pytest.raises(ValueError, match="5 channels cannot be repeated to 12"):
        latent.UpShortcut(Zero(3, 2), 5, 3)
    with pytest.raises(ValueError, match=r"for states .* the net or denoiser gave"):
        latent.DownShortcut(Zero(5, 0.5), 3, 4)(x)


def test_an_upsampling_net_sees_the_small_image_enlarged():
    seen = []
    inner = lambda x, t: seen.append(x) or x * 2
    net, x = latent.UpsamplingNet(inner, 2), images(B, 1, 4, 6)
    low = latent.shrink(images(B, 1, 4, 6, seed=1), 2)
    got = net(x, torch.tensor(0.5), low)
    assert torch.equal(got, 2 * x) and torch.equal(seen[0][:, :1], x)
    assert torch.equal(latent.shrink(seen[0][:, 1:], 2), low)
    for bad in (None, low[:, :, :1], x):
        with pytest.raises(ValueError, match=r"enlarges an image of shape \(5, 1, 2, 3\), got low"):
            net(x, torch.tensor(0.5), bad)


# The prior --------------------------------------------------------------------------------------


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
