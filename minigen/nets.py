"""Networks for points and images: one calling convention, net(xt, t, label=None), zero at birth."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .embeddings import Fourier, Frequencies, Rows, Sinusoidal
from .shapes import X, check_time

__all__ = ["MLP", "Fourier", "Frequencies", "ResMLP", "Sinusoidal", "UNet"]


class Conditioned(nn.Module):
    """What every net shares: the checks of its input, and time plus label as rows of `width`.

    `shape` is the shape of one sample: an int D, or a tuple such as (1, 8, 8). `classes=K` adds K
    labels and the null label K, which stands in where label is None. `embedding` is any function
    (R,) -> (R, E) of t, by default Sinusoidal(64). `out=2` doubles the first data axis of the
    result, for a net that also predicts a variance.
    """

    def __init__(self, shape, width: int, classes: int | None, embedding: Callable | None, out=1):
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if min(self.shape, default=0) < 1 or out < 1 or (classes or 1) < 1:
            raise ValueError(
                f"shape, out and classes must be positive, got {shape}, {out} and {classes}"
            )
        self.out_shape = (out * self.shape[0], *self.shape[1:])
        self.classes = classes
        self.embedding = Sinusoidal(64) if embedding is None else embedding
        self.time = nn.Linear(self.embedding(torch.zeros(1)).shape[-1], width)
        self.label = None if classes is None else nn.Embedding(classes + 1, width)

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | int | None = None) -> Tensor:
        """The prediction at xt (B, *shape), t () or (B,), label None, an int or int64 (B,).

        Raises ValueError or TypeError where shape, dtype, device or label do not fit the net;
        values of t and label are looked at on the CPU only, since the look would stall a GPU.
        """
        self._check_data(xt)
        check_time(t)
        if t.ndim and len(t) != len(xt):
            raise ValueError(f"t must have shape () or ({len(xt)},), got {tuple(t.shape)}")
        rows = self.time(self.embedding(t.reshape(-1)).to(self.time.weight.dtype))
        if self.label is not None:
            rows = rows + self._embed_label(label, len(xt))
        elif label is not None:
            raise ValueError("this net was made without classes and takes no label: classes=K")
        return self.body(xt, rows)

    def _check_data(self, xt: Tensor) -> None:
        weight = self.time.weight
        if xt.shape[1:] != self.shape or xt.ndim == 0:
            raise ValueError(
                f"xt must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(xt.shape)}"
            )
        if xt.device != weight.device:
            raise ValueError(f"xt is on {xt.device} but the net on {weight.device}: net.to(device)")
        if xt.dtype != weight.dtype and not torch.is_autocast_enabled(xt.device.type):
            raise TypeError(f"xt is {xt.dtype} but the net is {weight.dtype}: use net.to(xt.dtype)")

    def _embed_label(self, label: Tensor | int | None, n: int) -> Rows:
        """The null label's row, one label's row, or a row for each sample."""
        if label is None:
            return self.label.weight[self.classes :]
        if isinstance(label, int):
            self._check_range(label, label)
            return self.label.weight[label][None]
        if not isinstance(label, Tensor) or label.dtype not in (torch.int64, torch.int32):
            got = label.dtype if isinstance(label, Tensor) else label
            raise TypeError(f"label must be an int or an int64 tensor of shape ({n},), got {got}")
        if label.shape not in ((), (n,)):
            raise ValueError(f"label must have shape ({n},) as xt has, got {tuple(label.shape)}")
        if label.device.type == "cpu" and label.numel():
            self._check_range(int(label.min()), int(label.max()))
        return self.label(label.reshape(-1))

    def _check_range(self, low: int, high: int) -> None:
        if low < 0 or high > self.classes:
            wrong = low if low < 0 else high
            raise ValueError(f"label {wrong} is out of range for a net with {self.classes} classes")


def _zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters zero, so that a net ends in zeros at birth."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class MLP(Conditioned):
    """Linear layers and SiLU; time and label enter the first layer: xt (B, *D) -> (B, out·D…).

    h₁ = silu(W x + T e(t) + L[label]) is one layer on the concatenation (x, e(t), one-hot label).
    """

    def __init__(
        self, shape, hidden: int = 128, depth: int = 3, classes=None, *, embedding=None, out=1
    ):
        super().__init__(shape, hidden, classes, embedding, out)
        self.first = nn.Linear(math.prod(self.shape), hidden)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth - 1))
        self.last = _zero(nn.Linear(hidden, math.prod(self.out_shape)))

    def body(self, xt: X, rows: Rows) -> Float[Tensor, "B ..."]:
        h = F.silu(self.first(xt.flatten(1)) + rows)
        for layer in self.hidden:
            h = F.silu(layer(h))
        return self.last(h).unflatten(1, self.out_shape)


class ResMLP(Conditioned):
    """Residual blocks h ← h + W₂ silu(W₁ norm(h) + shift(t, label)): xt (B, *D) -> (B, out·D…).

    For points and 8×8 images, flattened. t and label have only 64 features: on the digits that is
    a third faster than `hidden` of them, and better for the same time.
    Source: the pre-norm block of He et al. 2016 (v2), with the layer norm of Ba et al. 2016.
    """

    def __init__(
        self, shape, hidden: int = 256, depth: int = 4, classes=None, *, embedding=None, out=1
    ):
        super().__init__(shape, 64, classes, embedding, out)
        self.first = nn.Linear(math.prod(self.shape), hidden)
        self.shifts = nn.Linear(64, depth * hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(depth))
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.last = _zero(nn.Linear(hidden, math.prod(self.out_shape)))

    def body(self, xt: X, rows: Rows) -> Float[Tensor, "B ..."]:
        shifts = self.shifts(F.silu(rows)).chunk(len(self.norms), dim=-1)
        h = self.first(xt.flatten(1))
        for i, shift in enumerate(shifts):
            norm, inner, outer = self.norms[i], self.inner[i], self.outer[i]
            h = h + outer(F.silu(inner(norm(h)) + shift))
        return self.last(self.norm(h)).unflatten(1, self.out_shape)


class Block(nn.Module):
    """Two 3×3 convolutions around a shift by the condition, and a skip: C -> C2 channels.

    Source: the block of Ho et al. 2020, appendix B; the shift's place, Dhariwal & Nichol 2021.
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
    each level half as wide as the one above. Raises ValueError where H or W cannot be halved so
    often or 8 groups do not divide the channels.
    Source: Ronneberger et al. 2015; blocks and conditioning of Ho et al. 2020, appendix B.
    """

    def __init__(
        self, shape, channels: int = 32, multiples=(1, 2, 2), classes=None, *, embedding=None, out=1
    ):
        super().__init__(shape, 4 * channels, classes, embedding, out)
        halvings = 2 ** (len(multiples) - 1)
        if len(self.shape) != 3 or self.shape[1] % halvings or self.shape[2] % halvings:
            raise ValueError(
                f"a U-Net with {len(multiples)} levels needs a shape (C, H, W) with H and W "
                f"divisible by {halvings}, got {self.shape}"
            )
        widths = [channels * m for m in multiples]
        if any(w % 8 for w in widths):
            raise ValueError(f"channels times each multiple must be divisible by 8, got {widths}")
        self.first = nn.Conv2d(self.shape[0], channels, 3, padding=1)
        above = [channels, *widths[:-1]]
        rows = 4 * channels
        self.down = nn.ModuleList(Block(a, w, rows) for a, w in zip(above, widths, strict=True))
        self.middle = Block(widths[-1], widths[-1], rows)
        self.up = nn.ModuleList(Block(2 * w, a, rows) for a, w in zip(above, widths, strict=True))
        self.norm = nn.GroupNorm(8, channels)
        self.last = _zero(nn.Conv2d(channels, self.out_shape[0], 3, padding=1))

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
