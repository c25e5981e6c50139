"""Minibatches without end."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minigen.shapes import check_finite

from .points import Gen


def batches(*tensors: Tensor, size: int, generator: Gen = None) -> Iterator[tuple[Tensor, ...]]:
    """Minibatches without end: each pass a new order, rows kept together, the odd rest left out.

    `next(batches(x, label, size=128, generator=g))` is a pair.
    """
    n = len(tensors[0])
    if any(len(tensor) != n for tensor in tensors):
        raise ValueError(f"tensors of different length: {[len(tensor) for tensor in tensors]}")
    if not 1 <= size <= n:
        raise ValueError(f"a batch of {size} can't be drawn from {n} samples")
    check_finite(tensors[0])
    home = generator.device if generator is not None else "cpu"

    def shuffled():
        while True:
            order = torch.randperm(n, generator=generator, device=home).to(tensors[0].device)
            for rows in order[: n - n % size].split(size):
                yield tuple(tensor[rows] for tensor in tensors)

    return shuffled()  # apart, so that the checks above run at the call
