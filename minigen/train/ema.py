"""Parameters by name, and their exponential moving average."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Params = nn.Module | Iterable[nn.Parameter]


def named(params: Params) -> dict[str, Tensor]:
    """What is trained, by name; of a module also the buffers."""
    if isinstance(params, nn.Module):
        return params.state_dict(keep_vars=True)
    return {str(i): p for i, p in enumerate(params)}


def buffers(params: Params) -> dict[str, Tensor]:
    """What a net holds beside its parameters, such as the statistics of a batch norm."""
    state = named(params) if isinstance(params, nn.Module) else {}
    return {name: x for name, x in state.items() if not isinstance(x, nn.Parameter)}


def trained(state: dict[str, Tensor], whose: str = "") -> list[nn.Parameter]:
    """The parameters that a step changes, each once; none, or split ones, are refused."""
    unique = {id(x): x for x in state.values() if x.requires_grad}  # tied weights count once
    if not unique:
        of = f"the {whose} has no" if whose else "there are no"
        raise ValueError(f"{of} parameters to train: pass a net, or a list of parameters")
    for x in unique.values():
        if hasattr(x, "device_mesh") or getattr(x, "_is_flat_param", False):
            raise TypeError(
                "the parameters are split over processes (FSDP, DTensor), but minigen trains whole "
                "ones, on every process alike: pass the net as it was before it was split"
            )
    return list(unique.values())


class Ema:
    """An exponential moving average of parameters, with a warm-up.

    θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n)/(10 + n)) after n updates.
    It averages over about the last tenth of a young run, and so forgets the first weights without a
    correction. [Polyak & Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage]
    """

    def __init__(self, params: Params, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.source = params if isinstance(params, nn.Module) else [*params]
        self.params = trained(named(self.source))
        self.decay, self.updates = decay, 0
        self.averages = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters as they now are."""
        d = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.params, 1 - d)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the net has the averaged weights; after it, its own again.

        Its buffers, such as a batch norm's statistics, are also what they were before.
        """
        state = [*self.params, *buffers(self.source).values()]
        own = [x.detach().clone() for x in state]
        try:
            self.put(self.params, self.averages)
            yield
        finally:
            self.put(state, own)

    def copy_to(self, net: nn.Module) -> None:
        """Give net, which may be the one trained or a copy of it, the averaged weights.

        What has no average, frozen weights and buffers, it gets as it is in the net trained.
        Raises ValueError where the shapes differ, or where net has buffers of its own but the
        average was made from a list of parameters, which tells nothing of them.
        """
        average = dict(zip(map(id, self.params), self.averages, strict=True))
        if isinstance(self.source, nn.Module):
            source, target = named(self.source).values(), [*named(net).values()]
        else:
            source, every = self.params, [*net.parameters()]
            target = [p for p in every if p.requires_grad] or every
            if (names := buffers(net)) and {*map(id, target)} != {*average}:
                raise ValueError(
                    f"the average was made from a list of parameters and tells nothing of the "
                    f"buffers {', '.join(names)}: make it from the net, train.Ema(net)"
                )
        values = [average.get(id(x), x) for x in source]
        if [x.shape for x in target] != [x.shape for x in values]:
            raise ValueError("the average belongs to a net of other shapes")
        self.put(target, values)

    @staticmethod
    @torch.no_grad()
    def put(to: list[Tensor], values: list[Tensor]) -> None:
        """Write the values into the tensors, in place."""
        for x, value in zip(to, values, strict=True):
            x.copy_(value)
