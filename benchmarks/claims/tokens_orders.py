"""Lecture 15: the same tokens in three orders: row by row, the surest first, scale by scale?

The 85 tokens of `letters_scales` (1 + 4 + 16 + 64), class-conditional networks of equal width (64)
and depth (2), 40 CPU-seconds of Adam each on batches of 16, one label in ten dropped, averaged
weights, three seeds of weights, batches and drawing; 520 letters each, guided by scale 2. One
masked network draws both its rows, in as many steps. Bits: what the tokens of the test letters cost
given the letter, without guidance; of the masked network a bound. Calls: each for two networks.
Seconds: of one core for a letter, all 520 drawn together.

Floor of the codes: the test letters, encoded and decoded. Dummies, of training letters of the
class: every token from a letter of its own, and every scale from a letter of its own.
"""

import math
import time

import torch

from benchmarks.claims import _seconds
from data.token_recipes import Tokens, flat, unknown
from minigen import data, guidance, judge, tokens, train

SEEDS, SECONDS, STEPS, SCALE, N = 3, 40.0, 8, 2.0, 520
SPACE, SCALES = Tokens(), (1, 2, 4, 8)
LETTERS = SPACE.ids("train")
SIZE = {"width": 64, "depth": 2, "classes": 26}
asked = torch.arange(N) % 26


def trained(kind, length, loss, seed):
    """The averaged weights of a network after so many CPU-seconds."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = kind(SPACE.codes, length, **SIZE)
    ema, batches = train.Ema(net, 0.99), data.batches(*LETTERS, size=16, generator=g)

    def nats(_):
        ids, label = next(batches)
        label = guidance.drop_label(label, 0.1, net.classes, generator=g)
        return loss(tokens.given(net, label), ids, g) / ids.shape[1]

    steps = _seconds.fit(nats, net, SECONDS, 3e-3, warmup=20, last=0.05, ema=ema, clip=1.0)
    ema.copy_to(net)
    return net.requires_grad_(False), steps


def exact(model, ids, generator):
    """−log p of the tokens, where one call tells it."""
    return tokens.nll(model, ids)


def bound(model, ids, generator):
    return tokens.masked_loss(model, ids, generator=generator)


@torch.no_grad()
def bits(net, loss, seed):
    """Bits for the tokens of a test letter."""
    ids, label = SPACE.ids("test")
    g = torch.Generator().manual_seed(seed)
    rounds = 8 if loss is bound else 1
    runs = [loss(tokens.given(net, label), ids, g) for _ in range(rounds)]
    return float(torch.stack(runs).mean()) / math.log(2)


def guided(net):
    return tokens.guided(tokens.given(net, asked), net, SCALE)


def row_by_row(net, g):
    model = tokens.guided(net.cached(asked), net.cached(), SCALE)
    *_, ids = tokens.autoregress(model, unknown(net, asked), generator=g)
    return ids


def by(rule):
    def draw(net, g):
        blank = unknown(net, asked)
        *_, ids = tokens.maskgit(guided(net), blank, STEPS, by=rule, generator=g)
        return ids

    return draw


def by_scale(net, g):
    *_, ids = tokens.next_scale(guided(net), SPACE.quantizer, N, generator=g)
    return flat(ids)


KINDS = [
    (tokens.CausalTransformer, 85, exact, {"row by row": (row_by_row, 85)}),
    (
        tokens.MaskedTransformer,
        85,
        bound,
        {
            "masked, the surest first": (by(tokens.confidence), STEPS),
            "masked, at random": (by(tokens.at_random), STEPS),
        },
    ),
    (tokens.ScaleTransformer, SCALES, exact, {"scale by scale": (by_scale, 4)}),
]


def dummies():
    """Tokens of training letters of the class, each or each scale from another letter."""
    ids, label = LETTERS
    places = torch.arange(ids.shape[1])
    scale = torch.repeat_interleave(torch.arange(4), torch.tensor([s * s for s in SCALES]))
    for name, block in (("dummy: each token", places), ("dummy: each scale", scale)):
        runs = []
        for seed in range(SEEDS):
            g = torch.Generator().manual_seed(seed)
            mixed = torch.empty(N, ids.shape[1], dtype=torch.long)
            for y in range(26):
                rows, where = (label == y).nonzero().flatten(), asked == y
                size = int(where.sum()), int(block.max()) + 1
                pick = torch.randint(len(rows), size, generator=g)
                mixed[where] = ids[rows[pick[:, block]], places]
            runs.append(judge.letters(SPACE.decode(mixed), asked))
        yield name, runs


def main():
    verdicts, costs = {}, {}
    for kind, length, loss, samplers in KINDS:
        for seed in range(SEEDS):
            net, steps = trained(kind, length, loss, seed)
            spent = bits(net, loss, seed)
            for name, (sample, calls) in samplers.items():
                start = time.process_time()
                ids = sample(net, torch.Generator().manual_seed(100 + seed))
                seconds = (time.process_time() - start) / N
                verdicts.setdefault(name, []).append(judge.letters(SPACE.decode(ids), asked))
                costs.setdefault(name, []).append((calls, seconds, spent, steps))
    x, label = data.letters("test")
    verdicts["the codes' floor"] = judge.letters(SPACE.decode(SPACE.ids("test")[0]), label)
    print(judge.table(verdicts | dict(dummies()), judge.letters))
    heads = {"calls": 6, "s a letter": 12, "bits a test letter": 21, "training steps": 17}
    print(f"\n{'':26s}" + "".join(f"{name:>{width}s}" for name, width in heads.items()))
    for name, runs in costs.items():
        calls, seconds, spent, steps = torch.tensor(runs, dtype=torch.double).T
        mean, error = float(spent.mean()), float(spent.std()) / SEEDS**0.5
        print(f"{name:26s}{int(calls[0]):6d}{float(seconds.median()):12.4f}", end="")
        print(f"{mean:14.1f} ± {error:.1f}{int(steps.min()):11d} to {int(steps.max())}")


if __name__ == "__main__":
    main()
