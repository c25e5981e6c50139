"""Guidance against the oracle, for whose mixtures every guided field is known."""

import math

import pytest
import torch
from cases import PATHS, line, mixture

from minigen import ddim, ddpm, flow, guidance, nets, oracle, paths, score, targets
from minigen.shapes import like

MID = [name for name in PATHS if name != "ve"]


def states(n=7, dtype=torch.float64, device="cpu", seed=3):
    x, _ = mixture().sample(n, generator=torch.Generator().manual_seed(seed))
    return (1.3 * x).to(device, dtype)


def times(*values, device="cpu"):
    return torch.tensor(values, dtype=torch.float64, device=device)


def chosen(log_p, label):
    """log p(label | xt) of one label: (xt, t) -> (B,)."""
    return lambda xt, t: log_p(xt, t)[:, label]


# ---- the exact field -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_classifier_makes_the_exact_conditional_denoiser(name, device, double):
    path, law, xt = PATHS[name], mixture(double, device), states(dtype=double, device=device)
    for t in (times(0.37, device=device)[0], torch.linspace(0.2, 0.8, 7, device=device).double()):
        for k in range(3):
            log_p = chosen(law.classifier(path), k)
            guided = guidance.classifier(law.denoiser(path), path, log_p)
            exact = law.denoiser(path, label=k)(xt, t)
            close = torch.testing.assert_close
            close(guided(xt, t), exact, rtol=1e-12, atol=1e-12 * float(exact.abs().max()) + 1e-11)


@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.0, 3.0])
def test_cfg_is_the_score_of_the_tilted_marginal(gamma, device, double):
    """(1 − γ) ∇ log p_t + γ ∇ log p_t(· | k), by automatic differentiation of the log density."""
    path, law, t = PATHS["vp"], mixture(double, device), times(0.3, device=device)[0]
    xt = states(dtype=double, device=device).requires_grad_()
    tilted = (1 - gamma) * law.at(path, t).log_prob(xt) + gamma * law.only(1).at(path, t).log_prob(
        xt
    )
    (want,) = torch.autograd.grad(tilted.sum(), xt)
    guided = guidance.cfg(law.denoiser(path, label=1), law.denoiser(path), gamma)
    found = score.from_denoiser(guided, path)(xt.detach(), t)
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)


def test_the_three_forms_are_one(double, device):
    """The forms (1 + w) ε_c − w ε_u, γ = 1 + w, and guidance by log p_c/p_u are one."""
    path, law, t = PATHS["ddpm-linear"], mixture(double, device), times(0.42, device=device)[0]
    xt, w = states(dtype=double, device=device), 1.7
    u, c = law.denoiser(path), law.denoiser(path, label=2)
    by_cfg = guidance.cfg(c, u, 1 + w)(xt, t)
    torch.testing.assert_close(by_cfg, (1 + w) * c(xt, t) - w * u(xt, t), rtol=1e-12, atol=1e-12)
    log_p = chosen(law.classifier(path), 2)
    by_classifier = guidance.classifier(u, path, log_p, scale=1 + w)(xt, t)
    torch.testing.assert_close(by_cfg, by_classifier, rtol=1e-11, atol=1e-11)
    on_top = guidance.classifier(c, path, log_p, scale=w)(xt, t)  # guidance of a conditional model
    torch.testing.assert_close(by_cfg, on_top, rtol=1e-11, atol=1e-11)


def test_guided_logits_are_the_exact_tilt(double, device):
    """For logits the tilt is no approximation: softmax of u + γ (c − u) ∝ p_c^γ p_u^{1−γ}."""
    c, u = states(5, double, device), states(5, double, device, seed=4)
    zero, gamma = times(0.0, device=device)[0], 2.7
    guided = guidance.cfg(lambda x, t: c, lambda x, t: u, gamma)(c, zero)
    tilted = c.softmax(1) ** gamma * u.softmax(1) ** (1 - gamma)
    want = tilted / tilted.sum(1, keepdim=True)
    torch.testing.assert_close(guided.softmax(1), want, rtol=1e-12, atol=1e-14)


