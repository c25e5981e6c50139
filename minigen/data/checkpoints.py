"""The bundled pretrained networks."""

from pathlib import Path


def checkpoint(name: str) -> Path:
    """Where the bundled checkpoint of that name lies: in data/ of a checkout, or in the package."""
    package = Path(__file__).parents[1]
    folders = [package.parent / "data", package / "checkpoints"]
    found = {p.stem: p for folder in folders for p in sorted(folder.glob("*.safetensors"))}
    if name not in found:
        raise ValueError(
            f"there is no checkpoint {name!r}; there are: {', '.join(found) or 'none'}"
        )
    return found[name]
