"""Lecture 15: what do training, groups, confidence and temperature do to a law, exactly?

3 × 3 Ising spins, coupling ½, a field of 0.15 on the first: 512 states, 19,683 half-known ones. The
law of every sampler is enumerated, nothing is sampled but the training data, so KL(data‖sampler)
and entropies are exact, in nats.

Training: transformers of width 64 and depth 2, Adam, batches of 128 fresh states, 60 CPU-seconds
each, three seeds, mean ± standard error. "Floor": the same groups with exact conditionals, which is
the sum of their conditional total correlations. Dummy: uniform.

Choice: `maskgit` in K steps with cosine counts; which of the drawn tokens are kept? At random; the
most confident *draws*; or, as a control, the places whose larger probability is largest, whatever
was drawn there. Ties are shared evenly. Temperature: softmax(logits/T) token by token, against the
tilt p^(1/T)/Z, whose entropy it would share if they were one.
"""

import itertools
import math

import torch

from benchmarks.claims import _seconds
from minigen import oracle, tokens

SEEDS, SECONDS, N = 3, 60.0, 9
LAW = oracle.TokenTable.ising(3, 3, 0.5, torch.eye(9)[0] * 0.15)
WHOLE = torch.tensor([*itertools.product(range(2), repeat=N)])
HALF = torch.tensor([*itertools.product(range(3), repeat=N)])  # 2: unknown
P = LAW.log_prob(WHOLE).exp()
GROUPS = {
    "one by one, row by row": [[i] for i in range(9)],
    "rows": [[0, 1, 2], [3, 4, 5], [6, 7, 8]],
    "checkerboard": [[0, 2, 4, 6, 8], [1, 3, 5, 7]],
    "one step": [[*range(9)]],
}


def index(ids, values):
    """The place of each row in `WHOLE` (2 values) or `HALF` (3)."""
    return (ids * values ** torch.arange(N).flip(0)).sum(1)


def kl(q):
    """KL(data‖q) of a law over `WHOLE`."""
    return max(float((P * (P.log() - q.log())).sum()), 0.0)  # but for rounding it is ≥ 0


def entropy(q):
    return float(torch.special.entr(q).sum())


