"""The check of lecture 12's first program, self-attention with several heads."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws

B, N, HEADS, WIDTH = 2, 5, 3, 4  # samples, tokens, heads, numbers a head
E = HEADS * WIDTH


def _in_thirds(x, W_qkv, heads) -> list[Tensor]:
    """Queries, keys and values of all heads, (B, N, E) each: W_qkv's three blocks of rows."""
    return list((x @ W_qkv.T).chunk(3, 2))


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return (q @ k.mT * scale).softmax(3)


def _by_root_d(d: int, heads: int, n: int) -> float:
    return 1 / math.sqrt(d)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def _out(x, mixed, W_out) -> Tensor:
    return mixed @ W_out.T


def _attended(x, W_qkv, W_out, heads, *, parts=_in_thirds, order=(0, 1, 2), split=_split,
              scale=_by_root_d, weights=_weights, join=_joined, out=_out) -> Tensor:  # fmt: skip
    """The right answer, or one with the slips named: each replaces a part of it."""
    three = [split(part, heads) for part in parts(x, W_qkv, heads)]
    q, k, v = (three[i] for i in order)
    by = scale(x.shape[2] // heads, heads, x.shape[1])
    return out(x, join(weights(q, k, by) @ v), W_out)


def _transposed(x, W_qkv, heads) -> list[Tensor]:
    return [x @ W for W in W_qkv.chunk(3)]


def _refilled(x, W_qkv, heads) -> list[Tensor]:
    return list((x @ W_qkv.reshape(x.shape[2], -1)).chunk(3, 2))


def _head_by_head(x, W_qkv, heads) -> list[Tensor]:
    """W_qkv's rows read as (heads, 3, d)."""
    return [p.flatten(2) for p in (x @ W_qkv.T).unflatten(2, (heads, 3, -1)).unbind(3)]


def _strided(x, W_qkv, heads) -> list[Tensor]:
    """W_qkv's rows read as (E, 3)."""
    return [(x @ W_qkv.T)[:, :, i::3] for i in range(3)]


def _unprojected(which: int) -> Callable:
    def parts(x, W_qkv, heads):
        found = _in_thirds(x, W_qkv, heads)
        found[which] = x
        return found

    return parts


def _interleaved(x: Tensor, heads: int) -> Tensor:
    """Head i takes every heads-th number."""
    return x.unflatten(2, (-1, heads)).permute(0, 3, 1, 2)


def _reshaped(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x), heads, x.shape[1], -1)


def _back(x: Tensor) -> Tensor:
    return x.reshape(len(x), x.shape[2], -1)


def _exponentials(q, k, scale) -> Tensor:
    return (q @ k.mT * scale).exp()


def _overflowing(q, k, scale) -> Tensor:
    e = _exponentials(q, k, scale)
    return e / e.sum(3, keepdim=True)


def _underflowing(q, k, scale) -> Tensor:
    logits = q @ k.mT * scale
    e = (logits - logits.max()).exp()
    return e / e.sum(3, keepdim=True)


def _early(q, k, scale) -> Tensor:
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    return (q @ k.mT * scale).masked_fill(later, -math.inf).softmax(3)


def _unit(x: Tensor) -> Tensor:
    return x / x.square().mean(3, keepdim=True).sqrt()


