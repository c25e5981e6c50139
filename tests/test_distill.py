"""The flow map: its identities with exact maps, and the losses that each becomes."""

import math

import pytest
import torch
from cases import line, mixture
from torch.testing import assert_close

from minigen import ddim, distill, edm, flow, nets, oracle, paths, shapes

F64 = torch.float64
B, D = 5, 2
MEAN, STD = 0.7, 0.5


def draws(n=B, seed=0, d=D):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=g, dtype=F64) for _ in "xe"]


def times(*values):
    return torch.tensor(values, dtype=F64)


def gaussian(d=D):
    return oracle.GaussianMixture.isotropic(torch.full((1, d), MEAN, dtype=F64), STD)


def flow_map(path, x, t, s):
    """Φ of N(MEAN, STD²), in closed form: the standard score is kept."""
    at = lambda r: (path.a(r) * MEAN, (path.a(r) ** 2 * STD**2 + path.b2(r)).sqrt())
    (m, v), (goal, w) = (tuple(shapes.like(c, x) for c in at(r)) for r in (t, s))
    return goal + (x - m) * w / v


# Two steps in one -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [paths.VP(), paths.Linear(), paths.EDM(3.0)], ids=str)
def test_one_step_with_the_target_is_two_of_the_teacher(path):
    xt, teacher = 2 * draws()[0], lambda x, t: torch.sin(x) + t  # any teacher
    t, mid, s = 0.8, 0.5, 0.0
    goal = distill.progressive_target(teacher, path, xt, *(times(r)[0] for r in (t, mid, s)))
    *_, two = ddim.sample(teacher, path, xt, times(t, mid, s))
    *_, one = ddim.sample(lambda x, r: goal, path, xt, times(t, s))
    assert_close(one, two, rtol=1e-13, atol=1e-13)
    each = times(0.8, 0.6, 0.9, 0.5, 0.7)  # a time for each sample
    rows = distill.progressive_target(
        lambda x, r: torch.sin(x) + shapes.like(r, x), path, xt, each, each / 2, each / 4
    )
    alone = distill.progressive_target(teacher, path, xt[2:3], each[2], each[2] / 2, each[2] / 4)
    assert_close(rows[2:3], alone, rtol=1e-12, atol=1e-12)
    for wrong in ((0.5, 0.8, 0.1), (0.8, 0.1, 0.3)):
        with pytest.raises(ValueError, match="needs s < t"):
            distill.progressive_target(teacher, path, xt, *(times(r)[0] for r in wrong))


# Consistency ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [paths.VP(), paths.EDM(40.0), paths.Linear()], ids=str)
def test_a_consistency_function_is_the_identity_at_t_min(path):
    torch.manual_seed(0)
    net = nets.MLP(D, hidden=8).double()
    net.last.reset_parameters()
    f, x = distill.Consistency(net, path, 0.8, 0.01), 3 * draws()[0]
    first = times(0.01)[0]
    assert_close(f(x, first), x, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(f(x, 30 * first), x, atol=0.1)
    assert [*f.parameters()] == [*net.parameters()]
    with pytest.raises(ValueError, match=r"answers live at t_min = 0.01, got t = 0.005"):
        f(x, first / 2)
    for bad in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"t_min lies in \(0, 1\)"):
            distill.Consistency(net, path, 0.8, bad)
    with pytest.raises(ValueError, match="sigma_data must be finite and > 0"):
        distill.Consistency(net, path, 0.0, 0.01)


def test_the_identity_at_t_min_is_left_at_second_order_by_the_skip_alone():
    """c_skip has slope 0 there: what leaves the data is the network's to say."""
    path, x = paths.EDM(10.0), draws()[0]
    f = distill.Consistency(lambda x, t: 0 * x, path, 0.8, 0.01)
    away = [float((f(x, times(0.01 + h)[0]) - x).abs().max()) for h in (1e-3, 5e-4)]
    assert abs(away[0] / away[1] - 4) < 0.05


def test_the_loss_of_the_exact_map_falls_with_the_step_as_it_should():
    """With a teacher as Δt⁴ (a DDIM step errs by Δt²), without one as Δt²."""
    path, law, n = paths.EDM(4.0), gaussian(1), 200_000
    noise, eps = draws(n, d=1)
    x0, t = MEAN + STD * noise, times(0.3)[0]
    f = lambda x, r: flow_map(path, x, r, torch.zeros_like(r))
    found = {}
    for h in (0.02, 0.01, 0.005):
        for name, teacher in (("distilled", law.denoiser(path)), ("trained", None)):
            loss = distill.consistency_loss(f, f, path, x0, eps, t, t - h, teacher=teacher)
            found[name, h] = float(loss.mean())
    for name, ratio in (("distilled", 16), ("trained", 4)):
        for h in (0.02, 0.01):
            assert abs(found[name, h] / found[name, h / 2] / ratio - 1) < 0.2, found


