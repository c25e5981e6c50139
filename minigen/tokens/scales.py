"""Scale by scale: all tokens of one scale at once, given the coarser ones."""

from collections.abc import Iterator
from itertools import accumulate

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from minigen.shapes import check_count, check_generator

from .orders import Model, check_temperature, draw, logits_of


def block_causal(lengths) -> Bool[Tensor, "N N"]:
    """Who may attend to whom where tokens come in blocks: True at and before one's own block.

    lengths are those of the blocks. [Tian et al. 2024, section 3.2]
    """
    for n in lengths:
        check_count(n, "each length")
    block = torch.tensor([k for k, n in enumerate(lengths) for _ in range(n)])
    return block[:, None] >= block


def next_scale(
    model: Model,
    quantizer,
    n: int,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[list[Int[Tensor, "n h w"]]]:
    """All tokens of a scale at once, scale after scale; yields the list of ids so far.

    `quantizer` is a `vq.MultiScale`: its decode turns the list, however short, into latents. The
    model sees ids of all scales end to end, V where unknown; temperature as in `autoregress`.
    Raises ValueError for a model of other tokens than the codebook's. [Tian et al. 2024]
    """
    check_count(n)
    check_temperature(temperature)
    check_generator(quantizer.codebook.entries, generator)
    lengths = [h * w for h, w in quantizer.scales]
    V, device = quantizer.codebook.codes, quantizer.codebook.entries.device

    def states() -> Iterator[list[Tensor]]:
        ids, done = torch.full((n, sum(lengths)), V, device=device), []
        for shape, start, length in zip(quantizer.scales, _starts(lengths), lengths, strict=True):
            here = slice(start, start + length)
            with torch.no_grad():
                logits = logits_of(model, ids)
                if logits.shape[2] != V:
                    raise ValueError(f"the model has {logits.shape[2]} values for {V} codes")
                drawn = draw(logits[:, here], temperature, generator)
            ids = ids.clone()
            ids[:, here] = drawn
            done = [*done, drawn.unflatten(1, shape)]
            yield done

    return states()


def _starts(lengths: list[int]) -> list[int]:
    """Where each scale begins."""
    return [0, *accumulate(lengths)][:-1]
