"""The check of lecture 13's first program, the exact upsampler of a mixture."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import Wrong, call, compare, copies, described, draws

B, D, K, M = 5, 4, 3, 2  # images, their values, components, values of the small image
PARTS = ("the tensor of weights", "the tensor of means", "the tensor of covariances")
Law = tuple[Tensor, Tensor, Tensor]  # weights, means, covariances


def _gain(cov, A) -> Tensor:
    """Σ Aᵀ (A Σ Aᵀ)⁻¹, (K, D, M)."""
    return cov @ A.T @ torch.linalg.inv(A @ cov @ A.T)


def _log_normal(cov, miss, *, det=0.5, half=0.5) -> Tensor:
    """log N(miss; 0, cov) of misses (B, K, M), (B, K)."""
    distance = (miss[..., None, :] @ torch.linalg.inv(cov) @ miss[..., None]).flatten(1)
    return -half * distance - det * torch.logdet(cov) - 0.5 * miss.shape[-1] * math.log(math.tau)


def _evidence(A, means, covs, y, **parts) -> Tensor:
    return _log_normal(A @ covs @ A.T, y[:, None] - means @ A.T, **parts)


def _upsampled(weights, means, covs, A, y, *, prior=torch.log, evidence=_evidence,
               norm=lambda log: torch.softmax(log, 1), gain=_gain, of=lambda covs: covs,
               miss=lambda y, seen: y - seen, start=lambda means, A: means,
               left=lambda cov, G, A: cov - G @ A @ cov) -> Law:  # fmt: skip
    """The right law, or one with the slips named: each replaces a part of it."""
    covs = of(covs)
    new = norm(prior(weights) + evidence(A, means, covs, y))
    G, miss = gain(covs, A), miss(y[:, None], means @ A.T)
    return new, start(means, A) + (G @ miss[..., None]).squeeze(-1), left(covs, G, A)


def _changed(part: int, change: Callable) -> Callable:
    """The right law, but for one of its three parts: change(law, weights, means, covs, A, y)."""

    def slip(*given) -> list[Tensor]:
        law = [*_upsampled(*given)]
        law[part] = change(law, *given)
        return law

    return slip


def _in_data_space(enlarge: Callable) -> Callable:
    """Evidence as the density of an enlarged y among the images."""
    return lambda A, means, covs, y: _log_normal(covs, y[:, None] @ enlarge(A).T - means)


def _at_the_new_means(A, means, covs, y) -> Tensor:
    """The components' densities at their own new means."""
    miss = (y[:, None] - means @ A.T)[..., None]
    return _log_normal(covs, (_gain(covs, A) @ miss).squeeze(-1))


