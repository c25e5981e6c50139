"""Codebooks: gradients that jump, errors that fall, codes that die and are brought back."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from minigen import vq

F64 = torch.float64
B, W = 5, 3


def latents(*shape, seed=0, n=B):
    g = torch.Generator().manual_seed(seed)
    return 0.6 + 1.4 * torch.randn(n, W, *shape, generator=g, dtype=F64)


def quantizer(codes=7, **kw):
    torch.manual_seed(1)
    return vq.Quantizer(codes, W, **kw).double()


@pytest.mark.parametrize("shape", [(), (4,), (2, 6)])
def test_every_vector_becomes_its_nearest_entry(shape):
    book, z = quantizer(), latents(*shape)
    part = book(z)
    assert part.ids.shape == (B, *shape) and part.z.shape == z.shape
    flat = z.movedim(1, -1).reshape(-1, W)
    ids = torch.cdist(flat, book.entries.detach()).argmin(1)
    assert torch.equal(part.ids.flatten(), ids)
    assert_close(part.z, book.lookup(part.ids), rtol=0, atol=1e-14)
    error = (z - book.lookup(part.ids)).square().reshape(B, -1).mean(1)
    for term in (part.commitment, part.codebook):
        assert_close(term, error, rtol=1e-12, atol=0)


def test_the_two_stopped_terms_have_the_gradient_of_the_plain_square():
    book, z = quantizer(), latents(4).requires_grad_()
    part = book(z)
    got = torch.autograd.grad((part.commitment + part.codebook).sum(), (z, book.entries))
    chosen = book.lookup(book.nearest(z))
    plain = torch.autograd.grad((z - chosen).square().flatten(1).mean(1).sum(), (z, book.entries))
    for one, two in zip(got, plain, strict=True):
        assert_close(one, two, rtol=1e-13, atol=1e-15)


def test_the_gradient_passes_straight_through():
    """The encoder's gradient is the decoder's at the chosen entry; the codebook gets none of it."""
    book, z = quantizer(), latents(4).requires_grad_()
    decoder = lambda y: (y**3).sum()
    (got,) = torch.autograd.grad(decoder(book(z).z), z)
    chosen = book.lookup(book.nearest(z)).detach().requires_grad_()
    (want,) = torch.autograd.grad(decoder(chosen), chosen)
    assert_close(got, want, rtol=1e-12, atol=0)
    (none,) = torch.autograd.grad(decoder(book(z).z), book.entries, allow_unused=True)
    assert none is None


def test_means_of_clusters_never_increase_the_error():
    z = latents(60)
    book, errors = quantizer(), []
    for _ in range(8):
        part = book(z)
        errors.append(float(part.codebook.detach().mean()))
        flat = z.movedim(1, -1).reshape(-1, W)
        with torch.no_grad():
            for k in part.ids.unique():
                book.entries[k] = flat[part.ids.flatten() == k].mean(0)
    assert all(a >= b for a, b in zip(errors, errors[1:], strict=False)) and errors[0] > errors[-1]


def test_running_means_follow_the_clusters_and_only_in_training():
    book, z = quantizer(decay=0.0), latents(60)
    ids = book.nearest(z)
    part = book(z)
    flat = z.movedim(1, -1).reshape(-1, W)
    for k in ids.unique():  # decay 0: the means of this very batch
        assert_close(book.entries[k], flat[ids.flatten() == k].mean(0), rtol=1e-12, atol=1e-12)
    assert torch.equal(part.codebook, torch.zeros(B, dtype=F64)) and not [*book.parameters()]
    unused = [k for k in range(7) if k not in ids.unique()]
    before = quantizer(decay=0.0).entries
    assert torch.equal(book.entries[unused], before[unused])
    book.eval()
    kept = book.entries.clone()
    book(z + 1)
    assert torch.equal(book.entries, kept)
    slow, mean = quantizer(codes=1, decay=0.9), latents(60).movedim(1, -1).reshape(-1, W).mean(0)
    for _ in range(200):
        slow(z)
    assert_close(slow.entries[0], mean, rtol=1e-6, atol=1e-6)


def test_a_start_spreads_the_entries_over_the_clusters():
    """Seven clusters far apart: k-means++ nearly always finds each, random picks rarely do."""
    g = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(7, W, generator=g, dtype=F64)
    z = (centres.repeat(40, 1) + 0.1 * torch.randn(280, W, generator=g, dtype=F64))[None].mT
    hits = {"start": 0, "random": 0}
    for seed in range(20):
        book, g = quantizer(), torch.Generator().manual_seed(seed)
        book.start(z, generator=g)
        found = {"start": book.entries.detach()}
        found["random"] = z[0].T[torch.randperm(280, generator=g)[:7]]
        for name, entries in found.items():
            hits[name] += len(torch.cdist(entries, centres).argmin(1).unique()) == 7
    assert hits["start"] >= 18 and hits["random"] <= 5, hits


@pytest.mark.parametrize("decay", [None, 0.9])
def test_dead_codes_are_revived_and_counted(decay):
    book, z = quantizer(codes=11, decay=decay), latents(30)
    with torch.no_grad():
        book.entries[[2, 5, 9]] += 100
    alive = book.nearest(z).unique()
    kept = book.entries[alive].clone()
    dead = book.revive(z, generator=torch.Generator().manual_seed(0))
    assert dead == 11 - len(alive) >= 3
    assert torch.equal(book.entries[alive], kept)
    flat = z.movedim(1, -1).reshape(-1, W)
    revived = [k for k in range(11) if k not in alive]
    assert float(torch.cdist(book.entries[revived].detach(), flat).min(1).values.max()) < 1e-6
    assert book.revive(z) == 0  # each sits on a vector that now picks it


def test_perplexity_is_one_for_one_code_and_all_for_all():
    assert float(vq.perplexity(torch.zeros(9, dtype=torch.int64), 4)) == 1
    assert_close(vq.perplexity(torch.arange(4).repeat(3), 4), torch.tensor(4.0))
    want = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert_close(vq.perplexity(torch.tensor([[0, 0], [0, 3]]), 4), torch.tensor(want))
    for bad in (torch.tensor([4]), torch.tensor([-1]), torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(ValueError, match="ids must lie in 0 … 3"):
            vq.perplexity(bad, 4)


# In turns ---------------------------------------------------------------------------------------


def residual(depth=4):
    torch.manual_seed(2)
    return vq.Residual(depth, 6, W).double()


def multiscale():
    torch.manual_seed(2)
    return vq.MultiScale([1, 2, (3, 4), (4, 6)], 6, W).double()


@pytest.mark.parametrize("started", [False, True])
def test_a_residual_code_never_gets_worse_with_depth(started):
    book, z = residual(), latents(8)
    if started:
        book.start(z, generator=torch.Generator().manual_seed(0))
        assert torch.equal(book.quantizers[1].entries[0], torch.zeros(W, dtype=F64))
    ids = book.encode(z)
    each = [(book.decode(ids[:k]) - z).square().flatten(1).sum(1) for k in range(1, 5)]
    errors = torch.stack([z.square().flatten(1).sum(1), *each])
    assert bool((errors.diff(dim=0) <= 1e-12).all()) and bool((errors[-1] < errors[0]).all())
    vectors = (book.decode(ids) - z).square().sum(1) - z.square().sum(1)
    assert bool((vectors <= 1e-12).all())  # for each vector by itself


def test_the_zero_entry_learns_nothing():
    book, z = residual(), latents(8)
    book(z).codebook.sum().backward()
    grads = [q.entries.grad for q in book.quantizers]
    assert all(not g[0].any() and g[1:].any() for g in grads)


@pytest.mark.parametrize("make, shape", [(residual, (8,)), (multiscale, (4, 6))])
def test_what_is_decoded_is_what_was_quantised(make, shape):
    book, z = make(), latents(*shape)
    part = book(z)
    ids = book.encode(z)
    assert len(ids) == 4 and all(torch.equal(a, b) for a, b in zip(ids, part.ids, strict=True))
    assert_close(book.decode(ids), part.z, rtol=0, atol=1e-12)
    assert book.decode(ids[:2]).shape == z.shape
    for bad in ([], [*ids, ids[0]]):
        with pytest.raises(ValueError, match="a list of 1 to 4 turns of ids"):
            book.decode(bad)


def test_scales_add_up_whatever_the_smoothing():
    """f = f̂ + rest, with every turn quantising what is left."""
    book, z = multiscale(), latents(4, 6)
    with torch.no_grad():
        for conv in book.smooth:
            conv.weight.normal_(generator=torch.Generator().manual_seed(0))
    rest, ids = z, book.encode(z)
    for k, own in enumerate(ids):
        assert own.shape == (B, *book.scales[k])
        small = nn.functional.interpolate(rest, book.scales[k], mode="area")
        assert torch.equal(book.codebook.nearest(small), own)
        rest = rest - book.up(book.codebook.lookup(own), k, z.shape)
    assert_close(book.decode(ids) + rest, z, rtol=0, atol=1e-12)


def test_what_does_not_fit_is_named():
    book, z = quantizer(), latents(4)
    with pytest.raises(ValueError, match=r"z must be \(B, 3, …\), got \(5, 2, 4\)"):
        book(z[:, :2])
    with pytest.raises(ValueError, match="id 7 is out of range for 7 codes"):
        book.lookup(torch.tensor([[7]]))
    with pytest.raises(ValueError, match="21 codes need as many vectors, got 20"):
        quantizer(codes=21).start(z)
    with pytest.raises(ValueError, match="z holds NaN"):
        book.start(z * math.nan)
    with pytest.raises(ValueError, match=r"decay lies in \[0, 1\)"):
        quantizer(decay=1.0)
    with pytest.raises(ValueError, match=r"scales must grow from 1 or more, got \[2, 1\]"):
        vq.MultiScale([2, 1], 6, W)
    with pytest.raises(ValueError, match=r"z must end in \(4, 6\), got \(5, 3, 4, 5\)"):
        multiscale()(latents(4, 5))


# The model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: quantizer(decay=None), residual])
def test_a_vqvae_learns_four_clusters_and_its_ids_name_them(make):
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[3.0, 0, 0, 1], [0, 3, 0, -1], [0, 0, -3, 0], [-2, -2, 2, 0]]).double()
    which = torch.arange(80) % 4
    x = centres[which] + 0.1 * torch.randn(80, 4, generator=g, dtype=F64)
    torch.manual_seed(0)
    model = vq.VQVAE(nn.Linear(4, W).double(), nn.Linear(W, 4).double(), make())
    with torch.no_grad():
        model.quantizer.start(model.encoder(x), generator=g)
    adam = torch.optim.Adam(model.parameters(), lr=0.02)
    first = float(model.loss(x).reconstruction.detach().mean())
    for _ in range(300):
        parts = model.loss(x)
        adam.zero_grad()
        (parts.reconstruction + parts.codebook + 0.25 * parts.commitment).mean().backward()
        adam.step()
    last = float(model.loss(x).reconstruction.detach().mean())
    assert last < 0.05 * first and last < 0.1
    ids = model.encode(x)
    first_turn = ids[0] if isinstance(ids, list) else ids
    pairs = {(int(a), int(b)) for a, b in zip(first_turn, which, strict=True)}
    assert len({a for a, _ in pairs}) == len(pairs)  # no code stands for two clusters
    assert_close(model.decode(ids), model.decoder(model.quantizer(model.encoder(x)).z))
