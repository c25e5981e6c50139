"""Checks of the lectures' exercises: they take the learner's function and say what is wrong.

One module a lecture, `from minigen.checks import ddpm as check`. A check calls the function on
values of its own (batch, dimension and steps all different, data of variance ≠ 1 and mean ≠ 0),
compares with the library or the oracle, and where the answer is off names the slip that gives just
the values it saw. It raises `NotYet` for a stub, `Wrong` for a wrong answer, and prints one line
when all is well.
"""

import reprlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class Wrong(AssertionError):
    """The answer is not right; the message says what the check saw and which slip explains it."""


class NotYet(AssertionError):
    """The exercise has not been begun."""


def call(function: Callable, *args, **kwargs):
    """The function's answer; raises NotYet where it gives none, Wrong where it cannot be called."""
    name = getattr(function, "__name__", "your function")
    try:
        answer = function(*args, **kwargs)
    except NotImplementedError:
        answer = None
    except TypeError as error:
        raise Wrong(f"{name} could not be called as the task says: {error}") from None
    except (RuntimeError, IndexError) as error:
        if "Boolean value of Tensor" in str(error):
            raise Wrong(
                f"{name} asks `if` of a whole batch ({error}): let each sample decide, with "
                f"torch.where(condition, one, other)"
            ) from None
        if "must match" not in str(error) and "broadcast" not in str(error):
            raise
        raise Wrong(
            f"shapes did not fit ({error}): a number for each sample, (B,), meets data (B, D) "
            f"only as (B, 1), for instance c[:, None]"
        ) from None
    if answer is None or answer is Ellipsis:
        raise NotYet(f"{name} returns nothing yet: put your answer in place of the dots")
    return answer


def same(answer: Tensor, truth: Tensor, rtol: float = 1e-6) -> bool:
    """Whether the answer has the truth's shape and, but for rounding, its values."""
    if answer.shape != truth.shape:
        return False
    size = truth[torch.isfinite(truth)].abs()
    atol = rtol * float(size.max()) if len(size) else 0.0
    return torch.allclose(answer.to(truth.dtype), truth, rtol=rtol, atol=atol, equal_nan=True)


def compare(what: str, answer, truth: Tensor, slips: Mapping[str, Tensor]) -> None:
    """Raises Wrong unless answer and truth agree; `slips` maps diagnoses to their values."""
    if not isinstance(answer, Tensor):
        raise Wrong(
            f"{what} should be a tensor of shape {tuple(truth.shape)}, got {reprlib.repr(answer)}"
        )
    if same(answer, truth):
        return
    for diagnosis, value in slips.items():
        if same(answer, value):
            raise Wrong(f"{what}: {diagnosis}")
    if answer.shape != truth.shape:
        raise Wrong(f"{what} has shape {tuple(answer.shape)}, expected {tuple(truth.shape)}")
    if not bool(torch.isfinite(answer).all()):
        raise Wrong(f"{what} holds NaN or infinite values")
    i = int((answer - truth).abs().argmax())
    raise Wrong(
        f"{what} is wrong: where {float(truth.flatten()[i]):.4f} is right, "
        f"yours gives {float(answer.flatten()[i]):.4f}"
    )