def test_classifier_guidance_in_eps(double, device):
    """ε̂ = ε − γ b ∇ log p (E2), with E[x0 | xt] = (xt − b ε̂)/a."""
    path, law, t = PATHS["cosine"], mixture(double, device), times(0.6, device=device)[0]
    xt, gamma = states(dtype=double, device=device), 2.5
    log_p = chosen(law.classifier(path), 0)
    grad = guidance.log_prob_gradient(log_p, xt, t)
    eps = law.eps(path)(xt, t) - gamma * path.b(t) * grad
    want = (xt - path.b(t) * eps) / path.a(t)
    found = guidance.classifier(law.denoiser(path), path, log_p, gamma)(xt, t)
    torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)


def test_the_ancestral_mean_is_the_tilted_normal(double, device):
    """N(μ, Σ) times e^{γ gᵀx} is N(μ + γ Σ g, Σ) (E1): their log ratio is gᵀx plus a constant."""
    mean, grad = states(5, double, device), states(5, double, device, seed=4)
    one, each = times(0.3, device=device)[0], times(0.1, 0.2, 0.3, 0.5, 0.9, device=device)
    for var in (one, each, 0.1 + mean.square()):  # the last: a variance for each coordinate
        shifted = guidance.classifier_mean(mean, var, grad, 1.6)
        v = var if var.ndim > 1 else like(var, mean)
        for x in (states(5, double, device, seed=5), states(5, double, device, seed=6)):
            log_ratio = (-0.5 * ((x - shifted) ** 2 - (x - mean) ** 2) / v).sum(1)
            at_mean = (-0.5 * ((mean - shifted) ** 2) / v).sum(1)
            tilt = 1.6 * (grad * (x - mean)).sum(1)
            torch.testing.assert_close(log_ratio - at_mean, tilt, rtol=1e-11, atol=1e-11)


def test_the_normaliser_of_the_guided_step_is_the_classifier():
    """E[p(y | x_s) | x_t] = p(y | x_t), by quadrature (E14): the step's constant depends on x_t."""
    law, path = line(), PATHS["vp"]
    t, s, xt = times(0.5)[0], times(0.45)[0], torch.tensor([[-1.0], [0.5]], dtype=torch.float64)
    grid = torch.linspace(-8, 8, 8001, dtype=torch.float64)[:, None]
    ratio = path.a(t) / path.a(s)
    var = path.b(t) ** 2 - ratio**2 * path.b(s) ** 2
    step = torch.exp(-0.5 * (xt - ratio * grid.T) ** 2 / var)  # q(x_t | x_s), (2, n)
    joint = step * law.at(path, s).log_prob(grid).exp()
    p_y = law.classifier(path)(grid, s)[:, 1].exp()
    found = (joint * p_y).sum(1) / joint.sum(1)
    want = law.classifier(path)(xt, t)[:, 1].exp()
    torch.testing.assert_close(found, want, rtol=0, atol=1e-9)
    assert float(want[1] - want[0]) > 0.2  # no constant


# ---- what guided samplers sample -------------------------------------------------------------


def normals(v_u=1.0, v_c=0.25, mean=0.8):
    """Unconditional N(0, v_u), conditional N(mean, v_c), and their denoisers on a VE path."""
    kind = {"dtype": torch.float64}
    path = paths.VE(sigma_min=1e-3, sigma_max=80.0)
    u = oracle.GaussianMixture.isotropic(torch.zeros(1, 1, **kind), math.sqrt(v_u))
    c = oracle.GaussianMixture.isotropic(torch.full((1, 1), mean, **kind), math.sqrt(v_c))
    return path, u.denoiser(path), c.denoiser(path)


def guided_moments(gamma, n):
    """Mean and variance that n DDIM steps make of N(0, 80²): their map is affine, so two points."""
    path, u, c = normals()
    start = 80.0 * torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    ts = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    *_, x = ddim.sample(guidance.cfg(c, u, gamma), path, start, ts)
    return float(x[0]), float((x[1] - x[0]) ** 2)


