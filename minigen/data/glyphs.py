"""Letters and digits in the text fonts that matplotlib ships: labelled images without end."""

import functools
import math
import string
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from minigen.shapes import check_count

from .digits import Images, Labels, pick
from .points import Gen, drawers

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
CAPITALS = string.ascii_uppercase
DEJAVU = ("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique")
DEJAVU += ("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique")
DEJAVU += ("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic")
# The 21 fonts of matplotlib that draw all of CHARACTERS as text; the rest are symbols and maths.
FONTS = tuple(f"DejaVu{style}" for style in DEJAVU)
FONTS += ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
FONTS += ("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10")


@functools.lru_cache(maxsize=4)
def _masks(size: int) -> Tensor:
    """Every character in every font, centred, twice as fine as asked: (62, 21, 2·size, 2·size)."""
    import matplotlib
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    fine = 2 * size
    masks = np.zeros((len(CHARACTERS), len(FONTS), fine, fine), dtype=np.uint8)
    for j, name in enumerate(FONTS):
        path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")
        font = ImageFont.truetype(str(path), round(0.72 * fine))  # the widest W is 1.23 em
        for i, character in enumerate(CHARACTERS):
            left, top, right, bottom = font.getbbox(character)
            image = Image.new("L", (fine, fine))
            corner = ((fine - left - right) / 2, (fine - top - bottom) / 2)
            ImageDraw.Draw(image).text(corner, character, font=font, fill=255)
            masks[i, j] = np.asarray(image)
    return torch.from_numpy(masks)


def _jitter(n: int, amount: float, rand) -> Float[Tensor, "n 2 3"]:
    """Affine maps: turns up to ±10°, zoom and shear up to ±10 %, shifts up to ±5 % of the width."""
    turn, zoom, shear, right, down = (amount * (2 * rand(5, n) - 1)).unbind()
    turn, zoom = math.radians(10) * turn, 1 + 0.1 * zoom
    cos, sin, shear = turn.cos() / zoom, turn.sin() / zoom, 0.1 * shear
    rows = [cos, cos * shear - sin, 0.1 * right, sin, sin * shear + cos, 0.1 * down]
    return torch.stack(rows, dim=1).reshape(n, 2, 3)


def jittered(x: Float[Tensor, "n 1 h w"], amount: float, rand) -> Float[Tensor, "n 1 h w"]:
    """Each image moved a little, by a map of its own; unchanged where amount = 0."""
    if not amount:
        return x
    maps, aspect = _jitter(len(x), amount, rand), x.shape[3] / x.shape[2]
    maps[:, 0, 1] /= aspect  # the grid counts both axes from -1 to 1, whatever their lengths
    maps[:, 1, 0] *= aspect
    grid = F.affine_grid(maps, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def glyphs(
    n: int,
    size: int = 28,
    *,
    characters: str = CHARACTERS,
    jitter: float = 1.0,
    colour: bool = False,
    generator: Gen = None,
) -> tuple[Images, Labels, Labels]:
    """Letters and digits in the text fonts of matplotlib: x (n, 1, size, size) in [-1, 1], labels.

    The labels are indices into `characters` and into `FONTS`. jitter = 0 leaves every glyph
    upright and centred; colour draws in a random ink on black, x (n, 3, size, size).
    """
    unknown = sorted(set(characters) - set(CHARACTERS))
    if unknown or not characters:
        raise ValueError(f"characters must be some of {CHARACTERS!r}, got {characters!r}")
    check_count(size, "size")
    rand, _ = drawers(n, generator)
    char, font = (len(characters) * rand(n)).long(), (len(FONTS) * rand(n)).long()
    which = torch.tensor([CHARACTERS.index(c) for c in characters], device=char.device)[char]
    fine = _masks(size).to(char.device)[which, font][:, None].float() / 255
    fine = jittered(fine, jitter, rand)
    ink = 0.2 + 0.8 * rand(n, 3, 1, 1) if colour else 1.0
    return 2 * ink * F.avg_pool2d(fine, 2) - 1, char, font


def letters(split: str = "train", size: int = 32) -> tuple[Images, Labels]:
    """A fixed set of capital letters: x (n, 1, size, size) in [-1, 1], label 0 to 25 for A to Z.

    5,200 `glyphs` to train on, 520 to test on, the same each time: a net can learn these by heart.
    """
    n, seed = pick(split, train=(5200, 0), test=(520, 1))
    x, label, _ = _letters(n, seed, size)
    return x.clone(), label.clone()


@functools.lru_cache(maxsize=4)
def _letters(n: int, seed: int, size: int) -> tuple[Images, Labels, Labels]:
    generator = torch.Generator().manual_seed(seed)
    return glyphs(n, size, characters=CAPITALS, generator=generator)
