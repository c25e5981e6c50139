"""StyleGAN's operations: statistics, filters of unit norm, Jacobians, shifts, aliasing."""

import math

import pytest
import torch
from torch.nn import functional as F

from minigen.gan import style

DOUBLE = torch.float64


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def draws(*shape, seed=0, dtype=DOUBLE, device="cpu"):
    """Mean ≠ 0 and variance ≠ 1."""
    return (0.7 * torch.randn(shape, generator=seeded(seed), dtype=DOUBLE) + 0.3).to(device, dtype)


def close(found, want, tol=1e-12):
    torch.testing.assert_close(found, want, rtol=tol, atol=tol)


# ---- styles ----------------------------------------------------------------------------------


def test_adain_sets_mean_and_deviation_of_each_channel(dtype, device):
    x, scale, shift = (
        draws(*shape, seed=k, dtype=dtype, device=device)
        for k, shape in enumerate([(4, 6, 5, 7), (4, 6), (4, 6)])
    )
    out, tol = style.adain(x, scale, shift), 1e-13 if dtype is DOUBLE else 1e-5
    close(out.mean((2, 3)), shift, tol)
    close(out.std((2, 3), correction=0), scale.abs(), tol)
    close(style.adain(3 * x - 2, scale, shift), out, 20 * tol)  # what x had is gone
    normal = F.instance_norm(x, eps=0.0)
    close(out, scale[..., None, None] * normal + shift[..., None, None], 20 * tol)


def test_statistics_of_the_whole_layer_do_not_set_the_channels():
    """F10: only with numbers of its own does each channel end at its scale."""
    x = draws(2, 3, 5, 5) * torch.tensor([0.3, 2.0, 0.05], dtype=DOUBLE)[:, None, None]
    one, none = torch.ones(2, 3, dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE)
    close(style.adain(x, one, none).std((2, 3), correction=0), one, 1e-13)
    layer = F.layer_norm(x, x.shape[1:], eps=0.0).std((2, 3), correction=0)
    assert ((layer - one).abs() > 0.2).all()


@pytest.mark.parametrize("padding", [0, 1])
def test_to_scale_weights_is_to_scale_inputs(padding, device, double):
    """And demodulating divides the output by ‖W′_o‖; each sample by one convolution of its own."""
    x, weight = draws(4, 6, 9, 7, device=device), draws(5, 6, 3, 2, seed=1, device=device)
    scale = draws(4, 6, seed=2, device=device)
    filters = style.modulate(weight, scale)
    by_weight = style.conv(x, filters, padding=padding)
    close(by_weight, F.conv2d(x * scale[..., None, None], weight, padding=padding))
    norm = (filters**2).sum((2, 3, 4)).sqrt()
    unit = style.demodulate(filters)
    close((unit**2).sum((2, 3, 4)), torch.ones_like(norm))
    close(style.conv(x, unit, padding=padding), by_weight / norm[..., None, None])
    each = [F.conv2d(x[b : b + 1], unit[b], padding=padding) for b in range(4)]
    close(style.conv(x, unit, padding=padding), torch.cat(each))
    close(style.demodulate(style.modulate(weight, 7 * scale)), unit)  # only the ratios count


def test_demodulation_gives_variance_1_to_white_input_alone():
    """G4. Filters of mean 0.3 on an input that is constant in space and channels: far from 1."""
    filters = style.demodulate(style.modulate(draws(8, 5, 3, 3), draws(1, 5, seed=1)))
    white = torch.randn(4000, 5, 3, 3, generator=seeded(2), dtype=DOUBLE)
    out = style.conv(white, filters.expand(4000, -1, -1, -1, -1)).flatten(1)
    se = math.sqrt(2 / 4000)  # of the variance of 4000 normals
    assert ((out**2).mean(0) - 1).abs().max() < 4.5 * se
    flat = white[:, :1, :1, :1].expand(-1, 5, 3, 3)
    out = style.conv(flat, filters.expand(4000, -1, -1, -1, -1)).flatten(1)
    sums = filters[0].sum((1, 2, 3)) ** 2  # the exact variance
    assert ((out**2).mean(0) / sums - 1).abs().max() < 4.5 * se and (sums - 1).abs().max() > 1


# ---- latents ---------------------------------------------------------------------------------


def smooth(w):
    """A generator R³ -> (2, 4, 5), its Jacobian different at each w."""
    return torch.tanh(w @ draws(3, 40, seed=9, device=w.device)).unflatten(1, (2, 4, 5))


