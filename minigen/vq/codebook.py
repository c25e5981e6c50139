"""A codebook: every vector becomes its nearest entry, and keeps a gradient."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minigen.shapes import check_batch, check_count, check_generator, outside, readable, wide

Latent = Float[Tensor, "B w ..."]


class Quantized(NamedTuple):
    """z with the encoder's gradient, the ids chosen, and the two terms of the loss, each (B,)."""

    z: Tensor
    ids: Tensor | list[Tensor]
    commitment: Tensor
    codebook: Tensor


def straight_through(z: Latent, chosen: Latent) -> Latent:
    """The value of `chosen` with the gradient of z. [van den Oord et al. 2017, section 3.2]"""
    return z + (chosen - z).detach()


def apart(x: Latent, y: Latent) -> Float[Tensor, " B"]:
    """‖x − y‖² / D for each sample, the mean over all its values."""
    return (x - y).square().reshape(len(x), -1).mean(1)


def vectors(z: Latent) -> Float[Tensor, "n w"]:
    """The vectors of z one below the other: the channel axis last."""
    return z.movedim(1, -1).reshape(-1, z.shape[1])


class Quantizer(nn.Module):
    """A codebook of `codes` vectors of `width`: z (B, width, *N) -> Quantized, ids (B, *N).

    id = argmin_k ‖z − e_k‖. commitment = ‖z − sg e‖²/D moves z, codebook = ‖sg z − e‖²/D moves e;
    both together have the gradient of ‖z − e‖²/D. With `decay` the entries are instead running
    means of the vectors that chose them, e ← Σ/n, updated by each call in training mode, and
    codebook is 0. [van den Oord et al. 2017, eq. 3 and appendix A.1]
    """

    fixed = 0  # how many entries, the first ones, stay what they are

    def __init__(self, codes: int, width: int, *, decay: float | None = None):
        super().__init__()
        check_count(codes, "codes")
        check_count(width, "width")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay lies in [0, 1), got {decay}")
        self.codes, self.width, self.decay = codes, width, decay
        entries = torch.randn(codes, width)
        if decay is None:
            self.entries = nn.Parameter(entries)
        else:
            self.register_buffer("entries", entries)
            self.register_buffer("counts", torch.ones(codes))
            self.register_buffer("sums", entries.clone())

    def nearest(self, z: Latent) -> Int[Tensor, "B ..."]:
        """The id of the nearest entry for each vector."""
        self._check(z)
        flat = vectors(z).to(self.entries.dtype)  # under autocast z may be shorter
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            # ‖z − e‖² but for ‖z‖², which all entries share
            ids = (self.entries.square().sum(1) - 2 * flat @ self.entries.T).argmin(1)
        return ids.reshape(z.shape[0], *z.shape[2:])

    def lookup(self, ids: Int[Tensor, "B ..."]) -> Latent:
        """The entries of these ids, (B, width, *N); ValueError for an id out of range."""
        check_ids(ids, self.codes)
        return F.embedding(ids, self.entries).movedim(-1, 1)

    def forward(self, z: Latent) -> Quantized:
        """z quantised; in training mode with `decay`, the codebook follows."""
        ids = self.nearest(z)
        chosen = self.lookup(ids)
        if self.decay is not None and self.training:
            self._follow(vectors(z.detach()).to(self.entries.dtype), ids.flatten())
        moved = apart(z.detach(), chosen) if self.decay is None else z.new_zeros(len(z))
        return Quantized(straight_through(z, chosen), ids, apart(z, chosen.detach()), moved)

    @torch.no_grad()
    def _follow(self, flat: Float[Tensor, "n w"], ids: Int[Tensor, " n"]) -> None:
        chosen = F.one_hot(ids, self.codes).to(flat)
        self.counts.lerp_(chosen.sum(0), 1 - self.decay)
        self.sums.lerp_(chosen.T @ flat, 1 - self.decay)
        # one that nobody has chosen for long keeps its place
        alive = self.counts > 1e-3
        self.entries[alive] = self.sums[alive] / self.counts[alive, None]

    @torch.no_grad()
    def start(self, z: Latent, *, generator: torch.Generator | None = None) -> None:
        """Sets the entries to vectors of z that lie far apart: k-means++.

        Each next one is drawn with a chance proportional to its squared distance from the others.
        Raises ValueError for fewer vectors than codes, and for NaN. [Arthur & Vassilvitskii 2007]
        """
        flat = self._pool(z, generator)
        far = torch.full_like(flat[:, 0], torch.inf)  # squared, from the nearest entry so far
        for k in range(self.codes):
            if k >= self.fixed:
                # the first one, and those after the last vector of its own: any vector
                even = not bool(far.sum().isfinite() & (far.sum() > 0))
                i = torch.multinomial(torch.ones_like(far) if even else far, 1, generator=generator)
                self._put(torch.tensor([k], device=flat.device), flat[i])
            far = torch.minimum(far, (flat - self.entries[k]).square().sum(1))

    @torch.no_grad()
    def revive(self, z: Latent, *, generator: torch.Generator | None = None) -> int:
        """Replaces each entry that no vector of z picks by a vector of z; how many there were.

        Raises ValueError for fewer vectors than codes, and for NaN. [Dhariwal et al. 2020]
        """
        flat = self._pool(z, generator)
        used = torch.bincount(self.nearest(z).flatten(), minlength=self.codes) > 0
        dead = (~used).nonzero().flatten()
        dead = dead[dead >= self.fixed]
        pick = torch.randperm(len(flat), generator=generator, device=flat.device)[: len(dead)]
        self._put(dead, flat[pick])
        return len(dead)

    def _put(self, k: Int[Tensor, " n"], new: Float[Tensor, "n w"]) -> None:
        self.entries[k] = new
        if self.decay is not None:
            self.sums[k], self.counts[k] = new, 1.0

    def _pool(self, z: Latent, generator) -> Float[Tensor, "n w"]:
        self._check(z)
        check_generator(z, generator)
        flat = vectors(z.detach()).to(self.entries.dtype)
        if len(flat) < self.codes:
            raise ValueError(f"{self.codes} codes need as many vectors, got {len(flat)}")
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("z holds NaN or infinite values: the encoder has diverged")
        return flat

    def _check(self, z: Latent) -> None:
        check_batch(z, "z")
        if z.ndim < 2 or z.shape[1] != self.width:
            raise ValueError(f"z must be (B, {self.width}, …), got {tuple(z.shape)}")
        if z.device != self.entries.device:
            raise ValueError(f"z is on {z.device} but the codebook on {self.entries.device}")
        if z.dtype != self.entries.dtype and not torch.is_autocast_enabled(z.device.type):
            raise TypeError(f"z is {z.dtype} but the codebook is {self.entries.dtype}")


def check_ids(ids: Tensor, codes: int) -> None:
    """Raises TypeError unless ids are whole numbers, ValueError for one out of range."""
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        got = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"ids must be an int64 tensor, got {got}")
    if readable(ids) and ids.numel():
        wrong = outside(ids, codes)
        if wrong is not None:
            raise ValueError(f"id {wrong} is out of range for {codes} codes")


def perplexity(ids: Int[Tensor, "..."], codes: int) -> Float[Tensor, ""]:
    """exp of the entropy of how often each code occurs: from 1, one code, to `codes`, all alike.

    Of n ids it is at most n, so it depends on the batch. Raises ValueError for an id out of range,
    and for no ids.
    """
    check_count(codes, "codes")
    check_ids(ids.cpu(), codes)
    flat = ids.flatten()
    if not len(flat):
        raise ValueError("there are no ids")
    share = wide(torch.bincount(flat, minlength=codes)) / len(flat)
    return torch.special.entr(share).sum().exp().float()
