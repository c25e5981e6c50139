"""minigen: generative models where every formula stands once, tested against an exact answer."""

from minigen import (
    data,
    ddim,
    ddpm,
    diagnostics,
    markov,
    metrics,
    nets,
    oracle,
    paths,
    shapes,
    targets,
    train,
)

__version__ = "0.1.0"
__all__ = [
    "data", "ddim", "ddpm", "diagnostics", "markov", "metrics", "nets", "oracle", "paths", "shapes",
    "targets", "train",
]  # fmt: skip
