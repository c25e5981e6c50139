"""Transformers that listen to words: the caption's tokens beside the image's, or asked by them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minigen.shapes import check_count, outside, readable

from .attention import Mix, Project, attention, joined
from .dit import Block, Rows, Tokenised, Tokens, perceptron, plain_norm, steered, zeroed

Words = Float[Tensor, "B L E"]  # a caption's tokens


class Captioned(Tokenised):
    """What both share: a caption of token ids as tokens, in order.

    The label is (B, L), L ≤ length, ids below `words`; shorter captions are filled up with the null
    token `words`, of which the null caption, None, is made throughout. Raises ValueError for an id
    out of range or a caption that is too long.
    """

    def __init__(self, shape, words, length, patch, width, depth, heads, embedding, out):
        check_count(words, "words")
        check_count(length, "length")
        super().__init__(shape, patch, width, depth, heads, None, embedding, out)
        self.words, self.length = words, length
        self.dictionary = nn.Embedding(words + 1, width)
        self.order = nn.Parameter(0.02 * torch.randn(length, width))

    def forward(self, xt, t, label: Int[Tensor, "B L"] | None = None) -> Tensor:
        """The prediction at xt (B, C, H, W), t () or (B,), and a caption for each sample."""
        rows = self.time_rows(xt, t)
        return self.body(xt, rows, self.caption(label, len(xt)))

    def caption(self, label: Int[Tensor, "B L"] | None, n: int) -> Float[Tensor, "n M E"]:
        """The caption's tokens, (n, length, width)."""
        full = torch.full((n, self.length), self.words, device=self.order.device)
        if label is not None:
            self._check_caption(label, n)
            full[:, : label.shape[1]] = label
        return self.dictionary(full) + self.order

    def _check_caption(self, label, n: int) -> None:
        whole = isinstance(label, Tensor) and label.dtype in (torch.int64, torch.int32)
        if not whole or label.ndim != 2 or len(label) != n:
            got = (
                f"{label.dtype} {tuple(label.shape)}" if isinstance(label, Tensor) else repr(label)
            )
            raise ValueError(
                f"a caption is an int64 tensor of token ids, ({n}, length) here, got {got}"
            )
        if label.shape[1] > self.length:
            raise ValueError(
                f"the caption has {label.shape[1]} tokens, this net reads {self.length} at most"
            )
        if readable(label) and label.numel():
            wrong = outside(label, self.words + 1)
            if wrong is not None:
                raise ValueError(
                    f"token {wrong} is out of range for a net of {self.words} "
                    f"words, 0 … {self.words - 1} ({self.words} is the null token)"
                )


class JointBlock(nn.Module):
    """Two streams with weights of their own that attend to the tokens of both, steered as `Block`.

    The last one has no use for the caption's answers: there it only offers keys and values.
    [Esser et al. 2024, figure 2b]
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, mix: Mix, last: bool):
        super().__init__()
        self.image, self.mix, self.last = Block(width, heads, qk_norm, mix), mix, last
        if last:
            self.norm, self.steer = plain_norm(width), zeroed(width, 2 * width)
            self.project = Project(width, heads, "kv", qk_norm)
        else:
            self.text = Block(width, heads, qk_norm, mix)

    def forward(self, h: Tokens, c: Words, rows: Rows) -> tuple[Tokens, Words]:
        if self.last:
            shift, scale = self.steer(rows)[:, None].chunk(2, dim=2)
            k, v = self.project(steered(self.norm, c, shift, scale))
            (q, own_k, own_v), image = self.image.offered(h, rows)
            mixed = self.mix(q, torch.cat([own_k, k], 2), torch.cat([own_v, v], 2))
            return self.image.answered(h, joined(mixed), image), c
        offers, gates = zip(*(self.image.offered(h, rows), self.text.offered(c, rows)), strict=True)
        mixed = joined(self.mix(*(torch.cat(pair, 2) for pair in zip(*offers, strict=True))))
        mine, yours = mixed.split([h.shape[1], c.shape[1]], dim=1)
        return self.image.answered(h, mine, gates[0]), self.text.answered(c, yours, gates[1])


class MMDiT(Captioned):
    """A transformer of two streams, image and caption, with joint attention: net(xt, t, label).

    xt (B, C, H, W) -> (B, out·C, H, W), zero at birth; label (B, L) token ids below `words`, at
    most `length`; None is the null caption. The order of the words matters. Raises ValueError as
    `DiT`, and for a caption that does not fit. [Esser et al. 2024, section 4]
    """

    def __init__(
        self, shape, words, length, patch=2, width=128, depth=4, heads=4, *,
        qk_norm=True, mix=attention, embedding=None, out=1,
    ):  # fmt: skip
        super().__init__(shape, words, length, patch, width, depth, heads, embedding, out)
        self.blocks = nn.ModuleList(
            JointBlock(width, heads, qk_norm, mix, i == depth - 1) for i in range(depth)
        )

    def body(self, xt, rows: Rows, c: Words) -> Float[Tensor, "B C2 H W"]:
        rows, h = F.silu(rows), self.tokens(xt)
        for block in self.blocks:
            h, c = block(h, c, rows)
        return self.image(h, rows)


class CrossBlock(Block):
    """`Block` with a question to the caption between the two: queries of the image, its keys.

    The answer's last layer is 0 at birth, so this block too is born as the identity.
    [Chen et al. 2024 (PixArt-α), section 2.2]
    """

    def __init__(self, width: int, heads: int, qk_norm: bool, mix: Mix):
        super().__init__(width, heads, qk_norm, mix)
        self.ask = Project(width, heads, "q", qk_norm)
        self.offer = Project(width, heads, "kv", qk_norm)
        self.norm3, self.heard = nn.LayerNorm(width), zeroed(width, width)

    def forward(self, h: Tokens, c: Words, rows: Rows) -> Tokens:
        (q, k, v), steer = self.offered(h, rows)
        h = self.attended(h, joined(self.mix(q, k, v)), steer)
        (q,), (k, v) = self.ask(self.norm3(h)), self.offer(c)
        h = h + self.heard(joined(self.mix(q, k, v)))
        return self.thought(h, steer)


class CrossDiT(Captioned):
    """`DiT` whose blocks ask the caption by cross-attention: net(xt, t, label), as `MMDiT`.

    The caption's tokens pass one perceptron and are the same for every block.
    [Chen et al. 2024 (PixArt-α), section 2.2]
    """

    def __init__(
        self, shape, words, length, patch=2, width=128, depth=4, heads=4, *,
        qk_norm=True, mix=attention, embedding=None, out=1,
    ):  # fmt: skip
        super().__init__(shape, words, length, patch, width, depth, heads, embedding, out)
        self.read = nn.Sequential(nn.LayerNorm(width), perceptron(width))
        self.blocks = nn.ModuleList(CrossBlock(width, heads, qk_norm, mix) for _ in range(depth))

    def body(self, xt, rows: Rows, c: Words) -> Float[Tensor, "B C2 H W"]:
        rows, h, c = F.silu(rows), self.tokens(xt), c + self.read(c)
        for block in self.blocks:
            h = block(h, c, rows)
        return self.image(h, rows)