@pytest.mark.long
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 4.0])
def test_the_guided_variance_is_geometric_and_of_first_order(gamma):
    """V_u^{1−γ} V_c^γ, not the tilted density's harmonic mean; at finite σ_max the exact slope."""

    def slope(s):  # d log x / d log σ integrates to ((v_u + σ²)^{1−γ} (v_c + σ²)^γ)^½
        return (1.0 + s * s) ** (1 - gamma) * (0.25 + s * s) ** gamma

    exact = slope(1e-3) / slope(80.0) * 80.0**2
    assert abs(exact / 0.25**gamma - 1) < 2e-3  # σ_max → ∞: V_u^{1−γ} V_c^γ
    errors = [abs(guided_moments(gamma, n)[1] / exact - 1) for n in (60, 120, 240)]
    assert errors[2] < 0.12
    orders = [math.log2(a / b) for a, b in zip(errors[:-1], errors[1:], strict=True)]
    assert all(0.85 < order < 1.15 for order in orders)
    harmonic = 1 / ((1 - gamma) + gamma / 0.25)
    if gamma > 1:
        assert exact < 0.75 * harmonic


def test_the_guided_mean_is_the_integral():
    """γ M_c ∫ σ/(V_c + σ²) (V_u/(V_u + σ²))^{(1−γ)/2} (V_c/(V_c + σ²))^{γ/2} dσ."""
    gamma, v_u, v_c, mean = 3.0, 1.0, 0.25, 0.8
    u = torch.linspace(math.log(1e-3), math.log(80.0), 200_001, dtype=torch.float64)
    s = u.exp()
    inside = s / (v_c + s**2) * (v_u / (v_u + s**2)) ** ((1 - gamma) / 2)
    inside = inside * (v_c / (v_c + s**2)) ** (gamma / 2)
    exact = gamma * mean * float((inside * s).sum() * (u[1] - u[0]))
    errors = [abs(guided_moments(gamma, n)[0] - exact) for n in (120, 240)]
    assert errors[1] < 0.03 and 1.7 < errors[0] / errors[1] < 2.3


# ---- one call, and composition ---------------------------------------------------------------


class Counting(torch.nn.Module):
    """A net whose output depends on each row's own state, time and label; it counts its calls."""

    def __init__(self, dtype=torch.float64, classes=3):
        super().__init__()
        self.net = nets.MLP(2, hidden=8, classes=classes).to(dtype)
        self.net.last.reset_parameters()  # away from the zero output at birth
        self.classes, self.calls = classes, []

    def forward(self, xt, t, label=None):
        self.calls.append(len(xt))
        return self.net(xt, t, label)


@pytest.mark.parametrize("label", [2, "each"])
def test_one_call_gives_what_two_give(label, double, device):
    torch.manual_seed(0)
    net, path, xt = Counting(double).to(device), PATHS["vp"], states(dtype=double, device=device)
    label = torch.arange(7, device=device) % 3 if label == "each" else label
    c, u = (paths.denoiser(net, path, targets.eps, k) for k in (label, None))
    for t in (times(0.4, device=device)[0], torch.linspace(0.1, 0.9, 7, device=device).double()):
        want = u(xt, t) + 2.5 * (c(xt, t) - u(xt, t))
        net.calls.clear()
        torch.testing.assert_close(guidance.cfg(c, u, 2.5)(xt, t), want, rtol=1e-12, atol=1e-12)
        assert net.calls == [14]
        for scale, alone in ((0.0, u), (1.0, c)):
            net.calls.clear()
            found = guidance.cfg(c, u, scale)(xt, t)
            assert net.calls == [7]
            assert torch.equal(found, alone(xt, t))


def test_guidance_away_from_one_class_and_towards_none(double, device):
    """u + γ (c − u) with the null label in either place, or in neither: each half keeps its own."""
    torch.manual_seed(0)
    net, path, xt = Counting(double).to(device), PATHS["vp"], states(dtype=double, device=device)
    t = torch.linspace(0.1, 0.9, 7, device=device).double()
    for labels in ((None, 2), (1, 2), (2, 1)):
        c, u = (paths.denoiser(net, path, targets.eps, k) for k in labels)
        rows = [torch.full((7,), 3 if k is None else k, device=device) for k in labels]  # null is K
        (a, b), (y_c, y_u) = (
            (like(k(t), xt) for k in (path.a, path.b)),
            (net(xt, t, k) for k in rows),
        )
        want = (xt - b * (y_u + 2.5 * (y_c - y_u))) / a
        net.calls.clear()
        torch.testing.assert_close(guidance.cfg(c, u, 2.5)(xt, t), want, rtol=1e-11, atol=1e-11)
        assert net.calls == [14]


