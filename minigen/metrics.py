"""How far apart are two samples? Distances with standard errors, and what digits are judged by.

Whatever the data (points, images), a sample is x of shape (B, *D), read as B vectors. A number
means little alone: set it beside the floor, the same distance between two fresh sets of data.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from minigen.oracle import GaussianMixture
from minigen.shapes import Label, check_alike, check_batch, check_count, check_finite

Scalar = Float[Tensor, ""]
X = Real[Tensor, "B *D"]  # whole numbers too: all is computed in float32 or float64
Other = Real[Tensor, "N ..."]  # a second sample, of any size, in the shape of the first


class Estimate(NamedTuple):
    """A number and its standard error; prints as `0.123 ± 0.004`."""

    value: float
    stderr: float

    def __repr__(self) -> str:  # and so str
        if not 0 < self.stderr < math.inf:
            return f"{self.value:g} ± {self.stderr:g}"
        places = max(0, 1 - math.floor(math.log10(self.stderr)))  # two figures of the error
        return f"{self.value:.{places}f} ± {self.stderr:.{places}f}"


def _real(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one float dtype, float32 at least: integers wrap around, half precision has holes."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return x.to(dtype), y.to(dtype)


def _vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"samples of shapes {tuple(x.shape[1:])} and {tuple(y.shape[1:])}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a distance needs two samples or more, got {len(x)} and {len(y)}")
    return tuple(z[:, None].flatten(1) for z in _real(check_finite(x), check_finite(y)))


def _pairwise(x: Tensor, y: Tensor) -> Tensor:
    # Never through matrix products: in float32 they turn the distance of twins from 0 into 1e-3.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_of_pairs(k: Tensor) -> Tensor:
    """The mean over pairs i ≠ j: no sample is compared with itself, hence no bias."""
    return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))


def energy_distance(x: X, y: Other) -> Scalar:
    """How far apart two laws are, in units of the data: 0 if and only if they agree.

    2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖, estimated without bias (so it may be below 0).
    [Székely & Rizzo 2013]
    """
    x, y = _vectors(x, y)
    within = _mean_of_pairs(_pairwise(x, x)) + _mean_of_pairs(_pairwise(y, y))
    return 2 * _pairwise(x, y).mean() - within


def mmd(x: X, y: Other, *, bandwidth: float | None = None) -> Scalar:
    """The squared maximum mean discrepancy of two laws, a pure number estimated without bias.

    MMD² = E k(x, x′) + E k(y, y′) − 2 E k(x, y) with k = exp(−‖x − y‖² / 2h²).
    h is `bandwidth`, else the median distance between samples, within and across, which may not be
    0: where half of the pairs are equal, give one.
    [Gretton et al. 2012, eq. 3]
    """
    x, y = _vectors(x, y)
    xx, yy, xy = _pairwise(x, x), _pairwise(y, y), _pairwise(x, y)
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
    x, y = _vectors(x, y)
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
    if x.ndim != 1 or y.ndim != 1 or not min(len(x), len(y)):
        raise ValueError(
            f"this distance is between samples of numbers, (B,) and (N,), got {tuple(x.shape)} "
            f"and {tuple(y.shape)}; in more dimensions, sliced_wasserstein"
        )
    x, y = _real(x, y)
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
    x, y = _vectors(*(x, y) if features is None else (features(x), features(y)))
    home = x.device if x.device.type != "mps" else "cpu"  # mps has no float64
    (m1, s1), (m2, s2) = (_moments(z.to(home, torch.float64)) for z in (x, y))
    value, vector = torch.linalg.eigh(s1)
    root = vector * value.clamp(min=0).sqrt() @ vector.T  # the clamp meets rounding only
    cross = torch.linalg.eigvalsh(root @ s2 @ root).clamp(min=0).sqrt().sum()
    return ((m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * cross).to(x)


def _moments(z: Float[Tensor, "B E"]) -> tuple[Tensor, Tensor]:
    return z.mean(dim=0), torch.atleast_2d(z.T.cov())


def duplicates(x: X, train: Other, *, quantile: float = 0.01) -> Scalar:
    """The share of x that lies closer to its nearest training image than fresh data would.

    "Closer" is below the `quantile` of distances from each training image to its nearest other
    one, and always at distance 0, also where twins in the training data make that quantile 0. So
    fresh data score about `quantile`, copies 1, and more than that is memory.
    """
    x, train = _vectors(x, train)
    apart = _pairwise(train, train).fill_diagonal_(math.inf).min(dim=1).values
    nearest = _pairwise(x, train).min(dim=1).values
    return ((nearest < torch.quantile(apart, quantile)) | (nearest == 0)).to(x.dtype).mean()


@torch.no_grad()
def recall(
    x: X, real: Other, features: Callable[[Tensor], Tensor] | None = None, *, k: int = 3
) -> Scalar:
    """The share of `real` that lies within reach of x: in a ball about some sample of x.

    Each ball ends at that sample's k-th neighbour among x. `recall(real, x)` is the precision. Both
    depend on the two sizes and on k: compare at equal ones, with the value for two sets of data.
    [Kynkäänniemi et al. 2019, eq. 1-3]
    """
    x, real = _vectors(*(x, real) if features is None else (features(x), features(real)))
    if not 1 <= k < len(x):
        raise ValueError(f"k counts neighbours among the {len(x)} samples, got {k}")
    radius = _pairwise(x, x).kthvalue(k + 1, dim=1).values  # the nearest is the sample itself
    return (_pairwise(real, x) <= radius).any(dim=1).to(x.dtype).mean()


@torch.no_grad()
def accuracy(classifier: Callable[[X], Float[Tensor, "B K"]], x: X, label: Label) -> Scalar:
    """The share of x in which the classifier's largest logit is the label's."""
    logits = classifier(x)
    check_batch(logits, "the logits")
    found = logits.argmax(dim=1)
    check_alike(found, label, "predictions and labels")
    return _real(found == label, x)[0].mean()


class Coverage(NamedTuple):
    """How many modes were hit, and the χ² of their weights: 0-d tensors."""

    hit: Tensor
    chi2: Tensor


def mode_coverage(x: X, mixture: GaussianMixture, *, least: float = 0.1) -> Coverage:
    """How many of a mixture's K modes x reaches, and Pearson's χ² of the modes' weights.

    χ² = Σ (n_k − n w_k)²/(n w_k), each of the n samples counted with its most probable component.
    A mode is hit where at least a share `least` of the w_k n samples expected lies within 3
    standard deviations, ‖(x − m_k)/s_k‖ ≤ 3. Samples of a mixture of modes well apart give
    χ² = K − 1 on average, with standard deviation √(2 (K − 1)).
    """
    check_batch(x, "x")
    points, k = check_finite(x)[:, None].flatten(1), len(mixture.weights)
    if (D := points.shape[1]) != mixture.means.shape[1]:
        raise ValueError(f"x has {D} coordinates a sample, the mixture {mixture.means.shape[1]}")
    points = points.to(mixture.means)
    owner = mixture.posterior(points).argmax(1)
    near = ((points - mixture.means[owner]) / mixture.stds[owner]).norm(dim=1) <= 3
    expected = len(points) * mixture.weights
    count, inside = (torch.bincount(o, minlength=k) for o in (owner, owner[near]))
    chi2 = ((count - expected).square() / expected).sum()
    return Coverage((inside >= least * expected).sum(), chi2)


def share_with_error(share: Scalar | float, n: int) -> Estimate:
    """A share of n samples (an accuracy, duplicates) with its binomial standard error.

    √(p(1 − p)/(n + 4)) with p = (n share + 2)/(n + 4), which isn't 0 at a share of 0 or 1.
    [Agresti & Coull 1998]
    """
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
    if not 2 <= repeats <= min(len(x), len(y)) / 2:
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
