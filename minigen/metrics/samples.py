"""Two samples as vectors in one float dtype, and the distances between their members."""

import torch
from jaxtyping import Float, Real
from torch import Tensor

from minigen.shapes import check_finite

Scalar = Float[Tensor, ""]
X = Real[Tensor, "B *D"]  # whole numbers too: all is computed in float32 or float64
Other = Real[Tensor, "N ..."]  # a second sample, of any size, in the shape of the first


def in_float(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one float dtype, float32 at least: integers wrap around, half precision has holes."""
    kinds = check_finite(x).dtype, check_finite(y).dtype
    dtype = torch.promote_types(torch.promote_types(*kinds), torch.float32)
    return x.to(dtype), y.to(dtype)


def vectors(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, D) and (N, D) in one float dtype. Raises ValueError where they do not compare."""
    x, y = in_float(x, y)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"samples of shapes {tuple(x.shape[1:])} and {tuple(y.shape[1:])}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"a distance needs two samples or more, got {len(x)} and {len(y)}")
    return x[:, None].flatten(1), y[:, None].flatten(1)


def pairwise(x: Float[Tensor, "B D"], y: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
    """‖xᵢ − yⱼ‖ of all pairs, exactly 0 between twins."""
    # Never through matrix products: in float32 they turn the distance of twins from 0 into 1e-3.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
