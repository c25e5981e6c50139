"""A small U-Net for images."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import check_count

from .conditioning import Conditioned, Rows, zero


class Block(nn.Module):
    """Two 3×3 convolutions around a shift by the condition, and a skip: C -> C2 channels.

    [The block of Ho et al. 2020, appendix B; the shift's place, Dhariwal & Nichol 2021]
    """

    def __init__(self, channels: int, out: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, out)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.shift = nn.Linear(width, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, h: Float[Tensor, "B C H W"], rows: Rows) -> Float[Tensor, "B C2 H W"]:
        skip = self.skip(h)
        h = self.norm2(self.conv1(F.silu(self.norm1(h))))
        h = h + self.shift(rows)[:, :, None, None]  # after the norm, which would take it out again
        return skip + self.conv2(F.silu(h))


class UNet(Conditioned):
    """A small U-Net for images: xt (B, C, H, W) -> (B, out·C, H, W).

    One block a level on the way down, one at the bottom, one a level on the way up, which sees the
    block of the same level beside what comes from below; `multiples` of `channels` at each level,
    in 8 groups, each level half as high and wide as the one above.
    [Ronneberger et al. 2015; blocks and conditioning of Ho et al. 2020, appendix B]
    """

    def __init__(
        self, shape, channels: int = 32, multiples=(1, 2, 2), classes=None, *, embedding=None, out=1
    ):
        check_count(len(multiples), "the number of multiples")
        widths = [channels, *(channels * m for m in multiples)]
        if any(type(w) is not int or w < 1 or w % 8 for w in widths):
            raise ValueError(
                f"channels, and channels times each multiple, must be 8, 16, 24, …, got {widths}"
            )
        super().__init__(shape, 4 * channels, classes, embedding, out)
        halvings = 2 ** (len(multiples) - 1)
        if len(self.shape) != 3 or self.shape[1] % halvings or self.shape[2] % halvings:
            raise ValueError(
                f"a U-Net with {len(multiples)} levels needs a shape (C, H, W) with H and W "
                f"divisible by {halvings}, got {self.shape}"
            )
        above, widths = widths[:-1], widths[1:]
        self.first = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        rows = 4 * channels
        self.down = nn.ModuleList(Block(a, w, rows) for a, w in zip(above, widths, strict=True))
        self.middle = Block(widths[-1], widths[-1], rows)
        self.up = nn.ModuleList(Block(2 * w, a, rows) for a, w in zip(above, widths, strict=True))
        self.norm = nn.GroupNorm(8, channels)
        self.last = zero(nn.Conv2d(channels, self.out_shape[0], 3, padding=1))

    def body(self, xt: Float[Tensor, "B C H W"], rows: Rows) -> Float[Tensor, "B C2 H W"]:
        rows = F.silu(rows)
        h, skips = self.first(xt), []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h, rows)
            skips.append(h)
        h = self.middle(h, rows)
        for level, block in reversed(list(enumerate(self.up))):
            h = block(torch.cat([h, skips[level]], dim=1), rows)
            h = F.interpolate(h, scale_factor=2, mode="nearest") if level else h
        return self.last(F.silu(self.norm(h)))
