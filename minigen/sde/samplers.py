"""From noise to data: the same marginals with any noise, and corrected by Langevin steps.

For every noise ≥ 0 the equation

    dx = [f x − ½ (1 + noise²) g² ∇log p_t] dt + noise g dw̄,  dt < 0,

has the path's marginals: 1 is Anderson's reverse SDE, 0 the probability-flow ODE dx/dt = u. The ODE
is read off the velocity u, which stays finite also where a = 0, and all others off the score.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import targets
from minigen.paths import GaussianPath, reading, walk
from minigen.shapes import Denoiser, X, check_batch, check_generator, check_grid
from minigen.shapes import noise as normal

from .equation import rates


def _checked(noise, steps: int) -> Tensor:
    """noise as a tensor, () or one for each step."""
    noise = torch.as_tensor(noise, dtype=torch.float64, device="cpu")
    if noise.shape not in ((), (steps,)):
        raise ValueError(
            f"noise is a number or one for each of {steps} steps, got {tuple(noise.shape)}"
        )
    if not bool(((noise >= 0) & torch.isfinite(noise)).all()):
        raise ValueError(f"noise must be finite and not negative, got {noise.tolist()}")
    return noise


def _back(path: GaussianPath, ts: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(keep, step, std) of x ← keep x + step s + std z, for the score s."""
    h, (f, g2) = ts.diff(), rates(path, ts[:-1])
    return 1 + f * h, -0.5 * (1 + noise**2) * g2 * h, noise * torch.sqrt(-g2 * h)


def reverse(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    noise: float | Float[Tensor, " steps"] = 1.0,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """From noise to data by Euler–Maruyama, along a falling grid; yields each state.

    x ← x + [f x − ½ (1 + noise²) g² ∇log p_t] (s − t) + noise g √(t − s) z, all at the upper end t.

    Weak order 1, one evaluation a step, never at t = 0; also the last step draws its noise. `noise`
    is a number or one for each step: 1 is the reverse SDE, 0 draws nothing and is `flow.euler`.
    Raises ValueError for noise < 0 and, where there is noise, at a time with a = 0.
    [Song et al. 2021, eq. 6 and 13; Anderson 1982]
    """
    check_batch(xT, "xT")
    ts = check_grid(ts)
    noise = _checked(noise, len(ts) - 1)
    if not bool(noise.any()):
        return walk(reading(denoise, path, targets.velocity), xT, ts[:-1], 1.0, ts.diff())
    s = reading(denoise, path, targets.score)
    s.prepared(ts[:-1], xT)  # what the network cannot answer is named before what the SDE cannot
    return walk(s, xT, ts[:-1], *_back(path, ts, noise), generator=generator)


def predictor_corrector(
    denoise: Denoiser,
    path: GaussianPath,
    xT: X,
    ts: Float[Tensor, " N"],
    *,
    snr: float = 0.16,
    corrections: int = 1,
    generator: torch.Generator | None = None,
) -> Iterator[X]:
    """A step of the reverse SDE, then Langevin steps at the time reached; yields each state.

    x ← x + h s + √(2h) z, h = 2 (snr ‖z‖/‖s‖)², so that ‖h s‖ = snr ‖√(2h) z‖.

    s is the score at the new time; both norms are means over the batch, whose samples share h. As
    ‖s‖ ≈ √D/b, that is h ≈ 2 snr² b². Where b = 0 there is no score and no correction: n steps down
    to it cost n + (n − 1) corrections evaluations, above it n (1 + corrections). Raises as
    `reverse`, and for snr ≤ 0. [Song et al. 2021, Algorithms 2 and 4, with α = 1 on every path]
    """
    check_batch(xT, "xT")
    check_generator(xT, generator)
    ts = check_grid(ts)
    if not 0 < snr < math.inf:
        raise ValueError(f"snr must be positive and finite, got {snr!r}")
    if isinstance(corrections, bool) or not isinstance(corrections, int) or corrections < 0:
        raise ValueError(f"corrections must be a whole number of at least 0, got {corrections!r}")
    scored = len(ts) if path.b(ts[-1]) > 0 else len(ts) - 1
    s, _ = reading(denoise, path, targets.score).prepared(ts[:scored], xT)
    steps = list(zip(*(c.tolist() for c in _back(path, ts, torch.tensor(1.0))), strict=True))

    def states() -> Iterator[X]:
        x = xT
        for i, (keep, step, std) in enumerate(steps):
            with torch.no_grad():
                x = torch.add(x * keep, s(x, i), alpha=step)
                x = torch.add(x, normal(x, generator=generator), alpha=std)
                for _ in range(corrections if i + 1 < scored else 0):
                    x = _corrected(x, s(x, i + 1), snr, generator)
            yield x

    return states()


def _corrected(x: X, s: X, snr: float, generator: torch.Generator | None) -> X:
    """One Langevin step along the score s, as long as `snr` says."""
    z = normal(x, generator=generator)
    h = 2 * (snr * _norm(z) / _norm(s)) ** 2
    return x + h * s + torch.sqrt(2 * h) * z


def _norm(x: X) -> Float[Tensor, ""]:
    return x.reshape(len(x), -1).norm(dim=1).mean()
