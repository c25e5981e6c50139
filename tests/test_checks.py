"""Every exercise's check: a stub is not yet begun, each usual slip gets its own diagnosis.

The slips are functions of the checks' modules (`SLIPS`); the right answers, and wrong ones that no
value tells, stand in the tests of each lecture's checks.
"""

import pytest
import torch

from minigen.checks import (
    NotYet,
    Wrong,
    ask,
    call,
    compare,
    ddim,
    ddpm,
    flow,
    gan,
    guidance,
    markov,
    same,
    score,
    vae,
)

MODULES = [markov, vae, ddpm, ddim, score, guidance, gan, flow]
EXERCISES = {
    f"{m.__name__.split('.')[-1]}-{check.__name__}": (check, slips)
    for m in MODULES
    for check, slips in m.SLIPS.items()
}
EACH = [(name, why) for name, (_, slips) in EXERCISES.items() for why in slips]


@pytest.mark.parametrize("name, why", EACH, ids=[f"{n}-{i}" for i, (n, _) in enumerate(EACH)])
def test_each_slip_is_named_and_no_other(name, why):
    check, slips = EXERCISES[name]
    with pytest.raises(Wrong) as error:
        check(slips[why])
    said = str(error.value)
    assert why in said
    assert [w for w in slips if w in said and w not in why] == []


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


def test_an_answer_that_no_slip_explains_is_shown():
    one = torch.ones(3).double()
    with pytest.raises(Wrong, match=r"where 1\.0000 is right, yours gives 1\.5000"):
        compare("x", one + 0.5, one, {"a slip": lambda: one + 1})
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
    with pytest.raises(Wrong, match=r"should be a tensor of shape \(3,\), got 'three'"):
        compare("x", "three", one, {})
