"""Networks for points and images: one calling convention, net(xt, t, label=None), zero at birth.

To add one, subclass `Conditioned` and give it `body(xt, rows)`.
"""

from .classifier import DigitsClassifier, Reader
from .conditioning import Conditioned, Fourier, Frequencies, Rebuildable, Sinusoidal
from .mlp import MLP, ResMLP
from .unet import UNet

__all__ = [
    "MLP", "Conditioned", "DigitsClassifier", "Fourier", "Frequencies", "Reader", "Rebuildable",
    "ResMLP", "Sinusoidal", "UNet",
]  # fmt: skip
