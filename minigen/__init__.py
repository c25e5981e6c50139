"""minigen: generative models where every formula stands once, tested against an exact answer."""

from minigen import (
    augment,
    data,
    ddim,
    ddpm,
    diagnostics,
    flow,
    gan,
    guidance,
    linear_gaussian,
    markov,
    metrics,
    nets,
    oracle,
    paths,
    score,
    shapes,
    style,
    targets,
    train,
    vae,
)

__version__ = "0.1.0"
__all__ = [
    "augment", "data", "ddim", "ddpm", "diagnostics", "flow", "gan", "guidance", "linear_gaussian",
    "markov", "metrics", "nets", "oracle", "paths", "score", "shapes", "style", "targets", "train",
    "vae",
]  # fmt: skip
