"""The diffusion transformer: one stream of image tokens, each block steered by time and label."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minigen.nets import Conditioned
from minigen.shapes import check_count

from .attention import Mix, Project, attention, check_heads, joined
from .tokens import check_patch, patchify, positions, unpatchify

Tokens = Float[Tensor, "B N E"]
Steer = Float[Tensor, "R 1 E"]
Rows = Float[Tensor, "R E"]  # one row for the whole batch (R = 1) or one a sample (R = B)


def zeroed(width: int, out: int) -> nn.Linear:
    """A linear layer that answers 0 at birth."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def steered(norm: nn.LayerNorm, h: Tokens, shift: Steer, scale: Steer) -> Tokens:
    """norm(h) (1 + scale) + shift: the norm's own affine part, as the condition wants it."""
    return torch.addcmul(shift, norm(h), 1 + scale)


def plain_norm(width: int) -> nn.LayerNorm:
    """A layer norm with nothing of its own to learn."""
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def perceptron(width: int) -> nn.Sequential:
    """What each token does by itself: four times as wide inside."""
    return nn.Sequential(
        nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
    )


class Block(nn.Module):
    """Attention, then a perceptron, each normed, steered and gated by the condition (adaLN-zero).

    h ← h + gate₁ attend(norm(h) (1 + scale₁) + shift₁), then the same with a perceptron. The six
    rows are linear in the condition and 0 at birth, so the block is born as the identity.
    [Peebles & Xie 2023, section 3.2]
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, mix: Mix):
        super().__init__()
        self.norm1, self.norm2 = plain_norm(width), plain_norm(width)
        self.steer = zeroed(width, 6 * width)
        self.project, self.out = Project(width, heads, "qkv", qk_norm), nn.Linear(width, width)
        self.mlp, self.mix = perceptron(width), mix

    def offered(self, h: Tokens, rows: Rows) -> tuple[list[Tensor], list[Steer]]:
        """(q, k, v) of the tokens, and the rows that steer what comes after."""
        shift, scale, *rest = self.steer(rows)[:, None].chunk(6, dim=2)
        return self.project(steered(self.norm1, h, shift, scale)), rest

    def attended(self, h: Tokens, mixed: Tokens, steer: list[Steer]) -> Tokens:
        """The tokens once they have heard one another."""
        return h + steer[0] * self.out(mixed)

    def thought(self, h: Tokens, steer: list[Steer]) -> Tokens:
        """The tokens once each has thought by itself."""
        _, shift, scale, gate = steer
        return h + gate * self.mlp(steered(self.norm2, h, shift, scale))

    def answered(self, h: Tokens, mixed: Tokens, steer: list[Steer]) -> Tokens:
        """Both."""
        return self.thought(self.attended(h, mixed, steer), steer)

    def forward(self, h: Tokens, rows: Rows) -> Tokens:
        (q, k, v), steer = self.offered(h, rows)
        return self.answered(h, joined(self.mix(q, k, v)), steer)


class Tokenised(Conditioned):
    """What the transformers share: image -> tokens at their places, `blocks`, tokens -> image."""

    def __init__(self, shape, patch, width, depth, heads, classes, embedding, out):
        check_heads(width, heads)
        check_count(depth, "depth")
        super().__init__(shape, width, classes, embedding, out)
        h, w = check_patch(self.shape, patch)
        self.patch = patch
        self.first = nn.Linear(self.shape[0] * patch**2, width)
        self.register_buffer("places", positions(h, w, width))
        self.norm, self.steer = plain_norm(width), zeroed(width, 2 * width)
        self.last = zeroed(width, self.out_shape[0] * patch**2)

    def tokens(self, xt: Float[Tensor, "B C H W"]) -> Tokens:
        """The image's tokens, each with its place."""
        return self.first(patchify(xt, self.patch)) + self.places

    def image(self, h: Tokens, rows: Rows) -> Float[Tensor, "B C2 H W"]:
        """The prediction that the last tokens stand for."""
        shift, scale = self.steer(rows)[:, None].chunk(2, dim=2)
        return unpatchify(
            self.last(steered(self.norm, h, shift, scale)), self.out_shape, self.patch
        )


class DiT(Tokenised):
    """A diffusion transformer for images: xt (B, C, H, W) -> (B, out·C, H, W), zero at birth.

    The image becomes (H/patch)(W/patch) tokens of `width`; `depth` blocks of attention and a
    perceptron; time and label enter by adaLN-zero. `mix` is the attention kernel, (q, k, v) -> the
    answers: `attention`, `linear_attention`, or your own. Raises ValueError where patch does not
    divide the image, heads not the width, or 4 not the width. [Peebles & Xie 2023; qk_norm as in
    Esser et al. 2024]
    """

    def __init__(
        self, shape, patch=2, width=128, depth=4, heads=4, classes=None, *,
        qk_norm=True, mix=attention, embedding=None, out=1,
    ):  # fmt: skip
        super().__init__(shape, patch, width, depth, heads, classes, embedding, out)
        self.blocks = nn.ModuleList(Block(width, heads, qk_norm, mix) for _ in range(depth))

    def body(self, xt: Float[Tensor, "B C H W"], rows: Rows) -> Float[Tensor, "B C2 H W"]:
        rows, h = F.silu(rows), self.tokens(xt)
        for block in self.blocks:
            h = block(h, rows)
        return self.image(h, rows)
