"""The data sets have the scale, the labels and the determinism they promise."""

import inspect
import math
import urllib.error

import pytest
import sklearn.datasets
import torch

from minigen import data, shapes
from minigen.data import points
from minigen.data.glyphs import _masks


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


@pytest.mark.parametrize("name", data.TOYS)
def test_a_toy_has_mean_square_1_per_coordinate(name, device, dtype, generator):
    n = 40_001
    x = data.toy(name)(n, generator=generator, dtype=dtype)
    assert x.shape == (n, 2) and x.dtype == dtype and x.device.type == device.type
    square = x.pow(2).sum(dim=1)
    assert abs(square.mean() - 2) < 5 * square.std() / math.sqrt(n)


@pytest.mark.parametrize(
    "draw, noise", [(data.moons, 0.1), (data.swiss_roll, 0.05), (data.pinwheel, 0.05)]
)
def test_the_noise_of_a_toy_counts_in_its_scale(draw, noise):
    """E‖x‖² = 2 so closely that a scale which forgot the noise, 0.1² or 0.05², would be seen."""
    square = draw(4_000_000, generator=seeded(), dtype=torch.float64).pow(2).sum(dim=1)
    error = square.std() / math.sqrt(len(square))
    assert abs(square.mean() - 2) < 3 * error < noise**2  # forgotten, it would add about 2 noise²


def test_toys_repeat_with_their_generator_and_differ_without_it():
    for draw in (
        data.moons,
        data.eight_gaussians,
        data.checkerboard,
        data.swiss_roll,
        data.pinwheel,
    ):
        a, b = draw(7, generator=seeded()), draw(7, generator=seeded())
        c = draw(7, generator=seeded(1))
        assert a.dtype == torch.float32 and torch.equal(a, b) and not torch.equal(a, c)
        assert draw(3).shape == (3, 2)


def test_the_moons_are_two_half_circles(generator, double):
    x = data.moons(20_000, generator=generator, dtype=double) / math.sqrt(
        1.98 / (1.3125 - 1 / math.pi)
    )
    centre = x.new_tensor([0.5, 0.25])
    first, second = (x + centre).norm(dim=1), (x - centre).norm(dim=1)
    upper = (first - 1).abs() < (second - 1).abs()
    assert abs(upper.to(double).mean() - 0.5) < 0.02  # 5 standard errors: 0.018
    nearest = torch.minimum((first - 1).abs(), (second - 1).abs())
    assert nearest.max() < 5 * 0.1 / 1.4  # noise 0.1, in units of the unrescaled radius 1


def test_eight_gaussians_is_the_mixture_it_says(generator, double):
    x = data.eight_gaussians(16_000, generator=generator, dtype=double)
    angle = torch.arange(8, dtype=double, device=x.device) * math.pi / 4
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], dim=1)
    away, which = torch.cdist(x, means).min(dim=1)
    assert (which.bincount() - 2000).abs().max() < 5 * math.sqrt(2000)
    # E|noise|² = 2 · 0.02; its variance over a sample of n is (2 · 0.02)² / n
    assert abs(away.pow(2).mean() - 0.04) < 5 * 0.04 / math.sqrt(len(x))


def test_the_checkerboard_fills_black_squares_evenly_and_no_white_one(generator, double):
    x = data.checkerboard(16_000, generator=generator, dtype=double)
    square = ((x / math.sqrt(3) + 1) * 2).floor().long()
    assert square.min() == 0 and square.max() == 3
    assert ((square.sum(dim=1) % 2) == 0).all()
    count = (4 * square[:, 0] + square[:, 1]).bincount(minlength=16)
    assert (count > 0).sum() == 8
    assert (count[count > 0] - 2000).abs().max() < 5 * math.sqrt(2000)


def test_the_swiss_roll_winds_its_radius_with_its_angle(generator, double):
    x = data.swiss_roll(2_000, generator=generator, dtype=double)
    scale = math.sqrt(1.995 / (13 / 3 * (1.5 * math.pi) ** 2))
    turns = (x.norm(dim=1) / scale - torch.atan2(x[:, 1], x[:, 0])) / (2 * math.pi)
    off = (turns - turns.round()).abs()  # radius = angle up to whole turns
    assert off.median() < 0.1
    assert x.mean(dim=0).norm() > 0.1


