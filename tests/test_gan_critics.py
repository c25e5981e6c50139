"""Penalties and bounds of critics whose slopes are known exactly."""

import math

import pytest
import torch
from laws import DOUBLE, draws, normal
from torch import nn

from minigen import gan
from minigen.gan.critics import check_logits

# ---- what keeps a critic smooth --------------------------------------------------------------


class Recorder:
    """The critic c ‖x‖²/2, slope c x, which remembers its inputs."""

    def __init__(self, c=1.0):
        self.c, self.seen = c, []

    def __call__(self, x):
        self.seen.append(x.detach())
        return self.c * 0.5 * x.flatten(1).square().sum(1)


def test_the_penalty_looks_at_one_point_of_each_segment(device, generator):
    real = draws(6, 1, 3, 4, seed=1, dtype=torch.float32).to(device) + 2
    fake = 0.3 * draws(6, 1, 3, 4, seed=2, dtype=torch.float32).to(device)
    critic = Recorder(0.7)
    found = gan.gradient_penalty(critic, real, fake, generator=generator)
    (x,) = critic.seen
    u = ((x - fake) / (real - fake)).flatten(1)
    assert x.shape == real.shape and float(u.std(1).max()) < 1e-4
    u = u.mean(1)
    assert bool(((u > 0) & (u < 1)).all()) and float(u.std()) > 0.05
    want = (0.7 * x.flatten(1).norm(dim=1) - 1) ** 2
    torch.testing.assert_close(found, want)


def test_the_point_is_uniform_on_the_segment():
    """Real = 0 and ‖fake‖ = 1: under ‖x‖²/2 the penalty is (‖x‖ − 1)² = u²."""
    fake = torch.zeros(20_000, 3, dtype=DOUBLE)
    fake[:, 1] = 1
    found = gan.gradient_penalty(
        Recorder(), torch.zeros_like(fake), fake, generator=torch.Generator().manual_seed(1)
    )
    u, n = found.sqrt().sort().values, len(found)
    gap = (u - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 1.95 / math.sqrt(n)  # Kolmogorov's distance at a level of 0.1 %


def linear_critic(w):
    return lambda x: x.flatten(1) @ w


@pytest.mark.parametrize("length", [0.4, 2.5])
def test_penalties_of_a_linear_critic_and_their_gradients(length):
    """Slope w everywhere: (‖w‖ − 1)² and ½ ‖w‖², with gradients 2 (‖w‖ − 1) w/‖w‖ and w."""
    w = draws(6, seed=4)
    w = (length * w / w.norm()).requires_grad_()
    real, fake, unit = draws(5, 2, 3) + 1, draws(5, 2, 3, seed=9), w.detach() / length
    for penalty, value, slope in (
        (gan.gradient_penalty(linear_critic(w), real, fake), (length - 1) ** 2, 2 * (length - 1)),
        (gan.r1(linear_critic(w), real), length**2 / 2, length),
        (gan.r2(linear_critic(w), fake), length**2 / 2, length),
    ):
        torch.testing.assert_close(penalty, torch.full((5,), value, dtype=DOUBLE))
        (grad,) = torch.autograd.grad(penalty.mean(), w)
        torch.testing.assert_close(grad, slope * unit, rtol=1e-12, atol=1e-12)


def test_r1_and_r2_are_half_the_squared_score():
    law = normal(0.6, 0.7, 3)
    x = draws(5, 3) + 1
    want = 0.5 * law.score(x).square().sum(1)
    for penalty in (gan.r1, gan.r2):
        torch.testing.assert_close(penalty(law.log_prob, x), want, rtol=1e-12, atol=0)
        with torch.no_grad():
            assert not penalty(law.log_prob, x).requires_grad


def test_clipping_bounds_every_weight():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    before = [p.detach().clone() for p in net.parameters()]
    gan.clip_weights(net, 0.2)
    for p, old in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old.clamp(-0.2, 0.2), rtol=0, atol=0)
    for limit in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="limit > 0"):
            gan.clip_weights(net, limit)


def test_the_spectral_norm_becomes_one():
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4, 7), nn.ReLU(), nn.Linear(7, 1)
    ).double()
    own = [net[i].weight.detach().clone() for i in (0, 3)]
    assert gan.spectral_norm(net) is net
    x = draws(3, 2, 4, 4)
    with torch.no_grad():
        for _ in range(600):
            net(x)
    for layer, w in zip((net[0], net[3]), own, strict=True):
        top = torch.linalg.matrix_norm(w.flatten(1), 2)
        torch.testing.assert_close(layer.weight.detach(), w / top, rtol=1e-12, atol=1e-12)
    assert float(net[5].weight.detach().norm()) == pytest.approx(1, abs=1e-12)
    for bad in (net, nn.ReLU()):
        with pytest.raises(ValueError, match="call it once"):
            gan.spectral_norm(bad)


def test_logits_are_one_number_for_each_sample():
    logits = torch.zeros(3)
    assert check_logits(logits, 3) is logits and check_logits(logits) is logits
    for bad in (torch.zeros(()), torch.zeros(3, 1), torch.zeros(4), 0.5):
        with pytest.raises(ValueError, match="one number for each sample"):
            check_logits(bad, 3)
