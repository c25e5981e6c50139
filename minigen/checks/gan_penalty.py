"""The check of lecture 7's second exercise, the gradient penalty."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minigen import checks
from minigen.checks import Wrong, ask, same

B = 5
SHAPE = (1, 2, 3)  # an image with three different axes, none of them B
draws = partial(checks.draws, mean=0.4, std=1.3)


class _Critic(nn.Module):
    """A curved critic of images whose slopes lie on both sides of 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(0.5 * draws(6, 4, seed=11, mean=0.2))
        self.out = nn.Parameter(0.8 * draws(4, seed=12))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != SHAPE:
            raise Wrong(
                f"the critic takes images (B, {', '.join(map(str, SHAPE))}) and was given "
                f"{tuple(x.shape)}: "
                + (
                    "u (B,) meets them only as (B, 1, 1, 1), u.reshape(-1, 1, 1, 1)"
                    if x.ndim == 4
                    else "leave them as they are, and flatten the gradient"
                )
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
    "that is half of it": lambda grad: _square(grad) / 2,
    "the length of a gradient is the root of its summed squares; you summed absolute values":
        lambda grad: _square(grad, lambda grad: grad.flatten(1).abs().sum(1)),
    "that is the gradient itself: its norm over all pixels, then (‖∇‖ − 1)²": lambda grad: grad,
    "the weight λ is in it, and you took the batch's mean: (‖∇‖ − 1)² of each pair":
        lambda grad: 10 * _square(grad).mean(),
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
    real, fake = draws(B, *SHAPE, seed=3), draws(B, *SHAPE, seed=4, mean=-0.8)
    case = _Critic(), real, fake, u
    right = _penalty(*case)
    answer = ask("the penalty", function, _penalty, PENALTY_SLIPS, *case)
    _check_reaches_weights(case[0], answer, right)
    print("right: five slopes on five segments, and the gradient reaches the critic's weights")
