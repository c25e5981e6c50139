"""Adversarial training against what is known exactly: quadrature, closed forms, small games."""

import copy
import math

import pytest
import torch
from laws import DOUBLE, GRID, draws, integral, normal, two_laws
from torch import nn

from minigen import gan, oracle, train
from minigen.gan.divergences import log_ratio

# ---- the game --------------------------------------------------------------------------------


def test_the_best_discriminator_reaches_minus_log_4_plus_2_js():
    log_p, log_q, p, q = two_laws()
    best = gan.optimal_discriminator(normal(0.3, 0.7).log_prob, normal(1.5, 0.9).log_prob)(GRID)
    near = (p + q) > 1e-300
    torch.testing.assert_close(best[near], (p / (p + q))[near], rtol=1e-10, atol=0)
    value = -integral(p * gan.minimax.on_real(log_p - log_q)) - integral(
        q * gan.minimax.on_fake(log_p - log_q)
    )
    m = torch.logaddexp(log_p, log_q) - math.log(2)
    js = 0.5 * integral(p * (log_p - m)) + 0.5 * integral(q * (log_q - m))
    assert 0.1 < js < math.log(2) - 0.1
    assert abs(value + math.log(4) - 2 * js) < 1e-12


def test_no_other_discriminator_does_better():
    """First variation 0, second negative, along some direction in the logit."""
    log_p, log_q, p, q = two_laws()
    eps = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    logit = log_p - log_q + eps * torch.sin(3 * GRID[:, 0] + 0.4)
    value = -integral(p * gan.minimax.on_real(logit) + q * gan.minimax.on_fake(logit))
    (first,) = torch.autograd.grad(value, eps, create_graph=True)
    (second,) = torch.autograd.grad(first, eps)
    assert abs(first) < 1e-12 and second < -0.01


def best_logit(name, log_p, log_q):
    ratio = torch.tanh((log_p - log_q) / 2)  # (p − q)/(p + q)
    return {"least_squares": ratio, "hinge": ratio.sign()}.get(name, log_p - log_q)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "least_squares", "hinge"])
def test_each_loss_is_least_at_its_own_best_critic(name):
    """p(x) on_real(a) + q(x) on_fake(a) at each x: its best a, found on a fine grid of all."""
    loss, a = gan.losses[name], torch.linspace(-6, 6, 120_001, dtype=DOUBLE)
    for p, q in ((0.6, 0.2), (0.1, 0.35)):
        least = a[(p * loss.on_real(a) + q * loss.on_fake(a)).argmin()]
        want = best_logit(name, *torch.tensor([p, q], dtype=DOUBLE).log())
        assert abs(least - want) < 2e-4  # two steps of the grid


def test_what_the_best_critics_losses_measure():
    """Minimax: log 4 − 2 JS. Hinge: 2 (1 − TV). Least squares: 1 − ½ ∫ (p − q)²/(p + q)."""
    log_p, log_q, p, q = two_laws()
    ratio = best_logit("least_squares", log_p, log_q)
    far = 0.5 * integral((p - q).abs())
    chi = integral((p - q) ** 2 / (p + q).clamp(min=1e-300))
    assert abs(integral((p + q) * ratio**2) - chi) < 1e-12
    for name, want, tol in (("hinge", 2 * (1 - far), 1e-6), ("least_squares", 1 - chi / 2, 1e-12)):
        a, loss = best_logit(name, log_p, log_q), gan.losses[name]
        assert abs(integral(p * loss.on_real(a) + q * loss.on_fake(a)) - want) < tol


