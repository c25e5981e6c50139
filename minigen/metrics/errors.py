"""A number and its standard error."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from minigen.shapes import check_count, check_finite

from .samples import Other, Scalar, X


class Estimate(NamedTuple):
    """A number and its standard error; prints as `0.123 ± 0.004`."""

    value: float
    stderr: float

    def __repr__(self) -> str:  # and so str
        if not 0 < self.stderr < math.inf:
            return f"{self.value:g} ± {self.stderr:g}"
        places = max(0, 1 - math.floor(math.log10(self.stderr)))  # two figures of the error
        return f"{self.value:.{places}f} ± {self.stderr:.{places}f}"


def share_with_error(share: Scalar | float, n: int) -> Estimate:
    """A share of n samples (an accuracy, duplicates) with its binomial standard error.

    √(p(1 − p)/(n + 4)) with p = (n share + 2)/(n + 4), which isn't 0 at a share of 0 or 1.
    [Agresti & Coull 1998]
    """
    check_count(n)
    p = (n * float(share) + 2) / (n + 4)
    return Estimate(float(share), math.sqrt(p * (1 - p) / (n + 4)))


def with_error(
    distance: Callable[[Tensor, Tensor], Tensor],
    x: X,
    y: Other,
    *,
    repeats: int = 20,
    generator: torch.Generator | None = None,
) -> Estimate:
    """distance(x, y) and its standard error, by leaving out a random 1/`repeats` of both at a time.

    stderr² = (R − 1)/R Σ (dᵢ − mean d)², the grouped jackknife.
    Unlike the bootstrap it repeats no sample (twins at distance 0 would bias the distances within),
    unlike disjoint parts it keeps nearly the full B. Where the laws agree it errs on the safe side.
    [Efron & Stein 1981]
    """
    if not 2 <= repeats <= min(len(check_finite(z)) for z in (x, y)) / 2:
        raise ValueError(f"repeats must lie between 2 and half the samples, got {repeats}")
    parts = [_shuffled(z, generator).tensor_split(repeats) for z in (x, y)]
    left_out = torch.stack(
        [distance(*(torch.cat([*p[:i], *p[i + 1 :]]) for p in parts)) for i in range(repeats)]
    ).double()
    variance = (repeats - 1) * left_out.var(correction=0)
    return Estimate(float(distance(x, y)), math.sqrt(variance))


def _shuffled(z: Tensor, generator: torch.Generator | None) -> Tensor:
    where = generator.device if generator is not None else "cpu"
    return z[torch.randperm(len(z), generator=generator, device=where).to(z.device)]