def test_the_pinwheel_has_five_arms(generator, double):
    x = data.pinwheel(20_000, generator=generator, dtype=double) / math.sqrt(2 / 1.0925)
    radius = x.norm(dim=1)
    straight = torch.atan2(x[:, 1], x[:, 0]) - 0.25 * radius.exp()
    fifth = (straight * 5 / (2 * math.pi)).remainder(5)
    assert ((fifth - fifth.round()).abs() < 0.25).to(double).mean() > 0.97
    count = (fifth.round().long() % 5).bincount()
    assert (count - 4000).abs().max() < 5 * math.sqrt(4000)


def test_toys_alone_hold_their_drawers():
    rand, randn = points.drawers(2, seeded(), torch.float64)
    assert rand(2).dtype == torch.float64 and randn(2, 3).shape == (2, 3)


def test_an_unknown_data_set_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="no data set 'moon'.*moons, eight_gaussians"):
        data.toy("moon")


def test_digits_are_split_once_evenly_by_class():
    (x, label), (x_test, label_test) = data.digits(), data.digits("test")
    assert x.shape == (1437, 1, 8, 8) and x_test.shape == (360, 1, 8, 8)
    assert x.dtype == torch.float32 and label.dtype == torch.int64
    assert float(x.min()) == -1.0 and float(x.max()) == 1.0
    whole = label.bincount() + label_test.bincount()
    assert (label_test.bincount() - whole / 5).abs().max() <= 1
    # together they are all of scikit-learn's images, each once
    both = torch.cat([x, x_test]).flatten(1).double() * 8 + 8
    raw, _ = sklearn.datasets.load_digits(return_X_y=True)
    powers = torch.linspace(1, 2, 64, dtype=torch.float64).exp()
    torch.testing.assert_close(
        (both @ powers).sort().values, (torch.from_numpy(raw) @ powers).sort().values
    )
    # fixed for ever: a checkpoint is only held out while the split stays as it was
    assert label_test[:12].tolist() == LABELS
    assert torch.equal(data.digits("test")[0], x_test)


LABELS = [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]


def test_glyphs_are_deterministic_labelled_images(device, generator):
    x, char, font = data.glyphs(200, 16, generator=generator)
    again = data.glyphs(200, 16, generator=seeded(0, device))
    assert torch.equal(x, again[0]) and torch.equal(char, again[1])
    assert x.shape == (200, 1, 16, 16) and x.device.type == device.type
    assert x.min() >= -1 and x.max() <= 1 and (x.flatten(1).max(dim=1).values > 0).all()
    assert 0 <= char.min() and char.max() < len(data.CHARACTERS) == 62
    assert 0 <= font.min() and font.max() < len(data.FONTS) == 21


def test_every_glyph_is_drawn_by_every_font_and_none_is_cut_off():
    masks = _masks(28)
    assert masks.shape == (62, 21, 56, 56)
    for font in masks.transpose(0, 1):
        assert len({bytes(mask.numpy()) for mask in font}) == 62  # no two characters alike
    edge = torch.cat([masks[..., 0], masks[..., -1], masks[..., 0, :], masks[..., -1, :]])
    assert int(edge.max()) == 0
    inked = masks.flatten(0, 1).flatten(1).float()
    assert (inked > 127).float().mean(dim=1).min() > 0.01


def test_glyphs_label_says_what_is_drawn():
    x, char, font = data.glyphs(60, 28, characters="ab7", jitter=0.0, generator=seeded())
    for image, c, f in zip(x, char, font, strict=True):
        mask = _masks(28)[data.CHARACTERS.index("ab7"[c]), f].float()
        want = torch.nn.functional.avg_pool2d(mask[None], 2) / 255 * 2 - 1
        torch.testing.assert_close(image, want)


def test_jitter_moves_glyphs_and_keeps_their_ink():
    still = data.glyphs(300, jitter=0.0, generator=seeded())[0]
    moved = data.glyphs(300, jitter=1.0, generator=seeded())[0]
    assert (still - moved).abs().amax(dim=(1, 2, 3)).min() > 0.1
    ink = [(x + 1).sum() for x in (still, moved)]
    assert abs(ink[1] / ink[0] - 1) < 0.05  # zooms of ±10 % average out


def test_words_are_deterministic_images_with_their_captions(device, generator):
    x, ids, font = data.words(150, (16, 32), generator=generator)
    again = data.words(150, (16, 32), generator=seeded(0, device))
    assert x.shape == (150, 1, 16, 32) and ids.shape == (150, 2) and font.shape == (150,)
    assert ids.dtype == torch.int64 and x.device.type == ids.device.type == device.type
    for one, two in zip((x, ids, font), again, strict=True):
        assert torch.equal(one, two)
    assert float(x.min()) == -1 and float(x.max()) > 0.5 and len(font.unique()) == 21
    assert data.words(3, (12, 30), length=3, generator=seeded())[1].shape == (3, 3)