def test_a_saturated_critic_stops_only_the_minimax_generator():
    """∂ log(1 − σ(a)) = −σ(a), ∂ −log σ(a) = −(1 − σ(a)), and no overflow at any logit."""
    a = torch.tensor([-800.0, -10.0, 0.3, 7.0, 800.0], dtype=DOUBLE, requires_grad=True)
    for name, want in (("minimax", -torch.sigmoid(a)), ("nonsaturating", -torch.sigmoid(-a))):
        loss = gan.losses[name].generator(a)
        (slope,) = torch.autograd.grad(loss.sum(), a)
        torch.testing.assert_close(slope, want.detach(), rtol=1e-13, atol=0)
        assert bool(torch.isfinite(gan.losses[name].critic(a, a.flip(0))).all())
    a = a.detach()
    assert float(gan.minimax.generator(a)[1]) == pytest.approx(-math.log1p(math.exp(-10)))
    assert float(gan.nonsaturating.critic(a, a)[0]) == 800


def test_the_losses_by_hand():
    real, fake = (torch.tensor(v, dtype=DOUBLE) for v in ([2.0, -0.5, 0.3], [-1.5, 0.4, 0.2]))
    d, e = torch.sigmoid(real), torch.sigmoid(fake)
    want = {
        "minimax": (-d.log() - (1 - e).log(), (1 - e).log()),
        "nonsaturating": (-d.log() - (1 - e).log(), -e.log()),
        "least_squares": (((real - 1) ** 2 + (fake + 1) ** 2) / 2, (fake - 1) ** 2 / 2),
        "hinge": (torch.tensor([0.0, 1.5 + 1.4, 0.7 + 1.2], dtype=DOUBLE), -fake),
        "wasserstein": (fake - real, -fake),
    }
    assert set(want) == set(gan.losses)
    for name, loss in gan.losses.items():
        assert loss is getattr(gan, name)
        torch.testing.assert_close(loss.critic(real, fake), want[name][0], rtol=1e-14, atol=1e-15)
        torch.testing.assert_close(loss.generator(fake), want[name][1], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ["nonsaturating", "minimax"])
def test_which_divergence_the_generators_gradient_follows(name):
    """With D* frozen, −log D gives ∇(KL(q‖p) − 2 JS) and log(1 − D) gives ∇ 2 JS.

    Left by the generator's own samples x = θ + s z, right as integrals over x.
    """
    std, frozen = 0.9, (normal(0.3, 0.7), normal(1.5, 0.9))
    theta = torch.tensor(1.5, dtype=DOUBLE, requires_grad=True)
    logit = log_ratio(frozen[0].log_prob, frozen[1].log_prob, theta + std * GRID)
    loss = integral(normal(0.0, 1.0).log_prob(GRID).exp() * gan.losses[name].generator(logit))
    log_p = frozen[0].log_prob(GRID)
    log_q = -0.5 * ((GRID[:, 0] - theta) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))
    m = torch.logaddexp(log_p, log_q) - math.log(2)
    js = 0.5 * integral(log_p.exp() * (log_p - m) + log_q.exp() * (log_q - m))
    reverse = integral(log_q.exp() * (log_q - log_p))
    want = reverse - 2 * js if name == "nonsaturating" else 2 * js
    found, want = (torch.autograd.grad(value, theta)[0] for value in (loss, want))
    assert abs(want) > 0.1 and abs(found - want) < 1e-10


def test_disjoint_laws_are_log_2_apart_and_feel_no_pull():
    """Their Jensen–Shannon divergence is flat, their W1 is not."""
    x, y = draws(40, seed=1), draws(40, seed=2)
    theta = torch.tensor(18.0, dtype=DOUBLE, requires_grad=True)
    p = normal(-9.0, 0.2)
    log_q = lambda z: -0.5 * ((z[:, 0] - theta) / 0.2) ** 2 - math.log(0.2 * math.sqrt(2 * math.pi))
    js = gan.js(p.log_prob, log_q, -9 + 0.2 * x[:, None], theta + 0.2 * y[:, None])
    (slope,) = torch.autograd.grad(js, theta)
    assert abs(js - math.log(2)) < 1e-15 and slope == 0
    w1 = gan.wasserstein_1d(-9 + 0.2 * x, theta + 0.2 * y)
    (slope,) = torch.autograd.grad(w1, theta)
    assert abs(w1 - 27) < 0.3 and abs(slope - 1) < 1e-14