def test_two_networks_are_called_by_themselves(double, device):
    torch.manual_seed(0)
    one, other = Counting(double).to(device), Counting(double).to(device)
    path, xt, t = PATHS["vp"], states(dtype=double, device=device), times(0.4, device=device)[0]
    c, u = paths.denoiser(one, path, targets.eps, 1), paths.denoiser(other, path, targets.eps)
    want = u(xt, t) + 2.5 * (c(xt, t) - u(xt, t))
    torch.testing.assert_close(guidance.cfg(c, u, 2.5)(xt, t), want, rtol=1e-12, atol=1e-12)


def test_two_velocity_networks_are_guided_as_velocities(double, device):
    """Also at t = 0, where no velocity could be read from a guided x̂0; and guidance of guidance."""
    torch.manual_seed(0)
    one, other = Counting(double).to(device), Counting(double).to(device)
    path, xt = PATHS["vp"], states(dtype=double, device=device)
    c, u = (paths.denoiser(net, path, targets.velocity, 1) for net in (one, other))
    zero = torch.zeros((), dtype=double, device=device)
    nested = guidance.cfg(guidance.cfg(c, u, 2.5), u, 0.5)
    fields = [flow.velocity(f, path)(xt, zero) for f in (guidance.cfg(c, u, 2.5), nested, c, u)]
    torch.testing.assert_close(fields[0], torch.lerp(fields[3], fields[2], 2.5))
    torch.testing.assert_close(fields[1], torch.lerp(fields[3], fields[2], 1.25))


def on_top_of_one_another(c, u, path, log_p):
    inner = guidance.cfg(guidance.clip(c, -2.0, 2.0), u, 1.5)
    return guidance.interval(guidance.classifier(inner, path, log_p, 0.5), u, 0.2, 0.7)


# Each wrapper of a conditional and an unconditional denoiser: a new one joins by adding its name.
WRAPPERS = {
    "cfg": lambda c, u, path, log_p: guidance.cfg(c, u, 3.0),
    "classifier": lambda c, u, path, log_p: guidance.classifier(u, path, log_p, 1.4),
    "clip": lambda c, u, path, log_p: guidance.clip(u, -0.5, 0.9),
    "interval": lambda c, u, path, log_p: guidance.interval(c, u, 0.3, 0.6),
    "all": on_top_of_one_another,
}


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("name", MID)
def test_samplers_take_every_wrapper(kind, name, double, device):
    path, law = PATHS[name], mixture(double, device)
    xt, log_p = states(dtype=double, device=device), chosen(law.classifier(path), 1)
    denoise = WRAPPERS[kind](law.denoiser(path, label=1), law.denoiser(path), path, log_p)
    grid = torch.tensor([0.95, 0.5, 0.2, 0.0], dtype=torch.float64)
    g = torch.Generator(device).manual_seed(0)
    for chain in (
        ddim.sample(denoise, path, xt, grid),
        ddpm.ancestral(denoise, path, xt, grid, generator=g),
    ):
        *_, x = chain
        assert bool(torch.isfinite(x).all()) and x.shape == xt.shape and x.dtype == double


