"""Attention: each token's answer is a mean of values, weighted by how its query meets the keys."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from minigen.shapes import check_count

Heads = Float[Tensor, "B heads N d"]
Keys = Float[Tensor, "B heads M d"]
Values = Float[Tensor, "B heads M e"]
Answers = Float[Tensor, "B heads N e"]
Mix = Callable[[Heads, Keys, Values], Answers]  # as `attention`


def attention(q: Heads, k: Keys, v: Values, *, mask: Bool[Tensor, "..."] | None = None) -> Answers:
    """softmax(q kᵀ / √d) v, a mean of the values for each query, in torch's fused kernel.

    q (B, heads, N, d), k (B, heads, M, d), v (B, heads, M, e). mask (N, M) or (B, heads, N, M) is
    True where a query may attend to a key; one that may attend to nothing gets 0. Raises TypeError
    for a mask that is not Boolean. [Vaswani et al. 2017, eq. 1]
    """
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"a mask is Boolean, True where a query may attend, got {mask.dtype}")
    if all(forward_ad.unpack_dual(x).tangent is None for x in (q, k, v)):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward-mode derivative
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def linear_attention(q: Heads, k: Keys, v: Values) -> Answers:
    """Σⱼ φ(qᵢ)·φ(kⱼ) vⱼ / Σⱼ φ(qᵢ)·φ(kⱼ) with φ = relu: O(N d²) where softmax takes O(N² d).

    The weights are a matrix of rank d at most. A query that meets no key (its denominator is 0, one
    in 2^d at random) gets 0, with a finite gradient. [Katharopoulos et al. 2020, eq. 5; relu,
    Cai et al. 2023]
    """
    q, k = F.relu(q), F.relu(k)
    above, below = q @ (k.mT @ v), q @ k.sum(2)[..., None]
    return above / torch.where(below == 0, 1.0, below)


class Project(nn.Module):
    """Tokens as queries, keys and values, or some of them: (B, N, width) -> (B, heads, N, d) each.

    With `qk_norm`, queries and keys are scaled to ‖q‖ = ‖k‖ = √d at birth, so that no logit
    exceeds √d. [Henry et al. 2020; as in Esser et al. 2024, section 5.3.2]
    """

    def __init__(self, width: int, heads: int, parts: str, qk_norm: bool):
        super().__init__()
        self.heads, self.parts = heads, parts
        self.linear = nn.Linear(width, len(parts) * width)
        d = width // heads
        norms = {p: nn.RMSNorm(d, eps=1e-6) for p in parts if qk_norm and p != "v"}
        self.norms = nn.ModuleDict(norms)

    def forward(self, h: Float[Tensor, "B N E"]) -> list[Heads]:
        each = self.linear(h).chunk(len(self.parts), dim=2)
        each = [x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in each]
        return [self._normed(p, x) for p, x in zip(self.parts, each, strict=True)]

    def _normed(self, part: str, x: Heads) -> Heads:
        """A query or key scaled; in the dtype of x, which under autocast is not the weight's."""
        if part not in self.norms:
            return x
        norm = self.norms[part]
        return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def joined(x: Heads) -> Float[Tensor, "B N E"]:
    """The heads' answers side by side again: (B, heads, N, d) -> (B, N, heads·d)."""
    return x.transpose(1, 2).flatten(2)


def check_heads(width: int, heads: int) -> None:
    """Raises ValueError unless the heads share the width equally."""
    check_count(width, "width")
    check_count(heads, "heads")
    if width % heads:
        raise ValueError(f"{heads} heads cannot share a width of {width}: heads must divide it")
