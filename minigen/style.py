"""The operations of a style-based generator: what a latent w does to the features of an image.

Each is linear algebra on channels, so each has an exact statement; tests/test_style.py holds them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import X, noise

Images = Float[Tensor, "B C H W"]
Styles = Float[Tensor, "B C"]


def _check_styles(x: Images, **styles: Tensor) -> None:
    """One number for each sample and channel, or a ValueError that names the argument."""
    if x.ndim != 4:
        raise ValueError(f"features have the shape (B, C, H, W), got {tuple(x.shape)}")
    for name, style in styles.items():
        if style.shape != x.shape[:2]:
            want, got = tuple(x.shape[:2]), tuple(style.shape)
            raise ValueError(f"{name} is one number a sample and channel, {want}, got {got}")


def adain(x: Images, scale: Styles, shift: Styles) -> Images:
    """scale · (x − mean)/std + shift, mean and std of each sample and channel over its pixels.

    The output's channel means are `shift`, its standard deviations |scale|, exactly. Undefined
    (NaN) for a constant channel. Raises ValueError for styles of another shape than (B, C).
    [Huang & Belongie 2017, eq. 8; Karras et al. 2019, eq. 1]
    """
    _check_styles(x, scale=scale, shift=shift)
    std, mean = torch.std_mean(x, dim=(2, 3), correction=0, keepdim=True)
    return scale[..., None, None] * (x - mean) / std + shift[..., None, None]


def modulated_conv(
    x: Images, weight: Float[Tensor, "O C k k"], style: Styles, *, demodulate: bool = True
) -> Float[Tensor, "B O H W"]:
    """A convolution whose weights each sample scales by its style: w′_oc = style_c w_oc.

    `demodulate` divides each filter by its norm, w″_o = w′_o / ‖w′_o‖, so that inputs of unit
    variance that do not depend on one another come out with unit variance. Sides are padded with
    zeros. Raises ValueError for an even side k, other channels, or a style not (B, C).
    [Karras et al. 2020, eqs. 1–3]
    """
    _check_styles(x, style=style)
    outs, channels, high, wide = weight.shape
    if channels != x.shape[1]:
        raise ValueError(f"the weight takes {channels} channels, the features have {x.shape[1]}")
    if high != wide or high % 2 == 0:
        raise ValueError(f"the kernel must be square with an odd side, got {high} × {wide}")
    own = style[:, None, :, None, None] * weight  # (B, O, C, k, k)
    if demodulate:
        own = own / own.flatten(2).norm(dim=2)[..., None, None, None]
    groups = x.reshape(1, -1, *x.shape[2:])  # each sample is a group with its own filters
    out = F.conv2d(groups, own.flatten(0, 1), padding=high // 2, groups=len(x))
    return out.reshape(len(x), outs, *x.shape[2:])


def path_lengths(
    images: X, w: Float[Tensor, "B k"], *, generator: torch.Generator | None = None
) -> Float[Tensor, "B"]:
    """‖Jᵀy‖ of each sample, J = ∂images/∂w and y ~ N(0, I) as the images: one backward pass.

    E‖Jᵀy‖² = ‖J‖_F². Path-length regularisation asks for a constant: then J is a multiple of an
    isometry. The result can be differentiated. Raises ValueError where the images do not depend on
    w through operations torch can differentiate. [Karras et al. 2020, section 3.2]
    """
    grad = None
    if images.requires_grad and w.requires_grad:
        y = noise(images, generator=generator)
        (grad,) = torch.autograd.grad((images * y).sum(), w, create_graph=True, allow_unused=True)
    if grad is None:
        raise ValueError("no gradient leads from the images back to w: w.requires_grad_() first")
    return grad.flatten(1).norm(dim=1)


def fractional_shift(x: Images, down: float, right: float) -> Images:
    """x moved by fractions of a pixel, as a periodic band-limited signal: e^{−iωδ} of its spectrum.

    Commutes with every (periodic) convolution, not with a nonlinearity, which makes frequencies
    that the grid cannot hold. The sides must be odd: an even one has a highest frequency that no
    real signal can shift. [Karras et al. 2021, section 2]
    """
    high, wide = x.shape[-2:]
    if high % 2 == 0 or wide % 2 == 0:
        raise ValueError(f"fractional shifts need odd sides, got {high} × {wide}")
    rows, columns = (torch.fft.fftfreq(n, device=x.device).to(x) for n in (high, wide))
    turns = rows[:, None] * down + columns * right
    phase = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    return torch.fft.ifft2(torch.fft.fft2(x) * phase).real


def truncate(
    w: Float[Tensor, "B k"], mean: Float[Tensor, " k"], psi: float
) -> Float[Tensor, "B k"]:
    """mean + ψ (w − mean): the mean stays, the covariance is multiplied by ψ².

    Less variety, more typical samples. Raises ValueError for ψ outside [0, 1].
    [Karras et al. 2019, appendix B]
    """
    if not 0 <= psi <= 1:
        raise ValueError(f"psi = 1 changes nothing and 0 gives the mean alone, got {psi}")
    return torch.lerp(mean, w, psi)
