"""Guidance: denoisers made of denoisers, so that any sampler draws what a condition asks for.

Bayes' rule adds scores, ∇ log p(x | y) = ∇ log p(x) + ∇ log p(y | x), and the denoiser E[x0 | xt] =
(xt + b² ∇ log p)/a is affine in the score. So each wrapper here takes denoisers and is one; they
compose, and no sampler knows of them. `scale` is γ throughout: 0 without the condition, 1 with it,
above 1 guided.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minigen.paths import GaussianPath, NetDenoiser, along
from minigen.shapes import Denoiser, Label, Time, X, check_time, like

LogProb = Callable[[X, Time], Float[Tensor, "B"]]
Steps = list[Callable[[X], X]]


@dataclass(frozen=True)
class _Cfg:
    cond: Denoiser
    uncond: Denoiser
    scale: float

    def __call__(self, xt: X, t: Time) -> X:
        if self.scale in (0, 1):
            return (self.cond if self.scale else self.uncond)(xt, t)
        joint = self._joint(xt)
        if joint is None:
            return torch.lerp(self.uncond(xt, t), self.cond(xt, t), self.scale)
        return self._mix(joint(torch.cat([xt, xt]), torch.cat([t, t]) if t.ndim else t))

    def along(self, ts: Float[Tensor, " N"], x: X) -> Steps:
        if self.scale in (0, 1):
            return along(self.cond if self.scale else self.uncond, ts, x)
        joint = self._joint(x)
        if joint is None:
            pairs = zip(along(self.uncond, ts, x), along(self.cond, ts, x), strict=True)
            return [lambda x, u=u, c=c: torch.lerp(u(x), c(x), self.scale) for u, c in pairs]
        steps = joint.along(ts, torch.cat([x, x]))
        return [lambda x, f=f: self._mix(f(torch.cat([x, x]))) for f in steps]

    def _mix(self, both: Tensor) -> Tensor:
        cond, uncond = both.chunk(2)
        return torch.lerp(uncond, cond, self.scale)

    def _joint(self, x: X) -> NetDenoiser | None:
        """Both in one call of the network on a batch of 2B, where it is one network."""
        c, u = self.cond, self.uncond
        if not isinstance(c, NetDenoiser) or not isinstance(u, NetDenoiser):
            return None
        null = getattr(c.net, "classes", None)
        if null is None or (c.net, c.path, c.target) != (u.net, u.path, u.target):
            return None
        labels = []
        for denoise in (c, u):
            label = denoise._labels(x)
            labels.append(torch.full((len(x),), null, device=x.device) if label is None else label)
        return replace(c, label=torch.cat(labels))


def cfg(cond: Denoiser, uncond: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance: uncond + scale (cond − uncond) of E[x0 | xt], so of ε and score.

    scale = 1 is `cond` alone, 0 `uncond` alone, at the cost of one; the form (1 + w) c − w u is
    scale = 1 + w. Two `paths.denoiser`s of one network with classes, the second with label None
    (its null label), are asked in one call on a batch of 2B. What is sampled is not the density
    p(x) p(y | x)^scale. [Ho & Salimans 2022, eq. 6]
    """
    return _Cfg(cond, uncond, float(scale))


