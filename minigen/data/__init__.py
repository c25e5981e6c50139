"""Data that needs no download, one file a kind: points, digits, glyphs, photos; and checkpoints.

Points come on one scale, E‖x‖² = 2; images, also your own by `images`, lie in [-1, 1].
"""

from .batches import Batches, batches
from .checkpoints import checkpoint
from .digits import digits, fashion_mnist, mnist
from .glyphs import CAPITALS, CHARACTERS, FONTS, glyphs, letters
from .images import images
from .photos import patches
from .points import TOYS, checkerboard, eight_gaussians, moons, pinwheel, swiss_roll, toy
from .words import words

__all__ = [
    "Batches", "CAPITALS", "CHARACTERS", "FONTS", "TOYS", "batches", "checkerboard", "checkpoint",
    "digits", "eight_gaussians", "fashion_mnist", "glyphs", "images", "letters", "mnist", "moons",
    "patches", "pinwheel", "swiss_roll", "toy", "words",
]  # fmt: skip
