"""What a training run consists of: parameters, their average, Adam's moments, generators."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from . import files, processes
from .ema import Ema, Params, named, trained

Generators = torch.Generator | Sequence[torch.Generator] | None


class Run:
    """All that a training run needs to go on as if it had never stopped.

    `players` are what is trained, by name: one without a name, or several that take turns. They
    share one Adam, which leaves alone what has no gradient, with a group of parameters for each.
    """

    def __init__(
        self, players: Mapping[str, Params], ema, generator: Generators, betas=(0.9, 0.999)
    ):
        if ema is not None and not isinstance(ema, Ema):
            raise TypeError(f"ema must be a train.Ema(net, decay), got {ema!r}")
        states = {who: named(params) for who, params in players.items()}
        self.named = {
            f"{who}.{name}" if who else name: x
            for who, state in states.items()
            for name, x in state.items()
        }
        self.players = {who: trained(state, who) for who, state in states.items()}
        self.params = [p for params in self.players.values() for p in params]
        self.ema, self.device = ema, self.params[0].device
        if ema is not None and {*map(id, ema.params)} - {*map(id, self.params)}:
            raise ValueError("ema follows other parameters than those that are trained")
        several = isinstance(generator, Sequence)
        self.generators = [*generator] if several else [] if generator is None else [generator]
        groups = [{"params": params} for params in self.players.values()]
        try:
            self.adam = torch.optim.Adam(groups, betas=betas, fused=True)
        except RuntimeError:  # a device or dtype without the fused kernel
            self.adam = torch.optim.Adam(groups, betas=betas)

    def save(self, path: Path, step: int) -> None:
        states = processes.gather([g.get_state() for g in self.generators])
        if processes.rank():
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
        rank = processes.rank() if about["processes"] == processes.world() else 0
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
            self.ema.put(self.ema.averages, [part["ema"][str(i)] for i in range(len(part["ema"]))])
            self.ema.updates = about["updates"]
        for i, generator in enumerate(self.generators):
            generator.set_state(part["generator"][f"{rank}.{i}"])
        return about["step"]
