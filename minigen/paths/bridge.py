"""One step of a path between two times, given its ends: what every chain on the path is made of."""

from typing import NamedTuple

import torch

from minigen.shapes import Time, check_time, readable

from .gaussian import GaussianPath


class Bridge(NamedTuple):
    """The laws of xt and xs at times s < t: coefficients and variances, each shaped as the times.

    E[xs | xt, x0] = to_x0 x0 + to_xt xt, Var(xt | xs) = forward, Var(xs | xt, x0) = backward.
    """

    to_x0: Time
    to_xt: Time
    forward: Time
    backward: Time


def bridge(path: GaussianPath, t: Time, s: Time) -> Bridge:
    """The step between s < t, with r = SNR_t/SNR_s, the share of xs's signal-to-noise that is left.

    to_x0 = a_s (1 − r), to_xt = (a_t/a_s)(b_s/b_t)², forward β = b_t² (1 − r), backward β̃ =
    b_s² (1 − r); at neighbouring knots of a chain its β_t and β̃_t.
    [Kingma et al. 2021, appendix A]
    """
    if readable(check_time(t)) and not bool((check_time(s) < t).all()):
        raise ValueError(f"a step goes back in time and needs s < t, got t = {t}, s = {s}")
    a_t, b_t, a_s, b_s = path.a(t), path.b(t), path.a(s), path.b(s)
    lost = -torch.expm1(2 * torch.log((a_t / a_s) * (b_s / b_t)))  # 1 − r, which is 1 at s = 0
    return Bridge(a_s * lost, (a_t / a_s) * (b_s / b_t) ** 2, b_t**2 * lost, b_s**2 * lost)
