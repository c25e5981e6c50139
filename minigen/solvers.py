"""Few calls: solvers of the probability-flow ODE of order 2.

In ℓ = log(a/b), half the log-SNR, which rises on the way to the data, the ODE is linear plus what a
network says: x_s = (b_s/b_t) x_t + b_s ∫ e^ℓ x̂0 dℓ. The first part is exact. With x̂0 constant over
the step the rest is `ddim.sample`; here x̂0 is a line in ℓ, through one more call (`dpmpp_2s`), the
last one (`dpmpp_2m`) or a derivative (`taylor`). `adaptive` chooses its own steps.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, Readout, reading
from minigen.shapes import (
    Denoiser,
    Time,
    X,
    check_batch,
    check_finite,
    check_grid,
    check_time,
    clock,
    forward_mode,
)


class _Steps(NamedTuple):
    """x ← keep x + gain x̂0 for each step of a grid, exact for a constant x̂0, and its length h.

    keep = b_s/b_t, gain = a_s − keep a_t = a_s (1 − e^−h), h = ℓ_s − ℓ_t: infinite from a = 0 and
    to b = 0, where no line in ℓ can be drawn.
    """

    keep: Float[Tensor, " N"]
    gain: Float[Tensor, " N"]
    h: Float[Tensor, " N"]


def _steps(path: GaussianPath, t: Float[Tensor, " N"], s: Float[Tensor, " N"]) -> _Steps:
    a_t, b_t, a_s, b_s = path.a(t), path.b(t), path.a(s), path.b(s)
    keep = b_s / b_t
    return _Steps(keep, a_s - keep * a_t, torch.log(a_s / b_s) - torch.log(a_t / b_t))


# A line through two values ----------------------------------------------------------------------


def dpmpp_2m(denoise: Denoiser, path: GaussianPath, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """DPM-Solver++(2M): the line through this x̂0 and the last one; yields each state.

    x ← (b_s/b_t) x + a_s (1 − e^−h) M, M = x̂0 + h/(2h₋) (x̂0 − x̂0₋), h₋ the length of the last step.

    Order 2, one evaluation a step. Of order 1 are the first step, which has no last one, the one
    after a start at a = 0, which lies infinitely far off (h₋ = ∞), and a step to b = 0 (h = ∞).
    [Lu et al. 2022b, Algorithm 2]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    keep, gain, h = _steps(path, ts[:-1], ts[1:])
    more = torch.zeros_like(h)
    more[1:] = torch.where(h[1:].isfinite(), gain[1:] * h[1:] / (2 * h[:-1]), 0.0)
    x0_hat, _ = reading(denoise, path, targets.x0).prepared(ts[:-1], xT)
    weights = [*zip(keep.tolist(), (gain + more).tolist(), more.tolist(), strict=True)]

    def states() -> Iterator[X]:
        x, before = xT, xT  # the first step's weight of `before` is 0
        for i, (kept, of_now, of_before) in enumerate(weights):
            with torch.no_grad():
                now = x0_hat(x, i)
                x = torch.add(x * kept, now, alpha=of_now)
                if of_before:
                    x.sub_(before, alpha=of_before)
                before = now
            yield x

    return states()


