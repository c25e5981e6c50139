"""Checks of the exercises of lecture 6, guidance."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from minigen.checks import Wrong, ask
from minigen.checks.guidance_tilt import TILT_SLIPS, B, D, classifier_guided, draws

K = 4


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


def _halves(out: Tensor) -> tuple[Tensor, Tensor]:
    return out.chunk(2)


def _every_second(out: Tensor) -> tuple[Tensor, Tensor]:
    return out[::2], out[1::2]


def _guided(net, xt, t, label, gamma, *, mix=lambda c, u, gamma: u + gamma * (c - u),
            null=lambda net: net.classes, times=_twice, states=_twice,
            labels=lambda label, null: torch.cat([label, null]), parts=_halves
            ) -> Tensor:  # fmt: skip
    """The right guided noise in one call, or one with the slip named."""
    both = labels(label, torch.full_like(label, null(net)))
    return mix(*parts(net(states(xt), times(t), both)), gamma)


def _interleaved(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 0)


PAIRS = {"states": _interleaved, "times": _interleaved}


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
    "torch.cat or repeat, not repeat_interleave": partial(_guided, **PAIRS),
    "your rows stand in pairs, with label and without, but chunk(2) takes the first half and the "
    "last: out[::2] and out[1::2], or torch.cat": partial(
        _guided, **PAIRS, labels=lambda label, null: torch.stack([label, null], 1).flatten()
    ),
    "your rows stand in pairs, both with the label: half of them get the null label, net.classes": (
        partial(_guided, **PAIRS, labels=lambda label, null: _interleaved(label))
    ),
    "your states and times stand in pairs and you took every second row, but your labels stand in "
    "halves: torch.stack([label, null], 1).flatten(), or torch.cat": partial(
        _guided, **PAIRS, parts=_every_second
    ),
    "you took every second row, but torch.cat and repeat put one half after the other: chunk(2)": (
        partial(_guided, parts=_every_second)
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
    net, xt, gamma = _Net(), draws(B, D), 2.5
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


SLIPS = {guided_eps: GUIDED_SLIPS, classifier_guided: TILT_SLIPS}
