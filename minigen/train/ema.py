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


def trained(state: dict[str, Tensor], whose: str = "") -> list[nn.Parameter]:
    """The parameters that a step changes, each once; a net without any is refused."""
    unique = {id(x): x for x in state.values() if x.requires_grad}  # tied weights count once
    if not unique:
        of = f"the {whose} has no" if whose else "there are no"
        raise ValueError(f"{of} parameters to train: pass a net, or a list of parameters")
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
        if not isinstance(params, nn.Module):
            params = list(params)
        self.params = trained(named(params))
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
        """Within this context the net has the averaged weights; after it, its own again."""
        own = [p.detach().clone() for p in self.params]
        try:
            self.put(self.params, self.averages)
            yield
        finally:
            self.put(self.params, own)

    def copy_to(self, net: nn.Module) -> None:
        """Give net, which may be the one trained or a copy of it, the averaged weights."""
        params = trained(named(net))
        if [p.shape for p in params] != [a.shape for a in self.averages]:
            raise ValueError("the average belongs to a net of other shapes")
        self.put(params, self.averages)

    @staticmethod
    @torch.no_grad()
    def put(to: list[Tensor], values: list[Tensor]) -> None:
        """Write the values into the tensors, in place."""
        for x, value in zip(to, values, strict=True):
            x.copy_(value)
