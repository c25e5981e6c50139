"""Checks of the exercises of lecture 7, adversarial networks."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigen.checks import Wrong, call, compare, same

B = 5
SHAPE = (1, 2, 3)  # an image with three different axes, none of them B


def _draws(*shape: int, seed: int, mean: float = 0.4) -> Tensor:
    """Values with a mean other than 0, float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return mean + 1.3 * torch.randn(shape, generator=generator, dtype=torch.float64)


def _pair(answer) -> tuple[Tensor, Tensor]:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        got = f"{len(answer)} values" if isinstance(answer, tuple | list) else type(answer).__name__
        raise Wrong(f"return both losses, `return critic, generator`; got {got}")
    return tuple(answer)


def _critic_slips(real: Tensor, fake: Tensor, right: Tensor) -> dict[str, Tensor]:
    r, f = torch.sigmoid(real), torch.sigmoid(fake)
    return {
        "that is log D(real) + log(1 − D(fake)), which the critic maximises; a loss is minimised": (
            -right
        ),
        "real and fake have changed places: D should be 1 on real, 0 on fake": (
            F.softplus(real) + F.softplus(-fake)
        ),
        "the term of the fakes is missing, so D = 1 everywhere would be best": F.softplus(-real),
        "the term of the real data is missing, so D = 0 everywhere would be best": F.softplus(fake),
        "both terms are −log D; on fakes it is −log(1 − D)": F.softplus(-real) + F.softplus(-fake),
        "the two terms are subtracted: both are losses, add them": (
            F.softplus(-real) - F.softplus(fake)
        ),
        "you took logarithms of the logits: D = σ(logit) comes first": (
            -real.log() - (1 - fake).log()
        ),
        "the sigmoid is applied twice: a function `with_logits`, or softplus, takes the logit": (
            F.softplus(-r) + F.softplus(f)
        ),
        "the logarithm is missing: −D(real) + D(fake) is no likelihood": f - r,
        "those are the logits' own differences, the Wasserstein loss": fake - real,
        "that is the hinge loss; here −log D(real) − log(1 − D(fake))": (
            F.relu(1 - real) + F.relu(1 + fake)
        ),
        "that is half of it: the value of the game adds its two terms": 0.5 * right,
        "one loss for each sample is asked for, (B,); you took the mean of the batch": right.mean(),
        "one loss for each sample is asked for, (B,); you summed the batch": right.sum(),
    }


def _generator_slips(real: Tensor, fake: Tensor, right: Tensor) -> dict[str, Tensor]:
    return {
        "that is log(1 − D), the saturating form: its slope dies where the critic is sure": (
            -F.softplus(fake)
        ),
        "that is log D, which the generator maximises; a loss is minimised": -right,
        "that is −log(1 − D), the critic's loss on fakes: the generator wants D(fake) = 1": (
            F.softplus(fake)
        ),
        "that looks at the real data, on which the generator has no influence": F.softplus(-real),
        "you took the logarithm of the logit: D = σ(logit) comes first": -fake.log(),
        "the sigmoid is applied twice: a function `with_logits`, or softplus, takes the logit": (
            F.softplus(-torch.sigmoid(fake))
        ),
        "the logarithm is missing: that is −D": -torch.sigmoid(fake),
        "the logarithm is missing: that is 1 − D": torch.sigmoid(-fake),
        "that is minus the logit, the generator of hinge and Wasserstein": -fake,
        "that is minus the critic's loss on both: a zero-sum game, and it saturates": (
            -F.softplus(-real) - F.softplus(fake)
        ),
        "one loss for each sample is asked for, (B,); you took the mean of the batch": right.mean(),
        "one loss for each sample is asked for, (B,); you summed the batch": right.sum(),
    }


