"""Training: `fit` yields losses; exponential averages, checkpoints and devices beside it.

`loop`: the one loop, a step with its checkpoints. `bar`: its losses as they are shown. `ema`:
averages of parameters. `run`: what a run consists of. `state`: what its file may hold. `files`:
sealed safetensors. `processes`: devices, and several processes at once.
"""

from .ema import Ema
from .files import load, rebuild, save
from .loop import Rate, cosine, descent, fit, loop
from .processes import device, rank, shard
from .run import Generators, Run

__all__ = [
    "Ema", "Generators", "Rate", "Run", "cosine", "descent", "device", "fit", "load", "loop",
    "rank", "rebuild", "save", "shard",
]  # fmt: skip
