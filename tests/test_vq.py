"""Codebooks: gradients that jump, errors that fall, codes that die and are brought back."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from minigen import vq
from minigen.vq.codebook import check_ids

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


def test_neither_half_of_a_step_increases_the_error():
    """Identity 16: entries become their cluster's means, then vectors choose anew."""
    z = latents(60)
    flat, book, errors = z.movedim(1, -1).reshape(-1, W), quantizer(), []
    with torch.no_grad():
        for _ in range(8):
            ids = book.nearest(z).flatten()
            errors.append(float((flat - book.entries[ids]).square().sum()))  # chosen anew
            for k in ids.unique():
                book.entries[k] = flat[ids == k].mean(0)
            errors.append(float((flat - book.entries[ids]).square().sum()))  # means, old ids
    assert all(a >= b for a, b in pairwise(errors)) and errors[0] > errors[2] > errors[-1]


@pytest.mark.parametrize("codes, exact", [(2, 0.3634), (4, 0.1175), (8, 0.0345)])
def test_running_means_find_the_best_levels_of_a_normal_variable(codes, exact):
    """Identity 21, Lloyd and Max: with decay 0 each call is a step of k-means, here on quantiles.

    The error of the levels found is that for N(0, 1) itself, and above the bound K^-2.
    """
    n = 4000
    x = torch.special.ndtri((torch.arange(n, dtype=F64) + 0.5) / n)[None, None]
    book = vq.Quantizer(codes, 1, decay=0.0).double()
    book.start(x, generator=torch.Generator().manual_seed(0))
    for _ in range(150):
        book(x)
    level = book.entries.flatten().sort().values
    edge = torch.cat([level.new_tensor([-torch.inf]), (level[1:] + level[:-1]) / 2])
    edge = torch.cat([edge, level.new_tensor([torch.inf])])
    chance = torch.special.ndtr(edge).diff()
    part = -torch.exp(-0.5 * edge**2).diff() / math.sqrt(2 * math.pi)  # E[x; x in the cell]
    error = float(1 - 2 * level @ part + level**2 @ chance)
    assert abs(error - exact) < 1e-4 and error > codes**-2
    if codes == 2:
        assert abs(error - (1 - 2 / math.pi)) < 1e-6


def test_running_means_follow_the_clusters_and_only_in_training():
    book, z = quantizer(decay=0.0), latents(60)
    book.entries[3] += 100  # chosen by nobody: it keeps its place
    start, ids = book.entries.clone(), book.nearest(z)
    part = book(z)
    flat = z.movedim(1, -1).reshape(-1, W)
    for k in ids.unique():  # decay 0: the means of this very batch
        assert_close(book.entries[k], flat[ids.flatten() == k].mean(0), rtol=1e-12, atol=1e-12)
    assert torch.equal(part.codebook, torch.zeros(B, dtype=F64)) and not [*book.parameters()]
    assert 3 not in ids and torch.equal(book.entries[3], start[3])
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


@pytest.mark.parametrize("step", ["start", "revive"])
def test_running_means_go_on_from_where_an_entry_was_put(step):
    book, z = quantizer(decay=0.9), latents(60)
    with torch.no_grad():
        book.entries[1:] += 100
    getattr(book, step)(z, generator=torch.Generator().manual_seed(0))
    put = book.entries.clone()
    far = 50 + 0 * z  # all of one kind: one entry follows, the others stay where they were put
    (one,) = book(far).ids.unique()
    others = [k for k in range(7) if k != int(one)]
    assert_close(book.entries[others], put[others], rtol=1e-12, atol=0)


def test_a_code_that_dies_is_not_dead_for_ever():
    """Where revival picks a vector, the others of its cluster follow, and the error falls."""
    book, z = quantizer(codes=11), latents(30)
    with torch.no_grad():
        book.entries[1:] += 100  # one code for all
    before = float(book(z).codebook.detach().mean())
    assert book.revive(z, generator=torch.Generator().manual_seed(0)) == 10
    assert len(book.nearest(z).unique()) == 11
    assert float(book(z).codebook.detach().mean()) < 0.5 * before


