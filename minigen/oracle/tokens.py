"""The exact answer for discrete data: any law on a few tokens, as the table of all its values."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minigen.shapes import check_count, check_generator, check_tensor

LIMIT = 2**20  # entries of a table: 8 MB in float64
Ids = Int[Tensor, "B N"]


class TokenTable:
    """A law on N tokens of V values each: log_p (V, …, V) with N axes, in nats.

    Raises ValueError for axes of different lengths, more than 2²⁰ entries, NaN, or probabilities
    that do not sum to 1.
    """

    def __init__(self, log_p: Float[Tensor, "..."]):
        check_tensor(log_p, "log_p")
        if len({*log_p.shape}) != 1 or log_p.numel() > LIMIT:
            raise ValueError(
                f"a table has one axis of V values for each of N tokens, at most {LIMIT} entries "
                f"in all, got shape {tuple(log_p.shape)}"
            )
        total = float(log_p.logsumexp([*range(log_p.ndim)]))
        if not abs(total) < 1e-5:
            raise ValueError(
                f"the probabilities must sum to 1, and sum to {math.exp(min(total, 700)):g}: "
                f"log_p − log_p.logsumexp(all axes) is normalised"
            )
        self.log_p, self.values, self.length = log_p, log_p.shape[0], log_p.ndim

    @classmethod
    def ising(
        cls, h: int, w: int, coupling: float, field: float | Float[Tensor, " N"] = 0.0
    ) -> "TokenTable":
        """A grid of h × w spins s = ∓1 for tokens 0 and 1, row by row, with open edges; float64.

        log p = coupling Σ s s′ over neighbours + Σ field s − log Z. `field` is a number or one for
        each spin. Raises ValueError for more than 20 spins. [Ising 1925]
        """
        check_count(h, "h")
        check_count(w, "w")
        n = h * w
        if 2**n > LIMIT:
            raise ValueError(f"{h} × {w} spins have 2^{n} states; at most 20 spins are enumerated")
        field = torch.as_tensor(field, dtype=torch.float64)
        if field.shape not in ((), (n,)):
            raise ValueError(f"field is a number or one for each of {n}, got {tuple(field.shape)}")
        spins = 2.0 * torch.cartesian_prod(*[torch.arange(2)] * n).reshape(-1, n).double() - 1
        grid = spins.reshape(-1, h, w)
        pairs = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum(
            (1, 2)
        )
        energy = coupling * pairs + (spins * field).sum(1)
        return cls(torch.log_softmax(energy, 0).reshape((2,) * n))

    def _check_ids(self, ids: Ids, known: Bool[Tensor, "B N"] | None = None) -> None:
        if ids.ndim != 2 or ids.shape[1] != self.length:
            raise ValueError(f"ids must be (B, {self.length}), got {tuple(ids.shape)}")
        if known is not None and (known.dtype != torch.bool or known.shape != ids.shape):
            raise ValueError(
                f"known must be Boolean {tuple(ids.shape)} as ids, got {known.dtype} "
                f"{tuple(known.shape)}"
            )
        seen = ids if known is None else ids[known]
        if seen.numel() and not (0 <= int(seen.min()) and int(seen.max()) < self.values):
            wrong = seen[(seen < 0) | (seen >= self.values)][0]
            raise ValueError(f"token {int(wrong)} is out of range for {self.values} values")

    def log_prob(self, ids: Ids) -> Float[Tensor, " B"]:
        """log p(ids), in nats."""
        self._check_ids(ids)
        return self.log_p[tuple(ids.T)]

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> Int[Tensor, "n N"]:
        """n independent draws."""
        check_count(n)
        check_generator(self.log_p, generator)
        flat = self.log_p.exp().flatten()
        drawn = torch.multinomial(flat, n, replacement=True, generator=generator)
        return torch.stack(torch.unravel_index(drawn, self.log_p.shape), 1)

    def entropy(self) -> Float[Tensor, ""]:
        """−E log p, in nats."""
        return self._entropy(range(self.length))

    def _marginal(self, tokens: Sequence[int]) -> Tensor:
        """log p of these tokens, their axes in ascending order."""
        rest = [i for i in range(self.length) if i not in tokens]
        return self.log_p.logsumexp(rest) if rest else self.log_p

    def _entropy(self, tokens: Sequence[int]) -> Float[Tensor, ""]:
        return torch.special.entr(self._marginal(tokens).exp()).sum()

    def conditional(self, ids: Ids, known: Bool[Tensor, "B N"]) -> Float[Tensor, "B N V"]:
        """log p(x_i | the known tokens) for every i, in nats; a known token has its own value.

        ids are ignored where they are unknown: the mask token V may stand there. Known tokens that
        cannot occur together leave NaN, as nothing is conditional on them.
        """
        self._check_ids(ids, known)
        out = self.log_p.new_full((*ids.shape, self.values), -math.inf)
        for pattern in torch.unique(known, dim=0):
            rows = (known == pattern).all(1)
            seen, given = pattern.nonzero().flatten().tolist(), ids[rows]
            for i in range(self.length):
                if i in seen:
                    answer = torch.full_like(out[rows, i], -math.inf)
                    answer = answer.scatter(1, given[:, i : i + 1], 0.0)
                else:
                    joint = self._marginal([*seen, i]).movedim(sum(j < i for j in seen), -1)
                    answer = (
                        joint[tuple(given[:, seen].T)] if seen else joint.expand(len(given), -1)
                    )
                    answer = torch.log_softmax(answer, 1)
                out[rows, i] = answer
        return out

    def total_correlation(
        self, group: Sequence[int], given: Sequence[int] = ()
    ) -> Float[Tensor, ""]:
        """Σ H(x_i | given) − H(x_group | given), in nats: the price of drawing a group at once.

        It is the mean KL from p(group | given) to the product of its marginals. Raises ValueError
        for tokens that are named twice or do not exist. [Watanabe 1960]
        """
        named = [*group, *given]
        if len({*named}) != len(named) or not all(0 <= i < self.length for i in named):
            raise ValueError(
                f"group and given name different tokens, 0 … {self.length - 1}, got {list(group)} "
                f"and {list(given)}"
            )
        base = self._entropy(given)
        alone = sum(self._entropy([i, *given]) - base for i in group)
        return alone - (self._entropy(named) - base)