def test_guidance_of_one_network_is_a_readout_of_a_guided_one(double, device):
    """So its grid is prepared once, and a velocity is guided as a velocity, ends included."""
    torch.manual_seed(0)
    net, path, xt = Counting(double).to(device), PATHS["vp"], states(dtype=double, device=device)
    c, u = (paths.denoiser(net, path, targets.eps, k) for k in (2, None))
    guided, ts = guidance.cfg(c, u, 2.5), torch.tensor([0.8, 0.3], dtype=torch.float64)
    net.calls.clear()
    at, times = guided.prepared(ts, xt)
    for i, t in enumerate(times):
        torch.testing.assert_close(at(xt, i), guided(xt, t), rtol=1e-11, atol=1e-11)
    assert net.calls == [14] * 4
    c, u = (paths.denoiser(net, path, targets.velocity, k) for k in (2, None))
    zero = torch.zeros((), dtype=double, device=device)
    fields = [flow.velocity(f, path)(xt, zero) for f in (guidance.cfg(c, u, 2.5), c, u)]
    torch.testing.assert_close(fields[0], torch.lerp(fields[2], fields[1], 2.5))


def test_classifier_guided_ddim_is_conditional_ddim(double, device):
    """With the exact classifier and γ = 1 the two walks are one, step by step."""
    path, law, xT = PATHS["vp"], mixture(double, device), states(dtype=double, device=device)
    ts = torch.linspace(1, 0, 9, dtype=torch.float64)
    guided = guidance.classifier(law.denoiser(path), path, chosen(law.classifier(path), 1))
    walks = zip(
        ddim.sample(guided, path, xT, ts),
        ddim.sample(law.denoiser(path, label=1), path, xT, ts),
        strict=True,
    )
    for a, b in walks:
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_clip_and_interval_by_sample(double, device):
    path, law, xt = PATHS["vp"], mixture(double, device), states(dtype=double, device=device)
    c, u = law.denoiser(path, label=1), law.denoiser(path)
    t = torch.linspace(0.1, 0.9, 7, device=device).double()
    found = guidance.interval(c, u, 0.3, 0.6)(xt, t)
    inside = ((t >= 0.3) & (t <= 0.6))[:, None]
    assert torch.equal(found, torch.where(inside, c(xt, t), u(xt, t))) and inside.any()
    clipped = guidance.clip(u, -0.5, 0.9)(xt, t)
    assert torch.equal(clipped, u(xt, t).clamp(-0.5, 0.9))


def test_dropped_labels(generator, device):
    label = torch.arange(30_000, device=device) % 5
    out = guidance.drop_label(label, 0.2, 5, generator=generator)
    dropped = out == 5
    assert bool((out == label)[~dropped].all()) and out.dtype == label.dtype
    share = float(dropped.double().mean())
    assert abs(share - 0.2) < 4 * math.sqrt(0.16 / 30_000)
    for k in range(5):  # whatever the class
        part = float(dropped[label == k].double().mean())
        assert abs(part - 0.2) < 5 * math.sqrt(0.16 / 6000)
    assert bool((guidance.drop_label(label, 0.0, 5, generator=generator) == label).all())
    assert bool((guidance.drop_label(label, 1.0, 5, generator=generator) == 5).all())
    words = torch.stack([label, 4 - label, label], 1)  # a caption goes as a whole, or stays
    gone = guidance.drop_label(words, 0.2, 5, generator=generator) == 5
    assert bool((gone.all(1) == gone.any(1)).all())
    assert abs(float(gone[:, 0].double().mean()) - 0.2) < 4 * math.sqrt(0.16 / 30_000)


# ---- bad input -------------------------------------------------------------------------------


def test_bad_classifiers_are_named(device):
    path, law, xt = PATHS["vp"], mixture(torch.float32, device), states(5, torch.float32, device)
    t = torch.tensor(0.4, device=device)
    wrong = {
        r"pick the label's column": law.classifier(path),
        r"no gradient leads": lambda xt, t: law.classifier(path)(xt.detach(), t)[:, 0],
        r"or through an argmax": lambda xt, t: law.classifier(path)(xt, t).argmax(1).float(),
    }
    for message, log_p in wrong.items():
        with pytest.raises(ValueError, match=message):
            guidance.classifier(law.denoiser(path), path, log_p)(xt, t)
    silent = lambda xt, t: torch.zeros(len(xt), device=xt.device, requires_grad=True)
    with pytest.raises(ValueError, match="no gradient leads"):
        guidance.classifier(law.denoiser(path), path, silent)(xt, t)


