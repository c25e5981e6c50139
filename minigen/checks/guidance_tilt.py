"""The check of lecture 6's second program, guidance by a classifier."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen import checks
from minigen.checks import Wrong, ask

B, D = 5, 3
draws = partial(checks.draws, seed=6)


def _log_p(x: Tensor, t: Tensor) -> Tensor:
    """log of a class's share among three, at each noisy point: (B,)."""
    if t.shape != x.shape[:1]:
        raise Wrong(
            f"log_p takes one time for each sample, t of shape {tuple(x.shape[:1])}, got "
            f"{tuple(t.shape)}"
        )
    centres = torch.tensor([[0.5, -1.0, 2.0], [1.5, 1.0, 0.0], [-1.0, 0.3, 0.4]]).to(x)
    logits = -0.5 * ((x[:, None] - centres) ** 2).sum(-1) / (0.5 + t[:, None])
    return torch.log_softmax(logits, 1)[:, 1]


def _tilted(eps, xt, t, a, b, log_p, gamma, *, gain=lambda a, b, gamma: -gamma * b,
            total=torch.sum, at=lambda x0, x: x, when=lambda t: t) -> Tensor:  # fmt: skip
    """The right noise, or one with the slip named: gain, point or the number differentiated."""
    x = at((xt - b * eps) / a, xt).detach().requires_grad_()
    (grad,) = torch.autograd.grad(total(log_p(x, when(t))), x)
    return eps + gain(a, b, gamma) * grad


AT_X0 = {"at": lambda x0, x: x0}
ASKED = "the classifier is to be asked at xt and t, as log p_t(y | xt); you asked it at x̂0"
IN_XT = {**AT_X0, "gain": lambda a, b, gamma: -gamma * b / a}  # by the chain rule
TILT_SLIPS = {
    ASKED: partial(_tilted, **AT_X0),
    f"{ASKED} and t = 0": partial(_tilted, **AT_X0, when=torch.zeros_like),
    f"{ASKED}, and differentiated in xt": partial(_tilted, **IN_XT),
    f"{ASKED} and t = 0, and differentiated in xt": partial(
        _tilted, **IN_XT, when=torch.zeros_like
    ),
    "the classifier was told t = 0, but xt is as noisy as t says": partial(
        _tilted, when=torch.zeros_like
    ),
    "the noise points away from the class: subtract, ε − γ b ∇ log p": partial(
        _tilted, gain=lambda a, b, gamma: gamma * b
    ),
    "b is missing: ε = −b s, so a gradient becomes noise by −b": partial(
        _tilted, gain=lambda a, b, gamma: -gamma
    ),
    "you multiplied by b²; that belongs to x̂0 (as b²/a), noise takes b": partial(
        _tilted, gain=lambda a, b, gamma: -gamma * b**2
    ),
    "you multiplied by b²/a, which corrects x̂0; the noise takes b": partial(
        _tilted, gain=lambda a, b, gamma: -gamma * b**2 / a
    ),
    "you multiplied by b/a; the gradient is in xt, not in xt/a": partial(
        _tilted, gain=lambda a, b, gamma: -gamma * b / a
    ),
    "you multiplied by a: the noise's own coefficient is b": partial(
        _tilted, gain=lambda a, b, gamma: -gamma * a
    ),
    "gamma was never used": partial(_tilted, gain=lambda a, b, gamma: -b),
    "b and gamma are missing: ε − γ b ∇ log p": partial(_tilted, gain=lambda a, b, gamma: -1),
    "b is missing, and the sign is that of a score: ε − γ b ∇ log p": partial(
        _tilted, gain=lambda a, b, gamma: gamma
    ),
    "gamma is missing, and the noise points away from the class: ε − γ b ∇ log p": partial(
        _tilted, gain=lambda a, b, gamma: b
    ),
    "you divided by b: ε = −b s, so a gradient becomes noise by −b": partial(
        _tilted, gain=lambda a, b, gamma: -gamma / b
    ),
    "you added b²/a times the gradient, as for x̂0; the noise loses b times it": partial(
        _tilted, gain=lambda a, b, gamma: gamma * b**2 / a
    ),
    "gamma = 1 is Bayes' rule as it is; you took gamma − 1, which is no guidance there": partial(
        _tilted, gain=lambda a, b, gamma: -(gamma - 1) * b
    ),
    "gamma = 0 is no guidance; you took 1 + gamma": partial(
        _tilted, gain=lambda a, b, gamma: -(1 + gamma) * b
    ),
    "you corrected xt: the correction belongs to eps": (
        lambda eps, xt, *rest: _tilted(xt, xt, *rest)
    ),
    "eps keeps its whole weight: the classifier's part is added, not mixed in by 1 − gamma": (
        lambda eps, xt, *rest: _tilted((1 - rest[-1]) * eps, xt, *rest)
    ),
    "you differentiated the batch's mean: each gradient is too small by B, take the sum": partial(
        _tilted, total=torch.mean
    ),
    "that is the gradient of p, not of log p": partial(_tilted, total=lambda v: v.exp().sum()),
    "the guidance is missing: that is the noise as it was": lambda eps, *rest: eps,
    "that is the correction alone: add it to eps": lambda eps, *rest: _tilted(0 * eps, *rest),
}


def classifier_guided(function: Callable) -> None:
    """Checks classifier_guided(eps, xt, t, a, b, log_p, gamma) -> (B, D), the guided noise.

    eps, xt (B, D), t (B,), a and b (B, 1). Raises NotYet, or Wrong with a diagnosis.
    """
    eps, xt, gamma = draws(B, D, seed=7), draws(B, D), 1.7
    t = torch.linspace(0.3, 0.7, B, dtype=torch.float64)
    a, b = torch.cos(1.2 * t)[:, None], torch.sin(1.2 * t)[:, None]
    given = (eps, xt, t, a, b, _log_p, gamma)
    answer = ask("the guided noise", function, _tilted, TILT_SLIPS, *given)
    if answer.requires_grad:
        print("(your answer still carries the graph of log_p: take only the gradient out of it)")
    print("right: the noise of five samples, guided by the gradient of log p")
