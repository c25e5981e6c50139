"""The checks of lecture 15 accept every right answer, and their truth is the exact one."""

import itertools
from functools import cache

import pytest
import torch

from minigen import checks
from minigen.checks import Wrong
from minigen.checks import tokens as check
from minigen.oracle import TokenTable

pytestmark = pytest.mark.long

F64 = torch.float64


def in_where(model, ids, t, s, u, gumbel):
    logits = model(ids)
    free = (ids == logits.shape[-1]) & (u <= (t - s) / t)
    return torch.where(free, torch.argmax(logits.log_softmax(-1) + gumbel, -1), ids)


def token_by_token(model, ids, t, s, u, gumbel):
    """Loops, one call, and an answer in int32."""
    logits, out = model(ids), ids.clone()
    for b, i in itertools.product(*map(range, ids.shape)):
        if ids[b, i] == logits.shape[2] and t * u[b, i] < t - s:
            out[b, i] = max(range(logits.shape[2]), key=lambda v: logits[b, i, v] + gumbel[b, i, v])
    return out.int()


def by_races(model, ids, t, s, u, gumbel):
    """exp(−g) is exponential: the first of V clocks of rates p rings."""
    logits = model(ids)
    first = (torch.exp(-gumbel) / logits.softmax(2)).argmin(2)
    out = ids.clone()
    change = (ids == logits.shape[2]) & (u * t < t - s)
    out[change] = first[change]
    return out


def tried_out(costs, steps):
    n = len(costs)
    every = [c for c in itertools.product(range(1, n), repeat=steps) if sum(c) == n]
    starts = torch.tensor(every).cumsum(1) - torch.tensor(every)
    price = (torch.tensor(every) * costs[starts]).sum(1)
    return torch.tensor(every[int(price.argmin())])


def by_recursion(costs, steps):
    @cache
    def rest(k, m):
        if m == 1:
            return float(len(costs) - k) * float(costs[k]), (len(costs) - k,)
        tries = ((n, *rest(k + n, m - 1)) for n in range(1, len(costs) - k - m + 2))
        return min((n * float(costs[k]) + price, (n, *then)) for n, price, then in tries)

    return torch.tensor(rest(0, steps)[1], dtype=F64)


def by_excess(costs, steps):
    """The total correlations themselves, which differ by a constant, filled in from the end."""
    n, total = len(costs), costs.flip(0).cumsum(0).flip(0)
    total = torch.cat([total, total.new_zeros(1)])
    best = {n: (0.0, [])}
    for _ in range(steps):
        best = {
            k: min(
                (float((e - k) * costs[k] - total[k] + total[e]) + price, [e - k, *then])
                for e, (price, then) in best.items()
                if e > k
            )
            for k in range(n)
            if any(e > k for e in best)
        }
    return torch.tensor(best[0][1])


STEPS_BACK, SCHEDULES = (
    [in_where, token_by_token, by_races],
    [tried_out, by_recursion, by_excess],
)


@pytest.mark.parametrize("offset", [0, 77])
@pytest.mark.parametrize(
    "exercise, right",
    [(check.unmask, f) for f in STEPS_BACK] + [(check.best_counts, f) for f in SCHEDULES],
)
def test_every_right_form_is_accepted_on_any_draw(exercise, right, offset, capsys, monkeypatch):
    monkeypatch.setattr(checks, "OFFSET", offset)
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


@pytest.mark.parametrize("offset", [3, 500, 12_345])
@pytest.mark.parametrize("exercise", check.SLIPS)
def test_each_slip_is_named_on_any_draw(exercise, offset, monkeypatch):
    """Ids and counts are whole numbers, and two slips might agree by chance."""
    monkeypatch.setattr(checks, "OFFSET", offset)
    for why, slip in check.SLIPS[exercise].items():
        with pytest.raises(Wrong) as said:
            exercise(slip)
        assert why in str(said.value)