def dpmpp_2s(denoise: Denoiser, path: GaussianPath, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """DPM-Solver++(2S): the step is made with x̂0 at its middle in ℓ; yields each state.

    y = (b_m/b_t) x + (a_m − b_m a_t/b_t) x̂0(x, t), ℓ_m = ½(ℓ_t + ℓ_s), and then
    x ← (b_s/b_t) x + (a_s − b_s a_t/b_t) x̂0(y, m).

    Order 2, two evaluations a step. A step from a = 0 or to b = 0 has no middle: it is of order 1,
    with one evaluation. [Lu et al. 2022b, Algorithm 1, r = ½]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    t, s = ts[:-1], ts[1:]
    keep, gain, h = _steps(path, t, s)
    twice, middle = h.isfinite(), t.clone()
    middle[twice] = path.time((path.sigma(t) * path.sigma(s))[twice].sqrt())
    half = _steps(path, t, middle)
    x0_hat, _ = reading(denoise, path, targets.x0).prepared(torch.stack([t, middle], 1).ravel(), xT)
    weights = torch.stack([half.keep, half.gain, keep, gain], 1).tolist()

    def states() -> Iterator[X]:
        x = xT
        for i, (to_middle, gain_middle, to_end, gain_end) in enumerate(weights):
            with torch.no_grad():
                guess = x0_hat(x, 2 * i)
                if twice[i]:
                    y = torch.add(x * to_middle, guess, alpha=gain_middle)
                    guess = x0_hat(y, 2 * i + 1)
                x = torch.add(x * to_end, guess, alpha=gain_end)
            yield x

    return states()


# A line through one value, with its slope -------------------------------------------------------


def taylor(denoise: Denoiser, path: GaussianPath, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """The line through x̂0 with its slope dx̂0/dℓ along the ODE, by one jvp; yields each state.

    x ← (b_s/b_t) x + a_s (1 − e^−h) x̂0 + a_s (h − 1 + e^−h) dx̂0/dℓ.

    GENIE's idea with the exact derivative: its own line is for ε̂, in σ. Order 2, one evaluation and
    one jvp a step, at its upper end; a step from a = 0 or to b = 0 is of order 1, without jvp. The
    denoiser is one that torch.func.jvp differentiates, which `guidance.classifier` is not.
    [Dockhorn et al. 2022 (GENIE), section 3.1]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    t = ts[:-1]
    keep, gain, h = _steps(path, t, ts[1:])
    bend = torch.where(h.isfinite(), path.a(ts[1:]) * (h + torch.expm1(-h)), 0.0)
    shrink = 0.5 * path.db2(t) / path.b2(t)  # b′/b
    rate = path.da(t) / path.a(t) - shrink  # dℓ/dt
    flow = torch.stack([shrink / rate, path.a(t), 1 / rate], 1)  # dx/dℓ = shrink/rate x + a x̂0
    quantity = reading(denoise, path, targets.x0)
    x0_hat, times = quantity.prepared(t, xT)
    weights = [*zip(torch.stack([keep, gain, bend], 1).tolist(), flow.tolist(), strict=True)]

    def states() -> Iterator[X]:
        x = xT
        for i, ((kept, of_x0, of_slope), (of_x, of_guess, dt)) in enumerate(weights):
            with torch.no_grad():
                guess = x0_hat(x, i)
                y = torch.add(x * kept, guess, alpha=of_x0)
                if of_slope:
                    dx = torch.add(x * of_x, guess, alpha=of_guess)
                    y.add_(_derivative(quantity, x, times[i], dx, dt), alpha=of_slope)
                x = y
            yield x

    return states()


def _derivative(quantity: Readout, x: X, t: Time, dx: X, dt: float) -> X:
    """The derivative of quantity(x, t) along (dx, dt)."""
    with torch.inference_mode(False), torch.no_grad():  # in inference mode torch 2.6 answers 0
        at = torch.clone(x), torch.clone(t)
        forward_mode()
        return torch.func.jvp(quantity, at, (torch.clone(dx), torch.full_like(at[1], dt)))[1]


# Steps of their own length ----------------------------------------------------------------------


def adaptive(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    t: Time,
    s: Time,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> tuple[X, int]:
    """The ODE's state at s from xT at t, either way round, and the number of evaluations it took.

    dz/dφ = v/√(a² + b²) = (cos φ z − x̂0)/sin φ, z = x/√(a² + b²), φ = arctan(b/a).

    By a Runge–Kutta pair of orders 5 and 4, in float64. A step is kept where its two answers differ
    by less than atol + rtol |z|, root mean square over the whole batch.

    Six evaluations a step, kept or not. In φ both ends are finite and a β-table has no kinks. At
    b = 0 only a network that says more than x̂0 can be asked (ε, v, a velocity): for any other, end
    above it and let `ddim.sample` take the last step. Raises ValueError for a t or s of more than
    one time, rtol < 1e-13, atol < 0, and where no step is small enough. [Dormand & Prince 1980]
    """
    from scipy.integrate import solve_ivp

    check_batch(xT, "xT")
    ends, digits = torch.stack([_one_time(t), _one_time(s)]), torch.finfo(xT.dtype).eps
    if not 1e-13 <= rtol < math.inf or not 0 <= atol < math.inf or max(rtol, atol) < digits:
        raise ValueError(
            f"adaptive needs rtol ≥ 1e-13, atol ≥ 0 and one of them at least {digits:.1g}, the "
            f"rounding of {xT.dtype}, got {rtol} and {atol}"
        )
    v, levels = reading(denoise, path, targets.v), path.sigma(ends)
    v.prepared(ends, xT)  # raises what cannot be asked at the ends, before anything is
    low, high = levels.aminmax()
    calls = 0

    def slope(angle: float, z):
        nonlocal calls
        calls += 1
        # tan(arctan σ) is σ but for rounding, which must not lead off the path
        time = path.time(torch.tan(ends.new_tensor(angle)).clamp(low, high))
        size = _size(path, time)
        x = (torch.from_numpy(z).reshape(xT.shape) * size).to(xT)
        with torch.no_grad():
            answer = check_finite(v(x, *clock(time[None], x)), f"the denoiser at t = {time:.4g}")
        return (answer.double().cpu() / size).numpy().ravel()

    start, end = torch.atan(levels).tolist()
    if start == end:
        return xT.clone(), calls
    z = (xT.detach().double().cpu() / _size(path, ends[0])).numpy().ravel()
    found = solve_ivp(slope, (start, end), z, method="RK45", t_eval=[end], rtol=rtol, atol=atol)
    if not found.success:
        raise ValueError(
            f"no step was small enough for rtol {rtol:g} and atol {atol:g}: is the field smooth "
            f"and finite, and does {xT.dtype} have as many digits?"
        )
    z = torch.from_numpy(found.y[:, -1]).reshape(xT.shape)
    return (z * _size(path, ends[1])).to(xT), calls


def _one_time(t: Time) -> Float[Tensor, ""]:
    """t in float64 on the CPU; raises TypeError or ValueError unless it is one time."""
    if check_time(t).ndim:
        raise ValueError(f"adaptive goes from one time to another, got t of {tuple(t.shape)}")
    return t.detach().cpu().double()


def _size(path: GaussianPath, t: Time) -> Time:
    """√(a² + b²)."""
    return torch.hypot(path.a(t), path.b(t))
