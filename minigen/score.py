"""Score matching and Langevin dynamics: learn ∇ log p from samples, then walk along it.

A score is a function x -> ∇ log p(x), shaped as the data; a noise-conditional score (x, sigma) ->
∇ log p_σ(x) is that of p_σ = p * N(0, σ² I). One step convention throughout: x + h s + √(2h) z.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, reading
from minigen.shapes import (
    Denoiser,
    Time,
    X,
    check_alike,
    check_batch,
    check_count,
    check_dtype,
    check_falls,
    check_generator,
    like,
    noise,
    readable,
)

Score = Callable[[X], X]  # x -> ∇ log p(x)
NoisyScore = Callable[[X, Float[Tensor, ""] | Float[Tensor, "B"]], X]  # (x, sigma) -> ∇ log p_σ(x)


def _at(score: Callable, x: X, *rest) -> X:
    """score(x, *rest), which must have the shape of x."""
    check_dtype(score, x)
    s = score(x, *rest)
    if not isinstance(s, Tensor) or s.shape != x.shape:
        got = tuple(s.shape) if isinstance(s, Tensor) else type(s).__name__
        raise ValueError(f"the score of data {tuple(x.shape)} has that shape too, got {got}")
    return s


def _half_square(v: X) -> Float[Tensor, "B"]:
    return 0.5 * v.square().reshape(len(v), -1).sum(1)


# Losses -----------------------------------------------------------------------------------------


def explicit_loss(score: Score, true_score: Score, x: X) -> Float[Tensor, "B"]:
    """½ ‖score(x) − true_score(x)‖², half Fisher's divergence if x ~ p. [Hyvärinen 2005, eq. 2]"""
    check_batch(x, "x")
    return _half_square(_at(score, x) - _at(true_score, x))


def _grad(y: Tensor, x: X, create_graph: bool) -> X:
    """∇_x y, kept differentiable on demand."""
    grad = None
    if y.requires_grad:
        (grad,) = torch.autograd.grad(
            y, x, retain_graph=True, create_graph=create_graph, allow_unused=True
        )
    if grad is None:
        raise ValueError(
            "this loss differentiates the score in x, but no gradient leads from score(x) to x: "
            "was it computed under no_grad, or from x.detach()?"
        )
    return grad


def _followed(x: X) -> X:
    """x, or a copy of it, that a gradient leads to."""
    check_batch(x, "x")
    return x if x.requires_grad else x.detach().requires_grad_()


def implicit_loss(score: Score, x: X) -> Float[Tensor, "B"]:
    """The explicit loss up to a constant, without the true score.

    tr ∇score(x) + ½ ‖score(x)‖².
    The exact trace, for D backward passes; each sample's score must depend on that sample alone.
    Differentiable in the score's parameters. Raises ValueError where no gradient leads from
    score(x) to x. [Hyvärinen 2005, theorem 1]
    """
    learn, x = torch.is_grad_enabled(), _followed(x)
    with torch.enable_grad():
        s = _at(score, x)
        loss = _half_square(s)
        for i, s_i in enumerate(s.reshape(len(x), -1).unbind(1)):
            loss = loss + _grad(s_i.sum(), x, learn).reshape(len(x), -1)[:, i]
    return loss if learn else loss.detach()


def gaussian(x: X, *, generator: torch.Generator | None = None) -> X:
    """Directions v ~ N(0, I): vᵀAv has mean tr A and variance 2 ‖A_sym‖²_F."""
    return noise(x, generator=generator)


def rademacher(x: X, *, generator: torch.Generator | None = None) -> X:
    """Directions of fair signs ±1: vᵀAv has mean tr A and variance 2 (‖A_sym‖²_F − Σ A_ii²)."""
    return torch.copysign(torch.ones_like(x), noise(x, generator=generator))


