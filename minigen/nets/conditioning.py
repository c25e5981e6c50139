"""What every net shares: time as features, labels, and the checks of its input."""

import inspect
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import check_count, check_tensor, check_time, readable

Rows = Float[Tensor, "R E"]  # one row for the whole batch (R = 1) or one a sample (R = B)


class Frequencies(nn.Module):
    """Time as cosines and sines at the frequencies ω given, in radians per unit of t.

    (cos ωt, sin ωt): (R,) -> (R, 2n).
    ω is saved with the net, and the phase is computed in the wider of float32 and t's dtype,
    whatever dtype the net is cast to: in bfloat16, ωt = 100 may be wrong by a quarter radian.
    """

    def __init__(self, frequencies: Float[Tensor, " n"]):
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def _apply(self, fn, recurse=True):  # what .to() calls: move with the net, never be rounded
        exact = self.frequencies
        super()._apply(fn, recurse)
        if not exact.is_meta or self.frequencies.is_meta:
            self.frequencies = exact.to(self.frequencies.device)
        return self

    def forward(self, t: Float[Tensor, " R"]) -> Rows:
        phase = t[:, None] * self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


class Sinusoidal(Frequencies):
    """Time embedding with dim/2 frequencies ω spaced geometrically: (R,) -> (R, dim).

    ω = lowest, …, highest in radians per unit of t. With t in [0, 1], the default tells t = 0 from
    t = 0.001 and, through its slow end, every t from every other.
    [Vaswani et al. 2017, section 3.5; for time as in Ho et al. 2020, appendix B]
    """

    def __init__(self, dim: int = 64, lowest: float = 1.0, highest: float = 100.0):
        if dim < 4 or dim % 2:
            raise ValueError(f"a sinusoidal embedding needs an even dim of at least 4, got {dim}")
        ends = math.log(lowest), math.log(highest)
        super().__init__(torch.linspace(*ends, dim // 2).exp())


class Fourier(Frequencies):
    """Time embedding with dim/2 random frequencies ω ~ N(0, scale²): (R,) -> (R, dim).

    [Tancik et al. 2020, equation 5; for time as in Song et al. 2021, appendix G]
    """

    def __init__(
        self, dim: int = 64, scale: float = 16.0, *, generator: torch.Generator | None = None
    ):
        if dim < 2 or dim % 2:
            raise ValueError(f"a Fourier embedding needs an even dim of at least 2, got {dim}")
        super().__init__(scale * torch.randn(dim // 2, generator=generator))


class Rebuildable(nn.Module):
    """A net that remembers its `arguments`, those it was made with: `train.rebuild` needs them."""

    def __new__(cls, *given, **named):
        net = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(net, *given, **named).arguments
        net.arguments = dict([*bound.items()][1:])
        return net


class Conditioned(Rebuildable):
    """What every denoising net shares: the checks of its input, time and label as rows of `width`.

    `shape` is the shape of one sample: an int D, or a tuple such as (1, 8, 8). `classes=K` adds K
    labels and the null label K, which stands in where label is None. `embedding` is any function
    (R,) -> (R, E) of t, by default Sinusoidal(64). `out=2` doubles the first data axis of the
    result, for a net that also predicts a variance.
    """

    def __init__(self, shape, width: int, classes: int | None, embedding: Callable | None, out=1):
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        for n in (len(self.shape), *self.shape, out, 1 if classes is None else classes):
            check_count(n, "each of shape, out and classes")
        self.out_shape = (out * self.shape[0], *self.shape[1:])
        self.classes = classes
        self.embedding = Sinusoidal(64) if embedding is None else embedding
        self.time = nn.Linear(self.embedding(torch.zeros(1)).shape[-1], width)
        self.label = None if classes is None else nn.Embedding(classes + 1, width)

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | int | None = None) -> Tensor:
        """The prediction at xt (B, *shape), t () or (B,), label None, an int or int64 (B,).

        Values of t and label are checked on the CPU only, since the look would stall a GPU.
        """
        rows = self.time_rows(xt, t)
        if self.label is not None:
            rows = rows + self._embed_label(label, len(xt))
        elif label is not None:
            raise ValueError("this net was made without classes and takes no label: classes=K")
        return self.body(xt, rows)

    def time_rows(self, xt: Tensor, t: Tensor) -> Rows:
        """The row of the one time, or of each sample's; raises where xt or t does not fit."""
        self._check_data(xt)
        check_time(t)
        if t.ndim and len(t) != len(xt):
            raise ValueError(f"t must have shape () or ({len(xt)},), got {tuple(t.shape)}")
        return self.time(self.embedding(t.reshape(-1)).to(self.time.weight.dtype))

    def _check_data(self, xt: Tensor) -> None:
        weight = self.time.weight
        check_tensor(xt, "xt")
        if xt.shape[1:] != self.shape:
            raise ValueError(
                f"xt must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(xt.shape)}"
            )
        if xt.device != weight.device:
            raise ValueError(f"xt is on {xt.device} but the net on {weight.device}: net.to(device)")
        if xt.dtype != weight.dtype and not torch.is_autocast_enabled(xt.device.type):
            raise TypeError(f"xt is {xt.dtype} but the net is {weight.dtype}: use net.to(xt.dtype)")

    def _embed_label(self, label: Tensor | int | None, n: int) -> Rows:
        """The null label's row, one label's row, or a row for each sample."""
        if label is None:
            return self.label.weight[self.classes :]
        if isinstance(label, int):
            self._check_range(label, label)
            return self.label.weight[label][None]
        if not isinstance(label, Tensor) or label.dtype not in (torch.int64, torch.int32):
            got = label.dtype if isinstance(label, Tensor) else label
            raise TypeError(f"label must be an int or an int64 tensor of shape ({n},), got {got}")
        if label.shape not in ((), (n,)):
            raise ValueError(f"label must have shape ({n},) as xt has, got {tuple(label.shape)}")
        if readable(label) and label.numel():
            self._check_range(int(label.min()), int(label.max()))
        return self.label(label.reshape(-1))

    def _check_range(self, low: int, high: int) -> None:
        if low < 0 or high > self.classes:
            wrong = low if low < 0 else high
            raise ValueError(f"label {wrong} is out of range for a net with {self.classes} classes")


def zero(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters zero, so that a net ends in zeros at birth."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
