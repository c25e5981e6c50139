"""Critics: the losses of both players, and what keeps a critic smooth.

A critic gives one logit for each sample, (B,); D = σ(logit) is the probability of "real". Losses
and penalties are per sample and to be minimised; weight clipping and the spectral norm bind the
weights themselves.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from minigen.shapes import X, check_alike, check_batch, check_dtype, check_generator, like

Logits = Float[Tensor, "B"]
Critic = Callable[[X], Logits]


def check_logits(logits, n: int | None = None) -> Logits:
    """The logits themselves, refused unless they are one float for each sample."""
    want = "(B,)" if n is None else f"({n},)"
    if not isinstance(logits, Tensor) or logits.ndim != 1 or n not in (None, len(logits)):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"a critic gives one number for each sample, shape {want}, got {got}: end it with "
            f".flatten(1) and a linear layer to 1, then .squeeze(1)"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits are floats, got {logits.dtype}")
    return logits


@dataclass(frozen=True)
class Loss:
    """Both players' losses as functions of one logit: on real data, on fakes, of the generator."""

    on_real: Callable[[Tensor], Tensor]
    on_fake: Callable[[Tensor], Tensor]
    of_generator: Callable[[Tensor], Tensor]

    def critic(self, real: Logits, fake: Logits) -> Float[Tensor, "B"]:
        """What the critic minimises, from its logits on as many real samples as fakes."""
        fake = check_logits(fake, len(check_logits(real)))
        return self.on_real(real) + self.on_fake(fake)

    def generator(self, fake: Logits) -> Float[Tensor, "B"]:
        """What the generator minimises, from the critic's logits on its samples."""
        return self.of_generator(check_logits(fake))


# −log D and −log(1 − D), then log(1 − D) or −log D: softplus has the digits that log σ loses.
minimax = Loss(lambda a: F.softplus(-a), F.softplus, lambda a: -F.softplus(a))
nonsaturating = Loss(lambda a: F.softplus(-a), F.softplus, lambda a: F.softplus(-a))
# Targets 1 and −1, so D* = (p − q)/(p + q); the generator's target is that of the data.
# [Mao et al. 2017]
least_squares = Loss(
    lambda a: 0.5 * (a - 1) ** 2, lambda a: 0.5 * (a + 1) ** 2, lambda a: 0.5 * (a - 1) ** 2
)
# [Lim & Ye 2017; Tran et al. 2017]
hinge = Loss(lambda a: F.relu(1 - a), lambda a: F.relu(1 + a), lambda a: -a)
# The dual of W1, if the critic is 1-Lipschitz: minus the critic's loss bounds W1 from below.
# [Arjovsky et al. 2017]
wasserstein = Loss(lambda a: -a, lambda a: a, lambda a: -a)
losses = {
    "minimax": minimax, "nonsaturating": nonsaturating, "least_squares": least_squares,
    "hinge": hinge, "wasserstein": wasserstein,
}  # fmt: skip


# What keeps a critic smooth ----------------------------------------------------------------------


def check_both(real: X, fake: X) -> None:
    """Raises TypeError or ValueError unless real and fake are batches of one shape and dtype."""
    check_batch(real, "real")
    check_batch(fake, "fake")
    check_alike(real, fake, "real and fake")


def _slopes(critic: Critic, x: X, name: str) -> Float[Tensor, "B N"]:
    """∇ critic(x) of each sample as a row, differentiable in the critic's weights and in x."""
    check_batch(x, name)
    check_dtype(critic, x)
    learn = torch.is_grad_enabled()
    x = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad():
        logits, grad = check_logits(critic(x), len(x)), None
        if logits.requires_grad:
            (grad,) = torch.autograd.grad(logits.sum(), x, create_graph=learn, allow_unused=True)
    if grad is None:
        raise ValueError(
            "this penalty differentiates the critic in its input, but no gradient leads from its "
            "logits to x: was x detached, or the critic called under no_grad?"
        )
    return grad.reshape(len(x), -1)


def gradient_penalty(
    critic: Critic, real: X, fake: X, *, generator: torch.Generator | None = None
) -> Float[Tensor, "B"]:
    """A penalty on any slope but 1 of the critic, at a random point between each real and its fake.

    (‖∇ critic(x)‖ − 1)² at x = u real + (1 − u) fake, u uniform in [0, 1].
    Where the critic is flat the penalty is 1 and its gradient 0, a subgradient of the norm. Each
    logit must depend on its own sample alone: no batch normalisation. Only a number under no_grad.
    As `r1` and `r2`, raises ValueError where no gradient leads from the logits to x.
    [Gulrajani et al. 2017, eq. 3; there times 10]
    """
    check_both(real, fake)
    check_generator(real, generator)
    u = torch.rand(len(real), generator=generator, device=real.device, dtype=real.dtype)
    x = torch.lerp(fake.detach(), real.detach(), like(u, real))
    # the derivative of √ at 0 is infinite: of one flat sample it would make every weight NaN
    return (torch.linalg.vector_norm(_slopes(critic, x, "real"), dim=1) - 1) ** 2


def r1(critic: Critic, real: X) -> Float[Tensor, "B"]:
    """½ ‖∇ critic(real)‖², to be multiplied by γ. [Mescheder et al. 2018, eq. 9]"""
    return 0.5 * _slopes(critic, real, "real").square().sum(1)


def r2(critic: Critic, fake: X) -> Float[Tensor, "B"]:
    """½ ‖∇ critic(fake)‖², to be multiplied by γ. [Mescheder et al. 2018, eq. 10]"""
    return 0.5 * _slopes(critic, fake, "fake").square().sum(1)


@torch.no_grad()
def clip_weights(net: nn.Module, limit: float) -> None:
    """Clamp every parameter of net to ± limit, in place. [Arjovsky et al. 2017, algorithm 1]"""
    if not 0 < limit < math.inf:
        raise ValueError(f"weights are clipped to [−limit, limit] with limit > 0, got {limit}")
    for p in net.parameters():
        p.clamp_(-limit, limit)


def spectral_norm(net: nn.Module) -> nn.Module:
    """Divide the weight of each linear and convolution layer by its largest singular value.

    By torch's own parametrisation: one step of power iteration each time the net is called in
    training, from vectors drawn, as initial weights are, after torch.manual_seed. Changes net and
    returns it; a second call raises ValueError. Of a convolution it is the norm of the kernel as a
    matrix, not of the map. [Miyato et al. 2018]
    """
    kinds = nn.Linear | nn.modules.conv._ConvNd
    layers = [layer for layer in net.modules() if isinstance(layer, kinds)]
    if not layers or any(parametrize.is_parametrized(layer, "weight") for layer in layers):
        raise ValueError(
            "spectral_norm needs a net with linear or convolution layers whose weights have no "
            "parametrisation yet: call it once"
        )
    for layer in layers:
        parametrizations.spectral_norm(layer)
    return net
