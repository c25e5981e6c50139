"""The one training loop: a step, a bar, checkpoints, and what happens when it is stopped."""

import inspect
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from minigen.shapes import check_count, readable

from . import files, processes
from .bar import Bar, Values, check_all, check_value, parts
from .ema import Ema, Params
from .run import Generators, Run

Loss = Callable[[], Tensor]
Rate = float | Callable[[int], float]


def fit(
    loss: Loss,
    params: Params,
    *,
    steps: int,
    lr: Rate | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float | None = None,
    ema: Ema | None = None,
    generator: Generators = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 500,
    autocast: torch.dtype | None = None,
    progress: bool = True,
) -> Iterator[Tensor]:
    """Minimise loss() over params with Adam, and yield the loss of each step, a detached scalar.

    `loss` takes no arguments: it draws its own batch and returns a scalar. `params` is a net or
    parameters; `lr` a number or a function of the step 0, 1, …, 1e-3 unless given; `ema` an Ema of
    the same parameters, moved after each step. Only what is asked for is trained: iterate over the
    losses. `optimizer` is a torch.optim.Optimizer of the same parameters, made anew for this call,
    that steps in place of Adam, at its own rates where lr is not given. With `clip`, gradients g
    are first scaled by min(1, clip/‖g‖), ‖g‖ the norm of all together.
    With `checkpoint`, the state is written there each `every` steps and at the end, and the same
    call takes it up again and yields the rest: bit for bit that of a run never stopped, if `params`
    is the net, buffers and all, and `generator` names all the generators that `loss` draws from,
    itself or by `data.batches`. Called after the end it yields all losses again, without training.
    Delete the file to start anew. `autocast=torch.bfloat16` computes the loss in mixed precision.
    Under torchrun every process takes part: see `shard`. Nothing in the loop waits for an
    accelerator. Raises ValueError where the loss is no scalar, depends on nothing that is trained,
    or is no longer finite (on an accelerator noticed a little later), or the checkpoint belongs to
    another run; TypeError where a step of `optimizer` wants more than gradients; OSError, both at
    the call, where no checkpoint can be written. [Kingma & Ba 2015]
    """
    if autocast not in (None, torch.bfloat16):
        raise ValueError(f"autocast must be torch.bfloat16 (no loss scaling), got {autocast}")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, got {clip}")
    run = Run({"": params}, ema, generator, optimizer=optimizer)
    precision = torch.autocast(run.device.type, autocast) if autocast else nullcontext()
    descend = descent(run, "", lr, clip)

    def step(n: int) -> Tensor:
        with precision:
            value = loss()
        return descend(value, n)

    return loop("fit", run, step, steps, checkpoint, every, progress)


