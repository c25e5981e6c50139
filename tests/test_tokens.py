"""Three orders: with exact conditionals, so that each error has one cause; then the networks."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from minigen import tokens, train, vq
from minigen.oracle import TokenTable

F64 = torch.float64
B, N, V = 5, 4, 3


def table(seed=0):
    g = torch.Generator().manual_seed(seed)
    log_p = 1.5 * torch.randn((V,) * N, generator=g, dtype=F64)
    return TokenTable(log_p - log_p.logsumexp([*range(N)]))


def exact(law):
    """The model whose conditionals are the law's."""
    return lambda ids: law.conditional(ids, ids != law.values)


def everything(law):
    return torch.tensor([*itertools.product(range(law.values), repeat=law.length)])


def blank(n=B, length=N, values=V):
    return torch.full((n, length), values)


def shares(ids, law):
    """How often each state occurs, flat."""
    place = law.values ** torch.arange(law.length).flip(0)
    return torch.bincount((ids * place).sum(1), minlength=law.values**law.length) / len(ids)


# One by one -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1], [3, 2, 1, 0]])
def test_the_chain_rule_in_any_order_is_the_law(order):
    law, states = table(), everything(table())
    got = tokens.nll(exact(law), states, order=order)
    assert_close(got, -law.log_prob(states), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
def test_autoregression_draws_from_the_law_in_any_order(order):
    law, n, g = table(), 40_000, torch.Generator().manual_seed(0)
    *states, ids = tokens.autoregress(exact(law), blank(n), order=order, generator=g)
    assert [int((s == V).sum(1)[0]) for s in states] == [3, 2, 1]
    p = law.log_p.exp().flatten()
    assert bool(((shares(ids, law) - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-9).all())


def test_known_tokens_stay_and_steer_the_rest():
    law, n, g = table(), 40_000, torch.Generator().manual_seed(0)
    start = blank(n)
    start[:, 2] = 1
    *states, ids = tokens.autoregress(exact(law), start, generator=g)
    assert len(states) == 2 and bool((ids[:, 2] == 1).all())
    p = law.log_p[:, :, 1].exp()
    p = p / p.sum()
    flat = torch.bincount((ids[:, [0, 1, 3]] * torch.tensor([9, 3, 1])).sum(1), minlength=27) / n
    p = p.flatten()
    assert bool(((flat - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-9).all())


def test_temperature_is_not_the_tilt_of_the_whole():
    """Each conditional is tilted by itself: the law is ∏ p_i^{1/T}/Z_i, not p^{1/T}/Z."""
    law, states, T = table(), everything(table()), 0.5
    cold = lambda ids: exact(law)(ids) / T
    log_q = -tokens.nll(cold, states)
    assert abs(float(log_q.logsumexp(0))) < 1e-12
    tilted = torch.log_softmax(law.log_prob(states) / T, 0)
    assert float((log_q.exp() - tilted.exp()).abs().sum() / 2) > 0.02
    n, g = 40_000, torch.Generator().manual_seed(0)
    *_, ids = tokens.autoregress(exact(law), blank(n), temperature=T, generator=g)
    p = log_q.exp()
    assert bool(((shares(ids, law) - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-9).all())


# Many at once -----------------------------------------------------------------------------------


def test_the_masked_bound_is_tight_for_every_state_with_exact_conditionals():
    """E over all (k, masks) of (N/k) Σ_masked −log p, summed exactly, is −log p."""
    law, states = table(), everything(table())
    total = torch.zeros(len(states), dtype=F64)
    for k in range(1, N + 1):
        sets = [*itertools.combinations(range(N), k)]
        for masked in sets:
            known = torch.ones(len(states), N, dtype=torch.bool)
            known[:, masked] = False
            cost = -law.conditional(states, known).gather(2, states[..., None])[..., 0]
            total += (N / k) * cost[:, masked].sum(1) / (len(sets) * N)
    assert_close(total, -law.log_prob(states), rtol=0, atol=1e-12)


def test_the_masked_loss_averages_to_the_bound():
    law, g = table(), torch.Generator().manual_seed(0)
    states = everything(law)[::20]
    runs = tokens.masked_loss(exact(law), states.repeat(4000, 1), generator=g).reshape(4000, -1)
    error = runs.std(0) / 4000**0.5
    assert bool(((runs.mean(0) + law.log_prob(states)).abs() < 4 * error).all())
    wrong = lambda ids: torch.zeros(*ids.shape, V, dtype=F64)
    loose = tokens.masked_loss(wrong, states, generator=g)
    assert_close(loose, torch.full_like(loose, N * math.log(V)))  # (N/k) k log V, whatever k


@pytest.mark.parametrize("length, steps", [(256, 8), (10, 8), (7, 7), (9, 1), (30, 11)])
def test_cosine_counts_fill_in_everything_few_at_first(length, steps):
    counts = tokens.cosine_counts(length, steps)
    assert counts.dtype == torch.int64 and len(counts) == steps and int(counts.sum()) == length
    assert bool((counts >= 1).all())
    if length == 256:
        left = (256 - counts.cumsum(0)).tolist()
        assert left == [251, 236, 212, 181, 142, 97, 49, 0]


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [2, 2], [4], [1, 3]])
def test_groups_at_random_cost_their_total_correlation(counts):
    """The law that MaskGIT draws from, all orders averaged, against its samples."""
    law, n, g = table(1), 60_000, torch.Generator().manual_seed(0)
    states, q = everything(law), torch.zeros(V**N, dtype=F64)
    for order in itertools.permutations(range(N)):
        log_q, before = torch.zeros(V**N, dtype=F64), []
        for count in counts:
            group = [*order[len(before) : len(before) + count]]
            known = torch.zeros(V**N, N, dtype=torch.bool)
            known[:, before] = True
            now = law.conditional(states, known).gather(2, states[..., None])[..., 0]
            log_q, before = log_q + now[:, group].sum(1), before + group
        q += log_q.exp() / math.factorial(N)
    walk = tokens.maskgit(
        exact(law), blank(n), torch.tensor(counts), by=tokens.at_random, generator=g
    )
    *states, ids = walk
    assert [int((s == V).sum(1)[0]) for s in states] == (
        N - torch.tensor(counts).cumsum(0)
    ).tolist()[:-1]
    found = shares(ids, law)
    assert bool(((found - q).abs() < 4.5 * (q * (1 - q) / n).sqrt() + 1e-9).all())
    p = law.log_p.exp().flatten()
    assert (float((found - p).abs().sum() / 2) < 0.02) == (counts == [1, 1, 1, 1])


def test_confidence_keeps_the_surest_and_changes_the_law():
    law, n, g = table(1), 40_000, torch.Generator().manual_seed(0)
    logits = torch.tensor([[[0.0, 3, 0], [0, 0, 0.1], [2, 0, 0], [0, 0, 1]]]).double()
    drawn = torch.tensor([[1, 2, 0, 0]])
    want = torch.log_softmax(logits, 2)[0, range(4), drawn[0]]
    assert_close(tokens.confidence(logits, drawn)[0], want)
    one = tokens.maskgit(lambda ids: logits.expand(len(ids), -1, -1), blank(50), 4, generator=g)
    first = next(one)
    kept = (first != V).nonzero()[:, 1]
    assert bool((kept == 0).sum() > 35)  # its likeliest token stands out when it is drawn
    *_, ids = tokens.maskgit(exact(law), blank(n), 4, generator=g)
    p = law.log_p.exp().flatten()
    assert float((shares(ids, law) - p).abs().sum() / 2) > 0.02  # even one by one


def test_what_no_order_can_do_is_named():
    law, ids = table(), torch.zeros(B, N, dtype=torch.int64)
    model = exact(law)
    for order in ([0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]):
        for call in (tokens.nll, lambda m, i, order: next(tokens.autoregress(m, i, order=order))):
            with pytest.raises(ValueError, match="names each of the 4 tokens once"):
                call(model, ids, order=order)
    with pytest.raises(ValueError, match=r"token 3 \(the mask token\) is out of range"):
        tokens.nll(model, blank())
    with pytest.raises(ValueError, match="token 4 is out of range for 3 values"):
        tokens.masked_loss(lambda ids: torch.zeros(*ids.shape, V), ids + 4)
    with pytest.raises(ValueError, match="5 steps cannot each fill in one of 4 tokens"):
        tokens.maskgit(model, blank(), 5)
    for counts in ([1, 2], [5], [2, 2, 0]):
        with pytest.raises(ValueError, match="whole numbers from 1 whose sum is 4"):
            tokens.maskgit(model, blank(), torch.tensor(counts))
    half = blank()
    half[0, 0] = 1
    with pytest.raises(ValueError, match="as many unknown tokens as the others"):
        tokens.maskgit(model, half, 2)
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="temperature must be finite and > 0"):
            tokens.autoregress(model, blank(), temperature=bad)
    with pytest.raises(ValueError, match=r"the model gave \(5, 4\), not \(B, N, V\)"):
        tokens.nll(lambda ids: ids.double(), ids)


# Scale by scale ---------------------------------------------------------------------------------


def test_blocks_hear_themselves_and_those_before():
    got = tokens.block_causal([1, 2, 3])
    want = [[1, 0, 0, 0, 0, 0], *[[1, 1, 1, 0, 0, 0]] * 2, *[[1] * 6] * 3]
    assert torch.equal(got, torch.tensor(want) > 0)
    assert torch.equal(tokens.block_causal([1] * 4), torch.ones(4, 4).tril() > 0)
    with pytest.raises(ValueError, match="each length must be a whole number"):
        tokens.block_causal([1, 0])


# The networks -----------------------------------------------------------------------------------

SMALL = {"width": 16, "depth": 2, "heads": 4}
CODES, SCALES = 7, [1, (2, 3), (4, 3)]
LENGTH = 19


def alive(net):
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))
    return net.double()


