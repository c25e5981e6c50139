"""Checks of the exercises of lecture 7, adversarial networks."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minigen.checks import Wrong, call, compare, described, same
from minigen.checks.gan_penalty import PENALTY_SLIPS, B, draws, gradient_penalty

# The two losses ---------------------------------------------------------------------------------

PLAYERS = ("the critic's", "the generator's")
_critic = lambda r, f: F.softplus(-r) + F.softplus(f)
_generator = lambda r, f: F.softplus(-f)


def _losses(r: Tensor, f: Tensor, *, critic=_critic, generator=_generator) -> tuple[Tensor, Tensor]:
    """Both losses of the logits on real and fake, or one of them with a slip."""
    return critic(r, f), generator(r, f)


CRITIC_SLIPS = {
    "that is log D(real) + log(1 − D(fake)), which the critic maximises; a loss is minimised":
        lambda r, f: -_critic(r, f),
    "real and fake have changed places: D should be 1 on real, 0 on fake":
        lambda r, f: _critic(f, r),
    "the term of the fakes is missing, so D = 1 everywhere would be best":
        lambda r, f: F.softplus(-r),
    "the term of the real data is missing, so D = 0 everywhere would be best":
        lambda r, f: F.softplus(f),
    "both terms are −log D; on fakes it is −log(1 − D)": lambda r, f: _critic(r, -f),
    "the two terms are subtracted: both are losses, add them":
        lambda r, f: F.softplus(-r) - F.softplus(f),
    "you took logarithms of the logits: D = σ(logit) comes first":
        lambda r, f: -r.log() - (1 - f).log(),
    "the logarithm is missing: −D(real) + D(fake) is no likelihood":
        lambda r, f: f.sigmoid() - r.sigmoid(),
    "those are the logits' own differences, the Wasserstein loss": lambda r, f: f - r,
    "that is the hinge loss; here −log D(real) − log(1 − D(fake))":
        lambda r, f: F.relu(1 - r) + F.relu(1 + f),
    "that is half of it: the value of the game adds its two terms":
        lambda r, f: 0.5 * _critic(r, f),
    "that is least squares, (a − 1)² + a²; here −log D(real) − log(1 − D(fake))":
        lambda r, f: (r - 1) ** 2 + f**2,
    "relu is no softplus, which is log(1 + e^a)": lambda r, f: F.relu(-r) + F.relu(f),
    "that is in bits: nats are natural logarithms": lambda r, f: _critic(r, f) / math.log(2),
    "the logarithm is of D(real) + 1 − D(fake); each has its own":
        lambda r, f: -(r.sigmoid() + 1 - f.sigmoid()).log(),
    "real and fake are joined in one batch; add the two terms, one number for each pair":
        lambda r, f: torch.cat([F.softplus(-r), F.softplus(f)]),
}  # fmt: skip
GENERATOR_SLIPS = {
    "that is log(1 − D), the saturating form: its slope dies where the critic is sure":
        lambda r, f: -F.softplus(f),
    "that is log D, which the generator maximises; a loss is minimised":
        lambda r, f: F.logsigmoid(f),
    "that is −log(1 − D), the critic's loss on fakes: the generator wants D(fake) = 1":
        lambda r, f: F.softplus(f),
    "that looks at the real data, on which the generator has no influence":
        lambda r, f: F.softplus(-r),
    "you took the logarithm of the logit: D = σ(logit) comes first": lambda r, f: -f.log(),
    "that holds the real data too, with the targets changed: −log D(fake) alone":
        lambda r, f: _critic(f, r),
    "that is half of it: −log D(fake) as it is": lambda r, f: 0.5 * _generator(r, f),
    "that is least squares, (a − 1)²; here −log D(fake)": lambda r, f: (f - 1) ** 2,
    "the logarithm is missing: that is −D": lambda r, f: -f.sigmoid(),
    "the logarithm is missing: that is 1 − D": lambda r, f: 1 - f.sigmoid(),
    "that is minus the logit, the generator of hinge and Wasserstein": lambda r, f: -f,
    "that is minus the critic's loss on both: a zero-sum game, and it saturates":
        lambda r, f: -_critic(r, f),
}  # fmt: skip
LOSS_SLIPS = {
    "both are the critic's loss; the generator's looks at the fakes alone, −log D(fake)":
        lambda r, f: (_critic(r, f), _critic(r, f)),
    "both are −log D(fake); the critic has two terms": lambda r, f: (_generator(r, f),) * 2,
    **{why: partial(_losses, critic=slip) for why, slip in CRITIC_SLIPS.items()},
    **{why: partial(_losses, generator=slip) for why, slip in GENERATOR_SLIPS.items()},
    "the sigmoid is applied twice: a function `with_logits`, or softplus, takes the logit":
        lambda r, f: _losses(r.sigmoid(), f.sigmoid()),
    "one loss for each sample is asked for, (B,); you took the mean of the batch":
        lambda r, f: [loss.mean() for loss in _losses(r, f)],
    "one loss for each sample is asked for, (B,); you summed the batch":
        lambda r, f: [loss.sum() for loss in _losses(r, f)],
}  # fmt: skip


def _ask(function: Callable, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    try:
        answer = call(function, real, fake)
    except RuntimeError as error:
        if "between 0 and 1" not in str(error):
            raise
        raise Wrong(
            "binary_cross_entropy takes probabilities and was given logits: there is "
            "binary_cross_entropy_with_logits, or softplus"
        ) from None
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        got = described(answer)
        raise Wrong(f"return both losses, `return critic, generator`; got {got}")
    return tuple(answer)


def _check_stable(function: Callable) -> None:
    """The same at logits where σ has no digits left in float32."""
    real, fake = torch.tensor([-200.0, 30.0, 150.0]), torch.tensor([120.0, -200.0, 25.0])
    rights = _losses(real, fake)
    for who, answer, right in zip(PLAYERS, _ask(function, real, fake), rights, strict=True):
        if not bool(torch.isfinite(answer).all()):
            why = (
                "σ(−200) is 0 in float32, 1 − σ(120) even in float64, and the log of 0 is −∞; "
                "e^120 overflows in float32"
            )
        elif not same(answer, right, rtol=1e-4):
            why = "a clamp or a small number inside the log hides that σ has no digits left"
        else:
            continue
        i = int((answer - right).nan_to_num(torch.inf).abs().argmax())
        raise Wrong(
            f"{who} loss is right at small logits, but at real {real[i]:g}, fake {fake[i]:g} it is "
            f"{answer[i]:.4g}: {why}; −log σ(a) is softplus(−a)"
        )


def _check_teaches(function: Callable) -> None:
    """A gradient leads from each loss to the logits that its player can move."""
    real, fake = (draws(B, seed=s).requires_grad_() for s in (5, 6))
    rights, answers = _losses(real, fake), _ask(function, real, fake)
    for who, answer, right, logits in (
        (PLAYERS[0], answers[0], rights[0], (real, fake)),
        (PLAYERS[1], answers[1], rights[1], (fake,)),
    ):
        want = torch.autograd.grad(right.sum(), logits)
        found = [None] * len(logits)
        if answer.requires_grad:
            found = torch.autograd.grad(answer.sum(), logits, retain_graph=True, allow_unused=True)
        if not all(g is not None and same(g, w) for g, w in zip(found, want, strict=True)):
            raise Wrong(
                f"{who} loss is right in value, but its gradient does not reach the logits, so "
                "nothing would be learned from it: no .detach() and no torch.no_grad() in here"
            )


def nonsaturating(function: Callable) -> None:
    """Checks nonsaturating(real, fake) -> critic's loss (B,), generator's loss (B,), to minimise.

    real and fake are logits (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    real, fake = draws(B, seed=1, mean=0.1), draws(B, seed=2, mean=-0.3)
    rights, answers = _losses(real, fake), _ask(function, real, fake)
    pairs = zip(answers, rights[::-1], strict=True)
    if all(isinstance(a, Tensor) and same(a, other) for a, other in pairs):
        raise Wrong("the two losses have changed places: the critic's comes first")
    for i, who in enumerate(PLAYERS):
        slips = {why: lambda s=s, i=i: s(real, fake)[i] for why, s in LOSS_SLIPS.items()}
        compare(f"{who} loss", answers[i], rights[i], slips)
    _check_stable(function)
    _check_teaches(function)
    print("right: both losses, one for each sample, finite even where σ is 0 or 1 in float32")


SLIPS = {nonsaturating: LOSS_SLIPS, gradient_penalty: PENALTY_SLIPS}