def test_vectors_that_are_all_alike_still_start_a_codebook():
    z = torch.ones(20, W, dtype=F64)
    book = quantizer()
    book.start(z)
    assert torch.equal(book.entries.detach(), torch.ones(7, W, dtype=F64))


def test_perplexity_is_one_for_one_code_and_all_for_all():
    assert float(vq.perplexity(torch.zeros(9, dtype=torch.int64), 4)) == 1
    assert_close(vq.perplexity(torch.arange(4).repeat(3), 4), torch.tensor(4.0))
    want = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert_close(vq.perplexity(torch.tensor([[0, 0], [0, 3]]), 4), torch.tensor(want))
    for wrong in (4, -1):
        with pytest.raises(ValueError, match=f"id {wrong} is out of range for 4 codes"):
            vq.perplexity(torch.tensor([0, wrong]), 4)
    with pytest.raises(ValueError, match="there are no ids"):
        vq.perplexity(torch.zeros(0, dtype=torch.int64), 4)


def test_perplexity_depends_on_how_many_ids_are_seen():
    """Of n ids at most n; drawn from one law it rises with n, towards that of the law."""
    law, g = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.Generator().manual_seed(0)
    mean = []
    for n in (1, 4, 16, 256):
        draws = torch.multinomial(law, 200 * n, replacement=True, generator=g).reshape(200, n)
        mean.append(float(torch.stack([vq.perplexity(ids, 4) for ids in draws]).mean()))
    true = float(torch.special.entr(law).sum().exp())
    assert mean[0] == 1 and all(a + 0.03 < b for a, b in pairwise(mean))
    assert 0 < true - mean[-1] < 0.05


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


@pytest.mark.parametrize("remade", [lambda book: book, copy.deepcopy])
def test_the_zero_entry_learns_nothing(remade):
    book, z = remade(residual()), latents(8)
    book(z).codebook.sum().backward()
    grads = [q.entries.grad for q in book.quantizers]
    assert all(not g[0].any() and g[1:].any() for g in grads)


def test_the_zero_entry_is_neither_drawn_nor_revived():
    """k-means++ starts from it: with one more code only, the farthest cluster gets that."""
    g = torch.Generator().manual_seed(0)
    z = torch.zeros(200, W, dtype=F64)
    z[:100] += 30.0  # the other half sits on the zero entry
    book = vq.Residual(1, 2, W).double()
    for _ in range(5):
        book.start(z, generator=g)
        assert torch.equal(book.quantizers[0].entries[1].detach(), z[0])
    with torch.no_grad():
        book.quantizers[0].entries[1] = 200.0
    assert book.revive(z[:100], generator=g) == 1  # 0 takes all; it is not counted where unused
    assert book.revive(z[:100], generator=g) == 0
    assert not book.quantizers[0].entries[0].any()