HEADS_SLIPS = {
    "the logits are not scaled: they are q·k/√d, d = E/heads": partial(
        _attended, scale=lambda d, heads, n: 1.0
    ),
    "you scaled by √E: a head's dot product has d = E/heads terms, hence √d": partial(
        _attended, scale=lambda d, heads, n: 1 / math.sqrt(d * heads)
    ),
    "you divided by d: a dot product of d terms has a standard deviation of √d": partial(
        _attended, scale=lambda d, heads, n: 1 / d
    ),
    "you multiplied by √d: logits are divided by it": partial(
        _attended, scale=lambda d, heads, n: math.sqrt(d)
    ),
    "you scaled by the root of the number of heads: it is that of d, the numbers a head has": (
        partial(_attended, scale=lambda d, heads, n: 1 / math.sqrt(heads))
    ),
    "you scaled by the root of the number of tokens: it is that of d, the numbers a head has": (
        partial(_attended, scale=lambda d, heads, n: 1 / math.sqrt(n))
    ),
    "softmax before scaling: divide the logits by √d, not the weights, which then no longer add "
    "up to 1": partial(_attended, weights=lambda q, k, scale: _weights(q, k, 1.0) * scale),
    "your softmax runs over the queries: a query's weights add up to 1 over the keys, the last "
    "axis of q kᵀ": partial(_attended, weights=lambda q, k, s: (q @ k.mT * s).softmax(2)),
    "your softmax runs over the heads: a query's weights add up to 1 over the keys": partial(
        _attended, weights=lambda q, k, s: (q @ k.mT * s).softmax(1)
    ),
    "the softmax is missing: you used the logits as weights": partial(
        _attended, weights=lambda q, k, s: q @ k.mT * s
    ),
    "your weights do not add up to 1: exp(logits) still has to be divided by its sum": partial(
        _attended, weights=_exponentials
    ),
    "the weights meet the values transposed: row i of the weights, query i's, times the values": (
        partial(_attended, weights=lambda q, k, s: _weights(q, k, s).mT)
    ),
    "queries and keys have changed places: W_qkv holds W_q, W_k, W_v in this order": partial(
        _attended, order=(1, 0, 2)
    ),
    "keys and values have changed places: W_qkv holds W_q, W_k, W_v in this order": partial(
        _attended, order=(0, 2, 1)
    ),
    "queries and values have changed places: W_qkv holds W_q, W_k, W_v in this order": partial(
        _attended, order=(2, 1, 0)
    ),
    "W_q, W_k and W_v are transposed: a token is a row here, x W_qᵀ": partial(
        _attended, parts=_transposed
    ),
    "you reshaped W_qkv to (E, 3E), which fills it anew row by row: transpose it": partial(
        _attended, parts=_refilled
    ),
    "your queries are the keys', your keys the values', your values the queries': W_qkv holds "
    "W_q, W_k, W_v in this order": partial(_attended, order=(1, 2, 0)),
    "your queries are the values', your keys the queries', your values the keys': W_qkv holds "
    "W_q, W_k, W_v in this order": partial(_attended, order=(2, 0, 1)),
    "W_out is transposed: a token is a row here, mixed W_outᵀ": partial(
        _attended, out=lambda x, mixed, W_out: mixed @ W_out
    ),
    "all weights are transposed: a token is a row here, x Wᵀ": partial(
        _attended, parts=_transposed, out=lambda x, mixed, W_out: mixed @ W_out
    ),
    "you read the rows of W_qkv head by head, (heads, 3, d): they are W_q of all heads, then W_k, "
    "then W_v": partial(_attended, parts=_head_by_head),
    "you read every third row of W_qkv: the first E rows are W_q, the next W_k, the last W_v": (
        partial(_attended, parts=_strided)
    ),
    "your heads are interleaved, (d, heads): head i has the numbers i·d … (i + 1)·d of each "
    "token, so split E into (heads, d)": partial(
        _attended, split=_interleaved, join=lambda x: x.permute(0, 2, 3, 1).flatten(2)
    ),
    "you split the heads as (d, heads) and join them as (heads, d): both are (heads, d)": partial(
        _attended, split=_interleaved
    ),
    "you join the heads as (d, heads): their answers stand side by side, (heads, d)": partial(
        _attended, join=lambda x: x.permute(0, 2, 3, 1).flatten(2)
    ),
    "you cut (B, N, E) into (B, heads, N, d) by a reshape, which mixes tokens: split E into "
    "(heads, d) first, then transpose": partial(_attended, split=_reshaped, join=_back),
    "you cut (B, N, E) into (B, heads, N, d) by a reshape, which mixes tokens; the way back is "
    "right: split E into (heads, d) first, then transpose": partial(_attended, split=_reshaped),
    "your way back from (B, heads, N, d) is a reshape, which mixes tokens: transpose heads and "
    "tokens first": partial(_attended, join=_back),
    "your heads attend to one another, token by token: bring the heads before the tokens, "
    "(B, heads, N, d), so that q kᵀ is N × N": partial(
        _attended, split=lambda x, heads: x.unflatten(2, (heads, -1)), join=lambda x: x.flatten(2)
    ),
    "that is one head of width E: the heads have weights of their own": lambda x, W, W_out, h: (
        _attended(x, W, W_out, 1)
    ),
    "that is one head of width E with logits divided by √d: the heads have weights of their own": (
        lambda x, W, W_out, h: _attended(x, W, W_out, 1, scale=lambda d, *_: math.sqrt(h / d))
    ),
    "W_out is missing: it mixes the answers of the heads": partial(
        _attended, out=lambda x, mixed, W_out: mixed
    ),
    "you added x: the residual stream is the block's, around this": partial(
        _attended, out=lambda x, mixed, W_out: x + mixed @ W_out.T
    ),
    "your tokens hear earlier ones only: no mask is asked for": partial(
        _attended, weights=_early
    ),
    "your values are the tokens themselves: they pass W_v first": partial(
        _attended, parts=_unprojected(2)
    ),
    "your queries are the tokens themselves: they pass W_q first": partial(
        _attended, parts=_unprojected(0)
    ),
    "your keys are the tokens themselves: they pass W_k first": partial(
        _attended, parts=_unprojected(1)
    ),
    "you normed queries and keys: that is QK-norm, which is not asked for here": partial(
        _attended, weights=lambda q, k, s: _weights(_unit(q), _unit(k), s)
    ),
}  # fmt: skip
LARGE_SLIPS = {
    "exp of a large logit is infinite, and ∞/∞ is NaN: subtract each row's largest logit first, as "
    "torch.softmax does": partial(_attended, weights=_overflowing),
    "you subtracted the largest logit of all, and where a row's own are far below it, 0/0 is NaN: "
    "subtract each row's own": partial(_attended, weights=_underflowing),
}  # fmt: skip


def self_attention(function: Callable) -> None:
    """Checks self_attention(x, W_qkv, W_out, heads) -> (B, N, E), at small and at large logits.

    x (B, N, E), W_qkv (3E, E), W_out (E, E), heads a number. Raises NotYet, or Wrong with a
    diagnosis.
    """
    x = draws(B, N, E, seed=16, mean=0.4, std=1.2)
    W_qkv, W_out = (draws(n, E, seed=s, mean=0.0, std=0.3) for n, s in ((3 * E, 17), (E, 18)))
    ask("the answers", function, _attended, HEADS_SLIPS, x, W_qkv, W_out, HEADS)
    large = x * torch.tensor([1.0, 40.0])[:, None, None]  # logits beyond what exp can hold
    ask("the answers at large logits", function, _attended, LARGE_SLIPS, large, W_qkv, W_out, HEADS)
    print(f"right: {HEADS} heads of {WIDTH} numbers attend, each among all {N} tokens")