def test_a_word_reads_from_left_to_right_and_fits():
    """An 8 is as wide as a 1 and has more ink: the side that has it is the darker one."""
    x, ids, font = data.words(400, (16, 32), characters="81", jitter=0.0, generator=seeded())
    ink = (x + 1) / 2
    middle = (ink.sum((1, 2)) * torch.arange(32)).sum(1) / ink.sum((1, 2, 3))
    dark = data.CHARACTERS.index("8")
    first, last = ids[:, 0] == dark, ids[:, 1] == dark
    for k in range(21):
        left, right = middle[first & ~last & (font == k)], middle[last & ~first & (font == k)]
        assert len(left) and len(right) and float(left.max()) + 0.5 < float(right.min())
    same = (ids == ids[0]).all(1) & (font == font[0])
    assert int(same.sum()) > 1 and torch.equal(x[same], x[:1].expand(int(same.sum()), 1, 16, 32))
    edge = torch.cat([ink[:, :, [0, -1]].flatten(1), ink[:, :, :, [0, -1]].flatten(1)], 1)
    assert float(edge.max()) == 0  # nothing is cut off
    moved = data.words(400, (16, 32), characters="81", generator=seeded())[0]
    share = float(((moved + 1) / 2).sum() / ink.sum())
    assert not torch.equal(moved, x) and 0.95 < share < 1.05


