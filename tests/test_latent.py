"""Latents: what a subspace does to the score, the loss of an autoencoder, and scales."""

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
    for kl in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="kl is the weight of a divergence"):
            latent.loss(linear_pair(), x, kl=kl)


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


def test_a_scale_carries_no_gradient_and_takes_the_latents_precision():
    z = images(40, 3).requires_grad_()
    scale = latent.Standard.fit(z)
    assert not scale.mean.requires_grad and not scale.std.requires_grad
    assert scale.to(z).requires_grad
    for way in (scale.to, scale.back):
        assert way(z.detach().float()).dtype == torch.float32


@pytest.mark.parametrize("std, fine", [(0.51, True), (1.98, True), (0.49, False), (2.02, False)])
def test_latents_of_another_scale_are_named_beyond_a_factor_2(std, fine):
    z = torch.tensor([1.0, std]) * latent.Standard.fit(images(40, 2)).to(images(40, 2))
    if fine:
        return latent.check_standard(z)
    with pytest.raises(ValueError, match=f"channel 1 .* deviation of {std:.3g}: .* expects 1"):
        latent.check_standard(z)


def test_latents_that_are_none_are_named():
    nan = latent.Standard.fit(images(B, 2)).to(images(B, 2))
    nan[:, 1] = torch.nan
    with pytest.raises(
        ValueError, match="channel 1 of the latents has a standard deviation of nan"
    ):
        latent.check_standard(nan)
    with pytest.raises(ValueError, match="NaN|finite"):
        latent.Standard.fit(nan)
    with pytest.raises(ValueError, match="have 3 channels"):
        latent.Standard.fit(images(B, 3)).back(images(3, B))


@pytest.mark.parametrize("path", [paths.VP(), paths.Linear()])
def test_a_scale_shifts_the_log_snr(path):
    """The denoiser of s z at the level s σ is s times that of z at σ: λ is 2 log s further up."""
    s, t = 0.2, torch.tensor(0.4, dtype=F64)
    later = path.time(path.sigma(t) / s)
    means = images(3, 2)
    law = oracle.GaussianMixture.isotropic(means, 0.7)
    small = oracle.GaussianMixture.isotropic(s * means, s * 0.7)
    x = images(B, 2, seed=1)  # x_t/a of the small latents is s times that of the others
    got = small.denoiser(path)(path.a(t) * s * x, t)
    assert_close(got, s * law.denoiser(path)(path.a(later) * x, later), rtol=1e-9, atol=1e-9)
    assert_close(path.log_snr(later), path.log_snr(t) + 2 * math.log(s))


def conv_pair():
    """3 × 4 × 6 pixels to 2 × 2 × 3 latents, by shortcuts and learned layers, and back."""
    torch.manual_seed(0)
    conv = lambda i, o, **kw: nn.Conv2d(i, o, 3, padding=1, **kw)
    down = latent.DownShortcut(conv(3, 4, stride=2), 3, 4)
    grow = nn.Sequential(conv(2, 12), nn.PixelShuffle(2))
    return latent.Autoencoder(down, latent.UpShortcut(grow, 2, 3))


def test_the_loss_of_images_is_a_mean_over_pixels_and_latents():
    model, x = conv_pair().double(), images(B, 3, 4, 6)
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (B, 2, 2, 3)
    assert_close(torch.cat([mean, log_var], 1), model.encoder(x))
    kl = 0.5 * (mean**2 + log_var.exp() - log_var - 1).mean((1, 2, 3))
    parts = [
        latent.loss(model, x, kl=c, generator=torch.Generator().manual_seed(0)) for c in (0.0, 1.0)
    ]
    assert_close(parts[1] - parts[0], kl)


def test_latents_on_each_device_in_both_precisions(device, dtype, generator):
    """A training step, the scale and its inverse, and the cross-entropy stay where the data is."""
    model = conv_pair().to(device, dtype)
    x = torch.randn(40, 3, 4, 6, generator=generator, device=device, dtype=dtype)
    latent.loss(model, x, generator=generator).mean().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    z = model.encode(x)[0].detach()
    scale = latent.Standard.fit(z)
    unit = scale.to(z)
    latent.check_standard(unit)
    assert_close(scale.back(unit), z)
    assert_close(unit.transpose(0, 1).flatten(1).std(1), torch.ones(2).to(z))
    guess = lambda zt, t: 0.5 * zt
    got = latent.cross_entropy(guess, paths.VP(), unit, n=2, generator=generator)
    assert got.shape == (40,) and got.dtype == dtype and got.device.type == device.type
    assert bool(got.isfinite().all())


def test_a_step_in_bfloat16_is_one_in_float32_but_for_rounding(device):
    model, x = conv_pair().to(device), images(B, 3, 4, 6).float().to(device)
    draw = lambda: torch.Generator(device).manual_seed(0)
    with torch.autocast(device.type, torch.bfloat16):
        mixed = latent.loss(model, x, generator=draw()).mean()
    mixed.backward()
    mixed = mixed.detach()
    exact = latent.loss(model, x, generator=draw()).mean().detach()
    assert mixed.dtype == torch.float32 and float((mixed / exact - 1).abs()) < 0.02
    assert float((mixed - exact).abs()) > 0  # the layers did run in bfloat16


def test_the_way_to_latents_and_back_compiles_in_one_graph(run_python):
    """In a process of its own: the shape checks of these tests cannot be traced."""
    run_python(
        "import torch; from torch import nn; from minigen import latent; torch.manual_seed(0)\n"
        "down = latent.DownShortcut(nn.Conv2d(3, 4, 3, 2, 1), 3, 4)\n"
        "grow = nn.Sequential(nn.Conv2d(2, 12, 3, 1, 1), nn.PixelShuffle(2))\n"
        "model = latent.Autoencoder(down, latent.UpShortcut(grow, 2, 3)).requires_grad_(False)\n"
        "x = torch.randn(40, 3, 4, 6)\n"
        "scale = latent.Standard.fit(model.encode(x)[0])\n"
        "unit = lambda x: scale.to(model.encode(x)[0])\n"
        "back = lambda z: (latent.check_standard(z), model.decode(scale.back(z)))[1]\n"
        "net = latent.UpsamplingNet(lambda xt, t: xt * t, 2)\n"
        "cascade = lambda x: net(x, torch.tensor(0.5), latent.shrink(x, 2))\n"
        "for f, given in ((unit, x), (back, unit(x)), (cascade, x)):\n"
        "    compiled = torch.compile(f, backend='eager', fullgraph=True)\n"
        "    torch.testing.assert_close(compiled(given), f(given))"
    )
