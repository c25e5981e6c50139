"""The operations of style-based generators, each against its exact statement."""

import math

import pytest
import torch
import torch.nn.functional as F

from minigen import style

close = torch.testing.assert_close
B, C, O, H, W = 3, 4, 5, 7, 9


def draw(*shape, device, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.7 + 1.8 * torch.randn(shape, generator=generator, dtype=dtype)).to(device)


def test_adain_sets_each_channels_mean_and_std(device, double):
    x, scale, shift = (
        draw(*shape, device=device, dtype=double, seed=k)
        for k, shape in enumerate(((B, C, H, W), (B, C), (B, C)))
    )
    y = style.adain(x, scale, shift)
    close(y.mean((2, 3)), shift, rtol=0, atol=1e-13)
    close(y.std((2, 3), correction=0), scale.abs(), rtol=1e-12, atol=0)
    again = F.instance_norm(x, eps=0.0) * scale[..., None, None] + shift[..., None, None]
    close(y, again, rtol=1e-12, atol=1e-12)


def parts(device, dtype):
    x = draw(B, C, H, W, device=device, dtype=dtype)
    weight = draw(O, C, 3, 3, device=device, dtype=dtype, seed=1)
    return x, weight, draw(B, C, device=device, dtype=dtype, seed=2)


def test_modulating_weights_is_modulating_inputs(device, double):
    x, weight, s = parts(device, double)
    by_inputs = F.conv2d(x * s[..., None, None], weight, padding=1)
    close(style.modulated_conv(x, weight, s, demodulate=False), by_inputs, rtol=1e-12, atol=1e-11)


def test_demodulation_scales_each_output_by_its_filters_norm(device, double):
    x, weight, s = parts(device, double)
    plain = style.modulated_conv(x, weight, s, demodulate=False)
    norms = (s[:, None, :, None, None] * weight).square().sum((2, 3, 4)).sqrt()
    out = style.modulated_conv(x, weight, s)
    close(out, plain / norms[..., None, None], rtol=1e-12, atol=1e-12)
    larger = style.modulated_conv(
        x, weight, 3.0 * s
    )  # the filters have unit norm: no scale is left
    close(larger, out, rtol=1e-12, atol=1e-12)


def test_demodulated_filters_have_unit_norm(double, device):
    """The answers to unit impulses in each channel are the filters themselves."""
    _, weight, s = parts(device, double)
    total = torch.zeros(B, O, device=device, dtype=double)
    for c in range(C):
        impulse = torch.zeros(B, C, 5, 5, device=device, dtype=double)
        impulse[:, c, 2, 2] = 1
        total += style.modulated_conv(impulse, weight, s).square().sum((2, 3))
    close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_white_features_come_out_with_unit_variance_and_constant_ones_do_not(generator, device):
    _, weight, s = parts(device, torch.float32)
    n = 60
    x = torch.randn(B, C, n, n, generator=generator, device=device)
    inner = style.modulated_conv(x, weight, s)[..., 1:-1, 1:-1]
    values = inner.square().mean()  # neighbours share inputs: an effective n of a ninth
    assert abs(float(values) - 1) < 4 * math.sqrt(2 * 9 / inner.numel())
    flat = torch.randn(4000, C, 1, 1, generator=generator, device=device).expand(-1, -1, 3, 3)
    out = style.modulated_conv(flat, weight, s[:1].expand(4000, -1))[..., 1, 1]
    want = (s[0, :, None, None] * weight).flatten(2)  # the sum over a filter's pixels decides
    want = want.sum(2).square().sum(1) / want.square().sum((1, 2))
    got = out.var(0)
    assert bool(((got / want - 1).abs() < 5 * math.sqrt(2 / 4000)).all())
    assert float((want - 1).abs().max()) > 0.2


def test_path_lengths_are_a_vector_jacobian_product(device, double):
    A = draw(6, 2, device=device, dtype=double)
    w = draw(B, 2, device=device, dtype=double, seed=1).requires_grad_()
    images = torch.tanh(w @ A.T)  # (B, 6)
    seeded = lambda: torch.Generator(device).manual_seed(4)
    found = style.path_lengths(images, w, generator=seeded())
    y = torch.randn(B, 6, generator=seeded(), device=device, dtype=double)
    J = torch.stack([torch.func.jacrev(lambda w: torch.tanh(A @ w))(v) for v in w.detach()])
    close(found, torch.einsum("bij,bi->bj", J, y).norm(dim=1), rtol=1e-12, atol=1e-12)
    (second,) = torch.autograd.grad(found.sum(), w)  # a penalty on it can be trained
    assert bool((second.abs() > 1e-6).any())


def test_the_mean_square_path_length_is_the_jacobians_norm(generator, device):
    n, A = 40_000, draw(6, 2, device=device, dtype=torch.float32)
    w = torch.zeros(n, 2, device=device, requires_grad=True)
    squares = style.path_lengths(w @ A.T, w, generator=generator).square()
    error = float(squares.std()) / math.sqrt(n)
    assert abs(float(squares.mean() - A.square().sum())) < 4 * error


