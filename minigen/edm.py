"""The design space of diffusion models: preconditioning, noise levels, a grid, a stochastic walk.

Divide the state by a, and every path is one: x̄ = xt/a = x0 + σ eps with σ = b/a. Karras et al. let
a network F see c_in x̄ and read D = c_skip x̄ + c_out F as E[x0 | x̄]. So F predicts
(x0 − c_skip x̄)/c_out, which is c x0 + d eps: a target like any other, with a scale of the input.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen import targets
from minigen.paths import GaussianPath, Target, reading
from minigen.shapes import (
    Denoiser,
    Label,
    Net,
    Time,
    X,
    check_batch,
    check_count,
    check_generator,
    check_grid,
    check_length,
    like,
    noise,
    readable,
    wide,
)

Number = float | Float[Tensor, ""]

# Preconditioning --------------------------------------------------------------------------------


def _positive(value, name: str) -> float:
    """The value as a float; raises TypeError unless it is one number, ValueError unless > 0."""
    if isinstance(value, Tensor) and not value.ndim:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} is one number, got {got}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and > 0, got {value}")
    return float(value)


def _spread(path: GaussianPath, t: Time, sigma_data: float) -> Time:
    """√(a² sigma_data² + b²): the standard deviation of xt where the data's is sigma_data."""
    return (path.b2(t) + (path.a(t) * sigma_data) ** 2).sqrt()


def coefficients(
    sigma: Float[Tensor, "*N"], sigma_data: Number
) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"], Float[Tensor, "*N"]]:
    """(c_skip, c_out, c_in) of D(x̄; σ) = c_skip x̄ + c_out F(c_in x̄, σ), for x̄ = x0 + σ eps.

    c_skip = s²/(σ² + s²), c_out = σs/√(σ² + s²), c_in = 1/√(σ² + s²), where s = sigma_data.

    For data of mean 0 and variance s², F sees and predicts unit variance at every σ, and this
    c_skip makes c_out, by which F's error is multiplied, as small as it can be. Raises ValueError
    for sigma_data ≤ 0, a negative σ or NaN. [Karras et al. 2022, table 1 and appendix B.6]
    """
    s = _positive(sigma_data, "sigma_data")
    if not isinstance(sigma, Tensor) or not sigma.is_floating_point():
        raise TypeError(f"sigma must be a float tensor, got {sigma!r}: use torch.as_tensor")
    if readable(sigma) and not bool((sigma >= 0).all()):  # NaN is not
        raise ValueError(f"sigma holds {float(sigma[~(sigma >= 0)][0]):g}: a noise level is ≥ 0")
    c_skip, c_out = 1 / (1 + (sigma / s) ** 2), s / (1 + (s / sigma) ** 2).sqrt()  # also at 0 and ∞
    return c_skip, c_out, 1 / (sigma**2 + s**2).sqrt()


@dataclass(frozen=True)
class _Preconditioned:
    """`target(sigma_data)`: a value, so that two of one sigma_data are equal."""

    sigma_data: float

    def __call__(self, path: GaussianPath, t: Time) -> tuple[Time, Time]:
        spread = _spread(path, t, self.sigma_data)
        return path.b(t) / (self.sigma_data * spread), -self.sigma_data * path.a(t) / spread

    @property
    def __name__(self) -> str:
        return f"edm.target({self.sigma_data:g})"


def target(sigma_data: Number) -> Target:
    """F = (x0 − c_skip x̄)/c_out: unit variance at every t, for data of mean 0 and variance s².

    (c, d) = (b/s, −a s)/√(a² s² + b²), where s = sigma_data.

    It determines x0 and eps at every t, also where a = 0 or b = 0. For s = 1 and a² + b² = 1 it is
    −v. With `scale_input`, `paths.denoiser` is EDM's D, and `targets.loss` its loss, the square
    error of D divided by c_out². Raises ValueError for sigma_data ≤ 0.
    [Karras et al. 2022, eq. 7 and 8]
    """
    return _Preconditioned(_positive(sigma_data, "sigma_data"))


class _Scaled(nn.Module):
    """`scale_input(net, path, sigma_data)`: the net's parameters are its own."""

    def __init__(self, net: Net, path: GaussianPath, sigma_data: float):
        super().__init__()
        self.net, self.path, self.sigma_data = net, path, sigma_data
        self.classes = getattr(net, "classes", None)  # for `guidance.cfg`, which asks both at once

    def forward(self, xt: X, t: Time, label: Label | None = None) -> X:
        check_batch(xt, "xt")
        spread = _spread(self.path, t, self.sigma_data)  # which checks t, but for its length
        if spread.ndim:
            check_length(spread, xt, "times")
        scaled = xt / like(spread, xt)
        return self.net(scaled, t) if label is None else self.net(scaled, t, label)


def scale_input(net: Net, path: GaussianPath, sigma_data: Number) -> Net:
    """The net that sees c_in x̄ = xt/√(a² sigma_data² + b²): unit variance at every t, any path.

    (xt, t, label) -> net(c_in x̄, t, label).

    A module with the parameters of net, which `train.fit` then trains; finite also where a = 0.
    Raises ValueError for sigma_data ≤ 0. [Karras et al. 2022, eq. 7]
    """
    if not callable(net):
        raise TypeError(f"a net is a function of (xt, t, label), got {net!r}")
    return _Scaled(net, path, _positive(sigma_data, "sigma_data"))


# Noise levels -----------------------------------------------------------------------------------


