"""What a network is trained to predict: c(t) x0 + d(t) eps, one pair (c, d) for each target."""

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.paths import GaussianPath, Target, check_target, denoiser, read, x0
from minigen.shapes import Label, Net, Time, X, check_answer, check_dtype, check_pair, like, wide

__all__ = [
    "convert", "denoiser", "eps", "loss", "score", "solve", "v", "value", "velocity", "x0",
]  # fmt: skip


def eps(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """The noise: (c, d) = (0, 1). [Ho et al. 2020, eq. 14]"""
    return torch.zeros_like(t), torch.ones_like(t)


def v(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """v = a eps − b x0: (c, d) = (−b, a). [Salimans & Ho 2022, section 4]"""
    return -path.b(t), path.a(t)


def velocity(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """dxt/dt at fixed (x0, eps): (c, d) = (a′, b′); eps − x0 if linear. [Lipman et al. 2023]"""
    return path.da(t), path.db(t)


def score(path: GaussianPath, t: Time) -> tuple[Time, Time]:
    """∇ log q(xt | x0) = −eps / b: (c, d) = (0, −1/b); infinite where b = 0. [Vincent 2011]"""
    return torch.zeros_like(t), -1 / path.b(t)


def value(target: Target, path: GaussianPath, data: X, noise: X, t: Time) -> X:
    """The target's value c(t) data + d(t) noise."""
    check_pair(data, noise, t)
    c, d = target(path, t)
    return like(c, data) * data + like(d, noise) * noise


def convert(src: Target, dst: Target, path: GaussianPath, y: X, xt: X, t: Time) -> X:
    """The value y of target `src` at xt, read as a value of target `dst`: p xt + q y."""
    check_pair(y, xt, t)
    p, q = read(src, dst, path, wide(t))
    return like(p, xt) * xt + like(q, xt) * y


def solve(target: Target, path: GaussianPath, y: X, xt: X, t: Time) -> tuple[X, X]:
    """(x0, eps) from the state xt = a x0 + b eps and the target's value y = c x0 + d eps.

    Defined where det = ad − bc ≠ 0: eps needs a ≠ 0, x0 and score need b ≠ 0, v on a VP path
    always works; a target that is asked for itself always is.
    """
    return convert(target, x0, path, y, xt, t), convert(target, eps, path, y, xt, t)


def loss(
    net: Net, path: GaussianPath, target: Target, x0: X, eps: X, t: Time, label: Label | None = None
) -> Float[Tensor, " B"]:
    """‖net(xt, t, label) − (c x0 + d eps)‖² / D for each sample, the mean over the data axes.

    Its least value over all functions of (xt, t) is `oracle.GaussianMixture.floor` where the data
    is a mixture.
    """
    check_target(target)
    check_dtype(net, x0)
    answer = check_answer(net(path.mix(x0, eps, t), t, label), x0)
    error = answer - value(target, path, x0, eps, t)
    return error.square().reshape(len(x0), -1).mean(1)