def log_prob_gradient(log_p: LogProb, xt: X, t: Time) -> X:
    """∇_xt log_p(xt, t), sample by sample.

    Raises ValueError unless log_p gives one number a sample, (B,), that depends on xt through
    operations that torch can differentiate.
    """
    with torch.enable_grad():
        x = xt.detach().requires_grad_()
        value = log_p(x, t)
        if value.shape != x.shape[:1]:
            raise ValueError(
                f"log_p must give log p(y | xt) for the one label wanted, shape ({len(x)},), got "
                f"{tuple(value.shape)}: pick the label's column of the log-softmax"
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


@dataclass(frozen=True)
class _Classifier:
    base: Denoiser
    path: GaussianPath
    log_p: LogProb
    scale: float

    def _gain(self, t: Tensor) -> Tensor:
        a, b = self.path.a(t), self.path.b(t)
        if t.device.type == "cpu" and bool((a == 0).any()):
            raise ValueError(
                "at t = 1 this path keeps nothing of the data, a = 0, and a score says nothing of "
                "x0: begin the grid a little below 1"
            )
        return self.scale * b * b / a

    def __call__(self, xt: X, t: Time) -> X:
        gain = like(self._gain(check_time(t)), xt)
        return self.base(xt, t) + gain * log_prob_gradient(self.log_p, xt, t)

    def along(self, ts: Float[Tensor, " N"], x: X) -> Steps:
        gains, times = self._gain(ts).tolist(), ts.to(x).unbind()

        def step(denoise, gain, t):
            return lambda x: denoise(x).add(log_prob_gradient(self.log_p, x, t), alpha=gain)

        return [step(*k) for k in zip(along(self.base, ts, x), gains, times, strict=True)]


def classifier(base: Denoiser, path: GaussianPath, log_p: LogProb, scale: float = 1.0) -> Denoiser:
    """Classifier guidance: E[x0 | xt] + scale b²/a ∇ log_p(xt, t), that is ε − scale b ∇ log_p.

    log_p(xt, t) -> (B,) is log p(y | xt) of the label wanted, or any differentiable log-probability
    of noisy data. With the exact one and scale = 1 it is the exact conditional denoiser. Raises
    ValueError where a = 0, for log_p of another shape, or one without a gradient.
    [Dhariwal & Nichol 2021, Algorithm 2; Nichol et al. 2022 (GLIDE), section 2.4]
    """
    return _Classifier(base, path, log_p, float(scale))


def classifier_mean(mean: X, var: Tensor, grad: X, scale: float = 1.0) -> X:
    """mean + scale · var · ∇ log p(y | x), the guided mean of an ancestral step N(mean, var).

    The exponential tilt of a normal by its linear exponent; `var` () or (B,) or as the data, grad
    taken at the mean. [Dhariwal & Nichol 2021, Algorithm 1]
    """
    return mean + scale * (var if var.ndim > 1 else like(var, mean)) * grad


def drop_label(
    label: Label, p: float, null: int, *, generator: torch.Generator | None = None
) -> Int[Tensor, " B"]:
    """The labels, each replaced by the null label with probability p: one net learns both scores.

    `null` is `net.classes`. Raises ValueError for p outside [0, 1], a net without a null label, or
    a null that is one of the classes. [Ho & Salimans 2022, Algorithm 1]
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p is the probability to drop a label and lies in [0, 1], got {p}")
    if null is None:
        raise ValueError("there is no null label: make the net with classes=K, and null is K")
    if label.device.type == "cpu" and label.numel() and int(label.max()) > null:
        raise ValueError(f"null = {null}, but label {int(label.max())} is above it: null is K")
    dropped = torch.rand(label.shape, generator=generator, device=label.device) < p
    return torch.where(dropped, null, label)


@dataclass(frozen=True)
class _Clip:
    denoise: Denoiser
    low: float
    high: float

    def __call__(self, xt: X, t: Time) -> X:
        return self.denoise(xt, t).clamp(self.low, self.high)

    def along(self, ts: Float[Tensor, " N"], x: X) -> Steps:
        low, high = self.low, self.high
        return [lambda x, f=f: f(x).clamp(low, high) for f in along(self.denoise, ts, x)]


def clip(denoise: Denoiser, low: float, high: float) -> Denoiser:
    """E[x0 | xt] kept within the data's range [low, high]. Raises ValueError unless low < high.

    It changes the law that is sampled wherever it acts. [Ho et al. 2020, their code]
    """
    if not low < high:
        raise ValueError(f"the data's range needs low < high, got {low} and {high}")
    return _Clip(denoise, float(low), float(high))


@dataclass(frozen=True)
class _Interval:
    guided: Denoiser
    plain: Denoiser
    low: float
    high: float

    def __call__(self, xt: X, t: Time) -> X:
        inside = (check_time(t) >= self.low) & (t <= self.high)
        if not t.ndim:
            return (self.guided if bool(inside) else self.plain)(xt, t)
        inside = inside.reshape(-1, *[1] * (xt.ndim - 1))
        return torch.where(inside, self.guided(xt, t), self.plain(xt, t))

    def along(self, ts: Float[Tensor, " N"], x: X) -> Steps:
        def of(denoise, times):
            return iter(along(denoise, times, x)) if len(times) else iter(())

        inside = (ts >= self.low) & (ts <= self.high)
        guided, plain = of(self.guided, ts[inside]), of(self.plain, ts[~inside])
        return [next(guided if k else plain) for k in inside.tolist()]


def interval(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """`guided` at times low ≤ t ≤ high, `plain` at all others.

    Raises ValueError unless 0 ≤ low < high ≤ 1. [Kynkäänniemi et al. 2024]
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"an interval of times needs 0 ≤ low < high ≤ 1, got {low} and {high}")
    return _Interval(guided, plain, float(low), float(high))
