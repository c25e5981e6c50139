"""Augmentation for critics that see few data: random edits of images that pass gradients on.

Each edits each image of (B, C, H, W) with probability p, by a draw of its own. Show the critic only
edited images, real and fake, in both players' steps. `functools.partial` binds options.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minigen.shapes import X, check_batch, check_generator

from .critics import Critic, check_both, check_logits

Images = Float[Tensor, "B C H W"]
Augment = Callable[..., Images]  # (x, p, *, generator=None) -> x
Gen = torch.Generator | None


def _chosen(x: Images, p: float, generator: Gen) -> Bool[Tensor, "B 1 1 1"]:
    """Which samples to edit; the one place where x, p and the generator are looked at."""
    check_batch(x, "x")
    if x.ndim != 4:
        raise ValueError(f"augmentations take images, (B, C, H, W), got {tuple(x.shape)}")
    if not 0 <= p <= 1:
        raise ValueError(f"p is the probability to edit a sample and lies in [0, 1], got {p}")
    check_generator(x, generator)
    return torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < p


def _integers(low: int, high: int, x: Images, generator: Gen) -> Int[Tensor, "B 1 1 1"]:
    """One integer a sample, uniform on low, …, high."""
    return torch.randint(low, high + 1, (len(x), 1, 1, 1), generator=generator, device=x.device)


def _pixels(ratio: float, x: Images) -> tuple[int, int]:
    """The share `ratio` of height and width in whole pixels."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is a share of the image's side and lies in [0, 1], got {ratio}")
    return int(ratio * x.shape[2] + 0.5), int(ratio * x.shape[3] + 0.5)


def translate(
    x: Images, p: float = 1.0, *, ratio: float = 0.125, fill: float = 0.0, generator: Gen = None
) -> Images:
    """Move by whole pixels, uniform up to ± ratio of each side; what comes in is `fill`.

    [Zhao et al. 2020]
    """
    chosen, (high, wide) = _chosen(x, p, generator), _pixels(ratio, x)
    down, right = (_integers(-m, m, x, generator) * chosen for m in (high, wide))
    sample, channel, row, column = (torch.arange(n, device=x.device) for n in x.shape)
    padded = F.pad(x, (wide, wide, high, high), value=fill)
    at = row[:, None] + high - down, column + wide - right  # (B, 1, H, 1), (B, 1, 1, W)
    return padded[sample[:, None, None, None], channel[:, None, None], *at]


def flip(x: Images, p: float = 0.5, *, generator: Gen = None) -> Images:
    """Mirror left and right; p = ½ hides the side (eigenvalues 1 and 1 − 2p on the two shares)."""
    return torch.where(_chosen(x, p, generator), x.flip(-1), x)


def cutout(
    x: Images, p: float = 1.0, *, ratio: float = 0.5, fill: float = 0.0, generator: Gen = None
) -> Images:
    """Put `fill` in a hole of `ratio` times each side, cut off where it reaches over the edge.

    Its centre is uniform on the pixels, or for an even side on their corners.
    [DeVries & Taylor 2017]
    """
    hole = _chosen(x, p, generator)
    for k, (n, side) in enumerate(zip(x.shape[2:], _pixels(ratio, x), strict=True)):
        first = _integers(0, n - side % 2, x, generator) - side // 2
        at = torch.arange(n, device=x.device).reshape(-1, *[1] * (1 - k))
        hole = hole & (at >= first) & (at < first + side)
    return x.masked_fill(hole, fill)


def colour(x: Images, p: float = 1.0, *, generator: Gen = None) -> Images:
    """Change brightness, contrast and saturation at random; nothing is clipped.

    m + c (g + s (x − g) − m) + b, g the mean of a pixel's channels and m of all its image,
    with b, c and s uniform on ±½, 1 ± ½ and 1 ± 1. [Zhao et al. 2020]
    """
    chosen, shape = _chosen(x, p, generator), (3, len(x), 1, 1, 1)
    b, c, s = torch.rand(shape, generator=generator, device=x.device).to(x.dtype) - 0.5
    g, m = x.mean(1, keepdim=True), x.mean((1, 2, 3), keepdim=True)
    vivid = g + (1 + 2 * s) * (x - g)
    return torch.where(chosen, m + (1 + c) * (vivid - m) + b, x)


def rotate(x: Images, p: float = 1.0, *, generator: Gen = None) -> Images:
    """Turn square images by 0, 90, 180 or 270 degrees, uniform.

    It acts on the shares of the four as (1 − p) I + p/4 11ᵀ. [Karras et al. 2020, appendix C]
    """
    chosen, turned = _chosen(x, p, generator), [x.rot90(k, (2, 3)) for k in range(4)]
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"only square images can be turned, got {tuple(x.shape)}")
    turns = (_integers(0, 3, x, generator) * chosen).flatten()
    return torch.stack(turned)[turns, torch.arange(len(x), device=x.device)]


def compose(*parts: Augment) -> Augment:
    """One after another as one augmentation (x, p, *, generator=None); p is that of each part."""

    def augment(x: Images, p: float = 1.0, *, generator: Gen = None) -> Images:
        for part in parts:
            x = part(x, p, generator=generator)
        return x

    return augment


def overfitting(logits: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """r = E sign(critic(x)) on training data, 1 when overfitting."""
    check_batch(check_logits(logits), "logits")
    return logits.detach().sign().mean()


def adapt(p: float, r: float | Tensor, target: float = 0.6, step: float = 0.01) -> float:
    """The next p: a `step` up where r = `overfitting` is above target, down where below, in [0, 1].

    So it rests, to within a step, where r(p) = target. [Karras et al. 2020, section 3]
    """
    if not (0 <= p <= 1 and -1 <= r <= 1 and -1 <= target <= 1 and step > 0):
        got = f"p = {p}, r = {float(r)}, target = {target}, step = {step}"
        raise ValueError(f"p is in [0, 1], r and target in [−1, 1], step positive; got {got}")
    return min(1.0, max(0.0, p + step * (bool(r > target) - bool(r < target))))


def consistency(
    critic: Critic, real: X, fake: X, augment: Augment, *,
    real_weight: float = 10.0, fake_weight: float = 10.0, generator: Gen = None,
) -> Float[Tensor, "B"]:  # fmt: skip
    """A penalty on the critic for what an edit of a sample changes in its logit.

    Σ weight (critic(x) − critic(augment(x)))² over real and fake, which get no gradient.
    Balanced; with fake_weight = 0 that on real data alone. Calls augment(x, generator=generator).
    [Zhang et al. 2020; Zhao et al. 2021, Algorithm 1]
    """
    check_both(real, fake)
    terms = [torch.zeros(len(real), dtype=real.dtype, device=real.device)]
    for x, weight in ((real.detach(), real_weight), (fake.detach(), fake_weight)):
        if weight:
            both = x, augment(x, generator=generator)
            plain, edited = (check_logits(critic(v), len(x)) for v in both)
            terms.append(weight * (plain - edited) ** 2)
    return sum(terms)