def test_constants_have_no_loss_and_the_target_no_gradient():
    """Why the boundary condition is needed: f = 0 is consistent."""
    path, (x0, eps) = paths.VP(), draws()
    t, s = times(0.5, 0.6, 0.7, 0.8, 0.9), times(0.1, 0.2, 0.3, 0.4, 0.5)
    zero = lambda x, r: 0 * x
    for teacher in (None, mixture().denoiser(path)):
        loss = distill.consistency_loss(zero, zero, path, x0, eps, t, s, teacher=teacher)
        assert torch.equal(loss, torch.zeros(B, dtype=F64))
    w, w2 = (torch.tensor(k, dtype=F64, requires_grad=True) for k in (2.0, 3.0))
    loss = distill.consistency_loss(lambda x, r: w * x, lambda x, r: w2 * x, path, x0, eps, t, s)
    want = (2 * path.mix(x0, eps, t) - 3 * path.mix(x0, eps, s)).square().mean(1)
    assert_close(loss.detach(), want)
    one, two = torch.autograd.grad(loss.sum(), (w, w2), allow_unused=True)
    assert one is not None and two is None
    with pytest.raises(ValueError, match="needs s < t"):
        distill.consistency_loss(zero, zero, path, x0, eps, s, t)


@pytest.mark.parametrize("path", [paths.VP(), paths.EDM(20.0)], ids=str)
def test_several_steps_keep_the_marginal_at_t_min(path):
    """With the exact map each answer has the law of x at t_min."""
    first, n, g = 0.02, 100_000, torch.Generator().manual_seed(0)

    class Exact:
        t_min = first

        def __call__(self, x, t):
            return flow_map(path, x, t, torch.full_like(t, first))

    law, low = gaussian(1), times(first)[0]
    xT = law.at(path, times(1.0)[0]).sample(n, generator=g)[0]
    goal = law.at(path, low)
    answers = [*distill.multistep(Exact(), path, xT, times(1.0, 0.6, 0.05), generator=g)]
    assert len(answers) == 3
    for x in answers:
        std = float(goal.stds[0, 0])
        assert abs(float(x.mean() - goal.means)) < 4 * std / n**0.5
        assert abs(float(x.std()) / std - 1) < 4 / (2 * n) ** 0.5
    assert float(torch.corrcoef(torch.cat([answers[0], answers[1]], 1).T)[0, 1]) < 0.5
    *_, one = distill.multistep(lambda x, t: 0 * x + 3, path, xT[:4], times(0.5))
    assert torch.equal(one, torch.full((4, 1), 3.0, dtype=F64))
    for bad in (times(0.3, 0.6), times(0.5, first / 2)):
        with pytest.raises(ValueError, match="must decrease from noise"):
            distill.multistep(Exact(), path, xT, bad)


@pytest.mark.parametrize("n, share", [(10, 0.7304), (20, 0.861), (40, 0.930), (80, 0.965)])
def test_consistency_training_shrinks_by_a_closed_product(n, share):
    """Each level's best answer is a linear function of the last one's: by least squares."""
    karras = paths.EDM(80.0).sigma(edm.grid(paths.EDM(80.0), n)[:-1]).flip(0)
    assert abs(float(distill.training_shrinkage(karras, 0.5)) - share) < 6e-4
    assert_close(
        distill.training_shrinkage(karras, 0.5), distill.training_shrinkage(karras.flip(0), 0.5)
    )
    if n > 10:
        return
    x0, eps = (x.flatten() for x in draws(200_000, d=1))
    x0, slope = 0.5 * x0, 1.0
    for low, high in zip(karras, karras[1:], strict=False):
        x, goal = x0 + high * eps, slope * (x0 + low * eps)
        slope = float((x * goal).sum() / x.square().sum())
    exact = math.sqrt((0.25 + float(karras[0]) ** 2) / (0.25 + float(karras[-1]) ** 2))
    assert abs(slope / exact - share) < 0.01


