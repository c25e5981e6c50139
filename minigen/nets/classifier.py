"""The classifiers that generated images are judged by."""

from jaxtyping import Float
from torch import Tensor, nn

from minigen.shapes import check_count

from .conditioning import Rebuildable


class Reader(Rebuildable):
    """Convolutions that read the characters of an image: (B, C, H, W) -> logits (B, classes).

    With a `length`, one character after another: (B, length, classes). Each convolution after the
    first halves both sides, until the shorter is 4 pixels or less. `features` are the `width`
    rectified units before the logits, the space of the course's Fréchet distances.
    """

    def __init__(self, shape, classes: int, length: int | None = None, width: int = 64):
        super().__init__()
        for n, name in ((classes, "classes"), (length or 1, "length"), (width, "width")):
            check_count(n, name)
        self.shape = tuple(shape)
        channels, h, w = shape
        layers = [nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()]
        inside = 32
        while min(h, w) > 4:
            layers += [nn.Conv2d(inside, 64, 3, stride=2, padding=1), nn.ReLU()]
            inside, h, w = 64, (h + 1) // 2, (w + 1) // 2
        layers += [nn.Flatten(), nn.Linear(inside * h * w, width), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.logits = nn.Linear(width, (length or 1) * classes)
        self.answer = (classes,) if length is None else (length, classes)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B ... K"]:
        return self.logits(self.features(x)).unflatten(1, self.answer)


class DigitsClassifier(Reader):
    """The reader of 8×8 digits: (B, 1, 8, 8) -> logits (B, 10).

    The trained one is bundled: data.checkpoint("digits_classifier").
    """

    def __init__(self):
        super().__init__((1, 8, 8), 10)
