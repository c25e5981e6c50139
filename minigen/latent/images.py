"""Space exchanged for channels, shortcuts without parameters, and an image enlarged."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import Net, Time, check_answer, check_count

Image = Float[Tensor, "B C H W"]
Changed = Float[Tensor, "B C2 H2 W2"]


def space_to_channel(x: Image, factor: int) -> Changed:
    """Each square of factor² pixels becomes one pixel of factor² as many channels; invertible.

    Raises ValueError where factor does not divide H and W. [Shi et al. 2016, read backwards]
    """
    check_count(factor, "factor")
    if x.shape[2] % factor or x.shape[3] % factor:
        raise ValueError(f"a factor of {factor} must divide H and W, got {tuple(x.shape)}")
    return F.pixel_unshuffle(x, factor)


def channel_to_space(x: Image, factor: int) -> Changed:
    """The inverse of `space_to_channel`: (B, C factor², H, W) -> (B, C, factor H, factor W).

    Raises ValueError where factor² does not divide the channels.
    """
    check_count(factor, "factor")
    if x.shape[1] % factor**2:
        raise ValueError(f"factor² = {factor**2} must divide the channels, got {tuple(x.shape)}")
    return F.pixel_shuffle(x, factor)


class DownShortcut(nn.Module):
    """inner(x) + a shortcut without parameters: space to channels, then means of groups of them.

    (B, channels, H, W) -> (B, out, H/factor, W/factor). Undoes the shortcut of `UpShortcut`.
    Raises ValueError where out does not divide channels · factor². [Chen et al. 2025, section 3.2]
    """

    def __init__(self, inner: nn.Module, channels: int, out: int, factor: int = 2):
        super().__init__()
        for n, name in ((channels, "channels"), (out, "out"), (factor, "factor")):
            check_count(n, name)
        if channels * factor**2 % out:
            raise ValueError(f"{channels * factor**2} channels cannot be averaged to {out}")
        self.inner, self.out, self.factor = inner, out, factor

    def forward(self, x: Image) -> Changed:
        short = space_to_channel(x, self.factor).unflatten(1, (self.out, -1)).mean(2)
        return check_answer(self.inner(x), short) + short


class UpShortcut(nn.Module):
    """inner(x) + a shortcut without parameters: each channel repeated, then channels to space.

    (B, channels, H, W) -> (B, out, factor H, factor W). Raises ValueError where channels does not
    divide out · factor². [Chen et al. 2025, section 3.2]
    """

    def __init__(self, inner: nn.Module, channels: int, out: int, factor: int = 2):
        super().__init__()
        for n, name in ((channels, "channels"), (out, "out"), (factor, "factor")):
            check_count(n, name)
        if out * factor**2 % channels:
            raise ValueError(f"{channels} channels cannot be repeated to {out * factor**2}")
        self.inner, self.times, self.factor = inner, out * factor**2 // channels, factor

    def forward(self, x: Image) -> Changed:
        short = channel_to_space(x.repeat_interleave(self.times, 1), self.factor)
        return check_answer(self.inner(x), short) + short


# A cascade --------------------------------------------------------------------------------------


def shrink(x: Image, factor: int) -> Changed:
    """The mean of each square of factor² pixels: (B, C, H/factor, W/factor).

    Raises ValueError where factor does not divide H and W.
    """
    return space_to_channel(x, factor).unflatten(1, (x.shape[1], -1)).mean(2)


class UpsamplingNet(nn.Module):
    """A net that sees a small image beside xt: net(xt, t, low), low (B, C, H/factor, W/factor).

    `net` is made for shape (2C, H, W): xt and the enlarged `low` along the channels; of its answer
    the first C channels are xt's. [Ho et al. 2022 (cascaded diffusion), section 4]
    """

    def __init__(self, net: Net, factor: int):
        super().__init__()
        check_count(factor, "factor")
        self.net, self.factor = net, factor

    def forward(self, xt: Image, t: Time, low: Changed | None = None) -> Image:
        """The prediction at xt, given low; raises where low is missing or of another size."""
        small = (*xt.shape[:2], xt.shape[2] // self.factor, xt.shape[3] // self.factor)
        if low is None or low.shape != small:
            got = None if low is None else tuple(low.shape)
            raise ValueError(f"this net enlarges an image of shape {small}, got low {got}")
        seen = F.interpolate(low, scale_factor=self.factor, mode="nearest")
        return self.net(torch.cat([xt, seen], dim=1), t)[:, : xt.shape[1]]
