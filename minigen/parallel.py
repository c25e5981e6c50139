"""One training run on several processes, as torchrun starts them; outside torchrun, nothing."""

import atexit
import os
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """The number of this process, 0 to world() - 1."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


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


class _Owner(nn.Module):
    """A loss without arguments that owns the parameters it reaches by closure, for DDP to hook."""

    def __init__(self, loss: Callable[[], Tensor], params: Sequence[nn.Parameter]):
        super().__init__()
        self.loss, self.params = loss, nn.ParameterList(params)

    def forward(self) -> Tensor:
        return self.loss()


def join(loss: Callable[[], Tensor], params: Sequence[nn.Parameter]) -> Callable[[], Tensor]:
    """The loss, such that its backward pass averages the gradients over all processes.

    Every process then starts from the weights of process 0. Source: Li et al. 2020, PyTorch
    Distributed.
    """
    if world() == 1:
        return loss
    if not dist.is_initialized():
        cuda = params[0].device.type == "cuda"
        if cuda:
            torch.cuda.set_device(params[0].device)
        dist.init_process_group("nccl" if cuda else "gloo")
        atexit.register(dist.destroy_process_group)
    return nn.parallel.DistributedDataParallel(_Owner(loss, params))


def mean(loss: Tensor) -> Tensor:
    """The mean over all processes of a detached loss."""
    if world() > 1:
        loss = loss.clone()
        dist.all_reduce(loss)
        loss /= world()
    return loss


def same(x: Tensor) -> None:
    """Make x on every process what it is on process 0."""
    if world() > 1:
        dist.broadcast(x, 0)


def gather(x: object) -> list:
    """What each process calls x, in the order of their numbers."""
    everyone = [x] * world()
    if world() > 1:
        dist.all_gather_object(everyone, x)
    return everyone


def check_different(loss: Tensor) -> None:
    """Raise ValueError where all processes have the very same loss: they drew the same batch."""
    if world() > 1 and len(set(gather(loss.item()))) == 1:
        raise ValueError(
            f"all {world()} processes have the same loss {loss.item()}, so they work on the same "
            f"batch: give each its part with train.shard(x0, eps, t)"
        )
