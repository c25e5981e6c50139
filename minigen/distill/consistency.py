"""Consistency: one answer all along a trajectory, from a teacher or from the data alone."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.paths import GaussianPath
from minigen.shapes import (
    Denoiser,
    Net,
    Time,
    X,
    check_answer,
    check_batch,
    check_generator,
    check_grid,
    check_pair,
    check_times,
    clock,
    like,
    noise,
    readable,
)

from .progressive import check_order, step


class Consistency(nn.Module):
    """f(xt, t): where the ODE takes xt at t_min; the identity at t_min, by construction.

    f = a_min (c_skip x̄ + c_out net(c_in x̄, t)), x̄ = xt/a, σ = b/a, with
    c_skip = s²/((σ − σ_min)² + s²), c_out = s (σ − σ_min)/√(σ² + s²), c_in = 1/√(σ² + s²),
    s = sigma_data.

    Without c_out(t_min) = 0 a constant would be consistent. Raises ValueError for sigma_data ≤ 0,
    and t_min outside (0, 1). [Song et al. 2023, appendix C]
    """

    def __init__(self, net: Net, path: GaussianPath, sigma_data: float, t_min: float):
        super().__init__()
        if not 0 < t_min < 1:
            raise ValueError(f"t_min lies in (0, 1), got {t_min}")
        if not 0 < sigma_data < float("inf"):
            raise ValueError(f"sigma_data must be finite and > 0, got {sigma_data}")
        self.net, self.path, self.sigma_data, self.t_min = net, path, sigma_data, t_min

    def forward(self, xt: X, t: Time, label=None) -> X:
        """The state at t_min; raises ValueError for a t below it."""
        check_times(t, xt)
        if readable(t) and bool((t < self.t_min * (1 - 1e-6)).any()):
            raise ValueError(
                f"the answers live at t_min = {self.t_min:g}, got t = {float(t.min())}"
            )
        first = torch.tensor(self.t_min, dtype=t.dtype, device=t.device)
        s, sigma, least = self.sigma_data, self.path.sigma(t), self.path.sigma(first)
        spread = (sigma.square() + s * s).sqrt()
        skip, out = s * s / ((sigma - least).square() + s * s), s * (sigma - least) / spread
        bar = xt / like(self.path.a(t), xt)
        seen = bar / like(spread, xt)
        answer = self.net(seen, t) if label is None else self.net(seen, t, label)
        scale = like(self.path.a(first), xt)
        return scale * (like(skip, xt) * bar + like(out, xt) * check_answer(answer, xt))


def _check_path(f: Callable, path: GaussianPath) -> None:
    """Raises ValueError where f says that it lives on another path."""
    if getattr(f, "path", path) != path:
        raise ValueError(f"f answers on {f.path}, but this is {path}")


def consistency_loss(
    f: Callable[[X, Time], X],
    target_f: Callable[[X, Time], X],
    path: GaussianPath,
    x0: X,
    eps: X,
    t: Time,
    s: Time,
    *,
    teacher: Denoiser | None = None,
) -> Float[Tensor, " B"]:
    """‖f(xt, t) − sg target_f(xs, s)‖²/D for each sample, xs on the trajectory of xt, s < t.

    With a teacher xs is one DDIM step of it (distillation); without, xs = a_s x0 + b_s eps with the
    same eps (training), whose mean given xt is the exact teacher's step. Both therefore have the
    bias of DDIM on these times (`training_shrinkage`), training also what the target's spread does
    where f bends. Raises ValueError unless s < t, for a teacher or an f on another path.
    [Song et al. 2023, eq. 7 and 10]
    """
    check_pair(x0, eps, t)
    check_order(t, s, x0)
    for function in (f, target_f):
        _check_path(function, path)
    xt = path.mix(x0, eps, t)
    with torch.no_grad():
        xs = path.mix(x0, eps, s) if teacher is None else step(teacher, path, xt, t, s)
        goal = check_answer(target_f(xs, s), x0)
    return (check_answer(f(xt, t), x0) - goal).square().reshape(len(x0), -1).mean(1)


def multistep(
    f: Callable[[X, Time], X],
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    t_min: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """One step from each of the times ts, with noise put back between them; yields each answer.

    x ← f(x_t, t), x_t = (a_t/a_min) x + √(b_t² − (a_t/a_min)² b_min²) z: a draw of q(x_t | x_min).

    Answers live at t_min, which is f.t_min unless told, and 0 where f has none. One time is one
    step. Raises ValueError for times that do not fall, or not above t_min, and for an f on another
    path. [Song et al. 2023, Algorithm 1]
    """
    check_batch(xT, "xT")
    check_generator(xT, generator)
    _check_path(f, path)
    least = getattr(f, "t_min", 0.0) if t_min is None else t_min
    ts = ts.detach().cpu().double()
    ts = check_grid(torch.cat([ts, torch.tensor([least], dtype=ts.dtype)]))
    a, b = path.a(ts), path.b(ts)
    keep = a / a[-1]
    std = (b.square() - (keep * b[-1]).square()).clamp(min=0).sqrt()
    steps = [*zip(clock(ts[:-1], xT), keep.tolist(), std.tolist(), strict=False)]

    def states() -> Iterator[X]:
        x = xT
        for i, (t, kept, spread) in enumerate(steps):
            with torch.no_grad():
                if i:
                    x = torch.add(x * kept, noise(x, generator=generator), alpha=spread)
                x = check_answer(f(x, t), x)
            yield x

    return states()


def training_shrinkage(sigmas: Float[Tensor, " N"], std: float) -> Float[Tensor, ""]:
    """∏ρ_n: by how much consistency training shrinks N(0, std²) data in one step, in the limit.

    ρ_n = (s² + σ_n σ_{n+1})/√((s² + σ_n²)(s² + σ_{n+1}²)), s = std, over neighbours of the levels,
    in either order; x̄ = x0 + σ eps.

    The product of the steps' own DDIM errors, hence distillation's by DDIM steps as well; of
    cosines, so 1 only for infinitely many levels. Raises ValueError for fewer than two levels, a
    negative one, or levels that neither rise nor fall.
    """
    steps = sigmas.diff()
    runs = bool((steps > 0).all()) or bool((steps < 0).all())
    if sigmas.ndim != 1 or len(sigmas) < 2 or not runs or not bool((sigmas >= 0).all()):
        raise ValueError(
            f"two noise levels or more, ≥ 0, that rise or fall throughout, got {sigmas}"
        )
    one, two, v = sigmas[:-1], sigmas[1:], std**2
    return ((v + one * two) / ((v + one**2) * (v + two**2)).sqrt()).prod()
