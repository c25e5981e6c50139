"""Checks of the exercises of lecture 14, vector quantisation."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws
from minigen.checks.vq_bits import ERROR_SLIPS, least_errors

T, N, K, W, DECAY = 6, 23, 5, 3, 0.7  # batches, vectors in each, codes, their width


def _nearest(vectors, entries) -> Tensor:
    return (vectors[:, None] - entries).square().sum(2).argmin(1)


def _dots(vectors, entries) -> Tensor:
    return (vectors @ entries.T).argmax(1)


def _ratio(sums, counts, entries, own, total) -> Tensor:
    return sums / counts


def _running_means(batches, entries, decay, *, begin=(1.0, 1.0), old=(1.0, 1.0), new=(1.0, 1.0),
                   ids=lambda vectors, entries, first: _nearest(vectors, entries),
                   read=_ratio) -> Tensor:  # fmt: skip
    """The right codebook, or one with the slips named: each replaces a part of it.

    begin, old and new are factors of the counts and of the sums: at the start, of what was, and of
    what a batch brings.
    """
    first, counts = entries, begin[0] * torch.ones_like(entries[:, 0])
    sums = begin[1] * entries
    for vectors in batches:
        chosen = torch.nn.functional.one_hot(ids(vectors, entries, first), len(entries)).to(vectors)
        own, total = chosen.sum(0), chosen.T @ vectors
        counts = old[0] * decay * counts + new[0] * (1 - decay) * own
        sums = old[1] * decay * sums + new[1] * (1 - decay) * total
        entries = read(sums, counts[:, None], entries, own[:, None], total)
    return entries


def _of_means(batches, entries, decay, *, unused=lambda e: e) -> Tensor:
    """e <- decay e + (1 − decay) mean of the vectors that chose e."""
    for vectors in batches:
        ids, old = _nearest(vectors, entries), entries
        entries = unused(old, decay).clone()
        for k in ids.unique():
            entries[k] = decay * old[k] + (1 - decay) * vectors[ids == k].mean(0)
    return entries


def _k_means(batches, entries, decay) -> Tensor:
    """The means of the last batch's clusters, after those of the others."""
    return _of_means(batches, entries, 0.0, unused=lambda e, decay: e)


def _descended(batches, entries, decay) -> Tensor:
    for vectors in batches:
        chosen = torch.nn.functional.one_hot(_nearest(vectors, entries), len(entries)).to(vectors)
        step = chosen.T @ vectors - chosen.sum(0)[:, None] * entries
        entries = entries + (1 - decay) * step
    return entries


def _all_at_once(batches, entries, decay) -> Tensor:
    return _running_means(batches.flatten(0, 1)[None], entries, decay)


def _loop(batches, entries, decay, *, means=False) -> Tensor:
    """Only the chosen fade; or all do, and the sums take in the batch's means."""
    counts, sums = torch.ones_like(entries[:, 0]), entries.clone()
    for vectors in batches:
        ids = _nearest(vectors, sums / counts[:, None])
        fading = (
            torch.ones_like(counts, dtype=torch.bool) if means else torch.zeros(len(counts)) > 0
        )
        fading[ids] = True
        counts[fading], sums[fading] = decay * counts[fading], decay * sums[fading]
        for k in ids.unique():
            mine = vectors[ids == k]
            counts[k] = counts[k] + (1 - decay) * len(mine)
            sums[k] = sums[k] + (1 - decay) * (mine.mean(0) if means else mine.sum(0))
    return sums / counts[:, None]


_one = partial(partial, _running_means)


def _afterwards(what: Callable) -> Callable:
    """A state other than the entries, which go on being right."""

    def slip(batches, entries, decay) -> Tensor:
        state = [None]

        def read(sums, counts, entries, own, total):
            state[0] = what(sums, counts, own, total)
            return sums / counts

        _running_means(batches, entries, decay, read=read)
        return state[0]

    return slip


