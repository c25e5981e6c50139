"""Networks over tokens: (ids, label) -> logits, V where a token is unknown."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from minigen.nets import Rebuildable
from minigen.shapes import Label, check_count, check_label, outside, readable
from minigen.transformer import Block, attention

from .orders import Ids, Logits
from .scales import block_causal


def check_ids(ids: Ids, length: int, values: int) -> None:
    """Raises ValueError unless ids are (B, length), each a token or the mask token."""
    if ids.ndim != 2 or ids.shape[1] != length:
        raise ValueError(f"ids must be (B, {length}), got {tuple(ids.shape)}")
    if readable(ids) and ids.numel():
        wrong = outside(ids, values + 1)
        if wrong is not None:
            raise ValueError(
                f"token {wrong} is out of range for {values} values ({values} is the mask token)"
            )


class _Tokens(Rebuildable):
    """What the transformers share: embeddings, places, blocks steered by the label, logits.

    net(ids, label=None): ids (B, length), V the mask token; `classes=K` adds K labels and the null
    label, which stands in for None. `values` is V.
    """

    def __init__(self, codes: int, length: int, width: int, depth: int, heads: int, classes):
        super().__init__()
        for n, name in ((codes, "codes"), (length, "length"), (depth, "depth")):
            check_count(n, name)
        self.values, self.length, self.classes = codes, length, classes
        self.embed = nn.Embedding(codes + 1, width)
        # as large as the tokens' rows: at 0.02 a place is not told from another for many steps
        self.places = nn.Parameter(torch.randn(length, width))
        self.label = nn.Embedding(1 if classes is None else classes + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, True, self.mix) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, codes)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Who hears whom: here everybody."""
        return attention(q, k, v)

    def rows(self, label: Label | int | None) -> Float[Tensor, "R E"]:
        """The condition: a row for the batch, or one for each sample."""
        if label is None:
            return F.silu(self.label.weight[-1:])
        if self.classes is None:
            raise ValueError("this net was made without classes and takes no label: classes=K")
        check_label(label, self.classes + 1)
        label = torch.as_tensor(label, device=self.label.weight.device)
        return F.silu(self.label(label.reshape(-1)))

    def through(self, h: Tensor, rows: Tensor) -> Logits:
        """The blocks, and the logits they end in."""
        for block in self.blocks:
            h = block(h, rows)
        return self.last(self.norm(h))


class MaskedTransformer(_Tokens):
    """Every token hears every other: net(ids, label) -> logits of all, given the unmasked ones.

    Trained by `masked_loss`; asked in any order. [Chang et al. 2022; Devlin et al. 2019]
    """

    def __init__(self, codes, length, width=128, depth=4, heads=4, *, classes=None):
        super().__init__(codes, length, width, depth, heads, classes)

    def forward(self, ids: Ids, label: Label | int | None = None) -> Logits:
        check_ids(ids, self.length, self.values)
        return self.through(self.embed(ids) + self.places, self.rows(label))


class CausalTransformer(_Tokens):
    """Each token hears those before it: logits i depend on ids 0 … i − 1 only, all in one call.

    `cached(label)` is the same model for `autoregress`, with what it has computed kept.
    [Vaswani et al. 2017; Chen et al. 2020 (iGPT)]
    """

    causal = True

    def __init__(self, codes, length, width=128, depth=4, heads=4, *, classes=None):
        super().__init__(codes, length, width, depth, heads, classes)
        self.register_buffer("mask", block_causal([1] * length))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Who hears whom: those before, and oneself. New queries stand at the end of the keys."""
        n, m = q.shape[2], k.shape[2]
        return attention(q, k, v, mask=self.mask[m - n : m, :m])

    def inputs(self, ids: Ids) -> Tensor:
        """Each place is given the token before it; the first the mask token."""
        first = torch.full_like(ids[:, :1], self.values)
        return self.embed(torch.cat([first, ids[:, :-1]], 1)) + self.places

    def forward(self, ids: Ids, label: Label | int | None = None) -> Logits:
        check_ids(ids, self.length, self.values)
        return self.through(self.inputs(ids), self.rows(label))

    def cached(self, label: Label | int | None = None) -> "Cached":
        """The model with a label and a key–value cache, for `autoregress` in the natural order."""
        return Cached(self, label)


class Cached:
    """A causal model that computes each place once, as its tokens become known from the left.

    Where a token that it has used is another now, it starts anew.
    """

    causal = False  # logits of places that are not yet reached are 0

    def __init__(self, net: CausalTransformer, label):
        self.net, self.label, self.values, self.used = net, label, net.values, None

    def __call__(self, ids: Ids) -> Logits:
        """The logits of every place that all known tokens precede."""
        net = self.net
        check_ids(ids, net.length, net.values)
        if self.used is None or not torch.equal(ids[:, : self.used.shape[1]], self.used):
            self.kept, self.done = [None] * len(net.blocks), 0
            self.logits = net.places.new_zeros(*ids.shape, net.values)
        known = int((ids != net.values).all(0).long().cumprod(0).sum())
        reach = min(known + 1, net.length)
        if reach > self.done:
            new = self._through(net.inputs(ids)[:, self.done : reach])
            self.logits = self.logits.clone()
            self.logits[:, self.done : reach] = new
            self.done, self.used = reach, ids[:, : reach - 1].clone()
        return self.logits

    def _through(self, h: Tensor) -> Logits:
        """The new places' logits."""
        rows = self.net.rows(self.label)
        for i, block in enumerate(self.net.blocks):
            h = self._block(i, block, h, rows)
        return self.net.last(self.net.norm(h))

    def _block(self, i: int, block: Block, h: Tensor, rows: Tensor) -> Tensor:
        (q, *new), steer = block.offered(h, rows)
        old = self.kept[i]
        self.kept[i] = new if old is None else [torch.cat(p, 2) for p in zip(old, new, strict=True)]
        mixed = self.net.mix(q, *self.kept[i])
        return block.answered(h, mixed.transpose(1, 2).flatten(2), steer)


