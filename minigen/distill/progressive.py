"""Two steps of a teacher in one of its student."""

import torch

from minigen import targets
from minigen.paths import GaussianPath, reading
from minigen.shapes import Denoiser, Time, X, check_batch, check_times, like, readable


def check_order(t: Time, s: Time, x: X, still: bool = False) -> None:
    """Raises ValueError unless s is a time for x and s < t, or s ≤ t where a way may stand still.

    That t is one the caller has seen.
    """
    check_times(s, x)
    if readable(t) and not bool(((s <= t) if still else (s < t)).all()):
        sign = "≤" if still else "<"
        raise ValueError(
            f"the way goes from t back to s and needs s {sign} t, got t = {t}, s = {s}"
        )


def step(denoise: Denoiser, path: GaussianPath, xt: X, t: Time, s: Time) -> X:
    """One DDIM step from t to s, a time for all or one for each sample.

    Raises ValueError where the denoiser reads a network that was trained on another path.
    """
    keep = like(path.b(s) / path.b(t), xt)
    guess = reading(denoise, path, targets.x0)(xt, t)
    return like(path.a(s), xt) * guess + keep * (xt - like(path.a(t), xt) * guess)


def progressive_target(
    teacher: Denoiser, path: GaussianPath, xt: X, t: Time, mid: Time, s: Time
) -> X:
    """The x0 whose one DDIM step from t to s ends where the teacher's two end, by way of mid.

    x0 = (x_s − (b_s/b_t) x_t)/(a_s − (b_s/b_t) a_t).

    Keeps no gradients. Raises ValueError unless s < mid < t, and for a teacher on another path.
    [Salimans & Ho 2022, appendix G]
    """
    check_batch(xt, "xt")
    check_times(t, xt)
    check_order(t, mid, xt)
    check_order(mid, s, xt)
    with torch.no_grad():
        xs = step(teacher, path, step(teacher, path, xt, t, mid), mid, s)
        keep = path.b(s) / path.b(t)
        return (xs - like(keep, xt) * xt) / like(path.a(s) - keep * path.a(t), xt)
