"""Quantised in turns: what one codebook leaves over, the next one takes."""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from minigen.shapes import check_count

from .codebook import Latent, Quantized, Quantizer, apart, straight_through

Ids = Int[Tensor, "B ..."]


class _Turns(nn.Module):
    """What both share: f = f̂ + rest after every turn, whatever a turn adds to f̂.

    A subclass has `turns`, their number, and `quantizer(k)`, the codebook of turn k.
    """

    def down(self, rest: Latent, k: int) -> Latent:
        """The vectors that turn k quantises."""
        return rest

    def up(self, chosen: Latent, k: int, shape: torch.Size) -> Latent:
        """What turn k adds to f̂."""
        return chosen

    def ids_shape(self, first: Ids, k: int) -> tuple[int, ...]:
        """The shape of turn k's ids where `first` are those of turn 0."""
        return tuple(first.shape)

    def _check(self, ids) -> None:
        many = len(ids) if isinstance(ids, list | tuple) else f"a {type(ids).__name__}"
        if many not in range(1, self.turns + 1):
            raise ValueError(f"a list of 1 to {self.turns} turns of ids, got {many}")
        for k, own in enumerate(ids):
            want = self.ids_shape(ids[0], k)
            if tuple(own.shape) != want:
                raise ValueError(f"turn {k} has ids of shape {want}, got {tuple(own.shape)}")

    def _walk(self, z: Latent) -> Iterator[tuple[Latent, Ids, Latent]]:
        """What each turn quantises, the ids it chooses, and f̂ after it."""
        so_far = torch.zeros_like(z)
        for k in range(self.turns):
            small = self.down(z - so_far.detach(), k)
            ids = self.quantizer(k).nearest(small)
            so_far = so_far + self.up(self.quantizer(k).lookup(ids), k, z.shape)
            yield small, ids, so_far

    def encode(self, z: Latent) -> list[Ids]:
        """The ids of every turn."""
        with torch.no_grad():
            return [ids for _, ids, _ in self._walk(z)]

    def forward(self, z: Latent) -> Quantized:
        """z quantised; the terms are means over the turns of ‖z − f̂‖²/D after each."""
        _, ids, so_far = zip(*self._walk(z), strict=True)
        commitment = sum(apart(z, f.detach()) for f in so_far) / self.turns
        codebook = sum(apart(z.detach(), f) for f in so_far) / self.turns
        return Quantized(straight_through(z, so_far[-1]), [*ids], commitment, codebook)


class Residual(_Turns):
    """depth codebooks in turn, ids a list of (B, *N).

    f̂ = Σ_k e_k(rest_k), rest_{k+1} = rest_k − e_k(rest_k).

    The first entry of each codebook stays 0, so a turn never makes the error larger.
    [Lee et al. 2022, eq. 5]
    """

    def __init__(self, depth: int, codes: int, width: int):
        super().__init__()
        check_count(depth, "depth")
        self.turns = depth
        self.quantizers = nn.ModuleList(WithZero(codes, width) for _ in range(depth))

    def quantizer(self, k: int) -> Quantizer:
        return self.quantizers[k]

    def decode(self, ids: list[Ids]) -> Latent:
        """f̂ after these turns; the list may be cut short."""
        self._check(ids)
        return sum(self.quantizers[k].lookup(i) for k, i in enumerate(ids))

    @torch.no_grad()
    def start(self, z: Latent, *, generator: torch.Generator | None = None) -> None:
        """`Quantizer.start` of each codebook, on what those before leave over."""
        for quantizer in self.quantizers:
            quantizer.start(z, generator=generator)
            z = z - quantizer.lookup(quantizer.nearest(z))

    @torch.no_grad()
    def revive(self, z: Latent, *, generator: torch.Generator | None = None) -> int:
        """`Quantizer.revive` of each codebook, on what those before leave over; how many in all."""
        dead = 0
        for quantizer in self.quantizers:
            dead += quantizer.revive(z, generator=generator)
            z = z - quantizer.lookup(quantizer.nearest(z))
        return dead


class WithZero(Quantizer):
    """A codebook whose first entry is 0 and stays so."""

    fixed = 1

    def __init__(self, codes: int, width: int):
        super().__init__(codes, width)
        with torch.no_grad():
            self.entries[0] = 0

    def lookup(self, ids: Ids) -> Latent:
        """The entries of these ids; 0 for id 0, which therefore learns nothing."""
        return super().lookup(ids) * (ids > 0).unsqueeze(1)


class MultiScale(_Turns):
    """One codebook at growing scales: ids a list of (B, h_k, w_k), the last as large as z.

    rest is averaged down to scale k, quantised, enlarged, smoothed by φ_k, and taken off:
    f̂ ← f̂ + φ_k(up(e(down(f − f̂)))), so f = f̂ + rest whatever φ is. `scales` are sizes h = w, or
    pairs (h, w), that grow. [Tian et al. 2024, algorithms 1 and 2]
    """

    def __init__(self, scales, codes: int, width: int):
        super().__init__()
        self.scales = [(s, s) if isinstance(s, int) else tuple(s) for s in scales]
        grows = all(a <= c and b <= d for (a, b), (c, d) in pairwise(self.scales))
        if not self.scales or not grows or min(self.scales[0]) < 1:
            raise ValueError(f"scales must grow from 1 or more, got {list(scales)}")
        self.turns, self.codebook = len(self.scales), Quantizer(codes, width)
        self.smooth = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1) for _ in range(self.turns)
        )

    def quantizer(self, k: int) -> Quantizer:
        return self.codebook

    def ids_shape(self, first: Ids, k: int) -> tuple[int, ...]:
        return (len(first), *self.scales[k])

    def down(self, rest: Latent, k: int) -> Latent:
        if rest.shape[2:] != self.scales[-1]:
            raise ValueError(f"z must end in {self.scales[-1]}, got {tuple(rest.shape)}")
        return F.interpolate(rest, self.scales[k], mode="area")

    def up(self, chosen: Latent, k: int, shape: torch.Size) -> Latent:
        large = chosen
        if k < self.turns - 1:
            large = F.interpolate(chosen, tuple(shape[2:]), mode="bicubic")
        return 0.5 * large + 0.5 * self.smooth[k](large)

    def decode(self, ids: list[Ids]) -> Latent:
        """f̂ after these scales, as large as z; the list may be cut short."""
        self._check(ids)
        shape = torch.Size((len(ids[0]), self.codebook.width, *self.scales[-1]))
        return sum(self.up(self.codebook.lookup(i), k, shape) for k, i in enumerate(ids))

    @torch.no_grad()
    def start(self, z: Latent, *, generator: torch.Generator | None = None) -> None:
        """`Quantizer.start` of the codebook, on z itself at every scale."""
        each = [self.down(z, k).flatten(2) for k in range(self.turns)]
        self.codebook.start(torch.cat(each, 2), generator=generator)

    @torch.no_grad()
    def revive(self, z: Latent, *, generator: torch.Generator | None = None) -> int:
        """`Quantizer.revive` of the codebook, on what every scale is asked to quantise."""
        each = [small.flatten(2) for small, _, _ in self._walk(z)]
        return self.codebook.revive(torch.cat(each, 2), generator=generator)
