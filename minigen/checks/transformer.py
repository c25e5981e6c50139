"""Checks of the exercises of lecture 12, transformers."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minigen.checks import Wrong, ask, call, draws
from minigen.checks.transformer_heads import HEADS_SLIPS, LARGE_SLIPS, self_attention

B, HEADS, N, WIDTH = 2, 3, 7, 4  # samples, heads, tokens, numbers a head

# Causal linear attention -------------------------------------------------------------------------


def _both(feature: Callable) -> Callable:
    return lambda q, k: (feature(q), feature(k))


RELU = _both(torch.relu)


def _so_far(x: Tensor) -> Tensor:
    return x.cumsum(2)


def _total(x: Tensor) -> Tensor:
    return x.sum(2, keepdim=True).expand_as(x)


def _before(x: Tensor) -> Tensor:
    return x.cumsum(2) - x


def _from_here(x: Tensor) -> Tensor:
    return x.flip(2).cumsum(2).flip(2)


def _weight(q: Tensor, k_sum: Tensor, k: Tensor) -> Tensor:
    """Σⱼ φ(qᵢ)·φ(kⱼ), from the sum of the keys."""
    return (q * k_sum).sum(3, keepdim=True)


def _or_zero(above: Tensor, below: Tensor) -> Tensor:
    return above / torch.where(below == 0, 1.0, below)


def _causal(q, k, v, *, features=RELU, over=_so_far, over_keys=None, flip=False,
            weight=_weight, divide=_or_zero) -> Tensor:  # fmt: skip
    """The right answer, or one with the slips named: each replaces a part of it."""
    q, k = features(q, k)
    outer = k[..., :, None] * v[..., None, :]  # (B, heads, N, d, d), a state for each token
    state = over(outer.flatten(3)).unflatten(3, outer.shape[3:])
    above = (q[..., None, :] @ (state.mT if flip else state))[..., 0, :]
    return divide(above, weight(q, (over_keys or over)(k), k))


def _by_softmax(q, k, v) -> Tensor:
    logits = q @ k.mT / math.sqrt(q.shape[3])
    early = torch.ones(logits.shape[2:], dtype=torch.bool).tril()
    return logits.masked_fill(~early, -math.inf).softmax(3) @ v


def _with_epsilon(eps: float) -> Callable:
    return partial(_causal, divide=lambda above, below: above / (below + eps))


def _with_least(eps: float) -> Callable:
    return partial(_causal, divide=lambda above, below: above / below.clamp(min=eps))


CAUSAL_SLIPS = {
    "a token does not hear itself in yours: add its own key and value to the state before its "
    "query asks": partial(_causal, over=_before),
    "your tokens hear later ones too: that is linear attention without a direction; token i's "
    "state holds the tokens 1 … i": partial(_causal, over=_total),
    "your tokens hear themselves and later ones: it is the earlier ones that they may hear": (
        partial(_causal, over=_from_here)
    ),
    "your tokens hear themselves only: the state is a sum over the tokens so far, yours is "
    "replaced at each": partial(_causal, over=lambda x: x),
    "you summed over the heads: each has a state of its own, and the sum is over the tokens": (
        partial(_causal, over=lambda x: x.cumsum(1))
    ),
    "you summed over the samples: each has a state of its own, and the sum is over the tokens": (
        partial(_causal, over=lambda x: x.cumsum(0))
    ),
    "the denominator is missing: the weights of a token's values add up to 1": partial(
        _causal, divide=lambda above, below: above
    ),
    "your denominator is the last token's for all: it is a sum over the keys so far, as the state "
    "is": partial(_causal, over_keys=_total),
    "your denominator leaves the token's own key out, and the state holds it": partial(
        _causal, over_keys=_before
    ),
    "your denominator holds the token's own key only: it is the sum over the keys so far": partial(
        _causal, over_keys=lambda k: k
    ),
    "your denominator lacks the query: it is φ(q)·Σφ(k), yours Σφ(k) summed over its "
    "coordinates": partial(_causal, weight=lambda q, k_sum, k: k_sum.sum(3, keepdim=True)),
    "your denominator sums φ(qⱼ)·φ(kⱼ), each token's query with its own key: the query is that of "
    "token i for every j": partial(
        _causal, weight=lambda q, k_sum, k: (q * k).sum(3, keepdim=True).cumsum(2)
    ),
    "your denominator keeps the coordinates apart, φ(q)Σφ(k): a dot product sums over them": (
        partial(_causal, weight=lambda q, k_sum, k: q * k_sum)
    ),
    "you divide by the number of tokens so far: the denominator is the sum of their weights": (
        partial(_causal, divide=lambda above, below: above / torch.arange(
            1, above.shape[2] + 1, dtype=above.dtype)[:, None])
    ),
    "relu is missing, on the queries and on the keys": partial(
        _causal, features=lambda q, k: (q, k)
    ),
    "relu is missing on the queries": partial(_causal, features=lambda q, k: (q, k.relu())),
    "relu is missing on the keys": partial(_causal, features=lambda q, k: (q.relu(), k)),
    "your features are elu + 1, those of Katharopoulos et al.: relu's are asked for": partial(
        _causal, features=_both(lambda x: torch.nn.functional.elu(x) + 1)
    ),
    "your features are exponentials: relu's are asked for": partial(
        _causal, features=_both(torch.exp)
    ),
    "your features are a softmax over the coordinates: relu's are asked for": partial(
        _causal, features=_both(lambda x: x.softmax(3))
    ),
    "your features are absolute values: relu's are asked for": partial(
        _causal, features=_both(torch.abs)
    ),
    "relu of the values: it is for queries and keys only": lambda q, k, v: _causal(q, k, v.relu()),
    "you summed over the coordinates: the sum is over the tokens": partial(
        _causal, over=lambda x: x.unflatten(3, (WIDTH, -1)).cumsum(3).flatten(3)
    ),
    "your features are squares of relu: relu's are asked for": partial(
        _causal, features=_both(lambda x: x.relu().square())
    ),
    "that is softmax attention with a causal mask, whose weights no state of d × d numbers can "
    "hold: relu in place of the exponential": _by_softmax,
    "keys and queries have changed places": lambda q, k, v: _causal(k, q, v),
    "the state is transposed: Σ φ(k) vᵀ has a row for each coordinate of the key, and the query "
    "comes from the left": partial(_causal, flip=True),
    "0/0 is NaN: a token whose denominator is 0 gets 0": partial(
        _causal, divide=lambda above, below: above / below
    ),
    "your denominator is 1 larger than it is: weights add up to 1, but for a token that meets no "
    "key": partial(_causal, divide=lambda above, below: above / (below + 1)),
    "a token whose denominator is 0 gets 0, yours its own value": lambda q, k, v: torch.where(
        _weight(q.relu(), _so_far(k.relu()), k) == 0, v, _causal(q, k, v)
    ),
}  # fmt: skip
EPSILONS = 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3
ENOUGH = "a query's length should not matter, and a short one's answer shrinks"
CAUSAL_SLIPS |= {
    f"you added {eps:g} to the denominator: {ENOUGH}; only where it is 0 is it to be replaced": (
        _with_epsilon(eps)
    )
    for eps in EPSILONS
} | {
    f"your denominator is at least {eps:g}: {ENOUGH}; only where it is 0 is it to be "
    f"replaced": _with_least(eps)
    for eps in EPSILONS[4:]
}


class _Largest(TorchDispatchMode):
    """The numbers in the largest tensor that was made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.size = max(self.size, made.numel())
        return made


