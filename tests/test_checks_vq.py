"""The checks of lecture 14 accept every right answer, and their truth is the exact one."""

import math

import pytest
import torch

import minigen.checks
from minigen import vq as library
from minigen.checks import Wrong
from minigen.checks import vq as check
from minigen.checks.vq_bits import _errors, _variances

F64 = torch.float64


def vector_by_vector(batches, entries, decay):
    """No matrix: each vector looks at each entry."""
    entries = entries.clone()
    count, total = [1.0] * len(entries), [*entries.clone()]
    for vectors in batches:
        own = [[] for _ in entries]
        for v in vectors:
            own[min(range(len(entries)), key=lambda k: float((v - entries[k]).norm()))].append(v)
        for k, some in enumerate(own):
            count[k] = decay * count[k] + (1 - decay) * len(some)
            total[k] = decay * total[k] + (1 - decay) * sum(some, torch.zeros_like(total[k]))
            entries[k] = total[k] / count[k]
    return entries


def by_library(batches, entries, decay):
    book = library.Quantizer(*entries.shape, decay=decay).to(entries.dtype)
    book.entries.copy_(entries), book.sums.copy_(entries)
    for vectors in batches:
        book(vectors)
    return book.entries


def by_weights(batches, entries, decay):
    """The entry as one weighted mean of all that chose it, and of itself at the start."""
    past = [(entries, torch.eye(len(entries), dtype=entries.dtype))]
    for vectors in batches:
        ids = (entries.square().sum(1) - 2 * vectors @ entries.T).argmin(1)
        past = [(x, decay * w) for x, w in past]
        past.append(
            (vectors, (1 - decay) * torch.nn.functional.one_hot(ids, len(entries)).double())
        )
        x, w = (torch.cat(part) for part in zip(*past, strict=True))
        entries = torch.einsum("nk,nw->kw", w, x) / w.sum(0)[:, None]
    return entries


def by_correction(batches, entries, decay):
    """Each entry moved to its batch's mean by the share that the batch has in its new count."""
    count = torch.ones(len(entries), dtype=entries.dtype)
    for vectors in batches:
        ids = torch.cdist(vectors, entries).argmin(1)
        own = torch.bincount(ids, minlength=len(entries)).double()
        mean = torch.zeros_like(entries).index_add(0, ids, vectors) / own.clamp(min=1)[:, None]
        count = decay * count + (1 - decay) * own
        entries = torch.lerp(entries, mean, ((1 - decay) * own / count)[:, None])
    return entries


def by_pouring(variances, bits):
    """Bits in small drops would be slow: whole groups from the largest down to the next one."""
    left, order = variances.clone(), variances.argsort(descending=True)
    for k in range(1, len(left) + 1):
        group = order[:k]
        floor = variances[order[k]] if k < len(left) else torch.tensor(0.0, dtype=F64)
        cost = 0.5 * k * torch.log2(left[order[0]] / floor)
        if cost > bits:
            left[group] = left[order[0]] * 2 ** (-2 * bits / k)
            break
        left[group], bits = floor, bits - float(cost)
    return left


def by_taking_out(variances, bits):
    """The level of all; whoever is below it is taken out, until nobody is."""
    some = torch.ones_like(variances, dtype=torch.bool)
    while True:
        level = torch.exp2((variances[some].log2().sum() - 2 * bits) / some.sum())
        if bool((variances[some] >= level).all()):
            return torch.where(some, level, variances)
        some = some & (variances >= level)


def by_subsets(variances, bits):
    """The best of all sets of numbers that have bits, each at its own level where that is one."""
    best = None
    for code in range(1, 2 ** len(variances)):
        some = torch.tensor([code >> i & 1 for i in range(len(variances))]).bool()
        level = torch.exp2((variances[some].log2().sum() - 2 * bits) / some.sum())
        errors = torch.where(some, level, variances)
        allowed = bool((errors <= variances).all())
        if allowed and (best is None or errors.sum() < best.sum()):
            best = errors
    return best


MEANS = [vector_by_vector, by_library, by_weights, by_correction]
ERRORS = [by_pouring, by_taking_out, by_subsets]
RIGHT = [(check.running_means, f) for f in MEANS] + [(check.least_errors, f) for f in ERRORS]


@pytest.mark.parametrize("offset", [0, 3, 70_000])
@pytest.mark.parametrize("exercise, right", RIGHT)
def test_every_right_form_is_accepted(exercise, right, offset, monkeypatch, capsys):
    """Also in the cases that a graded check draws."""
    monkeypatch.setattr(minigen.checks, "OFFSET", offset)
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def test_without_memory_one_batch_is_a_step_of_k_means():
    """And the error falls: the means of the clusters are nearer than the entries were."""
    batches, entries, _ = check._case()
    used = torch.cdist(batches[0], entries).argmin(1).unique()
    entries = entries[used]
    after = check._running_means(batches[:1], entries, 0.0)
    ids = torch.cdist(batches[0], entries).argmin(1)
    for k in ids.unique():
        assert torch.allclose(after[k], batches[0][ids == k].mean(0), rtol=1e-12, atol=1e-12)
    error = lambda e: torch.cdist(batches[0], e).amin(1).square().sum()
    assert float(error(after)) < float(error(entries))


def test_no_other_allotment_of_the_bits_has_a_smaller_error():
    """Moving a bit's part from any number to any other, and 2,000 random allotments."""
    variances, bits = _variances(), 9.7
    best = _errors(variances, bits)
    given = 0.5 * (variances / best).log2()
    assert abs(float(given.sum()) - bits) < 1e-9 and bool((given >= 0).all())
    g = torch.Generator().manual_seed(0)
    some = torch.rand(2000, len(given), generator=g, dtype=F64) ** 3
    moved = torch.cat([bits * some / some.sum(1, keepdim=True), *_moved(given)])
    total = (variances * torch.exp2(-2 * moved)).sum(1)
    assert float(total.min()) >= float(best.sum()) * (1 - 1e-9)


def _moved(given):
    """0.01 bits from each that has them to each other one."""
    n = len(given)
    for i in range(n):
        step = torch.eye(n, dtype=F64) - torch.eye(n, dtype=F64)[i]
        if float(given[i]) > 0.01:
            yield given + 0.01 * step


def writes(batches, entries, decay):
    for vectors in batches:
        ids = torch.cdist(vectors, entries).argmin(1)
        for k in ids.unique():
            entries[k] = vectors[ids == k].mean(0)
    return entries


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.running_means, writes, "writes into"),
        (check.running_means, lambda b, e, d: [e] * len(b), "got a list of 6 tensors"),
        (check.running_means, lambda b, e, d: (e, e[:, 0]), "got a tuple of 2 tensors"),
        (check.running_means, lambda b, e, d: e.T, r"has shape \(3, 5\), expected \(5, 3\)"),
        (check.running_means, lambda b, e, d: 2 * by_weights(b, e, d), "2 times what is right"),
        (check.least_errors, lambda v, b: [*v], "got a list of 7 tensors"),
        (check.least_errors, lambda v, b: v.mul_(2), "writes into"),
        (
            check.least_errors,
            lambda v, b: v * math.exp(-2 * b) if b > v else v,
            "asks `if` of a whole",
        ),
        (check.least_errors, lambda v, b: torch.exp2(-b) * v, "must be Tensor"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises((Wrong, TypeError), match=message):
        exercise(answer)