WEIGHT_SLIPS = {
    "they are the prior's: how well y fits a component is its evidence, w_k N(y; A m_k, A Σ_k Aᵀ)":
        partial(_upsampled, evidence=lambda A, m, c, y: y.new_zeros(len(y), len(m))),
    "the prior weights w_k are left out": partial(_upsampled, prior=torch.zeros_like),
    "the evidence is a density: its factor |A Σ_k Aᵀ|^(−1/2) is each component's own":
        partial(_upsampled, evidence=partial(_evidence, det=0.0)),
    "the determinant is under a root: −½ log |A Σ_k Aᵀ|, yours lacks the ½":
        partial(_upsampled, evidence=partial(_evidence, det=1.0)),
    "the sign of the log-determinant: a wide component has the lower density, −½ log |A Σ_k Aᵀ|":
        partial(_upsampled, evidence=partial(_evidence, det=-0.5)),
    "the squared distance in a Gaussian's exponent has a factor ½":
        partial(_upsampled, evidence=partial(_evidence, half=1.0)),
    "the distance y − A m_k counts in units of A Σ_k Aᵀ; you took it as if that were I":
        partial(_upsampled, evidence=lambda A, m, c, y: -0.5 * (
            (y[:, None] - m @ A.T) ** 2).sum(2)),
    "the sign of the exponent: components far from y are the likely ones in yours":
        partial(_upsampled, evidence=partial(_evidence, half=-0.5)),
    "that is w_k N(y; A m_k, A Σ_k Aᵀ) itself: the weights of one y sum to 1":
        partial(_upsampled, norm=torch.exp),
    "you summed to 1 over the samples: the components of one y do":
        partial(_upsampled, norm=lambda log: torch.softmax(log, 0)),
    "those are logarithms": partial(_upsampled, norm=lambda log: torch.log_softmax(log, 1)),
    "yours are hard, all for the likeliest component: their ratio is that of the evidences":
        partial(_upsampled, norm=lambda log: torch.nn.functional.one_hot(
            log.argmax(1), log.shape[1]).double()),
    "you compared images, A⁺y with m_k: what is seen is y, whose law is N(A m_k, A Σ_k Aᵀ)":
        partial(_upsampled, evidence=_in_data_space(torch.linalg.pinv)),
    "you compared images, Aᵀy with m_k: what is seen is y, whose law is N(A m_k, A Σ_k Aᵀ)":
        partial(_upsampled, evidence=_in_data_space(lambda A: A.T)),
    "you took the density of the image at the new mean: its distance is right, but the "
    "determinant is that of Σ_k; here it is that of A Σ_k Aᵀ":
        partial(_upsampled, evidence=_at_the_new_means),
    "each y has its own weights, you used the first one's for all":
        _changed(0, lambda law, *given: law[0][:1].expand_as(law[0])),
    "you averaged them over the samples: each y has its own, (B, K)":
        _changed(0, lambda law, *given: law[0].mean(0)),
}  # fmt: skip
GAIN_SLIPS = {
    "the gain lacks (A Σ_k Aᵀ)⁻¹: it is Σ_k Aᵀ (A Σ_k Aᵀ)⁻¹":
        partial(_upsampled, gain=lambda cov, A: cov @ A.T),
    "the gain has A Σ_k Aᵀ where its inverse belongs":
        partial(_upsampled, gain=lambda cov, A: cov @ A.T @ A @ cov @ A.T),
    "the gain is the pseudo-inverse of A, Aᵀ (A Aᵀ)⁻¹: A x = y then, but what y does not show "
    "follows by the component's own covariance, Σ_k Aᵀ (A Σ_k Aᵀ)⁻¹":
        partial(_upsampled, gain=lambda cov, A: torch.linalg.pinv(A).expand(len(cov), -1, -1)),
    "the gain is Aᵀ: it is Σ_k Aᵀ (A Σ_k Aᵀ)⁻¹":
        partial(_upsampled, gain=lambda cov, A: A.T.expand(len(cov), -1, -1)),
    "the gain lacks Σ_k: it is Σ_k Aᵀ (A Σ_k Aᵀ)⁻¹":
        partial(_upsampled, gain=lambda cov, A: A.T @ torch.linalg.inv(A @ cov @ A.T)),
    "you inverted A Σ_k Aᵀ number by number: a matrix has one inverse":
        partial(_upsampled, gain=lambda cov, A: cov @ A.T @ (1 / (A @ cov @ A.T))),
    "you added I to A Σ_k Aᵀ, as if y had noise of variance 1: y = A x exactly":
        partial(_upsampled, gain=lambda cov, A: cov @ A.T @ torch.linalg.inv(
            A @ cov @ A.T + torch.eye(len(A)).to(A))),
    "you used the first component's gain for all: each has its own Σ_k":
        partial(_upsampled, gain=lambda cov, A: _gain(cov[:1].expand_as(cov), A)),
    "you used one gain for all, of the mean covariance: each component has its own Σ_k":
        partial(_upsampled, gain=lambda cov, A: _gain(cov.mean(0).expand_as(cov), A)),
    "you left the correlations out, taking the diagonal of Σ_k: y moves what it does not show by "
    "them alone": partial(_upsampled, gain=lambda cov, A: _gain(
        torch.diag_embed(cov.diagonal(dim1=1, dim2=2)), A)),
}  # fmt: skip
MEAN_SLIPS = {
    "they are the prior's: each moves by the gain times y − A m_k": partial(
        _upsampled, miss=lambda y, seen: 0 * (y - seen)
    ),
    "the gain multiplies y − A m_k, yours multiplies y": partial(
        _upsampled, miss=lambda y, seen: y + 0 * seen
    ),
    "the sign: a mean moves towards the observation, by y − A m_k": partial(
        _upsampled, miss=lambda y, seen: seen - y
    ),
    "you left m_k out: that is only by how much it moves": partial(
        _upsampled, start=lambda means, A: 0 * means
    ),
    "you took the mean over the components, E[x | y]: each component's own is asked for": _changed(
        1, lambda law, *given: (law[0][..., None] * law[1]).sum(1)
    ),
    "you multiplied them by the weights: each stands beside its weight": _changed(
        1, lambda law, *given: law[0][..., None] * law[1]
    ),
    "those are A m_k + …: they lie in the space of y, (B, K, M)": _changed(
        1, lambda law, weights, means, covs, A, y: law[1] @ A.T
    ),
}
COV_SLIPS = {
    "they are the prior's: what y tells is known now, Σ_k − G A Σ_k": partial(
        _upsampled, left=lambda cov, G, A: cov
    ),
    "the sign: knowing y takes variance away, Σ_k − G A Σ_k": partial(
        _upsampled, left=lambda cov, G, A: cov + G @ A @ cov
    ),
    "that is I − G A: times Σ_k": partial(
        _upsampled, left=lambda cov, G, A: torch.eye(len(cov[0])).to(cov) - G @ A
    ),
    "that is Σ_k − G A: it lacks Σ_k, G A Σ_k": partial(
        _upsampled, left=lambda cov, G, A: cov - G @ A
    ),
    "that is G A Σ_k, what y tells: the rest is asked for": partial(
        _upsampled, left=lambda cov, G, A: G @ A @ cov
    ),
    "that is Σ_k − G Gᵀ: it lacks A Σ_k Aᵀ between the two": partial(
        _upsampled, left=lambda cov, G, A: cov - G @ G.mT
    ),
    "they are 0: y fixes A x, not x": partial(_upsampled, left=lambda cov, G, A: 0 * cov),
    "those are A Σ_k Aᵀ, of y: x's are asked for": partial(
        _upsampled, left=lambda cov, G, A: A @ cov @ A.T
    ),
    "they do not depend on y, (K, D, D): you gave a copy for each": _changed(
        2, lambda law, weights, means, covs, A, y: law[2].expand(len(y), -1, -1, -1)
    ),
    "you gave the diagonals: what is left is correlated, (K, D, D)": _changed(
        2, lambda law, *given: law[2].diagonal(dim1=1, dim2=2)
    ),
}
UPSAMPLED_SLIPS = {
    "Σ_k is a matrix of variances already; you multiplied it with itself": partial(
        _upsampled, of=lambda covs: covs @ covs
    ),
    **WEIGHT_SLIPS,
    **GAIN_SLIPS,
    **MEAN_SLIPS,
    **COV_SLIPS,
}