def _tokens() -> list[Tensor]:
    """q, k, v: no key at first, a query that meets none later on, and a short one."""
    q, k, v = (draws(B, HEADS, N, WIDTH, seed=s, mean=0.3) for s in (21, 22, 23))
    k[:, 0, 0] = -k[:, 0, 0].abs()
    q[:, :, 4] = -q[:, :, 4].abs()
    q[:, :, 5] = 1e-9 * q[:, :, 5].abs()
    return [q, k, v]


def _check_cost(function: Callable, n: int = 96) -> None:
    """Raises Wrong where an n × n matrix is made, or where no finite gradient comes back."""
    given = [draws(1, 1, n, 2, seed=s, mean=0.0).requires_grad_() for s in (24, 25, 26)]
    with _Largest() as largest:
        answer = call(function, *given)
    if largest.size >= n * n:
        raise Wrong(
            f"the values are right, but of {n} tokens you made a tensor of {largest.size} numbers, "
            f"as many as {n} × {n} weights at least: keep a state of d × d numbers, and one of d"
        )
    if not all(bool(slope.isfinite().all()) for slope in _slopes(answer, given)):
        raise Wrong(
            "the values are right, but the gradient is NaN: where the denominator is 0 you divide "
            "first and mend the answer after. Mend the denominator before you divide by it"
        )


def _slopes(answer: Tensor, given: list[Tensor]) -> tuple[Tensor, ...]:
    """The gradients of the answer's sum; raises Wrong where there are none."""
    why = "is the state changed in place? state = state + …, as autograd needs the old one"
    try:
        if answer.requires_grad:
            return torch.autograd.grad(answer.sum(), given)
        why, error = "is it cut off, by .detach(), .data or no_grad?", "no graph"
    except RuntimeError as caught:
        error = caught
    raise Wrong(f"the values are right, but no gradient comes back: {why} ({error})")


def causal_linear(function: Callable) -> None:
    """Checks causal_linear(q, k, v) -> (B, heads, N, d): token i attends to the tokens 1 … i.

    q, k, v (B, heads, N, d); features relu; no N × N weights, and a finite gradient. Raises NotYet,
    or Wrong with a diagnosis.
    """
    ask("the answers", function, _causal, CAUSAL_SLIPS, *_tokens())
    _check_cost(function)
    print("right: each token hears itself and earlier ones, from a state of d × d numbers")


SLIPS = {self_attention: {**HEADS_SLIPS, **LARGE_SLIPS}, causal_linear: CAUSAL_SLIPS}