def test_words_that_cannot_be_drawn_are_named():
    for bad, sentence in (
        ({"characters": "aß"}, "characters must be some of"),
        ({"length": 0}, "length must be a whole number"),
        ({"size": (0, 8)}, "height must be a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            data.words(2, **bad)


def test_coloured_glyphs_have_one_ink_each():
    x, _, _ = data.glyphs(50, 16, colour=True, generator=seeded())
    assert x.shape == (50, 3, 16, 16)
    light = (x + 1).flatten(2)
    ratio = light / light.sum(dim=1, keepdim=True)
    inked = light.sum(dim=1) > 0.5
    for image, where in zip(ratio, inked, strict=True):
        assert image[:, where].std(dim=1).max() < 1e-3


def test_unknown_characters_are_refused():
    with pytest.raises(ValueError, match="characters must be some of"):
        data.glyphs(2, characters="aß")
    with pytest.raises(ValueError, match="characters must be some of"):
        data.glyphs(2, characters="")


def test_patches_are_cut_from_the_photographs(generator):
    x = data.patches(20, 12, generator=generator).cpu()
    assert x.shape == (20, 3, 12, 12) and x.min() >= -1 and x.max() <= 1
    photos = [torch.from_numpy(p.copy()) for p in sklearn.datasets.load_sample_images().images]
    for patch in ((x + 1) * 127.5).round().to(torch.uint8)[:4]:
        found = False
        for photo in photos:
            corner = (photo[:416, :629] == patch[:, 0, 0]).all(dim=-1).nonzero()
            found |= any(
                torch.equal(photo[i : i + 12, j : j + 12].movedim(-1, 0), patch)
                for i, j in corner.tolist()
            )
        assert found
    with pytest.raises(ValueError, match="size must lie between 1 and 427"):
        data.patches(2, 428)


@pytest.mark.parametrize("load", [data.digits, data.mnist, data.fashion_mnist])
def test_an_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="split is 'train' or 'test', got 'valid'"):
        load("valid")


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist])
def test_offline_the_downloads_say_what_to_use_instead(load, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(ConnectionError, match=r"openml.org.*data.glyphs\(n, 28\)"):
        load("test")


@pytest.mark.parametrize("load", [data.mnist, data.fashion_mnist])
def test_the_downloads_are_scaled_and_split(load, monkeypatch):
    def fetch(name, **how):
        assert how["parser"] == "liac-arff" and not how["as_frame"]
        images = (torch.arange(70_000)[:, None] % 256).expand(-1, 784).numpy()
        return images, (torch.arange(70_000) % 10).numpy().astype(str)

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    x, label = load("test")
    assert x.shape == (10_000, 1, 28, 28) and label[:3].tolist() == [0, 1, 2]
    assert float(x.min()) == -1 and float(x.max()) == 1
    assert float(x[0, 0, 0, 0]) == pytest.approx((60_000 % 256) / 127.5 - 1)
    assert len(load("train")[0]) == 60_000


def test_batches_pass_once_through_the_data_and_keep_rows_together(device, generator):
    x = torch.arange(11.0, device=device)[:, None]
    stream = data.batches(x, 2 * x, size=3, generator=generator)
    for _ in range(2):
        rows = [next(stream) for _ in range(3)]
        seen = torch.cat([a for a, _ in rows]).flatten().tolist()
        assert len(seen) == len(set(seen)) == 9
        assert all(torch.equal(2 * a, b) and a.device.type == device.type for a, b in rows)
    first = next(data.batches(x, size=11, generator=generator))[0].flatten()
    assert first.sort().values.tolist() == list(range(11)) and first.tolist() != list(range(11))


def test_batches_go_on_from_their_rest_and_their_generators_state():
    """Together they are all of the state: at any time the rest of the stream follows from them."""
    x, g = torch.arange(7.0), seeded()
    stream = data.batches(x, size=2, generator=g)
    for _ in range(9):
        other = data.batches(x, size=2, generator=seeded(1))
        other.rest, _ = stream.rest, other.generator.set_state(g.get_state())
        ahead = [next(other)[0] for _ in range(5)]
        again = seeded(1)
        again.set_state(g.get_state())
        same = data.batches(x, size=2, generator=again)
        same.rest = stream.rest
        assert all(torch.equal(next(same)[0], a) for a in ahead)
        assert torch.equal(next(stream)[0], ahead[0])
    assert iter(stream) is stream


def test_batches_are_known_by_their_generator():
    x, g = torch.arange(7.0), seeded()
    one, two = data.batches(x, size=2, generator=g), data.batches(x, size=3, generator=g)
    other, free = data.batches(x, size=2, generator=seeded()), data.batches(x, size=2)
    assert data.Batches.of([g]) == [one, two] and other not in data.Batches.of([g])
    assert free in data.Batches.of([torch.default_generator]) and data.Batches.of([]) == []
    del one
    assert data.Batches.of([g]) == [two]


def test_data_that_cannot_be_used_is_refused_at_the_call():
    x = torch.zeros(5, 2)
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match="1 values that are not finite.*first in sample 3"):
        data.batches(x, size=2)
    with pytest.raises(ValueError, match="not finite"):
        shapes.check_finite(torch.tensor([1.0, torch.inf]))
    with pytest.raises(ValueError, match="2 values .* the first in sample 1"):
        shapes.check_finite(torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [0.0, torch.inf]]))
    assert shapes.check_finite(x[:3]).shape == (3, 2)
    with pytest.raises(ValueError, match="not finite"):
        data.batches(x[:3], torch.full((3,), torch.inf), size=2)
    with pytest.raises(ValueError, match="different length"):
        data.batches(x[:3], x[:2], size=2)
    with pytest.raises(ValueError, match="a batch of 4 can't be drawn from 3"):
        data.batches(x[:3], size=4)


def test_batches_of_what_is_no_tensor_are_refused_at_the_call(run_python):
    """In a fresh interpreter, where no hook looks at the annotations first."""
    source = """
    import torch; from minigen import data
    x = torch.zeros(3, 2)
    for tensors, size in ([torch.utils.data.TensorDataset(x)], 2), ([], 2), ([x], 2.5):
        try:
            data.batches(*tensors, size=size)
        except (TypeError, ValueError) as error:
            print(error)
    """
    dataset, nothing, size = run_python(inspect.cleandoc(source)).splitlines()
    assert "got TensorDataset: of a TensorDataset pass *dataset.tensors" in dataset
    assert "batches takes tensors such as x, label, got nothing" in nothing
    assert size == "size must be a whole number of at least 1, got 2.5"


def test_an_unknown_checkpoint_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="no checkpoint 'nonsense'; there are: "):
        data.checkpoint("nonsense")


def test_letters_are_one_fixed_set_of_26_capitals():
    x, label = data.letters("test", 16)
    again, _ = data.letters("test", 16)
    assert x.shape == (520, 1, 16, 16) and torch.equal(x, again)
    assert (
        label.unique().tolist() == list(range(26))
        and (x[0] != data.letters("train", 16)[0][0]).any()
    )
    x += 1  # a user's own copy
    assert data.letters("test", 16)[0].min() == -1
    with pytest.raises(ValueError, match="split is 'train' or 'test', got 'all'"):
        data.letters("all")