def _case() -> tuple[Tensor, ...]:
    """weights, means, covariances, A, y: components that y does not tell apart for certain."""
    root = draws(K, D, D, seed=133, mean=0.0)
    covs = 0.5 * root @ root.mT + torch.diag_embed(0.3 + draws(K, D, seed=134).square())
    means, A, x = draws(K, D, seed=132), draws(M, D, seed=135), draws(B, D, seed=136)
    return torch.softmax(draws(K, seed=131), 0), means, covs, A, x @ A.T


def upsampled(function: Callable) -> None:
    """Checks upsampled(weights, means, covs, A, y) -> the law of x given A x = y, for each y.

    weights (K,), means (K, D), covs (K, D, D), A (M, D), y (B, M) -> (B, K), (B, K, D), (K, D, D).
    Raises NotYet, or Wrong with a diagnosis.
    """
    given = _case()
    answer = call(function, *given)
    if not isinstance(answer, tuple | list) or len(answer) != len(PARTS):
        got = described(answer)
        raise Wrong(f"return all three, `return weights, means, covs`; got {got}")
    for i, (what, right) in enumerate(zip(PARTS, _upsampled(*given), strict=True)):
        slips = {w: lambda s=s, i=i: s(*copies(given))[i] for w, s in UPSAMPLED_SLIPS.items()}
        compare(what, answer[i], right, slips)
    print(f"right: the law of x for {B} small images, {K} components each, of {D} values from {M}")
