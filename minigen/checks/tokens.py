"""Checks of the exercises of lecture 15, tokens one by one and many at once."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws
from minigen.checks.tokens_counts import COUNT_SLIPS, best_counts

B, N, V = 300, 6, 3  # samples, tokens, values
T, S = 0.8, 0.3  # (T − S)/T, T − S, S/T, (T − S)/(1 − S), 1 − S all differ


def model(ids) -> Tensor:
    """Logits (B, N, V) in which every token hears every other, and whether it is known."""
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.shape[1:] != (N,):
        got = tuple(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
        raise Wrong(f"the model takes ids (B, {N}), whole numbers; got {got}")
    if not (0 <= int(ids.min()) and int(ids.max()) <= V):
        raise Wrong(f"the model takes tokens 0 … {V - 1} and the mask token {V}")
    heard = draws(V + 1, N, N, V, seed=151, mean=0.0, std=0.7)
    return heard[ids, torch.arange(N)].sum(1)


def _draw(logits, gumbel) -> Tensor:
    return (logits + gumbel).argmax(2)


def _unmask(model, ids, t, s, u, gumbel, *, chance=lambda t, s: (t - s) / t, below=torch.lt,
            draw=_draw, masked=lambda ids: ids == V, asked=lambda ids: ids,
            ) -> Tensor:  # fmt: skip
    """The right step, or one with the slips named: each replaces a part of it."""
    drawn = draw(model(asked(ids)), gumbel)
    return torch.where(masked(ids) & below(u, torch.tensor(chance(t, s)).to(u)), drawn, ids)


def _one_after_another(model, ids, t, s, u, gumbel) -> Tensor:
    """Each token hears those that were unmasked just before it, in the same step."""
    ids = ids.clone()
    for i in range(N):
        now = _unmask(model, ids, t, s, u, gumbel)
        ids[:, i] = now[:, i]
    return ids


def _masked_again(model, ids, t, s, u, gumbel) -> Tensor:
    """Masked tokens are all drawn, and each token is masked anew with chance s."""
    full = _unmask(model, ids, t, s, u, gumbel, chance=lambda t, s: 2.0)
    return torch.where(u < s, V, full)


def _by_value(logits, gumbel) -> Tensor:
    return (logits + gumbel).amax(2)


_one = partial(partial, _unmask)
UNMASK_SLIPS = {
    "t − s is the chance for any token to be masked between s and t; of those that are masked at t "
    "it is the share (t − s)/t": _one(chance=lambda t, s: t - s),
    "s/t is the chance to stay masked: the other one, 1 − s/t, is asked for": _one(
        chance=lambda t, s: s / t
    ),
    "a masked token became so at a time uniform on [0, t]: (t − s)/t, not (t − s)/(1 − s)": _one(
        chance=lambda t, s: (t - s) / (1 - s)
    ),
    "1 − s is the chance to be unmasked at s if nothing else is known: this token is masked at t": (
        _one(chance=lambda t, s: 1 - s)
    ),
    "1 − t is the chance to be unmasked at t: these are masked, and it is about s": _one(
        chance=lambda t, s: 1 - t
    ),
    "you unmask where u is larger than the chance: it is where u lies below": _one(below=torch.gt),
    "the chance is right, 1 − s/t, but u > s/t is its other end: unmask where u lies below it": (
        _one(chance=lambda t, s: s / t, below=torch.gt)
    ),
    "you unmasked all at once: at time s > 0 some are still masked, u tells which": _one(
        chance=lambda t, s: 2.0
    ),
    "you took the likeliest token: argmax of logits + gumbel is a draw, without it there is only "
    "one answer": _one(draw=lambda logits, gumbel: logits.argmax(2)),
    "gumbel is added to the logits; you added it to the probabilities": _one(
        draw=lambda logits, gumbel: (logits.softmax(2) + gumbel).argmax(2)
    ),
    "the sign: logits + gumbel, yours takes it off": _one(
        draw=lambda logits, gumbel: (logits - gumbel).argmax(2)
    ),
    "you took the least of logits + gumbel": _one(
        draw=lambda logits, gumbel: (logits + gumbel).argmin(2)
    ),
    "the logits are left out: that is a draw from the uniform law": _one(
        draw=lambda logits, gumbel: gumbel.argmax(2)
    ),
    "that is the largest logits + gumbel; the token is the place where it stands, argmax": _one(
        draw=_by_value
    ),
    "you drew known tokens anew: in the chain a token that is known stays": _one(
        masked=lambda ids: ids == ids
    ),
    "you changed the known tokens and left the masked ones": _one(masked=lambda ids: ids != V),
    f"the mask token is V, here {V}; you took 0 for it, which is a token": _one(
        masked=lambda ids: ids == 0
    ),
    f"the mask token is V, here {V}; you took V − 1, the last token": _one(
        masked=lambda ids: ids == V - 1
    ),
    "you asked the model without the known tokens: it is given ids as they are": _one(
        asked=lambda ids: torch.full_like(ids, V)
    ),
    "you asked the model again after each token: in one step of the chain all are drawn from the "
    "same logits": _one_after_another,
    "you drew all and masked some again, known ones too: back from t to s nothing gets masked": (
        _masked_again
    ),
}


def _case() -> tuple:
    """model, ids, t, s, u, gumbel."""
    uniform = lambda *shape, seed: torch.special.ndtr(draws(*shape, seed=seed, mean=0.0))
    ids = (V * uniform(B, N, seed=152)).long().clamp(max=V - 1)
    ids = torch.where(uniform(B, N, seed=153) < T, V, ids)
    gumbel = -(-uniform(B, N, V, seed=154).log()).log()
    return model, ids, T, S, uniform(B, N, seed=155), gumbel


def unmask(function: Callable) -> None:
    """Checks unmask(model, ids, t, s, u, gumbel) -> ids (B, N), one step of the chain backwards.

    Raises NotYet, or Wrong with a diagnosis.
    """
    ask("the tensor of ids", function, _unmask, UNMASK_SLIPS, *_case())
    print(f"right: a step back from t = {T} to {S}, for {B} samples of {N} tokens")


SLIPS = {unmask: UNMASK_SLIPS, best_counts: COUNT_SLIPS}
