"""Augmentations: the law of each edit, where it leaks, and what the critic is told."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from minigen import gan
from minigen.gan import augment

DOUBLE = torch.float64
# The edit, and how likely it is to be seen once a sample is chosen.
EDITS = {
    "translate": (partial(augment.translate, ratio=0.3, fill=-1.0), 8 / 9),
    "flip": (augment.flip, 1.0),
    "cutout": (partial(augment.cutout, fill=-1.0), 1.0),
    "colour": (augment.colour, 1.0),
    "rotate": (augment.rotate, 3 / 4),
}


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def images(*shape, dtype=DOUBLE, device="cpu", seed=0):
    """Mean ≠ 0 and variance ≠ 1, no value twice."""
    return (0.7 * torch.randn(shape, generator=seeded(seed), dtype=DOUBLE) + 0.3).to(device, dtype)


def copies(n, *shape, **where):
    return images(1, *shape, **where).expand(n, *shape)


def near(count, n, p):
    """Shares of n draws against their probability, within 4.5 standard errors."""
    p = torch.as_tensor(p, dtype=DOUBLE)
    return bool(((count / n - p).abs() <= 4.5 * (p * (1 - p) / n).sqrt() + 1e-12).all())


# ---- all edits -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EDITS)
def test_with_probability_0_nothing_changes(name, device, dtype, generator):
    x = images(5, 3, 4, 4, dtype=dtype, device=device)
    edit, _ = EDITS[name]
    assert torch.equal(edit(x, 0.0, generator=generator), x)
    edited = edit(x, 1.0, generator=generator)
    assert (edited.shape, edited.dtype, edited.device) == (x.shape, x.dtype, x.device)
    again = [edit(x, 0.5, generator=seeded(7, device)) for _ in range(2)]
    assert torch.equal(*again)


@pytest.mark.parametrize("name", EDITS)
def test_a_gradient_passes(name):
    x = images(2, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EDITS[name][0](x, 0.8, generator=seeded(3)), x)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("p", [0.3, 0.8])
def test_each_sample_has_its_own_draw(name, p, device):
    """Of equal images the share p is edited, and all edits that there are occur."""
    edit, seen = EDITS[name]
    x = copies(3000, 3, 4, 4, device=device)
    out = edit(x, p, generator=seeded(1, device))
    changed = (out != x).flatten(1).any(1)
    assert near(changed.sum().cpu(), 3000, p * seen)
    kinds = {"translate": 8, "flip": 1, "cutout": 25, "rotate": 3, "colour": int(changed.sum())}
    assert len(out[changed].unique(dim=0)) == kinds[name]


def test_one_after_another(generator, device):
    x = copies(3000, 3, 4, 4, device=device)
    both = augment.compose(augment.rotate, augment.colour)
    g = seeded(2, device)
    want = augment.colour(augment.rotate(x, 0.4, generator=g), 0.4, generator=g)
    assert torch.equal(both(x, 0.4, generator=seeded(2, device)), want)
    kept = (both(x, 0.4, generator=generator) == x).flatten(1).all(1).sum()
    assert near(kept.cpu(), 3000, (1 - 0.4 * 3 / 4) * (1 - 0.4))  # draws of their own


# ---- each edit -------------------------------------------------------------------------------


def test_translations_are_uniform_whole_pixels():
    """Every result is one of 3 · 5 shifts of the padded image, all of them equally often."""
    x = copies(6000, 2, 4, 7)
    out = augment.translate(x, ratio=0.3, fill=-1.5, generator=seeded())
    wide = torch.full((2, 6, 11), -1.5, dtype=DOUBLE)
    wide[:, 1:5, 2:9] = x[0]
    shifts = torch.stack([wide[:, i : i + 4, j : j + 7] for i in range(3) for j in range(5)])
    same = (out[:, None] == shifts).flatten(2).all(2)
    assert (same.sum(1) == 1).all() and near(same.sum(0), 6000, 1 / 15)


def test_holes_have_the_right_size_and_place():
    """2×3 in 4×6. Rows by 5 corners: each in 2 of 5 holes; columns by 6 pixels: 3 of 6, edges 2."""
    out = augment.cutout(images(6000, 2, 4, 6), fill=9.0, generator=seeded())
    hole = (out == 9).double()
    assert torch.equal(hole[:, 0], hole[:, 1])
    rows, columns = hole[:, 0].amax(2), hole[:, 0].amax(1)
    torch.testing.assert_close(hole[:, 0], rows[:, :, None] * columns[:, None, :])
    assert rows.sum(1).amax() == 2 and columns.sum(1).amax() == 3
    in_column = torch.tensor([2, 3, 3, 3, 3, 2]) / 6
    assert near(hole[:, 0].sum(0), 6000, (2 / 5 * in_column).expand(4, 6))
    whole = augment.cutout(images(5, 2, 4, 6), ratio=0.0, fill=9.0, generator=seeded())
    assert torch.equal(whole, images(5, 2, 4, 6))


def test_colours_move_along_their_three_axes():
    """out = m + b + c (g − m) + c s (x − g): coefficients by projection, and nothing is left."""
    x = images(4000, 3, 2, 5)
    out = augment.colour(x, generator=seeded())
    grey, mean = x.mean(1, keepdim=True), x.mean((1, 2, 3), keepdim=True)
    axes = torch.ones_like(x), (grey - mean).expand_as(x), x - grey  # orthogonal
    dot = lambda u, v: (u * v).sum((1, 2, 3), keepdim=True)
    found = [dot(out - mean, a) / dot(a, a) for a in axes]
    rebuilt = mean + sum(k * a for k, a in zip(found, axes, strict=True))
    torch.testing.assert_close(out, rebuilt, rtol=1e-11, atol=1e-11)
    b, c, s = found[0], found[1], found[2] / found[1]
    for value, centre, half in ((b, 0, 0.5), (c, 1, 0.5), (s, 1, 1)):
        u = (value - centre) / half  # uniform on ± 1: variance 1/3, of its square 4/45
        assert u.abs().max() <= 1 + 1e-9 and abs(u.mean()) < 4.5 / math.sqrt(3 * 4000)
        assert abs(u.square().mean() - 1 / 3) < 4.5 * math.sqrt(4 / 45 / 4000)
    digit = copies(200, 1, 4, 4)
    assert len(augment.colour(digit, generator=seeded()).unique(dim=0)) == 200


def shares(edit, x, orbit):
    """How often the edit takes each image of an orbit to each: (K, K), rows from, columns to."""
    out = edit(x.repeat_interleave(4000, 0))
    same = (out[:, None] == orbit).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    return same.reshape(len(orbit), 4000, len(orbit)).sum(1)


@pytest.mark.parametrize("p", [0.3, 0.5, 1.0])
def test_turns_and_mirrors_leak_where_an_eigenvalue_is_0(p):
    """Turns: 1 and 1 − p three times. Mirrors: 1 and 1 − 2p. At 0 two laws look alike."""
    x = images(1, 2, 5, 5)
    turned = torch.cat([x.rot90(k, (2, 3)) for k in range(4)])
    turns = (1 - p) * torch.eye(4, dtype=DOUBLE) + p / 4
    count = shares(lambda x: augment.rotate(x, p, generator=seeded()), turned, turned)
    assert near(count, 4000, turns)
    values = torch.linalg.eigvalsh(turns)
    torch.testing.assert_close(
        values, torch.tensor([1 - p] * 3 + [1], dtype=DOUBLE), rtol=0, atol=1e-14
    )
    law = torch.tensor([0.7, 0.1, 0.15, 0.05], dtype=DOUBLE)
    if p < 1:
        torch.testing.assert_close(torch.linalg.solve(turns, turns @ law), law, rtol=1e-12, atol=0)
    else:
        torch.testing.assert_close(turns @ law, torch.full_like(law, 0.25))
    sides = torch.cat([x, x.flip(3)])
    mirrors = torch.tensor([[1 - p, p], [p, 1 - p]], dtype=DOUBLE)
    assert near(
        shares(lambda x: augment.flip(x, p, generator=seeded()), sides, sides), 4000, mirrors
    )
    torch.testing.assert_close(torch.linalg.det(mirrors), torch.tensor(1 - 2 * p, dtype=DOUBLE))


# ---- the controller --------------------------------------------------------------------------


def settle(rule, p, steps=400):
    """Where p ends when the critic answers r = 0.95 e^{−3p} and the target is 0.6."""
    for _ in range(steps):
        p = rule(p, 0.95 * math.exp(-3 * p))
    return p


def test_the_controller_rests_where_the_target_is_met():
    """G1. The right rule meets it to within a step from anywhere; the printed one runs away."""
    right = lambda p, r: augment.adapt(p, r, 0.6, 0.01)
    printed = lambda p, r: augment.adapt(p, -r, -0.6, 0.01)  # up where r is low
    rest = math.log(0.95 / 0.6) / 3
    for start in (0.0, 0.1, 0.3, 1.0):
        for steps in (400, 401):
            assert abs(settle(right, start, steps) - rest) < 0.01
    assert abs(rest - 0.153) < 5e-4
    assert settle(printed, 0.1) == 0 and settle(printed, 0.3) == 1


def test_the_controller_moves_by_one_step_within_0_and_1():
    assert augment.adapt(0.25, 0.7, 0.6, 0.125) == 0.375
    assert augment.adapt(0.25, torch.tensor(0.5), 0.6, 0.125) == 0.125
    assert augment.adapt(0.25, 0.5, 0.5, 0.125) == 0.25
    assert augment.adapt(0.95, 1.0, step=0.1) == 1 and augment.adapt(0.05, 0.6, 0.7, 0.1) == 0
    assert type(augment.adapt(0.25, torch.tensor(0.9))) is float


def test_overfitting_is_the_mean_sign(dtype, device):
    logits = torch.tensor(
        [3.0, 0.5, -2.0, 0.1, 0.0], dtype=dtype, device=device, requires_grad=True
    )
    r = augment.overfitting(logits)
    assert not r.requires_grad and abs(float(r) - 2 / 5) < 1e-6


# ---- consistency -----------------------------------------------------------------------------


def test_consistency_of_a_linear_critic(device, double):
    """λ (w·(x − Tx))², so its gradient in w is 2 λ (w·(x − Tx)) (x − Tx), on both sides."""
    real, fake = (images(5, 2, 3, 4, dtype=double, device=device, seed=k) for k in (1, 2))
    w = images(24, dtype=double, device=device, seed=3).requires_grad_()
    fake.requires_grad_()
    critic = lambda x: x.flatten(1) @ w
    edit = partial(augment.translate, p=0.9, ratio=0.3)
    found = augment.consistency(
        critic, real, fake, edit, real_weight=2.0, fake_weight=0.7, generator=seeded(4, device)
    )
    g, want, slope = seeded(4, device), 0, 0
    for x, weight in ((real, 2.0), (fake.detach(), 0.7)):
        moved = (x - edit(x, generator=g)).flatten(1)
        want = want + weight * (moved @ w.detach()) ** 2
        slope = slope + 2 * weight * (moved @ w.detach()) @ moved
    torch.testing.assert_close(found.detach(), want)
    found.sum().backward()
    torch.testing.assert_close(w.grad, slope)
    assert fake.grad is None and found.shape == (5,)


def test_consistency_on_real_data_alone():
    """Its default weights are 10 and 10; with fake_weight = 0 no fake is looked at."""
    real, fake, looked = images(5, 1, 2, 2, seed=1), images(5, 1, 2, 2, seed=2), []

    def critic(x):
        looked.append(x)
        return x.sum((1, 2, 3))

    twice = lambda x, generator=None: 2 * x
    found = augment.consistency(critic, real, fake, twice, fake_weight=0.0)
    torch.testing.assert_close(found, 10 * real.sum((1, 2, 3)) ** 2)
    assert len(looked) == 2
    both = augment.consistency(critic, real, fake, twice)
    torch.testing.assert_close(both - found, 10 * fake.sum((1, 2, 3)) ** 2)
    none = augment.consistency(critic, real, fake, twice, real_weight=0.0, fake_weight=0.0)
    assert torch.equal(none, torch.zeros(5, dtype=DOUBLE))


def test_consistency_is_a_penalty_of_the_loop():
    """Thirty rounds with it leave the critic more consistent than thirty without."""
    x, left = images(200, 1, 4, 4, dtype=torch.float32), []
    for weight in (0.0, 1000.0):
        torch.manual_seed(0)
        critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0))
        G = nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))
        penalty = partial(
            augment.consistency, augment=augment.translate, real_weight=weight, generator=seeded()
        )
        latents = lambda n: torch.randn(n, 3, generator=seeded())
        rounds = gan.alternate(
            G,
            critic,
            gan.hinge,
            lambda: x,
            latents=latents,
            steps=30,
            penalty=penalty,
            lr=0.01,
            progress=False,
        )
        list(rounds)
        left.append(augment.consistency(critic, x, x, augment.translate, generator=seeded()).mean())
    assert left[1] < 0.5 * left[0]


# ---- bad input -------------------------------------------------------------------------------


def test_bad_input_is_named(run_python):
    """In a fresh interpreter, as users meet it."""
    said = run_python(
        "import torch; from minigen.gan import augment as a\n"
        "x, wide = torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 5)\n"
        "def tried(function, *given, **more):\n"
        "    try: print('passed', function(*given, **more))\n"
        "    except (TypeError, ValueError) as error: print(error)\n"
        "edits = a.translate, a.flip, a.cutout, a.colour, a.rotate, a.compose(a.flip)\n"
        "for f in edits: tried(f, torch.zeros(3, 16))\n"
        "for f in edits: tried(f, x, 1.1)\n"
        "tried(a.colour, x.long()); tried(a.rotate, wide)\n"
        "for f in (a.translate, a.cutout): tried(f, x, ratio=2)\n"
        "for given in ((1.1, 0.5), (0.5, 1.1), (0.5, float('nan')), (0.5, 0.5, 2.0)):\n"
        "    tried(a.adapt, *given)\n"
        "tried(a.adapt, 0.5, 0.5, step=-0.01)\n"
        "tried(a.overfitting, torch.zeros(3, 1))\n"
        "tried(a.consistency, lambda x: x, x, x, a.flip)\n"
        "tried(a.consistency, lambda x: x.sum((1, 2, 3)), x, wide, a.flip)\n"
    ).splitlines()
    assert all("images, (B, C, H, W), got (3, 16)" in line for line in said[:6])
    assert all("lies in [0, 1], got 1.1" in line for line in said[6:12])
    assert "must be a float tensor" in said[12] and "only square images" in said[13]
    assert all("ratio is a share of the image's side" in line for line in said[14:16])
    assert all("p is in [0, 1], r and target in [−1, 1], step" in line for line in said[16:21])
    assert "shape (B,), got (3, 1)" in said[21] and "got (3, 1, 4, 4)" in said[22]
    assert "real and fake share one shape" in said[23] and len(said) == 24


def test_a_generator_of_another_device_is_named():
    for edit, _ in EDITS.values():
        with pytest.raises(ValueError, match="make it with torch.Generator"):
            edit(torch.zeros(3, 1, 4, 4, device="meta"), generator=seeded())
