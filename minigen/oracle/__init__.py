"""The exact answer: a diffused Gaussian mixture is a Gaussian mixture, nothing is unknown.

`mixture`: its score, denoiser, velocity and class posterior at every time. `line`: on the line also
its flow.
"""

from .line import flow_map_1d
from .mixture import GaussianMixture

__all__ = ["GaussianMixture", "flow_map_1d"]
