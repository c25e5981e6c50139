"""How the readers of letters and words were trained, and the network that writes words."""

import time

import torch
from torch.nn import functional as F

from minigen import data, flow, guidance, judge, metrics, nets, paths, targets, train
from minigen.transformer import MMDiT

STEPS = 20


def letters_reader(seed: int):
    """The judge of 32 × 32 capitals, trained on a pool of its own."""
    x, label, _ = data.glyphs(26_000, 32, characters=data.CAPITALS, generator=pool())
    torch.manual_seed(seed)
    net = reader(seed, nets.Reader((1, 32, 32), 26), x, label)
    x, label = data.letters("test")
    accuracy = metrics.accuracy(net, x, label)
    return net, {"test accuracy": str(metrics.share_with_error(accuracy, len(x)))}


def words_reader(seed: int):
    """The judge of words of two capitals, trained on a pool of its own with all pairs in it."""
    first = data.CHARACTERS.index("A")
    x, ids, _ = data.words(26_000, characters=data.CAPITALS, generator=pool())
    torch.manual_seed(seed)
    net = reader(seed, nets.Reader((1, 16, 32), 26, length=2, width=128), x, ids - first)
    fresh = torch.Generator().manual_seed(1)
    x, ids, _ = data.words(2_000, characters=data.CAPITALS, generator=fresh)
    right = (net(x).argmax(2) + first == ids).all(1).float().mean()
    return net, {"both letters right": str(metrics.share_with_error(right, len(x)))}


def pool() -> torch.Generator:
    """The seed of the readers' images: neither that of `data.letters` nor a sampler's."""
    return torch.Generator().manual_seed(2)


def reader(seed: int, net, x, label, steps: int = 1500):
    """As `digits_classifier`: cross-entropy with noise on the images, Adam, cosine rate.

    Then the features are scaled to a mean variance of 1, and the logits' weights by the inverse.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(x, label, size=128, generator=generator)

    def loss():
        x, label = next(batches)
        noisy = x + 0.3 * torch.randn(x.shape, generator=generator)
        return F.cross_entropy(net(noisy).flatten(0, -2), label.flatten())

    for _ in train.fit(loss, net, steps=steps, lr=train.cosine(1e-3, steps), progress=False):
        pass
    net.requires_grad_(False)
    std = net.features(x[:2_600]).var(0).mean().sqrt()
    net.features[-2].weight /= std
    net.features[-2].bias /= std
    net.logits.weight *= std
    return net


def words_mmdit(seed: int):
    """The velocity u(xt, t, caption) of rectified flow: words of two capitals, a fifth held out.

    20,000 words, rendered once, less those of the pairs that are `judge.unseen`.
    """
    words = torch.Generator().manual_seed(3)
    x, ids, _ = data.words(20_000, characters=data.CAPITALS, generator=words)
    seen = ~judge.unseen(ids)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = MMDiT((1, 16, 32), len(data.CHARACTERS), 2, patch=8, width=96, depth=3)
    batches = data.batches(x[seen], ids[seen], size=64, generator=generator)
    ema, steps, cosine = train.Ema(net, 0.998), 2750, train.cosine(2e-3, 4000, warmup=100)
    rate = lambda n: cosine(n) * min(1, (steps - n) / 500)  # the cosine's end made shorter

    def loss():
        x0, caption = next(batches)
        caption = guidance.drop_label(caption, 0.1, net.words, generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        t = flow.uniform_times(len(x0), generator=generator)
        return flow.loss(net, x0, eps, t, caption).mean()

    start = time.process_time()
    for _ in train.fit(loss, net, steps=steps, lr=rate, ema=ema, progress=False):
        pass
    ema.copy_to(net)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    return net, cost | reading(net, seed)


def spelled(net, ids, scale: float, seed: int) -> torch.Tensor:
    """A word for each caption by 20 Euler steps, guided by `scale`."""
    path, generator = paths.Linear(), torch.Generator().manual_seed(1000 + seed)
    told = paths.denoiser(lambda xt, t, _: net(xt, t, ids), path, targets.velocity)
    free = paths.denoiser(lambda xt, t, _: net(xt, t), path, targets.velocity)
    xT = torch.randn(len(ids), *net.shape, generator=generator)
    *_, x = flow.euler(guidance.cfg(told, free, scale), path, xT, flow.grid(STEPS))
    return x


def reading(net, seed: int) -> dict[str, str]:
    """How often the judge reads what was asked: half the pairs seen, and each held out, twice.

    And as dummies, at scale 2, how often it reads the other order, or another's caption.
    """
    capitals = torch.arange(26) + data.CHARACTERS.index("A")
    pairs, found = torch.cartesian_prod(capitals, capitals), {}
    held = judge.unseen(pairs)
    for part, ids in {"seen": pairs[~held][::2], "held out": pairs[held].repeat(2, 1)}.items():
        got = {scale: judge.read(spelled(net, ids, scale, seed)) for scale in (1.0, 2.0, 3.0, 5.0)}
        for scale, letters in got.items():
            found[f"{part}, scale {scale:g}"] = share((letters == ids).all(1))
        for place, right in zip(("first", "second"), (got[2.0] == ids).T, strict=True):
            found[f"{part}, {place} letter"] = share(right)
        two = ids[:, 0] != ids[:, 1]
        found[f"{part}, other order"] = share((got[2.0] == ids.flip(1)).all(1)[two])
        found[f"{part}, another's caption"] = share((got[2.0] == ids.flip(0)).all(1))
    return found


def share(right: torch.Tensor) -> str:
    """The share of what is right, with its binomial error."""
    return str(metrics.share_with_error(right.double().mean(), len(right)))
