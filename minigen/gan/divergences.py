"""How far apart are two laws? f-divergences with the bounds that critics climb, and W1 in 1-D.

D_f(p‖q) = E_q f(p/q), f convex with f(1) = 0. Its conjugate f*(t) = sup_u (t u − f(u)) gives a
bound from samples alone, D_f(p‖q) ≥ E_p T − E_q f*(T) for any T, tight at T = f′(p/q).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import X, check_alike, check_batch

LogDensity = Callable[[X], Float[Tensor, "B"]]
Map = Callable[[Tensor], Tensor]
LOG2 = math.log(2)


def log_ratio(log_p: LogDensity, log_q: LogDensity, x: X) -> Float[Tensor, "B"]:
    """log p(x) − log q(x), the best logit there is."""
    values = log_p(x), log_q(x)
    for value in values:
        if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"a log density gives one number for each sample, a tensor ({len(x)},), got {got}"
            )
    return values[0] - values[1]


@dataclass(frozen=True)
class FDivergence:
    """An f-divergence as functions of one number, each tensor in, tensor of that shape out.

    D_f(p‖q) = E_q f(p/q).
    `f` and its `derivative` take the ratio u = p/q > 0; `activation` maps any logit, rising, into
    the domain t < `top` of the conjugate, which is `inside` there; `over_mean` is f(p/q) q/m of the
    log ratio log p − log q, with m = (p + q)/2, in a form that neither overflows nor loses digits.
    [Nowozin, Cseke & Tomioka 2016, tables 1, 2 and 6]
    """

    f: Map
    derivative: Map
    inside: Map
    activation: Map
    over_mean: Map
    top: float = math.inf

    def conjugate(self, t: Tensor) -> Tensor:
        """f*(t) = sup_u (t u − f(u)), the conjugate; +∞ from `top` on, so no bound is broken."""
        beyond = t >= self.top
        return self.inside(torch.where(beyond, -1.0, t)).masked_fill(beyond, math.inf)

    def bound(self, t_p: Float[Tensor, "B"], t_q: Float[Tensor, "N"]) -> Float[Tensor, ""]:
        """A lower bound on D_f(p‖q), from a critic's values T on samples of p and of q.

        E_p T − E_q f*(T) ≤ D_f(p‖q). [Nowozin et al. 2016, eq. 4]
        """
        for t in (t_p, t_q):
            check_batch(t, "T")
            if t.ndim != 1:
                raise ValueError(
                    f"T gives one number for each sample, shape (B,), got {tuple(t.shape)}"
                )
        return t_p.mean() - self.conjugate(t_q).mean()

    def __call__(self, log_p: LogDensity, log_q: LogDensity, x_p: X, x_q: X) -> Float[Tensor, ""]:
        """D_f(p‖q) estimated without bias from equally many samples of both, as draws of m.

        E_m[f(p/q) q/m], m = (p + q)/2: unlike E_q f(p/q) it sees where q has nothing.
        """
        check_batch(x_p, "x_p")
        check_alike(x_p, x_q, "x_p and x_q are the halves of one mixture and")
        return self.over_mean(log_ratio(log_p, log_q, torch.cat([x_p, x_q]))).mean()


def _times(weight: Tensor, log: Tensor) -> Tensor:
    """weight · log, with 0 · log 0 = 0, in value and in gradient."""
    return weight * torch.where(weight == 0, 0.0, log)


kl = FDivergence(
    f=lambda u: torch.xlogy(u, u),
    derivative=lambda u: u.log() + 1,
    inside=lambda t: torch.exp(t - 1),
    activation=lambda v: v,
    over_mean=lambda r: _times(2 * torch.sigmoid(r), r),
)
reverse_kl = FDivergence(
    f=lambda u: -u.log(),
    derivative=lambda u: -1 / u,
    inside=lambda t: -1 - torch.log(-t),
    activation=lambda v: -torch.exp(-v),
    over_mean=lambda r: _times(2 * torch.sigmoid(-r), -r),
    top=0.0,
)
pearson = FDivergence(  # χ², ∫ (p − q)²/q; conjugate of the parabola on all of R, as in the paper
    f=lambda u: (u - 1) ** 2,
    derivative=lambda u: 2 * (u - 1),
    inside=lambda t: t**2 / 4 + t,
    activation=lambda v: v,
    over_mean=lambda r: 2 * torch.tanh(r / 2) * torch.expm1(r),
)
js = FDivergence(  # ½ KL(p‖m) + ½ KL(q‖m), at most log 2; its bound is ½ (V(D) + log 4)
    f=lambda u: 0.5 * (torch.xlogy(u, u) - (u + 1) * (torch.log1p(u) - LOG2)),
    derivative=lambda u: 0.5 * (LOG2 - torch.log1p(1 / u)),
    inside=lambda t: -0.5 * torch.log(-2 * torch.expm1(2 * t - LOG2)),
    activation=lambda v: 0.5 * (LOG2 + F.logsigmoid(v)),
    over_mean=lambda r: sum(_times(torch.sigmoid(s), LOG2 + F.logsigmoid(s)) for s in (r, -r)),
    top=0.5 * LOG2,
)
hellinger = FDivergence(  # the squared distance ∫ (√p − √q)², at most 2
    f=lambda u: (u.sqrt() - 1) ** 2,
    derivative=lambda u: 1 - u.rsqrt(),
    inside=lambda t: t / (1 - t),
    activation=lambda v: -torch.expm1(-v),
    over_mean=lambda r: 2 * ((F.logsigmoid(r) / 2).exp() - (F.logsigmoid(-r) / 2).exp()) ** 2,
    top=1.0,
)
f_divergences = {
    "kl": kl, "reverse_kl": reverse_kl, "pearson": pearson, "js": js, "hellinger": hellinger
}  # fmt: skip