def test_levels_that_do_not_run_are_named():
    for bad in (torch.ones(1), torch.tensor([1.0, 2.0, 1.5]), torch.tensor([-0.1, 1.0])):
        with pytest.raises(ValueError, match="two noise levels or more, ≥ 0, that rise or fall"):
            distill.training_shrinkage(bad, 0.5)


# The mean velocity ------------------------------------------------------------------------------


def mean_velocity(x, t, s):
    """(x − Φ)/(t − s) of N(MEAN, STD²) on the linear path."""
    return (x - flow_map(paths.Linear(), x, t, s)) / shapes.like(t - s, x)


def test_the_mean_velocity_obeys_its_identity():
    """u = v − (t − s) du/dt along the trajectory, and the two halves of a way make the whole."""
    path, (x, _) = paths.Linear(), draws()
    t, s = times(0.9, 0.6, 0.7, 0.8, 0.5), times(0.1, 0.2, 0.0, 0.4, 0.3)
    v = gaussian().velocity(path)(x, t)
    shapes.forward_mode()
    u, du = torch.func.jvp(lambda x, t: mean_velocity(x, t, s), (x, t), (v, torch.ones_like(t)))
    assert_close(u, v - shapes.like(t - s, x) * du, rtol=1e-12, atol=1e-12)
    mid = (t + s) / 2
    there = flow_map(path, x, t, mid)
    halves = (mean_velocity(x, t, mid) + mean_velocity(there, mid, s)) / 2
    assert_close(u, halves, rtol=1e-12, atol=1e-12)


def test_the_mean_flow_loss_is_its_formula_with_differences_for_the_slope():
    (x0, eps), net = draws(), lambda x, t, s: torch.sin(2 * x) * shapes.like(t * (1 + s), x)
    t, s = times(0.9, 0.6, 0.7, 0.8, 0.5), times(0.1, 0.2, 0.0, 0.8, 0.3)
    xt, v, h = paths.Linear().mix(x0, eps, t), eps - x0, 1e-6
    slope = (net(xt + h * v, t + h, s) - net(xt - h * v, t - h, s)) / (2 * h)
    want = (net(xt, t, s) - v + shapes.like(t - s, xt) * slope).square().mean(1)
    assert_close(distill.mean_flow_loss(net, x0, eps, t, s), want, rtol=1e-8, atol=1e-9)
    plain = flow.loss(lambda x, r, label: net(x, r, t), x0, eps, t)
    assert_close(distill.mean_flow_loss(net, x0, eps, t, t), plain, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="needs s ≤ t"):
        distill.mean_flow_loss(net, x0, eps, s, t)


def test_only_the_answer_is_taught_by_one_pass():
    """The target keeps no gradient, and the network is asked once."""
    (x0, eps), w, calls = draws(), torch.tensor(0.8, dtype=F64, requires_grad=True), []

    def net(x, t, s):
        calls.append(1)
        return torch.tanh(w * x) * shapes.like(t, x)

    t, s = times(0.9, 0.6, 0.7, 0.8, 0.5), times(0.1, 0.2, 0.0, 0.4, 0.3)
    loss = distill.mean_flow_loss(net, x0, eps, t, s)
    (got,) = torch.autograd.grad(loss.sum(), w)
    assert len(calls) == 1
    xt, v, value = paths.Linear().mix(x0, eps, t), eps - x0, w.detach()
    _, slope = torch.func.jvp(
        lambda x, t: torch.tanh(value * x) * shapes.like(t, x), (xt, t), (v, torch.ones_like(t))
    )
    goal = v - shapes.like(t - s, xt) * slope
    answer = torch.tanh(w * xt) * shapes.like(t, xt)
    (want,) = torch.autograd.grad((answer - goal).square().mean(1).sum(), w)
    assert_close(got, want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("grid", [(1.0, 0.0), (0.95, 0.5, 0.2)])
def test_a_jump_with_the_exact_mean_velocity_is_the_flow_map(grid):
    law, path = line(), paths.Linear()
    x = times(-1.6, -0.5, 0.2, 0.8, 1.9)[:, None]

    def u(x, t, s):
        return (x - oracle.flow_map_1d(law, path, x, t, s)) / (t - s)

    *_, got = distill.jump(u, x, times(*grid))
    exact = oracle.flow_map_1d(law, path, x, times(grid[0])[0], times(grid[-1])[0])
    assert_close(got, exact, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="must decrease"):
        distill.jump(u, x, times(0.1, 0.9))
