"""The tensors of the course: their shapes, how coefficients meet them, and what is checked of them.

Values are looked at on the CPU only (`readable`); shapes and dtypes everywhere.
"""

import functools
import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

X = Float[Tensor, "B *D"]  # any data shape: (B, 2) points, (B, 1, 8, 8) digits
Time = Float[Tensor, ""] | Float[Tensor, "B"]  # 0 = data, 1 = noise
Label = Int[Tensor, "B"] | Int[Tensor, "B L"]  # a class, or a caption of token ids

Denoiser = Callable[[X, Time], X]  # (xt, t) -> E[x0 | xt]: the only thing a sampler calls
Net = Callable[..., X]  # net(xt, t, label=None)


# Coefficients and noise -------------------------------------------------------------------------


def per_sample(c: Tensor, x: Tensor) -> Tensor:
    """c of shape () or (B,), with axes of 1 behind it to meet x of shape (B, *D)."""
    return c.reshape(c.shape + (1,) * (x.ndim - 1)) if c.ndim else c


def like(coef: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A coefficient () or (B,) in the dtype of x, ready to multiply x of shape (B, *D)."""
    if not isinstance(coef, Tensor):
        raise TypeError(f"a coefficient is a tensor, as t is, not {coef!r}: use torch's functions")
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


@functools.cache
def forward_mode() -> None:
    """Has torch load its forward mode, which warns once of a part of torch itself (its jit)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


# What is checked --------------------------------------------------------------------------------


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: on the CPU, where no look waits for the device."""
    return x.device.type == "cpu" and not traced(x)


def traced(x: Tensor) -> bool:
    """Whether x has no values to look at, since torch compiles or transforms (vmap, jacrev)."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)


def check_generator(x: Tensor, generator: torch.Generator | None) -> None:
    """Raises ValueError where the generator lives on another device than x."""
    if generator is not None and generator.device.type != x.device.type:
        raise ValueError(
            f"the generator is on {generator.device} but the data is on {x.device}: "
            f"make it with torch.Generator('{x.device.type}')"
        )


def check_tensor(x, name: str) -> None:
    """Raises TypeError or ValueError unless x is a tensor with a first axis."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}: use torch.as_tensor")
    if not x.ndim:
        raise ValueError(f"{name} must have a first axis, got the one number {x}")


def check_finite(x, name: str = "the data") -> Tensor:
    """`check_tensor`, and raises ValueError, with how many and where first, at NaN or infinity."""
    check_tensor(x, name)
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        first = bad.reshape(len(x), -1).any(dim=1).nonzero()[0].item()
        raise ValueError(
            f"{name} holds {int(bad.sum())} values that are not finite (NaN or infinity), "
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


def check_times(t, x: Tensor) -> Tensor:
    """`check_time`, and raises ValueError where there are more or fewer times than samples of x."""
    if check_time(t).ndim:
        check_length(t, x, "times")
    return t


def check_length(c: Tensor, x: Tensor, what: str) -> None:
    """Raises ValueError where there are more or fewer of c than samples of x."""
    if len(c) != len(x):
        raise ValueError(f"{len(c)} {what} were given for a batch of {len(x)}")


def outside(ids: Tensor, limit: int) -> int | None:
    """The worst of some whole numbers that is not in 0 … limit − 1; None where all are."""
    low, high = (int(x) for x in ids.aminmax())
    if low < 0:
        return low
    return high if high >= limit else None


def check_label(label, classes: int | None = None) -> None:
    """Raises TypeError unless label is an int or an int64 tensor () or (B,); ValueError outside."""
    whole = isinstance(label, Tensor) and label.dtype in (torch.int64, torch.int32)
    if not (whole and label.ndim < 2) and (isinstance(label, bool) or not isinstance(label, int)):
        got = f"{label.dtype} {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
        raise TypeError(f"label must be an int or an int64 tensor of shape () or (B,), got {got}")
    if classes is None or (whole and not (readable(label) and label.numel())):
        return
    low, high = (int(label.min()), int(label.max())) if whole else (label, label)
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"label {wrong} is out of range for {classes} classes, 0 … {classes - 1}")


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
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a float tensor of shape (B, ...), got {got}")
    if not x.ndim or not len(x):
        raise ValueError(f"{name} holds no samples: shape {tuple(x.shape)}; is its class empty?")


def check_answer(y, x: Tensor) -> Tensor:
    """y itself, what a net or a denoiser says of x; raises unless it has x's shape and dtype."""
    if not isinstance(y, Tensor) or y.shape != x.shape:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"for states {tuple(x.shape)} the net or denoiser gave {got}")
    if y.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"for states in {x.dtype} the net or denoiser answered in {y.dtype}")
    return y


def check_dtype(net, x: Tensor) -> None:
    """Raises TypeError where net is a module and none of its parameters has the dtype of x."""
    check_tensor(x, "the data")
    weight = next(net.parameters(), None) if isinstance(net, nn.Module) else None
    if weight is None or any(p.dtype == x.dtype for p in net.parameters()):
        return
    if not torch.is_autocast_enabled(x.device.type):
        raise TypeError(
            f"the states are {x.dtype} but the net's parameters are {weight.dtype}: convert one of "
            f"them, for instance net.to({x.dtype})"
        )


def check_alike(x, y, names: str) -> None:
    """Raises ValueError or TypeError where two batches that belong together differ in kind."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise TypeError(f"{names} are tensors, got {type(x).__name__} and {type(y).__name__}")
    if x.shape != y.shape:
        raise ValueError(f"{names} share one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    if x.dtype != y.dtype:
        raise TypeError(f"{names} share one dtype, got {x.dtype} and {y.dtype}")


def check_pair(x0: Tensor, eps: Tensor, t=None) -> None:
    """Raises unless x0 and eps are batches alike, and t is a time for all or one for each."""
    check_batch(x0, "x0")
    check_batch(eps, "eps")
    check_alike(x0, eps, "x0 and eps are pairs and")
    if t is not None:
        check_times(t, x0)


def check_count(n, name: str = "n") -> None:
    """Raises ValueError unless n is a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {n!r}")
