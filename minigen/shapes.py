"""The tensors of the course: their shapes, the one broadcasting helper, the one noise draw."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

X = Float[Tensor, "B *D"]  # any data shape: (B, 2) points, (B, 1, 8, 8) digits
Time = Float[Tensor, ""] | Float[Tensor, "B"]  # 0 = data, 1 = noise
Label = Int[Tensor, "B"]

Denoiser = Callable[[X, Time], X]  # (xt, t) -> E[x0 | xt]: the only thing a sampler calls
Net = Callable[..., X]  # net(xt, t, label=None)


def like(coef: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A coefficient () or (B,) in the dtype of x, ready to multiply x of shape (B, *D)."""
    return coef.to(x.dtype).reshape(coef.shape + (1,) * (x.ndim - 1) if coef.ndim else ())


def noise(x: Float[Tensor, "..."], *, generator: torch.Generator | None = None):
    """A draw of N(0, I) with the shape, dtype and device of x.

    Raises ValueError where the generator lives on another device than x.
    """
    if generator is not None and generator.device.type != x.device.type:
        raise ValueError(
            f"the generator is on {generator.device} but the data is on {x.device}: "
            f"make it with torch.Generator('{x.device.type}')"
        )
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def wide(t: Tensor) -> Tensor:
    """t in float64, for coefficients that are small differences; on MPS, which has none, t."""
    return t if t.device.type == "mps" else t.double()


def check_time(t) -> Tensor:
    """t itself, if it is a float tensor of shape () or (B,) with values in [0, 1].

    Raises TypeError for anything but a float tensor and ValueError outside [0, 1]. Values are
    looked at on the CPU only: on an accelerator the look would wait for the device.
    """
    if not isinstance(t, Tensor) or not t.is_floating_point():
        raise TypeError(f"t must be a float tensor of shape () or (B,), got {t!r}")
    if t.ndim > 1:
        raise ValueError(f"t must have shape () or (B,), got {tuple(t.shape)}")
    if t.device.type == "cpu" and not torch.compiler.is_compiling():
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise ValueError(
                f"t must lie in [0, 1] (0 = data, 1 = noise), got values from "
                f"{float(t.min()):g} to {float(t.max()):g}; for DDPM step i of T, t = i / T"
            )
    return t


def check_grid(ts: Tensor) -> Float[Tensor, " N"]:
    """A sampler's time grid as float64 on the CPU: its coefficients are computed there, once.

    Raises TypeError or ValueError unless ts is 1-D, of two times or more, falling, in [0, 1].
    """
    if not isinstance(ts, Tensor) or ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"ts must be a 1-D tensor of at least two times, got {ts!r}")
    if not ts.is_floating_point():
        raise TypeError(f"ts must hold floats such as torch.linspace(1, 0, 51), got {ts.dtype}")
    ts = ts.detach().cpu().double()
    if not bool(((ts >= 0) & (ts <= 1)).all()):
        raise ValueError(f"ts must lie in [0, 1], got times from {ts.min():g} to {ts.max():g}")
    rises = (ts.diff() >= 0).nonzero()
    if len(rises):
        i = int(rises[0])
        raise ValueError(
            f"ts must decrease from noise (1) to data (0), but ts[{i}] = {ts[i]:g} is followed "
            f"by ts[{i + 1}] = {ts[i + 1]:g}; did you mean torch.linspace(1, 0, n + 1)?"
        )
    return ts
