"""Every exercise's check: a stub is not yet begun, each usual slip gets its own diagnosis.

The slips are functions of the checks' modules (`SLIPS`); the right answers, and wrong ones that no
value tells, stand in the tests of each lecture's checks.
"""

import os
import re
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from minigen.checks import (
    NotYet,
    Wrong,
    ask,
    call,
    compare,
    ddim,
    ddpm,
    distill,
    edm,
    flow,
    gan,
    guidance,
    inverse,
    latent,
    markov,
    pin,
    same,
    schedule,
    score,
    sde,
    solvers,
    start,
    tokens,
    transformer,
    vae,
    vq,
)

LECTURES = [
    start, markov, vae, ddpm, ddim, score, guidance, gan, flow, sde, edm, solvers, transformer,
    latent, vq, tokens, distill,
]  # fmt: skip
MODULES = [*LECTURES, schedule, inverse]
EXERCISES = {
    f"{m.__name__.split('.')[-1]}-{check.__name__}": (check, slips)
    for m in MODULES
    for check, slips in m.SLIPS.items()
}
EACH = [(name, why) for name, (_, slips) in EXERCISES.items() for why in slips]


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_yet_begun(name):
    def stub(*args): ...

    def honest(*args):
        raise NotImplementedError

    for f in (stub, honest, lambda *args: ...):
        with pytest.raises(NotYet, match="returns nothing yet"):
            EXERCISES[name][0](f)


@pytest.mark.parametrize("name", EXERCISES)
def test_what_cannot_be_called_or_is_no_answer_is_named(name):
    check = EXERCISES[name][0]
    with pytest.raises(Wrong, match="could not be called as the task says"):
        check(lambda: 3)
    with pytest.raises(Wrong):
        check(lambda *args: "an answer")


def test_ask_keeps_its_truth_from_an_answer_in_place():
    x = torch.randn(4, 2)
    with pytest.raises(Wrong, match="writes into a tensor that it was given"):
        ask("2x", lambda x: x.mul_(2), lambda x: 2 * x, {}, x)
    ask("2x", lambda x: x + x, lambda x: x.mul_(2), {}, x)  # the truth works on copies too


def test_rounding_is_no_mistake():
    one = torch.ones(3).double()
    compare("x", one + 1e-8, one, {})
    assert same(torch.ones(3), one) and not same(one + 1e-4, one)
    assert call(lambda: 3) == 3


def test_an_answer_that_draws_for_itself_is_told():
    x, draw = torch.ones(4, 2), torch.Generator().manual_seed(0)
    with pytest.raises(Wrong, match="x: two calls .* two answers; draw nothing yourself"):
        ask("x", lambda x: x + torch.randn(4, 2, generator=draw), lambda x: x, {}, x)


def test_an_answer_that_no_slip_explains_is_shown():
    one = torch.ones(3).double()
    with pytest.raises(Wrong, match=r"x is 1\.5 times what is right, everywhere"):
        compare("x", one + 0.5, one, {"a slip": lambda: one + 1})
    with pytest.raises(Wrong, match=r"where 1\.0000 is right, yours gives 1\.5000"):
        compare("x", one[0] + 0.5, one[0], {})  # of one number each is a multiple
    with pytest.raises(Wrong, match=r"where 1\.0000 is right, yours gives -1\.0000"):
        compare("x", one - torch.tensor([0.0, 2.0, -0.5]), one, {})  # the worst, below or above
    with pytest.raises(RuntimeError, match="of its own"):  # shown as it is
        call(lambda: (_ for _ in ()).throw(RuntimeError("an error of its own")))
    with pytest.raises(Wrong, match=r"x: a slip"):
        compare("x", one + 1, one, {"a slip": lambda: one + 1})
    with pytest.raises(Wrong, match=r"has shape \(3, 1\), expected \(3,\)"):
        compare("x", one[:, None], one, {})
    with pytest.raises(Wrong, match="holds NaN"):
        compare("x", one * torch.nan, one, {})
    with pytest.raises(Wrong, match=r"should be one tensor of shape \(3,\), got 'three'"):
        compare("x", "three", one, {})


# ---- What a learner sees -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell():
    """What stands behind a notebook, without its colours."""
    shell = InteractiveShell.instance()
    shell.colors = "nocolor"
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture
def shown(shell, capsys):
    """A function that runs a cell as a kernel does, on the values given, and gives what is seen."""

    def run(cell, **values):
        capsys.readouterr()
        shell.push(values)
        shell.run_cell(cell)
        return "".join(capsys.readouterr())  # standard output and error

    return run


@pytest.mark.parametrize("name, why", EACH, ids=[f"{n}-{i}" for i, (n, _) in enumerate(EACH)])
def test_each_slip_is_named_on_one_line_and_no_other(name, why, shown):
    check, slips = EXERCISES[name]
    (line,) = shown("check(answer)", check=check, answer=slips[why]).splitlines()
    assert line.startswith("Wrong: ") and why in line
    assert [w for w in slips if w in line and w not in why] == []


@pytest.mark.parametrize("name", EXERCISES)
def test_five_usual_slips_have_a_name(name):
    assert len(EXERCISES[name][1]) >= 5


@pytest.mark.parametrize("name", EXERCISES)
def test_the_numbers_of_a_list_of_tensors_are_not_shown(name, shown):
    states = [torch.zeros(5, 3)] * 7
    check = EXERCISES[name][0]
    (line,) = shown("check(lambda *args: states)", check=check, states=states).splitlines()
    assert line.startswith("Wrong: ") and line.endswith("got a list of 7 tensors")


def test_every_program_of_the_lectures_has_its_slips():
    called = set()
    for path in (Path(__file__).parent.parent / "notebooks").rglob("*.ipynb"):
        asked = re.findall(r"\bcheck\.(\w+)\(", path.read_text())
        called |= {f"{path.stem.partition('_')[2]}-{name}" for name in asked}
    assert called == {*EXERCISES}


def test_a_wrong_answer_and_a_stub_show_one_line_and_no_frame(shown):
    head = "from minigen.checks import ddim as check\n"
    name = next(n for n in dir(ddim) if n in {c.__name__ for c in ddim.SLIPS})
    said = shown(head + f"check.{name}(lambda *args: ...)")
    assert said.strip().startswith("NotYet: ") and len(said.strip().splitlines()) == 1
    said = shown(head + f"check.{name}(lambda *args: 'three')")
    assert said.strip().startswith("Wrong: ") and len(said.strip().splitlines()) == 1


def test_an_error_of_the_learner_keeps_their_line(shown):
    said = shown(
        "from minigen.checks import call\nimport torch\n"
        "def mine(w):\n    top = w.max(0)\n    return w / top\n"
        "call(mine, torch.ones(3, 2))"
    )
    first, second = said.strip().splitlines()
    assert first.startswith("TypeError: unsupported operand")
    assert second == "    in line 5 of mine, 'return w / top'"


def test_a_pin_fails_in_tests_and_tells_a_learner(monkeypatch, capsys):
    pin(torch.tensor(True), "fine")
    with pytest.raises(AssertionError, match="the loss has moved"):
        pin(torch.tensor(False), "the loss has moved")
    for name in {"CI", "PYTEST_VERSION"} & {*os.environ}:
        monkeypatch.delenv(name)
    pin(False, "the loss has moved")
    assert capsys.readouterr().out == (
        "Your run differs from the one printed here: the loss has moved\n"
    )
    monkeypatch.setenv("CI", "true")
    with pytest.raises(AssertionError):
        pin(False, "the loss has moved")
