"""Data that needs no download: points in the plane, digits, glyphs, photo patches; and checkpoints.

Points come on one scale, E‖x‖² = 2; images lie in [-1, 1].
"""

import functools
import math
import string
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from minigen.toys import TOYS as TOYS
from minigen.toys import Gen, drawers
from minigen.toys import checkerboard as checkerboard
from minigen.toys import eight_gaussians as eight_gaussians
from minigen.toys import moons as moons
from minigen.toys import pinwheel as pinwheel
from minigen.toys import swiss_roll as swiss_roll
from minigen.toys import toy as toy

Images = Float[Tensor, "n C H W"]
Labels = Int[Tensor, "n"]

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
DEJAVU = ("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique")
DEJAVU += ("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique")
DEJAVU += ("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic")
# The 21 fonts of matplotlib that draw all of CHARACTERS as text; the rest are symbols and maths.
FONTS = tuple(f"DejaVu{style}" for style in DEJAVU)
FONTS += ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
FONTS += ("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10")


def _pick(split: str, **parts):
    if split not in parts:
        raise ValueError(f"split is 'train' or 'test', got {split!r}")
    return parts[split]


def digits(split: str = "train") -> tuple[Images, Labels]:
    """Handwritten 8×8 digits: x (n, 1, 8, 8) in [-1, 1] and the digit (n,).

    scikit-learn's 1,797 images, split once and for all, evenly by digit: 1,437 to train on, 360 to
    test on. Raises ValueError for another split. [Alpaydin & Kaynak, UCI 1998]
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, label = load_digits(return_X_y=True)
    index = torch.arange(len(label)).numpy()
    train, test = train_test_split(index, test_size=360, random_state=0, stratify=label)
    kept = _pick(split, train=train, test=test)
    x = torch.from_numpy(images[kept]).float().reshape(-1, 1, 8, 8)
    return x / 8 - 1, torch.from_numpy(label[kept]).long()


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
    Raises ValueError for a character that is not in `CHARACTERS`.
    """
    unknown = sorted(set(characters) - set(CHARACTERS))
    if unknown or not characters:
        raise ValueError(f"characters must be some of {CHARACTERS!r}, got {characters!r}")
    rand, _ = drawers(generator)
    char, font = (len(characters) * rand(n)).long(), (len(FONTS) * rand(n)).long()
    which = torch.tensor([CHARACTERS.index(c) for c in characters], device=char.device)[char]
    fine = _masks(size).to(char.device)[which, font][:, None].float() / 255
    if jitter:
        grid = F.affine_grid(_jitter(n, jitter, rand), list(fine.shape), align_corners=False)
        fine = F.grid_sample(fine, grid, align_corners=False)
    ink = 0.2 + 0.8 * rand(n, 3, 1, 1) if colour else 1.0
    return 2 * ink * F.avg_pool2d(fine, 2) - 1, char, font


def patches(n: int, size: int, *, generator: Gen = None) -> Images:
    """Squares cut at random from scikit-learn's two photographs: (n, 3, size, size) in [-1, 1].

    Raises ValueError for a square larger than the photographs, which are 427 × 640 pixels.
    """
    from sklearn.datasets import load_sample_images

    photos = torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images])
    _, height, width, _ = photos.shape
    if not 1 <= size <= height:
        raise ValueError(f"size must lie between 1 and {height} pixels, got {size}")
    rand, _ = drawers(generator)
    u, v, w = rand(3, n)
    side = torch.arange(size, device=u.device)
    row = (u * (height - size + 1)).long()[:, None, None] + side[:, None]
    column = (v * (width - size + 1)).long()[:, None, None] + side
    cut = photos.to(u.device)[(2 * w).long()[:, None, None], row, column]
    return cut.movedim(-1, 1).float() / 127.5 - 1


def mnist(split: str = "train") -> tuple[Images, Labels]:
    """MNIST, fetched once from openml.org: x (n, 1, 28, 28) in [-1, 1], n = 60,000 or 10,000.

    Raises ValueError for an unknown split, ConnectionError where openml.org can't be reached.
    """
    return _openml("mnist_784", split)


def fashion_mnist(split: str = "train") -> tuple[Images, Labels]:
    """Fashion-MNIST, fetched once from openml.org: shapes and errors as `mnist`."""
    return _openml("Fashion-MNIST", split)


def _openml(name: str, split: str) -> tuple[Images, Labels]:
    from sklearn.datasets import fetch_openml

    kept = _pick(split, train=slice(None, 60_000), test=slice(60_000, None))
    try:  # liac-arff is the parser that needs no pandas
        images, label = fetch_openml(
            name, version=1, return_X_y=True, as_frame=False, parser="liac-arff"
        )
    except OSError as error:  # URLError is one
        raise ConnectionError(
            f"{name} has to be downloaded once from openml.org, which can't be reached ({error}); "
            f"data.glyphs(n, 28) draws as many 28 × 28 images as you like without a network"
        ) from error
    x = torch.from_numpy(images[kept]).float().reshape(-1, 1, 28, 28)
    return x / 127.5 - 1, torch.from_numpy(label[kept].astype("int64"))


def check_finite(x: Tensor) -> Tensor:
    """x itself; raises ValueError, with how many and where first, if it holds a NaN or infinity."""
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        first = bad.reshape(len(x), -1).any(dim=1).nonzero()[0].item()
        raise ValueError(
            f"the data holds {int(bad.sum())} values that are not finite (NaN or infinity), "
            f"the first in sample {first}"
        )
    return x


def batches(*tensors: Tensor, size: int, generator: Gen = None) -> Iterator[tuple[Tensor, ...]]:
    """Minibatches without end: each pass a new order, rows kept together, the odd rest left out.

    `next(batches(x, label, size=128, generator=g))` is a pair. Raises ValueError for tensors of
    different length, a size beyond it, or data that is not finite.
    """
    n = len(tensors[0])
    if any(len(tensor) != n for tensor in tensors):
        raise ValueError(f"tensors of different length: {[len(tensor) for tensor in tensors]}")
    if not 1 <= size <= n:
        raise ValueError(f"a batch of {size} can't be drawn from {n} samples")
    check_finite(tensors[0])
    home = generator.device if generator is not None else "cpu"

    def shuffled():
        while True:
            order = torch.randperm(n, generator=generator, device=home).to(tensors[0].device)
            for rows in order[: n - n % size].split(size):
                yield tuple(tensor[rows] for tensor in tensors)

    return shuffled()  # apart, so that the checks above run at the call


def checkpoint(name: str) -> Path:
    """Where the bundled checkpoint of that name lies: in data/ of a checkout, or in the package.

    Raises ValueError, with the names there are, for an unknown one.
    """
    here = Path(__file__).parent
    folders = [here.parent / "data", here / "checkpoints"]
    found = {p.stem: p for folder in folders for p in sorted(folder.glob("*.safetensors"))}
    if name not in found:
        raise ValueError(
            f"there is no checkpoint {name!r}; there are: {', '.join(found) or 'none'}"
        )
    return found[name]
