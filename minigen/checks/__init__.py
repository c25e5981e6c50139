"""Checks of the lectures' exercises: they take the learner's function and say what is wrong.

One module a lecture, `from minigen.checks import ddpm as check`. A check calls the function on
values of its own (batch, dimension and steps all different, data of variance ≠ 1 and mean ≠ 0) and
compares with the library or the oracle. The usual slips are functions too, such as a learner could
have written (`SLIPS` of each module); where one gives just the values it saw, the check names it.
It raises `NotYet` for a stub, `Wrong` for a wrong answer, and prints one line when all is well.
"""

import inspect
import os
import reprlib
import traceback
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Slips = Mapping[str, Callable]  # a diagnosis -> the function of a learner who made that slip


class _Said(AssertionError):
    """In a notebook the message is all that is shown: the frames are the library's, not yours."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Wrong(_Said):
    """The answer is not right; the message says what the check saw and which slip explains it."""


class NotYet(_Said):
    """The exercise has not been begun."""


def pin(holds: bool | Tensor, message: str) -> None:
    """Holds a number of the very run that a lecture prints: fails in a test, tells a learner.

    Who changes a constant moves such numbers, and nothing is broken: outside pytest and CI the
    message is printed. What must always hold is asserted instead.
    """
    if bool(holds):
        return
    if {"CI", "PYTEST_VERSION"} & {*os.environ}:
        raise AssertionError(message)
    print(f"Your run differs from the one printed here: {message}")


OFFSET = 0  # added to every seed: a graded check draws cases of its own (.ci/grade.py)


def draws(*shape: int, seed: int, mean: float = 0.7, std: float = 1.0) -> Tensor:
    """Normal values with a mean other than 0, float64, the same at each call."""
    generator = torch.Generator().manual_seed(seed + OFFSET)
    return mean + std * torch.randn(shape, generator=generator, dtype=torch.float64)


def ask(what: str, function: Callable, right: Callable, slips: Slips, *args) -> Tensor:
    """The function's answer, a tensor; raises Wrong, with a diagnosis, unless it is the right one.

    The truth is computed first, and the function gets copies, so that an answer that works in place
    can spoil neither; it is told. So is a wrong answer that differs from call to call.
    """
    truth = right(*copies(args))
    answer = call(function, *args)
    slips = {why: lambda s=s: s(*copies(args)) for why, s in slips.items()}
    try:
        compare(what, answer, truth, slips)
    except Wrong:
        again = call(function, *args)
        if isinstance(answer, Tensor) and isinstance(again, Tensor) and not same(answer, again):
            raise Wrong(
                f"{what}: two calls with the same arguments give two answers; draw nothing "
                f"yourself, what is random is given"
            ) from None
        raise
    return answer


def copies(args) -> list:
    """The arguments, each tensor a copy of its own."""
    return [a.clone() if isinstance(a, Tensor) else a for a in args]


def call(function: Callable, *args):
    """The function's answer on copies of the arguments; NotYet where there is none.

    Raises Wrong where it cannot be called or writes into what it was given. An error of its own
    passes, and shows the learner's line in a notebook.
    """
    name, given = getattr(function, "__name__", "your function"), copies(args)
    try:
        inspect.signature(function).bind(*given)
    except ValueError:
        pass  # some built-in functions keep theirs to themselves
    except TypeError as error:
        raise Wrong(f"{name} could not be called as the task says: {error}") from None
    try:
        answer = function(*given)
    except NotImplementedError:
        answer = None
    except Exception as error:
        raise _explained(error, name, given) from None
    if answer is None or answer is Ellipsis:
        raise NotYet(f"{name} returns nothing yet: put your answer in place of the dots")
    for own, x in zip(given, args, strict=True):
        if isinstance(x, Tensor) and not torch.equal(own, x):
            raise Wrong(
                f"{name} writes into a tensor that it was given, which its caller still needs: "
                f"x = x + …, not x += …, and no method that ends in _"
            )
    return answer


def _explained(error: Exception, name: str, given: list) -> Exception:
    """The error as a learner should see it: named where it is a usual one, and with their line."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    strange = ("site-packages", os.path.dirname(os.path.dirname(__file__)))  # torch and minigen
    own = [f for f in frames if not any(s in f.filename for s in strange)]
    where = f"line {own[-1].lineno} of {name}" if own else name
    where += f", {own[-1].line!r}" if own and own[-1].line else ""
    said = " ".join(str(error).split())  # one line
    for sign, why in USUAL.items():
        if isinstance(error, USUAL_KINDS) and sign in said:
            return Wrong(f"{where} {why}")
    if isinstance(error, RuntimeError) and ("must match" in said or "broadc" in said):
        return Wrong(f"shapes did not fit in {where} ({said}){_column(given)}")
    said = f"{type(error).__name__}: {error}"
    error._render_traceback_ = lambda: [f"{said}\n    in {where}"]
    return error


