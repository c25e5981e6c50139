"""Points in the plane: five data sets without end, all on one scale, E‖x‖² = 2.

That is a mean square of 1 per coordinate, so one noise schedule suits them all.
"""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.shapes import check_count

Points = Float[Tensor, "n 2"]
Gen = torch.Generator | None


def drawers(n: int, generator: Gen, dtype: torch.dtype = torch.float32):
    """`rand` and `randn` bound to one generator, on its device, to draw n samples, 1 or more."""
    check_count(n)
    device = generator.device if generator is not None else torch.device("cpu")
    bound = {"generator": generator, "device": device, "dtype": dtype}
    return functools.partial(torch.rand, **bound), functools.partial(torch.randn, **bound)


def _polar(radius: Tensor, angle: Tensor) -> Points:
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)


def moons(n: int, *, generator: Gen = None, dtype=torch.float32) -> Points:
    """Two interleaved half circles with a little normal noise: (n, 2), E‖x‖² = 2."""
    rand, randn = drawers(n, generator, dtype)
    flip = (rand(n) < 0.5).to(dtype)[:, None] * 2 - 1
    centre = torch.tensor([0.5, 0.25], dtype=dtype, device=flip.device)
    arc = _polar(torch.ones_like(flip[:, 0]), math.pi * rand(n)) - centre
    # About its centre one moon is the other turned by 180°. E‖arc‖² = 1.3125 - 1 / π.
    scale = math.sqrt((2 - 2 * 0.1**2) / (1.3125 - 1 / math.pi))
    return scale * flip * arc + 0.1 * randn(n, 2)


def eight_gaussians(n: int, *, generator: Gen = None, dtype=torch.float32) -> Points:
    """Eight normals of standard deviation √0.02 on a circle of radius 1.4: (n, 2), E‖x‖² = 2."""
    rand, randn = drawers(n, generator, dtype)
    angle = math.pi / 4 * (8 * rand(n)).floor()
    return _polar(torch.full_like(angle, 1.4), angle) + math.sqrt(0.02) * randn(n, 2)


def checkerboard(n: int, *, generator: Gen = None, dtype=torch.float32) -> Points:
    """Uniform on the black squares of a 4×4 board over [-√3, √3]²: (n, 2), E‖x‖² = 2."""
    rand, _ = drawers(n, generator, dtype)
    column, row = (4 * rand(n)).floor(), 2 * (2 * rand(n)).floor()
    corner = torch.stack([column, row + column % 2], dim=1)
    return math.sqrt(3) * ((corner + rand(n, 2)) / 2 - 1)


def swiss_roll(n: int, *, generator: Gen = None, dtype=torch.float32) -> Points:
    """A spiral, angle = radius uniform on [1.5π, 4.5π], rescaled: (n, 2), E‖x‖² = 2, mean ≠ 0."""
    rand, randn = drawers(n, generator, dtype)
    angle = 1.5 * math.pi * (1 + 2 * rand(n))
    scale = math.sqrt((2 - 2 * 0.05**2) / (13 / 3 * (1.5 * math.pi) ** 2))
    return _polar(scale * angle, angle) + 0.05 * randn(n, 2)


def pinwheel(n: int, *, generator: Gen = None, dtype=torch.float32) -> Points:
    """Five arms, each a stretched normal turned further the further out: (n, 2), E‖x‖² = 2."""
    rand, randn = drawers(n, generator, dtype)
    along, across = 1 + 0.3 * randn(n), 0.05 * randn(n)
    arm = 2 * math.pi / 5 * (5 * rand(n)).floor()
    radius, angle = torch.hypot(along, across), torch.atan2(across, along)
    scale = math.sqrt(2 / (1 + 0.3**2 + 0.05**2))
    return scale * _polar(radius, angle + arm + 0.25 * along.exp())


DRAWN = (moons, eight_gaussians, checkerboard, swiss_roll, pinwheel)
TOYS = {draw.__name__: draw for draw in DRAWN}


def toy(name: str):
    """The 2-D data set of that name, as a function `(n, *, generator)`: for menus and the like."""
    if name not in TOYS:
        raise ValueError(f"there is no data set {name!r}; the 2-D ones are {', '.join(TOYS)}")
    return TOYS[name]
