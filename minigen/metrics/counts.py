"""What can be counted: labels that a classifier reads, and modes that are hit."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from minigen.oracle import GaussianMixture
from minigen.shapes import Label, check_alike, check_batch, check_finite

from .samples import Scalar, X, in_float


@torch.no_grad()
def accuracy(classifier: Callable[[X], Float[Tensor, "B K"]], x: X, label: Label) -> Scalar:
    """The share of x in which the classifier's largest logit is the label's."""
    logits = classifier(x)
    check_batch(logits, "the logits")
    found = logits.argmax(dim=-1)
    check_alike(found, label, "predictions and labels")
    return in_float(found == label, x)[0].mean()


class Coverage(NamedTuple):
    """How many modes were hit, and the χ² of their weights: 0-d tensors."""

    hit: Tensor
    chi2: Tensor


def mode_coverage(x: X, mixture: GaussianMixture, *, least: float = 0.1) -> Coverage:
    """How many of a mixture's K modes x reaches, and Pearson's χ² of the modes' weights.

    χ² = Σ (n_k − n w_k)²/(n w_k), each of the n samples counted with its most probable component.
    A mode is hit where at least a share `least` of the w_k n samples expected lies within 3
    standard deviations, ‖(x − m_k)/s_k‖ ≤ 3: so no mode is missing, but there need be no modes
    (a circle through all of them hits all). Samples of a mixture of modes well apart give
    χ² = K − 1 on average, with standard deviation √(2 (K − 1)).
    """
    check_batch(x, "x")
    points, k = check_finite(x)[:, None].flatten(1).to(mixture.means), len(mixture.weights)
    if (D := points.shape[1]) != mixture.means.shape[1]:
        raise ValueError(f"x has {D} coordinates a sample, the mixture {mixture.means.shape[1]}")
    owner = mixture.posterior(points).argmax(1)
    near = ((points - mixture.means[owner]) / mixture.stds[owner]).norm(dim=1) <= 3
    expected = len(points) * mixture.weights
    count, inside = (torch.bincount(o, minlength=k) for o in (owner, owner[near]))
    chi2 = ((count - expected).square() / expected).sum()
    return Coverage((inside >= least * expected).sum(), chi2)
