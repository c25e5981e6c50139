"""minigen: generative models where every formula stands once, tested against an exact answer."""

import importlib

from minigen import (
    data,
    ddim,
    ddpm,
    distill,
    edm,
    flow,
    gan,
    guidance,
    judge,
    latent,
    markov,
    metrics,
    nets,
    oracle,
    paths,
    score,
    sde,
    shapes,
    solvers,
    targets,
    tokens,
    train,
    transformer,
    vae,
    vq,
)

__version__ = "0.1.0"
__all__ = [
    "data", "ddim", "ddpm", "distill", "edm", "flow", "gan", "guidance", "judge", "latent",
    "markov", "metrics", "nets", "oracle", "paths", "score", "sde", "shapes", "solvers", "targets",
    "tokens", "train", "transformer", "vae", "vq",
]  # fmt: skip


def __getattr__(name: str):
    """The rooms that need more than torch, imported where they are first asked for."""
    if name in ("checks", "plot", "widgets"):
        return importlib.import_module(f"minigen.{name}")
    raise AttributeError(f"module 'minigen' has no attribute {name!r}")
