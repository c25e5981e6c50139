"""Space exchanged for channels, shortcuts without parameters, and an image enlarged."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from minigen import latent, transformer

F64 = torch.float64
B = 5


def images(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 0.4 + 1.7 * torch.randn(shape, generator=g, dtype=F64)


@pytest.mark.parametrize("channels, factor", [(3, 2), (2, 3), (4, 1)])
def test_space_and_channels_are_exchanged_without_loss(channels, factor):
    x = images(B, channels, 2 * factor, 3 * factor)
    deep = latent.space_to_channel(x, factor)
    assert deep.shape == (B, channels * factor**2, 2, 3)
    assert torch.equal(latent.channel_to_space(deep, factor), x)
    assert_close(deep.norm(), x.norm())
    assert_close(latent.shrink(x, factor), nn.functional.avg_pool2d(x, factor))


def test_down_undoes_up_exactly_and_up_after_down_is_a_projection():
    up = latent.UpShortcut(Zero(2, 2.0), 4, 2, 2)
    down = latent.DownShortcut(Zero(4, 0.5), 2, 4, 2)
    small, large = images(B, 4, 3, 2), images(B, 2, 6, 4)
    assert torch.equal(down(up(small)), small)
    once = up(down(large))
    assert_close(up(down(once)), once, rtol=0, atol=1e-14)
    assert float((once - large).abs().max()) > 0.5


@pytest.mark.parametrize("channels, out, factor", [(3, 4, 2), (2, 6, 3), (1, 4, 2)])
def test_up_after_down_is_orthogonal_of_rank_out_and_loses_what_differs_in_a_group(
    channels, out, factor
):
    """As matrices on one patch: up = r downᵀ with r = n/out, and up∘down is symmetric."""
    n = channels * factor**2
    down = latent.DownShortcut(Zero(out, 1 / factor), channels, out, factor)
    up = latent.UpShortcut(Zero(channels, factor), out, channels, factor)
    pixels = torch.eye(n, dtype=F64).reshape(n, channels, factor, factor)
    P, D = up(down(pixels)).reshape(n, n), down(pixels).reshape(n, out)
    assert_close(P, P.T, rtol=0, atol=1e-14)
    assert_close(P @ P, P, rtol=0, atol=1e-14)
    assert int(torch.linalg.matrix_rank(P)) == out and abs(float(P.trace()) - out) < 1e-12
    assert_close(up(torch.eye(out, dtype=F64)[..., None, None]).reshape(out, n), n / out * D.T)
    x = images(B, channels, factor, factor)
    groups = latent.space_to_channel(x, factor).reshape(B, out, -1)
    lost = latent.space_to_channel(x - up(down(x)), factor).reshape(B, out, -1)
    assert_close(lost, groups - groups.mean(2, keepdim=True), rtol=0, atol=1e-12)


def test_the_shortcuts_add_to_what_is_learned():
    """A constant image stays as it is on the way, and the inner layers' answers are added."""
    ones = torch.ones(B, 2, 6, 4, dtype=F64)
    down, up = (
        latent.DownShortcut(Zero(4, 0.5, 0.3), 2, 4),
        latent.UpShortcut(Zero(2, 2, 0.7), 4, 2),
    )
    assert_close(down(ones), torch.full((B, 4, 3, 2), 1.3, dtype=F64))
    assert_close(up(torch.ones(B, 4, 3, 2, dtype=F64)), torch.full((B, 2, 6, 4), 1.7, dtype=F64))


@pytest.mark.parametrize("factor, patch, tokens", [(8, 2, 4096), (32, 1, 1024), (16, 1, 4096)])
def test_the_tokens_of_a_large_image(factor, patch, tokens):
    """Of 1024² pixels: 4096 for a factor of 8 and patches of 2 × 2, 1024 for a factor of 32."""
    z = latent.shrink(torch.zeros(1, 1, 1024, 1024), factor)
    assert transformer.patchify(z, patch).shape[1] == tokens == (1024 // factor // patch) ** 2


class Zero(nn.Module):
    """A layer that adds nothing, or one value everywhere, of the right shape."""

    def __init__(self, out, scale, value=0.0):
        super().__init__()
        self.out, self.scale, self.value = out, scale, value

    def forward(self, x):
        h, w = (round(n * self.scale) for n in x.shape[2:])
        return x.new_full((len(x), self.out, h, w), self.value)


def test_shortcuts_and_factors_that_do_not_fit_are_named():
    x = images(B, 3, 4, 6)
    for factor in (3, 4):  # one divides W = 6 alone, the other H = 4
        with pytest.raises(ValueError, match=f"factor of {factor} must divide H and W"):
            latent.space_to_channel(x, factor)
    with pytest.raises(ValueError, match="factor² = 4 must divide the channels"):
        latent.channel_to_space(x, 2)
    with pytest.raises(ValueError, match="12 channels cannot be averaged to 5"):
        latent.DownShortcut(Zero(5, 0.5), 3, 5)
    with pytest.raises(ValueError, match="5 channels cannot be repeated to 12"):
        latent.UpShortcut(Zero(3, 2), 5, 3)
    for layer, given in (
        (latent.DownShortcut(Zero(5, 0.5), 3, 4), x),
        (latent.UpShortcut(Zero(4, 2), 12, 3), images(B, 12, 2, 3)),
    ):
        with pytest.raises(ValueError, match=r"for states .* the net or denoiser gave"):
            layer(given)
    for make in (latent.DownShortcut, latent.UpShortcut):
        with pytest.raises(ValueError, match="factor"):
            make(Zero(3, 1), 3, 3, 0)


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


def test_an_upsampling_net_of_several_channels_answers_with_those_of_xt():
    """factor 3, two channels: xt's come first, on the way in and out; t is passed on."""
    times = []
    net = latent.UpsamplingNet(lambda x, t: times.append(t) or x, 3)
    x, low, t = images(B, 2, 3, 6), images(B, 2, 1, 2, seed=1), torch.linspace(0.1, 0.9, B)
    assert torch.equal(net(x, t, low), x) and times[0] is t
    swapped = latent.UpsamplingNet(lambda x, t: x.roll(2, 1), 3)
    enlarged = low.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.equal(swapped(x, t, low), enlarged)
    with pytest.raises(ValueError, match="factor"):
        latent.UpsamplingNet(swapped.net, 0)
