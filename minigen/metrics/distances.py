"""How far apart the laws of two samples are; 0, but for chance, where they agree."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Real
from torch import Tensor

from minigen.shapes import check_count

from .samples import Other, Scalar, X, in_float, pairwise, vectors


def _mean_of_pairs(k: Tensor) -> Tensor:
    """The mean over pairs i ≠ j: no sample is compared with itself, hence no bias."""
    return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))


def energy_distance(x: X, y: Other) -> Scalar:
    """How far apart two laws are, in units of the data: 0 if and only if they agree.

    2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖, estimated without bias (so it may be below 0).
    [Székely & Rizzo 2013]
    """
    x, y = vectors(x, y)
    within = _mean_of_pairs(pairwise(x, x)) + _mean_of_pairs(pairwise(y, y))
    return 2 * pairwise(x, y).mean() - within


def mmd(x: X, y: Other, *, bandwidth: float | None = None) -> Scalar:
    """The squared maximum mean discrepancy of two laws, a pure number estimated without bias.

    MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y) with k = exp(−‖x − y‖² / 2h²).
    h is `bandwidth`, else the median distance between samples, within and across, which may not be
    0: where half of the pairs are equal, give one.
    [Gretton et al. 2012, eq. 3]
    """
    x, y = vectors(x, y)
    xx, yy, xy = pairwise(x, x), pairwise(y, y), pairwise(x, y)
    if bandwidth is None:
        bandwidth = torch.cat([d.flatten() for d in (xx, yy, xy, xy)]).median()
    if not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth:g}: do many samples agree?")
    xx, yy, xy = (torch.exp(-0.5 * (d / bandwidth) ** 2) for d in (xx, yy, xy))
    return _mean_of_pairs(xx) + _mean_of_pairs(yy) - 2 * xy.mean()


def sliced_wasserstein(
    x: X, y: Other, *, directions: int = 128, generator: torch.Generator | None = None
) -> Scalar:
    """The Wasserstein distance of two samples seen along random directions, in units of the data.

    √ E_θ W₂²(θ·x, θ·y) over unit vectors θ, W₂ of each pair of projections exact.
    A shift by δ costs ‖δ‖ / √D. The two samples may differ in size. [Bonneel et al. 2015]
    """
    check_count(directions, "directions")
    x, y = vectors(x, y)
    where = generator.device if generator is not None else "cpu"
    theta = torch.randn(x.shape[1], directions, generator=generator, device=where).to(x)
    theta = theta / theta.norm(dim=0)
    square = _wasserstein_squared(x @ theta, y @ theta).mean()
    return square.where(square == 0, square.where(square != 0, 1).sqrt())  # at 0, √ has no slope


def _wasserstein_squared(x: Float[Tensor, "n S"], y: Float[Tensor, "m S"]) -> Float[Tensor, " S"]:
    """W₂² column by column: ∫ (F⁻¹ − G⁻¹)² du, both quantile functions constant between levels."""
    n, m = len(x), len(y)
    count_x, count_y = (torch.arange(1, k + 1, device=x.device) for k in (n, m))
    level = torch.cat([m * count_x, n * count_y]).sort().values  # in units of 1 / nm, so exact
    width = torch.diff(level, prepend=level.new_zeros(1)).to(x.dtype) / (n * m)
    i, j = (level - 1) // m, (level - 1) // n
    gap = x.sort(dim=0).values[i] - y.sort(dim=0).values[j]
    return (width[:, None] * gap**2).sum(dim=0)


def wasserstein_1d(x: Real[Tensor, "B"], y: Real[Tensor, "N"]) -> Scalar:
    """The exact W1 of two samples on the line, in units of the data and differentiable in both.

    W1 = ∫ |F(z) − G(z)| dz; the samples may differ in size. [Vallender 1974]
    """
    x, y = in_float(x, y)
    if x.ndim != 1 or y.ndim != 1 or not min(len(x), len(y)):
        raise ValueError(
            f"this distance is between samples of numbers, (B,) and (N,), got {tuple(x.shape)} "
            f"and {tuple(y.shape)}; in more dimensions, sliced_wasserstein"
        )
    z = torch.cat([x, y]).sort().values
    at = z[:-1].detach()  # below: counts, so that equal shares differ by exactly 0
    i, j = (torch.searchsorted(s.detach().sort().values, at, right=True) for s in (x, y))
    return ((i * len(y) - j * len(x)).abs() * z.diff()).sum() / (len(x) * len(y))


@torch.no_grad()
def frechet(x: X, y: Other, features: Callable[[Tensor], Tensor] | None = None) -> Scalar:
    """The squared W₂ of normals with the moments of `features(x)` and `features(y)`, or of x and y.

    ‖m₁ − m₂‖² + tr(S₁ + S₂ − 2 (√S₁ S₂ √S₁)^½).
    With finite samples it is biased upwards, by an amount of order 1/B: compare at equal B. In
    squared units, computed in float64. [Dowson & Landau 1982; Heusel et al. 2017, eq. 6]
    """
    x, y = vectors(*(x, y) if features is None else (features(x), features(y)))
    home = x.device if x.device.type != "mps" else "cpu"  # mps has no float64
    doubles = (z.to(home, torch.float64) for z in (x, y))
    (m1, s1), (m2, s2) = ((z.mean(0), torch.atleast_2d(z.T.cov())) for z in doubles)
    value, vector = torch.linalg.eigh(s1)
    root = vector * value.clamp(min=0).sqrt() @ vector.T  # the clamp meets rounding only
    cross = torch.linalg.eigvalsh(root @ s2 @ root).clamp(min=0).sqrt().sum()
    return ((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * cross).to(x)
