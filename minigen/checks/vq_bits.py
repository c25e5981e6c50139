"""The check of lecture 14's second program, the bits that Gaussian numbers get."""

from collections.abc import Callable

import torch
from torch import Tensor

from minigen.checks import ask, draws

D, BUDGETS = 7, (3.6, 9.7, 40.0)  # numbers, bits in all


def _errors(variances, bits) -> Tensor:
    """min(v, θ), by halving the interval in which log2 θ lies."""
    logs = variances.log2()
    low, high = logs.min() - 2 * bits, logs.max()
    for _ in range(200):
        middle = (low + high) / 2
        spent = 0.5 * (logs - middle).clamp(min=0).sum()
        low, high = (middle, high) if spent > bits else (low, middle)
    return variances.minimum(torch.exp2(high))


def _level(variances, bits, k, mean=lambda v: v.log2().mean()) -> Tensor:
    """θ, were it the k largest that have bits."""
    return torch.exp2(mean(variances.sort(descending=True).values[:k]) - 2 * bits / k)


def _how_many(variances, bits) -> int:
    return int((_errors(variances, bits) < variances).sum())


def _with(change: Callable) -> Callable:
    """The error where the k largest get bits, but k, or what k is for, is changed."""

    def slip(variances, bits) -> Tensor:
        theta = _level(variances, bits, _how_many(variances, bits))
        return change(variances, bits, theta)

    return slip


def _more(extra: int) -> Callable:
    """The level that k + extra numbers would have."""

    def slip(variances, bits) -> Tensor:
        k = min(max(_how_many(variances, bits) + extra, 1), len(variances))
        among = variances >= variances.sort(descending=True).values[k - 1]
        return torch.where(among, _level(variances, bits, k), variances)

    return slip


def _whole(variances, bits) -> Tensor:
    """One bit after the other, to the number with the largest error."""
    left = variances.clone()
    for _ in range(int(bits)):
        left[left.argmax()] /= 4
    return left


def _at(allotted: Callable) -> Callable:
    """The errors v 2^(−2b) for bits b allotted to each."""
    return lambda v, bits: v * torch.exp2(-2 * allotted(v, bits))


def _clamped(variances, bits) -> Tensor:
    return variances.minimum(_level(variances, bits, len(variances)))


def _scaled(variances, bits) -> Tensor:
    """Bits by the level of all, the negative ones set to 0 and the others scaled to fit."""
    b = (0.5 * (variances / _level(variances, bits, len(variances))).log2()).clamp(min=0)
    return variances * torch.exp2(-2 * b * bits / b.sum())


def _allotment(variances, bits) -> Tensor:
    return 0.5 * (variances / _errors(variances, bits)).log2()


ERROR_SLIPS = {
    "you gave each number the same bits: one whose variance is large needs more of them":
        _at(lambda v, bits: torch.full_like(v, bits / len(v))),
    "all errors are one number in yours, also those of numbers whose variance is less: they would "
    "have got a negative number of bits. No error exceeds its variance":
        lambda v, bits: _level(v, bits, len(v)).expand_as(v),
    "you took the level for all numbers and cut it at the variances: the bits below 0 that you cut "
    "were spent elsewhere, so the sum is more than `bits`. Find the level anew for those that are "
    "left": _clamped,
    "you scaled the bits down to the sum asked for, and those that have some end at unequal "
    "errors: a little moved from the least to the largest makes the sum smaller": _scaled,
    "the bits are as the variances in yours: among those that have some, the *errors* are equal":
        _at(lambda v, bits: bits * v / v.sum()),
    "the bits are as the standard deviations in yours: among those that have some, the *errors* "
    "are equal": _at(lambda v, bits: bits * v.sqrt() / v.sqrt().sum()),
    "all bits are the largest variance's in yours": _at(
        lambda v, bits: bits * (v == v.max()).to(v)),
    "your error of b bits is v 2^(−b): each bit halves the cell, so it divides the *squared* error "
    "by 4": lambda v, bits: _errors(v, bits / 2),
    "your error of b bits is v 2^(−4b), which is twice as many bits as there are":
        lambda v, bits: _errors(v, 2 * bits),
    "you counted in nats, v e^(−2b): a bit is a factor 2": lambda v, bits: _errors(
        v, bits / torch.log(torch.tensor(2.0)).item()),
    "`bits` are all there are; in yours each number has as many": lambda v, bits: _errors(
        v, bits * len(v)),
    "you divided `bits` by the number of numbers and allotted only that much": lambda v, bits: (
        _errors(v, bits / len(v))),
    "what gets no bits is replaced by its mean, and has the error v, its variance: in yours 0":
        _with(lambda v, bits, theta: torch.where(v > theta, theta, torch.zeros_like(v))),
    "what gets no bits has the error v, its variance: yours has the water level": _with(
        lambda v, bits, theta: theta.expand_as(v)),
    "you took the larger of variance and level: the smaller one": _with(
        lambda v, bits, theta: v.maximum(theta)),
    "one number too many has bits in yours, and ends above its variance": _more(1),
    "one number too few has bits in yours": _more(-1),
    "the level is a geometric mean of the variances (their logarithms are averaged), yours an "
    "arithmetic one": lambda v, bits: v.minimum(_level(
        v, bits, _how_many(v, bits), lambda v: v.mean().log2())),
    "you took `variances` for standard deviations": lambda v, bits: _errors(v.square(), bits),
    "you used the square roots of the variances, standard deviations": lambda v, bits: _errors(
        v.sqrt(), bits),
    "those are square roots: squared errors are asked for": lambda v, bits: _errors(v, bits).sqrt(),
    "you gave whole bits: fractions are allowed, and better": _whole,
    "those are in the order of size: leave each number at its place": lambda v, bits: _errors(
        v, bits).sort(descending=True).values,
    "those are in the order of size, the least first: leave each number at its place":
        lambda v, bits: _errors(v, bits).sort().values,
    "those are the bits of each number: its error v 2^(−2b) is asked for": _allotment,
    "that is the water level: each number's error is asked for, (D,)": _with(
        lambda v, bits, theta: theta),
    "one error for each number is asked for, (D,); you summed them": lambda v, bits: _errors(
        v, bits).sum(),
    "one error for each number is asked for, (D,); you averaged them": lambda v, bits: _errors(
        v, bits).mean(),
    "those are the parts of the variances that are kept: what is lost is asked for":
        lambda v, bits: v - _errors(v, bits),
    "those are the errors as parts of the variances": lambda v, bits: _errors(v, bits) / v,
}  # fmt: skip


def _variances() -> Tensor:
    """Seven of them within a factor of about 1000, in no order, and none at the water's edge."""
    return torch.exp2(draws(D, seed=161, mean=0.0, std=0.2) + torch.tensor(
        [1.0, -6.0, 3.0, -2.0, 4.0, -0.5, -4.0]))  # fmt: skip


def least_errors(function: Callable) -> None:
    """Checks least_errors(variances, bits) -> (D,): variances (D,), bits a number, all there are.

    Raises NotYet, or Wrong with a diagnosis.
    """
    variances = _variances()
    for bits in BUDGETS:
        ask(f"your answer at {bits:g} bits", function, _errors, ERROR_SLIPS, variances, bits)
    some = ", ".join(str(_how_many(variances, bits)) for bits in BUDGETS)
    print(f"right: of {D} numbers {some} get bits, of {', '.join(map(str, BUDGETS))}")
