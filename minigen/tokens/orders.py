"""Tokens one by one and many at once, and what each order says of a likelihood."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minigen.shapes import check_count, check_generator, outside

Ids = Int[Tensor, "B N"]
Logits = Float[Tensor, "B N V"]
Model = Callable[[Ids], Logits]


def logits_of(model: Model, ids: Ids) -> Logits:
    """The model's answer; raises ValueError unless it is (B, N, V)."""
    if ids.ndim != 2 or not ids.numel():
        raise ValueError(f"ids must be (B, N), got {tuple(ids.shape)}")
    logits = model(ids)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != ids.shape:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"for ids {tuple(ids.shape)} the model gave {got}, not (B, N, V)")
    return logits


def _whole(ids: Ids, values: int) -> None:
    """Raises ValueError unless every token is known."""
    wrong = outside(ids, values)
    if wrong is not None:
        said = " (the mask token)" if wrong == values else ""
        raise ValueError(f"token {wrong}{said} is out of range for {values} values")


def _order(order, n: int) -> list[int]:
    """The order as a list; raises ValueError unless it is a permutation of n tokens."""
    order = range(n) if order is None else order
    order = [int(i) for i in order]
    if sorted(order) != [*range(n)]:
        raise ValueError(f"an order names each of the {n} tokens once, got {order}")
    return order


def draw(logits: Float[Tensor, "... V"], temperature: float, generator) -> Int[Tensor, "..."]:
    """One token from each row of logits."""
    p = torch.softmax(logits / temperature, -1)
    drawn = torch.multinomial(p.reshape(-1, p.shape[-1]), 1, generator=generator)
    return drawn.reshape(p.shape[:-1])


