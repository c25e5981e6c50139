"""Checks of the exercises of lecture 7, adversarial networks."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.checks import Wrong, ask, call, compare, same

B = 5
SHAPE = (1, 2, 3)  # an image with three different axes, none of them B


def _draws(*shape: int, seed: int, mean: float = 0.4) -> Tensor:
    """Values with a mean other than 0, float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return mean + 1.3 * torch.randn(shape, generator=generator, dtype=torch.float64)


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
    "the logarithm is missing: that is −D": lambda r, f: -f.sigmoid(),
    "the logarithm is missing: that is 1 − D": lambda r, f: 1 - f.sigmoid(),
    "that is minus the logit, the generator of hinge and Wasserstein": lambda r, f: -f,
    "that is minus the critic's loss on both: a zero-sum game, and it saturates":
        lambda r, f: -_critic(r, f),
}  # fmt: skip
LOSS_SLIPS = {
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
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
        raise Wrong(f"return both losses, `return critic, generator`; got {got}")
    return tuple(answer)


def _check_stable(function: Callable) -> None:
    """The same at logits where σ has no digits left in float32."""
    real, fake = torch.tensor([-200.0, 30.0, 150.0]), torch.tensor([120.0, -200.0, 25.0])
    rights = _losses(real, fake)
    for who, answer, right in zip(PLAYERS, _ask(function, real, fake), rights, strict=True):
        if not bool(torch.isfinite(answer).all()):
            why = "in float32 σ(−200) is 0 and its log −∞, and e^120 overflows"
        elif not same(answer, right, rtol=1e-4):
            why = "a clamp or a small number inside the log hides that σ has no digits left"
        else:
            continue
        raise Wrong(
            f"{who} loss is right at small logits, but at real {real.tolist()}, fake "
            f"{fake.tolist()} it is {answer.tolist()}: {why}; −log σ(a) is softplus(−a)"
        )


def _check_teaches(function: Callable) -> None:
    """A gradient leads from each loss to the logits that its player can move."""
    real, fake = (_draws(B, seed=s).requires_grad_() for s in (5, 6))
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
    real, fake = _draws(B, seed=1, mean=0.1), _draws(B, seed=2, mean=-0.3)
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


# The gradient penalty ---------------------------------------------------------------------------


class _Critic(nn.Module):
    """A curved critic of images whose slopes lie on both sides of 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.5 * _draws(6, 4, seed=11, mean=0.2))
        self.out = nn.Parameter(0.8 * _draws(4, seed=12))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != SHAPE:
            raise Wrong(
                f"the critic takes images (B, {', '.join(map(str, SHAPE))}) and was given "
                f"{tuple(x.shape)}: flatten the gradient, not the image"
            )
        return torch.tanh(x.flatten(1) @ self.weight) @ self.out


_point = lambda r, f, u: u * r + (1 - u) * f
_norm = lambda grad: grad.flatten(1).norm(dim=1)
_square = lambda grad, norm=_norm: (norm(grad) - 1) ** 2


def _penalty(critic, real, fake, u, *, at=_point, within=2, total=torch.sum,
             value=_square) -> Tensor:  # fmt: skip
    """The right penalty, or one with the slips named; `within` is one of real, fake and x."""
    real, fake = (a.detach().requires_grad_() for a in (real, fake))
    x = at(real, fake, u[:, None, None, None])
    score = total(critic(x))
    return value(torch.autograd.grad(score, (real, fake, x)[within], create_graph=True)[0])


PLACE_SLIPS = {
    "the slope is taken at the real data only: x = u real + (1 − u) fake": lambda r, f, u: r,
    "the slope is taken at the fakes only: x = u real + (1 − u) fake": lambda r, f, u: f,
    "u and 1 − u have changed places. With u uniform that is as good, for 1 − u is uniform "
    "too; with the u given here it is another point": lambda r, f, u: _point(f, r, u),
    "x is the sum u real + fake: the fakes' share is 1 − u": lambda r, f, u: u * r + f,
    "every pair has its own u, you used the first one's for all":
        lambda r, f, u: _point(r, f, u[:1]),
    "you differentiated at the middle of each segment: u says where": lambda r, f, u: (r + f) / 2,
}  # fmt: skip
AXIS = "the norm runs over one axis of the image, not over all three"
FORM_SLIPS = {  # other functions of the right gradient, (B, 1, 2, 3)
    "the norm runs over the whole batch; each sample has its own, grad.flatten(1).norm(dim=1)":
        partial(_square, norm=Tensor.norm),
    "the norm is the root of the sum over the pixels, not of their mean":
        partial(_square, norm=lambda grad: grad.flatten(1).square().mean(1).sqrt()),
    "that is ‖∇‖² − 1: the norm comes first, then minus 1, then the square":
        lambda grad: _norm(grad) ** 2 - 1,
    "that is (‖∇‖² − 1)²: the root of the squared norm is missing":
        lambda grad: (_norm(grad) ** 2 - 1) ** 2,
    "that is ‖∇‖², a penalty about 0 as R1's: here (‖∇‖ − 1)²": lambda grad: _norm(grad) ** 2,
    "that is ‖∇‖ itself: (‖∇‖ − 1)² is asked for": _norm,
    "the weight λ is in it: here the penalty alone, λ comes outside":
        lambda grad: 10 * _square(grad),
    "the square is missing: ‖∇‖ − 1 could be made as low as −1": lambda grad: _norm(grad) - 1,
    "that is |‖∇‖ − 1|: square it": lambda grad: (_norm(grad) - 1).abs(),
    "that is one-sided, max(0, ‖∇‖ − 1)²: slopes below 1 count as well":
        lambda grad: (_norm(grad) - 1).relu() ** 2,
    "that is the norm of ∇ − 1, not the norm minus 1": lambda grad: _norm(grad - 1) ** 2,
    "one penalty for each pair is asked for, (B,); you took the batch's mean":
        lambda grad: _square(grad).mean(),
    "one penalty for each pair is asked for, (B,); you summed the batch":
        lambda grad: _square(grad).sum(),
    **{f"{AXIS} (yours: dim={d})": lambda g, d=d: (g.norm(dim=d) - 1) ** 2 for d in (1, 2, 3)},
    **{f"{AXIS} (yours: dim={d}, then a mean)":
       lambda g, d=d: ((g.norm(dim=d) - 1) ** 2).mean((1, 2)) for d in (1, 2, 3)},
}  # fmt: skip
PENALTY_SLIPS = {
    **{why: partial(_penalty, at=slip) for why, slip in PLACE_SLIPS.items()},
    **{why: partial(_penalty, value=slip) for why, slip in FORM_SLIPS.items()},
    "you differentiated in real, not in x, which brings in a factor u": partial(_penalty, within=0),
    "you differentiated in fake, not in x, which brings in a factor 1 − u":
        partial(_penalty, within=1),
    "you differentiated the batch's mean: each slope is too small by B, take the sum":
        partial(_penalty, total=torch.mean),
}  # fmt: skip


def _check_reaches_weights(critic: nn.Module, answer: Tensor, right: Tensor) -> None:
    """The penalty must teach the critic: its gradient in the weights is compared as well."""
    if any(p.grad is not None for p in critic.parameters()):
        raise Wrong(
            "the values are right, but .backward() left a gradient of the logits in the critic's "
            "weights, which the next step would follow: use torch.autograd.grad(…, x)"
        )
    if not answer.requires_grad:
        raise Wrong(
            "the values are right, but no gradient leads to the critic's weights, so the penalty "
            "would teach nothing: torch.autograd.grad(…, create_graph=True), and no .detach()"
        )
    params = list(critic.parameters())
    want = torch.autograd.grad(right.sum(), params, retain_graph=True)
    found = torch.autograd.grad(answer.sum(), params, allow_unused=True)
    if not all(g is not None and same(g, w) for g, w in zip(found, want, strict=True)):
        raise Wrong(
            "the values are right, but not their gradient in the critic's weights: some part was "
            "detached; only x is, before the critic sees it"
        )


def gradient_penalty(function: Callable) -> None:
    """Checks gradient_penalty(critic, real, fake, u) -> (B,), (‖∇ critic‖ − 1)² on the segment.

    real and fake are images (B, 1, 2, 3), u (B,), x = u real + (1 − u) fake. Raises NotYet, or
    Wrong with a diagnosis.
    """
    u = torch.tensor([0.15, 0.7, 0.35, 0.9, 0.6], dtype=torch.float64)
    real, fake = _draws(B, *SHAPE, seed=3), _draws(B, *SHAPE, seed=4, mean=-0.8)
    case = _Critic(), real, fake, u
    right = _penalty(*case)
    try:
        first, second = (call(function, *case) for _ in range(2))
        if isinstance(first, Tensor) and isinstance(second, Tensor) and not same(first, second):
            raise Wrong("two calls with the same u give two answers: take the u that is given")
        answer = ask("the penalty", function, _penalty, PENALTY_SLIPS, *case)
    except RuntimeError as error:
        if "require grad" not in str(error) and "graph" not in str(error):
            raise
        raise Wrong(
            f"torch cannot differentiate ({error}): x must require a gradient before the critic "
            f"sees it, x.requires_grad_()"
        ) from None
    _check_reaches_weights(case[0], answer, right)
    print("right: five slopes on five segments, and the gradient reaches the critic's weights")


SLIPS = {nonsaturating: LOSS_SLIPS, gradient_penalty: PENALTY_SLIPS}
