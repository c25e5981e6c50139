"""An autoencoder of convolutions, whose every change of size has a shortcut without parameters."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minigen.nets import Rebuildable
from minigen.shapes import check_count

from .autoencoder import Autoencoder
from .images import DownShortcut, UpShortcut


class Residual(nn.Module):
    """h + two 3×3 convolutions of it."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return h + self.conv2(F.silu(self.conv1(F.silu(h))))


class ConvAutoencoder(Rebuildable, Autoencoder):
    """Images of `shape` (C, H, W), latents (channels, H/factor, W/factor), by convolutions.

    The first convolution halves both sides, so that none runs at full size; each further halving
    doubles the `width` and has a shortcut; a residual block follows each. The decoder mirrors it.
    Raises ValueError for a factor that is not 2, 4, 8, … or does not divide H and W.
    [The shortcuts of Chen et al. 2025, section 3.2]
    """

    def __init__(self, shape, channels: int = 4, factor: int = 4, width: int = 32):
        for n, name in ((channels, "channels"), (factor, "factor"), (width, "width")):
            check_count(n, name)
        halvings = round(math.log2(factor))
        if factor == 1 or 2**halvings != factor or shape[1] % factor or shape[2] % factor:
            raise ValueError(
                f"factor must be 2, 4, 8, … and divide H and W, got {factor} for {tuple(shape)}"
            )
        widths = [width * 2**k for k in range(halvings)]
        super().__init__(_encoder(shape[0], channels, widths), _decoder(shape[0], channels, widths))
        self.shape = tuple(shape)


def _encoder(colours: int, channels: int, widths: list[int]) -> nn.Sequential:
    """Images -> (B, 2 channels, h, w), mean and log_var."""
    layers = [nn.Conv2d(colours, widths[0], 4, stride=2, padding=1), Residual(widths[0])]
    for w in widths[:-1]:
        down = nn.Conv2d(w, 2 * w, 4, stride=2, padding=1)
        layers += [DownShortcut(down, w, 2 * w), Residual(2 * w)]
    last = nn.Conv2d(widths[-1], 2 * channels, 3, padding=1)
    return nn.Sequential(*layers, nn.SiLU(), last)


def _decoder(colours: int, channels: int, widths: list[int]) -> nn.Sequential:
    """Latents -> images."""
    layers = [nn.Conv2d(channels, widths[-1], 3, padding=1), Residual(widths[-1])]
    for w in reversed(widths[:-1]):
        up = nn.Sequential(nn.Conv2d(2 * w, 4 * w, 3, padding=1), nn.PixelShuffle(2))
        layers += [UpShortcut(up, 2 * w, w), Residual(w)]
    last = nn.Conv2d(widths[0], 4 * colours, 3, padding=1)
    return nn.Sequential(*layers, nn.SiLU(), last, nn.PixelShuffle(2))
