"""The checks of lecture 16 accept every right answer, and their truth is the exact one."""

import pytest
import torch

from minigen import distill, oracle, paths, shapes
from minigen.checks import Wrong
from minigen.checks import distill as check

F64 = torch.float64


def by_variances(f, path, xT, ts, z, t_min):
    """The law of x_t given x_min from what is added between: var = b_t² − keep² b_min²."""
    low = torch.tensor(t_min, dtype=xT.dtype)
    y = f(xT, ts[0])
    for t, noise in zip(ts[1:], z, strict=True):
        keep = path.a(t) / path.a(low)
        y = f(keep * y + noise * (path.b2(t) - keep**2 * path.b2(low)).sqrt(), t)
    return y


def in_bar(f, path, xT, ts, z, t_min):
    """x̄ = x/a, σ = b/a: what is added is √(σ_t² − σ_min²); a time for each sample."""
    y = f(xT, ts[0].expand(len(xT)))
    sigma = path.sigma(torch.cat([ts, torch.tensor([t_min], dtype=F64)]))
    for i in range(len(z)):
        bar = y / path.a(torch.tensor(t_min, dtype=F64))
        bar = bar + (sigma[i + 1] ** 2 - sigma[-1] ** 2).sqrt() * z[i]
        y = f(path.a(ts[i + 1]) * bar, ts[i + 1].expand(len(xT)))
    return y


def by_where(u, x0, eps, t, mid, s):
    """All samples together, the ones without a way by torch.where at the end."""
    column = lambda c: c[:, None]
    xt = torch.lerp(x0, eps, column(t))
    with torch.no_grad():
        one = u(xt, t, mid)
        there = xt - column(t - mid) * one
        end = there - column(mid - s) * u(there, mid, s)
    return torch.where(column(s == t), eps - x0, (xt - end) / column(t - s))


def by_rows(u, x0, eps, t, mid, s):
    """Only the samples with a way are asked for."""
    goal, on = eps - x0, t > s
    x = ((1 - t[:, None]) * x0 + t[:, None] * eps)[on]
    one = u(x, t[on], mid[on]).detach()
    two = u(x - (t - mid)[on, None] * one, mid[on], s[on]).detach()
    share = ((t - mid) / (t - s))[on, None]
    goal[on] = share * one + (1 - share) * two
    return goal


STEPS, SHORTCUTS = [by_variances, in_bar], [by_where, by_rows]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.multistep, f) for f in STEPS] + [(check.shortcut_target, f) for f in SHORTCUTS],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


@pytest.mark.parametrize("steps", STEPS)
def test_the_walk_asked_for_is_the_library_s(steps):
    """With its noises drawn as the library draws them."""
    net = lambda x, t: torch.sin(x + shapes.like(t, x))
    f = distill.Consistency(net, paths.VP(), 0.7, 0.05)
    xT, ts = 1.5 * torch.ones(4, 3, dtype=F64), torch.tensor([1.0, 0.6, 0.2], dtype=F64)
    g = torch.Generator().manual_seed(0)
    z = torch.stack([torch.randn(4, 3, generator=g, dtype=F64) for _ in ts[1:]])
    *_, want = distill.multistep(f, f.path, xT, ts, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(steps(f, f.path, xT, ts, z, f.t_min), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", SHORTCUTS)
def test_the_exact_mean_velocity_is_its_own_target(target):
    """Wherever the way is cut: two maps in a row are one."""
    law = oracle.GaussianMixture(
        *(torch.tensor(v, dtype=F64) for v in ([0.3, 0.7], [[-2.0], [1.0]], [[0.5], [0.4]]))
    )

    def u(x, t, s):
        there = [
            oracle.flow_map_1d(law, paths.Linear(), x[i : i + 1], t[i], s[i]) for i in range(len(x))
        ]
        return (x - torch.cat(there)) / (t - s)[:, None]

    x0, eps, (t, mid, s) = law.sample(3)[0], torch.randn(3, 1, dtype=F64), torch.rand(3, 3).double()
    s, mid, t = torch.stack([s, mid, t]).sort(0).values
    xt = (1 - t[:, None]) * x0 + t[:, None] * eps
    torch.testing.assert_close(target(u, x0, eps, t, mid, s), u(xt, t, s), rtol=0, atol=1e-8)


def own_noise(f, path, xT, ts, z, t_min):
    return by_variances(f, path, xT, ts, torch.randn(z.shape).double(), t_min)


def for_vp(f, path, xT, ts, z, t_min):
    """What is missing as 1 − kept², which holds for a² + b² = 1 only."""
    low = torch.tensor(t_min, dtype=xT.dtype)
    y = f(xT, ts[0])
    for t, noise in zip(ts[1:], z, strict=True):
        keep = path.a(t) / path.a(low)
        y = f(keep * y + noise * (1 - keep**2).sqrt(), t)
    return y


def all_states(f, path, xT, ts, z, t_min):
    return [f(xT, t) for t in ts]


def twice(f, path, xT, ts, z, t_min):
    f(xT, ts[0])
    return by_variances(f, path, xT, ts, z, t_min)


def as_number(f, path, xT, ts, z, t_min):
    return f(xT, 1.0)


def with_gradient(u, x0, eps, t, mid, s):
    t, mid, s = (c[:, None] for c in (t, mid, s))
    xt = (1 - t) * x0 + t * eps
    one = u(xt, t[:, 0], mid[:, 0])
    two = u(xt - (t - mid) * one, mid[:, 0], s[:, 0])
    share = torch.where(t > s, (t - mid) / (t - s), 1)
    return torch.where(t > s, share * one + (1 - share) * two, eps - x0)


def rising(u, x0, eps, t, mid, s):
    return u(x0, s, t)


def columns(u, x0, eps, t, mid, s):
    return u(x0, t[:, None], mid[:, None])


def a_third(u, x0, eps, t, mid, s):
    with torch.no_grad():
        u(x0, t, s)
    return by_where(u, x0, eps, t, mid, s)


def rows_meet_data(u, x0, eps, t, mid, s):
    return (1 - t) * x0 + t * eps


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.multistep, own_noise, "draw nothing yourself"),
        (check.multistep, for_vp, r"\(VP\) only"),
        (check.multistep, all_states, "got a list of 4 tensors"),
        (check.multistep, twice, "f was asked 5 times, for 4 times ts"),
        (check.multistep, as_number, r"a time, a tensor \(\) or \(B,\), got 1\.0"),
        (check.multistep, lambda f, p, x, ts, z, low: f(x, ts[0] / 9), "the times are ts"),
        (check.multistep, lambda f, p, x, ts, z, low: f(z, ts[0]), r"f takes states \(5, 3\)"),
        (check.multistep, lambda *given: 2 * by_variances(*given), "is 2 times what is right"),
        (check.shortcut_target, with_gradient, "the values are right, but your target has a grad"),
        (check.shortcut_target, rising, "a way with s > t"),
        (check.shortcut_target, columns, r"u takes t of shape \(6,\), got \(6, 1\)"),
        (check.shortcut_target, a_third, "u was asked 3 times: two do"),
        (check.shortcut_target, rows_meet_data, r"It meets data \(B, D\) only as \(B, 1\)"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
