"""What consistency training ends on, what mean flows' loss ends on, and the net of two times."""

import pytest
import torch
from cases import line
from torch.testing import assert_close

from minigen import ddim, distill, nets, oracle, paths, shapes, targets, train

F64 = torch.float64
MEAN, STD = 0.7, 0.5


def gaussian(d=1):
    return oracle.GaussianMixture.isotropic(torch.full((1, d), MEAN, dtype=F64), STD)


def times(*values):
    return torch.tensor(values, dtype=F64)


# The bias ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [paths.EDM(80.0), paths.VP(), paths.Linear()], ids=str)
@pytest.mark.parametrize("n", [2, 10, 40])
def test_the_shrinkage_is_ddim_s_on_the_same_levels(path, n):
    """The mean of x_s given x_t is the exact denoiser's DDIM step: on a normal law they agree."""
    ts = torch.linspace(0.95, 0.01, n, dtype=F64)
    spread = lambda t: (path.a(t) ** 2 * STD**2 + path.b2(t)).sqrt()
    x = path.a(ts[0]) * MEAN + spread(ts[0]) * times(-1.0, 0.0, 2.0)[:, None]
    *_, end = ddim.sample(gaussian().denoiser(path), path, x, ts)
    share = distill.training_shrinkage(path.sigma(ts), STD)
    want = path.a(ts[-1]) * MEAN + share * spread(ts[-1]) * times(-1.0, 0.0, 2.0)[:, None]
    assert_close(end, want, rtol=0, atol=1e-11)


def test_training_s_target_has_the_teacher_s_step_for_its_mean():
    """E[x_s | x_t] is one DDIM step of the exact denoiser, for any law: here by regression."""
    path, law, g = paths.VP(), line(), torch.Generator().manual_seed(0)
    t, s, n = times(0.6)[0], times(0.5)[0], 400_000
    x0, _ = law.sample(n, generator=g)
    eps = torch.randn(x0.shape, generator=g, dtype=F64)
    xt, xs = path.mix(x0, eps, t), path.mix(x0, eps, s)
    *_, step = ddim.sample(law.denoiser(path), path, xt, torch.stack([t, s]))
    off = xs - step
    assert float(off.std()) > 0.05  # one at a time they differ
    for test in (torch.ones_like(xt), xt, torch.sin(2 * xt), (xt > 0.3).double()):
        product = off * test
        assert abs(float(product.mean())) < 4 * float(product.std()) / n**0.5


def test_t_min_is_not_rounded_to_float32():
    """torch.tensor([0.05]) is: then the noise put back is off by 1e-8."""
    path, first, noise = paths.VP(), 0.05, torch.Generator().manual_seed(0)
    xT = torch.ones(4, 3, dtype=F64)
    f = distill.Consistency(lambda x, t: torch.sin(x), path, 0.7, first)
    *_, got = distill.multistep(f, path, xT, times(1.0, 0.6), generator=noise)
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    a, b = path.a(times(0.6, first)), path.b(times(0.6, first))
    x = a[0] / a[1] * f(xT, times(1.0)[0]) + (b[0] ** 2 - (a[0] / a[1] * b[1]) ** 2).sqrt() * z
    assert_close(got, f(x, times(0.6)[0]), rtol=1e-13, atol=1e-13)


def test_a_bound_function_is_told_where_it_answers():
    path, law = paths.EDM(9.0), gaussian()
    net = nets.MLP(1, hidden=8, classes=3).double()
    net.last.reset_parameters()
    f = distill.Consistency(net, path, 0.7, 0.1)
    label, xT = torch.tensor([0, 2, 1]), law.sample(3)[0]
    bound = lambda x, t: f(x, t, label)
    draw = lambda: torch.Generator().manual_seed(1)
    *_, one = distill.multistep(bound, path, xT, times(1, 0.5), t_min=f.t_min, generator=draw())

    class Own:  # fmt: skip
        t_min, __call__ = f.t_min, staticmethod(bound)

    *_, two = distill.multistep(Own(), path, xT, times(1, 0.5), generator=draw())
    assert torch.equal(one, two)
    *_, other = distill.multistep(bound, path, xT, times(1, 0.5), generator=draw())
    assert not torch.allclose(one, other)


# Another path -----------------------------------------------------------------------------------


def test_a_teacher_or_student_on_another_path_is_named():
    vp, linear, x, g = paths.VP(), paths.Linear(), torch.ones(3, 2), torch.Generator()
    net = nets.MLP(2, hidden=8)
    teacher = paths.denoiser(net, vp, targets.v)
    f, t, s = distill.Consistency(net, vp, 0.5, 0.01), torch.tensor(0.6), torch.tensor(0.4)
    of_teacher = r"the network was trained on VP\(.*, but this is Linear\(\)"
    of_student = r"f answers on VP\(.*, but this is Linear\(\)"
    with pytest.raises(ValueError, match=of_teacher):
        distill.progressive_target(teacher, linear, x, t, s, s / 2)
    free = lambda x, t: x
    with pytest.raises(ValueError, match=of_teacher):
        distill.consistency_loss(free, free, linear, x, x, t, s, teacher=teacher)
    for pair in ((f, free), (free, f)):
        with pytest.raises(ValueError, match=of_student):
            distill.consistency_loss(*pair, linear, x, x, t, s)
    with pytest.raises(ValueError, match=of_student):
        distill.multistep(f, linear, x, torch.tensor([1.0, 0.5]), generator=g)
    assert distill.consistency_loss(f, f, vp, x, x, t, s, teacher=teacher).shape == (3,)


