"""The tensors of the course: their shapes, how coefficients meet them, and what is checked of them.

Values are looked at on the CPU only (`readable`); shapes and dtypes everywhere.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

X = Float[Tensor, "B *D"]  # any data shape: (B, 2) points, (B, 1, 8, 8) digits
Time = Float[Tensor, ""] | Float[Tensor, "B"]  # 0 = data, 1 = noise
Label = Int[Tensor, "B"]

Denoiser = Callable[[X, Time], X]  # (xt, t) -> E[x0 | xt]: the only thing a sampler calls
Net = Callable[..., X]  # net(xt, t, label=None)


# Coefficients and noise -------------------------------------------------------------------------


def per_sample(c: Tensor, x: Tensor) -> Tensor:
    """c of shape () or (B,), with axes of 1 behind it to meet x of shape (B, *D)."""
    return c.reshape(c.shape + (1,) * (x.ndim - 1)) if c.ndim else c


def like(coef: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A coefficient () or (B,) in the dtype of x, ready to multiply x of shape (B, *D)."""
    return per_sample(coef.to(x.dtype), x)


def wide(t: Tensor) -> Tensor:
    """t in float64, for coefficients that are small differences; on MPS, which has none, t."""
    return t if t.device.type == "mps" else t.double()


def clock(ts: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """The times of a grid one by one, where x lives; never rounded below float32."""
    return ts.to(x.device, torch.promote_types(x.dtype, torch.float32)).unbind()


def noise(x: Float[Tensor, "..."], *, generator: torch.Generator | None = None):
    """A draw of N(0, I) with the shape, dtype and device of x."""
    check_generator(x, generator)
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


# What is checked --------------------------------------------------------------------------------


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: on the CPU, for elsewhere the look waits for the device."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_generator(x: Tensor, generator: torch.Generator | None) -> None:
    """Raises ValueError where the generator lives on another device than x."""
    if generator is not None and generator.device.type != x.device.type:
        raise ValueError(
            f"the generator is on {generator.device} but the data is on {x.device}: "
            f"make it with torch.Generator('{x.device.type}')"
        )


def check_finite(x: Tensor) -> Tensor:
    """x itself; raises ValueError, with how many and where first, if it holds NaN or infinity."""
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        first = bad.reshape(len(x), -1).any(dim=1).nonzero()[0].item()
        raise ValueError(
            f"the data holds {int(bad.sum())} values that are not finite (NaN or infinity), "
            f"the first in sample {first}"
        )
    return x


def check_time(t) -> Tensor:
    """t itself; raises TypeError or ValueError unless it is a float tensor () or (B,) in [0, 1]."""
    if not isinstance(t, Tensor) or not t.is_floating_point():
        raise TypeError(f"t must be a float tensor of shape () or (B,), got {t!r}")
    if t.ndim > 1:
        raise ValueError(f"t must have shape () or (B,), got {tuple(t.shape)}")
    if readable(t) and t.numel():
        low, high = t.aminmax()
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(
                f"t must lie in [0, 1] (0 = data, 1 = noise), got values from {float(low):g} to "
                f"{float(high):g}; for DDPM step i of T, t = i / T"
            )
    return t


def check_falls(x, name: str, rule: str, hint: str) -> Float[Tensor, " N"]:
    """x in float64 on the CPU; raises TypeError or ValueError unless 1-D, not empty and falling."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a float tensor, got {getattr(x, 'dtype', x)}")
    x = x.detach().cpu().double()
    if x.ndim != 1 or not len(x):
        raise ValueError(f"{name} must have shape (N,), got {tuple(x.shape)}")
    rises = (~(x.diff() < 0)).nonzero()
    if len(rises):
        i = int(rises[0])
        raise ValueError(
            f"{rule}, but {name}[{i}] = {x[i]:g} is followed by {name}[{i + 1}] = {x[i + 1]:g}; "
            f"did you mean {hint}?"
        )
    return x


def check_grid(ts) -> Float[Tensor, " N"]:
    """A sampler's grid in float64 on the CPU, where its coefficients are computed, once.

    Raises TypeError or ValueError unless ts is 1-D, of two times or more, falling, in [0, 1].
    """
    rule = "ts must decrease from noise (1) to data (0)"
    ts = check_falls(ts, "ts", rule, "torch.linspace(1, 0, n + 1)")
    if len(ts) < 2 or not bool(((ts >= 0) & (ts <= 1)).all()):
        raise ValueError(f"ts must hold at least two times, all in [0, 1], got {ts.tolist()}")
    return ts


def check_batch(x, name: str) -> None:
    """Raises TypeError or ValueError unless x holds samples, floats of shape (B, ...)."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} must be a float tensor of shape (B, ...), got {got}")
    if not x.ndim or not len(x):
        raise ValueError(f"{name} holds no samples: shape {tuple(x.shape)}; is its class empty?")


def check_alike(x: Tensor, y: Tensor, names: str) -> None:
    """Raises ValueError where two batches that belong together differ in shape."""
    if x.shape != y.shape:
        raise ValueError(f"{names} share one shape, got {tuple(x.shape)} and {tuple(y.shape)}")


def check_count(n, name: str = "n") -> None:
    """Raises ValueError unless n is a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {n!r}")