ONE_NUMBER = (
    "wants one number and got a tensor of many: torch.exp, not math.exp, and no float(…) or .item()"
)
A_TUPLE = (
    "has a tuple where it wants a tensor: torch.autograd.grad gives a tuple, one gradient for each "
    "input, so (grad,) = torch.autograd.grad(…), or torch.autograd.grad(…)[0]"
)
A_PRODUCT = (
    "multiplies a tuple or list, or takes a tensor for a place in one. torch.autograd.grad gives a "
    "tuple: (grad,) = torch.autograd.grad(…); so does .max(dim), and its .values is the tensor"
)
USUAL_KINDS = RuntimeError | ValueError | TypeError | AttributeError
USUAL = {  # what torch says -> what a learner did
    "Boolean value of Tensor": "asks `if` of a whole batch: let each sample decide, with "
    "torch.where(condition, one, other)",
    "only one element tensors can": ONE_NUMBER,
    "elements cannot be converted": ONE_NUMBER,
    "scalar outputs": "differentiates many numbers, and torch only one: take their sum. None of "
    "them depends on another's sample, so each sample gets its own gradient",
    "'tuple' object has no attribute": A_TUPLE,
    "and 'tuple'": A_TUPLE,
    "'tuple' and": A_TUPLE,
    "must be Tensor, not tuple": A_TUPLE,
    "can only concatenate tuple": A_TUPLE,
    "bad operand type for unary -: 'tuple'": A_TUPLE,
    "converted to an index": A_PRODUCT,
    "multiply sequence by non-int": A_PRODUCT,
    "NoneType": "computes with None. Is it x.grad? Only x = xt.detach().requires_grad_() gets one, "
    "once what was computed from that very x has gone .backward()",
    "does not require grad": "finds no way back from the number to what you differentiate in: "
    "x.requires_grad_() comes first, then that very x goes into the function, with no .detach() "
    "between, and not under no_grad",
    "not have been used": "differentiates in something that the number was not computed from: "
    "the gradient is in the very x that the function was given, not in a copy of it",
}


def _column(given: list) -> str:
    """How a number for each sample meets the data, the first tensor of the arguments."""
    ones = next((a.ndim - 1 for a in given if isinstance(a, Tensor)), 0)
    if not ones:
        return ""
    data, shape = ", D" if ones == 1 else ", …", ", 1" * ones
    return (
        f": is one of them a number for each sample, (B,)? It meets data (B{data}) only as "
        f"(B{shape}), for instance c.reshape(-1{shape})"
    )


def same(answer: Tensor, truth: Tensor, rtol: float = 1e-6) -> bool:
    """Whether the answer has the truth's shape and, but for rounding, its values."""
    if answer.shape != truth.shape:
        return False
    answer, truth = answer.detach(), truth.detach()  # torch warns of numbers that carry a graph
    truth = truth if truth.is_floating_point() else truth.double()  # a mask has no difference
    size = truth[torch.isfinite(truth)].abs()
    atol = rtol * float(size.max()) if len(size) else 0.0
    return torch.allclose(answer.to(truth.dtype), truth, rtol=rtol, atol=atol, equal_nan=True)


def compare(what: str, answer, truth: Tensor, slips: Slips) -> None:
    """Raises Wrong unless answer and truth agree; `slips` are functions () -> value."""
    if not isinstance(answer, Tensor):
        raise Wrong(
            f"{what} should be one tensor of shape {tuple(truth.shape)}, got {described(answer)}"
        )
    answer, truth = answer.detach(), truth.detach()
    if same(answer, truth):
        return
    for diagnosis, slip in slips.items():
        if same(answer, slip()):
            raise Wrong(f"{what}: {diagnosis}")
    if answer.shape != truth.shape:
        raise Wrong(f"{what} has shape {tuple(answer.shape)}, expected {tuple(truth.shape)}")
    if not bool(torch.isfinite(answer).all()):
        raise Wrong(f"{what} holds NaN or infinite values")
    answer = answer.to(truth.dtype)
    factor = float((answer * truth).sum() / truth.square().sum())
    if truth.numel() > 1 and factor != 0 and same(answer, factor * truth):
        raise Wrong(f"{what} is {factor:.4g} times what is right, everywhere")
    i = int((answer - truth).abs().argmax())
    right, yours = apart(float(truth.flatten()[i]), float(answer.flatten()[i]))
    raise Wrong(f"{what} is wrong: where {right} is right, yours gives {yours}")


def described(answer) -> str:
    """What a learner returned, in a few words: a tensor's numbers are never listed."""
    if isinstance(answer, list | tuple) and any(isinstance(a, Tensor) for a in answer):
        kind = "tensor" if all(isinstance(a, Tensor) for a in answer) else "value"
        return f"a {type(answer).__name__} of {len(answer)} {kind}{'s' * (len(answer) != 1)}"
    if isinstance(answer, bool | int | float | str):
        return reprlib.repr(answer)
    return f"a value of type {type(answer).__name__}"


def apart(a: float, b: float) -> tuple[str, str]:
    """Both numbers with as many decimals as it takes to tell them apart, four at least."""
    for places in range(4, 17):
        shown = f"{a:.{places}f}", f"{b:.{places}f}"
        if shown[0] != shown[1]:
            break
    return shown
