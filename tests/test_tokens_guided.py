"""Tokens of a class, guided on logits, in each of the three orders and with a cache."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from minigen import tokens, train, vq
from minigen.oracle import TokenTable

F64 = torch.float64
B, N, V = 5, 4, 3
CODES, SCALES, LENGTH = 7, [1, (2, 3), (4, 3)], 19
KINDS = {
    "causal": lambda **kw: tokens.CausalTransformer(CODES, LENGTH, **kw),
    "masked": lambda **kw: tokens.MaskedTransformer(CODES, LENGTH, **kw),
    "scale": lambda **kw: tokens.ScaleTransformer(CODES, SCALES, **kw),
    "pixel": lambda **kw: tokens.PixelCNN(CODES, (4, 5), width=8, depth=3, kernel=3),
}
LABEL = torch.tensor([0, 2, 1, 1, 0])


def make(name, device="cpu", dtype=F64):
    """A network of three classes that hears its label."""
    torch.manual_seed(0)
    net, g = (
        KINDS[name](width=16, depth=2, heads=4, classes=3),
        torch.Generator().manual_seed(1),
    )
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))
    return net.to(device, dtype).requires_grad_(False)


def blank(n=B, length=LENGTH, values=CODES, device="cpu"):
    return torch.full((n, length), values, device=device)


def table(seed, V=V, N=N):
    g = torch.Generator().manual_seed(seed)
    log_p = 1.5 * torch.randn((V,) * N, generator=g, dtype=F64)
    return TokenTable(log_p - log_p.logsumexp([*range(N)]))


def exact(law):
    return lambda ids: law.conditional(ids, ids != law.values)


def everything(V=V, N=N):
    return torch.tensor([*itertools.product(range(V), repeat=N)])


# Against the exact answer -----------------------------------------------------------------------


def of_a_class():
    """The law of a class, and the mean of three classes' laws."""
    laws = [table(seed) for seed in range(3)]
    mean = torch.stack([x.log_p for x in laws]).logsumexp(0) - math.log(3)
    return laws[0], TokenTable(mean)


