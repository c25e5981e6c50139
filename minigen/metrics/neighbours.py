"""What the nearest neighbours of samples tell: memory of the training data, and reach."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .samples import Other, Scalar, X, pairwise, vectors


def duplicates(x: X, train: Other, *, quantile: float = 0.01) -> Scalar:
    """The share of x that lies closer to its nearest training image than fresh data would.

    "Closer" is below the `quantile` of distances from each training image to its nearest other
    one, and always at distance 0, also where twins in the training data make that quantile 0. So
    fresh data score about `quantile`, copies 1, and more than that is memory.
    """
    x, train = vectors(x, train)
    apart = pairwise(train, train).fill_diagonal_(math.inf).min(dim=1).values
    nearest = pairwise(x, train).min(dim=1).values
    return ((nearest < torch.quantile(apart, quantile)) | (nearest == 0)).to(x.dtype).mean()


def memorised(x: X, train: Other, *, quantile: float = 0.01) -> Scalar:
    """The share of x that one training image fits far better than any other, as fresh data do not.

    ‖x − y₂‖² − ‖x − y₁‖², with y₁ and y₂ the two nearest training images, exceeds what a share
    `quantile` of the training images show among the others. Independent grain lengthens both
    squares alike, so it hides no copy, as it does from `duplicates`. Fresh data score about
    `quantile`, copies the share of images that have no near twin: half of the digits.
    """
    x, train = vectors(x, train)
    if len(train) < 3:
        raise ValueError(f"two neighbours of each training image: got {len(train)} images")
    usual = _usual(pairwise(train, train).fill_diagonal_(math.inf), quantile)
    return (_gap(pairwise(x, train)) > usual).to(x.dtype).mean()


def _gap(distance: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """By how much the nearest fits better than the second, in squares."""
    first, second = distance.topk(2, largest=False).values.unbind(1)
    return second**2 - first**2


def _usual(apart: Float[Tensor, "N N"], quantile: float) -> Scalar:
    """The gap that a share `quantile` of the training images exceed, among the others."""
    return torch.quantile(_gap(apart), 1 - quantile)


@torch.no_grad()
def recall(
    x: X, real: Other, features: Callable[[Tensor], Tensor] | None = None, *, k: int = 3
) -> Scalar:
    """The share of `real` that lies within reach of x: in a ball about some sample of x.

    Each ball ends at that sample's k-th neighbour among x. `recall(real, x)` is the precision. Both
    depend on the two sizes and on k: compare at equal ones, with the value for two sets of data.
    [Kynkäänniemi et al. 2019, eq. 1-3]
    """
    x, real = vectors(*(x, real) if features is None else (features(x), features(real)))
    if not 1 <= k < len(x):
        raise ValueError(f"k counts neighbours among the {len(x)} samples, got {k}")
    radius = pairwise(x, x).kthvalue(k + 1, dim=1).values  # the nearest is the sample itself
    return (pairwise(real, x) <= radius).any(dim=1).to(x.dtype).mean()


def _fast(x: Float[Tensor, "B D"], y: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
    """`pairwise` by matrix products in float64: wrong by 1e-7 between twins."""
    return torch.cdist(x.double(), y.double(), compute_mode="use_mm_for_euclid_dist")


class Neighbours(NamedTuple):
    """The shares of real images in reach of a sample, of samples in reach, and of copies."""

    recall: Tensor
    precision: Tensor
    memorised: Tensor


class Reference:
    """Real images whose distances from one another are computed once: x -> Neighbours.

    `recall(x, real)`, `recall(real, x)` and `memorised(x, real)`, for a judge who is asked often.
    """

    def __init__(self, real: Other, *, k: int = 3, quantile: float = 0.01):
        self.real, self.k = real, k
        flat, _ = vectors(real, real)
        if not 2 <= k < len(flat):
            raise ValueError(f"k counts neighbours among the {len(flat)} images, got {k}")
        apart = _fast(flat, flat).fill_diagonal_(math.inf)
        self.radius = apart.kthvalue(k, dim=1).values
        self.usual = _usual(apart, quantile)

    def __call__(self, x: X) -> Neighbours:
        x, real = vectors(x, self.real)
        if len(x) <= self.k:
            raise ValueError(f"k counts neighbours among the {len(x)} samples, got {self.k}")
        apart, own = _fast(x, real), _fast(x, x).fill_diagonal_(math.inf)
        reach = own.kthvalue(self.k, dim=1).values
        found = (
            (apart <= reach[:, None]).any(0),
            (apart <= self.radius).any(1),
            _gap(apart) > self.usual,
        )
        return Neighbours(*(f.to(x.dtype).mean() for f in found))
