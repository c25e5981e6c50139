"""The operations of StyleGAN: a style sets each channel's scale, and latents move images smoothly.

x is features (B, C, H, W), w latents (B, k), mapped from z. Nothing here draws but `path_length`.
StyleGAN2 is Karras et al. 2020, StyleGAN3 Karras et al. 2021.
"""

import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import (
    X,
    check_batch,
    check_count,
    check_length,
    check_tensor,
    noise,
    readable,
)

Images = Float[Tensor, "B C H W"]
Style = Float[Tensor, "B C"]
Filters = Float[Tensor, "B O C h w"]


def _check(want: str, **tensors: Tensor) -> None:
    """Raises TypeError or ValueError unless these are float tensors of the axes that `want` names.

    Axes of one letter are of one size.
    """
    size = {}
    for name, x in tensors.items():
        check_batch(x, name)
    for name, x in tensors.items():
        axes = re.search(rf"{name} (?:is )?\((.*?)\)", want)[1].split(", ")
        same = all(size.setdefault(a, n) == n for a, n in zip(axes, x.shape, strict=False))
        if x.ndim != len(axes) or not same:
            got = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
            raise ValueError(f"{want}, got {got}")
    kinds = {x.dtype for x in tensors.values()}
    if len(kinds) > 1 and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"{' and '.join(tensors)} share one dtype, got {', '.join(map(str, kinds))}"
        )


def _check_positive(x: Tensor, complaint: str) -> Tensor:
    """x itself, refused with this complaint where a value, on the CPU, is not positive."""
    if readable(x) and not bool((x > 0).all()):
        raise ValueError(complaint)
    return x


def adain(x: Images, scale: Style, shift: Style) -> Images:
    """Give each channel of each image the mean `shift` and the standard deviation |scale|.

    scale (x − μ)/σ + shift, with μ and σ (dividing by HW) of the channel.
    A channel that is constant raises ValueError, on the CPU only.
    [Huang & Belongie 2017, eq. 8; Karras et al. 2019, eq. 1]
    """
    _check("x is (B, C, H, W), scale (B, C), shift (B, C)", x=x, scale=scale, shift=shift)
    var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    std = _check_positive(var, "a channel that is constant, σ = 0, cannot be normalised").sqrt()
    return scale[..., None, None] * ((x - mean) / std) + shift[..., None, None]


def modulate(weight: Float[Tensor, "O C h w"], scale: Style) -> Filters:
    """Scale the weights, s_c W_oc, as if each sample's channels were. [StyleGAN2, eq. 1]"""
    _check("weight is (O, C, h, w), scale (B, C)", weight=weight, scale=scale)
    return weight * scale[:, None, :, None, None]


def demodulate(weight: Filters) -> Filters:
    """Divide each filter by its norm, W/‖W_o‖, which keeps the variance 1 of white input.

    Of other input it does not, unlike `adain`. A filter of zeros raises ValueError, on the CPU
    only. [StyleGAN2, eq. 3, there with ε]
    """
    _check("weight is (B, O, C, h, w), as modulate gives it", weight=weight)
    square = weight.square().sum((2, 3, 4), keepdim=True)
    return weight / _check_positive(square, "a filter of zeros cannot be demodulated").sqrt()


def conv(x: Images, weight: Filters, *, padding: int = 0) -> Float[Tensor, "B O H2 W2"]:
    """Each sample convolved with its own filters, as in conv(x, demodulate(modulate(W, s))).

    [StyleGAN2, appendix B]
    """
    _check("x is (B, C, H, W), weight (B, O, C, h, w)", x=x, weight=weight)
    out = F.conv2d(x.flatten(0, 1)[None], weight.flatten(0, 1), padding=padding, groups=len(x))
    return out.unflatten(1, weight.shape[:2])[0]


def path_length(
    generate: Callable[[X], X], w: X, *, generator: torch.Generator | None = None
) -> Float[Tensor, "B"]:
    """How far images move with w, seen along one random direction y ~ N(0, I) of each image.

    ‖Jᵀy‖ with J = ∂generate/∂w of each sample, by one vjp, never forming J. E‖Jᵀy‖² = ‖J‖_F².
    The regulariser is (‖Jᵀy‖ − a)², a the running mean; it is 0 on average only where J is close to
    a scaled isometry. Differentiable in the weights. Raises ValueError where no gradient leads from
    the images to w. [StyleGAN2, eq. 4, there with y over √(HW)]
    """
    check_batch(w, "w")
    learn = torch.is_grad_enabled()
    with torch.enable_grad():
        w = w if w.requires_grad else w.detach().requires_grad_()
        image, grad = generate(w), None
        check_length(image, w, "images")
        if image.requires_grad:
            dot = (image * noise(image.detach(), generator=generator)).sum()
            (grad,) = torch.autograd.grad(dot, w, create_graph=learn, allow_unused=True)
    if grad is None:
        raise ValueError("no gradient leads from generate(w) back to w: was it detached?")
    return torch.linalg.vector_norm(grad.reshape(len(w), -1), dim=1)  # at 0 with the gradient 0


def truncate(w: X, mean: Float[Tensor, "*D"], psi: float) -> X:
    """w̄ + ψ (w − w̄): same mean, ψ² times the covariance. [Karras et al. 2019, appendix B]"""
    check_batch(w, "w")
    check_tensor(mean, "mean")
    if mean.shape != w.shape[1:]:
        raise ValueError(f"the mean latent has shape {tuple(w.shape[1:])}, got {tuple(mean.shape)}")
    return mean + psi * (w - mean)


# Without aliasing -------------------------------------------------------------------------------


def _sinc(n: int, m: int, by: float, x: Tensor) -> Float[Tensor, "m n"]:
    """The matrix that takes n samples of a period to m of it, moved by `by` of the n.

    Σ cos 2πk(i/m − (j + by)/n)/n over the integers |k| < min(n, m)/2.
    So what an even size has at its Nyquist frequency, which has no phase and cannot be moved, is
    dropped.
    """
    k = 2 * math.pi * torch.arange(1, (min(n, m) + 1) // 2, dtype=torch.float64)
    to, of = ((torch.arange(s).double() + d)[:, None] / s * k for s, d in ((m, 0.0), (n, by)))
    return ((1 + 2 * (to.cos() @ of.cos().T + to.sin() @ of.sin().T)) / n).to(x)


def shift(x: Images, down: float, right: float) -> Images:
    """The periodic band-limited image through the pixels, moved by fractions of a pixel.

    Commutes with every circular convolution. [StyleGAN3, section 2]
    """
    _check("x is (B, C, H, W)", x=x)
    h, w = x.shape[2:]
    return _sinc(h, h, down, x) @ x @ _sinc(w, w, right, x).T


def resample(x: Images, height: int, width: int) -> Float[Tensor, "B C H2 W2"]:
    """The same periodic image at other pixels, without the frequencies that either size lacks."""
    _check("x is (B, C, H, W)", x=x)
    check_count(height, "height")
    check_count(width, "width")
    return _sinc(x.shape[2], height, 0.0, x) @ x @ _sinc(x.shape[3], width, 0.0, x).T


def alias_free(f: Callable[[Tensor], Tensor], x: Images, *, factor: int = 2) -> Images:
    """A pointwise f on a grid `factor` times as fine: it nearly commutes with `shift`, f does not.

    [StyleGAN3, section 2.1]
    """
    _check("x is (B, C, H, W)", x=x)
    check_count(factor, "factor")
    h, w = x.shape[2:]
    return resample(f(resample(x, factor * h, factor * w)), h, w)
