"""How the course judges generated images: one protocol for all lectures, each set beside its floor.

Five numbers, as each alone is blind to something: `benchmarks/claims/judge_controls.txt` has what
they say of blurred digits, of faint noise, of a missing class, of copies, and of dummies, and
`judge_letters.txt` the same of letters. Words are only read: `read`.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minigen import data, metrics, nets, train
from minigen.shapes import Label, check_finite

# Samples are judged as they come, but for pixels beyond this: a few that exploded would decide the
# Fréchet distance. Not at 1, the range of an image: half of all pixels are -1 exactly, and there
# a cut would move the mean of every sampler that errs to both sides.
LIMIT = 1.2


class Verdict(NamedTuple):
    """What a sample of images is judged by; the first and the last three are shares."""

    accuracy: float  # the judge reads the label that was asked for
    frechet: float  # to the training images, in the judge's 64 features
    recall: float  # of the training images, what lies within reach of a sample; in pixels
    precision: float  # of the samples, what lies within reach of a training image; in pixels
    memorised: float  # of the samples, what one training image fits far better than any other


class Judge:
    """A sample of images, judged by `metrics` against a data set's training images: a Verdict.

    x (B, *shape) as a sampler returns it, pixels beyond ±1.2 cut; `label` what was asked for
    (without one, the accuracy is NaN). All depend on the size: compare samples as large as `floor`
    has. Raises ValueError where x holds what is not finite.
    """

    def __init__(self, dataset: Callable, reader: str):
        self.dataset, self.reader = dataset, reader

    def __call__(self, x: Float[Tensor, "B C H W"], label: Label | None = None) -> Verdict:
        net, seen = self._read, self._seen
        x = check_finite(x, "x").detach().to(seen).clamp(-LIMIT, LIMIT)
        label = label if label is None else label.to(seen.device)
        return Verdict(
            math.nan if label is None else float(metrics.accuracy(net, x, label)),
            float(metrics.frechet(net.features(x), seen)),
            *map(float, self._near(x)),
        )

    def floor(self) -> Verdict:
        """The verdict on the data set's test images: what a perfect sampler can hope for."""
        return self._floor

    @functools.cached_property
    def _read(self) -> nets.Reader:
        return train.rebuild(data.checkpoint(self.reader)).requires_grad_(False)

    @functools.cached_property
    def _seen(self) -> Tensor:
        return self._read.features(self.dataset("train")[0])

    @functools.cached_property
    def _near(self) -> metrics.Reference:
        return metrics.Reference(self.dataset("train")[0])

    @functools.cached_property
    def _floor(self) -> Verdict:
        return self(*self.dataset("test"))


digits = Judge(data.digits, "digits_classifier")  # samples of 360, as the test digits
letters = Judge(data.letters, "letters_reader")  # samples of 520, 32 × 32


def floor() -> Verdict:
    """The verdict on the 360 test digits."""
    return digits.floor()


def table(rows: Mapping[str, Verdict | Sequence[Verdict]], judge: Judge = digits) -> str:
    """One line a row, mean ± standard error over its runs, and the judge's floor below."""
    names, last = ("accuracy", "Fréchet", "recall", "precision", "memorised"), "test images"
    if judge is digits:
        last = "test digits"
    width = max(len(name) for name in (*rows, last))
    lines = [" " * width + "".join(f"{name:>16s}" for name in names)]
    for name, runs in {**rows, last: judge.floor()}.items():
        runs = torch.tensor([runs] if isinstance(runs, Verdict) else [*runs], dtype=torch.double)
        cells = [_cell(column, 2 if k == 1 else 3) for k, column in enumerate(runs.T)]
        lines.append(f"{name:{width}s}" + "".join(f"{cell:>16s}" for cell in cells))
    return "\n".join(lines)


def _cell(runs: Float[Tensor, "N"], places: int) -> str:
    if bool(runs.isnan().any()):
        return "–"
    value = f"{float(runs.mean()):.{places}f}"
    return (
        value if len(runs) < 2 else f"{value} ± {float(runs.std()) / len(runs) ** 0.5:.{places}f}"
    )


# Words: what is read, not how it looks -----------------------------------------------------------


def read(x: Float[Tensor, "B 1 16 32"]) -> Int[Tensor, "B 2"]:
    """The two capitals that the judge reads in each word, as ids into data.CHARACTERS.

    x as `data.words(n, characters=data.CAPITALS)` draws them, pixels beyond ±1.2 cut.
    """
    net = _words_reader()
    x = check_finite(x, "x").detach().to(net.logits.weight)
    return net(x.clamp(-LIMIT, LIMIT)).argmax(2) + data.CHARACTERS.index("A")


def unseen(ids: Int[Tensor, "B 2"]) -> Bool[Tensor, "B"]:
    """Which of these words no checkpoint was trained on: a fifth of all pairs of capitals.

    Each letter stands in each place of words that were: (first + 2 second) mod 5 = 0.
    """
    return (ids[:, 0] + 2 * ids[:, 1]) % 5 == 0


@functools.cache
def _words_reader() -> nets.Reader:
    return train.rebuild(data.checkpoint("words_reader")).requires_grad_(False)
