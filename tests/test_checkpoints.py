"""The bundled checkpoints are as good as the page beside them says: measured again, not trusted."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from data import (
    digit_recipes,
    distill_recipes,
    letter_recipes,
    make_checkpoints,
    token_recipes,
    word_recipes,
)
from minigen import data, ddpm, flow, judge, latent, nets, paths, targets, tokens, train
from minigen.train import files

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parents[1] / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))


@pytest.fixture(scope="module")
def eps_net():
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_eps"), net)
    return net


@pytest.fixture(scope="module")
def samples(eps_net):
    return digit_recipes.sample(eps_net, digit_recipes.digits_path(), seed=7)


def test_each_checkpoint_has_its_recipe_and_its_facts():
    assert set(NAMES) == set(make_checkpoints.RECIPES)
    page = (FOLDER / "README.md").read_text("utf-8")
    for name in NAMES:
        path = data.checkpoint(name)
        assert path.stat().st_size < 4e6
        _, about = files.read(path)
        assert about["command"] == f"python data/make_checkpoints.py --only {name} --seed 0"
        assert re.fullmatch(r"[0-9a-f]{7,40}\+?", about["commit"]) and about["seed"] == 0
        for quantity, value in about["measured"].items():
            assert f"| {quantity} | {value} |" in page, "README.md is not of these checkpoints"


@pytest.mark.parametrize("name", NAMES)
def test_each_checkpoint_is_a_net_without_the_code_that_made_it(name):
    net, (tensors, about) = train.rebuild(data.checkpoint(name)), files.read(data.checkpoint(name))
    assert type(net).__name__ == about["class"] and net.state_dict().keys() == tensors.keys()
    assert all(torch.equal(x, tensors[key]) for key, x in net.state_dict().items())


def test_the_classifier_reads_digits_it_has_not_seen():
    assert judge.floor().accuracy >= 0.98


def verdict(x) -> judge.Verdict:
    """The mean verdict on five samples of 360 digits, 0 to 9 in turn."""
    runs = [judge.digits(part, torch.arange(360) % 10) for part in x.split(360)]
    return judge.Verdict(*torch.tensor(runs).mean(0).tolist())


def test_samples_are_the_digits_asked_for_and_look_like_digits_together(samples):
    assert samples.shape == (1800, 1, 8, 8) and samples.abs().max() > 1  # cut nowhere
    got, floor = verdict(samples), judge.floor()
    assert got.accuracy > 0.97 and floor.frechet < got.frechet < 6.5
    assert got.recall > 0.78 and got.precision > 0.85 and got.memorised < 0.01


def test_the_flow_draws_digits_in_a_few_steps():
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_flow"), net)
    draw = {"target": targets.velocity, "ts": flow.grid(20, shift=0.5)}
    got = verdict(digit_recipes.sample(net, paths.Linear(), seed=7, **draw))
    assert got.accuracy > 0.98 and got.frechet < 5.5
    assert got.recall > 0.78 and got.precision > 0.92 and got.memorised < 0.01


def test_one_call_draws_digits_as_the_flow_does_in_twenty():
    """Its teacher in one call draws the mean of each digit; another digit's label is not read."""
    net, old = train.rebuild(data.checkpoint("digits_onestep")), distill_recipes.teacher()
    x = distill_recipes.draw(net, seed=7)
    got = verdict(x)
    assert got.accuracy > 0.97 and got.frechet < 5.5, "twenty calls have 3.6"
    assert got.recall > 0.8 and got.precision > 0.85 and got.memorised < 0.01
    many = verdict(distill_recipes.draw(net, seed=7, calls=4))
    assert many.frechet < got.frechet + 0.5 and many.precision > got.precision
    alone = lambda x, t, s, label: old(x, t, label)
    assert verdict(distill_recipes.draw(alone, seed=7)).frechet > 30
    other = [judge.digits(part, (torch.arange(360) + 1) % 10) for part in x.split(360)]
    assert max(run.accuracy for run in other) < 0.05


def test_a_student_begins_as_its_teacher_whatever_the_way():
    old, label = distill_recipes.teacher(), torch.arange(6)
    net, x = distill_recipes.student(old), torch.linspace(-1, 1, 6 * 64).reshape(6, 1, 8, 8)
    t, s = torch.linspace(0.2, 1, 6), torch.linspace(0, 0.5, 6)
    with torch.no_grad():
        assert torch.equal(net(x, t, s, label), old(x, t, label))


