"""Augmentation for critics that see few data: random edits that a gradient passes through.

Each takes images (B, C, H, W) and edits each with probability p, by a draw of its own; as many
samples come out, in the shape they had. Show the critic edited images only, real and fake, in both
players' steps: the game is then between the laws of the edited, which agree only where p and q do
as long as the edit's operator on laws can be inverted. `functools.partial` binds options.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minigen.critics import Critic, check_logits
from minigen.shapes import X, noise

Images = Float[Tensor, "B C H W"]
Augment = Callable[..., Images]  # (x, p=1.0, *, generator=None) -> x
Gen = torch.Generator | None


def _chosen(x: Images, p: float, generator: Gen) -> Bool[Tensor, "B 1 1 1"]:
    """Which samples to edit; the one place where x, p and the generator are looked at."""
    if not isinstance(x, Tensor) or x.ndim != 4:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"augmentations take images, (B, C, H, W), got {got}")
    if not 0 <= p <= 1:
        raise ValueError(f"p is the probability to edit a sample and lies in [0, 1], got {p}")
    noise(x[:0], generator=generator)  # draws nothing, but knows a generator of another device
    return torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < p


def _integers(low: int, high: int, x: Images, generator: Gen) -> Int[Tensor, "B 1 1 1"]:
    """One integer a sample, uniform on low … high, both among them."""
    return torch.randint(low, high + 1, (len(x), 1, 1, 1), generator=generator, device=x.device)


def _pixels(ratio: float, x: Images) -> tuple[int, int]:
    """The share `ratio` of height and width in whole pixels."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio is a share of the image's side and lies in [0, 1], got {ratio}")
    return int(ratio * x.shape[2] + 0.5), int(ratio * x.shape[3] + 0.5)


def translate(
    x: Images, p: float = 1.0, *, ratio: float = 0.125, fill: float = 0.0, generator: Gen = None
) -> Images:
    """Move by whole pixels, uniform up to ± ratio of each side; `fill` comes in from outside.

    Raises ValueError unless x is (B, C, H, W) and p and ratio lie in [0, 1]. [Zhao et al. 2020]
    """
    chosen, (b, c, h, w), (high, wide) = _chosen(x, p, generator), x.shape, _pixels(ratio, x)
    down, right = (_integers(-m, m, x, generator) * chosen for m in (high, wide))
    at = [torch.arange(n, device=x.device) for n in (b, c, h, w)]
    padded = F.pad(x, (wide, wide, high, high), value=fill)
    rows = at[2][:, None] + high - down  # (B, 1, H, 1)
    columns = at[3] + wide - right  # (B, 1, 1, W)
    return padded[at[0][:, None, None, None], at[1][:, None, None], rows, columns]


def flip(x: Images, p: float = 0.5, *, generator: Gen = None) -> Images:
    """Mirror left and right, with probability p. Raises ValueError as `translate`."""
    return torch.where(_chosen(x, p, generator), x.flip(-1), x)


def cutout(
    x: Images, p: float = 1.0, *, ratio: float = 0.5, fill: float = 0.0, generator: Gen = None
) -> Images:
    """Fill a rectangle of `ratio` times each side with `fill`, its centre uniform in the image.

    So it may reach over the edge. Raises ValueError as `translate`. [DeVries & Taylor 2017]
    """
    hole = _chosen(x, p, generator)
    for axis, side in zip((2, 3), _pixels(ratio, x), strict=True):
        n = x.shape[axis]
        first = _integers(0, n - side % 2, x, generator) - side // 2  # centre: a pixel or a corner
        at = torch.arange(n, device=x.device).reshape(-1, *[1] * (3 - axis))
        hole = hole & (at >= first) & (at < first + side)
    return x.masked_fill(hole, fill)


def colour(
    x: Images,
    p: float = 1.0,
    *,
    brightness: float = 0.5,
    saturation: float = 1.0,
    contrast: float = 0.5,
    generator: Gen = None,
) -> Images:
    """Add u₁ brightness; scale by 1 + u₂ saturation about grey, 1 + u₃ contrast about all.

    u₁, u₂, u₃ are uniform in [−1, 1], one of each a sample; grey is the mean of the channels (so
    saturation does nothing with one), `all` that of the image. Nothing is clipped. Raises
    ValueError as `translate`. [Zhao et al. 2020]
    """
    chosen = _chosen(x, p, generator)
    u = torch.rand(3, len(x), 1, 1, 1, generator=generator, device=x.device).to(x.dtype) * 2 - 1
    grey, all_ = x.mean(1, keepdim=True), x.mean((1, 2, 3), keepdim=True)
    vivid = grey + (1 + saturation * u[1]) * (x - grey)
    return torch.where(chosen, all_ + (1 + contrast * u[2]) * (vivid - all_) + brightness * u[0], x)