def test_the_end_without_data_is_named():
    path, law = PATHS["linear"], mixture()
    guided = guidance.classifier(law.denoiser(path), path, chosen(law.classifier(path), 1))
    with pytest.raises(ValueError, match="begin the grid a little below 1"):
        guided(states(), torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(ValueError, match="begin the grid a little below 1"):
        next(ddim.sample(guided, path, states(), torch.tensor([1.0, 0.5], dtype=torch.float64)))


def test_bad_numbers_are_named(device):
    label = torch.tensor([0, 2, 1], device=device)
    for p in (-0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="lies in"):
            guidance.drop_label(label, p, 3)
    with pytest.raises(ValueError, match="make it with torch.Generator"):
        guidance.drop_label(label.to("meta"), 0.5, 3, generator=torch.Generator())
    assert guidance.drop_label(label[:0], 0.5, 3).shape == (0,)
    u = mixture().denoiser(PATHS["vp"])
    with pytest.raises(ValueError, match="low < high"):
        guidance.clip(u, 1.0, -1.0)
    for lo, hi in ((0.5, 0.5), (-0.1, 0.5), (0.2, 1.1)):
        with pytest.raises(ValueError, match="interval of times"):
            guidance.interval(u, u, lo, hi)


def test_a_missing_null_label_is_named(run_python):
    said = run_python(
        "import torch; from minigen import guidance, nets, paths, targets\n"
        "net = nets.MLP(2)\n"
        "label = torch.tensor([0, 2, 1])\n"
        "for null in (net.classes, 1, 2):\n"
        "    try: guidance.drop_label(label, 0.1, null)\n"
        "    except ValueError as error: print(error)\n"
        "path = paths.VP()\n"
        "c, u = paths.denoiser(net, path, targets.eps, 1), paths.denoiser(net, path, targets.eps)\n"
        "try: guidance.cfg(c, u, 2.0)(torch.zeros(3, 2), torch.tensor(0.5))\n"
        "except ValueError as error: print(error)\n"
        "one, law = torch.tensor(0.5), lambda x, t: x.detach()[:, 0].numpy()\n"
        "for call in (lambda: guidance.log_prob_gradient(law, torch.zeros(3, 2), one),\n"
        "    lambda: guidance.classifier_mean(torch.zeros(2, 2), one, torch.ones(2))):\n"
        "    try: print(call())\n"
        "    except ValueError as error: print(error)"
    ).splitlines()
    assert "there is no null label" in said[0]
    assert all("there is a label 2: null is K" in line for line in said[1:3])
    assert "made without classes" in said[3] and "a tensor (3,), got ndarray" in said[4]
    assert "mean and grad share one shape" in said[5]


def test_what_is_read_differently_is_guided_as_denoisers(double, device):
    """Another target, path or quantity: outputs of networks are no longer of one kind."""
    torch.manual_seed(0)
    net, xt = Counting(double).to(device), states(dtype=double, device=device)
    vp, linear, t = PATHS["vp"], PATHS["linear"], times(0.4, device=device)[0]
    c = paths.denoiser(net, vp, targets.eps, 1)
    for u in (paths.denoiser(net, vp, targets.v), paths.denoiser(net, linear, targets.eps)):
        want = torch.lerp(u(xt, t), c(xt, t), 2.5)
        torch.testing.assert_close(guidance.cfg(c, u, 2.5)(xt, t), want, rtol=1e-12, atol=1e-12)
    c, u = (flow.velocity(paths.denoiser(net, vp, targets.eps, k), vp) for k in (1, None))
    want = torch.lerp(u(xt, t), c(xt, t), 2.5)  # velocities, guided as what they are
    torch.testing.assert_close(guidance.cfg(c, u, 2.5)(xt, t), want, rtol=1e-12, atol=1e-12)


def test_an_interval_holds_its_ends(double, device):
    guided, plain = lambda x, t: x + 1, lambda x, t: x
    denoise, x = guidance.interval(guided, plain, 0.25, 0.5), states(dtype=double, device=device)
    ends = torch.tensor([0.25, 0.5], dtype=double, device=device)
    for t in (*ends, ends[:1].expand(7)):
        assert torch.equal(denoise(x, t), x + 1)