def test_the_loss_of_ways_is_0_at_the_exact_map():
    """On straight trajectories of different speeds the mean velocity on every way is the speed."""
    ts = distill_recipes.KNOTS.float()
    speed = torch.linspace(-2, 3, 5).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    states, label = ts.reshape(1, -1, 1, 1, 1) * speed[:, None], torch.arange(5)
    seen = []

    def u(x, t, s, label):
        assert bool((s < t).all()) and torch.allclose(x, t.reshape(5, 1, 1, 1) * speed)
        seen.extend(zip(t.tolist(), s.tolist(), strict=True))
        return speed

    g = torch.Generator().manual_seed(0)
    for _ in range(400):
        loss = distill_recipes.way_loss(u, states, label, ts, g)
        assert float(loss) < 1e-9, "not the mean velocity"
    whole = sum(pair == (1.0, 0.0) for pair in seen) / len(seen)
    assert 0.4 < whole < 0.65 and len({t for t, _ in seen}) == 16 == len({s for _, s in seen})


def test_letters_come_back_from_their_latents_readable():
    """As sharp as the page says, and each from its own latents alone."""
    net, (x, label) = train.rebuild(data.checkpoint("letters_autoencoder")), data.letters("test")
    with torch.no_grad():
        z = net.encode(x)[0]
        own, others = net.decode(z), net.decode(z.roll(1, dims=0))
    psnr = letter_recipes.psnr
    assert z.shape == (520, 4, 8, 8) and psnr(own, x).mean() > 25
    got, floor = judge.letters(own, label), judge.letters.floor()
    assert floor.accuracy - got.accuracy < 0.02 and got.frechet < floor.frechet + 10
    assert judge.letters(others, label).accuracy < 0.2 and psnr(others, x).mean() < 13


def test_the_transformer_writes_words_it_has_seen_and_words_it_has_not():
    net = train.rebuild(data.checkpoint("words_mmdit"))
    capitals = torch.arange(26) + data.CHARACTERS.index("A")
    pairs = torch.cartesian_prod(capitals, capitals)
    held = judge.unseen(pairs)
    for part, least in ((pairs[~held][::7], 0.9), (pairs[held], 0.8)):
        got = judge.read(word_recipes.spelled(net, part, 3.0, seed=7))
        assert (got == part).all(1).double().mean() >= least
        two = part[:, 0] != part[:, 1]
        assert (got == part.flip(1)).all(1)[two].double().mean() < 0.05


def test_the_latent_flow_draws_the_letters_asked_for():
    net, space = train.rebuild(data.checkpoint("letters_latent")), letter_recipes.LetterLatents()
    x, label = space.decode(letter_recipes.sample_letters(net, seed=7)), torch.arange(520) % 26
    got, other = judge.letters(x, label), judge.letters(x, (label + 1) % 26)
    assert got.accuracy > 0.85 and other.accuracy < 0.05
    assert got.frechet < 1.6  # letters themselves have 0.8, decoded ones 1.0


@pytest.mark.parametrize("name", ["letters_vq", "letters_scales"])
def test_letters_come_back_from_their_tokens_readable(name):
    """And each from its own tokens alone; nearly all codes are in use."""
    net, (x, label) = train.rebuild(data.checkpoint(name)), data.letters("test")
    with torch.no_grad():
        ids = net.encode(x)
        parts = ids if isinstance(ids, list) else [ids]
        own, turned = net.decode(ids), [part.roll(1, dims=0) for part in parts]
        others = net.decode(turned if isinstance(ids, list) else turned[0])
    codes = getattr(net.quantizer, "codebook", net.quantizer).codes
    used = len(torch.cat([part.flatten() for part in parts]).unique()) / codes
    assert used >= 0.9, f"{used:.0%} of the codes occur in the test letters"
    psnr = letter_recipes.psnr
    assert psnr(own, x).mean() > 24, f"PSNR {float(psnr(own, x).mean()):.1f} dB"
    got, floor = judge.letters(own, label), judge.letters.floor()
    assert floor.accuracy - got.accuracy < 0.02, f"{got.accuracy:.3f} are read right"
    assert got.frechet < floor.frechet + 0.6, f"Fréchet distance {got.frechet:.2f}"
    assert judge.letters(others, label).accuracy < 0.2, "another's tokens give the letter"
    assert psnr(others, x).mean() < 13, "another's tokens give the image"


@pytest.fixture(scope="module")
def space():
    return token_recipes.Tokens()


ORDERS = {
    "letters_raster": token_recipes.one_by_one,
    "letters_masked": token_recipes.surest_first,
    "letters_nextscale": token_recipes.scale_by_scale,
}