def _ask(function: Callable, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    try:
        return _pair(call(function, real, fake))
    except RuntimeError as error:
        if "between 0 and 1" not in str(error):
            raise
        raise Wrong(
            "binary_cross_entropy takes probabilities and was given logits: there is "
            "binary_cross_entropy_with_logits, or softplus"
        ) from None


def _check_stable(function: Callable) -> None:
    """The same at logits where σ has no digits left in float32."""
    real, fake = torch.tensor([-200.0, 30.0, 150.0]), torch.tensor([120.0, -200.0, 25.0])
    rights = F.softplus(-real) + F.softplus(fake), F.softplus(-fake)
    for name, answer, right in zip(
        ("the critic's", "the generator's"), _ask(function, real, fake), rights, strict=True
    ):
        if not bool(torch.isfinite(answer).all()):
            why = "in float32 σ(−200) is 0 and its log −∞, and e^120 overflows"
        elif not same(answer, right, rtol=1e-4):
            why = "a clamp or a small number inside the log hides that σ has no digits left"
        else:
            continue
        raise Wrong(
            f"{name} loss is right at small logits, but at real {real.tolist()}, fake "
            f"{fake.tolist()} it is {answer.tolist()}: {why}; −log σ(a) is softplus(−a)"
        )


def nonsaturating(function: Callable) -> None:
    """Checks nonsaturating(real, fake) -> critic's loss (B,), generator's loss (B,), to minimise.

    real and fake are logits (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    real, fake = _draws(B, seed=1, mean=0.1), _draws(B, seed=2, mean=-0.3)
    critic, generator = F.softplus(-real) + F.softplus(fake), F.softplus(-fake)
    first, second = _ask(function, real, fake)
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if same(first, generator) and same(second, critic):
            raise Wrong("the two losses have changed places: the critic's comes first")
    compare("the critic's loss", first, critic, _critic_slips(real, fake, critic))
    compare("the generator's loss", second, generator, _generator_slips(real, fake, generator))
    _check_stable(function)
    print("right: both losses, one for each sample, finite even where σ is 0 or 1 in float32")


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


def _slope(critic: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]


def _norms(grad: Tensor) -> Tensor:
    return grad.flatten(1).norm(dim=1)


def _place_slips(critic: nn.Module, real: Tensor, fake: Tensor, u: Tensor) -> dict[str, Tensor]:
    """The penalty at other points than x, or differentiated in something else."""
    c = u[:, None, None, None]
    at = lambda x: (_norms(_slope(critic, x)) - 1) ** 2
    norm = _norms(_slope(critic, c * real + (1 - c) * fake))
    return {
        "the slope is taken at the real data only: x = u real + (1 − u) fake": at(real),
        "the slope is taken at the fakes only: x = u real + (1 − u) fake": at(fake),
        "u and 1 − u have changed places. With u uniform that is as good, for 1 − u is uniform "
        "too; with the u given here it is another point": at((1 - c) * real + c * fake),
        "x is the sum u real + fake: the fakes' share is 1 − u": at(c * real + fake),
        "every pair has its own u, you used the first one's for all": (
            at(u[0] * real + (1 - u[0]) * fake)
        ),
        "you differentiated at the middle of each segment: u says where": at((real + fake) / 2),
        "you differentiated in real, not in x, which brings in a factor u": (u * norm - 1) ** 2,
        "you differentiated in fake, not in x, which brings in a factor 1 − u": (
            ((1 - u) * norm - 1) ** 2
        ),
        "you differentiated the batch's mean: each slope is too small by B, take the sum": (
            (norm / B - 1) ** 2
        ),
    }  # fmt: skip


def _form_slips(grad: Tensor) -> dict[str, Tensor]:
    """Other functions of the right gradient."""
    norm, one_axis = _norms(grad), "the norm runs over one axis of the image, not over all three"
    right, per_axis = (norm - 1) ** 2, {d: (grad.norm(dim=d) - 1) ** 2 for d in (1, 2, 3)}
    return {
        "the norm runs over the whole batch; each sample has its own, "
        "grad.flatten(1).norm(dim=1)": (grad.norm() - 1) ** 2,
        "that is ‖∇‖² − 1: the norm comes first, then minus 1, then the square": norm**2 - 1,
        "that is (‖∇‖² − 1)²: the root of the squared norm is missing": (norm**2 - 1) ** 2,
        "that is ‖∇‖², a penalty about 0 as R1's: here (‖∇‖ − 1)²": norm**2,
        "that is ‖∇‖ itself: (‖∇‖ − 1)² is asked for": norm,
        "the square is missing: ‖∇‖ − 1 could be made as low as −1": norm - 1,
        "that is |‖∇‖ − 1|: square it": (norm - 1).abs(),
        "that is one-sided, max(0, ‖∇‖ − 1)²: slopes below 1 count as well": (
            (norm.clamp(min=1) - 1) ** 2
        ),
        "that is the norm of ∇ − 1, not the norm minus 1": _norms(grad - 1) ** 2,
        "one penalty for each pair is asked for, (B,); you took the batch's mean": right.mean(),
        "one penalty for each pair is asked for, (B,); you summed the batch": right.sum(),
        **{f"{one_axis} (yours: dim={d})": v for d, v in per_axis.items()},
        **{f"{one_axis} (yours: dim={d}, then a mean)": v.flatten(1).mean(1)
           for d, v in per_axis.items()},
    }  # fmt: skip


def _penalty_slips(critic: nn.Module, real: Tensor, fake: Tensor, u: Tensor) -> dict[str, Tensor]:
    c = u[:, None, None, None]
    grad = _slope(critic, c * real + (1 - c) * fake)
    slips = _place_slips(critic, real, fake, u) | _form_slips(grad)
    return {diagnosis: value.detach() for diagnosis, value in slips.items()}


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
    critic, u = _Critic(), torch.tensor([0.15, 0.7, 0.35, 0.9, 0.6], dtype=torch.float64)
    real, fake = _draws(B, *SHAPE, seed=3), _draws(B, *SHAPE, seed=4, mean=-0.8)
    try:
        answer = call(function, critic, real.clone(), fake.clone(), u.clone())
    except RuntimeError as error:
        if "require grad" not in str(error) and "graph" not in str(error):
            raise
        raise Wrong(
            f"torch cannot differentiate ({error}): x must require a gradient before the critic "
            f"sees it, x.requires_grad_()"
        ) from None
    c = u[:, None, None, None]
    right = (_norms(_slope(critic, c * real + (1 - c) * fake)) - 1) ** 2
    value = answer.detach() if isinstance(answer, Tensor) else answer
    compare("the penalty", value, right.detach(), _penalty_slips(critic, real, fake, u))
    _check_reaches_weights(critic, answer, right)
    print("right: five slopes on five segments, and the gradient reaches the critic's weights")
