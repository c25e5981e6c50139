"""The losses of a step as they are shown: by name, in a bar, and refused once no longer finite."""

import math
import time

import torch
from torch import Tensor

from minigen.shapes import readable

Values = Tensor | tuple[Tensor, ...]  # a step's loss, or a NamedTuple of several


def parts(values: Values) -> dict[str, Tensor]:
    """The losses of a step by the name of whose they are; one alone has none."""
    return values._asdict() if isinstance(values, tuple) else {"": values}


def check_value(value: float, n: int, who: str) -> None:
    """Raises ValueError where a loss is no longer finite."""
    if not math.isfinite(value):
        whose = f"the {who}'s loss" if who else "the loss"
        raise ValueError(
            f"{whose} is {value} at step {n + 1}: look for NaN in the data, or lower lr"
        )


def check_all(values: Values, n: int) -> None:
    """`check_value` of each loss of a step; waits for the device."""
    for who, value in parts(values).items():
        check_value(value.item(), n, who)


class Bar:
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
            named = parts(values)
            numbers = self._read(torch.stack([*named.values()]))
            for who, number in zip(named, numbers, strict=False):
                check_value(number, n, who)
            if self.bar is not None and numbers:
                pairs = zip(named, numbers, strict=True)
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
