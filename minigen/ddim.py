"""Denoising diffusion implicit models: chains with DDPM's marginals, down to no noise at all.

For any ς² ≤ b_s²,

    xs = a_s x0 + √(b_s² − ς²) eps + ς z

has the marginal of the path at s. With ς = η √β̃, η = 1 is DDPM and η = 0 is deterministic: Euler's
method for dx̄/dρ = eps in x̄ = x/a and ρ = b/a, which is `path.sigma`.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, bridge, reading, walk
from minigen.shapes import Denoiser, X, check_alike, check_batch, check_grid, like, per_sample


def sample(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """Walks the grid from noise to data and yields each state.

    x ← a_s x̂0 + √(b_s² − ς²) (x − a_t x̂0)/b_t + ς z with ς = eta √β̃; eta = 0 draws nothing.

    ts is any falling sub-sequence of [0, 1]. Raises ValueError for an eta with ς² > b_s².
    [Song, Meng & Ermon 2021, eq. 12 and 16]
    """
    ts = check_grid(ts)
    t, s = ts[:-1], ts[1:]
    a, b = path.a(ts), path.b(ts)
    a_t, b_t, a_s, b_s = a[:-1], b[:-1], a[1:], b[1:]
    var = eta**2 * bridge(path, t, s).backward if eta else torch.zeros_like(t)
    if not eta >= 0 or bool((var > b_s**2 * (1 + 1e-12)).any()):
        raise ValueError(
            f"eta = {eta:g} leaves no room for the predicted noise: it needs eta ≥ 0 and a step "
            f"variance eta² β̃ ≤ b_s², which eta in [0, 1] always gives"
        )
    keep = torch.sqrt((b_s**2 - var).clamp(min=0)) / b_t  # the clamp meets rounding at the bound
    x0_hat = reading(denoise, path, targets.x0)
    return walk(x0_hat, xT, t, keep, a_s - keep * a_t, var.sqrt(), generator=generator)


def encode(denoise: Denoiser, path: GaussianPath, x0: X, ts: Float[Tensor, " N"]) -> Iterator[X]:
    """Data to noise: the deterministic walk of `sample` backwards, yielding each state.

    x ← a_t x̂0 + b_t (x − a_s x̂0)/b_s for s < t, an Euler step of the same ODE the other way.

    So encoding and sampling on n steps return to the start up to O(1/n). ts may be given either way
    round. At s = 0, where x = x0 says nothing of eps, the first step asks the denoiser at its end,
    at a_t x0. [Song, Meng & Ermon 2021, section 4.3]
    """
    ts = check_grid(ts.flip(0) if len(ts) and ts[0] < ts[-1] else ts).flip(0)
    s, t, a, b = ts[:-1], ts[1:], path.a(ts), path.b(ts)
    a_s, b_s, a_t, b_t = a[:-1], b[:-1], a[1:], b[1:]
    start = b_s == 0  # from x = a_t x0 with eps read there: a_t x0 + (x − a_t x̂0) = 2x − a_t x̂0
    keep = torch.where(start, 2.0, b_t / b_s)
    step = torch.where(start, -a_t, a_t - keep * a_s)
    x = x0 * float(a_t[0]) if start[0] else x0
    return walk(reading(denoise, path, targets.x0), x, torch.where(start, t, s), keep, step)


def slerp(a: X, b: X, u: Float[Tensor, ""] | Float[Tensor, " B"] | float) -> X:
    """From a (u = 0) to b (u = 1) along the great circle: (sin((1 − u)θ) a + sin(uθ) b) / sin θ.

    θ is the angle between the samples, each read as one vector; u is a number or one for each
    sample. Between independent N(0, I) draws it keeps the norm, as a straight line does not. Where
    a and b point the same way it is that straight line; opposite points have no shortest arc.
    [Shoemake 1985]
    """
    check_batch(a, "a")
    check_alike(a, b, "the two ends of slerp")
    u = torch.as_tensor(u, dtype=a.dtype, device=a.device)
    if u.shape not in ((), a.shape[:1]):
        raise ValueError(f"u is a number or one for each of {len(a)}, got {tuple(u.shape)}")
    u = like(u, a)
    p, q = (torch.nn.functional.normalize(x.flatten(1), dim=1) for x in (a, b))
    # 2 atan2 keeps its digits for small angles, where acos(p·q) has lost them
    angle = per_sample(2 * torch.atan2((p - q).norm(dim=1), (p + q).norm(dim=1)), a)
    near = angle < 1e-6
    safe = torch.where(near, 1.0, angle)
    w_a = torch.where(near, 1 - u, torch.sin((1 - u) * safe) / torch.sin(safe))
    w_b = torch.where(near, u, torch.sin(u * safe) / torch.sin(safe))
    return w_a * a + w_b * b
