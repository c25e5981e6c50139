"""Minibatches without end, whose order in flight can be saved and taken up again."""

import itertools
import weakref
from collections.abc import Iterable

import torch
from torch import Tensor

from minigen.shapes import check_count, check_finite

from .points import Gen

_alive = weakref.WeakValueDictionary()  # every Batches there is, oldest first
_number = itertools.count()


class Batches:
    """An endless iterator over minibatches; `rest` are the rows still to come in this pass.

    Together with its generator's state, `rest` is all that it takes to go on with the same batches:
    a training run given that generator saves and restores both.
    """

    def __init__(self, tensors: tuple[Tensor, ...], size: int, generator: Gen):
        self.tensors, self.size = tensors, size
        self.generator = torch.default_generator if generator is None else generator
        self.rest = torch.empty(0, dtype=torch.long, device=tensors[0].device)
        _alive[next(_number)] = self

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> tuple[Tensor, ...]:
        if len(self.rest) < self.size:
            n, home = len(self.tensors[0]), self.generator.device
            self.rest = torch.randperm(n, generator=self.generator, device=home).to(
                self.rest.device
            )
        rows, self.rest = self.rest[: self.size], self.rest[self.size :]
        return tuple(tensor[rows] for tensor in self.tensors)

    @staticmethod
    def of(generators: Iterable[torch.Generator]) -> list["Batches"]:
        """Those in use that draw from one of the generators, in the order they were made."""
        which = {*map(id, generators)}
        return [each for each in _alive.values() if id(each.generator) in which]


def batches(*tensors: Tensor, size: int, generator: Gen = None) -> Batches:
    """Minibatches without end: each pass a new order, rows kept together, the odd rest left out.

    `next(batches(x, label, size=128, generator=g))` is a pair. A run of `train.fit` or
    `gan.alternate` given `generator=g` takes the batches up where it was stopped.
    """
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        got = ", ".join(type(x).__name__ for x in tensors) or "nothing"
        raise TypeError(
            f"batches takes tensors such as x, label, got {got}: "
            f"of a TensorDataset pass *dataset.tensors"
        )
    for x in tensors:
        check_finite(x)
    check_count(size, "size")
    n = len(tensors[0])
    if any(len(tensor) != n for tensor in tensors):
        raise ValueError(f"tensors of different length: {[len(tensor) for tensor in tensors]}")
    if size > n:
        raise ValueError(f"a batch of {size} can't be drawn from {n} samples")
    return Batches(tensors, size, generator)
