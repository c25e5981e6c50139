"""One step: the flow map of the probability-flow ODE, learned.

Φ(x, t, s) is where the ODE takes x from time t to time s. Three identities say what it is, and each
is a loss: two maps in a row are one (progressive distillation), the map's value is the same all
along a trajectory (consistency), and its slope is the velocity (mean flows).
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minigen.paths import GaussianPath, Linear
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
    forward_mode,
    like,
    noise,
    readable,
)

Velocity = Callable[[X, Time, Time], X]  # u(x, t, s): the mean velocity on the way from t to s


def _check_order(t: Time, s: Time, x: X) -> None:
    """Raises ValueError unless s < t, times for x."""
    check_times(t, x)
    check_times(s, x)
    if readable(t) and not bool((s < t).all()):
        raise ValueError(f"a step goes back in time and needs s < t, got t = {t}, s = {s}")


# Two steps in one -------------------------------------------------------------------------------


def _step(denoise: Denoiser, path: GaussianPath, xt: X, t: Time, s: Time) -> X:
    """One DDIM step from t to s, a time for all or one for each sample."""
    keep = like(path.b(s) / path.b(t), xt)
    guess = check_answer(denoise(xt, t), xt)
    return like(path.a(s), xt) * guess + keep * (xt - like(path.a(t), xt) * guess)


def progressive_target(
    teacher: Denoiser, path: GaussianPath, xt: X, t: Time, mid: Time, s: Time
) -> X:
    """The x0 whose one DDIM step from t to s ends where the teacher's two end, by way of mid.

    x0 = (x_s − (b_s/b_t) x_t)/(a_s − (b_s/b_t) a_t).

    Keeps no gradients. Raises ValueError unless s < mid < t. [Salimans & Ho 2022, appendix G]
    """
    check_batch(xt, "xt")
    _check_order(t, mid, xt)
    _check_order(mid, s, xt)
    with torch.no_grad():
        xs = _step(teacher, path, _step(teacher, path, xt, t, mid), mid, s)
        keep = path.b(s) / path.b(t)
        return (xs - like(keep, xt) * xt) / like(path.a(s) - keep * path.a(t), xt)


# The same answer all along ----------------------------------------------------------------------


class Consistency(nn.Module):
    """f(xt, t): where the ODE takes xt at t_min; the identity at t_min, by construction.

    f = a_min (c_skip x̄ + c_out net(c_in x̄, t)), x̄ = xt/a, σ = b/a, with
    c_skip = s²/((σ − σ_min)² + s²), c_out = s (σ − σ_min)/√(σ² + s²), c_in = 1/√(σ² + s²).

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
    same eps (training): on average the same step, but the target's own spread biases what is
    learned (`training_shrinkage`). Raises ValueError unless s < t. [Song et al. 2023, eq. 7 and 10]
    """
    check_pair(x0, eps, t)
    _check_order(t, s, x0)
    xt = path.mix(x0, eps, t)
    with torch.no_grad():
        xs = path.mix(x0, eps, s) if teacher is None else _step(teacher, path, xt, t, s)
        goal = check_answer(target_f(xs, s), x0)
    return (check_answer(f(xt, t), x0) - goal).square().reshape(len(x0), -1).mean(1)


def multistep(
    f: Callable[[X, Time], X],
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """One step from each of the times ts, with noise put back between them; yields each answer.

    x ← f(x_t, t), x_t = (a_t/a_min) x + √(b_t² − (a_t/a_min)² b_min²) z: a draw of q(x_t | x_min).

    Answers live at f.t_min, 0 where f has none. One time is one step. Raises ValueError for times
    that do not fall, or not above t_min. [Song et al. 2023, Algorithm 1]
    """
    check_batch(xT, "xT")
    check_generator(xT, generator)
    least = getattr(f, "t_min", 0.0)
    ts = check_grid(torch.cat([ts.detach().cpu().double(), torch.tensor([least]).double()]))
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

    ρ_n = (s² + σ_n σ_{n+1})/√((s² + σ_n²)(s² + σ_{n+1}²)), over neighbours of the levels, in either
    order; x̄ = x0 + σ eps. A product of cosines, 1 only for infinitely many levels. Raises
    ValueError for fewer than two levels, or levels that neither rise nor fall.
    """
    steps = sigmas.diff()
    if len(sigmas) < 2 or not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError(f"two noise levels or more that rise or fall throughout, got {sigmas}")
    one, two, v = sigmas[:-1], sigmas[1:], std**2
    return ((v + one * two) / ((v + one**2) * (v + two**2)).sqrt()).prod()


# The mean velocity ------------------------------------------------------------------------------


def mean_flow_loss(u: Velocity, x0: X, eps: X, t: Time, s: Time) -> Float[Tensor, " B"]:
    """‖u(xt, t, s) − sg(v − (t − s) du/dt)‖²/D for each sample, v = eps − x0, on the linear path.

    du/dt is the derivative along (v, 1, 0) in (x, t, s), by the one jvp that gives u too. At s = t
    it is `flow.loss`; a usual batch has some of these. Its least value is not 0, for v varies where
    its mean does not. Raises ValueError for s > t. [Geng et al. 2025, eq. 6 and 9]
    """
    check_pair(x0, eps, t)
    check_times(s, x0)
    if readable(t) and bool((s > t).any()):
        raise ValueError(f"the way goes from t back to s and needs s ≤ t, got t = {t}, s = {s}")
    xt, v = Linear().mix(x0, eps, t), eps - x0
    forward_mode()
    answer, slope = torch.func.jvp(
        lambda x, t: check_answer(u(x, t, s), x0), (xt, t), (v, torch.ones_like(t))
    )
    goal = (v - like(t - s, x0) * slope).detach()
    return (answer - goal).square().reshape(len(x0), -1).mean(1)


def jump(u: Velocity, xT: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """x ← x − (t − s) u(x, t, s) along a falling grid; yields each state. Two times are one step.

    [Geng et al. 2025, eq. 12]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    times, steps = clock(ts, xT), ts.diff().tolist()

    def states() -> Iterator[X]:
        x = xT
        for i, h in enumerate(steps):
            with torch.no_grad():
                x = torch.add(x, check_answer(u(x, times[i], times[i + 1]), x), alpha=h)
            yield x

    return states()
