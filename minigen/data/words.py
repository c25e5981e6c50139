"""Rendered words: images whose caption says which letters, in which order."""

import functools
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from minigen.shapes import check_count

from .digits import Images, Labels
from .glyphs import CHARACTERS, FONTS, jittered
from .points import Gen, drawers


@functools.lru_cache(maxsize=64)
def _font(name: str, pixels: int):
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    return ImageFont.truetype(str(path), pixels)


def _spelled(ids: list[list[int]], font: list[int], h: int, w: int) -> Float[Tensor, "n 1 h w"]:
    """Each word in its font, centred, in ink 1 on paper 0."""
    import numpy as np
    from PIL import Image, ImageDraw

    pixels = round(min(0.72 * h, 0.8 * w / len(ids[0])))  # the widest W is 1.23 em
    pages = np.zeros((len(ids), h, w), dtype=np.uint8)
    for page, word, k in zip(pages, ids, font, strict=True):
        image = Image.new("L", (w, h))
        text = "".join(CHARACTERS[i] for i in word)
        style = {"font": _font(FONTS[k], pixels), "anchor": "mm", "fill": 255}
        ImageDraw.Draw(image).text((w / 2, h / 2), text, **style)
        page[:] = np.asarray(image)
    return torch.from_numpy(pages)[:, None].float() / 255


def words(
    n: int,
    size: tuple[int, int] = (16, 32),
    *,
    length: int = 2,
    characters: str = CHARACTERS,
    jitter: float = 0.5,
    generator: Gen = None,
) -> tuple[Images, Int[Tensor, "n L"], Labels]:
    """Words of letters and digits drawn at random, and what they say: x (n, 1, h, w) in [-1, 1].

    With x the ids (n, length) int64, indices into CHARACTERS from left to right, and the font, an
    index into FONTS. `characters` are those that occur. jitter = 0 leaves every word upright and
    centred. Raises ValueError as `glyphs`.
    """
    unknown = sorted(set(characters) - set(CHARACTERS))
    if unknown or not characters:
        raise ValueError(f"characters must be some of {CHARACTERS!r}, got {characters!r}")
    h, w = size
    for count, name in ((h, "height"), (w, "width"), (length, "length")):
        check_count(count, name)
    rand, _ = drawers(n, generator)
    which = torch.tensor([CHARACTERS.index(c) for c in characters])
    ids = which[(len(characters) * rand(n, length)).long().cpu()]
    font = (len(FONTS) * rand(n)).long()
    fine = _spelled(ids.tolist(), font.tolist(), 2 * h, 2 * w).to(font.device)
    return 2 * F.avg_pool2d(jittered(fine, jitter, rand), 2) - 1, ids.to(font.device), font
