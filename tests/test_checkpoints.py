"""The bundled checkpoints are as good as the page beside them says: measured again, not trusted."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from minigen import data, ddpm, flow, metrics, nets, paths, targets, train
from minigen.train import files

FOLDER = Path(__file__).parents[1] / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))


@pytest.fixture(scope="module")
def recipes():
    spec = importlib.util.spec_from_file_location("make", FOLDER / "make_checkpoints.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judge():
    net = nets.DigitsClassifier()
    train.load(data.checkpoint("digits_classifier"), net)
    return net


@pytest.fixture(scope="module")
def eps_net():
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_eps"), net)
    return net


@pytest.fixture(scope="module")
def samples(recipes, eps_net):
    return recipes.sample(eps_net, recipes.digits_path(), seed=7)


def test_each_checkpoint_has_its_recipe_and_its_facts(recipes):
    assert set(NAMES) == set(recipes.RECIPES)
    page = (FOLDER / "README.md").read_text("utf-8")
    for name in NAMES:
        path = data.checkpoint(name)
        assert path.stat().st_size < 3e6
        _, about = files.read(path)
        assert about["command"] == f"python data/make_checkpoints.py --only {name} --seed 0"
        assert re.fullmatch(r"[0-9a-f]{7,40}\+?", about["commit"]) and about["seed"] == 0
        for quantity, value in about["measured"].items():
            assert f"| {quantity} | {value} |" in page, "README.md is not of these checkpoints"


def test_the_classifier_reads_digits_it_has_not_seen(judge):
    assert metrics.accuracy(judge, *data.digits("test")) >= 0.98


def test_samples_are_the_digits_asked_for(judge, samples):
    assert samples.shape == (2000, 1, 8, 8) and samples.abs().max() <= 1
    assert metrics.accuracy(judge, samples, torch.arange(2000) % 10) >= 0.97


def test_samples_look_like_digits_together(judge, samples):
    (real, _), (test, _) = data.digits("train"), data.digits("test")
    got = metrics.frechet(samples, real, judge.features)
    floor = metrics.frechet(test, real, judge.features)
    blurred = nn.functional.avg_pool2d(real, 3, 1, 1)  # what the distance must not take for digits
    assert floor < got < 8 < metrics.frechet(blurred, real, judge.features)


def test_the_flow_draws_digits_in_a_few_steps(recipes, judge):
    net = nets.ResMLP((1, 8, 8), hidden=256, depth=4, classes=10)
    train.load(data.checkpoint("digits_flow"), net)
    ts = flow.grid(20, shift=0.5)
    x = recipes.sample(net, paths.Linear(), seed=7, target=targets.velocity, ts=ts)
    assert metrics.accuracy(judge, x, torch.arange(2000) % 10) >= 0.97
    real = data.digits("train")[0]
    assert metrics.frechet(x, real, judge.features) < 7
    copies = metrics.share_with_error(metrics.duplicates(x, real), 2000)
    assert copies.value < 0.01 + 3 * copies.stderr


def test_samples_are_not_copies(samples):
    copies = metrics.share_with_error(metrics.duplicates(samples, data.digits("train")[0]), 2000)
    assert copies.value < 0.01 + 3 * copies.stderr


def test_the_net_also_knows_digits_without_a_label(recipes, eps_net, judge):
    """Guidance needs both: without the label the loss is larger, and far below that of no net."""
    x0, label = data.digits("test")
    generator, path = torch.Generator().manual_seed(0), recipes.digits_path()
    t = torch.randint(1, path.T + 1, (len(x0),), generator=generator) / path.T
    eps = torch.randn(x0.shape, generator=generator)
    with torch.no_grad():
        known = ddpm.simple_loss(eps_net, path, x0, t, eps, label)
        unknown = ddpm.simple_loss(eps_net, path, x0, t, eps)
        wrong = ddpm.simple_loss(eps_net, path, x0, t, eps, (label + 1) % 10)
    assert known.mean() < unknown.mean() < wrong.mean() and unknown.mean() < 0.3


def test_the_command_writes_a_checkpoint_with_what_it_measured(recipes, tmp_path, monkeypatch):
    def tiny(seed):
        return nn.Linear(2, 1), {"seed seen": str(seed)}

    monkeypatch.setattr(recipes, "RECIPES", {"tiny": tiny})
    recipes.main(["--only", "tiny", "--seed", "3", "--to", str(tmp_path)])
    about = train.load(tmp_path / "tiny.safetensors", nn.Linear(2, 1))
    assert about["measured"] == {"seed seen": "3"} and about["class"] == "Linear"
    assert about["command"] == "python data/make_checkpoints.py --only tiny --seed 3"


def test_quality_knows_real_digits_from_noise(recipes):
    x, label = data.digits("test")
    real = recipes.quality(x, label, seed=0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    bad = recipes.quality(noise, label, seed=0)
    value = lambda text: float(text.split(" ± ")[0])
    assert value(real["accuracy"]) > 0.98 > 0.3 > value(bad["accuracy"])
    floor = value(real["Fréchet of test to train, floor"])
    assert value(real["Fréchet to train"]) == pytest.approx(floor, rel=0.1)  # other random groups
    assert value(bad["Fréchet to train"]) > 10 * value(real["Fréchet to train"])


def test_in_an_installed_package_checkpoints_lie_beside_the_modules(tmp_path, monkeypatch):
    inside = tmp_path / "minigen" / "checkpoints"
    inside.mkdir(parents=True)
    (inside / "some_net.safetensors").touch()
    here = tmp_path / "minigen" / "data" / "checkpoints.py"
    monkeypatch.setattr("minigen.data.checkpoints.__file__", str(here))
    assert data.checkpoint("some_net") == inside / "some_net.safetensors"
    with pytest.raises(ValueError, match="no checkpoint 'digits_eps'; there are: some_net"):
        data.checkpoint("digits_eps")
