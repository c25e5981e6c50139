"""log p along the probability-flow ODE: how fast the velocity spreads its neighbours, summed up."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, reading
from minigen.score import gaussian
from minigen.shapes import Denoiser, X, check_answer, check_batch, check_generator

from .equation import rising

Field = Callable[[X], X]


def _followed(field: Field, x: X) -> tuple[X, X]:
    """(x, field(x)), with a graph between them; raises where there is none."""
    check_batch(x, "x")
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        y = check_answer(field(x), x)
    if not y.requires_grad:
        raise ValueError(
            "no gradient leads from field(x) to x, so its divergence is unknown: was it computed "
            "under no_grad, or from x.detach()?"
        )
    return x, y


def _pull(x: X, y: X, v: X) -> Float[Tensor, "B D"]:
    """vᵀ ∇y for each sample; zero where y does not depend on x."""
    (grad,) = torch.autograd.grad(y, x, v, retain_graph=True, allow_unused=True)
    return torch.zeros_like(x).flatten(1) if grad is None else grad.reshape(len(x), -1)


def exact_divergence(
    field: Field, x: X, *, generator: torch.Generator | None = None
) -> Float[Tensor, " B"]:
    """Σ_i ∂field_i/∂x_i for each sample, by D backward passes.

    Each sample's field must depend on that sample alone. It draws nothing, and takes a generator
    only as `hutchinson` does. Raises ValueError where no gradient leads from field(x) to x.
    """
    x, y = _followed(field, x)
    total = x.new_zeros(len(x))
    for i in range(x[0].numel()):
        v = x.new_zeros(x.shape)
        v.view(len(x), -1)[:, i] = 1
        total = total + _pull(x, y, v)[:, i]
    return total


def hutchinson(
    field: Field, x: X, *, draw: Callable = gaussian, generator: torch.Generator | None = None
) -> Float[Tensor, " B"]:
    """vᵀ ∇field(x) v for a random v of each sample: on average the divergence, one backward pass.

    With A the Jacobian and N(0, I) probes the variance is 2 ‖A_sym‖²_F. `draw` is that of
    `score.sliced_loss`; `score.rademacher` takes the diagonal's share off. Raises as
    `exact_divergence`. [Hutchinson 1990; Grathwohl et al. 2019]
    """
    x, y = _followed(field, x)
    v = draw(x.detach(), generator=generator)
    return (_pull(x, y, v) * v.reshape(len(x), -1)).sum(1)


def log_prob(
    denoise: Denoiser,
    path: GaussianPath,
    x: X,
    ts: Float[Tensor, " N"],
    *,
    divergence: Callable = exact_divergence,
    prior: Callable[[X], Float[Tensor, " B"]] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """log p of x at the time ts[0], in nats: the probability-flow ODE to ts[-1], by Runge–Kutta 4.

    log p_t(x_t) = log p_s(x_s) + ∫ ∇·u dt from t to s along dx/dt = u.

    Order 4 in the steps of the rising grid, four evaluations a step. `prior` is the log-density at
    ts[-1]; None is N(0, b² I), and what the true one differs from it no step cures.
    `divergence(field, x, generator=)` is asked anew at each stage, so `hutchinson` adds no bias.
    Keeps no gradients. Raises ValueError for a falling grid, and where the velocity cannot be read.
    [Chen et al. 2018, theorem 1; Song et al. 2021, eq. 39]
    """
    check_batch(x, "x")
    check_generator(x, generator)
    ts = rising(ts)
    times = torch.stack([ts, ts + torch.cat([ts.diff() / 2, ts[:1] * 0])], 1).flatten()[:-1]
    u, _ = reading(denoise, path, targets.velocity).prepared(times, x)
    total = x.new_zeros(len(x))

    def slopes(y: X, i: int) -> tuple[X, Tensor]:
        return u(y, i), divergence(lambda y: u(y, i), y, generator=generator)

    with torch.no_grad():
        for i, h in enumerate(ts.diff().tolist()):
            k1, d1 = slopes(x, 2 * i)
            k2, d2 = slopes(torch.add(x, k1, alpha=h / 2), 2 * i + 1)
            k3, d3 = slopes(torch.add(x, k2, alpha=h / 2), 2 * i + 1)
            k4, d4 = slopes(torch.add(x, k3, alpha=h), 2 * i + 2)
            x = torch.add(x, k1 + 2 * (k2 + k3) + k4, alpha=h / 6)
            total = torch.add(total, d1 + 2 * (d2 + d3) + d4, alpha=h / 6)
        return total + (_standard(x, float(path.b2(ts[-1]))) if prior is None else prior(x))


def _standard(x: X, var: float) -> Float[Tensor, " B"]:
    """log N(x; 0, var I)."""
    square = x.reshape(len(x), -1).square()
    return -0.5 * (square.sum(1) / var + square.shape[1] * math.log(2 * math.pi * var))