def test_the_game_spirals_out_stays_or_comes_home():
    """Moduli √(1 + h²); alternating 1; with R1 √(1 − γ h + h²) or, alternating, √(1 − γ h)."""
    radius = lambda matrix: float(torch.linalg.eigvals(matrix).abs().max())
    for h in (0.1, 0.7):
        assert radius(gan.game_matrix(h)) == pytest.approx(math.sqrt(1 + h * h), rel=1e-14)
        assert radius(gan.game_matrix(h, alternating=True)) == pytest.approx(1, rel=1e-14)
        damped = radius(gan.game_matrix(h, r1=1.1))
        assert damped == pytest.approx(math.sqrt(1 - 1.1 * h + h * h), rel=1e-13) and damped < 1
        both = radius(gan.game_matrix(h, alternating=True, r1=1.1))
        assert both == pytest.approx(math.sqrt(1 - 1.1 * h), rel=1e-13)


@pytest.mark.parametrize("alternating", [False, True])
def test_the_games_matrix_is_gradient_descent(alternating):
    """Of the two losses of a Wasserstein GAN with R1: data 0, fake θ, critic −ψ x."""
    h, gamma, loss = 0.3, 0.8, gan.wasserstein
    theta, psi = (torch.tensor(v, dtype=DOUBLE, requires_grad=True) for v in (1.3, -0.4))
    critic, zero = lambda x: -psi * x[:, 0], torch.zeros(1, 1, dtype=DOUBLE)
    start = torch.stack([theta, psi]).detach()

    def player(weight):
        fake = critic(theta.reshape(1, 1))
        if weight is theta:
            return loss.generator(fake).sum()
        return (loss.critic(critic(zero), fake) + gamma * gan.r1(critic, zero)).sum()

    def descend(weight, grad):
        with torch.no_grad():
            weight -= h * grad

    (for_theta,) = torch.autograd.grad(player(theta), theta)
    if alternating:
        descend(theta, for_theta)
    (for_psi,) = torch.autograd.grad(player(psi), psi)
    descend(psi, for_psi)
    if not alternating:
        descend(theta, for_theta)
    want = gan.game_matrix(h, alternating=alternating, r1=gamma) @ start
    torch.testing.assert_close(torch.stack([theta, psi]).detach(), want, rtol=1e-14, atol=1e-15)


# ---- the loop --------------------------------------------------------------------------------


class Affine(nn.Module):
    """A generator with two weights, x = m + s z."""

    def __init__(self, d=2):
        super().__init__()
        self.m, self.s = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.ones(d))

    def forward(self, z):
        if z.shape[1:] != self.m.shape:
            raise ValueError(f"z has width {z.shape[1]}, not {len(self.m)}")
        return self.m + self.s * z


def small_critic(d=2, width=16):
    return nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 1), nn.Flatten(0))


def setting(seed=0, device="cpu"):
    """Nets, data of mean 2 and std 0.5, and latents, from one seed."""
    torch.manual_seed(seed)
    nets = Affine().to(device), small_critic().to(device)
    g = torch.Generator(device).manual_seed(seed)
    randn = lambda n: torch.randn(n, 2, generator=g, device=device)
    return *nets, lambda: 2 + 0.5 * randn(7), randn, g


