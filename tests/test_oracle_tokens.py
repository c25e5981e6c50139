"""The table of a discrete law: against enumeration, sampling, and the identities of information."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from minigen.oracle import TokenTable

F64 = torch.float64


def table(V=3, N=4, seed=0):
    """A law without any structure: no two tokens are alike."""
    g = torch.Generator().manual_seed(seed)
    log_p = 1.5 * torch.randn((V,) * N, generator=g, dtype=F64)
    return TokenTable(log_p - log_p.logsumexp([*range(N)]))


def everything(law):
    """All states, (V^N, N), in the order of the flat table."""
    return torch.tensor([*itertools.product(range(law.values), repeat=law.length)])


GRID = TokenTable.ising(2, 3, 0.6, torch.tensor([0.2, 0, 0, 0, 0, 0]))


def test_ising_is_its_energy_over_edges_and_field():
    field = torch.tensor([0.3, -0.1, 0.2, 0.0, 0.5, -0.4], dtype=F64)
    law, weights = TokenTable.ising(2, 3, 0.7, field), []
    for ids in everything(law).tolist():
        s = [2 * x - 1 for x in ids]
        edges = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]  # row by row, then down
        energy = 0.7 * sum(s[i] * s[j] for i, j in edges)
        weights.append(energy + sum(float(f) * x for f, x in zip(field, s, strict=True)))
    want = torch.tensor(weights, dtype=F64).log_softmax(0)
    assert_close(law.log_prob(everything(law)), want, rtol=0, atol=1e-13)
    assert_close(TokenTable.ising(3, 1, 0.0, 0.4).log_p.exp().sum((1, 2))[1],
                 torch.sigmoid(torch.tensor(0.8, dtype=F64)))  # fmt: skip


def test_samples_have_the_law():
    law, g = table(), torch.Generator().manual_seed(1)
    ids, n = law.sample(200_000, generator=g), 200_000
    assert ids.shape == (n, 4) and ids.dtype == torch.int64
    flat = (ids * torch.tensor([27, 9, 3, 1])).sum(1)
    share, p = torch.bincount(flat, minlength=81) / n, law.log_p.exp().flatten()
    assert bool(((share - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-9).all())
    mean = law.log_prob(ids)
    assert abs(float(mean.mean() + law.entropy())) < 4 * float(mean.std()) / n**0.5


def test_every_conditional_by_enumeration():
    law = table()
    states, p = everything(law), law.log_p.exp().flatten()
    known = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]]) > 0
    ids = torch.tensor([[2, 3, 3, 0], [3, 1, 3, 3], [3, 3, 3, 3], [0, 1, 2, 1], [1, 3, 0, 3]])
    got = law.conditional(ids, known)
    assert got.shape == (5, 4, 3)
    for row in range(5):
        fits = (states[:, known[row]] == ids[row, known[row]]).all(1)
        for i, v in itertools.product(range(4), range(3)):
            chance = p[fits & (states[:, i] == v)].sum() / p[fits].sum()
            assert abs(float(got[row, i, v].exp() - chance)) < 1e-13


def test_the_chain_rule_in_any_order_is_log_p():
    law, g = table(3, 5), torch.Generator().manual_seed(2)
    ids = law.sample(7, generator=g)
    for seed in range(3):
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        total, known = 0, torch.zeros(7, 5, dtype=torch.bool)
        for i in order:
            now = law.conditional(torch.where(known, ids, 3), known)
            total = total + now[torch.arange(7), i, ids[:, i]]
            known[:, i] = True
        assert_close(total, law.log_prob(ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "groups, nats",
    [
        ([[0, 1, 2, 3, 4, 5]], 1.400164),
        ([[0, 2, 4], [1, 3, 5]], 0.356020),
        ([[0, 1, 2], [3, 4, 5]], 0.569426),
        ([[0], [1], [2], [3], [4], [5]], 0.0),
    ],
)
def test_drawing_in_groups_costs_their_conditional_total_correlations(groups, nats):
    """KL from p to the law of tokens drawn independently within each group, given those before."""
    states, log_q, before = everything(GRID), 0, []
    for group in groups:
        known = torch.zeros(64, 6, dtype=torch.bool)
        known[:, before] = True
        now = GRID.conditional(states, known).gather(2, states[:, :, None])[:, :, 0]
        log_q, before = log_q + now[:, group].sum(1), before + group
    p = GRID.log_p.flatten()
    kl = float((p.exp() * (p - log_q)).sum())
    firsts = [sum(groups[:k], []) for k in range(len(groups))]
    price = sum(float(GRID.total_correlation(g, b)) for g, b in zip(groups, firsts, strict=True))
    assert abs(kl - price) < 1e-12 and abs(kl - nats) < 5e-7


def test_independent_tokens_have_no_correlation_and_copies_all_of_it():
    alone = torch.tensor([0.2, 0.5, 0.3], dtype=F64).log()
    free = TokenTable(alone[:, None] + alone)
    assert abs(float(free.total_correlation([0, 1]))) < 1e-15
    twin = torch.full((3, 3), -math.inf, dtype=F64)
    twin.fill_diagonal_(-math.log(3))  # the same token twice
    assert_close(TokenTable(twin).total_correlation([0, 1]), torch.tensor(math.log(3)).double())


def test_what_is_no_law_or_no_token_is_named():
    log_p = table().log_p
    for bad, sentence in (
        (log_p + 0.1, "must sum to 1, and sum to 1.1"),
        (log_p * math.nan, "must sum to 1, and sum to nan"),
        (log_p[:2], r"one axis of V values for each of N tokens.*\(2, 3, 3, 3\)"),
        (torch.full((2,) * 21, -21 * math.log(2)), "at most 1048576 entries"),
    ):
        with pytest.raises(ValueError, match=sentence):
            TokenTable(bad)
    with pytest.raises(ValueError, match="5 × 5 spins have 2\\^25 states"):
        TokenTable.ising(5, 5, 0.1)
    with pytest.raises(ValueError, match=r"one for each of 6, got \(5,\)"):
        TokenTable.ising(2, 3, 0.1, torch.zeros(5))
    law, ids = table(), torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="token 3 is out of range for 3 values"):
        law.log_prob(ids + 3)
    with pytest.raises(ValueError, match=r"ids must be \(B, 4\), got \(2, 3\)"):
        law.log_prob(ids[:, :3])
    with pytest.raises((ValueError, TypeError), match=r"known must be Boolean \(2, 4\)|Type-check"):
        law.conditional(ids, torch.ones(2, 3, dtype=torch.bool))
    for group, given in (([0, 0], []), ([0], [0]), ([4], [])):
        with pytest.raises(ValueError, match="name different tokens, 0 … 3"):
            law.total_correlation(group, given)