@pytest.mark.parametrize("name", ORDERS)
def test_letters_asked_for_are_drawn_in_each_order(space, name):
    """Not the next letter's, nor what tokens of different letters give, each at its own place."""
    net = train.rebuild(data.checkpoint(name))
    ids = token_recipes.drawn(ORDERS[name], net, 260, seed=7)
    label, generator = torch.arange(260) % 26, torch.Generator().manual_seed(0)
    mixed = ids.gather(0, torch.rand(ids.shape, generator=generator).argsort(0))
    right = lambda ids, label: judge.letters(space.decode(ids), label).accuracy
    assert (got := right(ids, label)) > 0.88, f"{name}: {got:.3f} are read right"
    assert (got := right(ids, (label + 1) % 26)) < 0.05, f"{name}: {got:.3f} read as the next"
    assert (got := right(mixed, label)) < 0.2, f"{name}: {got:.3f} of mixed tokens are read right"


@pytest.mark.parametrize("name", ORDERS)
def test_each_order_expects_the_letter_it_is_given(space, name):
    """Test letters cost the fewest bits with their own label, more without one, most with wrong."""
    net, (ids, label) = train.rebuild(data.checkpoint(name)), (p[:260] for p in space.ids("test"))
    loss = tokens.masked_loss if name == "letters_masked" else token_recipes.by_likelihood
    cost = []
    for given in (label, None, (label + 1) % 26):
        model, g = tokens.given(net, given), torch.Generator().manual_seed(0)
        with torch.no_grad():
            cost.append(loss(model, ids, generator=g).mean())
    assert cost[0] < cost[1] < cost[2], f"{name}: own, no and wrong label cost {cost}"
    assert cost[0] < 0.8 * cost[2], f"{name}: the label hardly matters, {cost}"


def test_scaled_latents_have_variance_1_and_are_letters_again():
    space = letter_recipes.LetterLatents()
    z, label = space.draw(torch.arange(5200), torch.Generator().manual_seed(0))
    latent.check_standard(z)
    x = data.letters("train")[0]
    assert torch.equal(label, space.label)
    assert (space.decode(z[:520]) - x[:520]).square().mean() < 0.1 * x.square().mean()


def test_the_net_also_knows_digits_without_a_label(eps_net):
    """Guidance needs both: without the label the loss is larger, and far below that of no net."""
    x0, label = data.digits("test")
    generator, path = torch.Generator().manual_seed(0), digit_recipes.digits_path()
    t = torch.randint(1, path.T + 1, (len(x0),), generator=generator) / path.T
    eps = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        known = ddpm.simple_loss(eps_net, path, x0, t, eps, label)
        unknown = ddpm.simple_loss(eps_net, path, x0, t, eps)
        wrong = ddpm.simple_loss(eps_net, path, x0, t, eps, (label + 1) % 10)
    assert known.mean() < unknown.mean() < wrong.mean() and unknown.mean() < 0.3


def test_the_command_writes_a_checkpoint_with_what_it_measured(tmp_path, monkeypatch):
    def tiny(seed):
        return nn.Linear(2, 1), {"seed seen": str(seed)}

    monkeypatch.setattr(make_checkpoints, "RECIPES", {"tiny": tiny})
    make_checkpoints.main(["--only", "tiny", "--seed", "3", "--to", str(tmp_path)])
    about = train.load(tmp_path / "tiny.safetensors", nn.Linear(2, 1))
    assert about["measured"] == {"seed seen": "3"} and about["class"] == "Linear"
    assert about["command"] == "python data/make_checkpoints.py --only tiny --seed 3"


def test_quality_knows_digits_from_noise(samples):
    good = digit_recipes.quality(samples)
    bad = digit_recipes.quality(
        torch.randn(720, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    )
    value = lambda text: float(text.split(" ± ")[0])
    assert good.keys() == bad.keys() == {*judge.Verdict._fields}
    assert value(good["accuracy"]) > 0.97 > 0.3 > value(bad["accuracy"])
    assert value(good["frechet"]) == pytest.approx(verdict(samples).frechet, abs=1e-3)
    assert value(bad["frechet"]) > 10 * value(good["frechet"])


def test_in_an_installed_package_checkpoints_lie_beside_the_modules(tmp_path, monkeypatch):
    inside = tmp_path / "minigen" / "checkpoints"
    inside.mkdir(parents=True)
    (inside / "some_net.safetensors").touch()
    here = tmp_path / "minigen" / "data" / "checkpoints.py"
    monkeypatch.setattr("minigen.data.checkpoints.__file__", str(here))
    assert data.checkpoint("some_net") == inside / "some_net.safetensors"
    with pytest.raises(ValueError, match="no checkpoint 'digits_eps'; there are: some_net"):
        data.checkpoint("digits_eps")