def test_an_isometry_has_the_chi_distributions_mean(generator, device):
    n, a, k = 40_000, 2.3, 3
    Q = torch.linalg.qr(draw(8, k, device="cpu", dtype=torch.float32))[0].to(device)
    w = torch.zeros(n, k, device=device, requires_grad=True)
    lengths = style.path_lengths(a * w @ Q.T, w, generator=generator)
    mean = a * math.sqrt(2) * math.gamma((k + 1) / 2) / math.gamma(k / 2)
    assert abs(float(lengths.mean()) - mean) < 4 * float(lengths.std()) / math.sqrt(n)


def blur(x, kernel):
    """A periodic convolution."""
    side = kernel.shape[-1] // 2
    padded = F.pad(x.flatten(0, 1)[:, None], (side,) * 4, mode="circular")
    return F.conv2d(padded, kernel[None, None]).reshape(x.shape)


def test_a_fractional_shift_commutes_with_convolution_and_not_with_relu(device, double):
    x = draw(B, C, H, W, device=device, dtype=double) - 0.7
    kernel = draw(3, 3, device=device, dtype=double, seed=3)
    move = lambda x: style.fractional_shift(x, 0.3, -1.6)
    close(blur(move(x), kernel), move(blur(x, kernel)), rtol=0, atol=1e-12)
    assert float((move(x).relu() - move(x.relu())).abs().max()) > 0.1
    whole = style.fractional_shift(x, 2.0, -1.0)
    close(whole, x.roll((2, -1), (2, 3)), rtol=0, atol=1e-12)
    close(style.fractional_shift(move(x), -0.3, 1.6), x, rtol=0, atol=1e-12)


def finer(x, sides):
    """The same band-limited signal on a grid of other (odd) sides, and of the same heights."""
    spectrum, (h, w) = torch.fft.fftshift(torch.fft.fft2(x), (-2, -1)), x.shape[-2:]
    high, wide = (sides[0] - h) // 2, (sides[1] - w) // 2
    spectrum = F.pad(spectrum, (wide, wide, high, high))  # negative: cut off
    out = torch.fft.ifft2(torch.fft.ifftshift(spectrum, (-2, -1))).real
    return out * sides[0] * sides[1] / (h * w)


def test_relu_between_up_and_down_sampling_nearly_commutes(double, device):
    """Most frequencies that relu makes are kept from folding back. [StyleGAN3's argument]"""
    x = draw(B, C, 15, 15, device=device, dtype=double) - 0.7
    move = lambda x: style.fractional_shift(x, 0.5, 0.25)
    within = lambda x: finer(finer(x, (45, 45)).relu(), (15, 15))
    bare = float((move(x).relu() - move(x.relu())).square().mean())
    filtered = float((within(move(x)) - move(within(x))).square().mean())
    assert filtered < 0.1 * bare


def test_truncation_keeps_the_mean_and_scales_the_covariance(device, double):
    w = draw(500, 3, device=device, dtype=double)
    mean = w.mean(0)
    found = style.truncate(w, mean, 0.6)
    close(found.mean(0), mean, rtol=1e-12, atol=1e-12)
    close(torch.cov(found.T), 0.36 * torch.cov(w.T), rtol=1e-12, atol=1e-12)
    close(style.truncate(w, mean, 1.0), w, rtol=1e-15, atol=1e-15)


def test_bad_input_is_named(run_python):
    said = run_python(
        "import torch; from minigen import style\n"
        "x, s, k = torch.ones(2, 3, 5, 5), torch.ones(2, 3), torch.ones(4, 3, 3, 3)\n"
        "w = torch.ones(2, 3)\n"
        "for f in (lambda: style.adain(x, s.T, s), lambda: style.adain(x[0], s, s),\n"
        "          lambda: style.modulated_conv(x, k[:, :2], s),\n"
        "          lambda: style.modulated_conv(x, k[..., :2], s),\n"
        "          lambda: style.modulated_conv(x, k, s[:, :2]),\n"
        "          lambda: style.fractional_shift(x[..., :4], 0.5, 0.5),\n"
        "          lambda: style.path_lengths(x, w),\n"
        "          lambda: style.truncate(w, w[0], 1.2)):\n"
        "    try: f()\n"
        "    except ValueError as error: print(error)"
    ).splitlines()
    words = (
        "scale is one number", "features have the shape", "takes 2 channels", "odd side",
        "style is one number", "need odd sides", "w.requires_grad_() first", "psi = 1",
    )  # fmt: skip
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


def test_a_w_that_was_not_used_is_named():
    w = torch.ones(2, 3, requires_grad=True)
    other = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient leads"):
        style.path_lengths(2 * other, w)
