"""How far apart are two samples? Distances with standard errors, and what digits are judged by.

Whatever the data (points, images), a sample is x of shape (B, *D), read as B vectors. A number
means little alone: set it beside the floor, the same distance between two fresh sets of data.
"""

from .counts import Coverage, accuracy, mode_coverage
from .distances import energy_distance, frechet, mmd, sliced_wasserstein, wasserstein_1d
from .errors import Estimate, share_with_error, with_error
from .neighbours import Neighbours, Reference, duplicates, memorised, recall

__all__ = [
    "Coverage", "Estimate", "Neighbours", "Reference", "accuracy", "duplicates", "energy_distance",
    "frechet", "memorised", "mmd", "mode_coverage", "recall", "share_with_error",
    "sliced_wasserstein", "wasserstein_1d", "with_error",
]  # fmt: skip
