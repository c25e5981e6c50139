"""The convolutional autoencoder: its sizes, what it sees, what it learns, and its file."""

import pytest
import torch
from torch.testing import assert_close

from minigen import latent, train


def net(shape=(3, 16, 24), channels=5, factor=4, width=6):
    torch.manual_seed(0)
    return latent.ConvAutoencoder(shape, channels, factor, width)


def images(n=2, shape=(3, 16, 24), seed=0):
    return 0.4 + 1.7 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_sides_shrink_by_the_factor_and_come_back(factor):
    model, x = net(factor=factor), images()
    mean, log_var = model.encode(x)
    assert mean.shape == log_var.shape == (2, 5, 16 // factor, 24 // factor)
    assert model.decode(mean).shape == x.shape


def test_a_shifted_image_has_shifted_latents():
    """Convolutions with one stride: a shift by `factor` pixels moves interior latents by one."""
    model, x = net((1, 64, 64)).double(), images(1, (1, 64, 64)).double()
    x[:, :, :, 32:] = 0
    z, moved = (model.encode(image)[0] for image in (x, x.roll(4, dims=3)))
    assert_close(moved[:, :, 5:11, 6:11], z[:, :, 5:11, 5:10], rtol=0, atol=1e-12)
    back, along = model.decode(z), model.decode(z.roll(1, dims=3))
    assert_close(along[:, :, 24:40, 28:40], back[:, :, 24:40, 24:36], rtol=0, atol=1e-12)


def test_every_weight_learns():
    model = net(factor=8)
    loss = latent.loss(model, images(), kl=0.1, generator=torch.Generator().manual_seed(1))
    loss.mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_it_learns_images_by_heart():
    model, x = net((1, 8, 8), channels=4, factor=4, width=8), images(4, (1, 8, 8), seed=2)
    g = torch.Generator().manual_seed(0)
    seen = [*train.fit(
        lambda: latent.loss(model, x, generator=g).mean(), model, steps=150, lr=1e-2, progress=False
    )]  # fmt: skip
    assert seen[-1] < 0.1 * x.var() < seen[0]


def test_a_file_says_how_to_make_it(tmp_path):
    model, x = net(), images()
    train.save(tmp_path / "net.safetensors", model)
    again = train.rebuild(tmp_path / "net.safetensors")
    assert type(again) is latent.ConvAutoencoder and again.shape == (3, 16, 24)
    with torch.no_grad():
        assert torch.equal(again.decode(again.encode(x)[0]), model.decode(model.encode(x)[0]))


@pytest.mark.parametrize("factor, size", [(1, 16), (3, 24), (6, 24), (8, 12)])
def test_a_factor_that_does_not_fit_is_named(factor, size):
    with pytest.raises(ValueError, match=f"factor must be .* got {factor} for"):
        net((1, size, size), factor=factor)


@pytest.mark.parametrize("what", ["channels", "factor", "width"])
def test_a_count_that_is_none_is_named(what):
    with pytest.raises(ValueError, match=what):
        net(**{what: 0})
