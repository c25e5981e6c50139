"""Where a run takes place: its device, and other processes, as torchrun starts them."""

import atexit
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import overload

import torch
import torch.distributed as dist
from torch import Tensor, nn


def device() -> torch.device:
    """The best device there is: CUDA (under torchrun this process's own), MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def rank() -> int:
    """The number of this process, 0 to world() - 1."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def check_start() -> None:
    """Raises RuntimeError where Slurm has started several tasks that know nothing of each other."""
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    if world() < tasks:
        raise RuntimeError(
            f"Slurm gave {tasks} tasks, but this process is one of {world()}: each task would "
            f"train alone. Let torchrun start them, as examples/train_glyphs.slurm does; or, if "
            f"this process is the only one, unset SLURM_NTASKS"
        )


@overload
def shard(x: Tensor, /) -> Tensor:
    """Of one tensor, its slice."""


@overload
def shard(x: Tensor, y: Tensor, /, *more: Tensor) -> tuple[Tensor, ...]:
    """Of several, their slices."""


def shard(*tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """This process's equal slice of a batch that all processes drew alike: (B, …) -> (B/world, …).

    Draw the joint batch with a common seed, then shard it: the run equals one process with the
    joint batch. Outside torchrun the tensors come back as they are. Raises ValueError where the
    batch does not split evenly, since then the mean of the means is not the mean.
    """
    n, parts = world(), []
    if n == 1:
        return tensors[0] if len(tensors) == 1 else tensors
    for x in tensors:
        if len(x) % n:
            raise ValueError(f"a batch of {len(x)} does not split evenly over {n} processes")
        size = len(x) // n
        parts.append(x[rank() * size : (rank() + 1) * size])
    return parts[0] if len(parts) == 1 else tuple(parts)


def begin(tensors: Iterable[Tensor]) -> None:
    """Join the other processes, and start from the tensors of process 0."""
    if world() == 1:
        return
    tensors = list(tensors)
    if not dist.is_initialized():
        cuda = tensors[0].device.type == "cuda"
        if cuda:
            torch.cuda.set_device(tensors[0].device)
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(leave)
    for x in tensors:
        dist.broadcast(x.detach(), 0)


def leave() -> None:
    """Part from the others, together: who goes first cuts off what another has yet to receive."""
    if not dist.is_initialized():
        return
    if dist.get_backend() == "gloo":
        if getattr(sys, "last_value", None) is None:
            with suppress(RuntimeError):  # not all came: one has failed
                dist.monitored_barrier(timeout=timedelta(seconds=20))
        # To let its last tensors go, a thread needs the interpreter, which torch 2.6 keeps while it
        # waits for the threads to end: for ever.
        time.sleep(0.1)
    dist.destroy_process_group()


def average(params: Sequence[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, where one that some lack counts as 0.

    What has a gradient nowhere is left without, so that Adam passes it over as on one process.
    Only to tell that of a parameter without a gradient here does it wait for the device.
    """
    if world() == 1:
        return
    lacking = [i for i, p in enumerate(params) if p.grad is None]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
    there = torch.ones(len(params), dtype=grads[0].dtype, device=grads[0].device)
    for i in lacking:
        there[i] = 0
    # one message, not one a parameter
    *parts, there = mean(torch.cat([g.flatten() for g in (*grads, there)])).split(
        [*(p.numel() for p in params), len(params)]
    )
    used = there.tolist() if lacking else [1] * len(params)
    for p, part, some in zip(params, parts, used, strict=True):
        p.grad = part.view_as(p).to(p.dtype) if some else None


@torch.no_grad()
def settle(buffers: Iterable[Tensor]) -> None:
    """Replace buffers, such as running statistics of each one's data, by their means over all."""
    if world() > 1:
        for x in buffers:
            if x.is_floating_point():
                x.copy_(mean(x))


def mean(x: Tensor) -> Tensor:
    """The mean of x over all processes."""
    if world() > 1:
        x = x.clone()
        dist.all_reduce(x)
        x /= world()
    return x


def gather(x: object) -> list:
    """What each process calls x, in the order of their numbers."""
    everyone = [x] * world()
    if world() > 1:
        dist.all_gather_object(everyone, x)
    return everyone


def joined(values, first: bool):
    """A step's loss, or its several, as means over all processes.

    Raises ValueError where in the first step all have the very same: they drew the same batch.
    """
    if world() == 1:
        return values
    several = values if isinstance(values, tuple) else (values,)
    if first and len({*gather(tuple(x.item() for x in several))}) == 1:
        raise ValueError(
            f"all {world()} processes have the same loss {several[0].item()}, so they work on the "
            f"same batch: give each its part with train.shard(x0, eps, t)"
        )
    means = [mean(x) for x in several]
    return type(values)(*means) if isinstance(values, tuple) else means[0]
