"""Generative adversarial networks: a critic tells real from fake, a generator learns from it.

p is the law of the data, q that of the generator. Losses and penalties live in `critics`,
f-divergences in `divergences`; all of both can be had from here.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.critics import (
    Critic,
    Loss,
    check_logits,
    clip_weights,
    gradient_penalty,
    hinge,
    least_squares,
    losses,
    minimax,
    nonsaturating,
    r1,
    r2,
    spectral_norm,
    wasserstein,
)
from minigen.data import check_finite
from minigen.divergences import (
    FDivergence,
    LogDensity,
    f_divergences,
    hellinger,
    js,
    kl,
    log_ratio,
    pearson,
    reverse_kl,
    wasserstein_1d,
)
from minigen.oracle import GaussianMixture
from minigen.shapes import X
from minigen.state import Ema
from minigen.train import Rate

__all__ = [
    "Coverage", "FDivergence", "Loss", "Losses", "alternate", "clip_weights", "f_divergences",
    "game_matrix", "gradient_penalty", "hellinger", "hinge", "js", "kl", "least_squares", "losses",
    "minimax", "mode_coverage", "nonsaturating", "optimal_discriminator", "pearson", "r1", "r2",
    "reverse_kl", "spectral_norm", "wasserstein", "wasserstein_1d",
]  # fmt: skip


def optimal_discriminator(log_p: LogDensity, log_q: LogDensity) -> Critic:
    """D*(x) = p/(p + q) = σ(log p(x) − log q(x)), which maximises E_p log D + E_q log(1 − D).

    The maximum is −log 4 + 2 JS(p, q). When called, raises ValueError unless both densities give
    (B,). [Goodfellow et al. 2014, proposition 1 and theorem 1]
    """
    return lambda x: torch.sigmoid(log_ratio(log_p, log_q, x))


def game_matrix(step: float, *, alternating: bool = False, r1: float = 0.0) -> Float[Tensor, "2 2"]:
    """One step of the game min_θ max_ψ θ ψ − ½ r1 ψ² as a matrix on (θ, ψ), float64.

    θ ← θ − h ψ, ψ ← ψ + h θ − h r1 ψ, with the new θ in the second line if alternating: the
    Wasserstein GAN of a point mass at 0, fake θ, critic −ψ x, with `r1`. Its spectral radius is
    √(1 + h²), so it spirals out, or alternating 1 (h ≤ 2), so it circles. With r1 > h, alternating
    with any small r1, it is below 1: the players come to rest.
    [Mescheder et al. 2018, section 2 and 4]
    """
    first = torch.tensor([[1.0, -step], [0.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 0.0], [step, 1 - step * r1]], dtype=torch.float64)
    return second @ first if alternating else first + second - torch.eye(2, dtype=torch.float64)


# Training ---------------------------------------------------------------------------------------


class Losses(NamedTuple):
    """The two players' losses in a step, detached scalars; the critic's without its penalty."""

    critic: Tensor
    generator: Tensor


def alternate(
    generator: nn.Module,
    critic: nn.Module,
    loss: Loss,
    real: Callable[[], X],
    *,
    latents: Callable[[int], X],
    steps: int,
    critic_steps: int = 1,
    lr: Rate = 1e-3,
    critic_lr: Rate | None = None,
    betas: tuple[float, float] = (0.0, 0.9),
    penalty: Callable[[Critic, X, X], Tensor] | None = None,
    constrain: Callable[[nn.Module], object] | None = None,
    ema: Ema | None = None,
    progress: bool = True,
) -> Iterator[Losses]:
    """The two-player loop: each step is critic_steps of Adam for the critic, then one for the net.

    `generator` is a net, latents (n, …) -> samples shaped as the data. `real()` draws a batch of
    data and `latents(n)` n latents, by torch.Generators of their own. The critic minimises its loss
    plus the mean of penalty(critic, real, fake); constrain(critic) is called after each of its
    steps, as is lambda net: clip_weights(net, 0.01). Rates are numbers or functions of the
    step, the critic's being `lr` unless given; `ema` is a train.Ema of the generator. Yields the
    Losses of each step. Raises ValueError or TypeError at the call where latents, samples and
    logits do not fit, and later where a loss is no longer finite.
    [Goodfellow et al. 2014, algorithm 1]
    """
    if steps < 1 or critic_steps < 1:
        raise ValueError(f"steps and critic_steps start at 1, got {steps} and {critic_steps}")
    if not isinstance(loss, Loss):
        raise TypeError(f"loss must be a gan.Loss such as gan.nonsaturating, got {loss!r}")
    if ema is not None and not isinstance(ema, Ema):
        raise TypeError(f"ema must be a train.Ema(generator, decay), got {ema!r}")
    _check_players(generator, critic, real(), latents)
    rates = lr, lr if critic_lr is None else critic_lr
    make, teach = (
        _player(net, name, rate, betas)
        for net, name, rate in zip((generator, critic), ("generator", "critic"), rates, strict=True)
    )

    def step(n: int) -> Losses:
        for _ in range(critic_steps):
            x = real()
            with torch.no_grad():
                fake = generator(latents(len(x)))
            at_critic = loss.critic(critic(x), critic(fake)).mean()
            extra = 0 if penalty is None else penalty(critic, x, fake).mean()
            teach(at_critic + extra, n)
            if constrain is not None:
                constrain(critic)
        at_generator = loss.generator(critic(generator(latents(len(x))))).mean()
        make(at_generator, n)
        if ema is not None:
            ema.update()
        return Losses(at_critic.detach(), at_generator.detach())

    return _rounds(step, steps, progress)


def _check_players(generator: nn.Module, critic: nn.Module, x, latents: Callable) -> None:
    """One trial of both nets, so that what does not fit is named before the first step."""
    if not isinstance(x, Tensor):
        raise TypeError(f"real() must give a batch of data, a tensor, got {type(x).__name__}")
    z = latents(len(x))
    if not isinstance(z, Tensor) or len(z) != len(x):
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"latents({len(x)}) must give {len(x)} latents, ({len(x)}, L), got {got}")
    fake = _try(generator, z, "the generator does not take latents")
    if fake.shape != x.shape:
        raise ValueError(
            f"the generator gives samples {tuple(fake.shape)}, the data are {tuple(x.shape)}"
        )
    check_logits(_try(critic, x, "the critic does not take data"), len(x))


@torch.no_grad()
def _try(net: nn.Module, x: Tensor, complaint: str) -> Tensor:
    try:
        return net(x)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{complaint} of shape {tuple(x.shape)}, {x.dtype}: {error}") from error


def _player(net: nn.Module, name: str, rate: Rate, betas: tuple[float, float]) -> Callable:
    """The function (loss, step number) that takes one step of Adam in this net's weights alone."""
    params = [p for p in net.parameters() if p.requires_grad]
    if not params:
        raise ValueError(f"the {name} has no parameters to train")
    adam = torch.optim.Adam(params, betas=betas, fused=params[0].device.type != "mps")

    def descend(value: Tensor, n: int) -> None:
        adam.zero_grad(set_to_none=True)
        value.backward(inputs=params)  # the other player's weights get no gradient
        adam.param_groups[0]["lr"] = rate(n) if callable(rate) else rate
        adam.step()

    return descend


