"""minigen: generative models where every formula stands once, tested against an exact answer."""

from minigen import (
    data,
    ddim,
    ddpm,
    flow,
    gan,
    guidance,
    judge,
    markov,
    metrics,
    nets,
    oracle,
    paths,
    score,
    shapes,
    targets,
    train,
    vae,
)

__version__ = "0.1.0"
__all__ = [
    "data", "ddim", "ddpm", "flow", "gan", "guidance", "judge", "markov", "metrics", "nets",
    "oracle", "paths", "score", "shapes", "targets", "train", "vae",
]  # fmt: skip
