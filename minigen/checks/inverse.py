"""Checks of the second homework: an inverse problem, y = c·x0 + τ n, and its exact posterior."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import paths
from minigen.checks import ask, draws

BORROWED = ("guidance",)  # the room that would do the homework
B, D, K = 5, 3, 4
_draws = partial(draws, std=1.3)


# The exact posterior ------------------------------------------------------------------------------


def _posterior(weights, means, variances, c, y, tau, *, noise=lambda tau: tau**2, seen=True,
               spread=True, prior=True, root=False, step=True, length=True) -> Tensor:  # fmt: skip
    """Weights (K, 1) and means (K, D) side by side, right or with one slip."""
    v = variances.sqrt() if root else variances
    reach = v * (c.square().sum() if length else 1)  # the variance of c·x0 within a component
    total = noise(tau) + (reach if spread else 0)
    miss = y - means @ c
    log = (weights.log() if prior else 0) - 0.5 * (miss**2 / total + total.log() if spread else
                                                   miss**2 / total) * seen  # fmt: skip
    gain = v / (noise(tau) + reach)
    new = means + (gain[:, None] * miss[:, None] * c if step else 0)
    return torch.cat([torch.softmax(log, 0)[:, None], new], 1)


def _unnormed(weights, means, variances, c, y, tau) -> Tensor:
    total = tau**2 + variances * c.square().sum()
    log = weights.log() - 0.5 * (y - means @ c) ** 2 / total
    right = _posterior(weights, means, variances, c, y, tau)
    return torch.cat([torch.softmax(log, 0)[:, None], right[:, 1:]], 1)


POSTERIOR_SLIPS = {
    "τ is a standard deviation: the noise of y has the variance τ²": partial(
        _posterior, noise=lambda tau: tau
    ),
    "the weights must follow the evidence: w_k N(y; c·μ_k, τ² + v_k ‖c‖²), then to sum 1": partial(
        _posterior, seen=False
    ),
    "given its component, y has the variance τ² + v_k ‖c‖², since x0 varies there too": partial(
        _posterior, spread=False
    ),
    "the prior weights w_k are left out": partial(_posterior, prior=False),
    "v_k are variances already: no root": partial(_posterior, root=True),
    "each mean moves towards the observation, by the gain v_k c (y − c·μ_k)/(τ² + v_k ‖c‖²)": (
        partial(_posterior, step=False)
    ),
    "the variance of c·x0 is v_k ‖c‖², you left out ‖c‖²": partial(_posterior, length=False),
    "the evidence is a density: its factor 1/√(τ² + v_k ‖c‖²) is each component's own": (_unnormed),
}


def posterior(function: Callable) -> None:
    """Checks posterior(weights, means, variances, c, y, tau) -> (K, 1 + D): weights, means.

    weights, variances (K,), means (K, D), c (D,). Raises NotYet, or Wrong with a diagnosis.
    """
    weights = torch.softmax(_draws(K, seed=31), 0)
    means, c = _draws(K, D, seed=32), _draws(D, seed=33)
    variances = 0.2 + _draws(K, seed=34).square()
    y, tau = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    ask(
        "the posterior", function, _posterior, POSTERIOR_SLIPS, weights, means, variances, c, y, tau
    )
    print("right: weights and means of all four components")


# Two guided denoisers -----------------------------------------------------------------------------


def _guided(denoise, path, c, y, tau, xt, t, *, cov=False, sign=1.0, through=True, scale=None,
            noise=lambda tau: tau**2, half=1.0, add=True, whole=False,
            other=False) -> Tensor:  # fmt: skip
    """x̂0 + (b²/a) (y − c·x̂0)/var ∇(c·x̂0), right or with one slip."""
    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        x0 = denoise(x, t)
        (slope,) = torch.autograd.grad((x0 @ c).sum(), x)
    x0, slope = x0.detach(), slope.detach() if through else c.expand_as(xt)
    a, b = path.a(t), path.b(t)
    var = noise(tau) + (b**2 / a * (slope @ c) if cov else 0)
    if other:  # Var of the state, not of x0
        var = noise(tau) + b**2 * c.square().sum()
    pull = sign * ((y - x0 @ c) / var / half)[:, None] * slope
    pull = pull.mean(0, keepdim=True).expand_as(xt) if whole else pull
    factor = b**2 / a if scale is None else scale(a, b)
    return (x0 if add else xt) + factor * pull


PULL_SLIPS = {
    "your pull leads away from the observation: the gradient of −(y − c·x̂0)²/2τ² in xt has the "
    "factor +(y − c·x̂0)": partial(_guided, sign=-1.0),
    "the gradient is that in xt, through the denoiser; yours is the gradient in x̂0": partial(
        _guided, through=False
    ),
    "x̂0 = (xt + b² s)/a: a change g of the score moves it by b² g/a; you left out the factor": (
        partial(_guided, scale=lambda a, b: 1.0)
    ),
    "a change g of the score moves x̂0 by b² g/a, you took b g/a": partial(
        _guided, scale=lambda a, b: b / a
    ),
    "a change g of the score moves x̂0 by b² g/a, you left out 1/a": partial(
        _guided, scale=lambda a, b: b**2
    ),
    "τ is a standard deviation: divide by τ²": partial(_guided, noise=lambda tau: tau),
    "the gradient of ½ (y − c·x̂0)² has no factor ½ left": partial(_guided, half=2.0),
    "the answer is a denoiser's: add the pull to x̂0, not to xt": partial(_guided, add=False),
    "every sample has its own pull; you averaged over the batch": partial(_guided, whole=True),
}
CORRECTED_SLIPS = {why: partial(slip, cov=True) for why, slip in PULL_SLIPS.items()} | {
    "that is the shortcut itself: add Var[c·x0 | xt] = (b²/a) c·∇(c·x̂0) to τ²": _guided,
    "you added the variance of xt; what is uncertain is x0: Var[c·x0 | xt] = (b²/a) c·∇(c·x̂0)": (
        partial(_guided, other=True)
    ),
}


def _case() -> tuple:
    """denoise, path, c, y, τ, xt, t: its Jacobian is not symmetric, so that Jᵀc is not Jc."""
    denoise = lambda xt, t: 0.6 * torch.tanh(xt * (1 + t)) + 0.4 * xt + 0.1 * xt.roll(1, -1)
    y, tau = torch.tensor(0.9, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    t = torch.tensor(0.37, dtype=torch.float64)
    return denoise, paths.VP(), _draws(D, seed=35).abs(), y, tau, _draws(B, D, seed=36), t


def shortcut(function: Callable) -> None:
    """Checks shortcut(denoise, path, c, y, tau, xt, t) -> the guided x̂0 (B, D), Cov left out.

    xt (B, D), c (D,), t (). Raises NotYet, or Wrong with a diagnosis.
    """
    ask("the guided x̂0", function, _guided, PULL_SLIPS, *_case())
    print("right: five guided guesses, the shortcut's")


def corrected(function: Callable) -> None:
    """Checks corrected(denoise, path, c, y, tau, xt, t) -> (B, D), with Var[c·x0 | xt] in it.

    Raises NotYet, or Wrong with a diagnosis.
    """
    right = partial(_guided, cov=True)
    ask("the guided x̂0", function, right, CORRECTED_SLIPS, *_case())
    print("right: five guided guesses, corrected")


SLIPS = {posterior: POSTERIOR_SLIPS, shortcut: PULL_SLIPS, corrected: CORRECTED_SLIPS}