def rotate(x: Images, p: float = 1.0, *, generator: Gen = None) -> Images:
    """With probability p, turn by 0, 90, 180 or 270 degrees, uniform; 0 is among them.

    Raises ValueError as `translate`, and where the images are not square. [Karras et al. 2020]
    """
    chosen = _chosen(x, p, generator)
    if x.shape[2] != x.shape[3]:
        raise ValueError(f"only square images can be turned, got {tuple(x.shape)}")
    turns, out = _integers(0, 3, x, generator) * chosen, x
    for k in (1, 2, 3):
        out = torch.where(turns == k, x.rot90(k, (2, 3)), out)
    return out


def rotation_operator(p: float) -> Float[Tensor, "4 4"]:
    """What `rotate` does to the shares of the four orientations: (1 − p) I + p/4 11ᵀ, float64.

    Its eigenvalues are 1 and, three times, 1 − p: for p < 1 no two laws become one.
    [Karras et al. 2020, appendix C]
    """
    return (1 - p) * torch.eye(4, dtype=torch.float64) + p / 4


def compose(*parts: Augment) -> Augment:
    """One after another as one augmentation (x, p=1.0, *, generator=None), each with its own draw.

    So p is the probability of each part. Raises TypeError for a part that cannot be called.
    """
    for part in parts:
        if not callable(part):
            raise TypeError(f"compose takes augmentations such as augment.flip, got {part!r}")

    def augment(x: Images, p: float = 1.0, *, generator: Gen = None) -> Images:
        for part in parts:
            x = part(x, p, generator=generator)
        return x

    return augment


# What the critic is told ------------------------------------------------------------------------


def overfitting(logits: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """r = E sign(critic(x)) on training data: 0 for a critic that is lost, 1 for one that overfits.

    Raises ValueError unless the logits are (B,). [Karras et al. 2020, eq. 1]
    """
    return check_logits(logits).detach().sign().mean()


def adapt(p: float, r: float | Tensor, target: float = 0.6, step: float = 0.01) -> float:
    """The next p: up by `step` where r = `overfitting` is above the target, else down, in [0, 1].

    It comes to rest, to within a step, where r(p) = target. Raises ValueError for p outside [0, 1],
    r or target outside [−1, 1], or a step that is not positive. [Karras et al. 2020, section 3.1]
    """
    r = float(r)
    if not (0 <= p <= 1 and -1 <= r <= 1 and -1 <= target <= 1):
        raise ValueError(f"p lies in [0, 1], r and target in [−1, 1], got {p}, {r} and {target}")
    if not step > 0:
        raise ValueError(f"step is how far p moves and is positive, got {step}")
    return min(1.0, max(0.0, p + step * ((r > target) - (r < target))))


def consistency(
    critic: Critic,
    real: X,
    fake: X,
    augment: Augment,
    *,
    real_weight: float = 10.0,
    fake_weight: float = 10.0,
    generator: Gen = None,
) -> Float[Tensor, "B"]:
    """Σ weight (critic(x) − critic(augment(x)))² over real and fake, a penalty on the critic.

    Balanced; fake_weight = 0 is the older one on real data alone. `augment` is called as
    augment(x, generator=generator); no gradient reaches real and fake. Raises ValueError where
    their shapes differ, the critic does not give (B,), or a weight is negative.
    [Zhang et al. 2020, eq. 4; Zhao et al. 2021, Algorithm 1]
    """
    if real.shape != fake.shape:
        raise ValueError(f"real and fake differ: {tuple(real.shape)} and {tuple(fake.shape)}")
    if not min(real_weight, fake_weight) >= 0:
        raise ValueError(f"weights are at least 0, got {real_weight} and {fake_weight}")
    total = torch.zeros(len(real), dtype=real.dtype, device=real.device)
    for x, weight in ((real.detach(), real_weight), (fake.detach(), fake_weight)):
        if weight:
            seen = (check_logits(critic(v), len(x)) for v in (x, augment(x, generator=generator)))
            plain, edited = seen
            total = total + weight * (plain - edited) ** 2
    return total
