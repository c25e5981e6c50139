"""What a training run consists of: parameters, their average, Adam's moments, generators."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from . import files, parallel

Params = nn.Module | Iterable[nn.Parameter]
Generators = torch.Generator | Sequence[torch.Generator] | None


def _named(params: Params) -> dict[str, Tensor]:
    """What is trained, by name; of a module also the buffers."""
    if isinstance(params, nn.Module):
        return params.state_dict(keep_vars=True)
    return {str(i): p for i, p in enumerate(params)}


def _trained(state: dict[str, Tensor]) -> list[nn.Parameter]:
    """The parameters that a step changes, each once; raises ValueError where there are none."""
    unique = {id(x): x for x in state.values() if x.requires_grad}  # tied weights count once
    if not unique:
        raise ValueError("there are no parameters to train: pass a net, or a list of parameters")
    return list(unique.values())


class Ema:
    """An exponential moving average of parameters, θ̄ ← d θ̄ + (1 − d) θ.

    d = min(decay, (1 + n)/(10 + n)) after n updates: an average over about the last tenth of a
    young run, so that it forgets the first weights without a correction.
    Source: Polyak & Juditsky 1992; the warm-up is TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, params: Params, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        if not isinstance(params, nn.Module):
            params = list(params)
        self.params = _trained(_named(params))
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
            self._put(self.params, self.averages)
            yield
        finally:
            self._put(self.params, own)

    def copy_to(self, net: nn.Module) -> None:
        """Give net, which may be the one trained or a copy of it, the averaged weights."""
        params = _trained(_named(net))
        if [p.shape for p in params] != [a.shape for a in self.averages]:
            raise ValueError("the average belongs to a net of other shapes")
        self._put(params, self.averages)

    @staticmethod
    @torch.no_grad()
    def _put(to: list[Tensor], values: list[Tensor]) -> None:
        for x, value in zip(to, values, strict=True):
            x.copy_(value)


class Run:
    """All that a training run needs to go on as if it had never stopped."""

    def __init__(self, params: Params, ema: Ema | None, generator: Generators):
        self.named = _named(params if isinstance(params, nn.Module) else list(params))
        self.params, self.ema = _trained(self.named), ema
        self.device = self.params[0].device
        if ema is not None and {*map(id, ema.params)} - {*map(id, self.params)}:
            raise ValueError("ema follows other parameters than those that are trained")
        several = isinstance(generator, Sequence)
        self.generators = [*generator] if several else [] if generator is None else [generator]
        try:
            self.adam = torch.optim.Adam(self.params, fused=True)
        except RuntimeError:  # a device or dtype without the fused kernel
            self.adam = torch.optim.Adam(self.params)

    def save(self, path: Path, step: int) -> None:
        states = parallel.gather([g.get_state() for g in self.generators])
        if parallel.rank():
            return
        tensors = {f"net.{name}": x for name, x in self.named.items()}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": x for name, x in state.items()}
        if self.ema:
            tensors |= {f"ema.{i}": x for i, x in enumerate(self.ema.averages)}
        for rank, each in enumerate(states):
            tensors |= {f"generator.{rank}.{i}": x for i, x in enumerate(each)}
        updates = self.ema.updates if self.ema else None
        files.write(path, tensors, {"step": step, "updates": updates, "processes": len(states)})

    @torch.no_grad()
    def load(self, path: Path) -> int:
        """Take up the state in path; the step at which it was written."""
        tensors, about = files.read(path)
        if "step" not in about:
            raise ValueError(f"{path} holds a net, not the state of a training run: use train.load")
        part = {key: {} for key in ("net", "adam", "ema", "generator")}
        for name, x in tensors.items():
            kind, rest = name.split(".", 1)
            part[kind][rest] = x
        files.check_same(path, part["net"], self.named, "a run", "the net that is to be trained")
        rank = parallel.rank() if about["processes"] == parallel.world() else 0
        states = [x for name, x in part["generator"].items() if name.startswith(f"{rank}.")]
        if bool(part["ema"]) != bool(self.ema) or len(states) != len(self.generators):
            raise ValueError(
                f"{path} was written by a run with {len(states)} generators and "
                f"{'an' if part['ema'] else 'no'} ema: give this run the same"
            )
        for name, x in self.named.items():
            x.copy_(part["net"][name])
        adam = {i: {} for i in range(len(self.params))}
        for name, x in part["adam"].items():
            i, key = name.split(".")
            adam[int(i)][key] = x
        self.adam.load_state_dict({**self.adam.state_dict(), "state": adam})
        if self.ema:
            self.ema._put(self.ema.averages, [part["ema"][str(i)] for i in range(len(part["ema"]))])
            self.ema.updates = about["updates"]
        for i, generator in enumerate(self.generators):
            generator.set_state(part["generator"][f"{rank}.{i}"])
        return about["step"]
