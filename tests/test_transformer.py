"""Transformers: attention against its definition and the oracle, tokens, and who hears whom."""

import math

import pytest
import torch
from torch.testing import assert_close

from minigen import flow, nets, oracle, paths, shapes, targets, train
from minigen import transformer as tr
from minigen.transformer.attention import Project, joined

F64 = torch.float64
B, HEADS, N, M, d = 3, 2, 7, 5, 4


def heads(n, seed, size=d):
    g = torch.Generator().manual_seed(seed)
    return 0.3 + torch.randn(B, HEADS, n, size, generator=g, dtype=F64)


def softmax_by_hand(q, k, v, mask=None):
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return logits.softmax(3) @ v


# Attention --------------------------------------------------------------------------------------


def test_attention_is_its_definition():
    q, k, v = heads(N, 0), heads(M, 1), heads(M, 2)
    assert_close(tr.attention(q, k, v), softmax_by_hand(q, k, v), rtol=0, atol=1e-12)
    mask = torch.rand(N, M, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[:, 0] = True
    got = tr.attention(q, k, v, mask=mask)
    assert_close(got, softmax_by_hand(q, k, v, mask), rtol=0, atol=1e-12)
    moved = v.clone()
    moved[:, :, 3] += 5  # a masked value is not heard
    same = ~mask[:, 3]
    again = tr.attention(q, k, moved, mask=mask)
    assert torch.equal(again[:, :, same], got[:, :, same])
    assert 0 < int(same.sum()) < N and bool((again[:, :, ~same] != got[:, :, ~same]).all())
    with pytest.raises(TypeError, match="a mask is Boolean|Type-check"):
        tr.attention(q, k, v, mask=mask.double().log())


@pytest.mark.parametrize("which", range(3))
def test_attention_has_a_forward_derivative_and_a_gradient_of_it(which):
    """In the queries, in the keys, in the values."""
    q, k, v = given = [heads(N, i).requires_grad_() for i in range(3)]
    along, mask = heads(N, 3), torch.ones(N, N, dtype=torch.bool).tril()
    shapes.forward_mode()

    def slope(kernel):
        moved = lambda x: kernel(*given[:which], x, *given[which + 1 :], mask=mask)
        dy = torch.func.jvp(moved, (given[which],), (along,))[1]
        return dy.detach(), *torch.autograd.grad(dy.square().sum(), (q, k, v))

    for got, true in zip(slope(tr.attention), slope(softmax_by_hand), strict=True):
        assert_close(got, true, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("K, D", [(5, 3), (11, 2)])
def test_one_head_is_the_denoiser_of_an_isotropic_mixture(K, D):
    """Keys a μ/v, biases −a²‖μ‖²/2v (as one more coordinate), values μ, and an affine skip."""
    g = torch.Generator().manual_seed(K)
    means, s = 2 * torch.randn(K, D, generator=g, dtype=F64) + 0.5, 0.6
    weights = torch.rand(K, generator=g, dtype=F64) + 0.2
    law = oracle.GaussianMixture.isotropic(means, s, weights / weights.sum())
    path, t = paths.VP(), torch.tensor(0.31, dtype=F64)
    a, b = path.a(t), path.b(t)
    v = a**2 * s**2 + b**2
    x = 1.5 * torch.randn(B, D, generator=g, dtype=F64)
    scale = math.sqrt(D + 1)  # attention divides the logits by it
    bias = law.weights.log() - a**2 * means.square().sum(1) / (2 * v)
    keys = scale * torch.cat([a * means / v, bias[:, None]], 1)[None, None]
    queries = torch.cat([x, torch.ones(B, 1, dtype=F64)], 1)[None, None]
    heard = tr.attention(queries, keys, means[None, None])[0, 0]
    gain = a * s**2 / v
    got = gain * x + (1 - a * gain) * heard
    assert_close(got, law.denoiser(path)(x, t), rtol=0, atol=1e-14 * 10)


def test_linear_attention_is_the_quadratic_form_of_rank_d():
    q, k, v = heads(N, 0), heads(M, 1), heads(M, 2)
    weights = q.relu() @ k.relu().mT
    weights = weights / weights.sum(3, keepdim=True)  # NaN where a query meets no key
    weights = weights.nan_to_num()
    assert_close(tr.linear_attention(q, k, v), weights @ v, rtol=0, atol=1e-12)
    ones = tr.linear_attention(q, k, torch.ones_like(v))  # each row adds up to 1, or is 0
    met = (q.relu() @ k.relu().mT).sum(3, keepdim=True) > 0
    assert_close(ones, met.double().expand_as(ones), rtol=0, atol=1e-14)
    short = tr.linear_attention(1e-9 * q, k, v)  # no threshold, no epsilon
    assert_close(short, tr.linear_attention(q, k, v), rtol=1e-12, atol=1e-12)
    many = heads(50, 3), heads(50, 4), torch.eye(50, dtype=F64).expand(B, HEADS, 50, 50)
    answers = tr.linear_attention(*many)  # with unit values these are the weights
    assert int(torch.linalg.matrix_rank(answers[0, 0])) == d
    assert int(torch.linalg.matrix_rank(tr.attention(*many)[0, 0])) > d


def test_a_query_that_meets_no_key_gets_a_finite_answer_and_gradient():
    q, k, v = heads(N, 0), heads(M, 1), heads(M, 2)
    q[:, :, 2] = -q[:, :, 2].abs()
    q.requires_grad_()
    got = tr.linear_attention(q, k, v)
    assert torch.equal(got[:, :, 2], torch.zeros(B, HEADS, d, dtype=F64))
    (slope,) = torch.autograd.grad(got.sum(), q)
    assert bool(slope.isfinite().all())


def test_a_projection_splits_the_heads_as_torch_does():
    """Against torch's own function; normed queries and keys against their definition."""
    torch.manual_seed(0)
    h, project = heads(N, 0, 6).flatten(0, 1), Project(6, 3, "qkv", qk_norm=False).double()
    W, b, one = project.linear.weight, project.linear.bias, torch.eye(6, dtype=F64)
    x = h.transpose(0, 1)
    want, _ = torch.nn.functional.multi_head_attention_forward(
        x, x, x, 6, 3, W, b, None, None, False, 0.0, one, None, need_weights=False
    )
    got = joined(tr.attention(*project(h)))
    assert_close(got, want.transpose(0, 1), rtol=1e-12, atol=1e-12)
    normed = Project(6, 3, "qkv", qk_norm=True).double()
    normed.linear.load_state_dict(project.linear.state_dict())
    alive(normed.norms)
    plain, got = project(h), normed(h)
    assert torch.equal(got[2], plain[2])
    for part, x, y in zip("qk", plain, got, strict=False):
        size = (x.square().mean(3, keepdim=True) + 1e-6).sqrt()
        assert_close(y, normed.norms[part].weight * x / size, rtol=1e-12, atol=1e-12)


# Tokens -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, patch", [((1, 8, 8), 2), ((3, 6, 9), 3), ((2, 4, 10), 1)])
def test_patches_are_cut_row_by_row_and_put_together_again(shape, patch):
    x = torch.arange(B * math.prod(shape), dtype=F64).reshape(B, *shape)
    tokens, across = tr.patchify(x, patch), shape[2] // patch
    assert tokens.shape == (B, shape[1] // patch * across, shape[0] * patch**2)
    assert torch.equal(tr.unpatchify(tokens, shape, patch), x)
    i = across + 1 if shape[1] > patch else 1  # the second of its row
    top, left = i // across * patch, i % across * patch
    want = x[:, :, top : top + patch, left : left + patch].flatten(1)
    assert torch.equal(tokens[:, i], want)


def test_tokens_are_counted():
    """An autoencoder's factor f and patches of p pixels: (H/(f p))² tokens."""
    for size, f, p, n in ((1024, 8, 2, 4096), (256, 8, 2, 256), (1024, 32, 1, 1024)):
        assert tr.patchify(torch.zeros(1, 4, size // f, size // f), p).shape == (1, n, 4 * p**2)


def test_patches_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"patches of 3 × 3 .* divisible by 3, got \(1, 8, 8\)"):
        tr.patchify(torch.zeros(2, 1, 8, 8), 3)
    with pytest.raises(ValueError, match="has 16 tokens of 4 values, got 15 of 4"):
        tr.unpatchify(torch.zeros(2, 15, 4), (1, 8, 8), 2)


def test_positions_tell_places_apart_and_a_small_image_is_a_crop():
    place = tr.positions(6, 8, 16)
    assert place.shape == (48, 16)
    assert_close(place.square().sum(1), torch.full((48,), 8.0))  # a cosine and a sine each
    gaps = torch.cdist(place.double(), place.double()) + torch.eye(48)
    assert float(gaps.min()) > 0.1
    crop = place.reshape(6, 8, 16)[1:5, 2:6].reshape(16, 16)
    assert torch.equal(tr.positions(4, 4, 16), crop)
    grid = place.reshape(6, 8, 16).double()
    for step in (1, 3):  # the product depends on the distance only
        products = (grid[:, step:] * grid[:, :-step]).sum(2)
        assert_close(products, products[:1, :1].expand_as(products), rtol=0, atol=1e-5)
    omega = 10.0 ** -torch.linspace(
        0, 4, 4
    )  # row 4 of 6 is 1.5 from the middle, column 1 of 8 −2.5
    want = [f(c * omega) for c in (1.5, -2.5) for f in (torch.cos, torch.sin)]
    assert_close(place.reshape(6, 8, 16)[4, 1], torch.cat(want))
    with pytest.raises(ValueError, match="multiple of 4, got 10"):
        tr.positions(2, 2, 10)


# The networks -----------------------------------------------------------------------------------

SMALL = {"width": 16, "depth": 2, "heads": 4}
NETS = {
    "DiT": lambda **kw: tr.DiT((2, 4, 6), 2, **{**SMALL, **kw}),
    "DiT, linear": lambda **kw: tr.DiT((2, 4, 6), 2, **{**SMALL, "mix": tr.linear_attention, **kw}),
    "MMDiT": lambda **kw: tr.MMDiT((2, 4, 6), 9, 3, 2, **{**SMALL, **kw}),
    "CrossDiT": lambda **kw: tr.CrossDiT((2, 4, 6), 9, 3, 2, **{**SMALL, **kw}),
}
LISTENERS = ["MMDiT", "CrossDiT"]
CAPTION = torch.tensor([[0, 4, 8], [2, 2, 3], [7, 1, 9], [5, 5, 5], [8, 4, 0]])


def alive(net, by=0.2):
    """The net after a pretended training: no parameter is zero any more."""
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(by * torch.randn(p.shape, generator=g))
    return net.double()


def draw(n=5):
    g = torch.Generator().manual_seed(2)
    return 1 + 2 * torch.randn(n, 2, 4, 6, generator=g, dtype=F64), torch.rand(
        n, generator=g, dtype=F64
    )


@pytest.fixture(params=NETS)
def make(request):
    torch.manual_seed(0)
    return NETS[request.param]


def test_blocks_are_the_identity_at_birth(make):
    net = make().double()
    xt, t = draw()
    h, rows = net.tokens(xt), torch.nn.functional.silu(net.time_rows(xt, t))
    c = net.caption(CAPTION, 5).double() if hasattr(net, "caption") else None
    for block in net.blocks:
        got = block(h, rows) if c is None else block(h, c, rows)
        assert torch.equal(got[0] if isinstance(got, tuple) else got, h)
    assert torch.equal(net(xt, t), torch.zeros_like(xt))


def test_the_condition_shifts_scales_and_gates():
    """h + gate attend(norm(h) (1 + scale) + shift), then the same with the perceptron."""
    net = alive(NETS["DiT"]())
    block, (xt, t) = net.blocks[0], draw()
    h, rows = net.tokens(xt), net.time_rows(xt, t)
    norm = lambda h: torch.nn.functional.layer_norm(h, h.shape[2:], eps=1e-6)
    shift1, scale1, gate1, shift2, scale2, gate2 = block.steer(rows)[:, None].chunk(6, 2)
    q, k, v = block.project(norm(h) * (1 + scale1) + shift1)
    mid = h + gate1 * block.out(softmax_by_hand(q, k, v).transpose(1, 2).flatten(2))
    want = mid + gate2 * block.mlp(norm(mid) * (1 + scale2) + shift2)
    assert_close(block(h, rows), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETS)
def test_a_network_is_its_tokens_its_blocks_and_its_image(name):
    """Told with torch's own functions: silu, layer norm, the last shift and scale."""
    torch.manual_seed(0)
    net, (xt, t), F = alive(NETS[name]()), draw(), torch.nn.functional
    rows, h = F.silu(net.time_rows(xt, t)), net.first(tr.patchify(xt, 2)) + net.places
    said = [CAPTION] if name in LISTENERS else []
    c = net.dictionary(CAPTION) + net.order if said else None
    if name == "CrossDiT":
        norm, mlp = net.read
        c = c + mlp(F.layer_norm(c, (16,), norm.weight, norm.bias))
    for block in net.blocks:
        h = block(h, rows) if c is None else block(h, c, rows)
        h, c = h if isinstance(h, tuple) else (h, c)
    shift, scale = net.steer(rows)[:, None].chunk(2, 2)
    last = net.last(F.layer_norm(h, (16,), eps=1e-6) * (1 + scale) + shift)
    want = tr.unpatchify(last, (2, 4, 6), 2)
    assert_close(net(xt, t, *said), want, rtol=1e-11, atol=1e-11)
    assert len(net.blocks) == 2 and len(NETS[name](depth=3).blocks) == 3


def test_the_last_joint_block_hears_the_caption_as_the_others_do():
    """With weights tied to the image's it is one block on the whole sequence, image's part."""
    net, (xt, t) = alive(NETS["MMDiT"]()), draw()
    last, h, c, rows = net.blocks[-1], net.tokens(xt), net.caption(CAPTION, 5), net.time_rows(xt, t)
    tied = ((last.steer, last.image.steer, 0), (last.project.linear, last.image.project.linear, 16))
    for part, whole, first in tied:  # shift and scale of six rows; keys and values of three
        part.weight.data = whole.weight.data[first : first + 32]
        part.bias.data = whole.bias.data[first : first + 32]
    last.project.norms["k"].load_state_dict(last.image.project.norms["k"].state_dict())
    got, same = last(h, c, rows)
    assert torch.equal(same, c)
    want = last.image(torch.cat([h, c], 1), rows)[:, :6]
    assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_a_cross_block_asks_the_caption_between_its_two_halves():
    net, (xt, t) = alive(NETS["CrossDiT"]()), draw()
    block, h, c = net.blocks[0], net.tokens(xt), net.caption(CAPTION, 5)
    rows, norm = net.time_rows(xt, t), net.blocks[0].norm3
    qkv, steer = block.offered(h, rows)
    mid = block.attended(h, joined(softmax_by_hand(*qkv)), steer)
    asked = torch.nn.functional.layer_norm(mid, (16,), norm.weight, norm.bias)
    heard = softmax_by_hand(*block.ask(asked), *block.offer(c))
    want = block.thought(mid + block.heard(joined(heard)), steer)
    assert_close(block(h, c, rows), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETS)
def test_bf16_autocast(name, device):
    """8 bits of mantissa: the same function within a few per cent, also under a gradient."""
    net, (xt, t) = alive(NETS[name]()).float().to(device), [x.float().to(device) for x in draw()]
    said = [CAPTION.to(device)] if name in LISTENERS else []
    with torch.autocast(device.type, torch.bfloat16):
        half = net(xt, t, *said)
        half.float().square().mean().backward()
    whole = net(xt, t, *said).detach()
    assert half.dtype == torch.bfloat16
    assert float((half.detach().float() - whole).norm()) < 0.05 * float(whole.norm())
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


def test_qk_norm_bounds_every_logit_by_the_root_of_d(make):
    seen = []

    def mix(q, k, v):
        seen.append(float((q @ k.mT).detach().abs().max()) / math.sqrt(q.shape[-1]))
        return tr.attention(q, k, v)

    for qk_norm in (True, False):
        seen.clear()
        net = make(qk_norm=qk_norm, mix=mix).double()
        with torch.no_grad():
            for name, p in net.named_parameters():
                if "norms" not in name:
                    p.add_(3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
        net(*draw())
        assert (max(seen) <= math.sqrt(4) + 1e-9) == qk_norm, max(seen)


def test_without_positions_a_transformer_is_equivariant_to_permutations():
    net = alive(NETS["DiT"]())
    xt, t = draw()
    shuffled = torch.randperm(6, generator=torch.Generator().manual_seed(0))

    def permuted(x):
        return tr.unpatchify(tr.patchify(x, 2)[:, shuffled], (2, 4, 6), 2)

    assert not torch.allclose(net(permuted(xt), t), permuted(net(xt, t)), atol=1e-3)
    net.places.zero_()
    assert_close(net(permuted(xt), t), permuted(net(xt, t)), rtol=1e-11, atol=1e-11)


def test_joint_attention_with_tied_weights_is_attention_on_the_whole_sequence():
    """[text; image] with one set of weights is one stream of both."""
    net = alive(NETS["MMDiT"]())
    block, (xt, t) = net.blocks[0], draw()
    block.text.load_state_dict(block.image.state_dict())
    h, c = net.tokens(xt), net.caption(CAPTION, 5)
    rows = net.time_rows(xt, t)
    whole = block.image(torch.cat([h, c], 1), rows)
    got = torch.cat(block(h, c, rows), 1)
    assert_close(got, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LISTENERS)
def test_a_caption_is_heard_in_order(name):
    torch.manual_seed(0)
    net, (xt, t) = alive(NETS[name]()), draw()
    said = net(xt, t, CAPTION)
    far = lambda other: float((net(xt, t, other) - said).detach().abs().amax((1, 2, 3)).min())
    assert far(CAPTION.roll(1, 0)) > 1e-3  # other words
    backwards = CAPTION[[0, 4]].flip(1)
    moved = net(xt[[0, 4]], t[[0, 4]], backwards) - said[[0, 4]]
    assert bool((moved.abs().amax((1, 2, 3)) > 1e-3).all())
    assert far(None) > 1e-3
    null = torch.full_like(CAPTION, 9)
    assert_close(net(xt, t, null), net(xt, t), rtol=0, atol=0)
    short = CAPTION.clone()
    short[:, 2] = 9
    assert_close(net(xt, t, CAPTION[:, :2]), net(xt, t, short), rtol=0, atol=0)
    one = net(xt[2:3], t[2:3], CAPTION[2:3])  # each sample hears its own
    assert_close(one, said[2:3], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LISTENERS)
def test_captions_that_do_not_fit_are_named(name):
    net, (xt, t) = NETS[name]().double(), draw()
    with pytest.raises(ValueError, match="token 10 is out of range for a net of 9 words, 0 … 8"):
        net(xt, t, CAPTION + 1)
    with pytest.raises(ValueError, match="token -1 is out of range"):
        net(xt, t, CAPTION - 1)
    with pytest.raises(ValueError, match="the caption has 4 tokens, this net reads 3 at most"):
        net(xt, t, torch.cat([CAPTION, CAPTION[:, :1]], 1))
    for bad in (CAPTION[:4], CAPTION[:, 0], 3, CAPTION.double()):
        with pytest.raises(
            (ValueError, TypeError), match="a caption is an int64 tensor|Type-check"
        ):
            net(xt, t, bad)


@pytest.mark.parametrize("name", NETS)
def test_widths_that_do_not_fit_are_named(name):
    for bad, sentence in (
        ({"heads": 3}, "3 heads cannot share a width of 16"),
        ({"width": 18, "heads": 3}, "multiple of 4, got 18"),
        ({"depth": 0}, "depth must be a whole number"),
    ):
        with pytest.raises(ValueError, match=sentence):
            NETS[name](**bad)
    with pytest.raises(ValueError, match="patches of 4 × 4 pixels"):
        tr.DiT((1, 6, 8), 4)


@pytest.mark.long
def test_a_transformer_learns_a_mixture_of_images_to_its_floor():
    """Two images apart, VP, x0-prediction: the loss comes near the least there is."""
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    means = torch.stack([torch.linspace(-1, 1, 16), torch.linspace(1, 0, 16).square()])
    law, path = oracle.GaussianMixture.isotropic(means, 0.3), paths.Cosine()
    net, t = tr.DiT((1, 4, 4), 2, 32, 2, 4), torch.tensor(0.5)

    def loss():
        x0 = law.sample(128, generator=g)[0].reshape(-1, 1, 4, 4)
        xt = path.mix(x0, torch.randn(x0.shape, generator=g), t)
        return (net(xt, t) - x0).square().mean()

    losses = torch.tensor([*train.fit(loss, net, steps=300, lr=2e-3, progress=False)])
    floor = float(law.mmse(path, t, 20_000, generator=g))
    assert losses[:3].mean() > 3 * floor
    assert losses[-60:].mean() < 1.25 * floor


def test_a_file_brings_a_transformer_back(tmp_path):
    net = alive(NETS["MMDiT"]()).float()
    train.save(tmp_path / "net.safetensors", net)
    again = train.rebuild(tmp_path / "net.safetensors")
    xt, t = (x.float() for x in draw())
    assert isinstance(net, nets.Conditioned)
    assert_close(again(xt, t, CAPTION), net(xt, t, CAPTION), rtol=0, atol=0)


@pytest.mark.parametrize(
    "make, label", [("DiT((1, 4, 6)", "None"), ("MMDiT((1, 4, 6), 9, 3", "torch.tensor([[0, 4]])")]
)
def test_a_transformer_compiles_in_one_graph(make, label, run_python, device):
    """In a process of its own: the shape checks of these tests cannot be traced.

    On an accelerator by torch's own compiler, on the CPU without one, which would need a compiler
    of C++.
    """
    backend = "eager" if device.type == "cpu" else "inductor"
    run_python(
        "import torch; from minigen.transformer import DiT, MMDiT; torch.manual_seed(0)\n"
        f"net = {make}, patch=2, width=16, depth=2, heads=4).requires_grad_(False)\n"
        "for p in net.parameters(): torch.nn.init.normal_(p, std=0.2)\n"
        f"given = torch.randn(1, 1, 4, 6), torch.rand(1), {label}\n"
        f"net, given = net.to('{device}'), [x if x is None else x.to('{device}') for x in given]\n"
        f"compiled = torch.compile(net, backend='{backend}', fullgraph=True)\n"
        "torch.testing.assert_close(compiled(*given), net(*given), rtol=1e-4, atol=1e-4)"
    )


def test_captions_are_bound_to_a_denoiser_and_to_a_loss_as_labels_are():
    torch.manual_seed(0)
    net = tr.MMDiT((1, 4, 6), words=9, length=3, patch=2, width=16, depth=2, heads=2).double()
    alive(net)
    path, x, ids = paths.Linear(), torch.randn(5, 1, 4, 6, dtype=F64), torch.randint(9, (5, 3))
    t = torch.tensor(0.4, dtype=F64)
    got = paths.denoiser(net, path, targets.velocity, ids)(x, t)
    assert torch.equal(
        got, paths.denoiser(lambda x, t, label: net(x, t, ids), path, targets.velocity)(x, t)
    )
    assert not torch.equal(got, paths.denoiser(net, path, targets.velocity)(x, t))
    eps = torch.randn(5, 1, 4, 6, dtype=F64)
    want = (net(path.mix(x, eps, t.expand(5)), t.expand(5), ids) - (eps - x)).square().flatten(1)
    assert_close(flow.loss(net, x, eps, t.expand(5), ids), want.mean(1))
    with pytest.raises(ValueError, match="4 labels were given for a batch of 5"):
        paths.denoiser(net, path, targets.velocity, ids[:4])(x, t)
