"""Images of one's own: every form gives the same bytes back, and what is no image is named."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from minigen import data

N, SIDE = 5, 8
GREY = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)


class Labelled(torch.utils.data.Dataset):
    """Such a one as torchvision's: (image, label), no end in sight but by its length."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, k):
        return self.items[k % len(self.items)], k


def pictures(x):
    return [Image.fromarray(one) for one in x]


def folder(x, path):
    """PNGs, in a folder with folders, whose paths sort as the images do."""
    for k, one in enumerate(pictures(x)):
        place = path / ("a" if k < 2 else "b")
        place.mkdir(exist_ok=True)
        one.save(place / f"{k}.PNG")
    (path / "labels.csv").write_text("none")
    (path / "a" / "._0.PNG").write_text("what macOS leaves")
    return path


FORMS = {
    "array": lambda x, path: x,
    "tensor": lambda x, path: torch.from_numpy(x),
    "channel": lambda x, path: x[..., None] if x.ndim == 3 else x,
    "channels first": lambda x, path: x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2),
    "tensor, channels first": lambda x, path: torch.from_numpy(
        x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2).copy()
    ),
    "list of arrays": lambda x, path: [*x],
    "pictures": lambda x, path: pictures(x),
    "dataset of pictures": lambda x, path: Labelled(pictures(x)),
    "dataset of tensors": lambda x, path: Labelled(torch.from_numpy(x)),
    "folder": folder,
    "folder's name": lambda x, path: str(folder(x, path)),
}


@pytest.mark.parametrize("x", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_its_bytes_back(form, x, tmp_path):
    got = data.images(form(x, tmp_path), SIDE)
    want = torch.from_numpy(x).reshape(N, SIDE, SIDE, -1).movedim(-1, 1)
    assert got.dtype == torch.float32 and got.shape == want.shape
    assert torch.equal(((got + 1) * 127.5).round().to(torch.uint8), want)
    assert got.min() >= -1 and got.max() <= 1


def test_the_square_in_the_middle_is_taken_and_made_smaller_by_its_means():
    """Of a smooth image, within the two grey levels that bytes and the filter's tails may cost."""
    side = torch.linspace(0, torch.pi, 32)
    square = 127.5 + 100 * torch.outer(side.sin(), (2 * side).cos())
    wide = torch.cat([torch.zeros(32, 10), square, torch.full((32, 10), 255.0)], dim=1)
    x = torch.stack([wide, wide.flip(1)]).round().to(torch.uint8)
    want = F.avg_pool2d(torch.stack([square, square.flip(1)])[:, None], 4) / 127.5 - 1
    for source in (x, x.mT):
        got = data.images(source, 8)
        want_here = want if source is x else want.mT
        torch.testing.assert_close(got[..., 1:7, 1:7], want_here[..., 1:7, 1:7], rtol=0, atol=0.03)
    assert data.images([np.full((3, 5), 200, np.uint8)], 16).unique().tolist() == pytest.approx(
        [200 / 127.5 - 1]
    )


def test_one_image_in_colour_makes_all_so_and_each_may_have_its_own_size():
    grey, red = Image.new("L", (4, 6), 51), Image.new("RGBA", (9, 3), (255, 0, 0, 128))
    x = data.images([grey, red, Image.new("1", (2, 2), 1)], 2)
    assert x.shape == (3, 3, 2, 2)
    assert x[:, :, 0, 0].tolist() == [pytest.approx([-0.6] * 3), [1, -1, -1], [1, 1, 1]]
    assert data.images([grey, Image.new("LA", (2, 2), (51, 0))], 2).shape == (2, 1, 2, 2)


def test_a_photograph_stands_as_the_camera_was_held(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(COLOUR[0]).save(tmp_path / "photo.png", exif=exif)
    turned = data.images(COLOUR[:1, ::-1, ::-1], SIDE)
    assert torch.equal(data.images(tmp_path, SIDE), turned)


@pytest.mark.parametrize(
    "source, error, message",
    [
        (torch.rand(3, 8, 8), TypeError, "image 0 is float32, of a range that can't be known: pas"),
        (Labelled([GREY[0], GREY[1] / 255]), TypeError, "image 1 is float64, .*without transform"),
        (GREY[0], ValueError, r"an array of images is .*: \(8, 8\)"),
        (COLOUR[0], ValueError, r"shape \(8, 8, 3\) seems to be one image: pass image\[None\]"),
        (GREY[:, :, :, None, None], ValueError, "an array of images is"),
        (np.zeros((2, 4, 8, 8), np.uint8), ValueError, r"image 0 is \(4, 8, 8\): neither \(h, w"),
        ([GREY[0], np.zeros((0, 8), np.uint8)], ValueError, r"image 1 is \(0, 8\): neither"),
        ([GREY[0], "a.png"], TypeError, "image 1 is str, neither an array nor one of Pillow's"),
        ([Image.new("I", (2, 2))], ValueError, r"image 0 has more than 8 bits a pixel \(I\)"),
        ([], ValueError, "there are no images: the source is empty"),
        (GREY[:0], ValueError, "there are no images: the source is empty"),
        (7, TypeError, "come from a folder, an array, a list or a Dataset, got int"),
        (iter([GREY[0]]), TypeError, "a list or a Dataset, got list_iterator"),
        ("nowhere/at/all", FileNotFoundError, "there is no folder nowhere"),
    ],
)
def test_what_is_no_image_is_named(source, error, message):
    with pytest.raises(error, match=message):
        data.images(source, SIDE)


def test_a_folder_without_images_or_with_a_broken_one(tmp_path):
    with pytest.raises(ValueError, match="no images in .*: it holds no files"):
        data.images(tmp_path, SIDE)
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(ValueError, match="no images in .*: it holds .txt"):
        data.images(tmp_path, SIDE)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    broken = re.escape(str(tmp_path / "cut.png"))
    with pytest.raises(ValueError, match=f"{broken} can't be read as an image"):
        data.images(tmp_path, SIDE)
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got 0"):
        data.images(GREY, 0)
