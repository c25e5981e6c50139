"""Rectified flow: straight lines from data to noise, and the ODE whose velocity is their mean.

On xt = (1 − t) x0 + t eps each pair moves with eps − x0. Its regression on (xt, t) is u(x, t) =
E[eps − x0 | xt = x], which carries the same marginals: dx/dt = u from t = 1 to 0 turns noise into
data. Any denoiser on any Gaussian path gives such a field, so the samplers here take all of them.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, Linear, reading, walk
from minigen.shapes import (
    Denoiser,
    Label,
    Net,
    Time,
    X,
    check_batch,
    check_count,
    check_grid,
    check_pair,
    check_time,
    clock,
)

Velocity = Callable[[X, Time], X]  # (xt, t) -> dxt/dt
LIMIT = 1024  # samples that the exact assignment, O(B³), accepts: half a second, twice as many five


# Learning ---------------------------------------------------------------------------------------


def loss(net: Net, x0: X, eps: X, t: Time, label: Label | None = None) -> Float[Tensor, "B"]:
    """‖net(xt, t, label) − (eps − x0)‖² / D at xt = (1 − t) x0 + t eps: the mean over data axes.

    Its least mean is that of Var(eps − x0 | xt), zero at neither end.
    [Liu et al. 2022, eq. 1, time reversed]
    """
    return targets.loss(net, Linear(), targets.velocity, x0, eps, t, label)


def uniform_times(n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n"]:
    """n times from the uniform law on [0, 1), on the generator's device; ValueError for n < 1."""
    check_count(n)
    return torch.rand(n, generator=generator, device=generator.device if generator else "cpu")


def logit_normal_times(
    n: int, mean: float = 0.0, std: float = 1.0, *, generator: torch.Generator | None = None
) -> Float[Tensor, "n"]:
    """n times t = sigmoid(mean + std z), z ~ N(0, 1): most of them midway, mean > 0 nearer noise.

    A shift by a ratio adds log ratio to `mean`. On the generator's device. Raises ValueError for
    n < 1 or std ≤ 0. [Esser et al. 2024, eq. 19]
    """
    check_count(n)
    if not 0 < std < math.inf or not math.isfinite(mean):
        raise ValueError(f"times need a finite mean and a std > 0, got mean {mean}, std {std}")
    device = generator.device if generator else "cpu"
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator, device=device))


# The grid ---------------------------------------------------------------------------------------


def shift(t: Time, ratio: float) -> Time:
    """ratio t / (1 + (ratio − 1) t): logit t + log ratio, so that shifts compose by product.

    The mean of n pixels seen at noise t is known to within t/((1 − t) √n), so n′ pixels at the time
    shifted by √(n′/n) are as hard as n at t. Raises ValueError for ratio ≤ 0 or t outside [0, 1].
    [Esser et al. 2024, eq. 23]
    """
    if not 0 < ratio < math.inf:
        raise ValueError(f"a shift needs a finite ratio > 0, got {ratio}")
    far = ratio * check_time(t)
    return far / ((1 - t) + far)  # never beyond 1, as the formula above can be by rounding


def grid(n: int, shift: float = 1.0) -> Float[Tensor, " N"]:
    """n steps from t = 1 to 0: n + 1 equal times, moved by `shift`; (n + 1,) float64.

    Raises ValueError for n < 1 or shift ≤ 0.
    """
    check_count(n)
    return _shift(torch.linspace(1, 0, n + 1, dtype=torch.float64), shift)


_shift = shift  # grid's parameter has the same name


# The ODE ----------------------------------------------------------------------------------------


def velocity(denoise: Denoiser, path: GaussianPath) -> Velocity:
    """E[dxt/dt | xt] = a′ x̂0 + b′ (xt − a x̂0)/b, as (xt, t) -> (B, *D): (xt − x̂0)/t if linear.

    A denoiser that is read off a velocity network gives what the network says, also at t = 0;
    any other raises ValueError at a time with b = 0. [Lipman et al. 2023]
    """
    return reading(denoise, path, targets.velocity)


