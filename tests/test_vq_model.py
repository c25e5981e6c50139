"""VQ-VAEs: which term teaches whom, files, devices, half precision."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from minigen import train, vq

F64 = torch.float64
B, W = 5, 3


def quantizer():
    torch.manual_seed(1)
    return vq.Quantizer(7, W).double()


def residual():
    torch.manual_seed(2)
    return vq.Residual(4, 6, W).double()


@pytest.mark.parametrize("make", [quantizer, residual])
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


def test_one_step_moves_encoder_and_codebook_and_beta_weighs_the_encoder():
    """Which term teaches whom: the image's error all but the codebook, the terms one side each."""
    torch.manual_seed(0)
    model = vq.VQVAE(nn.Linear(4, W).double(), nn.Linear(W, 5).double(), quantizer())
    model.decoder = nn.Linear(W, 4).double()
    parts = model.loss(torch.randn(B, 4, generator=torch.Generator().manual_seed(1), dtype=F64))
    sides = {
        "encoder": model.encoder.weight,
        "decoder": model.decoder.weight,
        "codebook": model.quantizer.entries,
    }
    for name, whom in {
        "reconstruction": {"encoder", "decoder"},
        "codebook": {"codebook"},
        "commitment": {"encoder"},
    }.items():
        loss = getattr(parts, name).sum()
        grads = torch.autograd.grad(loss, [*sides.values()], retain_graph=True, allow_unused=True)
        assert {k for k, g in zip(sides, grads, strict=True) if g is not None} == whom, name


KINDS = {
    "plain": {},
    "depth": {"depth": 3},
    "scales": {"scales": (1, 2, 4)},
    "decay": {"decay": 0.9},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_vqvae_of_images_is_rebuilt_from_its_file(kind, tmp_path):
    torch.manual_seed(0)
    shape = (2, 16, 16) if kind == "scales" else (2, 12, 16)
    model = vq.ConvVQVAE(shape, 6, width=W, channels=4, **KINDS[kind])
    x = torch.rand(B, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.quantizer.start(model.encoder(x), generator=torch.Generator().manual_seed(2))
    assert model.encoder(x).shape == (B, W, shape[1] // 4, 4)
    train.save(tmp_path / "net.safetensors", model.eval())
    again = train.rebuild(tmp_path / "net.safetensors").eval()
    assert_close(again.loss(x), model.loss(x), rtol=0, atol=0)
    assert_close(again.decode(again.encode(x)), model.decoder(model.quantizer(model.encoder(x)).z))


@pytest.mark.parametrize("kind", KINDS)
def test_codebooks_on_each_device_in_both_precisions(kind, device, dtype, generator):
    torch.manual_seed(0)
    model = vq.ConvVQVAE((1, 16, 16), 6, width=W, channels=4, **KINDS[kind]).to(device, dtype)
    x = torch.randn(B, 1, 16, 16, generator=generator, device=device, dtype=dtype)
    book = model.quantizer
    with torch.no_grad():
        z = model.encoder(x)
        book.start(z, generator=generator)
        book.revive(z, generator=generator)
    parts = model.loss(x)
    sum(p.sum() for p in parts).backward()
    for p in parts:
        assert p.shape == (B,) and p.dtype == dtype and p.device.type == device.type
        assert bool(torch.isfinite(p).all())
    ids = model.encode(x)
    first = ids[0] if isinstance(ids, list) else ids
    assert first.dtype == torch.int64 and first.device.type == device.type
    assert 1 <= float(vq.perplexity(first, 6)) <= 6
    double = copy.deepcopy(model).cpu().double()
    assert_close(
        model.decode(ids).cpu().double(),
        double.decode([i.cpu() for i in ids] if isinstance(ids, list) else ids.cpu()),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_under_autocast_the_nearest_entry_is_that_of_full_precision():
    """64 entries close together: in bfloat16 the distances of most would be equal."""
    torch.manual_seed(0)
    book, g = vq.Quantizer(64, W), torch.Generator().manual_seed(0)
    z = (3 + 0.1 * torch.randn(B, W, 40, generator=g)).bfloat16()
    book.start(z.float(), generator=g)
    want = book.nearest(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(book.nearest(z), want)
