"""The check of lecture 11's second program, the derivative of x̂0 along the ODE."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, ask, draws
from minigen.shapes import forward_mode

B, D = 5, 3  # samples, dimensions


class _Field:
    """A smooth function of state and time whose Jacobian is not symmetric; it counts its calls."""

    def __init__(self, what: str, phase: float):
        self.what, self.phase, self.calls = what, phase, 0

    def __call__(self, x, t) -> Tensor:
        for given, name, shape in ((x, "x", (B, D)), (t, "t", (B,))):
            if not isinstance(given, Tensor) or given.shape != shape:
                got = tuple(given.shape) if isinstance(given, Tensor) else repr(given)
                raise Wrong(f"the {self.what} takes {name} of shape {shape}, got {got}")
        self.calls += 1
        k = t[:, None]
        return torch.sin(x + self.phase * k) * (1.4 - k) + 0.7 * k * x.roll(1, 1) - 0.3


def _fields() -> tuple[Callable, Callable]:
    return _Field("denoiser", 2.0), _Field("velocity", -3.0)


def _along(denoise, velocity, x, t, *, dx=lambda u, x0_hat, x: u, dt=torch.ones_like,
           of=lambda denoise, velocity: denoise, asked=lambda x, t: (x, t)) -> Tensor:  # fmt: skip
    """The right derivative, or one with the slips named: along (dx, dt), of another function."""
    rates = dx(velocity(*asked(x, t)), lambda: denoise(x, t), x), dt(t)
    return torch.func.jvp(of(denoise, velocity), (x, t), rates)[1]


def _transposed(denoise, velocity, x, t) -> Tensor:
    _, back = torch.func.vjp(lambda x: denoise(x, t), x)
    return back(velocity(x, t))[0] + _along(denoise, velocity, x, t, dx=_still)


def _transposed_alone(denoise, velocity, x, t) -> Tensor:
    return torch.func.vjp(lambda x: denoise(x, t), x)[1](velocity(x, t))[0]


def _gradient_of_sum(denoise, velocity, x, t) -> Tensor:
    grad = torch.func.grad(lambda x: denoise(x, t).sum())(x)
    return grad * velocity(x, t) + _along(denoise, velocity, x, t, dx=_still)


def _still(u, x0_hat, x):
    return torch.zeros_like(x)


def _and_also(more: Callable) -> Callable:
    """The right derivative, changed by what else was at hand."""
    return lambda denoise, velocity, x, t: more(
        _along(denoise, velocity, x, t), velocity(x, t), denoise(x, t)
    )


DERIVATIVE_SLIPS = {
    "that is ∂x̂0/∂t at a fixed state: along the ODE x moves as well, with dx/dt": partial(
        _along, dx=_still
    ),
    "t stands still in yours: its own rate is 1": partial(_along, dt=torch.zeros_like),
    "that is the derivative of the velocity, the ODE's acceleration: x̂0's is asked for": partial(
        _along, of=lambda denoise, velocity: velocity
    ),
    "that is x̂0 itself: torch.func.jvp gives (value, derivative), take the second": (
        lambda denoise, velocity, x, t: denoise(x, t)
    ),
    "that is the velocity: its product with the Jacobian of x̂0 is asked for": (
        lambda denoise, velocity, x, t: velocity(x, t)
    ),
    "both rates are reversed: dx/dt and 1 belong to rising t, whichever way a sampler walks": (
        partial(_along, dx=lambda u, x0_hat, x: -u, dt=lambda t: -torch.ones_like(t))
    ),
    "the rate of t is 1, yours is −1: dx/dt belongs to rising t": partial(
        _along, dt=lambda t: -torch.ones_like(t)
    ),
    "the rate of x is dx/dt, yours is −dx/dt: the ODE's velocity belongs to rising t": partial(
        _along, dx=lambda u, x0_hat, x: -u
    ),
    "the rate of x is the velocity, you gave x itself": partial(
        _along, dx=lambda u, x0_hat, x: x
    ),
    "the rate of x is the velocity, you gave x̂0": partial(
        _along, dx=lambda u, x0_hat, x: x0_hat()
    ),
    "the rate of x is the velocity, you gave ones": partial(
        _along, dx=lambda u, x0_hat, x: torch.ones_like(x)
    ),
    "the rate of x is the velocity, you gave x − x̂0: it lacks its factor": partial(
        _along, dx=lambda u, x0_hat, x: x - x0_hat()
    ),
    "the rate of t is 1, you gave t": partial(_along, dt=lambda t: t),
    "the velocity was asked at t = 1: it belongs to x and its own t": partial(
        _along, asked=lambda x, t: (x, torch.ones_like(t))
    ),
    "the velocity was asked at 1 − t: it belongs to x and its own t": partial(
        _along, asked=lambda x, t: (x, 1 - t)
    ),
    "every sample has its own time, you used the first one's for all": (
        lambda denoise, velocity, x, t: _along(denoise, velocity, x, t[:1].repeat(len(t)))
    ),
    "you multiplied by the Jacobian's transpose, a vjp: derivatives along a direction are a jvp": (
        _transposed
    ),
    "that is a vjp in x alone: the Jacobian's transpose, and t has no part in it; along a "
    "direction, (dx/dt, 1), a derivative is a jvp": _transposed_alone,
    "the gradient of x̂0's sum, times the velocity, is no derivative of each coordinate along it: "
    "every coordinate of x moves every coordinate of x̂0": _gradient_of_sum,
    "you added the velocity: x̂0 moves only as x and t move it": _and_also(lambda d, u, y: d + u),
    "you added x̂0 itself: only its derivative is asked for": _and_also(lambda d, u, y: d + y),
    "you multiplied by the velocity once more: it is in the jvp already": _and_also(
        lambda d, u, y: d * u
    ),
    "that is a sum over the samples: none of them depends on another, keep (B, D)": _and_also(
        lambda d, u, y: d.sum(0)
    ),
    "that is one number for each sample: x̂0 has D coordinates, each with its own derivative": (
        _and_also(lambda d, u, y: d.sum(1))
    ),
}  # fmt: skip


def total_derivative(function: Callable) -> None:
    """Checks total_derivative(denoise, velocity, x, t) -> (B, D): dx̂0/dt along dx/dt = velocity.

    x (B, D), t (B,), as both functions take them; the denoiser may be called once. Raises NotYet,
    or Wrong with a diagnosis.
    """
    forward_mode()
    denoise, velocity = _fields()
    x, t = draws(B, D, seed=14, std=1.3), torch.linspace(0.15, 0.8, B, dtype=torch.float64)
    # the truth has fields of its own: the calls counted are the learner's alone
    truth = lambda _, __, *at: _along(*_fields(), *at)
    try:
        ask("dx̂0/dt", function, truth, DERIVATIVE_SLIPS, denoise, velocity, x, t)
    except RuntimeError as error:
        if "forward gradient" not in str(error) and "tangents" not in str(error):
            raise
        raise Wrong(
            f"torch.func.jvp wants for each point a rate of its shape: dx/dt is (B, D) as x, and "
            f"the rate of t is a tensor (B,) of ones, one for each sample ({error})"
        ) from None
    if denoise.calls > 1:
        raise Wrong(
            f"the values are right, but the denoiser was asked {denoise.calls} times, and calls "
            f"are what we save: one torch.func.jvp along both rates, dx/dt and 1, asks it once "
            f"(torch.func.linearize asks twice)"
        )
    print(f"right: the derivative of {B} samples along the ODE, each at its own time, by one call")
