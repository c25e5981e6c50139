"""Training: `fit` yields losses; exponential averages, checkpoints and devices beside it."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from . import files, parallel
from .parallel import shard
from .state import Ema, Generators, Params, Run

__all__ = ["Ema", "cosine", "device", "fit", "load", "save", "shard"]

Loss = Callable[[], Tensor]
Rate = float | Callable[[int], float]


def device() -> torch.device:
    """The best device there is: CUDA (under torchrun this process's own), MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def cosine(lr: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    """A learning rate for `fit`: linear from 0 to lr in `warmup` steps, half a cosine down to 0.

    lr(n) = lr · min((n + 1)/warmup, ½(1 + cos(π (n − warmup)/(steps − warmup)))), n = 0, 1, …
    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """

    def at(n: int) -> float:
        if n < warmup:
            return lr * (n + 1) / warmup
        return lr * 0.5 * (1 + math.cos(math.pi * (n - warmup) / (steps - warmup)))

    return at


def save(path: str | os.PathLike, net: nn.Module, **about) -> None:
    """Write a net's weights and what is said about it to a safetensors file, atomically.

    Raises TypeError where `about` holds what JSON cannot.
    """
    files.write(path, net.state_dict(), {**about, "class": type(net).__name__})


def load(path: str | os.PathLike, net: nn.Module) -> dict:
    """Give net the weights in path and return what was said about them.

    Raises FileNotFoundError for a missing file and ValueError for one that is pickled, truncated
    or corrupted, or whose names, shapes or dtypes are not the net's; the net is then untouched.
    """
    tensors, about = files.read(path)
    want = net.state_dict()
    files.check_same(path, tensors, want, f"a {about.get('class')}", f"this {type(net).__name__}")
    net.load_state_dict(tensors)
    return about


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
    Raises ValueError where there is nothing to train, the loss is no scalar or no longer finite (on
    an accelerator noticed a little later), or the checkpoint belongs to another run.
    Source: Kingma & Ba 2015.
    """
    if steps < 1 or every < 1:
        raise ValueError(f"steps and every must be at least 1, got {steps} and {every}")
    if ema is not None and not isinstance(ema, Ema):
        raise TypeError(f"ema must be a train.Ema(net, decay), got {ema!r}")
    if autocast not in (None, torch.bfloat16):
        raise ValueError(f"autocast must be torch.bfloat16 (no loss scaling), got {autocast}")
    run = Run(params, ema, generator)
    path = None if checkpoint is None else Path(checkpoint)
    return _loop(run, loss, lr, autocast, steps, path, every, progress)


def _loop(run, loss, lr, autocast, steps, path, every, progress) -> Iterator[Tensor]:
    step = _stepper(run, loss, lr, autocast)
    first = run.load(path) if path and path.exists() else 0
    if first and parallel.rank() == 0:
        print(f"resuming from step {first} of {steps}")
    bar = _Bar(first, steps, progress and parallel.rank() == 0, run.device)
    n, written, value = first, first, None
    try:
        for n in range(first, steps):
            value = step(n)
            if path and ((n + 1) % every == 0 or n + 1 == steps):
                _check_finite(value.item(), n)
                run.save(path, n + 1)
                written = n + 1
            bar.show(value, n)
            yield value
        if value is not None:
            _check_finite(value.item(), n)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(n + 1, steps, path, written)) from None
    except GeneratorExit:  # stopped between two steps, by `break` or an exception in the caller
        if path and n + 1 < steps and parallel.rank() == 0:
            print(_how_to_resume(n + 1, steps, path, written))
        raise
    finally:
        bar.close()


def _stepper(run: Run, loss: Loss, lr: Rate, autocast) -> Callable[[int], Tensor]:
    """The function that takes one step of Adam and returns its loss."""
    joint = parallel.join(loss, run.params)
    for average in run.ema.averages if run.ema else ():
        parallel.same(average)
    precision = torch.autocast(run.device.type, autocast) if autocast else nullcontext()
    on_cpu, first = run.device.type == "cpu", True

    def step(n: int) -> Tensor:
        nonlocal first
        run.adam.zero_grad(set_to_none=True)
        with precision:
            value = joint()
        if value.ndim or not value.requires_grad:
            raise ValueError(
                f"loss() must return a scalar that depends on the parameters, got shape "
                f"{tuple(value.shape)}, requires_grad={value.requires_grad}: reduce with .mean()"
            )
        if first:
            parallel.check_different(value.detach())
            first = False
        value.backward()
        seen = parallel.mean(value.detach())
        if on_cpu:
            _check_finite(seen.item(), n)
        run.adam.param_groups[0]["lr"] = lr(n) if callable(lr) else lr
        run.adam.step()
        if run.ema:
            run.ema.update()
        return seen

    return step


def _check_finite(value: float, n: int) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"the loss is {value} at step {n + 1}: look for NaN in the data, or lower lr"
        )


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
    """A progress bar with the loss beside it, ten times a second, that never waits for a device."""

    def __init__(self, first: int, steps: int, shown: bool, device: torch.device):
        self.device, self.due, self.bar, self.event = device, 0.0, None, None
        if shown:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=steps, initial=first, desc="fit", unit="step")

    def show(self, loss: Tensor, n: int) -> None:
        now = time.perf_counter()
        if now >= self.due:
            self.due = now + 0.1
            value = self._read(loss)
            if value is not None:
                _check_finite(value, n)
                if self.bar is not None:
                    self.bar.set_postfix_str(f"loss {value:.4g}", refresh=False)
        if self.bar is not None:
            self.bar.update()

    def _read(self, loss: Tensor) -> float | None:
        """The loss, or on CUDA a recent one whose copy has arrived, or None."""
        if self.device.type == "cpu":
            return loss.item()
        if self.device.type != "cuda":
            return None
        if self.event is None:
            self.host = torch.empty_like(loss, device="cpu", pin_memory=True)
        elif not self.event.query():
            return None
        value = None if self.event is None else self.host.item()
        self.host.copy_(loss, non_blocking=True)
        self.event = torch.cuda.Event()
        self.event.record()
        return value

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