MEANS_SLIPS = {
    "you averaged the batches' means, e ← decay · e + (1 − decay) · mean: a batch in which one "
    "vector chose e then moves it as far as one in which ten did. Let count and sum run":
        partial(_of_means, unused=lambda e, decay: e),
    "you averaged the batches' means, and an entry that nobody chose shrinks: its sum and its "
    "count lose the same factor, so it stays":
        partial(_of_means, unused=lambda e, decay: decay * e),
    "decay and 1 − decay are exchanged: decay belongs to what was":
        lambda batches, entries, decay: _running_means(batches, entries, 1 - decay),
    "you forgot what was: those are the means of each batch by itself, k-means without `decay`":
        _k_means,
    "that is a step of gradient descent on the squared error, of size 1 − decay: an entry is its "
    "running sum over its running count": _descended,
    "the batch's counts and sums have the weight 1 − decay, in yours 1": lambda b, e, decay: (
        _running_means(b, e, decay, new=(1 / (1 - decay), 1 / (1 - decay)))),
    "the counts do not decay in yours, the sums do": lambda b, e, decay: _running_means(
        b, e, decay, old=(1 / decay, 1.0)),
    "the sums do not decay in yours, the counts do": lambda b, e, decay: _running_means(
        b, e, decay, old=(1.0, 1 / decay)),
    "neither counts nor sums decay in yours": lambda b, e, decay: _running_means(
        b, e, decay, old=(1 / decay, 1 / decay)),
    "nothing decays, and each batch counts fully: those are means over all that was seen":
        lambda b, e, decay: _running_means(b, e, decay, old=(1 / decay, 1 / decay),
                                           new=(1 / (1 - decay), 1 / (1 - decay))),
    "the batch's sums have the weight 1 − decay, and so have its counts: in yours they have 1":
        lambda b, e, decay: _running_means(b, e, decay, new=(1 / (1 - decay), 1.0)),
    "the batch's counts have the weight 1 − decay, and so have its sums: in yours they have 1":
        lambda b, e, decay: _running_means(b, e, decay, new=(1.0, 1 / (1 - decay))),
    "you took the shares of a batch for its counts, and means over all its vectors for its sums: "
    "their sizes decide how fast the start is forgotten":
        lambda b, e, decay: _running_means(b, e, decay, new=(1 / b.shape[1], 1 / b.shape[1])),
    "an entry's count and sum fade also in the batches that do not choose it; in yours they wait":
        _loop,
    "your sums take in the mean of the vectors that chose the entry, your counts their number: "
    "their sum belongs to that": partial(_loop, means=True),
    "the sums start at the entries, in yours at 0": _one(begin=(1.0, 0.0)),
    "counts and sums start at 1 and at the entries, in yours at 0: an entry that nobody chose is "
    "0/0": _one(begin=(0.0, 0.0)),
    "the batch's own count is no running count: divide by the one that decays": _one(
        read=lambda sums, counts, entries, own, total: torch.where(
            own > 0, sums / own.clamp(min=1), entries)),
    "all batches choose among the entries of the start in yours: those move after each batch":
        _one(ids=lambda vectors, entries, first: _nearest(vectors, first)),
    "you took all batches as one": _all_at_once,
    "you went through the batches backwards":
        lambda batches, *rest: _running_means(batches.flip(0), *rest),
    "you used the first batch only": lambda batches, *rest: _running_means(batches[:1], *rest),
    "you left out the last batch": lambda batches, *rest: _running_means(batches[:-1], *rest),
    "a vector goes to the entry of the largest product v·e in yours: the nearest has the least "
    "‖v − e‖² = ‖v‖² − 2 v·e + ‖e‖²": _one(ids=lambda v, e, first: _dots(v, e)),
    "a vector goes to the entry of the largest cosine in yours: the nearest one is asked for": _one(
        ids=lambda v, e, first: _dots(v, e / e.norm(dim=1, keepdim=True))),
    "the farthest entry gets the vector in yours": _one(
        ids=lambda v, e, first: (v[:, None] - e).square().sum(2).argmax(1)),
    "nearest by the sum of absolute differences: squared ones are asked for": _one(
        ids=lambda v, e, first: (v[:, None] - e).abs().sum(2).argmin(1)),
    "you looked for the nearest in the first coordinate only": _one(
        ids=lambda v, e, first: (v[:, :1] - e[:, 0]).abs().argmin(1)),
    "those are the running sums: an entry is its sum over its count": _afterwards(
        lambda sums, counts, own, total: sums),
    "those are the running counts: an entry is its sum over its count": _afterwards(
        lambda sums, counts, own, total: counts[:, 0]),
}  # fmt: skip


def _case() -> tuple:
    """batches, entries, decay: one entry is picked by nobody, one by two vectors here and there."""
    entries = draws(K, W, seed=151, std=1.2)
    entries[2] += 40
    entries[4] -= 20
    batches = draws(T, N, W, seed=152, std=1.6)
    for batch, few in zip((0, 3), (3, 2), strict=True):
        batches[batch, :few] += entries[4]
    return batches, entries, DECAY


def running_means(function: Callable) -> None:
    """Checks running_means(batches, entries, decay) -> (K, width), from batches (T, n, width).

    Raises NotYet, or Wrong with a diagnosis.
    """
    ask("the codebook", function, _running_means, MEANS_SLIPS, *_case())
    print(f"right: {T} batches of {N} vectors, {K} entries, one chosen by nobody, one by 2 batches")


SLIPS = {running_means: MEANS_SLIPS, least_errors: ERROR_SLIPS}
