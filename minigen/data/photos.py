"""Patches of photographs."""

import torch

from minigen.shapes import check_count

from .digits import Images
from .points import Gen, drawers


def patches(n: int, size: int, *, generator: Gen = None) -> Images:
    """Squares cut at random from scikit-learn's two photographs: (n, 3, size, size) in [-1, 1].

    The photographs are 427 × 640 pixels.
    """
    from sklearn.datasets import load_sample_images

    photos = torch.stack([torch.from_numpy(photo.copy()) for photo in load_sample_images().images])
    _, height, width, _ = photos.shape
    check_count(size, "size")
    if size > height:
        raise ValueError(f"size must lie between 1 and {height} pixels, got {size}")
    rand, _ = drawers(n, generator)
    u, v, w = rand(3, n)
    side = torch.arange(size, device=u.device)
    row = (u * (height - size + 1)).long()[:, None, None] + side[:, None]
    column = (v * (width - size + 1)).long()[:, None, None] + side
    cut = photos.to(u.device)[(2 * w).long()[:, None, None], row, column]
    return cut.movedim(-1, 1).float() / 127.5 - 1