def _rounds(step: Callable[[int], Losses], steps: int, progress: bool) -> Iterator[Losses]:
    bar, due = None, 0.0
    if progress:
        from tqdm.auto import tqdm

        bar = tqdm(total=steps, desc="alternate", unit="step")
    n = 0
    try:
        for n in range(steps):
            values = step(n)
            shown = time.perf_counter() >= due or n + 1 == steps
            if shown or values.critic.device.type == "cpu":  # elsewhere a look waits for the device
                critic, generator = (value.item() for value in values)
                if not math.isfinite(critic + generator):
                    raise ValueError(
                        f"at step {n + 1} the critic's loss is {critic} and the generator's "
                        f"{generator}: look for NaN in the data, lower lr, or bind the critic"
                    )
            if bar is not None:
                if shown:
                    due = time.perf_counter() + 0.1
                    bar.set_postfix_str(f"critic {critic:.3g}, generator {generator:.3g}", False)
                bar.update()
            yield values
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped in step {n + 1} of {steps}") from None
    finally:
        if bar is not None:
            bar.close()


class Coverage(NamedTuple):
    """How many modes were hit, and the χ² of their weights: 0-d tensors."""

    hit: Tensor
    chi2: Tensor


def mode_coverage(x: X, mixture: GaussianMixture, *, least: float = 0.1) -> Coverage:
    """How many of a mixture's K modes x reaches, and Pearson's χ² of the modes' weights.

    Each sample belongs to its most probable component. A mode is hit where at least a share `least`
    of the w_k n samples expected lies within 3 standard deviations, ‖(x − m_k)/s_k‖ ≤ 3; χ² =
    Σ (n_k − n w_k)²/(n w_k) counts all n, so that samples of a mixture of modes well apart give
    K − 1 on average, with standard deviation √(2 (K − 1)). Raises ValueError for another number of
    coordinates or for NaN.
    """
    points, k = check_finite(x).flatten(1), len(mixture.weights)
    if points.shape[1] != mixture.means.shape[1]:
        raise ValueError(
            f"x has {points.shape[1]} coordinates a sample, the mixture {mixture.means.shape[1]}"
        )
    points = points.to(mixture.means)
    owner = mixture.posterior(points).argmax(1)
    near = ((points - mixture.means[owner]) / mixture.stds[owner]).norm(dim=1) <= 3
    expected = len(points) * mixture.weights
    count, inside = (torch.bincount(o, minlength=k) for o in (owner, owner[near]))
    return Coverage(
        (inside >= least * expected).sum(), ((count - expected).square() / expected).sum()
    )
