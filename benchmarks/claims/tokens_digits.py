"""Lecture 15: what is the likelihood of digits as 64 tokens of 17 grey levels?

The 360 test digits and the scale of `sde_likelihood`: nats are log P(levels) + 64 log 8, bits per
pixel −log₂ P(levels)/64; a network that is given the digit has log 10 taken off, so every row is a
valid bound. Autoregression has P exactly; of a masked network's bound 16 draws a digit are taken.

Transformers of width 64 and depth 2, a PixelCNN of width 48 and depth 4 (it takes no label; so one
transformer without); Adam, batches of 16, 20 CPU-seconds each, three seeds of split, weights and
batches. 200 of the 1,437 training digits are held out to choose the moment, at each tenth of the
time, whose averaged weights are kept. ±: the standard error over digits, and over trainings.
"Fitted": 360 of the digits that were fitted. Dummies: pixels that know nothing of each other, by
counts, and 17 levels alike. Lecture 3's bounds: of `digits_eps`, given the digit.
"""

import math
import time

import torch

from benchmarks.claims.sde_encoding import LABEL, TEST, TRAIN, TRAIN_Y, bundled, chain
from benchmarks.claims.sde_likelihood import LEVELS, by_class, line, say
from minigen import data, ddpm, paths, targets, tokens, train

SEEDS, SECONDS, HELD, DRAWS = 3, 20.0, 200, 16
levels = lambda x: ((x.flatten(1) + 1) * 8).round().long()
IDS, ASKED = levels(TRAIN), levels(TEST)
CLASSES = {"classes": 10}
KINDS = {
    "causal transformer": (lambda: tokens.CausalTransformer(17, 64, 64, 2, **CLASSES), True),
    "  without the label": (lambda: tokens.CausalTransformer(17, 64, 64, 2), False),
    "PixelCNN, without": (lambda: tokens.PixelCNN(17, (8, 8), 48, 4), False),
    "masked transformer": (lambda: tokens.MaskedTransformer(17, 64, 64, 2, **CLASSES), True),
}


def cost(net, ids, label, generator, draws=1):
    """−log P(levels) of each digit, in nats, or the masked bound's estimate."""
    model = tokens.given(net, label) if getattr(net, "classes", None) else net
    if getattr(net, "causal", False):
        return tokens.nll(model, ids)
    runs = [tokens.masked_loss(model, ids, generator=generator) for _ in range(draws)]
    return torch.stack(runs).mean(0)


def trained(make, seed):
    """A network with the averaged weights that were best on the digits held out; and the fitted."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    order, net = torch.randperm(len(IDS), generator=g), make()
    held, fitted = order[:HELD], order[HELD:]
    batches = data.batches(IDS[fitted], TRAIN_Y[fitted], size=16, generator=g)
    ema, start, aside = train.Ema(net, 0.99), time.process_time(), 0.0
    spent = lambda: (time.process_time() - start - aside) / SECONDS
    rate = lambda n: 3e-3 * min(1, (n + 1) / 20) * max(1 - 0.95 * spent(), 0.05)
    loss = lambda: cost(net, *next(batches), g).mean() / 64
    best, kept, due = math.inf, None, 0.1
    for _ in train.fit(loss, net, steps=10**6, lr=rate, ema=ema, progress=False):
        if spent() < due:
            continue
        began, due = time.process_time(), due + 0.1
        with torch.no_grad(), ema.applied():
            same = torch.Generator().manual_seed(0)
            now = float(cost(net, IDS[held], TRAIN_Y[held], same, 4).mean())
            if now < best:
                best, kept = now, {k: x.clone() for k, x in net.state_dict().items()}
        aside += time.process_time() - began
        if due > 1.05:
            break
    net.load_state_dict(kept)
    return net.requires_grad_(False), fitted[:360]


def rows(name, make, labelled):
    """A row of test digits, and one of fitted digits, of three trainings."""
    off, test, seen = math.log(10) if labelled else 0.0, [], []
    how = "a bound" if "masked" in name else "exact"
    for seed in range(SEEDS):
        net, fitted = trained(make, seed)
        g = torch.Generator().manual_seed(seed)
        for ids, label, runs in ((ASKED, LABEL, test), (IDS[fitted], TRAIN_Y[fitted], seen)):
            runs.append(LEVELS - off - cost(net, ids, label, g, DRAWS))
    line(name, f"levels; {how}", test)
    line("    fitted", f"levels; {how}", seen)


def dummies():
    place = ASKED.T
    counts = torch.stack([(IDS == k).double().sum(0) for k in range(17)])
    alone = ((counts + 1) / (len(IDS) + 17)).log().gather(0, ASKED).sum(1) + LEVELS
    say("dummy: 17 levels alike", "levels; exact", [LEVELS - 64 * math.log(17)], 0.0)
    line("dummy: levels of each pixel alone", "levels; exact", [alone])
    line("  given the class", "levels; exact", [by_class(place.T)])


def lecture_3():
    """The chain's bound of `digits_eps`: a hundred steps, and a thousand where x̂0 is a level."""
    net, grey = bundled("digits_eps"), torch.linspace(-1, 1, 17)
    plain = paths.denoiser(net, chain, targets.eps, LABEL)

    def knows_levels(xt, t):
        if t > 0.0101:
            return plain(xt, t)
        off = (xt[..., None] - chain.a(t) * grey) / chain.b(t)
        return (-0.5 * off.square()).softmax(-1) @ grey

    for name, f, steps, variance in (
        ("lecture 3, β, 100 steps", plain, 100, ddpm.forward_variance),
        ("lecture 3, β̃, 1000 steps, levels known", knows_levels, 1000, ddpm.posterior_variance),
    ):
        ts, g = torch.linspace(1, 0, steps + 1, dtype=torch.float64), torch.Generator()
        kind = {"variance": variance, "levels": 17, "generator": g.manual_seed(0)}
        b = ddpm.bound(f, chain, TEST, ts=ts, **kind)
        nats = LEVELS - float(b.total) - math.log(10)
        say(name, "levels; the chain, a bound", [nats], float(b.stderr))


def main():
    print(" " * 47 + "nats (±: digits, trainings)  bits per pixel   of what; over what")
    dummies()
    lecture_3()
    for name, (make, labelled) in KINDS.items():
        rows(name, make, labelled)


if __name__ == "__main__":
    main()
