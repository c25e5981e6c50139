"""The check of lecture 9's second program, the divergence by probes."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask

SHAPE = (5, 3, 2)


class _Field:
    """A field on (B, 3, 2) whose Jacobian is neither symmetric nor the same everywhere."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x) -> Tensor:
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[1:] != SHAPE[1:]:
            got = tuple(x.shape) if isinstance(x, Tensor) else repr(x)
            raise Wrong(f"the field takes states of shape {SHAPE}, got {got}")
        self.calls += 1
        turned = x.flip(1) + 0.4 * x.roll(1, 2).square()
        return torch.sin(1.2 * x) + x * turned.mean(2, keepdim=True) - 0.3 * turned


def _pulled(field, x, v) -> Tensor:
    """vᵀ ∇field(x) for each sample."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad((v * field(x)).sum(), x)
    return grad


def _sum(y: Tensor) -> Tensor:
    return y.flatten(1).sum(1)


def _probe(field, x, v, *, first=lambda v: v, second=lambda g, v, x: g * v,
           at=lambda x, v: x, reduce=_sum) -> Tensor:  # fmt: skip
    """The right estimate, or one with the slips named: each replaces one of its parts."""
    return reduce(second(_pulled(field, at(x, v), first(v)), v, x))


def _diagonal(field, x) -> Tensor:
    """∂field_i/∂x_i, shaped as x."""
    columns = []
    for i in range(x[0].numel()):
        one = torch.zeros_like(x)
        one.view(len(x), -1)[:, i] = 1
        columns.append(_pulled(field, x, one).flatten(1)[:, i])
    return torch.stack(columns, 1).reshape(x.shape)


def _half_square(field, x, v) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(0.5 * field(x).square().sum(), x)
    return _sum(grad * v)


def _ones(v: Tensor) -> Tensor:
    return torch.ones_like(v)


TRACE_SLIPS = {
    "the first v is missing: you differentiated the plain sum of the field, so each output counts "
    "with 1 and its products do not vanish in the mean; it is vᵀ (∇field) v": partial(
        _probe, first=_ones
    ),
    "the second v is missing: you summed the gradient of vᵀ field; multiply it by v first": partial(
        _probe, second=lambda g, v, x: g
    ),
    "neither side has its v: that is the sum of all entries of the Jacobian, and the divergence is "
    "that of its diagonal": partial(_probe, first=_ones, second=lambda g, v, x: g),
    "that is the exact divergence, by one backward pass for each axis: the probe v is given": (
        lambda field, x, v: _sum(_diagonal(field, x))
    ),
    "only the diagonal meets the probe, Σ v_i² ∂field_i/∂x_i: it is vᵀ (∇field) v, by one backward "
    "pass": lambda field, x, v: _sum(v.square() * _diagonal(field, x)),
    "that is vᵀ field(x): nothing was differentiated": lambda field, x, v: _sum(v * field(x)),
    "that is a difference, vᵀ (field(x + v) − field(x)): the derivative is asked for, and v is no "
    "small step": lambda field, x, v: _sum(v * (field(x + v) - field(x))),
    "that is a difference of two sides, vᵀ (field(x + v) − field(x − v))/2: the derivative is "
    "asked for, and v is no small step": lambda field, x, v: _sum(
        v * (field(x + v) - field(x - v)) / 2
    ),
    "that is the gradient times the state x: multiply by the probe v": partial(
        _probe, second=lambda g, v, x: g * x
    ),
    "the outputs were weighted with the state x: weight them with the probe v": (
        lambda field, x, v: _sum(_pulled(field, x, x) * v)
    ),
    "that is the squared length of vᵀ∇field; multiply it by v instead": partial(
        _probe, second=lambda g, v, x: g.square()
    ),
    "that is the length of vᵀ∇field; multiply it by v and sum": partial(
        _probe, second=lambda g, v, x: g, reduce=lambda y: y.flatten(1).norm(dim=1)
    ),
    "that is v times the gradient of ½ ‖field‖²; differentiate vᵀ field": _half_square,
    "that is the gradient vᵀ∇field itself, shaped as x: multiply it by v, and sum over the data "
    "axes": partial(_probe, second=lambda g, v, x: g, reduce=lambda y: y),
    "those are the products before their sum: sum over the data axes of each sample": partial(
        _probe, reduce=lambda y: y
    ),
    "only the last axis was summed: sum over all data axes, .flatten(1).sum(1)": partial(
        _probe, reduce=lambda y: y.sum(-1)
    ),
    "only the first data axis was summed: sum over all of them, .flatten(1).sum(1)": partial(
        _probe, reduce=lambda y: y.sum(1)
    ),
    "you took a mean over the data axes: a divergence is a sum, as vᵀ field is": partial(
        _probe, reduce=lambda y: y.flatten(1).mean(1)
    ),
    "that is one number for the whole batch: keep one for each sample, (B,)": partial(
        _probe, reduce=torch.sum
    ),
    "that is one number, a mean over the batch: keep one for each sample, (B,)": partial(
        _probe, reduce=lambda y: _sum(y).mean()
    ),
    "you summed over the batch: it stays, and the data axes go": partial(
        _probe, reduce=lambda y: y.sum(0)
    ),
    "every sample got the sum of the whole batch": partial(
        _probe, reduce=lambda y: y.sum().expand(len(y))
    ),
    "you divided by ‖v‖²: a normal probe has E vvᵀ = I as it is": (
        lambda field, x, v: _probe(field, x, v) / _sum(v.square())
    ),
    "you divided by ‖v‖²/D: E vvᵀ = I already, and no division is needed": (
        lambda field, x, v: _probe(field, x, v) / v.square().flatten(1).mean(1)
    ),
    "you took the signs of v; other probes are given": (
        lambda field, x, v: _probe(field, x, v.sign())
    ),
    "the field was differentiated at the probe v: at x, and v only multiplies": partial(
        _probe, at=lambda x, v: v
    ),
    "the field was differentiated at x + v: at x, and v only multiplies": partial(
        _probe, at=lambda x, v: x + v
    ),
    "every sample has its own probe, you used the first one's for all": (
        lambda field, x, v: _probe(field, x, v[:1].expand_as(v).clone())
    ),
    "its sign is turned: the divergence itself is asked for": partial(
        _probe, reduce=lambda y: -_sum(y)
    ),
    "vᵀ field was averaged, over the batch and the axes, before it was differentiated: .sum(), as "
    "each number counts whole": partial(_probe, first=lambda v: v / v.numel()),
    "vᵀ field was averaged over the batch before it was differentiated: sum over it, as no sample "
    "depends on another": partial(_probe, first=lambda v: v / len(v)),
    "the second v is squared: it is vᵀ (∇field) v, with v once on each side": partial(
        _probe, second=lambda g, v, x: g * v.square()
    ),
    "the first v is squared: it is vᵀ (∇field) v, with v once on each side": partial(
        _probe, first=torch.square
    ),
    "that is half of it": partial(_probe, reduce=lambda y: 0.5 * _sum(y)),
    "you summed absolute values: products of both signs cancel, and must": partial(
        _probe, reduce=lambda y: _sum(y.abs())
    ),
}


def hutchinson_divergence(function: Callable) -> None:
    """Checks hutchinson_divergence(field, x, v) -> (B,): vᵀ ∇field(x) v for the probes v.

    field(x) is shaped as x, (B, …), as v is, each sample by itself. Raises NotYet, or Wrong with a
    diagnosis.
    """
    x, v = checks.draws(*SHAPE, seed=92), checks.draws(*SHAPE, seed=93, mean=0.0)
    field = _Field()
    ask("the estimate", function, lambda _, *args: _probe(_Field(), *args), TRACE_SLIPS,
        field, x, v)  # fmt: skip
    if field.calls not in (1, SHAPE[0]):  # all at once, or sample by sample
        raise Wrong(
            f"the values are right, but the field was asked {field.calls} times: one call and one "
            f"backward pass give the whole batch"
        )
    one = field.calls == 1
    how = "from one call" if one else f"from {field.calls} calls, where one for the batch will do"
    print(f"right: {SHAPE[0]} estimates {how}, each with its own probe")
