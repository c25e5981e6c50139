"""Images as sequences of tokens, and where each token stands."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import check_count


def patchify(x: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N E"]:
    """The image cut into squares of patch × patch pixels, row by row, each one token of C·patch².

    Invertible: `unpatchify`. Raises ValueError where patch does not divide H and W.
    [Dosovitskiy et al. 2021, section 3.1]
    """
    check_patch(tuple(x.shape[1:]), patch)
    squares = x.unflatten(2, (-1, patch)).unflatten(4, (-1, patch))  # (B, C, h, p, w, p)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(
    tokens: Float[Tensor, "B N E"], shape: tuple[int, int, int], patch: int
) -> Float[Tensor, "B C H W"]:
    """The image of shape (C, H, W) that `patchify` cut into these tokens.

    Raises ValueError where the tokens are not as many, or not as long, as that shape's.
    """
    h, w = check_patch(shape, patch)
    if tokens.shape[1:] != (h * w, shape[0] * patch**2):
        raise ValueError(
            f"an image {tuple(shape)} in patches of {patch} has {h * w} tokens of "
            f"{shape[0] * patch**2} values, got {tokens.shape[1]} of {tokens.shape[2]}"
        )
    squares = tokens.unflatten(2, (shape[0], patch, patch)).unflatten(1, (h, w))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def check_patch(shape: tuple[int, ...], patch: int) -> tuple[int, int]:
    """The rows and columns of tokens; raises ValueError where patch does not divide the image."""
    check_count(patch, "patch")
    if len(shape) != 3 or shape[1] % patch or shape[2] % patch:
        raise ValueError(
            f"patches of {patch} × {patch} pixels need a shape (C, H, W) with H and W divisible by "
            f"{patch}, got {tuple(shape)}"
        )
    return shape[1] // patch, shape[2] // patch


def positions(h: int, w: int, width: int) -> Float[Tensor, "N E"]:
    """Where each of h × w tokens stands: cosines and sines of its row, then of its column.

    (cos ωy, sin ωy, cos ωx, sin ωx) with width/4 frequencies ω from 1 to 10⁻⁴ radians a token; x
    and y are counted from the middle of the image, so a smaller image has the positions of a crop.
    Raises ValueError unless width is a multiple of 4. [Vaswani et al. 2017, section 3.5; the
    crop, Esser et al. 2024, section 5.3.2]
    """
    for n, name in ((h, "h"), (w, "w"), (width, "width")):
        check_count(n, name)
    if width % 4:
        raise ValueError(f"positions need a width that is a multiple of 4, got {width}")
    omega = torch.linspace(0, -4 * math.log(10), width // 4, dtype=torch.float64).exp()
    y, x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in (h, w))
    phase = torch.cartesian_prod(y, x)[..., None] * omega  # (N, 2, width/4)
    return torch.cat([phase.cos(), phase.sin()], dim=2).flatten(1).float()
