"""Guidance: denoisers made of denoisers, so that any sampler draws what a condition asks for.

Bayes' rule adds scores, ∇ log p(x | y) = ∇ log p(x) + ∇ log p(y | x), and the denoiser E[x0 | xt] =
(xt + b² ∇ log p)/a is affine in the score. So each wrapper here takes denoisers and is one; they
compose, and no sampler knows of them. `scale` is γ throughout: 0 without the condition, 1 with it,
above 1 guided.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minigen.paths import GaussianPath, Readout, denoiser, x0
from minigen.shapes import (
    Denoiser,
    Time,
    X,
    check_alike,
    check_generator,
    check_time,
    like,
    per_sample,
    readable,
    wide,
)

LogProb = Callable[[X, Time], Float[Tensor, "B"]]


def cfg(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance: uncond + scale (cond − uncond) of E[x0 | xt], so of ε and score.

    scale = 1 is `cond` alone, 0 `uncond` alone, at the cost of one; the form (1 + w) c − w u is
    scale = 1 + w. Two `paths.denoiser`s of one network with classes, the second with label None
    (its null label), are asked in one call on a batch of 2B. What is sampled is not the density
    p(x) p(y | x)^scale. [Ho & Salimans 2022, eq. 6]
    """
    scale = float(scale)
    if scale in (0, 1):
        return cond if scale else uncond
    if not _alike(cond, uncond):
        return lambda xt, t: torch.lerp(uncond(xt, t), cond(xt, t), scale)
    both = _in_one_call if getattr(cond.net, "classes", None) and cond.net is uncond.net else _apart

    def net(xt: X, t: Time, label: None = None) -> X:
        c, u = both(cond, uncond, xt, t)
        return torch.lerp(u, c, scale)

    return denoiser(net, cond.path, cond.src)


def _alike(cond: Denoiser, uncond: Denoiser) -> bool:
    """Whether both are read alike off networks' outputs, so that these can be guided instead."""
    if not (isinstance(cond, Readout) and isinstance(uncond, Readout)):
        return False
    same = (cond.path, cond.src) == (uncond.path, uncond.src)
    return same and cond.dst == uncond.dst == x0


def _apart(cond: Readout, uncond: Readout, xt: X, t: Time) -> tuple[X, X]:
    return cond.for_batch(xt)(xt, t), uncond.for_batch(xt)(xt, t)


def _in_one_call(cond: Readout, uncond: Readout, xt: X, t: Time) -> tuple[X, X]:
    """Both outputs of one network from a batch of 2B, its null label in the place of None."""
    null = torch.full((len(xt),), cond.net.classes, device=xt.device)
    labels = torch.cat([null if k is None else k for k in (cond.labels(xt), uncond.labels(xt))])
    both = cond.net(torch.cat([xt, xt]), torch.cat([t, t]) if t.ndim else t, labels)
    return both.chunk(2)


def log_prob_gradient(log_p: LogProb, xt: X, t: Time) -> X:
    """∇_xt log_p(xt, t), sample by sample.

    Raises ValueError unless log_p gives one number a sample, (B,), that depends on xt through
    operations that torch can differentiate.
    """
    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        value = log_p(x, t)
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"log_p must give log p(y | xt) for the one label wanted, a tensor ({len(x)},), "
                f"got {got}: pick the label's column of the log-softmax"
            )
        grad = None
        if value.requires_grad:
            (grad,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
        if grad is None:
            raise ValueError(
                "no gradient leads from log_p(xt, t) back to xt: was it computed under no_grad, "
                "detached, or through an argmax?"
            )
    return grad


def classifier(base: Denoiser, path: GaussianPath, log_p: LogProb, scale: float = 1.0) -> Denoiser:
    """Classifier guidance: E[x0 | xt] + scale b²/a ∇ log_p(xt, t), that is ε − scale b ∇ log_p.

    log_p(xt, t) -> (B,) is log p(y | xt) of the label wanted, or any differentiable log-probability
    of noisy data. With the exact one and scale = 1 it is the exact conditional denoiser. When
    called, raises ValueError where a = 0, for log_p of another shape, or one without a gradient.
    [Dhariwal & Nichol 2021, Algorithm 2; Nichol et al. 2022 (GLIDE), section 2.4]
    """

    def denoise(xt: X, t: Time) -> X:
        at = wide(check_time(t))
        a, b = path.a(at), path.b(at)
        if readable(t) and bool((a == 0).any()):
            raise ValueError(
                "at t = 1 this path keeps nothing of the data, a = 0, and a score says nothing of "
                "x0: begin the grid a little below 1"
            )
        return base(xt, t) + like(scale * b * b / a, xt) * log_prob_gradient(log_p, xt, t)

    return denoise


def classifier_mean(mean: X, var: Tensor, grad: X, scale: float = 1.0) -> X:
    """mean + scale · var · ∇ log p(y | x), the guided mean of an ancestral step N(mean, var).

    The exponential tilt of a normal by its linear exponent; `var` () or (B,) or as the data, grad
    taken at the mean. [Dhariwal & Nichol 2021, Algorithm 1]
    """
    check_alike(mean, grad, "mean and grad")
    return mean + scale * (var if var.ndim > 1 else like(var, mean)) * grad


def drop_label(
    label: Int[Tensor, "B ..."], p: float, null: int, *, generator: torch.Generator | None = None
) -> Int[Tensor, "B ..."]:
    """The labels, each replaced by the null label with probability p: one net learns both scores.

    `null` is `net.classes`; of captions (B, L) it is `net.words`, and a caption goes as a whole.
    Raises ValueError for p outside [0, 1], a net without a null label, or a null that is one of the
    classes. [Ho & Salimans 2022, Algorithm 1]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is the probability to drop a label and lies in [0, 1], got {p}")
    if null is None:
        raise ValueError("there is no null label: make the net with classes=K, and null is K")
    if readable(label) and label.numel() and int(label.max()) >= null:
        raise ValueError(f"null = {null}, but there is a label {int(label.max())}: null is K")
    check_generator(label, generator)
    dropped = torch.rand(label.shape[:1], generator=generator, device=label.device) < p
    return torch.where(per_sample(dropped, label), null, label)


def clip(denoise: Denoiser, low: float, high: float) -> Denoiser:
    """E[x0 | xt] kept within the data's range [low, high].

    It changes the law that is sampled wherever it acts. [Ho et al. 2020, their code]
    """
    if not low < high:
        raise ValueError(f"the data's range needs low < high, got {low} and {high}")
    return lambda xt, t: denoise(xt, t).clamp(low, high)


def interval(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """`guided` at times low ≤ t ≤ high, `plain` at all others. [Kynkäänniemi et al. 2024]"""
    if not 0 <= low < high <= 1:
        raise ValueError(f"an interval of times needs 0 ≤ low < high ≤ 1, got {low} and {high}")

    def denoise(xt: X, t: Time) -> X:
        inside = (check_time(t) >= low) & (t <= high)
        if not t.ndim:  # one look at one number: dearer on a GPU than nothing, cheaper than both
            return (guided if bool(inside) else plain)(xt, t)
        return torch.where(per_sample(inside, xt), guided(xt, t), plain(xt, t))

    return denoise
