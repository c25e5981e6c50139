"""One step: the flow map of the probability-flow ODE, learned.

Φ(x, t, s) is where the ODE takes x from time t to time s. Two of its identities are losses here:
two maps in a row are one (`progressive`), and the end stays when the start moves along its
trajectory (`consistency`, where the end is data; `average`, of mean flows, for any end).
"""

from .average import TwoTimes, jump, mean_flow_loss
from .consistency import Consistency, consistency_loss, multistep, training_shrinkage
from .progressive import progressive_target

__all__ = [
    "Consistency", "TwoTimes", "consistency_loss", "jump", "mean_flow_loss", "multistep",
    "progressive_target", "training_shrinkage",
]  # fmt: skip
