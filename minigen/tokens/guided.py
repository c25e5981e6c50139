"""Tokens of a class: a network with its label, and how much the label counts."""

import torch
from torch import nn

from minigen.shapes import Label

from .orders import Ids, Logits, Model, logits_of


def given(net: nn.Module, label: Label | int | None) -> Model:
    """The network with a label for every sample, or one for each: p(ids | label) as a model."""
    model = lambda ids: net(ids, label)
    return _told(model, net)


def guided(cond: Model, uncond: Model, scale: float) -> Model:
    """Classifier-free guidance on logits, uncond + scale (cond − uncond).

    p ∝ p_c^scale p_u^(1 − scale) for each token, which is not that tilt of the whole law.

    scale = 1 is `cond` alone, 0 `uncond` alone; the form (1 + w) ℓ_c − w ℓ_u is scale = 1 + w. Any
    two models: `given(net, label)` and `net`, or with a key–value cache `net.cached(label)` and
    `net.cached()`. Raises ValueError where they answer in different shapes.
    [Ho & Salimans 2022, eq. 6; on logits, Chang et al. 2023, section 2.7]
    """
    scale = float(scale)
    if scale in (0, 1):
        return cond if scale else uncond

    def model(ids: Ids) -> Logits:
        c, u = logits_of(cond, ids), logits_of(uncond, ids)
        if c.shape != u.shape:
            raise ValueError(f"cond has logits {tuple(c.shape)}, uncond {tuple(u.shape)}")
        return torch.where(c == u, c, u + scale * (c - u))  # −∞ in both stays so

    return _told(model, cond, uncond)


def _told(model: Model, *of: Model) -> Model:
    """The model, which says of itself what those it is made of say: `values`, and `causal`."""
    model.causal = all(getattr(m, "causal", False) for m in of)
    if hasattr(of[0], "values"):
        model.values = of[0].values
    return model