def check_temperature(temperature: float) -> None:
    """Raises ValueError unless it is finite and positive."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be finite and > 0, got {temperature}")


# One by one -------------------------------------------------------------------------------------


def nll(model: Model, ids: Ids, *, order=None) -> Float[Tensor, " B"]:
    """−log p(ids) = −Σ log p(x_i | those before it in the order), in nats.

    N calls, each with the mask token V where a token comes later; one call where the model has
    `causal = True` and the order is the natural one. Raises ValueError for an order that is no
    permutation, and a token out of range.
    """
    order, natural = _order(order, ids.shape[1]), order is None
    if natural and getattr(model, "causal", False):
        logits = logits_of(model, ids)
        _whole(ids, logits.shape[2])
        return _cost(logits, ids).sum(1)
    V = logits_of(model, ids).shape[2]
    _whole(ids, V)
    seen, total = torch.full_like(ids, V), 0.0
    for i in order:
        total = total + _cost(logits_of(model, seen)[:, i : i + 1], ids[:, i : i + 1])[:, 0]
        seen = seen.clone()
        seen[:, i] = ids[:, i]
    return total


def _cost(logits: Logits, ids: Ids) -> Float[Tensor, "B N"]:
    """−log p of each token."""
    return nn.functional.cross_entropy(logits.mT, ids, reduction="none")


def autoregress(
    model: Model,
    ids: Ids,
    *,
    order=None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[Ids]:
    """Fills in what is unknown, token by token in the order; yields ids after each draw.

    x_i ~ softmax(logits_i / temperature), given all tokens known by then.

    Start from ids full of V; tokens that are known stay. Raises ValueError for an order that is no
    permutation, and temperature ≤ 0.
    """
    check_generator(ids, generator)
    order = _order(order, ids.shape[1])
    check_temperature(temperature)

    def states() -> Iterator[Ids]:
        now = ids
        for i in order:
            with torch.no_grad():
                logits = logits_of(model, now)
                unknown = now[:, i] == logits.shape[2]
                if not bool(unknown.any()):
                    continue
                drawn = draw(logits[:, i], temperature, generator)
                now = now.clone()
                now[:, i] = torch.where(unknown, drawn, now[:, i])
            yield now

    return states()


# Many at once -----------------------------------------------------------------------------------


def masked_loss(
    model: Model, ids: Ids, *, generator: torch.Generator | None = None
) -> Float[Tensor, " B"]:
    """(N/k) Σ_masked −log p(x_i | the unmasked) with k of N tokens masked, k uniform on 1 … N.

    On average that is ∫ (1/t) E Σ_masked −log p dt with each token masked with chance t: a bound on
    −log p(ids), in nats, and its value for every ids where the conditionals are those of one law.
    Raises ValueError for a token out of range.
    [Sahoo et al. 2024, eq. 10; Shi et al. 2024; order-agnostic form, Uria et al. 2014]
    """
    check_generator(ids, generator)
    B, N = ids.shape
    where = {"generator": generator, "device": ids.device}
    k = torch.randint(1, N + 1, (B, 1), **where)
    rank = torch.rand(B, N, **where).argsort(1).argsort(1)
    masked = rank < k
    logits = logits_of(model, torch.where(masked, _mask_token(model, ids), ids))
    _whole(ids, logits.shape[2])
    cost = torch.where(masked, _cost(logits, ids), 0.0).sum(1)
    return cost * (N / k[:, 0])


def _mask_token(model: Model, ids: Ids) -> int:
    """V, which the model knows, or its answer shows."""
    known = getattr(model, "values", None)
    if known is None:
        with torch.no_grad():
            known = logits_of(model, ids).shape[2]  # all ids: each may have a label of its own
    return known


def cosine_counts(length: int, steps: int) -> Int[Tensor, " steps"]:
    """How many tokens each step fills in: ⌊N cos(πk/2K)⌋ are left after step k of K, sum = length.

    Few at first, when little is known. Each step fills in one at least. Raises ValueError for more
    steps than tokens. [Chang et al. 2022, section 3.3]
    """
    check_count(length, "length")
    check_count(steps, "steps")
    if steps > length:
        raise ValueError(f"{steps} steps cannot each fill in one of {length} tokens")
    left = [length]
    for k in range(1, steps + 1):
        wanted = math.floor(length * math.cos(math.pi / 2 * k / steps) + 1e-9)
        left.append(max(min(wanted, left[-1] - 1), steps - k))
    left[-1] = 0
    return -torch.tensor(left).diff()


def confidence(logits: Logits, drawn: Ids) -> Float[Tensor, "B N"]:
    """log p of each token drawn: the surest are kept first. [Chang et al. 2022, section 3.2]"""
    return torch.log_softmax(logits, 2).gather(2, drawn[..., None])[..., 0]


def at_random(logits: Logits, drawn: Ids) -> Float[Tensor, "B N"]:
    """0 for all: `maskgit` keeps any of them."""
    return torch.zeros_like(logits[..., 0])


def maskgit(
    model: Model,
    ids: Ids,
    steps: int | Int[Tensor, " K"],
    *,
    by: Callable[[Logits, Ids], Tensor] = confidence,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[Ids]:
    """Draws all unknown tokens at once, keeps some, and again; yields ids after each step.

    `steps` is their number, with `cosine_counts`, or the counts themselves. Of the tokens drawn,
    those with the largest by(logits, drawn) are kept; ties are broken at random. Tokens drawn in
    one step ignore each other, which costs their conditional total correlation
    (`oracle.TokenTable.total_correlation`). Raises ValueError for counts that do not fit.
    [Chang et al. 2022]
    """
    check_generator(ids, generator)
    check_temperature(temperature)
    V = _mask_token(model, ids)
    unknown = (ids == V).sum(1)
    if not bool((unknown == unknown[0]).all()):
        raise ValueError("each sample must have as many unknown tokens as the others")
    n = int(unknown[0])
    counts = cosine_counts(n, steps) if isinstance(steps, int) else torch.as_tensor(steps)
    if counts.ndim != 1 or int(counts.sum()) != n or bool((counts < 1).any()):
        raise ValueError(f"counts are whole numbers from 1 whose sum is {n}, got {counts.tolist()}")

    def states() -> Iterator[Ids]:
        now = ids
        for count in counts.tolist():
            with torch.no_grad():
                logits = logits_of(model, now)
                drawn = draw(logits, temperature, generator)
                rank = by(logits, drawn).masked_fill(now != V, -math.inf)
                keep = _largest(rank, count, generator)
                now = torch.where(keep, drawn, now)
            yield now

    return states()


def _largest(rank: Float[Tensor, "B N"], count: int, generator) -> Bool[Tensor, "B N"]:
    """Where the `count` largest of each row stand, ties broken at random."""
    noise = torch.rand(rank.shape, generator=generator, device=rank.device)
    mixed = noise.argsort(1)
    order = rank.gather(1, mixed).argsort(dim=1, descending=True, stable=True)
    best = mixed.gather(1, order)[:, :count]
    return torch.zeros_like(rank, dtype=torch.bool).scatter(1, best, True)
