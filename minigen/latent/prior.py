"""What a diffusion prior is worth: its cross-entropy, in nats."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.paths import GaussianPath
from minigen.shapes import Denoiser, X, check_batch, check_count, check_generator, noise


def cross_entropy(
    denoise: Denoiser,
    path: GaussianPath,
    z0: X,
    *,
    n: int,
    t_min: float = 1e-4,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """−log p(z0) of a diffusion prior, in nats, a mean over n noise levels for each latent.

    ½ ∫ g² E‖∇log q(z_t | z0) − ∇log p(z_t)‖² dt + KL(q(z_1 | z0) ‖ N(0, b² I)) + (D/2) log 2πe b₀².

    The integral runs from t_min, b₀ = b(t_min), to 1; it equals ∫ E‖z0 − E[z0 | z_t]‖²/σ² d log σ,
    and the levels are drawn evenly in log σ, one in each of n strata. With the exact denoiser it
    is the cross-entropy to p at t_min; with any other, a bound's value. The score of q(z_t | z0)
    belongs here, not that of q(z_t). Raises ValueError where a(1) = 0 or b(t_min) = 0.
    [Vahdat, Kreis & Kautz 2021, theorem 1; Kingma et al. 2021, eq. 17]
    """
    check_batch(z0, "z0")
    check_count(n)
    check_generator(z0, generator)
    ends = path.sigma(torch.tensor([t_min, 1.0], dtype=torch.float64)).log()
    if not bool(ends.isfinite().all()):
        raise ValueError(
            f"noise levels from t_min = {t_min:g} to 1 need b(t_min) > 0 and a(1) > 0, which "
            f"{path} does not have; VP has"
        )
    total, D, width = z0.new_zeros(len(z0)), z0[0].numel(), float(ends.diff()) / n
    draw = {"generator": generator, "device": z0.device}
    with torch.no_grad():
        for i in range(n):
            u = torch.rand(len(z0), dtype=torch.float64, **draw)
            sigma = torch.exp(ends[0] + (i + u.cpu()) * width).to(z0)
            t = path.time(sigma)
            error = z0 - denoise(path.mix(z0, noise(z0, generator=generator), t), t)
            total += width * error.square().reshape(len(z0), -1).sum(1) / sigma.square()
    first, last = torch.tensor([t_min, 1.0], dtype=torch.float64).unbind()
    at_noise = 0.5 * (path.a(last) / path.b(last)) ** 2  # KL of N(a z0, b² I) to N(0, b² I)
    rest = 0.5 * D * math.log(2 * math.pi * math.e * float(path.b2(first)))
    return total + float(at_noise) * z0.reshape(len(z0), -1).square().sum(1) + rest
