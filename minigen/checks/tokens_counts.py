"""The check of lecture 15's second program, the schedule of least price."""

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise

import torch
from torch import Tensor

from minigen.checks import call, compare, draws

N, STEPS, CURVES = 11, 3, 16  # tokens, groups, and curves: a slip may hit upon one of them
WHAT = "the tensor of counts"


def _every(n: int, steps: int) -> list[list[int]]:
    """All ways to cut n tokens into groups of one at least."""
    return [
        [b - a for a, b in pairwise([0, *cuts, n])] for cuts in combinations(range(1, n), steps - 1)
    ]


def _starts(counts: list[int]) -> list[int]:
    """How many tokens are known before each group."""
    return [sum(counts[:g]) for g in range(len(counts))]


def _rectangle(costs: list[float], start: int, n: int) -> float:
    """A group's price: each of its tokens costs what the first does."""
    return n * costs[start]


def _above(costs: list[float], start: int, n: int) -> float:
    """The same less what the tokens would cost one by one."""
    return n * costs[start] - sum(costs[start : start + n])


def _best(costs, steps, *, group=_rectangle, total=sum, pick=min,
          answer=lambda counts, price: torch.tensor(counts)) -> Tensor:  # fmt: skip
    """The right schedule, or one with the slips named: each replaces a part of it."""
    costs = costs.tolist()

    def price(counts: list[int]) -> float:
        return total(group(costs, k, n) for k, n in zip(_starts(counts), counts, strict=True))

    best = pick(_every(len(costs), steps), key=price)
    return answer(best, price(best))


def _even(costs, steps) -> Tensor:
    return torch.tensor([len(x) for x in torch.arange(len(costs)).tensor_split(steps)])


def _cosine(costs, steps) -> Tensor:
    """Chang et al.'s, with one token for each step at least."""
    left = [len(costs)]
    for k in range(1, steps):
        wanted = math.floor(len(costs) * math.cos(math.pi / 2 * k / steps) + 1e-9)
        left.append(max(min(wanted, left[-1] - 1), steps - k))
    return -torch.tensor([*left, 0]).diff()


def _greedy(costs, steps) -> Tensor:
    """One cut after the other, each the best as things stand."""
    price = lambda cuts: sum(
        _rectangle(costs.tolist(), a, b - a) for a, b in pairwise([0, *sorted(cuts), len(costs)])
    )
    cuts = []
    for _ in range(steps - 1):
        cuts.append(min({*range(1, len(costs))} - {*cuts}, key=lambda c: price([*cuts, c])))
    return torch.tensor([0, *sorted(cuts), len(costs)]).diff()


def _at_drops(costs, steps) -> Tensor:
    cuts = (costs.diff().topk(steps - 1, largest=False).indices + 1).sort().values.tolist()
    return torch.tensor([0, *cuts, len(costs)]).diff()


def _equal_shares(costs, steps) -> Tensor:
    """Cuts where the sum of the costs passes 1/K, 2/K, …: the groups cost alike, one by one."""
    passed = costs.cumsum(0) / costs.sum()
    cuts = [int((passed < k / steps).sum()) + 1 for k in range(1, steps)]
    for i in range(steps - 1):  # one token for each at least
        cuts[i] = min(max(cuts[i], (cuts[i - 1] if i else 0) + 1), len(costs) - steps + 1 + i)
    return torch.tensor([0, *cuts, len(costs)]).diff()


_one = partial(partial, _best)
COUNT_SLIPS = {
    "those are even groups: the costs are not asked at all": _even,
    "that is the cosine's rule, which does not know the costs": _cosine,
    "you found the schedule of the highest price": _one(pick=max),
    "each token of a group costs what the group's first does, costs[k_g]; you took its last one's, "
    "as if the others were known": _one(group=lambda c, k, n: n * c[k + n - 1]),
    "each token of a group costs what the group's first does; you took the mean of first and last":
        _one(group=lambda c, k, n: n * (c[k] + c[k + n - 1]) / 2),
    "you took the costs with the group already known, costs[k_g + n_g]: its own tokens do not "
    "hear each other": _one(group=lambda c, k, n: n * [*c, 0.0][k + n]),
    "each group counts n_g times, once for each of its tokens; you counted it once":
        _one(group=lambda c, k, n: c[k]),
    "you made the dearest group cheap; the sum over the groups is the price":
        _one(group=_above, total=max),
    "you cut one by one, each cut the best as things stand: the best cuts together are others":
        _greedy,
    "you cut where the costs fall most: what a cut saves is the fall times all that comes after it "
    "in the group": _at_drops,
    "you gave each group the same share of the sum of the costs: that is not what it pays for "
    "being drawn at once": _equal_shares,
    "costs[k] is with k tokens known; you took it with k still masked":
        lambda costs, steps: _best(costs.flip(0), steps),
    "your counts run from the last step to the first":
        _one(answer=lambda counts, price: torch.tensor(counts[::-1])),
    "that is how many are known before each step: how many it draws is asked for":
        _one(answer=lambda counts, price: torch.tensor(_starts(counts))),
    "that is how many are known after each step: how many it draws is asked for":
        _one(answer=lambda counts, price: torch.tensor(counts).cumsum(0)),
    "that is how many are masked after each step: how many it draws is asked for":
        _one(answer=lambda counts, price: sum(counts) - torch.tensor(counts).cumsum(0)),
    "that is the least price: the counts that have it are asked for":
        _one(answer=lambda counts, price: torch.tensor(price)),
}  # fmt: skip


def _case() -> Tensor:
    """Curves (CURVES, N) that fall: half of them in leaps, half evenly, where greed cuts amiss."""
    falls = draws(CURVES, N, seed=156, mean=0.0)
    even = torch.arange(CURVES)[:, None] % 2 == 0
    falls = torch.where(even, 1 + 0.05 * falls, falls.square() + 0.01)
    return 0.1 + falls.flip(1).cumsum(1).flip(1)


def best_counts(function: Callable) -> None:
    """Checks best_counts(costs, steps) -> the counts (steps,) of least Σ n_g costs[k_g].

    Raises NotYet, or Wrong with a diagnosis.
    """
    curves, answers = _case(), []
    for costs in curves:
        answers.append(call(function, costs, STEPS))
        if not isinstance(answers[-1], Tensor) or answers[-1].shape != (STEPS,):
            slips = {w: partial(s, costs, STEPS) for w, s in COUNT_SLIPS.items()}
            compare(WHAT, answers[-1], _best(costs, STEPS), slips)
    each = lambda f: torch.stack([f(costs, STEPS) for costs in curves])
    slips = {w: partial(each, s) for w, s in COUNT_SLIPS.items()}
    compare(WHAT, torch.stack(answers), each(_best), slips)
    print(f"right: the cheapest {STEPS} groups of {N} tokens, for {CURVES} curves")
