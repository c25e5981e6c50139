"""The words of a check about what no exercise has to itself: errors, tuples, masks, shapes."""

import math
from functools import partial

import pytest
import torch

from minigen.checks import Wrong, apart, ask, call, described, flow, same
from minigen.checks.flow_lines import mean_loss


def seen(check, answer):
    """The lines that a notebook shows of the error."""
    with pytest.raises(Exception) as error:
        check(answer)
    return "\n".join(error.value._render_traceback_()).splitlines()


def scalar_time(net, x0, eps, t):
    return net(x0, 0.5)


@pytest.mark.parametrize(
    "answer, where",
    [
        (scalar_time, "of scalar_time, 'return net(x0, 0.5)'"),
        (eval("lambda net, x0, eps, t: net(x0, 0.5)"), "of <lambda>"),  # no source to read
    ],
)
def test_the_line_shown_is_the_learners_and_none_of_the_checks(answer, where):
    first, second = seen(flow.flow_loss, answer)
    assert first.startswith("Wrong: the network takes one time for each sample")
    assert second.startswith("    in line ") and second.endswith(where)


def test_where_no_frame_is_the_learners_none_is_shown():
    first, second = seen(flow.flow_loss, partial(mean_loss, told=torch.sum))
    assert first.startswith("Wrong: the network takes") and second == "    in your function"


def test_an_error_inside_is_not_taken_for_a_wrong_signature():
    def mine(w):
        return w / w.max(0)

    with pytest.raises(TypeError, match="unsupported operand"):
        call(mine, torch.ones(3, 2))
    with pytest.raises(Wrong, match="could not be called as the task says: too many positional"):
        call(mine, torch.ones(3, 2), 1)
    with pytest.raises(Wrong, match=r"shapes did not fit in line \d+ of <lambda>"):
        call(lambda w: w + torch.ones(5, 2), torch.ones(3, 2))
    with pytest.raises(Wrong, match="asks `if` of a whole batch"):
        call(lambda w: w if w > 0 else -w, torch.ones(3, 2))


@pytest.mark.parametrize(
    "use",
    [
        lambda w, grad: w - grad,
        lambda w, grad: grad - w,
        lambda w, grad: w * grad,
        lambda w, grad: 0.5 * grad,
        lambda w, grad: grad + w,
        lambda w, grad: -grad,
        lambda w, grad: grad.norm(),
        lambda w, grad: grad**2,
        lambda w, grad: torch.square(grad),
    ],
)
def test_the_tuple_of_a_gradient_is_named(use):
    def answer(x):
        x.requires_grad_()
        return use(x, torch.autograd.grad(x.square().sum(), x))

    with pytest.raises(Wrong, match=r"line \d+ of answer.* tuple.*\(grad,\) = torch.autograd.grad"):
        call(answer, torch.ones(3, 2))


def test_a_gradient_that_never_came_is_named():
    def answer(x):
        y = x.clone().requires_grad_().exp()
        y.sum().backward()
        return 2 * x.grad

    with pytest.raises(Wrong, match=r"line \d+ of answer, 'return 2 \* x.grad' computes with None"):
        call(answer, torch.ones(3, 2))


def test_a_mask_is_compared_as_numbers():
    yes = torch.tensor([True, True, False])
    assert same(yes, yes) and not same(yes, ~yes)
    with pytest.raises(Wrong, match="is 0.5 times what is right"):
        ask("x", lambda x: x > 0, lambda x: x, {}, 2 * torch.ones(3))
    with pytest.raises(Wrong, match="two calls"):
        draw = torch.Generator().manual_seed(0)
        ask("x", lambda x: torch.rand(9, generator=draw) > 0.5, lambda x: x, {}, 3 * torch.ones(9))


@pytest.mark.parametrize("asks", [math.exp, float, lambda w: w.item()])
def test_one_number_is_asked_of_a_batch(asks):
    with pytest.raises(Wrong, match="wants one number and got a tensor of many"):
        call(lambda w: asks(w), torch.ones(3, 2))


@pytest.mark.parametrize(
    "shape, column", [((5,), None), ((5, 3), "(B, 1)"), ((5, 2, 3, 4), "(B, 1, 1, 1)")]
)
def test_a_number_a_sample_is_told_the_shape_that_meets_the_data(shape, column):
    with pytest.raises(Wrong, match="shapes did not fit") as error:
        call(lambda x, c: x + c, torch.ones(shape), torch.ones(7))
    assert ("number for each sample" in str(error.value)) == (column is not None)
    assert column is None or f"only as {column}, for" in str(error.value)


def test_what_a_learner_returned_is_described_in_a_few_words():
    one = torch.ones(3)
    assert described([one]) == "a list of 1 tensor" and described([one] * 5)[-7:] == "tensors"
    assert described((one, 3)) == "a tuple of 2 values"
    assert described("three") == "'three'" and described(0.5) == "0.5"
    assert described(one) == "a value of type Tensor"
    assert len(described(["a long text"] * 100)) < 40


def test_two_numbers_are_printed_until_they_differ():
    assert apart(0.21991, 0.21994) == ("0.21991", "0.21994")
    assert apart(1.0, 1.5) == ("1.0000", "1.5000") and len(apart(1.0, 1.0)[0]) < 20