def cosine(lr: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """A learning rate for `fit`: linear from 0 to lr in `warmup` steps, half a cosine down to 0.

    lr(n) = lr (n + 1)/warmup for n < warmup, lr ½(1 + cos(π (n − warmup)/(steps − warmup))) after.
    From n = steps on it is 0. [Loshchilov & Hutter 2017, eq. 5, without restarts]
    """

    check_count(steps, "steps")
    if warmup not in range(steps + 1):
        raise ValueError(f"warmup must lie between 0 and steps = {steps}, got {warmup}")

    def at(n: int) -> float:
        if n < warmup:
            return lr * (n + 1) / warmup
        if n >= steps:
            return 0.0
        return lr * 0.5 * (1 + math.cos(math.pi * (n - warmup) / (steps - warmup)))

    return at


def descent(
    run: Run, who: str, lr: Rate | None, clip: float | None = None
) -> Callable[..., Tensor]:
    """The function (value, step number) that takes one step of Adam in one player's weights alone.

    It returns the value, detached; `shown` stands in for one that holds more than is to be shown.
    """
    params, groups = run.players[who], run.groups(who)
    inputs = params if len(run.players) > 1 else None  # the others' weights get no gradient

    def step(value: Tensor, n: int, shown: Tensor | None = None) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(f"loss() must return a scalar tensor, got {type(value).__name__}")
        if value.ndim or not value.requires_grad:
            raise ValueError(
                f"loss() must return a scalar that depends on the parameters, got shape "
                f"{tuple(value.shape)}, requires_grad={value.requires_grad}: reduce with .mean()"
            )
        run.optimizer.zero_grad(set_to_none=True)
        value.backward(inputs=inputs)
        if not any(p.grad is not None for p in params):
            raise ValueError(
                f"no parameter{' of the ' + who if who else ''} gets a gradient: the loss depends "
                f"on others than those that are trained; does it use another net?"
            )
        processes.average(params)
        if clip is not None:
            nn.utils.clip_grad_norm_(params, clip)
        if readable(value):
            check_value(value.item(), n, who)
        for group in groups if lr is not None else ():
            group["lr"] = lr(n) if callable(lr) else lr
        run.optimizer.step()
        return (value if shown is None else shown).detach()

    return step


def loop(
    name: str,
    run: Run,
    step: Callable[[int], Values],
    steps: int,
    checkpoint: str | os.PathLike | None,
    every: int,
    progress: bool,
    kind: type | None = None,
) -> Iterator:
    """Yields step(n) for n = 0, 1, … with a bar, checkpoints, and a word on how to resume.

    Of several losses `kind` is the NamedTuple that step(n) gives. What can be wrong with the call
    is found at the call; a checkpoint is read at the first step.
    """
    check_count(steps, "steps")
    check_count(every, "every")
    processes.check_start()
    path = None if checkpoint is None else Path(checkpoint)
    if path and processes.rank() == 0:
        files.check_writable(path)

    def states():
        first = _begin(run, path, steps)
        if first == steps:
            yield from run.curve(kind)
            return
        bar = Bar(name, first, steps, progress and processes.rank() == 0, run.device)
        n, written = first, first
        try:
            for n in range(first, steps):
                value = processes.joined(step(n), first=n == first)
                if run.ema:
                    run.ema.update()
                run.step = n + 1
                if path:
                    run.note(parts(value))
                if (n + 1) % every == 0 or n + 1 == steps:
                    processes.settle(run.buffers)
                    if path:
                        written = _save(run, path, value, n + 1, written)
                bar.show(value, n)
                yield value
            check_all(value, n)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_resume(n + 1, steps, path, written)) from None
        except GeneratorExit:  # stopped between two steps, by `break` or an exception in the caller
            if path and n + 1 < steps:
                _say(_how_to_resume(n + 1, steps, path, written))
            raise
        finally:
            bar.close()

    return Steps(name, run, steps, states())


class Steps(Iterator):
    """The steps of a run, taken one by one as their losses are asked for, and not before.

    An iterator, stopped like a generator by `break` or `close`; `step` is how many are done. One
    that is thrown away before its first step has trained nothing, and says so in a UserWarning.
    """

    def __init__(self, name: str, run: Run, steps: int, states: Generator):
        self.name, self.run, self.steps, self.states = name, run, steps, states

    def __next__(self) -> Values:
        return next(self.states)

    @property
    def step(self) -> int:
        """How many are done, those of earlier runs with this checkpoint included."""
        return self.run.step

    def close(self) -> None:
        """Stop here."""
        self.states.close()

    def __repr__(self) -> str:
        done = f"{self.name}: {self.step} of {self.steps} steps done"
        todo = f"; iterate over it to train: for loss in {self.name}(...): ..."
        return done + (todo if self.step < self.steps else "")

    def __del__(self, warn=warnings.warn):
        if inspect.getgeneratorstate(self.states) == inspect.GEN_CREATED:
            warn(f"nothing was trained: {self!r}", stacklevel=2)


def _begin(run: Run, path: Path | None, steps: int) -> int:
    """Start from where all processes stand, or from the file if there is one; the first step."""
    processes.begin([*run.named.values(), *(run.ema.averages if run.ema else ())])
    run.step = first = run.load(path, steps) if path and os.path.lexists(path) else 0
    if first == steps:
        _say(f"finished before: {path} holds all {steps} steps; delete it to train anew")
    elif first:
        _say(f"resuming from step {first} of {steps}")
    return first


def _say(words: str) -> None:
    """Print, of several processes once."""
    if processes.rank() == 0:
        print(words)


def _save(run: Run, path: Path, values: Values, step: int, written: int) -> int:
    """Write the state after so many steps; raises where it is broken or can't be written."""
    check_all(values, step - 1)
    try:
        run.save(path, step)
    except OSError as error:
        left = f"the file there still holds step {written}" if written else "there is no file yet"
        raise OSError(error.errno, f"{error.strerror or error}; {left}") from error
    return step


def _how_to_resume(step: int, steps: int, path: Path | None, written: int) -> str:
    if path is None:
        return f"stopped in step {step} of {steps}; to be able to resume, pass checkpoint=path"
    if not written:
        return f"stopped in step {step} of {steps}, before the first checkpoint: lower every="
    return (
        f"stopped in step {step} of {steps}; {path} holds step {written}: "
        f"the same call resumes from there"
    )