def test_one_vjp_is_the_jacobian_times_y(device, double):
    w = draws(6, 3, dtype=double, device=device)
    y = torch.randn(6, 2, 4, 5, generator=seeded(1, device), dtype=double, device=device)
    found = style.path_length(smooth, w, generator=seeded(1, device))
    want = []
    for b in range(6):
        J = torch.autograd.functional.jacobian(lambda v: smooth(v[None])[0], w[b]).reshape(40, 3)
        want.append((J.T @ y[b].flatten()).norm())
    close(found, torch.stack(want))
    with torch.no_grad():
        close(style.path_length(smooth, w, generator=seeded(1, device)), found.detach())


def test_the_mean_square_is_the_frobenius_norm():
    """‖Jᵀy‖² = Σ s_i² χ²_1: mean Σ s², variance 2 Σ s⁴, s the singular values of J."""
    J, n = draws(50, 7), 20_000
    s2 = torch.linalg.svdvals(J) ** 2
    w = draws(1, 7, seed=1).expand(n, 7)
    square = style.path_length(lambda w: w @ J.T, w, generator=seeded(2)) ** 2
    assert abs(square.mean() - (J**2).sum()) < 4.5 * math.sqrt(2 * float((s2**2).sum()) / n)


def test_the_length_of_a_scaled_isometry():
    """J = aQ, QᵀQ = I_k: a χ_k, of mean a √2 Γ((k+1)/2)/Γ(k/2); other J of its norm vary more."""
    k, a, n = 7, 3.0, 20_000
    Q, _ = torch.linalg.qr(draws(50, k))
    w = draws(n, k, seed=1)
    length = style.path_length(lambda w: a * w @ Q.T, w, generator=seeded(2))
    mean = a * math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))
    var = a * a * k - mean**2
    assert abs(mean - 7.660) < 5e-4 and abs(length.mean() - mean) < 4.5 * math.sqrt(var / n)
    s = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.4, 0.3, 0.2], dtype=DOUBLE)
    s = s * math.sqrt(k / float((s**2).sum()))
    uneven = style.path_length(lambda w: a * (w * s) @ Q.T, w, generator=seeded(2))
    assert abs(length.var() / var - 1) < 0.1 and uneven.var() > 1.5 * length.var()


def test_path_length_teaches_the_weights():
    """Its gradient in the generator's weights, against finite differences."""
    weight, w = draws(3, 10).requires_grad_(), draws(4, 3, seed=1)

    def length(weight):
        return style.path_length(lambda w: (w @ weight).sin(), w, generator=seeded(2))

    assert torch.autograd.gradcheck(length, weight)


def test_images_that_do_not_move_have_length_0_and_gradient_0():
    """At J = 0 the norm's subgradient 0: one flat sample must not make every weight NaN."""
    weight, w = torch.zeros(3, 10, dtype=DOUBLE, requires_grad=True), draws(4, 3, seed=1)
    length = style.path_length(lambda w: w @ weight, w, generator=seeded(2))
    (grad,) = torch.autograd.grad(((length - 1) ** 2).sum(), weight)
    assert length.tolist() == [0] * 4 and not bool(grad.any())


def test_latents_of_one_number():
    w = draws(5, seed=1)
    found, want = (
        style.path_length(lambda w: w.reshape(-1, 1).sin(), v, generator=seeded(2))
        for v in (w, w[:, None])
    )
    close(found, want)


def test_truncation_keeps_the_mean_and_scales_the_covariance(device, double):
    w, mean = draws(50, 4, device=device), draws(4, seed=1, device=device)
    out = style.truncate(w, mean, 0.6)
    close(out.T.cov(), 0.36 * w.T.cov())
    close(out.mean(0) - mean, 0.6 * (w.mean(0) - mean))
    assert torch.equal(style.truncate(w, mean, 0.0), mean.expand(50, 4))
    close(style.truncate(w, mean, 1.0), w)


# ---- aliasing --------------------------------------------------------------------------------


def wave(h, w, down=0.0, right=0.0):
    """A periodic image of low frequencies at h×w pixels, moved by shares of its sides."""
    y = 2 * math.pi * (torch.arange(h, dtype=DOUBLE) / h - down)[:, None]
    x = 2 * math.pi * (torch.arange(w, dtype=DOUBLE) / w - right)
    return (0.3 + (2 * y + x).cos() - 0.7 * (y - 3 * x + 1).sin() + 0.4 * (3 * y).sin())[None, None]


@pytest.mark.parametrize("h, w", [(8, 9), (7, 10)])
def test_shifts_and_resampling_are_exact_on_waves(h, w):
    close(style.shift(wave(h, w), 0.37, -1.6), wave(h, w, 0.37 / h, -1.6 / w))
    close(style.resample(wave(h, w), 13, 16), wave(13, 16))
    close(style.resample(wave(13, 16), h, w), wave(h, w))
    assert style.shift(wave(h, w).float(), 0.3, 0.0).dtype is torch.float32


