"""Checks of the exercises of lecture 6, guidance."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigen.checks import Wrong, call, compare

B, D, K = 5, 3, 4


def _draws(*shape: int, seed: int = 6) -> Tensor:
    """Values with a mean far from 0, float64, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return 0.7 + torch.randn(shape, generator=generator, dtype=torch.float64)


class _Net(nn.Module):
    """A stand-in for a network: each row depends on its own state, time and label. Counts calls."""

    classes = K

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.rows: list[int] = []

    def value(self, xt: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            label = torch.full((len(xt),), K)
        k = label.double()[:, None]
        return torch.sin(xt * (1 + 0.3 * k) + 2 * t[:, None]) + 0.5 * k * t[:, None]

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.rows.append(len(xt))
        sizes = {"xt": len(xt), "t": len(t) if t.ndim else len(xt)}
        if label is not None:
            sizes["label"] = len(label) if label.ndim else len(xt)
            if bool((label < 0).any() | (label > K).any()):
                raise Wrong(f"label {label.tolist()} is out of range: the null label is {K}")
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise Wrong(f"the network was given {said} rows: double all three inputs alike")
        return self.value(xt, t.expand(len(xt)), label)


def _mixes(c: Tensor, u: Tensor, gamma: float) -> dict[str, Tensor]:
    """The usual wrong mixtures of the conditional and the unconditional noise."""
    return {
        "that is (1 + w) c − w u with w = gamma, or the difference added to c instead of u; "
        "here gamma = 1 + w, and gamma = 1 gives c": (1 + gamma) * c - gamma * u,
        "conditional and unconditional have changed places: start from the unconditional one": (
            c + gamma * (u - c)
        ),
        "gamma multiplies the whole difference c − u; you scaled the conditional noise only": (
            gamma * c - u
        ),
        "gamma c + (1 − gamma) u is right, you added u where (1 − gamma) u belongs": gamma * c + u,
        "the difference is c − u, conditional minus unconditional: its sign is turned": (
            u - gamma * (c - u)
        ),
        "that is the correction alone: add it to the unconditional noise": gamma * (c - u),
        "that is the conditional noise, not guided": c,
        "that is the unconditional noise: the label never reached the network": u,
    }  # fmt: skip


def guided_eps(function: Callable) -> None:
    """Checks guided_eps(net, xt, t, label, gamma) -> (B, D), classifier-free guidance in one call.

    xt (B, D), t (B,), label (B,). Raises NotYet, or Wrong with a diagnosis.
    """
    net, xt, gamma = _Net(), _draws(B, D), 2.5
    t, label = torch.linspace(0.2, 0.8, B, dtype=torch.float64), torch.tensor([2, 0, 3, 1, 2])
    c, u = net.value(xt, t, label), net.value(xt, t, None)
    zero, last = net.value(xt, t, 0 * label), net.value(xt, t, 0 * label + K - 1)
    first = t[:1].expand(B)
    late, early = net.value(xt, first, label), net.value(xt, first, None)
    slips = _mixes(c, u, gamma) | {
        "the null label is net.classes; 0 is a class like any other": zero + gamma * (c - zero),
        "the null label is net.classes; one less is the last class": last + gamma * (c - last),
        "every sample has its own time, you used the first one's for all": (
            early + gamma * (late - early)
        ),
    }
    answer = call(function, net, xt, t, label, gamma)
    compare("the guided noise", answer, u + gamma * (c - u), slips)
    if net.rows != [2 * B]:
        raise Wrong(
            f"the values are right, but the network was called {len(net.rows)} times on batches "
            f"of {net.rows}: one call on a batch of {2 * B} does both"
        )
    print(f"right: one call on a batch of {2 * B}, each row with its own state, time and label")


def _log_p(x: Tensor, t: Tensor) -> Tensor:
    """log of a class's share among three, at each noisy point: (B,)."""
    centres = torch.tensor([[0.5, -1.0, 2.0], [1.5, 1.0, 0.0], [-1.0, 0.3, 0.4]]).to(x)
    logits = -0.5 * ((x[:, None] - centres) ** 2).sum(-1) / (0.5 + t[:, None])
    return torch.log_softmax(logits, 1)[:, 1]


def _tilts(eps, grad, of_p, a, b, gamma) -> dict[str, Tensor]:
    """The usual wrong corrections of the noise by a gradient of log p."""
    return {
        "the noise points away from the class: subtract, ε − γ b ∇ log p": eps + gamma * b * grad,
        "b is missing: ε = −b s, so a gradient becomes noise by −b": eps - gamma * grad,
        "you multiplied by b²; that belongs to x̂0 (as b²/a), noise takes b": (
            eps - gamma * b**2 * grad
        ),
        "you multiplied by b²/a, which corrects x̂0; the noise takes b": (
            eps - gamma * b**2 / a * grad
        ),
        "you multiplied by b/a; the gradient is in xt, not in xt/a": eps - gamma * b / a * grad,
        "you multiplied by a: the noise's own coefficient is b": eps - gamma * a * grad,
        "gamma was never used": eps - b * grad,
        "you differentiated the batch's mean: each gradient is too small by B, take the sum": (
            eps - gamma * b * grad / B
        ),
        "that is the gradient of p, not of log p": eps - gamma * b * of_p,
        "the guidance is missing: that is the noise as it was": eps,
        "that is the correction alone: add it to eps": -gamma * b * grad,
    }


def classifier_guided(function: Callable) -> None:
    """Checks classifier_guided(eps, xt, t, a, b, log_p, gamma) -> (B, D), the guided noise.

    eps, xt (B, D), t (B,), a and b (B, 1). Raises NotYet, or Wrong with a diagnosis.
    """
    eps, xt, gamma = _draws(B, D, seed=7), _draws(B, D), 1.7
    t = torch.linspace(0.3, 0.7, B, dtype=torch.float64)
    a, b = torch.cos(1.2 * t)[:, None], torch.sin(1.2 * t)[:, None]
    x = xt.clone().requires_grad_()
    log_p = _log_p(x, t)
    (grad,) = torch.autograd.grad(log_p.sum(), x, retain_graph=True)
    (of_p,) = torch.autograd.grad(log_p.exp().sum(), x)
    slips = _tilts(eps, grad, of_p, a, b, gamma)
    try:
        answer = call(function, eps.clone(), xt.clone(), t, a, b, _log_p, gamma)
    except RuntimeError as error:
        if "scalar outputs" in str(error):
            raise Wrong(
                "torch differentiates one number, and log_p gives one for each sample: take their "
                "sum (no sample's log_p depends on another's xt)"
            ) from None
        if "require grad" not in str(error) and "graph" not in str(error):
            raise
        raise Wrong(
            f"torch cannot differentiate ({error}): xt must require a gradient before log_p sees "
            f"it, x = xt.detach().requires_grad_()"
        ) from None
    compare("the guided noise", answer, eps - gamma * b * grad, slips)
    if answer.requires_grad:
        print("(your answer still carries the graph of log_p: take only the gradient out of it)")
    print("right: the noise of five samples, guided by the gradient of log p")