@pytest.mark.parametrize("make, shape", [(residual, (8,)), (multiscale, (4, 6))])
def test_dead_codes_of_every_turn_are_revived(make, shape):
    """Those of rests that no turn picks; what is alive stays, and the error falls."""
    book, z = make(), latents(*shape)
    book.start(z, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for q in {book.quantizer(k) for k in range(4)}:
            q.entries[3:] = 1e3
    before = [q.entries[:3].clone() for q in {book.quantizer(k) for k in range(4)}]
    error = lambda: float((book(z).z - z).square().mean().detach())
    worst, dead = error(), book.revive(z, generator=torch.Generator().manual_seed(0))
    assert dead >= 3 * len(before)
    assert error() < 0.7 * worst
    kept = [q.entries[:3] for q in {book.quantizer(k) for k in range(4)}]
    assert sum(torch.equal(a, b) for a, b in zip(before, kept, strict=True)) >= 1


@pytest.mark.parametrize("step", ["start", "revive"])
def test_each_turn_starts_and_revives_on_what_those_before_leave(step):
    z, book = latents(8), residual()
    with torch.no_grad():
        for q in book.quantizers:
            q.entries[3:] = 1e3
    getattr(book, step)(z, generator=torch.Generator().manual_seed(0))
    rest = z
    for q in book.quantizers:
        some = rest.detach().movedim(1, -1).reshape(-1, W)
        assert float(torch.cdist(q.entries[3:].detach(), some).amin(1).max()) < 1e-6
        rest = rest - q.lookup(q.nearest(rest))


def test_scales_revive_on_what_each_scale_is_asked_to_quantise():
    g = torch.Generator().manual_seed(0)
    scales, z = multiscale(), latents(4, 6)
    with torch.no_grad():
        scales.codebook.entries[3:] = 1e3
    asked, rest = [], z
    for k, ids in enumerate(scales.encode(z)):
        small = nn.functional.interpolate(rest, scales.scales[k], mode="area")
        asked.append(small.movedim(1, -1).reshape(-1, W))
        rest = rest - scales.up(scales.codebook.lookup(ids), k, z.shape)
    scales.revive(z, generator=g)
    new = scales.codebook.entries[3:].detach()
    assert float(torch.cdist(new, torch.cat(asked).detach()).amin(1).max()) < 1e-6


@pytest.mark.parametrize("make, shape", [(residual, (8,)), (multiscale, (4, 6))])
def test_turns_leave_their_argument_alone_and_the_gradient_passes(make, shape):
    """Errata H5 and H8: the latent is the caller's, and the encoder learns from the image."""
    book, z = make(), latents(*shape).requires_grad_()
    kept = z.detach().clone()
    decoder = lambda y: (y**3).sum()
    (got,) = torch.autograd.grad(decoder(book(z).z), z)
    assert torch.equal(z.detach(), kept)
    chosen = book.decode(book.encode(z)).detach().requires_grad_()
    (want,) = torch.autograd.grad(decoder(chosen), chosen)
    assert_close(got, want, rtol=1e-12, atol=1e-12)
    bare = book.decode(book.encode(z))
    (none,) = torch.autograd.grad(decoder(bare), z, allow_unused=True)
    assert none is None


@pytest.mark.parametrize("make, shape", [(residual, (8,)), (multiscale, (4, 6))])
def test_the_two_terms_of_turns_have_the_gradient_of_plain_squares(make, shape):
    """Identity 16 (H9), turn by turn: entries, smoothing and encoder, with nothing stopped."""
    book, z = make(), latents(*shape).requires_grad_()
    part = book(z)
    assert_close(part.commitment, part.codebook, rtol=1e-12, atol=0)
    learned = (z, *book.parameters())
    got = torch.autograd.grad((part.commitment + part.codebook).sum(), learned)
    so_far = [book.decode(part.ids[:k]) for k in range(1, 5)]
    plain = sum((z - f).square().flatten(1).mean(1) for f in so_far) / 4
    want = torch.autograd.grad(plain.sum(), learned)
    for one, two in zip(got, want, strict=True):
        assert_close(one, two, rtol=1e-10, atol=1e-13)


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
    with pytest.raises(TypeError, match="z is torch.float32 but the codebook is torch.float64"):
        book(z.float())
    with pytest.raises(TypeError, match="ids must be an int64 tensor, got torch.float64"):
        check_ids(z[:, 0], 7)
    ids = multiscale().encode(latents(4, 6))
    with pytest.raises(ValueError, match="id 6 is out of range for 6 codes"):
        multiscale().decode([ids[0] * 0 + 6])
    with pytest.raises(ValueError, match=r"turn 1 has ids of shape \(5, 2, 2\), got \(5, 1, 1\)"):
        multiscale().decode([ids[0], ids[0]])
    with pytest.raises(ValueError, match="a list of 1 to 4 turns of ids, got a Tensor"):
        residual()._check(ids[0])
    with pytest.raises(ValueError, match=r"turn 1 has ids of shape \(5, 8\), got \(5, 7\)"):
        ids = residual().encode(latents(8))
        residual().decode([ids[0], ids[1][:, :7]])
    with pytest.raises(ValueError, match="scales, depth and decay: one of them at most"):
        vq.ConvVQVAE((1, 8, 8), 6, depth=2, decay=0.9)
