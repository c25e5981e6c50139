"""Images of one's own, from files, arrays or a Dataset, as a tensor to train on."""

from pathlib import Path

import torch
from torch import Tensor

from minigen.shapes import check_count

from .digits import Images

GREY = {"1", "L", "LA", "La"}
DEEP = ("I", "F")  # modes of 16 bits a pixel and more, which Pillow would cut off at 255


def images(source: object, size: int) -> Images:
    """Images of one's own, each the square in its middle, resized: (n, C, size, size) in [-1, 1].

    x = v/127.5 − 1 of the bytes v; C = 1 if all are grey, else 3; transparency is dropped.
    `source` is a folder of image files, those of its folders included, in the order of their paths;
    or uint8, a tensor or array (n, h, w), (n, h, w, C) or (n, C, h, w); or a list, or a Dataset
    of length n, of Pillow's images or such arrays, alone or first in a tuple (image, …).
    All of them are held in memory at once. Raises ValueError or TypeError, naming the image, for
    one of another kind.
    """
    import numpy as np

    check_count(size, "size")
    folder = isinstance(source, str | Path)
    names = _files(Path(source)) if folder else range(_length(source))
    squares = [_square(_opened(k) if folder else _picture(source[k], k), size, k) for k in names]
    mode = "L" if all(square.mode == "L" for square in squares) else "RGB"
    x = torch.from_numpy(np.stack([square.convert(mode) for square in squares]))
    return x.reshape(len(x), size, size, -1).movedim(-1, 1).float() / 127.5 - 1


def _files(folder: Path) -> list[Path]:
    from PIL import Image

    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    known = Image.registered_extensions()
    every = sorted(p for p in folder.rglob("*") if p.is_file() and p.name[0] != ".")
    if not (found := [p for p in every if p.suffix.lower() in known]):
        others = ", ".join(sorted({p.suffix for p in every})) or "no files"
        raise ValueError(f"there are no images in {folder}: it holds {others}")
    return found


def _length(source: object) -> int:
    """How many images there are; one array must say so by its shape."""
    shape = tuple(getattr(source, "shape", (0, 0, 0)))
    if len(shape) not in (3, 4):
        raise ValueError(f"an array of images is (n, h, w), (n, h, w, C) or (n, C, h, w): {shape}")
    if shape[2:] == (3,):
        raise ValueError(f"an array of shape {shape} seems to be one image: pass image[None]")
    try:
        n, _ = len(source), source.__getitem__
    except (TypeError, AttributeError):
        raise TypeError(
            f"images come from a folder, an array, a list or a Dataset, got {type(source).__name__}"
        ) from None
    if not n:
        raise ValueError("there are no images: the source is empty")
    return n


def _opened(path: Path):
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            return ImageOps.exif_transpose(file)  # as the camera was held
    except OSError as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from None


def _picture(x: object, which: int):
    """An item of a list, an array or a Dataset as Pillow's image."""
    from PIL import Image

    x = x[0] if isinstance(x, tuple | list) and x else x
    if isinstance(x, Image.Image):
        return x
    x = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    got = f"image {which} is"
    if not hasattr(x, "dtype") or not hasattr(x, "shape"):
        raise TypeError(f"{got} {type(x).__name__}, neither an array nor one of Pillow's images")
    if str(x.dtype) != "uint8":
        raise TypeError(
            f"{got} {x.dtype}, of a range that can't be known: pass uint8, 0 to 255, such as a "
            f"Dataset without transform"
        )
    if x.ndim == 3 and x.shape[-1] not in (1, 3) and x.shape[0] in (1, 3):
        x = x.transpose(1, 2, 0)
    if x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[-1] not in (1, 3)) or not x.size:
        raise ValueError(f"{got} {tuple(x.shape)}: neither (h, w) nor (h, w, C) with C = 1 or 3")
    return Image.fromarray(x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x)


def _square(image, size: int, which: object):
    """The largest square in the middle of an image, resized, in grey or in colour."""
    from PIL import ImageOps

    if image.mode.startswith(DEEP):
        raise ValueError(f"image {which} has more than 8 bits a pixel ({image.mode}): pass uint8")
    return ImageOps.fit(image.convert("L" if image.mode in GREY else "RGB"), (size, size))