def trained(kind, loss, seed):
    """A network after so many CPU-seconds, and its steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = kind(2, N, width=64, depth=2)
    batch = lambda _: loss(net, LAW.sample(128, generator=generator), generator) / N
    steps = _seconds.fit(batch, net, SECONDS, 3e-3)
    return net.requires_grad_(False), steps


def answers(model):
    """log p(x_i | the known) of a model, for every half-known state."""
    return model(HALF).double().log_softmax(2)


def in_groups(log_p, groups):
    """The law over `WHOLE` where each group is drawn at once, given those before."""
    seen, total = torch.full_like(WHOLE, 2), torch.zeros(len(WHOLE)).double()
    for group in groups:
        rows = log_p[index(seen, 3)].gather(2, WHOLE[..., None])[..., 0]
        total = total + rows[:, group].sum(1)
        seen[:, group] = WHOLE[:, group]
    return total.exp()


# The law of maskgit -----------------------------------------------------------------------------


def at_random(log_p, drawn):
    return torch.zeros(drawn.shape).double()


def draws(log_p, drawn):
    """`tokens.confidence`."""
    return log_p.gather(2, drawn[..., None])[..., 0]


def places(log_p, drawn):
    """How sure the model is of a place, before anything is drawn there."""
    return log_p.amax(2)


def chosen(log_p, steps, by):
    """The law over `WHOLE` of `maskgit` in so many steps: all draws from all half-known states."""
    now = torch.zeros(3**N).double()
    now[-1] = 1
    for count in tokens.cosine_counts(N, steps).tolist():
        now = step(log_p, now, count, by)
    return now[index(WHOLE, 3)]


def step(log_p, now, count, by):
    after, states = torch.zeros_like(now), now.nonzero().flatten()
    for some in states.split(512):
        known = HALF[some][:, None]  # every whole state that agrees with what is known
        fits = ((known == 2) | (known == WHOLE)).all(2)
        i, j = fits.nonzero().T
        old, new, answer = HALF[some][i], WHOLE[j], log_p[some][i]
        unknown = old == 2
        cost = draws(answer, new).masked_fill(~unknown, 0).sum(1)
        rank = by(answer, new).mul(1e9).round().masked_fill(~unknown, -math.inf)
        share(after, now[some][i] * cost.exp(), old, new, rank, count)
    return after


def share(after, p, old, new, rank, count):
    """Keep the `count` largest of each row; a tie for the last places is shared evenly."""
    last = rank.sort(1, descending=True).values[:, count - 1 : count]
    sure, tied = rank > last, rank == last
    wanted, there = count - sure.sum(1), tied.sum(1)
    where = tied.int().argsort(dim=1, descending=True, stable=True)  # the tied places first
    for t, r in {*zip(there.tolist(), wanted.tolist(), strict=True)}:
        rows, subsets = (there == t) & (wanted == r), [*itertools.combinations(range(t), r)]
        for subset in subsets:
            keep = sure[rows].scatter(1, where[rows][:, [*subset]], True)
            to = index(torch.where(keep, new[rows], old[rows]), 3)
            after.index_add_(0, to, p[rows] / len(subsets))


def check(log_p):
    """The enumerated law against 100,000 draws of `tokens.maskgit`: χ² per state."""
    n, g = 100_000, torch.Generator().manual_seed(0)
    rounded = log_p.mul(1e9).round() / 1e9  # else ties are broken by the last bit
    model = lambda ids: rounded[index(ids, 3)]
    model.values = 2
    *_, ids = tokens.maskgit(model, torch.full((n, N), 2), 3, generator=g)
    q = chosen(log_p, 3, draws) * n
    seen = torch.bincount(index(ids, 2), minlength=2**N)
    common = q > 5
    chi = ((seen - q).square() / q)[common].sum() / (common.sum() - 1)
    print(f"  `tokens.maskgit`, 3 steps, 100,000 draws against its law: χ² {chi:.2f} a state")


# The tables -------------------------------------------------------------------------------------


def pm(values, places=3):
    values = torch.tensor(values, dtype=torch.double)
    if len(values) < 2:
        return f"{float(values[0]):.{places}f}"
    return (
        f"{float(values.mean()):.{places}f} ± {float(values.std()) / len(values) ** 0.5:.{places}f}"
    )


def training():
    """KL of what was trained; returns the answers of the masked networks."""
    exact, masked, causal = answers(lambda ids: LAW.conditional(ids, ids != 2)), [], []
    steps = {"autoregression": [], "masked": []}
    for seed in range(SEEDS):
        net, n = trained(tokens.CausalTransformer, lambda net, x, g: tokens.nll(net, x), seed)
        causal.append(kl((-tokens.nll(net, WHOLE)).double().exp()))
        steps["autoregression"].append(n)
        loss = lambda net, x, g: tokens.masked_loss(net, x, generator=g)
        net, n = trained(tokens.MaskedTransformer, loss, seed)
        masked.append(answers(net))
        steps["masked"].append(n)
    print(f"{'after 60 CPU-s each':46s}{'KL, nats':>16s}{'worst':>8s}{'floor':>9s}")
    say = lambda name, found, floor: print(
        f"{name:46s}{pm(found, 4):>16s}{max(found):8.4f}{floor:9.4f}", flush=True
    )
    say("autoregression, row by row", causal, 0.0)
    for name, groups in GROUPS.items():
        found = [kl(in_groups(m, groups)) for m in masked]
        say(f"masked, {name}", found, kl(in_groups(exact, groups)))
    g = torch.Generator().manual_seed(0)
    orders = [torch.randperm(N, generator=g)[:, None].tolist() for _ in range(20)]
    found = [sum(kl(in_groups(m, o)) for o in orders) / 20 for m in masked]
    say("masked, one by one, mean of 20 random orders", found, 0.0)
    say("dummy: uniform", [N * math.log(2) - float(LAW.entropy())], 0.0)
    each = ", ".join(f"{k} {min(v)} to {max(v)}" for k, v in steps.items())
    print(f"  entropy of the data {float(LAW.entropy()):.4f}; training steps: {each}\n")
    return exact, masked


def choice(exact, masked):
    """KL and entropy by what is kept, with exact conditionals and with trained ones."""
    rules = {"at random": at_random, "surest draws": draws, "surest places": places}
    print(f"{'maskgit, what is kept':22s}" + "".join(f"{name:>34s}" for name in rules))
    print(f"{'':22s}" + f"{'KL':>17s}{'entropy':>17s}" * 3)
    for name, models in (("exact", [exact]), ("trained", masked)):
        for steps in (1, 2, 3, 5, 9):
            print(f"{name}, K = {steps}".ljust(22), end="")
            for rule in rules.values():
                laws = [chosen(m, steps, rule) for m in models]
                for of in (kl, entropy):
                    print(f"{pm([of(q) for q in laws]):>17s}", end="")
            print(flush=True)
    check(exact)


def temperature(exact):
    """Token by token, row by row and in another order, against the tilt."""
    print(f"\n{'T':>5s}{'entropy of the tilt':>22s}{'row by row':>13s}{'KL(tilt‖it)':>14s}", end="")
    print(f"{'from the middle':>18s}{'KL(tilt‖it)':>14s}")
    orders = [GROUPS["one by one, row by row"], [[i] for i in (4, 1, 3, 5, 7, 0, 2, 6, 8)]]
    for T in (0.3, 0.5, 0.7, 0.9, 1.0, 1.5):
        tilt = (P.log() / T).softmax(0)
        print(f"{T:5.1f}{entropy(tilt):22.3f}", end="")
        for order, width in zip(orders, (13, 18), strict=True):
            q = in_groups((exact / T).log_softmax(2), order)
            apart = float((tilt * (tilt.log() - q.log())).sum())
            print(f"{entropy(q):{width}.3f}{apart:14.3f}", end="")
        print()


def main():
    exact, masked = training()
    choice(exact, masked)
    temperature(exact)


if __name__ == "__main__":
    main()
