"""Scale by scale: all tokens of one scale at once, given the coarser ones."""

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minigen.shapes import check_count

from .orders import Model, draw, logits_of


def block_causal(lengths) -> Bool[Tensor, "N N"]:
    """Who may attend to whom where tokens come in blocks: True at and before one's own block.

    lengths are those of the blocks. [Tian et al. 2024, section 3.2]
    """
    for n in lengths:
        check_count(n, "each length")
    block = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor([*lengths]))
    return block[:, None] >= block


def next_scale(
    model: Model, quantizer, n: int, *, generator: torch.Generator | None = None
) -> Iterator[list[Int[Tensor, "n h w"]]]:
    """All tokens of a scale at once, scale after scale; yields the list of ids so far.

    `quantizer` is a `vq.MultiScale`: its decode turns the list, however short, into latents. The
    model sees ids of all scales end to end, V where unknown. [Tian et al. 2024]
    """
    check_count(n)
    lengths = [h * w for h, w in quantizer.scales]
    V, device = quantizer.codebook.codes, quantizer.codebook.entries.device

    def states() -> Iterator[list[Tensor]]:
        ids, done = torch.full((n, sum(lengths)), V, device=device), []
        for (h, w), length in zip(quantizer.scales, lengths, strict=True):
            start = sum(x[0].numel() for x in done)
            with torch.no_grad():
                drawn = draw(logits_of(model, ids)[:, start : start + length], 1.0, generator)
            ids = ids.clone()
            ids[:, start : start + length] = drawn
            done = [*done, drawn.reshape(n, h, w)]
            yield done

    return states()