@pytest.mark.parametrize("w", [-0.5, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("known", [[], [1], [3, 0], [0, 1, 2, 3]])
def test_guided_logits_are_the_powers_of_the_two_laws(w, known):
    one, any_ = of_a_class()
    ids = torch.full((1, N), V)
    ids[:, known] = torch.tensor([2, 0, 1, 1])[known]
    got = tokens.guided(exact(one), exact(any_), 1 + w)(ids).softmax(2)
    c, u = (exact(law)(ids).exp() for law in (one, any_))
    want = torch.where(c > 0, c ** (1 + w) * u**-w, 0.0)
    assert_close(got, want / want.sum(2, keepdim=True), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("w", [0.7, 3.0])
def test_what_guidance_draws_is_a_law_but_not_the_tilt(w):
    one, any_ = of_a_class()
    states, model = everything(), tokens.guided(exact(one), exact(any_), 1 + w)
    log_q = -tokens.nll(model, states)
    assert abs(float(log_q.logsumexp(0))) < 1e-12
    tilt = torch.log_softmax((1 + w) * one.log_prob(states) - w * any_.log_prob(states), 0)
    assert float((log_q.exp() - tilt.exp()).abs().sum() / 2) > 0.02
    n, g = 40_000, torch.Generator().manual_seed(0)
    *_, ids = tokens.autoregress(model, blank(n, N, V), generator=g)
    flat = (ids * torch.tensor([27, 9, 3, 1])).sum(1)
    share, q = torch.bincount(flat, minlength=81) / n, log_q.exp()
    assert bool(((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt() + 1e-4).all())


def test_a_scale_at_once_costs_its_total_correlation():
    """The law that `next_scale` draws from, on scales 1 and 2 of three codes, by the oracle."""
    law, states = table(3, 3, 5), everything(3, 5)
    first = law.conditional(states, torch.zeros(243, 5) > 0).gather(2, states[..., None])[..., 0]
    known = torch.zeros(243, 5, dtype=torch.bool)
    known[:, 0] = True
    then = law.conditional(states, known).gather(2, states[..., None])[..., 0]
    log_q = first[:, 0] + then[:, 1:].sum(1)
    p = law.log_p.flatten()
    kl = float((p.exp() * (p - log_q)).sum())
    assert abs(kl - float(law.total_correlation([1, 2, 3, 4], [0]))) < 1e-12 and kl > 0.1
    n, g = 60_000, torch.Generator().manual_seed(0)
    *_, last = tokens.next_scale(exact(law), vq.MultiScale([1, 2], 3, 2), n, generator=g)
    ids = torch.cat([x.flatten(1) for x in last], 1)
    share = torch.bincount((ids * 3 ** torch.arange(5).flip(0)).sum(1), minlength=243) / n
    q = log_q.exp()
    assert bool(((share - q).abs() < 4.5 * (q * (1 - q) / n).sqrt() + 1e-9).all())


def test_the_integral_over_t_is_the_sum_over_k():
    """∫ (1/t) E Σ_masked −log p dt, each masked with chance t, by quadrature: −log p of every x.

    The integrand is a polynomial of degree N − 1, for which a few Gauss nodes are exact.
    """
    law, states = table(0), everything()
    x, weight = (
        torch.tensor([-1.0, 0, 1], dtype=F64) * 0.6**0.5,
        torch.tensor([5, 8, 5], dtype=F64) / 18,
    )
    total = torch.zeros(len(states), dtype=F64)
    for node, part in zip((x + 1) / 2, weight, strict=True):
        for pattern in itertools.product([False, True], repeat=N):
            masked = torch.tensor(pattern)
            chance = node ** masked.sum() * (1 - node) ** (~masked).sum()
            cost = -law.conditional(states, (~masked).expand(len(states), -1)).gather(
                2, states[..., None]
            )
            total += part / node * chance * cost[:, masked, 0].sum(1)
    assert_close(total, -law.log_prob(states), rtol=0, atol=1e-12)


# The networks -----------------------------------------------------------------------------------


def test_a_guided_cache_draws_the_same_tokens_as_none():
    net = make("causal")
    plain = tokens.guided(tokens.given(net, LABEL), net, 2.5)
    kept = tokens.guided(net.cached(LABEL), net.cached(), 2.5)
    runs = [
        [*tokens.autoregress(m, blank(), temperature=0.8, generator=torch.Generator())][-1]
        for m in (plain, kept)
    ]
    assert torch.equal(*runs)
    assert_close(kept(runs[0]), plain(runs[0]), rtol=1e-9, atol=1e-11)
    other = tokens.autoregress(tokens.given(net, LABEL), blank(), generator=torch.Generator())
    assert not torch.equal([*other][-1], runs[0])


def test_a_cache_starts_anew_where_the_tokens_do_not_go_on():
    net, g = make("causal"), torch.Generator().manual_seed(0)
    kept = net.cached(1)
    *_, first = tokens.autoregress(kept, blank(), generator=g)
    again = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    walks = [
        [*tokens.autoregress(m, blank(3), generator=h)][-1]
        for m, h in zip((kept, tokens.given(net, 1)), again, strict=True)
    ]
    assert torch.equal(*walks)
    changed = walks[0].clone()
    changed[1, 4] = (changed[1, 4] + 1) % CODES
    assert_close(kept(changed), net(changed, 1), rtol=1e-9, atol=1e-11)
    assert_close(kept(first), net(first, 1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["causal", "masked", "scale"])
def test_each_sample_keeps_its_label_in_every_sampler(name):
    """At a low temperature and a guidance of 1 the draw is that of the label alone."""
    net, book = make(name), vq.MultiScale(SCALES, CODES, 3).double()
    runs = {
        "masked": lambda m, n, g: [*tokens.maskgit(m, blank(n), 4, temperature=1e-4, generator=g)],
        "causal": lambda m, n, g: [*tokens.autoregress(m, blank(n), temperature=1e-4, generator=g)],
        "scale": lambda m, n, g: [*tokens.next_scale(m, book, n, temperature=1e-4, generator=g)],
    }
    flat = lambda x: torch.cat([y.flatten(1) for y in x], 1) if isinstance(x, list) else x
    drawn = lambda model, n: flat(runs[name](model, n, torch.Generator().manual_seed(0))[-1])
    both = lambda label: tokens.guided(tokens.given(net, label), net, 2.0)
    whole = drawn(both(LABEL), B)
    for i, k in enumerate(LABEL.tolist()):
        assert torch.equal(drawn(both(k), 1)[0], whole[i])
    assert len(whole.unique(dim=0)) > 1
    ids = torch.where(torch.rand(B, LENGTH) < 0.5, CODES, whole)
    c, u = net(ids, LABEL), net(ids)
    assert_close(both(LABEL)(ids), 3 * c - 2 * u + (u - c), rtol=1e-10, atol=1e-10)


def test_a_guidance_of_one_or_none_is_one_model_alone():
    c, u = tokens.given(make("masked"), 1), make("masked")
    assert tokens.guided(c, u, 1.0) is c and tokens.guided(c, u, 0.0) is u
    assert c.values == CODES and not c.causal
    assert tokens.guided(c, u, 2.0).values == CODES


def test_a_function_without_values_may_have_a_label_for_each_sample():
    net = make("masked")
    model = lambda ids: net(ids, LABEL)
    walks = [
        [*tokens.maskgit(m, blank(), 3, generator=torch.Generator().manual_seed(0))][-1]
        for m in (model, tokens.given(net, LABEL))
    ]
    assert torch.equal(*walks)
    costs = [
        tokens.masked_loss(m, walks[0], generator=torch.Generator().manual_seed(0))
        for m in (model, tokens.given(net, LABEL))
    ]
    assert_close(*costs)


@pytest.mark.parametrize("name", ["causal", "scale"])
def test_a_labelled_likelihood_is_one_call(name):
    net, calls = make(name), []
    ids = torch.randint(CODES, (B, LENGTH), generator=torch.Generator().manual_seed(0))
    model = tokens.given(net, LABEL)
    slow = tokens.nll(lambda ids: model(ids), ids)
    net.register_forward_hook(lambda *_: calls.append(1))
    assert_close(tokens.nll(model, ids), slow, rtol=1e-11, atol=0)
    assert len(calls) == 1
    tokens.nll(tokens.guided(model, net, 2.0), ids)
    assert len(calls) == 3


@pytest.mark.parametrize("name", KINDS)
def test_a_network_is_rebuilt_from_its_file(name, tmp_path):
    net = make(name, dtype=torch.float32)
    train.save(tmp_path / "net.safetensors", net)
    ids = torch.randint(CODES + 1, (B, 20 if name == "pixel" else LENGTH))
    assert torch.equal(train.rebuild(tmp_path / "net.safetensors")(ids), net(ids))


@pytest.mark.parametrize("name", KINDS)
def test_tokens_live_where_their_network_does(name, device, dtype, generator):
    net, length = make(name, device, dtype), 20 if name == "pixel" else LENGTH
    start = blank(B, length, device=device)
    *_, ids = tokens.autoregress(net, start, generator=generator)
    *_, many = tokens.maskgit(net, start, 5, generator=generator)
    costs = tokens.nll(net, ids), tokens.masked_loss(net, many, generator=generator)
    for x in (ids, many):
        assert x.device.type == device.type and x.dtype == torch.int64 and int(x.max()) < CODES
    assert all(c.dtype == dtype and c.device.type == device.type for c in costs)
    if name == "scale":
        book = vq.MultiScale(SCALES, CODES, 3).to(device, dtype)
        *_, last = tokens.next_scale(net, book, B, generator=generator)
        assert last[2].device.type == device.type and book.decode(last).dtype == dtype
    if name == "causal":
        *_, ids = tokens.autoregress(net.cached(2), start, generator=generator)
        assert int(ids.max()) < CODES and ids.device.type == device.type


def test_a_table_lives_where_its_numbers_do(device, dtype, generator):
    log_p = torch.log_softmax(torch.randn(27, dtype=dtype), 0).reshape(3, 3, 3).to(device)
    law = TokenTable(log_p)
    ids = law.sample(7, generator=generator)
    assert ids.device.type == device.type and ids.dtype == torch.int64
    known = torch.rand(7, 3).to(device) < 0.5
    for x in (law.log_prob(ids), law.conditional(ids, known), law.total_correlation([0, 2], [1])):
        assert x.dtype == dtype and x.device.type == device.type
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_close(
        tokens.nll(exact(law), ids), -law.log_prob(ids), rtol=tolerance, atol=10 * tolerance
    )


# Bad input --------------------------------------------------------------------------------------


def test_what_cannot_be_guided_or_drawn_is_named():
    net, other = make("masked"), lambda ids: torch.zeros(*ids.shape, CODES + 1)
    with pytest.raises(ValueError, match=r"cond has logits \(5, 19, 7\), uncond \(5, 19, 8\)"):
        tokens.guided(net, other, 2.0)(blank())
    with pytest.raises(ValueError, match="made without classes"):
        tokens.given(tokens.MaskedTransformer(CODES, LENGTH, 16, 1, 4), 1)(blank())
    book = vq.MultiScale(SCALES, CODES, 3)
    with pytest.raises(ValueError, match="the model has 8 values for 7 codes"):
        next(tokens.next_scale(other, book, 2))
    with pytest.raises(ValueError, match="temperature must be finite and > 0"):
        tokens.next_scale(make("scale"), book, 2, temperature=0.0)
    with pytest.raises(ValueError, match="token 8 is out of range for 7 values"):
        make("pixel")(blank(2, 20, CODES + 1))
    with pytest.raises(ValueError, match=r"ids must be \(B, 20\), got \(5, 19\)"):
        make("pixel")(blank())
    with pytest.raises(ValueError, match="token -1 is out of range"):
        make("causal").cached()(blank() - CODES - 1)
