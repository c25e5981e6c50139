"""Augmentations: they pass gradients on, draw for each sample, and leak only where they must."""

from functools import partial

import pytest
import torch

from minigen import augment

EDITS = {
    "translate": partial(augment.translate, ratio=0.3, fill=-1.0),
    "flip": augment.flip,
    "cutout": partial(augment.cutout, fill=-1.0),
    "colour": augment.colour,
    "rotate": augment.rotate,
    "composed": augment.compose(partial(augment.translate, fill=-1.0), augment.cutout),
}


def images(n=5, c=3, side=4, dtype=torch.float64, device="cpu", seed=0):
    """Mean ≠ 0 and variance ≠ 1, no value twice."""
    g = torch.Generator().manual_seed(seed)
    return (0.7 * torch.randn(n, c, side, side, generator=g) + 0.3).to(device, dtype)


@pytest.mark.parametrize("name", EDITS)
def test_with_probability_0_nothing_changes(name, device, dtype, generator):
    x = images(dtype=dtype, device=device)
    assert torch.equal(EDITS[name](x, 0.0, generator=generator), x)


@pytest.mark.parametrize("name", EDITS)
def test_a_gradient_passes(name):
    x = images(2, 2).requires_grad_()
    edit = lambda x: EDITS[name](x, 1.0, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(edit, x)


@pytest.mark.parametrize("p", [0.3, 0.8, 1.0])
def test_turns_leak_only_at_p_1(p):
    values = torch.linalg.eigvalsh(augment.rotation_operator(p))
    want = torch.tensor([1 - p] * 3 + [1.0], dtype=torch.float64)
    torch.testing.assert_close(values, want, rtol=0, atol=1e-14)


def test_the_controller_rests_at_the_target():
    p = 0.0
    for _ in range(200):
        p = augment.adapt(p, 0.95 * torch.tensor(-3 * p).exp(), 0.6, 0.01)
    assert abs(p - torch.tensor(0.95 / 0.6).log() / 3) < 0.011


def test_consistency_is_the_weighted_square(generator):
    x, y, edit = images(), images(seed=1), lambda x, generator: 2 * x
    critic = lambda x: x.mean((1, 2, 3))
    found = augment.consistency(critic, x, y, edit, real_weight=2.0, fake_weight=3.0)
    torch.testing.assert_close(found, 2 * critic(x) ** 2 + 3 * critic(y) ** 2)
    assert augment.overfitting(torch.tensor([1.0, -2.0, 3.0, 0.5])) == 0.5