def test_a_grid_needs_two_times_that_fall():
    u = lambda x, t, s: x
    for bad in (times(1.0), times(0.2, 0.8), times(1.2, 0.0)):
        with pytest.raises(ValueError, match=r"must decrease|at least two times"):
            distill.jump(u, torch.ones(2, 1, dtype=F64), bad)
    f = distill.Consistency(u, paths.VP(), 0.5, 0.1)
    with pytest.raises(ValueError, match="must decrease"):
        distill.multistep(f, f.path, torch.ones(2, 1, dtype=F64), times(0.1))


# The mean velocity ------------------------------------------------------------------------------


@pytest.mark.parametrize("t, s", [(1.0, 0.0), (0.7, 0.3), (0.6, 0.6)])
def test_the_floor_of_the_mean_flow_loss(t, s):
    """At the exact u: E‖∇Φ (v − E[v | xt])‖²/D; of a normal law, v_s/v_t Var(v | xt)."""
    t, s, g, n = times(t)[0], times(s)[0], torch.Generator().manual_seed(0), 200_000
    v = lambda r: (1 - r) ** 2 * STD**2 + r**2
    x0, eps = gaussian().sample(n, generator=g)[0], torch.randn(n, 1, generator=g, dtype=F64)
    slope = lambda r: (r - (1 - r) * STD**2) / v(r)

    def u(x, t, s):
        if bool((s == times(0.6)[0]).all()):  # no way: the velocity itself
            return -MEAN + shapes.like(slope(t), x) * (x - shapes.like(1 - t, x) * MEAN)
        here, there = (shapes.like(1 - r, x) * MEAN for r in (t, s))
        end = there + shapes.like((v(s) / v(t)).sqrt(), x) * (x - here)
        return (x - end) / shapes.like(t - s, x)

    loss = distill.mean_flow_loss(u, x0, eps, t.expand(n), s.expand(n))
    floor = float(v(s) / v(t) * (STD**2 / v(t)))  # Var(v | xt) = STD²/v_t
    assert abs(float(loss.mean()) - floor) < 4 * float(loss.std()) / n**0.5
    assert floor > 0.05


def test_a_net_of_two_times_begins_as_the_net_of_one(dtype, device, generator):
    torch.manual_seed(0)
    old = nets.ResMLP(2, hidden=16, depth=2, classes=3).to(device, dtype)
    old.last.reset_parameters()
    new = distill.TwoTimes(2, hidden=16, depth=2, classes=3).to(device, dtype)
    missing, unexpected = new.load_state_dict(old.state_dict(), strict=False)
    assert (missing, unexpected) == (["way.weight"], [])
    x = torch.randn(5, 2, generator=generator, device=device, dtype=dtype)
    t = torch.linspace(0.3, 0.9, 5, device=device)
    label = torch.tensor([0, 1, 2, 0, 1], device=device)
    assert torch.equal(new(x, t, t / 2, label), old(x, t, label))
    assert torch.equal(new(x, t[2], t[1], 1), old(x, t[2], 1))
    torch.nn.init.normal_(new.way.weight)
    assert not torch.allclose(new(x, t, t / 2, label), new(x, t, t / 3, label), atol=0.01)
    for i in range(5):  # each sample by itself
        alone = new(x[i : i + 1], t[i], t[i] / 2, label[i : i + 1])
        assert_close(new(x, t, t / 2, label)[i : i + 1], alone, rtol=1e-3, atol=1e-4)
    if device.type == "cpu":
        with pytest.raises(ValueError, match="needs s ≤ t"):
            new(x, t / 2, t, label)
    with pytest.raises(ValueError, match="takes no label"):
        distill.TwoTimes(2, hidden=8, depth=1).to(device, dtype)(x, t, t / 2, 1)


def test_a_net_of_two_times_learns_by_the_mean_flow_loss_and_is_rebuilt(tmp_path):
    torch.manual_seed(0)
    net = distill.TwoTimes((1, 2, 2), hidden=16, depth=1).double()
    x0, eps = torch.randn(2, 7, 1, 2, 2, dtype=F64)
    t = torch.linspace(0.3, 0.9, 7, dtype=F64)
    losses = [
        float(x.detach())
        for x in train.fit(
            lambda: distill.mean_flow_loss(net, x0, eps, t, t / 2).mean(),
            net, steps=30, lr=1e-2, progress=False,
        )
    ]  # fmt: skip
    assert losses[-1] < 0.5 * losses[0]
    assert float(net.way.weight.detach().abs().max()) > 0
    train.save(tmp_path / "net.safetensors", net)
    again = train.rebuild(tmp_path / "net.safetensors")
    assert isinstance(again, distill.TwoTimes)
    assert torch.equal(again(x0, t, t / 2), net(x0, t, t / 2))