def euler(denoise: Denoiser, path: GaussianPath, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """Euler's method for the ODE, along a falling grid; yields each state.

    x ← x + (s − t) u(x, t).

    Order 1, one evaluation a step, at its upper end, so never at t = 0. On the linear path it is
    `ddim.sample`.
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    return walk(velocity(denoise, path), xT, ts[:-1], 1.0, ts.diff())


def heun(denoise: Denoiser, path: GaussianPath, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """An Euler step, then one with the mean of the slopes at its two ends; yields each state.

    y = x + (s − t) u(x, t), x ← x + ½ (s − t) (u(x, t) + u(y, s)).

    Order 2, two evaluations a step. A last step to b = 0, where u cannot be read, stays Euler's: n
    steps cost 2n − 1 evaluations. On a β-table of T steps, whose ᾱ has kinks, an error of O(1/T)
    stays. [Karras et al. 2022, Algorithm 1]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    steps, corrected = ts.diff().tolist(), len(ts) - 1 if path.b(ts[-1]) > 0 else len(ts) - 2
    u, _ = velocity(denoise, path).prepared(ts[: corrected + 1], xT)

    def states() -> Iterator[X]:
        x = xT
        for i, h in enumerate(steps):
            with torch.no_grad():
                slope = u(x, i)
                y = torch.add(x, slope, alpha=h)
                x = torch.add(x, slope + u(y, i + 1), alpha=h / 2) if i < corrected else y
            yield x

    return states()


# Straightening ----------------------------------------------------------------------------------


def couple(x0: X, eps: X) -> Int[Tensor, " B"]:
    """The permutation for which Σ_i ‖x0[i] − eps[perm[i]]‖² is least: train on (x0, eps[perm]).

    Optimal transport within the batch, exactly, in O(B³) on the CPU. Raises ValueError for more
    than 1024 samples, an empty batch, shapes that differ, or NaN. [Pooladian et al. 2023; Tong et
    al. 2024]
    """
    from scipy.optimize import linear_sum_assignment

    check_pair(x0, eps)
    if len(x0) > LIMIT:
        raise ValueError(
            f"couple assigns at most {LIMIT} samples, got {len(x0)}: the exact assignment takes "
            f"O(B³), so couple parts of the batch, x0.split({LIMIT})"
        )
    x, y = (z.detach().cpu().double().reshape(len(z), -1) for z in (x0, eps))
    if not bool(torch.isfinite(x).all() & torch.isfinite(y).all()):
        raise ValueError("x0 or eps holds NaN or infinite values: there is no least cost")
    # ‖x − y‖² but for terms that every permutation has
    return torch.from_numpy(linear_sum_assignment(-(x @ y.T))[1]).to(x0.device)


def transport_cost(x0: X, eps: X) -> Float[Tensor, ""]:
    """E ‖x0 − eps‖², summed over the data axes, of a coupling's pairs; its least value is W₂².

    Raises ValueError for an empty batch or shapes that differ.
    """
    check_pair(x0, eps)
    return (x0 - eps).square().reshape(len(x0), -1).sum(1).mean()


def reflow_pairs(
    denoise: Denoiser, eps: X, ts: Float[Tensor, " N"], *, walk: Callable = heun
) -> tuple[X, X]:
    """(x0, eps) with x0 the end of the linear path's ODE from eps: what a reflow is trained on.

    `walk` is `euler` or `heun`. Raises ValueError unless ts runs from 1 to 0, and as the walk.
    [Liu et al. 2022, section 2.1]
    """
    check_batch(eps, "eps")
    ts = check_grid(ts)
    if ts[0] != 1 or ts[-1] != 0:
        raise ValueError(
            f"pairs are ends of whole walks: ts must run from 1 to 0, got {ts[0]:g} to {ts[-1]:g}"
        )
    *_, x0 = walk(denoise, Linear(), eps, ts)
    return x0, eps


def straightness(u: Velocity, x0: X, eps: X, n: int = 32) -> Float[Tensor, ""]:
    """S = ∫ E ‖(eps − x0) − u(xt, t)‖² / D dt on the lines xt = (1 − t) x0 + t eps; 0 if straight.

    The mean over pairs and data axes, as `loss`, and over n times (i + ½)/n. For N(m, s²) data
    paired with noise at random and the exact u it is πs/2; after reflow 0. `u` is a `velocity`, or
    a net trained by `loss`. Raises ValueError for n < 1 and for pairs as `loss`.
    [Liu et al. 2022, section 2.2]
    """
    check_pair(x0, eps)
    check_count(n)
    net = lambda xt, t, label: u(xt, t)
    with torch.no_grad():
        times = clock((torch.arange(n, dtype=torch.float64) + 0.5) / n, x0)
        return torch.stack([loss(net, x0, eps, t).mean() for t in times]).mean()