def sliced_loss(
    score: Score,
    x: X,
    *,
    directions: int = 1,
    draw: Callable = rademacher,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B"]:
    """`implicit_loss` on average, from random directions v at one backward pass each.

    vᵀ ∇score(x) v + ½ ‖score(x)‖², the mean over so many directions.
    `draw(x, generator=)` gives directions shaped as x with E vvᵀ = I; on the unit sphere they need
    a factor √D. Raises as `implicit_loss`. [Song et al. 2019, eq. 8, its variance-reduced form]
    """
    check_count(directions, "directions")
    learn, x = torch.is_grad_enabled(), _followed(x)
    with torch.enable_grad():
        s = _at(score, x)
        loss = _half_square(s)
        for _ in range(directions):
            v = draw(x.detach(), generator=generator)
            slope = _grad((v * s).sum(), x, learn)
            loss = loss + (v * slope).reshape(len(x), -1).sum(1) / directions
    return loss if learn else loss.detach()


def denoising_loss(
    score: NoisyScore, x: X, sigma: Float[Tensor, ""] | Float[Tensor, "B"], eps: X
) -> Float[Tensor, "B"]:
    """Denoising score matching times σ²: the score s_σ of p_σ makes it least.

    ½ ‖σ score(x + σ eps, σ) + eps‖², summed over the data axes.
    Its target −eps/σ is ∇ log N(x̃; x, σ² I) in the noisy x̃; its least mean is ½ (D − σ² E‖s_σ‖²),
    between 0 and D/2 at every level. [Vincent 2011; Song & Ermon 2019, eq. 5 and 6]
    """
    check_batch(x, "x")
    check_alike(x, eps, "x and eps")
    sigma = _check_sigma(sigma, x).to(x)
    scale = like(sigma, x)
    return _half_square(scale * _at(score, x + scale * eps, sigma) + eps)


def _check_sigma(sigma, x: X) -> Tensor:
    """sigma itself, refused unless it is a level for all or for each."""
    if not isinstance(sigma, Tensor) or not sigma.is_floating_point():
        raise TypeError(f"sigma must be a float tensor of shape () or ({len(x)},), got {sigma!r}")
    if sigma.ndim and sigma.shape != x.shape[:1]:
        raise ValueError(f"sigma must have shape () or ({len(x)},), got {tuple(sigma.shape)}")
    if readable(sigma) and not bool((sigma > 0).all() & torch.isfinite(sigma).all()):
        raise ValueError(f"sigma must be positive and finite, its least is {float(sigma.min()):g}")
    return sigma


# Langevin dynamics ------------------------------------------------------------------------------


def sigmas(sigma_max: float, sigma_min: float, n: int) -> Float[Tensor, "n"]:
    """A ladder of n noise levels from sigma_max down to sigma_min in equal ratios, (n,) float64.

    [Song & Ermon 2019, section 4.1]
    """
    if not 0 < sigma_min < sigma_max < math.inf or n < 2:
        raise ValueError(
            f"a ladder falls: it needs sigma_max > sigma_min > 0 and n ≥ 2 levels, got sigma_max "
            f"{sigma_max:g}, sigma_min {sigma_min:g}, n {n}"
        )
    top, bottom = math.log(sigma_max), math.log(sigma_min)
    return torch.exp(torch.linspace(top, bottom, n, dtype=torch.float64))


def langevin(
    score: Score, x: X, *, step: float, n: int, generator: torch.Generator | None = None
) -> Iterator[X]:
    """Langevin dynamics: n noisy steps along the score; yields each state, without gradients.

    x ← x + h score(x) + √(2h) z with h = step, in squared units of x.
    The stationary law is p up to O(h): of N(m, Σ) it keeps the mean and has the covariance
    Σ (I − h Σ⁻¹/2)⁻¹, for h below twice the least eigenvalue of Σ. [Roberts & Tweedie 1996]
    """
    return _walk([(score, step)], x, n, generator)


def annealed_langevin(
    score: NoisyScore,
    x: X,
    sigmas: Float[Tensor, " L"],
    *,
    step: float,
    n: int,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """n steps of `langevin` at each level of a falling ladder; yields all n · L states.

    x ← x + h_i score(x, σ_i) + √(2 h_i) z with h_i = step σ_i²/σ_L².
    `step` is that of the last level. Start from N(0, σ_1² I).
    [Song & Ermon 2019, Algorithm 1, whose α_i is 2 h_i]
    """
    ladder = _check_ladder(sigmas)
    levels = [
        (lambda x, sigma=sigma: score(x, sigma), step * float(s / ladder[-1]) ** 2)
        for s, sigma in zip(ladder, ladder.to(x), strict=True)
    ]
    return _walk(levels, x, n, generator)


def _check_ladder(sigmas) -> Float[Tensor, " L"]:
    """The ladder as float64 on the CPU."""
    rule = "the ladder must fall, large noise first"
    sigmas = check_falls(sigmas, "sigmas", rule, "sigmas.flip(0)")
    if not bool((sigmas > 0).all() & torch.isfinite(sigmas).all()):
        raise ValueError(f"every sigma must be positive and finite, got {sigmas.tolist()}")
    return sigmas


def _walk(levels: list[tuple[Score, float]], x: X, n: int, generator) -> Iterator[X]:
    """n steps on each level (score, h). What can be wrong is found here, before the first step."""
    check_batch(x, "x")
    check_count(n)
    h = min(h for _, h in levels)
    if not 0 < h < math.inf:
        raise ValueError(f"step must be positive and finite, got {h:g}")
    check_generator(x, generator)
    with torch.no_grad():
        first = _at(levels[0][0], x)

    def states():
        y, s = x, first
        for i in range(n * len(levels)):
            score, h = levels[i // n]
            with torch.no_grad():
                s = _at(score, y) if i else s
                y = torch.add(y, s, alpha=h)
                y.add_(noise(y, generator=generator), alpha=math.sqrt(2 * h))
            yield y

    return states()


# The bridge to denoising ------------------------------------------------------------------------


def from_denoiser(denoise: Denoiser, path: GaussianPath) -> Callable[[X, Time], X]:
    """The score of xt as read from a denoiser.

    s(xt, t) = (a E[x0 | xt] − xt)/b² = −E[eps | xt]/b.
    Called where b = 0 it raises ValueError: there is no noise to tell the score from.
    [Tweedie's formula; Robbins 1956]
    """
    return reading(denoise, path, targets.score)