def make(name, **kw):
    torch.manual_seed(0)
    kinds = {
        "causal": lambda: tokens.CausalTransformer(CODES, LENGTH, **SMALL, **kw),
        "masked": lambda: tokens.MaskedTransformer(CODES, LENGTH, **SMALL, **kw),
        "scale": lambda: tokens.ScaleTransformer(CODES, SCALES, **SMALL, **kw),
        "pixel": lambda: tokens.PixelCNN(CODES, (4, 5), width=8, depth=3, kernel=3),
    }
    return alive(kinds[name]())


def random_ids(length, n=B, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(CODES, (n, length), generator=g)


def heard(net, length):
    """(N, N) bool: whether logits i depend on token j, by changing each token in turn."""
    ids = random_ids(length)
    before, found = net(ids), torch.zeros(length, length, dtype=torch.bool)
    for j in range(length):
        changed = ids.clone()
        changed[:, j] = (ids[:, j] + 1) % CODES
        found[:, j] = ((net(changed) - before).abs() > 1e-12).any(2).any(0)
    return found


def test_a_causal_transformer_hears_what_is_before_and_a_masked_one_everything():
    assert torch.equal(heard(make("causal"), LENGTH), torch.ones(LENGTH, LENGTH).tril(-1) > 0)
    assert bool(heard(make("masked"), LENGTH).all())


def test_a_scale_transformer_hears_coarser_scales_only():
    block = torch.tensor([0] + [1] * 6 + [2] * 12)
    found = heard(make("scale"), LENGTH)
    assert torch.equal(found, block[:, None] > block)


def test_a_pixel_cnn_is_causal_and_has_a_blind_spot():
    """Three layers of 3 × 3 on 4 × 5 pixels: to the right above it sees one further each row."""
    found = heard(make("pixel"), 20)
    assert not bool((found & ~(torch.ones(20, 20).tril(-1) > 0)).any())
    last = found[3 * 5 + 0].reshape(4, 5)  # pixel (3, 0)
    assert last[2].tolist() == [True, True, False, False, False]  # the rest of row 2 is unseen
    assert last[1].tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("name", ["causal", "scale", "pixel"])
def test_one_call_gives_the_likelihood_of_many(name):
    net, length = make(name), 20 if name == "pixel" else LENGTH
    ids = random_ids(length)
    slow = tokens.nll(lambda ids: net(ids), ids)  # a function without `causal`
    assert_close(tokens.nll(net, ids), slow, rtol=1e-11, atol=0)


def test_a_cache_changes_no_sample_and_computes_each_place_once():
    net, calls = make("causal", classes=3), []
    label = torch.tensor([0, 2, 1, 1, 0])
    for block in net.blocks:
        block.register_forward_hook(lambda *_: calls.append("whole"))
    start = torch.full((B, LENGTH), CODES)
    seeds = [torch.Generator().manual_seed(4) for _ in "ab"]
    *_, plain = tokens.autoregress(lambda ids: net(ids, label), start, generator=seeds[0])
    assert calls
    calls.clear()
    kept = net.cached(label)
    *_, quick = tokens.autoregress(kept, start, generator=seeds[1])
    assert torch.equal(plain, quick) and not calls
    assert_close(kept.logits, net(quick, label), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["causal", "masked", "scale"])
def test_labels_are_heard_and_checked(name):
    net, ids = make(name, classes=3), random_ids(LENGTH)
    label = torch.tensor([0, 1, 2, 3, 1])
    said = net(ids, label)
    assert_close(net(ids, 1)[4], said[4], rtol=1e-10, atol=1e-12)
    assert_close(net(ids)[3], said[3], rtol=1e-10, atol=1e-12)  # 3 is the null label
    assert not torch.allclose(net(ids, 0), net(ids, 1), atol=1e-3)
    with pytest.raises(ValueError, match="label 4 is out of range"):
        net(ids, 4)
    with pytest.raises(ValueError, match="made without classes"):
        make(name)(ids, 1)
    with pytest.raises(ValueError, match="token 8 is out of range for 7 values"):
        net(torch.full((2, LENGTH), CODES + 1))
    with pytest.raises(ValueError, match=r"ids must be \(B, 19\), got \(5, 4\)"):
        net(random_ids(4))


def test_next_scale_draws_what_the_quantizer_can_decode():
    torch.manual_seed(0)
    book, net = vq.MultiScale(SCALES, CODES, 3), make("scale")
    g = torch.Generator().manual_seed(0)
    walk = [*tokens.next_scale(net, book, 4, generator=g)]
    assert [len(x) for x in walk] == [1, 2, 3]
    assert [tuple(x.shape) for x in walk[-1]] == [(4, 1, 1), (4, 2, 3), (4, 4, 3)]
    assert all(torch.equal(a, b) for a, b in zip(walk[0], walk[2], strict=False))
    assert book.decode(walk[1]).shape == (4, 3, 4, 3)
    # all of a scale at once is one of its likelihoods' terms: the nll in one call
    ids = torch.cat([x.flatten(1) for x in walk[-1]], 1)
    whole = torch.nn.functional.cross_entropy(net(ids).mT, ids, reduction="none").sum(1)
    parts = 0
    for start, stop in ((0, 1), (1, 7), (7, 19)):
        seen = torch.full_like(ids, CODES)
        seen[:, :start] = ids[:, :start]
        now = net(seen)[:, start:stop]
        parts = parts + torch.nn.functional.cross_entropy(
            now.mT, ids[:, start:stop], reduction="none"
        ).sum(1)
    assert_close(parts, whole, rtol=1e-11, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("name, bar", [("causal", 0.02), ("masked", 0.06)])
def test_a_network_learns_a_small_law(name, bar):
    """The 2 × 3 Ising grid: the KL in the natural order. A masked one has all orders to learn."""
    law, g = TokenTable.ising(2, 3, 0.6, 0.1), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    kind = tokens.CausalTransformer if name == "causal" else tokens.MaskedTransformer
    net = kind(2, 6, width=32, depth=2, heads=4)
    objective = tokens.nll if name == "causal" else tokens.masked_loss

    def loss():
        ids = law.sample(256, generator=g)
        more = {} if name == "causal" else {"generator": g}
        return objective(net, ids, **more).mean()

    for _ in train.fit(loss, net, steps=400, lr=3e-3, progress=False):
        pass
    states, p = everything(law), law.log_p.exp().flatten()
    with torch.no_grad():
        kl = float((p * (law.log_prob(states) + tokens.nll(net, states))).sum())
    assert -1e-6 < kl < bar, kl
