"""Checks of the exercises of lecture 6, guidance."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minigen.checks import Wrong, ask, draws

B, D, K = 5, 3, 4
_draws = partial(draws, seed=6)


# Without a classifier ---------------------------------------------------------------------------


class _Net(nn.Module):
    """A stand-in for a network: each row depends on its own state, time and label. Counts calls."""

    classes = K

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.rows: list[int] = []

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.rows.append(len(xt))
        if xt.shape[1:] != (D,):
            raise Wrong(
                f"the network takes states (B, {D}), twice as many rows, and was given "
                f"{tuple(xt.shape)}: torch.cat([xt, xt])"
            )
        label = torch.full((len(xt),), K) if label is None else label
        if bool((label < 0).any() | (label > K).any()):
            raise Wrong(f"label {label.tolist()} is out of range: the null label is {K}")
        sizes = {"xt": len(xt)} | {
            name: len(c) for name, c in (("t", t), ("label", label)) if c.ndim
        }
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise Wrong(f"the network was given {said} rows: double all three inputs alike")
        k, t = label.double().reshape(-1, 1), t.reshape(-1, 1)
        return torch.sin(xt * (1 + 0.3 * k) + 2 * t) + 0.5 * k * t


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _guided(net, xt, t, label, gamma, *, mix=lambda c, u, gamma: u + gamma * (c - u),
            null=lambda net: net.classes, times=_twice, states=_twice) -> Tensor:  # fmt: skip
    """The right guided noise in one call, or one with the slip named."""
    labels = torch.cat([label, torch.full_like(label, null(net))])
    return mix(*net(states(xt), times(t), labels).chunk(2), gamma)


def _interleaved(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 0)


def _at_first_time(net, xt, t, *rest) -> Tensor:
    return _guided(net, xt, t[:1].expand(len(t)), *rest)


GUIDED_SLIPS = {
    "that is (1 + w) c − w u with w = gamma, or the difference added to c instead of u; here "
    "gamma = 1 + w, and gamma = 1 gives c": partial(
        _guided, mix=lambda c, u, gamma: (1 + gamma) * c - gamma * u
    ),
    "conditional and unconditional have changed places: start from the unconditional one": partial(
        _guided, mix=lambda c, u, gamma: c + gamma * (u - c)
    ),
    "gamma multiplies the whole difference c − u; you scaled the conditional noise only": partial(
        _guided, mix=lambda c, u, gamma: gamma * c - u
    ),
    "gamma c + (1 − gamma) u is right, you added u where (1 − gamma) u belongs": partial(
        _guided, mix=lambda c, u, gamma: gamma * c + u
    ),
    "the difference is c − u, conditional minus unconditional: its sign is turned": partial(
        _guided, mix=lambda c, u, gamma: u - gamma * (c - u)
    ),
    "that is the correction alone: add it to the unconditional noise": partial(
        _guided, mix=lambda c, u, gamma: gamma * (c - u)
    ),
    "that is the conditional noise, not guided": partial(_guided, mix=lambda c, u, gamma: c),
    "that is the unconditional noise: the label never reached the network": partial(
        _guided, mix=lambda c, u, gamma: u
    ),
    "the null label is net.classes; 0 is a class like any other": partial(
        _guided, null=lambda net: 0
    ),
    "the null label is net.classes; one less is the last class": partial(
        _guided, null=lambda net: net.classes - 1
    ),
    "every sample has its own time, you used the first one's for all": _at_first_time,
    "that is gamma times the conditional noise: u + gamma (c − u)": partial(
        _guided, mix=lambda c, u, gamma: gamma * c
    ),
    "you took gamma − 1, so gamma = 1 gives u; it must give c: u + gamma (c − u)": partial(
        _guided, mix=lambda c, u, gamma: u + (gamma - 1) * (c - u)
    ),
    "that is the mean of both, whatever gamma is": partial(
        _guided, mix=lambda c, u, gamma: (c + u) / 2
    ),
    "those are both halves: chunk(2) takes them apart, u + gamma (c − u) joins them": partial(
        _guided, mix=lambda c, u, gamma: torch.cat([c, u])
    ),
    "your states and times stand in pairs, x_1, x_1, x_2, x_2, …; the labels and halves do not: "
    "torch.cat or repeat, not repeat_interleave": partial(
        _guided, states=_interleaved, times=_interleaved
    ),
    "your states stand in pairs, x_1, x_1, x_2, x_2, …: torch.cat or repeat": partial(
        _guided, states=_interleaved
    ),
    "your times stand in pairs, t_1, t_1, t_2, t_2, …: torch.cat or repeat": partial(
        _guided, times=_interleaved
    ),
}


def guided_eps(function: Callable) -> None:
    """Checks guided_eps(net, xt, t, label, gamma) -> (B, D), classifier-free guidance in one call.

    xt (B, D), t (B,), label (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    net, xt, gamma = _Net(), _draws(B, D), 2.5
    t, label = torch.linspace(0.2, 0.8, B, dtype=torch.float64), torch.tensor([2, 0, 3, 1, 2])
    # The truth asks a net of its own: the rows are those of the learner's calls alone.
    ask(
        "the guided noise", function, lambda _, *args: _guided(_Net(), *args), GUIDED_SLIPS,
        net, xt, t, label, gamma,
    )  # fmt: skip
    if net.rows != [2 * B]:
        raise Wrong(
            f"the values are right, but the network was called {len(net.rows)} times on batches "
            f"of {net.rows}: one call on a batch of {2 * B} does both"
        )
    print(f"right: one call on a batch of {2 * B}, each row with its own state, time and label")


# With a classifier ------------------------------------------------------------------------------


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
            total=torch.sum) -> Tensor:  # fmt: skip
    """The right noise, or one with the slip named: the gain or the number differentiated."""
    x = xt.detach().requires_grad_()
    (grad,) = torch.autograd.grad(total(log_p(x, t)), x)
    return eps + gain(a, b, gamma) * grad


TILT_SLIPS = {
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
    eps, xt, gamma = _draws(B, D, seed=7), _draws(B, D), 1.7
    t = torch.linspace(0.3, 0.7, B, dtype=torch.float64)
    a, b = torch.cos(1.2 * t)[:, None], torch.sin(1.2 * t)[:, None]
    given = (eps, xt, t, a, b, _log_p, gamma)
    answer = ask("the guided noise", function, _tilted, TILT_SLIPS, *given)
    if answer.requires_grad:
        print("(your answer still carries the graph of log_p: take only the gradient out of it)")
    print("right: the noise of five samples, guided by the gradient of log p")


SLIPS = {guided_eps: GUIDED_SLIPS, classifier_guided: TILT_SLIPS}
