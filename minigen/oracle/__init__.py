"""The exact answer: a diffused Gaussian mixture is a Gaussian mixture, nothing is unknown.

`mixture`: its score, denoiser, velocity and class posterior at every time. `line`: on the line also
its flow. `tokens`: discrete data, any law on a few tokens by enumeration.
"""

from .line import flow_map_1d
from .mixture import GaussianMixture
from .tokens import TokenTable

__all__ = ["GaussianMixture", "TokenTable", "flow_map_1d"]
