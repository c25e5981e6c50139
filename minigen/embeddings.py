"""Time as features: cosines and sines at many frequencies."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

Rows = Float[Tensor, "R E"]  # one row for the whole batch (R = 1) or one a sample (R = B)


class Frequencies(nn.Module):
    """(cos ωt, sin ωt) for the frequencies ω given, in radians per unit of t: (R,) -> (R, 2n).

    ω is saved with the net, and the phase is computed in the wider of float32 and t's dtype,
    whatever dtype the net is cast to: in bfloat16, ωt = 100 may be wrong by a quarter radian.
    """

    def __init__(self, frequencies: Float[Tensor, " n"]):
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def _apply(self, fn, recurse=True):  # what .to() calls: move with the net, never be rounded
        exact = self.frequencies
        super()._apply(fn, recurse)
        if not exact.is_meta:
            self.frequencies = exact.to(self.frequencies.device)
        return self

    def forward(self, t: Float[Tensor, " R"]) -> Rows:
        phase = t[:, None] * self.frequencies
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


class Sinusoidal(Frequencies):
    """Time embedding with dim/2 frequencies ω spaced geometrically: (R,) -> (R, dim).

    ω = lowest, …, highest in radians per unit of t. With t in [0, 1], the default tells t = 0 from
    t = 0.001 and, through its slow end, every t from every other. Raises ValueError for an odd dim.
    Source: Vaswani et al. 2017, section 3.5; for time as in Ho et al. 2020, appendix B.
    """

    def __init__(self, dim: int = 64, lowest: float = 1.0, highest: float = 100.0):
        if dim < 4 or dim % 2:
            raise ValueError(f"a sinusoidal embedding needs an even dim of at least 4, got {dim}")
        ends = math.log(lowest), math.log(highest)
        super().__init__(torch.linspace(*ends, dim // 2).exp())


class Fourier(Frequencies):
    """Time embedding with dim/2 random frequencies ω ~ N(0, scale²): (R,) -> (R, dim).

    Raises ValueError for an odd dim.
    Source: Tancik et al. 2020, equation 5; for time as in Song et al. 2021, appendix G.
    """

    def __init__(
        self, dim: int = 64, scale: float = 16.0, *, generator: torch.Generator | None = None
    ):
        if dim < 2 or dim % 2:
            raise ValueError(f"a Fourier embedding needs an even dim of at least 2, got {dim}")
        super().__init__(scale * torch.randn(dim // 2, generator=generator))
