"""What a training run consists of: parameters, their average, an optimiser, generators, batches.

All of it is one file. What that file holds is looked through before the run takes any of it up.
"""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from minigen.data import Batches

from . import files, processes, state
from .ema import Ema, Params, buffers, named, trained

Generators = torch.Generator | Sequence[torch.Generator] | None


class Run:
    """All that a training run needs to go on as if it had never stopped.

    `players` are what is trained, by name: one without a name, or several that take turns. They
    share one Adam, which leaves alone what has no gradient, with a group of parameters for each;
    one player may bring an `optimizer` of its own.
    The `data.batches` that draw from the generators belong to the run, too.
    """

    def __init__(
        self, players: Mapping[str, Params], ema, generator: Generators, betas=(0.9, 0.999),
        optimizer: torch.optim.Optimizer | None = None,
    ):  # fmt: skip
        if ema is not None and not isinstance(ema, Ema):
            raise TypeError(f"ema must be a train.Ema(net, decay), got {ema!r}")
        states = {who: named(params) for who, params in players.items()}
        self.named = {
            f"{who}.{name}" if who else name: x
            for who, state in states.items()
            for name, x in state.items()
        }
        self.trained = {f"net.{name}" for name, x in self.named.items() if x.requires_grad}
        self.players = {who: trained(state, who) for who, state in states.items()}
        self.params = [p for params in self.players.values() for p in params]
        self.buffers = [x for params in players.values() for x in buffers(params).values()]
        self.ema, self.device = ema, self.params[0].device
        if ema is not None and {*map(id, ema.params)} - {*map(id, self.params)}:
            raise ValueError("ema follows other parameters than those that are trained")
        several = isinstance(generator, Sequence)
        self.generators = [*generator] if several else [] if generator is None else [generator]
        self.losses: dict[str, list[Tensor]] = {}
        self.step = 0  # how many are done
        if optimizer is not None:
            state.check_optimizer(optimizer, self.params)
        self.optimizer = self._adam(betas) if optimizer is None else optimizer

    def _adam(self, betas: tuple[float, float]) -> torch.optim.Adam:
        groups = [{"params": params} for params in self.players.values()]
        try:
            return torch.optim.Adam(groups, betas=betas, fused=True)
        except RuntimeError:  # a device or dtype without the fused kernel
            return torch.optim.Adam(groups, betas=betas)

    def groups(self, who: str) -> list[dict]:
        """The optimiser's groups of parameters that belong to a player."""
        groups = self.optimizer.param_groups
        return groups if len(self.players) == 1 else [groups[[*self.players].index(who)]]

    def note(self, losses: Mapping[str, Tensor]) -> None:
        """Keep the losses of a step, by whose they are, for the file."""
        for who, loss in losses.items():
            self.losses.setdefault(who, []).append(loss[None])

    def curve(self, kind: type | None) -> list:
        """The losses of all steps so far, as the run yielded them: scalars, or tuples of a kind."""
        columns = [torch.cat(losses).to(self.device).unbind() for losses in self.losses.values()]
        if [*self.losses] == [""]:
            return [*columns[0]]
        kind = kind or namedtuple("Losses", self.losses)
        return [kind(*row) for row in zip(*columns, strict=True)]

    def save(self, path: Path, step: int) -> None:
        """Write the state after so many steps to path; raises ValueError where it is broken."""
        batches = Batches.of(self.generators)
        mine = [g.get_state() for g in self.generators], [b.rest.cpu().clone() for b in batches]
        everyone = processes.gather((*mine, [_sizes(b) for b in batches]))
        tensors = {f"net.{name}": x for name, x in self.named.items()}
        for i, p in enumerate(self.params):
            known = self.optimizer.state.get(p, {})
            tensors |= {f"optimizer.{i}.{name}": x for name, x in known.items()}
        if self.ema:
            tensors |= {f"ema.{i}": x for i, x in enumerate(self.ema.averages)}
        for rank, (states, orders, _) in enumerate(everyone):
            tensors |= {f"generator.{rank}.{i}": x for i, x in enumerate(states)}
            tensors |= {f"batches.{rank}.{i}": x for i, x in enumerate(orders)}
        for who, losses in self.losses.items():
            past, *recent = losses
            losses[:] = [torch.cat([past.cpu(), *([torch.cat(recent).cpu()] if recent else ())])]
            tensors[f"losses.{who}"] = losses[0]
        for name, x in tensors.items():
            wrong = state.flaw(name, x) if name[:4] != "net." or name in self.trained else None
            if wrong:
                raise ValueError(
                    f"{name} {wrong} after step {step}, though the loss still was: look for an "
                    f"infinite gradient, such as that of a square root at 0; nothing is written"
                )
        about = {"step": step, "processes": len(everyone), "generators": len(self.generators)}
        about |= {"updates": self.ema.updates if self.ema else None, "losses": [*self.losses]}
        about["optimizer"] = type(self.optimizer).__name__
        if not processes.rank():
            files.write(path, tensors, {**about, "batches": [sizes for *_, sizes in everyone]})

    @torch.no_grad()
    def load(self, path: Path, steps: int) -> int:
        """Take up the state in path, of a run of so many steps; the step at which it was written.

        Raises ValueError, before anything is changed, where it is not whole or another run's.
        """
        tensors, about = files.read(path)
        state.check_facts(path, about, steps, type(self.optimizer).__name__)
        net = {name[4:]: x for name, x in tensors.items() if name.startswith("net.")}
        files.check_same(path, net, self.named, "a run", "the net that is to be trained")
        rank = processes.rank() if about["processes"] == processes.world() else 0
        batches = Batches.of(self.generators)
        theirs = state.sources(
            about["generators"], about["batches"][rank], about["updates"] is not None
        )
        mine = state.sources(
            len(self.generators), [_sizes(b) for b in batches], self.ema is not None
        )
        if theirs != mine:
            raise ValueError(
                f"{path} was written by a run with {theirs}, this one has {mine}: give it the "
                f"same, made anew before it starts, or delete the file"
            )
        averages = self.ema.averages if self.ema else []
        known = state.after_a_step(self.optimizer, self.params)
        want = state.wanted(tensors, about, known, averages, self.generators)
        state.check(path, tensors, about, want, self.trained, self.generators)
        self._take(tensors, about, rank, batches, known)
        return about["step"]

    def _take(self, tensors: dict[str, Tensor], about: dict, rank: int, batches, known) -> None:
        """Write a state into the run; nothing of it is looked at any more."""
        for name, x in self.named.items():
            x.copy_(tensors[f"net.{name}"])
        for i, (p, seen) in enumerate(zip(self.params, known, strict=True)):
            found = {key: tensors.get(f"optimizer.{i}.{key}") for key in seen}
            self.optimizer.state[p] = {
                key: x.to(seen[key].device) for key, x in found.items() if x is not None
            }
        if self.ema:
            for i, x in enumerate(self.ema.averages):
                x.copy_(tensors[f"ema.{i}"])
            self.ema.updates = about["updates"]
        for i, generator in enumerate(self.generators):
            generator.set_state(tensors[f"generator.{rank}.{i}"])
        for i, each in enumerate(batches):
            each.rest = tensors[f"batches.{rank}.{i}"].to(each.rest.device)
        self.losses = {who: [tensors[f"losses.{who}"]] for who in about["losses"]}


def _sizes(batches: Batches) -> list[int]:
    return [len(batches.tensors[0]), batches.size]