def test_shifts_are_a_group_and_whole_ones_roll():
    x, shift = draws(2, 3, 7, 9), style.shift
    close(shift(shift(x, 0.4, -1.3), 1.1, 0.2), shift(x, 1.5, -1.1))
    close(shift(x, 2.0, -3.0), x.roll((2, -3), (2, 3)))
    close(style.resample(style.resample(x, 14, 18), 7, 9), x)  # up and down again
    finest = torch.tensor([1.0, -1.0], dtype=DOUBLE).repeat(4).expand(1, 1, 3, 8)
    close(shift(finest, 0.0, 0.3), torch.zeros_like(finest))  # Nyquist's, of even sizes


def test_convolutions_commute_with_fractional_shifts():
    x, kernel = draws(2, 3, 8, 9), draws(4, 3, 3, 3, seed=1)
    circular = lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), kernel)
    close(circular(style.shift(x, 0.37, -0.8)), style.shift(circular(x), 0.37, -0.8))


def test_relu_aliases_and_less_so_on_a_finer_grid():
    """Of 64 samples with frequencies up to a fifth, moved by 0.37: the error, over ReLU's norm."""
    z = style.resample(draws(50, 1, 1, 25), 1, 64)  # 12 of 32 frequencies
    move = lambda x: style.shift(x, 0.0, 0.37)

    def error(f):
        return float((f(move(z)) - move(f(z))).norm() / f(z).norm())

    on = lambda factor: lambda x: style.alias_free(torch.relu, x, factor=factor)
    plain, fine, finer = error(torch.relu), error(on(2)), error(on(4))
    assert 0.04 < plain < 0.2 and fine < plain / 4 and finer < fine / 2
    assert error(lambda x: style.alias_free(lambda x: 2 * x, x)) < 1e-12
    close(style.alias_free(lambda x: x, z), z)


# ---- bad input -------------------------------------------------------------------------------


def test_bad_input_is_named(run_python):
    """In a fresh interpreter, as users meet it."""
    said = run_python(
        "import torch; from minigen.gan import style as s\n"
        "x, one, W = torch.randn(3, 2, 4, 4), torch.ones(3, 2), torch.ones(5, 2, 3, 3)\n"
        "def tried(function, *given, **more):\n"
        "    try: print('passed', function(*given, **more))\n"
        "    except (TypeError, ValueError) as error: print(error)\n"
        "tried(s.adain, x, one, torch.ones(2)); tried(s.adain, x, torch.ones(3, 1), one)\n"
        "tried(s.adain, torch.ones(3, 2, 4, 4), one, one)\n"
        "tried(s.modulate, W, torch.ones(3, 1)); tried(s.modulate, W, torch.ones(2))\n"
        "tried(s.demodulate, W); tried(s.demodulate, s.modulate(W, 0 * one))\n"
        "tried(s.conv, x[:0], s.modulate(W, one)[:0])\n"
        "tried(s.conv, x, s.modulate(W, one[:1])); tried(s.conv, x[:, :1], s.modulate(W, one))\n"
        "tried(s.path_length, lambda w: w[:1], one)\n"
        "tried(s.path_length, lambda w: w.detach(), one)\n"
        "tried(s.path_length, lambda w: torch.ones(3, 2, requires_grad=True), one)\n"
        "tried(s.truncate, one, torch.ones(3), 0.5); tried(s.truncate, one, one, 0.5)\n"
        "for f in 0, 1.5: tried(s.alias_free, torch.relu, x, factor=f)\n"
        "tried(s.resample, x, 0, 4)\n"
        "pixels = (255 * x).to(torch.uint8)\n"
        "tried(s.shift, pixels, 0.5, 0.0); tried(s.resample, pixels, 8, 8)\n"
        "tried(s.alias_free, torch.relu, pixels); tried(s.adain, pixels, one, one)\n"
        "tried(s.shift, x[0], 0.5, 0.0)\n"
    ).splitlines()
    want = ["scale (B, C), shift (B, C), got x (3, 2, 4, 4)"] * 2 + ["a channel that is constant"]
    want += ["weight is (O, C, h, w), scale (B, C)"] * 2 + ["as modulate gives it"]
    want += ["a filter of zeros", "x holds no samples"] + ["weight (B, O, C, h, w), got x"] * 2
    want += ["1 images were given for a batch of 3"] + ["no gradient leads from generate(w)"] * 2
    want += ["the mean latent has shape (2,)"] * 2 + ["factor must be a whole number"] * 2
    want += ["height must be a whole number"]
    want += ["x must be a float tensor of shape (B, ...), got torch.uint8"] * 4
    want += ["x is (B, C, H, W), got x (2, 4, 4)"]
    assert len(said) == len(want)
    assert all(w in line for w, line in zip(want, said, strict=True)), said
