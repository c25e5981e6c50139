"""How letters were written as tokens, and how three orders of generating those were trained."""

import time

import torch

from data.digit_recipes import RUNS, quality
from data.letter_recipes import psnr, read
from minigen import data, guidance, judge, tokens, train, vq

SCALES = (1, 2, 4, 8)
SIZE = {"width": 96, "depth": 4, "heads": 4, "classes": 26}  # of all three networks


def letters_vq(seed: int):
    """32 × 32 capitals as 8 × 8 tokens of one codebook, and back."""
    return quantised(seed, None, codes=128)


def letters_scales(seed: int):
    """32 × 32 capitals as 1 + 4 + 16 + 64 tokens of one codebook, coarse to fine, and back."""
    return quantised(seed, SCALES, codes=64)


def quantised(seed: int, scales, codes: int, steps: int = 4500):
    """A VQ-VAE of the training letters, with its cost and what it keeps of the test letters."""
    torch.manual_seed(seed)
    net = vq.ConvVQVAE((1, 32, 32), codes, width=8, factor=4, channels=16, scales=scales)
    start = time.process_time()
    fitted(net, data.letters("train")[0], seed, steps)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    return net, cost | held(net, codes, *data.letters("test"))


def fitted(net, x, seed: int, steps: int) -> None:
    """Train a VQ-VAE: codebook from k-means++, dead codes revived for three quarters of it."""
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(x, size=64, generator=generator)
    warm = steps // 20  # the encoder alone, for latents that are worth clustering
    done = 0

    def loss():
        nonlocal done
        (x,) = next(batches)
        if done < warm:
            done += 1
            return (net.decoder(net.encoder(x)) - x).square().mean()
        with torch.no_grad():
            if done == warm:
                net.quantizer.start(net.encoder(x), generator=generator)
            if done % 100 == 0 and done < 0.75 * steps:
                net.quantizer.revive(net.encoder(x), generator=generator)
        done += 1
        part = net.loss(x)
        return (part.reconstruction + part.codebook + 0.25 * part.commitment).mean()

    rate = train.cosine(3e-3, steps, warmup=20)
    for _ in train.fit(loss, net, steps=steps, lr=rate, progress=False):
        pass


@torch.no_grad()
def held(net, codes: int, x, label) -> dict[str, str]:
    """What is left of images that the net has not seen, and how its codes are used by them."""
    ids = net.encode(x)
    tokens = flat(ids)
    again = net.decode(ids)
    decibels = psnr(again, x)
    error = float(decibels.std()) / len(x) ** 0.5
    (right, apart), (best, floor) = read(again, label), read(x, label)
    bits = tokens.shape[1] * torch.tensor(codes).log2()
    return {
        "PSNR": f"{float(decibels.mean()):.2f} ± {error:.2f} dB",
        "bits": f"{float(bits):.0f} an image, {tokens.shape[1]} tokens",
        "codes in use": f"{len(tokens.unique())} of {codes}",
        "perplexity": f"{float(vq.perplexity(tokens, codes)):.1f}",
        "accuracy": f"{right:.3f}, {best:.3f} before",
        "frechet": f"{apart:.2f}, {floor:.2f} before",
    }


def flat(ids) -> torch.Tensor:
    """The ids of an image end to end, (B, N)."""
    parts = ids if isinstance(ids, list) else [ids]
    return torch.cat([part.flatten(1) for part in parts], 1)


# Three orders on the same tokens -----------------------------------------------------------------


def letters_raster(seed: int):
    """p(token | those before it, letter), coarse to fine and row by row."""
    return ordered(tokens.CausalTransformer, 85, by_likelihood, {"": one_by_one}, seed)


def letters_masked(seed: int):
    """p(token | any others, letter): masked diffusion's bound."""
    samples = {"": surest_first, ", at random": any_first}
    return ordered(tokens.MaskedTransformer, 85, tokens.masked_loss, samples, seed)


def letters_nextscale(seed: int):
    """p(all tokens of a scale | the coarser ones, letter)."""
    return ordered(tokens.ScaleTransformer, SCALES, by_likelihood, {"": scale_by_scale}, seed)


def ordered(kind, length, loss, samples, seed: int, steps: int = 2400):
    """A network over the tokens of `letters_scales`, given the letter, and what it draws."""
    torch.manual_seed(seed)
    space = Tokens()
    net = kind(space.codes, length, **SIZE)
    start = time.process_time()
    lettered(net, loss, space, seed, steps)
    cost = {"training": f"{time.process_time() - start:.0f} s of one CPU core"}
    return net, cost | judged(net, loss, samples, space, seed)


