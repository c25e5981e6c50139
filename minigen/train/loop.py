"""The one training loop: a step, a bar, checkpoints, and what happens when it is stopped."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from minigen.shapes import check_count, readable

from . import processes
from .ema import Ema, Params
from .run import Generators, Run

Loss = Callable[[], Tensor]
Rate = float | Callable[[int], float]
Values = Tensor | tuple[Tensor, ...]  # a step's loss, or a NamedTuple of several


def fit(
    loss: Loss,
    params: Params,
    *,
    steps: int,
    lr: Rate = 1e-3,
    ema: Ema | None = None,
    generator: Generators = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 500,
    autocast: torch.dtype | None = None,
    progress: bool = True,
) -> Iterator[Tensor]:
    """Minimise loss() over params with Adam, and yield the loss of each step, a detached scalar.

    `loss` takes no arguments: it draws its own batch and returns a scalar. `params` is a net or
    parameters; `lr` a number or a function of the step 0, 1, …; `ema` an Ema of the same
    parameters, moved after each step. With `checkpoint`, the state is written there each `every`
    steps and at the end, and the same call takes it up again: the result is bit for bit that of a
    run never stopped, if `generator` names all the generators that `loss` draws from. Delete the
    file to start anew. `autocast=torch.bfloat16` computes the loss in mixed precision. Under
    torchrun every process takes part: see `shard`. Nothing in the loop waits for an accelerator.
    Raises ValueError where the loss is no scalar or no longer finite (on an accelerator noticed a
    little later), or the checkpoint belongs to another run. [Kingma & Ba 2015]
    """
    if autocast not in (None, torch.bfloat16):
        raise ValueError(f"autocast must be torch.bfloat16 (no loss scaling), got {autocast}")
    run = Run({"": params}, ema, generator)
    precision = torch.autocast(run.device.type, autocast) if autocast else nullcontext()
    descend = descent(run, "", lr)

    def step(n: int) -> Tensor:
        with precision:
            value = loss()
        return descend(value, n)

    return loop("fit", run, step, steps, checkpoint, every, progress)


def cosine(lr: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """A learning rate for `fit`: linear from 0 to lr in `warmup` steps, half a cosine down to 0.

    lr(n) = lr · min((n + 1)/warmup, ½(1 + cos(π (n − warmup)/(steps − warmup)))), n = 0, 1, …
    [Loshchilov & Hutter 2017, eq. 5, without restarts]
    """

    def at(n: int) -> float:
        if n < warmup:
            return lr * (n + 1) / warmup
        return lr * 0.5 * (1 + math.cos(math.pi * (n - warmup) / (steps - warmup)))

    return at


def descent(run: Run, who: str, lr: Rate) -> Callable[..., Tensor]:
    """The function (value, step number) that takes one step of Adam in one player's weights alone.

    It returns the value, detached; `shown` stands in for one that holds more than is to be shown.
    """
    params, which = run.players[who], [*run.players].index(who)
    inputs = params if len(run.players) > 1 else None  # the others' weights get no gradient

    def step(value: Tensor, n: int, shown: Tensor | None = None) -> Tensor:
        if value.ndim or not value.requires_grad:
            raise ValueError(
                f"loss() must return a scalar that depends on the parameters, got shape "
                f"{tuple(value.shape)}, requires_grad={value.requires_grad}: reduce with .mean()"
            )
        run.adam.zero_grad(set_to_none=True)
        value.backward(inputs=inputs)
        processes.average(params)
        if readable(value):
            check_value(value.item(), n, who)
        run.adam.param_groups[which]["lr"] = lr(n) if callable(lr) else lr
        run.adam.step()
        return (value if shown is None else shown).detach()

    return step


def check_value(value: float, n: int, who: str) -> None:
    """Raises ValueError where a loss is no longer finite."""
    if not math.isfinite(value):
        whose = f"the {who}'s loss" if who else "the loss"
        raise ValueError(
            f"{whose} is {value} at step {n + 1}: look for NaN in the data, or lower lr"
        )


def loop(
    name: str,
    run: Run,
    step: Callable[[int], Values],
    steps: int,
    checkpoint: str | os.PathLike | None,
    every: int,
    progress: bool,
) -> Iterator:
    """Yields step(n) for n = 0, 1, … with a bar, checkpoints, and a word on how to resume.

    What can be wrong with the call is found at the call; a checkpoint is read at the first step.
    """
    check_count(steps, "steps")
    check_count(every, "every")
    path = None if checkpoint is None else Path(checkpoint)

    def states():
        processes.begin([*run.named.values(), *(run.ema.averages if run.ema else ())])
        first = run.load(path) if path and path.exists() else 0
        if first and processes.rank() == 0:
            print(f"resuming from step {first} of {steps}")
        bar = _Bar(name, first, steps, progress and processes.rank() == 0, run.device)
        n, written, value = first, first, None
        try:
            for n in range(first, steps):
                value = processes.joined(step(n), first=n == first)
                if run.ema:
                    run.ema.update()
                if path and ((n + 1) % every == 0 or n + 1 == steps):
                    check_all(value, n)
                    run.save(path, n + 1)
                    written = n + 1
                bar.show(value, n)
                yield value
            if value is not None:
                check_all(value, n)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_resume(n + 1, steps, path, written)) from None
        except GeneratorExit:  # stopped between two steps, by `break` or an exception in the caller
            if path and n + 1 < steps and processes.rank() == 0:
                print(_how_to_resume(n + 1, steps, path, written))
            raise
        finally:
            bar.close()

    return states()


def _parts(values: Values) -> dict[str, Tensor]:
    """The losses of a step by the name of whose they are; one alone has none."""
    return values._asdict() if isinstance(values, tuple) else {"": values}


def check_all(values: Values, n: int) -> None:
    """`check_value` of each loss of a step; waits for the device."""
    for who, value in _parts(values).items():
        check_value(value.item(), n, who)


def _how_to_resume(step: int, steps: int, path: Path | None, written: int) -> str:
    if path is None:
        return f"stopped in step {step} of {steps}; to be able to resume, pass checkpoint=path"
    if not written:
        return f"stopped in step {step} of {steps}, before the first checkpoint: lower every="
    return (
        f"stopped in step {step} of {steps}; {path} holds step {written}: "
        f"the same call resumes from there"
    )


class _Bar:
    """A progress bar with the losses beside it, ten times a second; it never waits for a device."""

    def __init__(self, name: str, first: int, steps: int, shown: bool, device: torch.device):
        self.device, self.due, self.bar, self.event = device, 0.0, None, None
        if shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, initial=first, desc=name, unit="step")

    def show(self, values: Values, n: int) -> None:
        now = time.perf_counter()
        if now >= self.due:
            self.due = now + 0.1
            parts = _parts(values)
            numbers = self._read(torch.stack([*parts.values()]))
            for who, number in zip(parts, numbers, strict=False):
                check_value(number, n, who)
            if self.bar is not None and numbers:
                pairs = zip(parts, numbers, strict=True)
                text = ", ".join(f"{who or 'loss'} {number:.4g}" for who, number in pairs)
                self.bar.set_postfix_str(text, refresh=False)
        if self.bar is not None:
            self.bar.update()

    def _read(self, losses: Tensor) -> list[float]:
        """The losses, or on CUDA recent ones whose copy has arrived, or none."""
        if readable(losses):
            return losses.tolist()
        if self.device.type != "cuda":
            return []
        if self.event is None:
            self.host = torch.empty_like(losses, device="cpu", pin_memory=True)
        elif not self.event.query():
            return []
        numbers = [] if self.event is None else self.host.tolist()
        self.host.copy_(losses, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()
        return numbers

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
