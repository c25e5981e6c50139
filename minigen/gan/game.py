"""The game: its best answer, its linear form, and the loop in which two players take turns."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import X, check_batch, check_count
from minigen.train import Ema, Generators, Rate, Run, descent, loop

from .critics import Critic, Loss, check_logits
from .divergences import LogDensity, log_ratio


def optimal_discriminator(log_p: LogDensity, log_q: LogDensity) -> Critic:
    """The discriminator that maximises E_p log D + E_q log(1 − D), up to −log 4 + 2 JS(p, q).

    D*(x) = p/(p + q) = σ(log p(x) − log q(x)).
    [Goodfellow et al. 2014, proposition 1 and theorem 1]
    """
    return lambda x: torch.sigmoid(log_ratio(log_p, log_q, x))


def game_matrix(step: float, *, alternating: bool = False, r1: float = 0.0) -> Float[Tensor, "2 2"]:
    """One step of the game min_θ max_ψ θ ψ − ½ r1 ψ² as a matrix on (θ, ψ), float64.

    θ ← θ − h ψ, ψ ← ψ + h θ − h r1 ψ, with the new θ in the second equation if alternating.
    This is the Wasserstein GAN of a point mass at 0, fake θ, critic −ψ x. Without r1 the spectral
    radius is √(1 + h²), a spiral outwards, or alternating 1 (h ≤ 2), a circle. With r1 > h,
    alternating with any small r1, it is below 1: the players come to rest.
    [Mescheder et al. 2018, sections 2 and 4]
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
    net: nn.Module,
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
    generator: Generators = None,
    checkpoint: str | os.PathLike | None = None,
    every: int = 500,
    progress: bool = True,
) -> Iterator[Losses]:
    """The two-player loop: each step is critic_steps of Adam for the critic, then one for the net.

    `net` is the generator, latents (n, …) -> samples shaped as the data. `real()` draws a batch of
    data and `latents(n)` n latents, by torch.Generators of their own. The critic minimises its loss
    plus the mean of penalty(critic, real, fake); constrain(critic), such as
    lambda net: clip_weights(net, 0.01), is called after each of its steps. Rates are numbers or
    functions of the step, the critic's being `lr` unless given; `ema` is a train.Ema of the net.
    `checkpoint`, `every` and `generator`, all that `real`, `latents` and `penalty` draw from, as in
    `train.fit`. Yields the Losses of each step; raises ValueError once one is no longer finite.
    [Goodfellow et al. 2014, algorithm 1]
    """
    check_count(critic_steps, "critic_steps")
    if not isinstance(loss, Loss):
        raise TypeError(f"loss must be a gan.Loss such as gan.nonsaturating, got {loss!r}")
    run = Run({"generator": net, "critic": critic}, ema, generator, betas)
    _check_players(net, critic, real(), latents)
    make = descent(run, "generator", lr)
    teach = descent(run, "critic", lr if critic_lr is None else critic_lr)

    def step(n: int) -> Losses:
        for _ in range(critic_steps):
            x = real()
            with torch.no_grad():
                fake = net(latents(len(x)))
            at_critic = loss.critic(critic(x), critic(fake)).mean()
            extra = 0 if penalty is None else penalty(critic, x, fake).mean()
            seen = teach(at_critic + extra, n, at_critic)
            if constrain is not None:
                constrain(critic)
        return Losses(seen, make(loss.generator(critic(net(latents(len(x))))).mean(), n))

    return loop("alternate", run, step, steps, checkpoint, every, progress, Losses)


def _check_players(generator: nn.Module, critic: nn.Module, x, latents: Callable) -> None:
    """One trial of both nets, so that what does not fit is named before the first step."""
    check_batch(x, "real()")
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