def test_the_loop_is_the_one_written_out():
    """Two Adams by hand: bit for bit, with penalty, three critic steps, clipping and an average."""
    net, critic, real, latents, g = setting()
    by_hand = copy.deepcopy((net, critic))
    ema = train.Ema(net, 0.5)
    penalty = lambda c, r, f: 3 * gan.gradient_penalty(c, r, f, generator=g)
    start, kinds = (
        g.get_state(),
        {"critic_steps": 3, "lr": 0.02, "critic_lr": lambda n: 0.05 / (1 + n)},
    )
    clip = lambda c: gan.clip_weights(c, 0.6)
    loop = gan.alternate(
        net, critic, gan.hinge, real, latents=latents, steps=4, penalty=penalty, constrain=clip,
        ema=ema, progress=False, **kinds,
    )  # fmt: skip
    g.set_state(start)
    found = list(loop)

    g.set_state(start)
    net2, critic2 = by_hand
    ema2 = train.Ema(net2, 0.5)
    adam = torch.optim.Adam(net2.parameters(), 0.02, betas=(0.0, 0.9), fused=True)
    adam_c = torch.optim.Adam(critic2.parameters(), betas=(0.0, 0.9), fused=True)
    for n in range(4):
        adam_c.param_groups[0]["lr"] = 0.05 / (1 + n)
        for _ in range(3):
            x = real()
            fake = net2(latents(7)).detach()
            r, f = critic2(x), critic2(fake)
            value = (torch.relu(1 - r) + torch.relu(1 + f)).mean()
            adam_c.zero_grad()
            (value + penalty(critic2, x, fake).mean()).backward()
            adam_c.step()
            clip(critic2)
        other = -critic2(net2(latents(7))).mean()
        adam.zero_grad()
        other.backward()
        adam.step()
        ema2.update()
        torch.testing.assert_close(found[n], gan.Losses(value.detach(), other.detach()))
    ours = [*net.parameters(), *critic.parameters(), *ema.averages]
    theirs = [*net2.parameters(), *critic2.parameters(), *ema2.averages]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not found[0].critic.requires_grad and found[0].critic.shape == ()


@pytest.mark.long
@pytest.mark.parametrize("name", ["nonsaturating", "least_squares", "hinge", "wasserstein"])
def test_the_generator_finds_the_data(name, device):
    """Data of mean 2 and std 0.5 from N(0, 1): both parameters arrive, under R1 or a penalty."""
    net, critic, real, latents, g = setting(1, device)
    penalty = lambda c, r, f: gan.gradient_penalty(c, r, f, generator=g)
    if name != "wasserstein":
        penalty = lambda c, r, f: 0.3 * gan.r1(c, r)
    real = lambda: 2 + 0.5 * latents(64)
    for _ in gan.alternate(
        net, critic, gan.losses[name], real, latents=latents, steps=400, lr=train.cosine(0.02, 400),
        penalty=penalty, progress=False,
    ):  # fmt: skip
        pass
    mean, std = net.m.detach(), net.s.detach().abs()
    near = 0.35 if name == "wasserstein" else 0.2  # its critic's slope never vanishes, it circles
    assert float((mean - 2).abs().max()) < near and float((std - 0.5).abs().max()) < near


def test_the_loop_follows_the_seed():
    runs = []
    for seed in (3, 3, 4):
        net, critic, real, latents, _ = setting(seed)
        loop = gan.alternate(
            net, critic, gan.minimax, real, latents=latents, steps=3, progress=False
        )
        runs.append(torch.stack([torch.stack(v) for v in loop]))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_each_player_moves_only_its_own_weights():
    net, critic, real, latents, _ = setting()
    critic[0].requires_grad_(False)  # a frozen layer stays
    before = copy.deepcopy((net, critic))
    rates = {"lr": 0.0, "critic_lr": 0.1}
    list(
        gan.alternate(
            net, critic, gan.hinge, real, latents=latents, steps=2, progress=False, **rates
        )
    )
    assert torch.equal(net.m, before[0].m) and torch.equal(net.s, before[0].s)
    assert torch.equal(critic[0].weight, before[1][0].weight)
    assert not torch.equal(critic[2].weight, before[1][2].weight)


def test_the_bar_shows_both_losses_and_closes(capsys):
    net, critic, real, latents, _ = setting()
    list(gan.alternate(net, critic, gan.hinge, real, latents=latents, steps=3))
    said = capsys.readouterr().err
    assert "3/3" in said and "critic" in said and "generator" in said
    for _ in gan.alternate(net, critic, gan.hinge, real, latents=latents, steps=3, progress=False):
        break
    assert capsys.readouterr().err == ""


def test_an_interrupt_says_where():
    net, critic, real, latents, _ = setting()
    calls = iter(range(100))

    def stopped():
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real()

    with pytest.raises(KeyboardInterrupt, match="stopped in step 3 of 9"):
        list(
            gan.alternate(net, critic, gan.hinge, stopped, latents=latents, steps=9, progress=False)
        )