class ScaleTransformer(_Tokens):
    """Every token hears its own scale and the coarser ones: logits of a scale from those before it.

    ids are those of all scales end to end, as `vq.MultiScale` numbers them. Each place is given the
    token of the scale before that lies above it, so no token sees its own scale's values: in this
    sense it is `causal`, and one call has all terms of the likelihood.
    [Tian et al. 2024, section 3.2]
    """

    causal = True

    def __init__(self, codes, scales, width=128, depth=4, heads=4, *, classes=None):
        self.scales = [(s, s) if isinstance(s, int) else tuple(s) for s in scales]
        lengths = [h * w for h, w in self.scales]
        super().__init__(codes, sum(lengths), width, depth, heads, classes)
        self.register_buffer("mask", block_causal(lengths))
        self.register_buffer("above", self._above(lengths))

    def _above(self, lengths: list[int]) -> Int[Tensor, " N"]:
        """For each place the one above it in the scale before; −1 at the first scale."""
        places, start = [torch.full((lengths[0],), -1)], 0
        for (h, w), (h2, w2) in zip(self.scales, self.scales[1:], strict=False):
            coarse = torch.arange(start, start + h * w, dtype=torch.float64).reshape(1, 1, h, w)
            places.append(F.interpolate(coarse, (h2, w2), mode="nearest").flatten().long())
            start += h * w
        return torch.cat(places)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Who hears whom: the own scale, which holds the coarser one's tokens, and those before."""
        return attention(q, k, v, mask=self.mask)

    def forward(self, ids: Ids, label: Label | int | None = None) -> Logits:
        check_ids(ids, self.length, self.values)
        given = torch.where(self.above < 0, self.values, ids[:, self.above.clamp(min=0)])
        return self.through(self.embed(given) + self.places, self.rows(label))


class PixelCNN(Rebuildable):
    """Convolutions that see only what is above and to the left: causal logits of an image's tokens.

    ids (B, h·w), row by row. The first convolution leaves out the pixel itself (mask A), the others
    do not (mask B). Stacked, they never see a wedge to the right above: the blind spot.
    [van den Oord et al. 2016]
    """

    causal = True

    def __init__(self, codes: int, shape: Sequence[int], width=64, depth=4, *, kernel: int = 5):
        super().__init__()
        for n, name in ((codes, "codes"), (width, "width"), (depth, "depth")):
            check_count(n, name)
        if kernel < 3 or kernel % 2 == 0:
            raise ValueError(f"kernel must be 3, 5, 7, …, got {kernel}")
        self.values, self.shape = codes, tuple(shape)
        self.embed = nn.Embedding(codes + 1, width)
        layers = [MaskedConv(width, kernel, itself=i > 0) for i in range(depth)]
        self.layers, self.last = nn.ModuleList(layers), nn.Linear(width, codes)

    def forward(self, ids: Ids) -> Logits:
        check_ids(ids, self.shape[0] * self.shape[1], self.values)
        x = self.embed(ids).unflatten(1, self.shape).movedim(-1, 1)
        x = F.relu(self.layers[0](x))  # no skip: the pixel itself must not pass
        for layer in self.layers[1:]:
            x = x + F.relu(layer(x))
        return self.last(x.flatten(2).mT)


class MaskedConv(nn.Conv2d):
    """A convolution blind to what comes later in the rows, and, unless `itself`, to its pixel."""

    def __init__(self, width: int, kernel: int, itself: bool):
        super().__init__(width, width, kernel, padding=kernel // 2)
        mask, middle = torch.ones(kernel * kernel), kernel * kernel // 2
        mask[middle + itself :] = 0
        self.register_buffer("seen", mask.reshape(kernel, kernel))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return self._conv_forward(x, self.weight * self.seen, self.bias)
