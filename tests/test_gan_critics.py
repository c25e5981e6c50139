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


def test_a_flat_critic_is_penalised_but_moves_no_weight():
    """Slope w where x·w > 0 and 0 elsewhere: the penalties (‖w‖ − 1)² and 1, gradients 2 ½ a and 0.

    With a = (‖w‖ − 1) w/‖w‖ on two samples of five, which is all that moves w.
    """
    w = torch.tensor([0.6, -1.1, 0.4], dtype=DOUBLE, requires_grad=True)
    x = torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0], dtype=DOUBLE)[:, None] * w.detach()
    penalty = gan.gradient_penalty(lambda x: torch.relu(x @ w), x, x)
    length = float(w.detach().norm())
    want = torch.tensor([(length - 1) ** 2, 1, 1, (length - 1) ** 2, 1], dtype=DOUBLE)
    torch.testing.assert_close(penalty, want)
    (grad,) = torch.autograd.grad(penalty.sum(), w)
    torch.testing.assert_close(grad, 2 * 2 * (length - 1) * w.detach() / length)
    still = torch.zeros(3, dtype=DOUBLE, requires_grad=True)
    penalty = gan.gradient_penalty(lambda x: x @ still, x, x)
    assert penalty.tolist() == [1] * 5
    assert torch.autograd.grad(penalty.sum(), still)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_wgan_gp_survives_small_relu_critics(seed):
    """Of 16-16 ReLU critics every second one is flat on a sample of some step."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    critic = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0)
    )
    with torch.no_grad():
        critic[2].bias.fill_(-2.0)  # its second layer sleeps
    real, latents = lambda: 3 + torch.randn(32, 2), lambda n: torch.randn(n, 2)
    loop = gan.alternate(
        net, critic, gan.wasserstein, real, latents=latents, steps=5, critic_steps=2,
        penalty=lambda *given: 10 * gan.gradient_penalty(*given), progress=False,
    )  # fmt: skip
    assert len(list(loop)) == 5
    for p in (*net.parameters(), *critic.parameters()):
        assert bool(torch.isfinite(p).all())


def test_data_of_one_number_are_points_on_the_line():
    critic, x, y = lambda x: x.reshape(len(x)).sin(), draws(5) + 1, draws(5, seed=1)
    for penalty in (gan.r1, gan.r2):
        torch.testing.assert_close(penalty(critic, x), 0.5 * x.cos() ** 2)
    found, want = (
        gan.gradient_penalty(critic, a, b, generator=torch.Generator().manual_seed(0))
        for a, b in ((x, y), (x[:, None], y[:, None]))
    )
    torch.testing.assert_close(found, want)


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
    with pytest.raises(TypeError, match="logits are floats, got torch.int64"):
        check_logits(torch.zeros(3).long(), 3)


def test_batches_that_do_not_fit_are_named(run_python):
    """In a fresh interpreter, as users meet it."""
    said = run_python(
        "import torch; from torch import nn; from minigen import gan\n"
        "x, first = torch.ones(5, 3), lambda x: x[:, 0]\n"
        "critic = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))\n"
        "penalties = gan.r1, gan.r2, lambda critic, x: gan.gradient_penalty(critic, x, x)\n"
        "def tried(function, *given):\n"
        "    try: print('passed', function(*given))\n"
        "    except (TypeError, ValueError) as error: print(error)\n"
        "for bad in (x.long(), x[:0], x.numpy()):\n"
        "    for penalty in penalties: tried(penalty, first, bad)\n"
        "for penalty in penalties: tried(penalty, critic, x.double())\n"
        "tried(gan.gradient_penalty, critic, x, x.double())\n"
        "tried(gan.augment.consistency, critic, x, x.double(), lambda x: x)\n"
        "tried(gan.augment.overfitting, x[:0, 0])\n"
        "tried(gan.r1, lambda x: x.detach()[:, 0].numpy(), x)\n"
        "tried(gan.optimal_discriminator(lambda x: x[:, 0].numpy(), first), x)\n"
        "tried(gan.js, first, first, x[:0], x[:0]); tried(gan.js.bound, x[:0, 0], x[:, 0])\n"
        "real = lambda: x[:0]\n"
        "net = nn.Linear(3, 3)\n"
        "tried(lambda: gan.alternate(net, critic, gan.hinge, real, latents=first, steps=1))\n"
    ).splitlines()
    assert all("must be a float tensor of shape (B, ...), got torch.int64" in s for s in said[:3])
    assert all("holds no samples" in s for s in said[3:6])
    assert all("must be a float tensor of shape (B, ...)" in s for s in said[6:9])
    dtypes = "the states are torch.float64 but the net's parameters are torch.float32"
    assert all(s.startswith(dtypes) for s in said[9:12])
    assert said[12:14] == ["real and fake share one dtype, got torch.float32 and torch.float64"] * 2
    assert "logits holds no samples" in said[14] and "(5,), got ndarray" in said[15]
    assert "a tensor (5,), got ndarray" in said[16] and "x_p holds no samples" in said[17]
    assert "T holds no samples" in said[18] and "real() holds no samples" in said[19]
    assert len(said) == 20