def test_a_loss_that_explodes_is_named():
    net, critic, real, latents, _ = setting()
    endless = lambda c, r, f: c(r) * math.nan
    loop = gan.alternate(
        net, critic, gan.hinge, real, latents=latents, steps=9, penalty=endless, progress=False
    )
    with pytest.raises(ValueError, match="the critic's loss is nan at step 1"):
        list(loop)


class Image(nn.Module):
    """A critic that gives an image of logits, as one without its last pooling does."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * x.flatten(1)[:, :1].reshape(-1, *self.shape)


def test_what_does_not_fit_is_named_at_the_call():
    net, critic, real, latents, _ = setting()
    fit = {"net": net, "critic": critic, "loss": gan.hinge, "real": real,
           "latents": latents, "steps": 3}  # fmt: skip
    wide = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 2))
    for change, message in (
        ({"latents": lambda n: torch.randn(n, 3)}, r"does not take latents of shape \(7, 3\)"),
        ({"net": wide}, r"does not take latents of shape \(7, 2\), torch.float32: mat1"),
        ({"latents": lambda n: torch.randn(4, 2)}, r"must give 7 latents, \(7, L\), got \(4, 2\)"),
        ({"latents": lambda n: 3.0}, "must give 7 latents, .* got float"),
        ({"net": nn.Linear(2, 3)}, r"samples \(7, 3\), the data are \(7, 2\)"),
        ({"critic": small_critic(3)}, r"does not take data of shape \(7, 2\)"),
        ({"critic": Image((1,))}, r"one number for each sample, shape \(7,\), got \(7, 1\)"),
        ({"critic": Image((1, 1, 1))}, r"got \(7, 1, 1, 1\)"),
        ({"net": nn.Identity()}, "the generator has no parameters to train"),
        ({"critic": nn.Flatten(0)}, "the critic has no parameters to train"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"critic_steps": 0}, "critic_steps must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            gan.alternate(**{**fit, **change})
    for change, message in (({"real": lambda: None}, "real\\(\\) must be a float tensor"),):
        with pytest.raises(TypeError, match=message):
            gan.alternate(**{**fit, **change})


def test_a_wrong_loss_or_average_is_named(run_python):
    said = run_python(
        "import torch; from torch import nn; from minigen import gan\n"
        "nets, draw = (nn.Linear(2, 2), nn.Linear(2, 1)), lambda: torch.zeros(3, 2)\n"
        "for loss, ema in (('hinge', None), (gan.hinge, 0.99)):\n"
        "    try: gan.alternate(*nets, loss, draw, latents=torch.zeros, steps=1, ema=ema)\n"
        "    except TypeError as error: print(error)\n"
    ).splitlines()
    assert "must be a gan.Loss" in said[0] and "must be a train.Ema" in said[1]


def test_a_critic_that_gives_an_image_is_named(run_python):
    """In every function that takes logits or a critic; in a fresh interpreter, as users meet it."""
    said = run_python(
        "import torch; from minigen import gan\n"
        "image, x = torch.zeros(5, 1, 8, 8), torch.ones(5, 3, requires_grad=True)\n"
        "logits = torch.zeros(5)\n"
        "def tried(function, *given):\n"
        "    try: print('passed', function(*given))\n"
        "    except ValueError as error: print(error)\n"
        "for real, fake in ((image, image), (logits, image), (logits, logits[:, None])):\n"
        "    tried(gan.hinge.critic, real, fake)\n"
        "tried(gan.hinge.generator, image)\n"
        "tried(gan.wasserstein.critic, logits, torch.zeros(4))\n"
        "for penalty in (gan.r1, gan.r2): tried(penalty, lambda x: x, x)\n"
        "tried(gan.gradient_penalty, lambda x: x[:, :1], x, x)\n"
        "tried(gan.gradient_penalty, lambda x: x[:, 0], x, x[:3])\n"
        "tried(gan.r1, lambda x: x.detach()[:, 0], x)\n"
        "tried(gan.wasserstein_1d, x, x)\n"
        "tried(gan.wasserstein_1d, logits[:0], logits)\n"
        "tried(gan.js, lambda x: x, lambda x: x, x, x)\n"
        "tried(gan.js, lambda x: x[:, 0], lambda x: x[:, 0], x, x[:3])\n"
        "tried(gan.js.bound, image, logits)\n"
        "tried(gan.optimal_discriminator(lambda x: x, lambda x: x), x)\n"
    ).splitlines()
    assert all("one number for each sample" in line for line in said[:8]), said
    assert "shape (B,), got (5, 1, 8, 8)" in said[0] and "shape (5,), got (5, 1)" in said[2]
    assert "shape (5,), got (4,)" in said[4]
    assert "real and fake share one shape" in said[8] and "no gradient leads" in said[9]
    assert "samples of numbers" in said[10] and "samples of numbers" in said[11]
    assert "log density gives one number" in said[12] and "halves of one mixture" in said[13]
    assert "T gives one number" in said[14] and "log density" in said[15] and len(said) == 16


# ---- modes -----------------------------------------------------------------------------------


def test_modes_are_counted():
    ring = oracle.GaussianMixture.ring(8, 1.4, 0.1).to(DOUBLE)
    counts = torch.tensor([300, 5, 0, 100, 100, 100, 100, 95])
    x = ring.means.repeat_interleave(counts, 0)
    hit, chi2 = gan.mode_coverage(x, ring)
    assert int(hit) == 6  # 5 is below a tenth of the 100 expected
    assert chi2 == pytest.approx((200**2 + 95**2 + 100**2 + 5**2) / 100)
    assert int(gan.mode_coverage(x, ring, least=0.04).hit) == 7
    far = ring.means + 0.31 * ring.means / 1.4  # 3.1 standard deviations outward
    assert int(gan.mode_coverage(far, ring).hit) == 0 and gan.mode_coverage(far, ring).chi2 == 0
    near = ring.means + 0.29 * ring.means / 1.4
    assert int(gan.mode_coverage(near, ring).hit) == 8


def test_unequal_modes_each_by_its_own_weight_and_stds():
    weights, means = torch.tensor([0.2, 0.8], dtype=DOUBLE), torch.tensor([[-3.0, 1.0], [4.0, 0.0]])
    stds = torch.tensor([[0.1, 1.0], [0.5, 0.2]], dtype=DOUBLE)
    law = oracle.GaussianMixture(weights, means.to(DOUBLE), stds)
    x = torch.cat([means[:1].expand(30, 2) + torch.tensor([0.0, 2.5]), means[1:].expand(70, 2)])
    hit, chi2 = gan.mode_coverage(x.to(DOUBLE), law)
    assert int(hit) == 2 and chi2 == pytest.approx(10**2 / 20 + 10**2 / 80)
    x[:30] += torch.tensor([0.4, 0.0])  # 4 stds of the first axis
    assert int(gan.mode_coverage(x.to(DOUBLE), law).hit) == 1


def test_fresh_samples_have_chi2_of_k_minus_1(device, generator):
    """Its mean over 40 draws is 7 within 4 standard errors, √(14/40) each; all 8 are hit."""
    ring = oracle.GaussianMixture.ring(8, 1.4, 0.1).to(device)
    found = [gan.mode_coverage(ring.sample(500, generator=generator)[0], ring) for _ in range(40)]
    assert all(int(c.hit) == 8 for c in found)
    assert abs(float(torch.stack([c.chi2 for c in found]).mean()) - 7) < 4 * math.sqrt(14 / 40)


def test_samples_that_are_no_points_of_the_mixture():
    ring = oracle.GaussianMixture.ring()
    with pytest.raises(ValueError, match="3 coordinates a sample, the mixture 2"):
        gan.mode_coverage(torch.zeros(5, 3), ring)
    with pytest.raises(ValueError, match="NaN"):
        gan.mode_coverage(torch.full((5, 2), math.nan), ring)