def judged(net, loss, samples, space, seed: int) -> dict[str, str]:
    """What tokens of letters cost, and the verdict on letters drawn in each of these ways."""
    facts = {f"bits, {split}": spent(net, loss, space, split) for split in ("train", "test")}
    for how, sample in samples.items():
        x = space.decode(drawn(sample, net, RUNS * 520, 1000 + seed))
        verdict = quality(x, judge.letters, size=520, classes=26)
        facts |= {name + how: value for name, value in verdict.items()}
    return facts


class Tokens:
    """The letters as `letters_scales` writes them, end to end, and images again."""

    def __init__(self, name: str = "letters_scales"):
        self.net = train.rebuild(data.checkpoint(name)).requires_grad_(False)
        self.quantizer, self.codes = self.net.quantizer, self.net.quantizer.codebook.codes
        self.seen = {}

    def ids(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        """(ids (n, N), label (n,)) of a split."""
        if split not in self.seen:
            x, label = data.letters(split)
            self.seen[split] = torch.cat([flat(self.net.encode(p)) for p in x.split(260)]), label
        return self.seen[split]

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """The images that ids (n, N) stand for."""
        sizes = [h * w for h, w in self.quantizer.scales]
        grids = zip(ids.split(sizes, 1), self.quantizer.scales, strict=True)
        each = [part.unflatten(1, size).split(260) for part, size in grids]
        return torch.cat([self.net.decode([*part]) for part in zip(*each, strict=True)])


def by_likelihood(model, ids, *, generator=None):
    """−log p(ids) in nats, which takes no draws: the signature of `tokens.masked_loss`."""
    return tokens.nll(model, ids)


def lettered(net, loss, space, seed: int, steps: int, rate: float = 2e-3) -> None:
    """Train a network on the training letters, one in ten without its label, to its average."""
    generator = torch.Generator().manual_seed(seed)
    batches = data.batches(*space.ids("train"), size=32, generator=generator)
    ema = train.Ema(net, 0.998)

    def nats():
        ids, label = next(batches)
        label = guidance.drop_label(label, 0.1, net.classes, generator=generator)
        return loss(tokens.given(net, label), ids, generator=generator).mean() / net.length

    rates = train.cosine(rate, steps, warmup=min(100, steps // 5))
    for _ in train.fit(nats, net, steps=steps, lr=rates, clip=1.0, ema=ema, progress=False):
        pass
    ema.copy_to(net)


@torch.no_grad()
def spent(net, loss, space, split: str, n: int = 520) -> str:
    """Bits for an image's tokens, given the letter: a bound where the loss is one."""
    ids, label = (part[:n] for part in space.ids(split))
    generator = torch.Generator().manual_seed(0)
    rounds = 16 if loss is tokens.masked_loss else 1
    model = tokens.given(net, label)
    runs = [loss(model, ids, generator=generator) for _ in range(rounds)]
    bits = torch.stack(runs).mean(0) / torch.tensor(2.0).log()
    return f"{float(bits.mean()):.1f} ± {float(bits.std()) / n**0.5:.1f}"


def one_by_one(net, label, generator, scale=1.5, temperature=1.0):
    """Ids of these letters by `autoregress`, with the key–value cache: 85 calls."""
    model = tokens.guided(net.cached(label), net.cached(), scale)
    how = {"temperature": temperature, "generator": generator}
    *_, ids = tokens.autoregress(model, unknown(net, label), **how)
    return ids


def surest_first(net, label, generator, scale=2.0, temperature=1.0, steps=8, by=tokens.confidence):
    """Ids of these letters by `maskgit`, in so many calls."""
    model = tokens.guided(tokens.given(net, label), net, scale)
    how = {"by": by, "temperature": temperature, "generator": generator}
    *_, ids = tokens.maskgit(model, unknown(net, label), steps, **how)
    return ids


def any_first(net, label, generator, **how):
    """The same, with no regard to which tokens are the surest."""
    return surest_first(net, label, generator, by=tokens.at_random, **how)


def scale_by_scale(net, label, generator, scale=1.5, temperature=1.0):
    """Ids of these letters by `next_scale`, in as many calls as there are scales."""
    model = tokens.guided(tokens.given(net, label), net, scale)
    how = {"temperature": temperature, "generator": generator}
    *_, ids = tokens.next_scale(model, Tokens().quantizer, len(label), **how)
    return flat(ids)


def drawn(sample, net, n: int, seed: int, **how) -> torch.Tensor:
    """Ids of n letters, A to Z in turn, 260 at a time."""
    generator, label = torch.Generator().manual_seed(seed), torch.arange(n) % 26
    return torch.cat([sample(net, part, generator, **how) for part in label.split(260)])


def unknown(net, label) -> torch.Tensor:
    """Nothing but mask tokens."""
    return torch.full((len(label), net.length), net.values)