@pytest.mark.parametrize("unmask", [in_where, by_races])
def test_steps_back_draw_from_the_law(unmask):
    """Many small steps with exact conditionals: hardly two tokens in one, so p itself."""
    g, n = torch.Generator().manual_seed(0), 4000
    log_p = torch.randn((3,) * 3, generator=g, dtype=F64)
    law = TokenTable(log_p - log_p.logsumexp([0, 1, 2]))
    model = lambda ids: law.conditional(ids, ids != 3)
    ids, levels = torch.full((n, 3), 3), torch.linspace(1, 0, 61).tolist()
    for t, s in itertools.pairwise(levels):
        u = torch.rand(ids.shape, generator=g)
        gumbel = -(-torch.rand(*ids.shape, 3, generator=g).log()).log()
        ids = unmask(model, ids, t, s, u, gumbel).long()
    assert int(ids.max()) < 3  # at s = 0 nothing is masked
    share = torch.bincount((ids * torch.tensor([9, 3, 1])).sum(1), minlength=27) / len(ids)
    p = law.log_p.exp().flatten()
    # 2/60 of the pairs are drawn at once, at most: that share of a total variation below 1
    bound = 4.5 * (p * (1 - p) / len(ids)).sqrt() + 0.015
    assert bool(((share - p).abs() < bound).all())


@pytest.mark.parametrize("best_counts", SCHEDULES)
def test_the_least_price_is_the_least_total_correlation(best_counts):
    """On the Ising grid, all schedules of three steps priced by the oracle."""
    law = TokenTable.ising(2, 3, 0.6, torch.tensor([0.4, 0, 0, -0.2, 0, 0]))
    sites = range(6)

    def mean_tc(k, n):
        each = [
            law.total_correlation(group, known)
            for known in itertools.combinations(sites, k)
            for group in itertools.combinations({*sites} - {*known}, n)
        ]
        return float(torch.stack(each).mean())

    alone = float(law.total_correlation([0])) + float(
        torch.special.entr(law.conditional(torch.zeros(1, 6).long(), torch.zeros(1, 6) > 0).exp())
        .sum(2)
        .mean()
    )
    # Δ(k) from TC of a random pair: Δ(k) − Δ(k + 1)
    curve = [alone]
    for k in range(5):
        curve.append(curve[-1] - mean_tc(k, 2))
    assert abs(sum(curve) - float(law.entropy())) < 1e-12
    prices = {
        c: sum(mean_tc(sum(c[:g]), n) for g, n in enumerate(c))
        for c in itertools.product(range(1, 5), repeat=3)
        if sum(c) == 6
    }
    got = best_counts(torch.stack([torch.as_tensor(x, dtype=F64) for x in curve]), 3)
    assert tuple(int(n) for n in got) == min(prices, key=prices.get)


def in_place(model, ids, t, s, u, gumbel):
    ids[ids == 3] = 0
    return ids


def own_noise(model, ids, t, s, u, gumbel):
    return in_where(model, ids, t, s, torch.rand(u.shape), gumbel)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.unmask, in_place, "writes into"),
        (check.unmask, own_noise, "draw nothing yourself"),
        (check.unmask, lambda m, ids, *rest: m(ids + 1), "tokens 0 … 2 and the mask token 3"),
        (check.unmask, lambda m, ids, *rest: m(ids.double()), "whole numbers"),
        (check.unmask, lambda m, ids, *rest: m(ids[0]), r"takes ids \(B, 6\)"),
        (check.unmask, lambda m, ids, *rest: m(ids), r"has shape \(300, 6, 3\), expected"),
        (check.best_counts, lambda c, k: tried_out(c, k).tolist(), "should be one tensor"),
        (check.best_counts, lambda c, k: tried_out(c, k)[:2], r"has shape \(2,\), expected \(3,\)"),
        (check.best_counts, lambda c, k: c.mul_(2), "writes into"),
        (check.best_counts, lambda c, k: torch.tensor([1, 2, 8]), "is wrong: where"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
