"""How the course judges generated digits: one protocol for all lectures, beside one floor.

Five numbers, as each alone is blind to something: `benchmarks/claims/judge_controls.txt` has what
they say of blurred digits, of faint noise, of a missing class, of copies, and of dummies.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minigen import data, metrics, nets, train
from minigen.shapes import Label

# Samples are judged as they come, but for pixels beyond this: a few that exploded would decide the
# Fréchet distance. Not at 1, the range of an image: half of all pixels are -1 exactly, and there
# a cut would move the mean of every sampler that errs to both sides.
LIMIT = 1.2


class Verdict(NamedTuple):
    """What 360 digits are judged by; the first and the last three are shares."""

    accuracy: float  # the judge reads the label that was asked for
    frechet: float  # to the training digits, in the judge's 64 features
    recall: float  # of the training digits, what lies within reach of a sample; in pixels
    precision: float  # of the samples, what lies within reach of a training digit; in pixels
    memorised: float  # of the samples, what one training digit fits far better than any other


@functools.cache
def _judge() -> tuple[nets.DigitsClassifier, Tensor]:
    net = nets.DigitsClassifier()
    train.load(data.checkpoint("digits_classifier"), net)
    return net.requires_grad_(False), data.digits("train")[0]


def digits(x: Float[Tensor, "B 1 8 8"], label: Label | None = None) -> Verdict:
    """A sample of digits, judged by `metrics` against the 1,437 training digits.

    x as a sampler returns it, pixels beyond ±1.2 cut; `label` what was asked for (without one, the
    accuracy is NaN). All depend on the size: compare samples of 360, as many as `floor` has.
    Raises ValueError where x holds what is not finite.
    """
    net, real = _judge()
    x = x.detach().to(real).clamp(-LIMIT, LIMIT)
    label = label if label is None else label.to(real.device)
    return Verdict(
        math.nan if label is None else float(metrics.accuracy(net, x, label)),
        float(metrics.frechet(x, real, net.features)),
        float(metrics.recall(x, real)),
        float(metrics.recall(real, x)),
        float(metrics.memorised(x, real)),
    )


@functools.cache
def floor() -> Verdict:
    """The verdict on the 360 test digits: what a perfect sampler can hope for."""
    return digits(*data.digits("test"))


def table(rows: Mapping[str, Verdict | Sequence[Verdict]]) -> str:
    """One line a row, mean ± standard error over its runs, and the floor below."""
    names = "accuracy", "Fréchet", "recall", "precision", "memorised"
    width = max(len(name) for name in (*rows, "test digits"))
    lines = [" " * width + "".join(f"{name:>16s}" for name in names)]
    for name, runs in {**rows, "test digits": floor()}.items():
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