def log_normal_times(
    path: GaussianPath,
    n: int,
    mean: float = -1.2,
    std: float = 1.2,
    *,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n"]:
    """n times with log σ ~ N(mean, std²), σ = b/a: most of the training near one noise level.

    A level beyond the path counts as the path's last or first. On the generator's device. Raises
    ValueError for n < 1 or std ≤ 0. [Karras et al. 2022, table 1]
    """
    check_count(n)
    std = _positive(std, "std")
    if not math.isfinite(mean):
        raise ValueError(f"log σ needs a finite mean, got {mean}")
    device = generator.device if generator else "cpu"
    sigma = torch.exp(mean + std * torch.randn(n, generator=generator, device=device))
    low, high = path.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    return path.time(wide(sigma).clamp(low, high)).to(sigma.dtype)


def grid(
    path: GaussianPath, n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " N"]:
    """The times of Karras's n levels, from sigma_max to sigma_min, and then 0; (n + 1,) float64.

    σ_i = (σ_max^{1/ρ} + i/(n − 1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ for i < n.

    ρ = 1 spaces σ evenly; a larger one puts more of the steps near the data, up to equal ratios
    as ρ → ∞. One step goes from sigma_max to 0. Raises ValueError for n < 1, rho ≤ 0, levels that
    do not fall, and for a level that the path does not reach. [Karras et al. 2022, eq. 5]
    """
    check_count(n)
    rho = _positive(rho, "rho")
    low, high = _positive(sigma_min, "sigma_min"), _positive(sigma_max, "sigma_max")
    first = float(path.sigma(torch.zeros((), dtype=torch.float64)))
    if not first < low < high:
        end = f", and above {first:g}, where {path} ends" if first else ""
        raise ValueError(
            f"levels fall from sigma_max to sigma_min{end}; got sigma_max {high:g}, "
            f"sigma_min {low:g}"
        )
    levels = torch.linspace(high ** (1 / rho), low ** (1 / rho), n, dtype=torch.float64) ** rho
    levels[-1], levels[0] = low, high  # as given, not as their roots round
    return torch.cat([path.time(levels), levels.new_zeros(1)])


# The stochastic walk ----------------------------------------------------------------------------


def _raised(path: GaussianPath, ts: Tensor, churn: float, s_min: float, s_max: float):
    """The times of the raised levels σ̂ = (1 + γ) σ of ts, and γ; raises ValueError off the path."""
    sigma = path.sigma(ts)
    gamma = torch.full_like(sigma, min(churn / len(ts), math.sqrt(2) - 1))
    gamma = torch.where((sigma >= s_min) & (sigma <= s_max), gamma, 0.0)
    far, end = sigma * (1 + gamma), float(path.sigma(torch.ones_like(ts[0])))
    beyond = (gamma > 0) & ~((far <= end) & torch.isfinite(far))
    if bool(beyond.any()):
        i = int(beyond.nonzero()[0])
        raise ValueError(
            f"churn raises sigma = {sigma[i]:.4g} at ts[{i}] = {ts[i]:.4g} to {far[i]:.4g}, but "
            f"{path} ends at sigma = {end:.4g}: start lower, or churn only below some s_max"
        )
    return torch.where(gamma > 0, path.time(far), ts), gamma


def stochastic(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    churn: float,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """Each step first goes back to a higher noise level, then down by Heun's method; yields states.

    σ̂ = (1 + γ) σ, x̂ = (â/a) x + â √(σ̂² − σ²) s_noise z, then a step of `flow.heun` from t̂ to s.

    γ = min(churn/n, √2 − 1) at the levels in [s_min, s_max], else 0; t̂ is the path's time of σ̂, â
    its a. On `paths.EDM` this is Karras's algorithm; on another path x̂ is the draw of q(x_t̂ | x_t),
    and the ODE is walked in that path's time. churn = 0 is `flow.heun` and draws nothing.

    Raises ValueError for churn < 0, s_noise ≤ 0, s_min > s_max, and where σ̂ lies beyond the path.
    [Karras et al. 2022, Algorithm 2]
    """
    check_batch(xT, "xT")
    check_generator(xT, generator)
    ts, s_noise = check_grid(ts), _positive(s_noise, "s_noise")
    if not churn >= 0 or not 0 <= s_min <= s_max:
        raise ValueError(
            f"a walk needs churn ≥ 0 and 0 ≤ s_min ≤ s_max, got churn {churn}, s_min {s_min}, "
            f"s_max {s_max}"
        )
    n, corrected = len(ts) - 1, len(ts) - 1 if path.b(ts[-1]) > 0 else len(ts) - 2
    t, gamma = _raised(path, ts[:-1], churn, s_min, s_max)
    up = torch.where(gamma > 0, path.a(t) / path.a(ts[:-1]), 1.0)
    std = torch.where(gamma > 0, s_noise * path.b(ts[:-1]) * up * (gamma * (2 + gamma)).sqrt(), 0.0)
    up, std, steps = up.tolist(), std.tolist(), (ts[1:] - t).tolist()
    u, _ = reading(denoise, path, targets.velocity).prepared(
        torch.cat([t, ts[1 : corrected + 1]]), xT
    )

    def states() -> Iterator[X]:
        x = xT
        for i, h in enumerate(steps):
            with torch.no_grad():
                if std[i]:
                    x = torch.add(x * up[i], noise(x, generator=generator), alpha=std[i])
                slope = u(x, i)
                y = torch.add(x, slope, alpha=h)
                x = torch.add(x, slope + u(y, n + i), alpha=h / 2) if i < corrected else y
            yield x

    return states()
