"""One step: the flow map of the probability-flow ODE, learned.

Φ(x, t, s) is where the ODE takes x from time t to time s. Three identities say what it is, and each
is a loss: two maps in a row are one (`progressive`), the map's value is the same all along a
trajectory (`consistency`), and its slope is the velocity (`average`, of mean flows).
"""

from .average import TwoTimes, jump, mean_flow_loss
from .consistency import Consistency, consistency_loss, multistep, training_shrinkage
from .progressive import progressive_target

__all__ = [
    "Consistency", "TwoTimes", "consistency_loss", "jump", "mean_flow_loss", "multistep",
    "progressive_target", "training_shrinkage",
]  # fmt: skip
