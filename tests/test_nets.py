"""The networks: zero at birth, one calling convention, and errors in the user's words."""

import copy
import math

import pytest
import torch

from minigen import nets, transformer

B, K = 5, 3  # B differs from every data axis and from the number of classes
NETS = {
    "MLP": lambda **kw: nets.MLP(2, hidden=16, **kw),
    "MLP on images": lambda **kw: nets.MLP((1, 4, 6), hidden=16, depth=1, **kw),
    "ResMLP": lambda **kw: nets.ResMLP((1, 8, 8), hidden=16, depth=2, **kw),
    "UNet 8": lambda **kw: nets.UNet((1, 8, 8), channels=8, **kw),
    "UNet 16": lambda **kw: nets.UNet((3, 16, 12), channels=8, multiples=(1, 2), **kw),
    "UNet 28": lambda **kw: nets.UNet((1, 28, 28), channels=8, multiples=(1, 1, 2), **kw),
    "DiT": lambda **kw: transformer.DiT((2, 4, 6), width=16, depth=2, heads=4, **kw),
    "UNet 32": lambda **kw: nets.UNet((2, 32, 32), channels=8, multiples=(1, 1, 1, 1), **kw),
}


@pytest.fixture(params=NETS)
def make(request):
    torch.manual_seed(0)
    return NETS[request.param]


def alive(net):
    """The net after a pretended training: no parameter is zero any more."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return net


def draw(net, n=B, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xt = 3 + 2 * torch.randn(n, *net.shape, generator=generator, dtype=torch.float64)
    t = torch.rand(n, generator=generator, dtype=torch.float64)
    return xt, t, torch.randint(K, (n,), generator=generator)


@pytest.mark.parametrize("out", [1, 2])
def test_zero_at_birth(make, device, out):
    net = make(classes=K, out=out).to(device)
    xt, t, label = (x.to(device) for x in draw(net))
    y = net(xt.float(), t.float(), label)
    assert y.shape == (B, out * net.shape[0], *net.shape[1:])
    assert y.device.type == device.type and torch.equal(y, torch.zeros_like(y))


def test_every_parameter_learns(make, device):
    """At birth only the last layer has a gradient; one step later every parameter has one."""
    net = alive(make(classes=K)).to(device)
    xt, t, label = (x.to(device) for x in draw(net))
    net(xt.float(), t.float(), label).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_scalar_time_is_a_constant_batch_of_times(make, double, device):
    net = alive(make(classes=K)).to(device, double)
    xt, _, label = (x.to(device) for x in draw(net))
    t = torch.tensor(0.3, dtype=double, device=device)
    many = net(xt, t.expand(B), label)
    torch.testing.assert_close(net(xt, t, label), many, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(many, net(xt, t + 0.1, label), rtol=1e-3)


def test_scalar_time_is_embedded_once(make):
    net, seen = make(), []
    inner = net.embedding
    net.embedding = lambda_module(lambda t: seen.append(t.shape) or inner(t))
    net(draw(net)[0].float(), torch.tensor(0.3))
    assert seen == [(1,)]


def lambda_module(fn):
    class Wrapped(torch.nn.Module):
        def forward(self, t):
            return fn(t)

    return Wrapped()


def test_samples_do_not_mix(make, double, device):
    """A batch gives what its samples give one by one: time and label reach their own sample."""
    net = alive(make(classes=K)).to(device, double)
    xt, t, label = (x.to(device) for x in draw(net))
    alone = torch.cat([net(xt[i : i + 1], t[i], label[i : i + 1]) for i in range(B)])
    torch.testing.assert_close(net(xt, t, label), alone, rtol=1e-11, atol=1e-11)


def test_null_label_stands_in_for_none(make, double, device):
    net = alive(make(classes=K)).to(device, double)
    xt, t, label = (x.to(device) for x in draw(net))
    null = torch.full((B,), K, device=device)
    torch.testing.assert_close(net(xt, t), net(xt, t, null), rtol=1e-12, atol=1e-12)
    for one in range(K):
        same = torch.full((B,), one, device=device)
        torch.testing.assert_close(net(xt, t, one), net(xt, t, same), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(net(xt, t, one), net(xt, t), rtol=1e-3)
    assert net(xt, t, label[0]).shape == net(xt, t).shape


def test_depends_on_every_input_axis(make, double, device):
    """Every data axis of one sample moves its output, and no other sample's."""
    net = alive(make()).to(device, double)
    xt, t, _ = (x.to(device) for x in draw(net))
    xt.requires_grad_()
    net(xt, t)[1].sum().backward()
    assert xt.grad[1].abs().min() > 0 and not xt.grad[[0, 2, 3, 4]].any()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float64])
def test_another_dtype_is_the_same_function(make, device, half):
    """bfloat16 keeps 8 bits: the same function within a few per cent of the output's size."""
    if half is torch.float64 and device.type == "mps":
        pytest.skip("mps has no float64")
    net = alive(make(classes=K)).to(device)
    xt, t, label = (x.to(device) for x in draw(net))
    want = net(xt.float(), t.float(), label)
    got = copy.deepcopy(net).to(half)(xt.to(half), t.float(), label)
    assert got.dtype == half
    error = (got.float() - want).square().mean().sqrt() / want.square().mean().sqrt()
    assert error < (0.05 if half is torch.bfloat16 else 1e-5)


def test_autocast(make, device):
    net = alive(make(classes=K)).to(device)
    xt, t, label = (x.to(device) for x in draw(net))
    with torch.autocast(device.type, torch.bfloat16):
        got = net(xt.float(), t.float(), label)
    want = net(xt.float(), t.float(), label)
    assert (got.float() - want).square().mean() < 0.05**2 * want.square().mean()


# --- embeddings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "embedding", [nets.Sinusoidal(64), nets.Fourier(64)], ids=lambda e: type(e).__name__
)
def test_embedding_tells_times_apart(embedding, device):
    """No two of the 1,001 knots t = i/1000 look alike, and neighbours look closest."""
    e = embedding.to(device)(torch.linspace(0, 1, 1001, device=device)).cpu()
    distance = torch.cdist(e.double(), e.double(), compute_mode="donot_use_mm_for_euclid_dist")
    near = distance.diagonal(1)
    assert near.min() > 0.05 and near.max() / near.min() < 1.1  # small t is seen as well as large
    far = distance[torch.ones(1001, 1001).triu(diagonal=50).bool()]
    assert far.min() > 5 * near.max()


def test_sinusoidal_is_its_formula(double, device):
    lowest, highest, n = 2.0, 50.0, 3
    t = torch.rand(7, dtype=double, generator=torch.Generator().manual_seed(0)).to(device)
    got = nets.Sinusoidal(2 * n, lowest, highest).to(device, double)(t)
    for i in range(n):
        omega = lowest * (highest / lowest) ** (i / (n - 1))
        torch.testing.assert_close(got[:, i], torch.cos(omega * t), rtol=0, atol=1e-5)
        torch.testing.assert_close(got[:, n + i], torch.sin(omega * t), rtol=0, atol=1e-5)


def test_fourier_kernel_is_gaussian(double, device):
    """E over ω of (2/dim) e(t)·e(s) = exp(−scale² (t − s)²/2), within 5 standard errors."""
    dim, scale = 20_000, 3.0
    e = nets.Fourier(dim, scale, generator=torch.Generator().manual_seed(0)).to(device, double)
    t = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=double, device=device)
    kernel = e(t) @ e(t).T * 2 / dim
    exact = torch.exp(-(scale**2) * (t[:, None] - t) ** 2 / 2)
    torch.testing.assert_close(kernel, exact, rtol=0, atol=5 * math.sqrt(0.5 / (dim / 2)))


def test_frequencies_are_never_rounded_and_are_saved():
    net = nets.MLP(2, embedding=nets.Sinusoidal(8, highest=777.7))
    exact = net.embedding.frequencies.clone()
    assert torch.equal(net.to(torch.bfloat16).embedding.frequencies, exact)
    other = nets.MLP(2, embedding=nets.Sinusoidal(8)).bfloat16()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.embedding.frequencies, exact)


def test_embedding_may_be_any_function(make, device):
    net = make(embedding=lambda t: torch.stack([t, t**2, 1 - t], dim=-1)).to(device)
    xt, t, _ = (x.to(device).float() for x in draw(net))
    assert net(xt, t).shape == xt.shape
    net = nets.MLP(2, embedding=nets.Frequencies(torch.tensor([1.0, 9.0])))
    assert net.time.in_features == 4


@pytest.mark.parametrize("bad", [nets.Sinusoidal, nets.Fourier])
def test_odd_embedding_is_refused(bad):
    with pytest.raises(ValueError, match="needs an even dim of at least ., got 7"):
        bad(7)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label, message",
    [
        (torch.tensor([0, 12, 1, 2, 0]), "label 12 is out of range for a net with 10 classes"),
        (torch.tensor([0, -1, 1, 2, 0]), "label -1 is out of range for a net with 10 classes"),
        (11, "label 11 is out of range for a net with 10 classes"),
        (torch.tensor([1, 2]), r"label must have shape \(5,\) as xt has, got \(2,\)"),
        (torch.tensor([[1]] * 5), r"label must have shape \(5,\) as xt has, got \(5, 1\)"),
    ],
)
def test_bad_label(label, message):
    net = nets.MLP(2, classes=10)
    with pytest.raises(ValueError, match=message):
        net(torch.randn(5, 2), torch.rand(5), label)


@pytest.mark.parametrize("label", [torch.zeros(5), torch.zeros(5, dtype=torch.bool)])
def test_label_of_the_wrong_kind(label):
    with pytest.raises(TypeError, match=r"label must be an int or an int64 tensor of shape \(5,\)"):
        nets.MLP(2, classes=10)(torch.randn(5, 2), torch.rand(5), label)


def test_label_without_classes(make):
    net = make()
    with pytest.raises(ValueError, match="made without classes and takes no label"):
        net(draw(net)[0].float(), torch.tensor(0.5), 1)


def test_bad_data(make):
    net = make()
    xt, t, _ = draw(net)
    with pytest.raises(TypeError, match="xt is torch.float64 but the net is torch.float32"):
        net(xt, t)
    xt, t = xt.float(), t.float()
    with pytest.raises(ValueError, match=r"xt must have shape \(B, \d.*got \(5, \d"):
        net(xt[..., :-1], t)
    with pytest.raises(ValueError, match=r"t must have shape \(\) or \(5,\), got \(3,\)"):
        net(xt, t[:3])
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        net(xt, 1000 * t)
    with pytest.raises(TypeError, match="t must be a float tensor"):
        net(xt, torch.arange(5))
    with pytest.raises(ValueError, match="xt is on meta but the net on cpu"):
        net(xt.to("meta"), t)


def test_an_array_for_a_tensor_is_named(run_python):
    """Of numpy 2 an array has a device, `cpu`, which is not torch's."""
    said = run_python(
        "import torch; from minigen import nets\n"
        "try: nets.MLP(2)(torch.randn(5, 2).numpy(), torch.rand(5))\n"
        "except TypeError as error: print(error)"
    )
    assert said == "xt must be a tensor, got ndarray: use torch.as_tensor"


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: nets.MLP(0), "shape, out and classes must be a whole number"),
        (lambda: nets.MLP(()), "shape, out and classes must be a whole number"),
        (
            lambda: nets.ResMLP(2, classes=-1),
            "shape, out and classes must be a whole number",
        ),
        (lambda: nets.UNet((1, 8, 10)), r"H and W divisible by 4, got \(1, 8, 10\)"),
        (lambda: nets.UNet(64), r"needs a shape \(C, H, W\)"),
        (
            lambda: nets.MLP(2, classes=0),
            "out and classes must be a whole number of at least 1, got 0",
        ),
        (lambda: nets.MLP(2, hidden=0), "hidden must be a whole number of at least 1, got 0"),
        (lambda: nets.MLP(2, depth=0), "depth must be a whole number of at least 1, got 0"),
        (lambda: nets.ResMLP(2, hidden=0), "hidden must be a whole number of at least 1"),
        (lambda: nets.ResMLP(2, depth=0), "depth must be a whole number of at least 1"),
        (lambda: nets.UNet((1, 8, 8), multiples=()), "number of multiples must be a whole number"),
        (lambda: nets.UNet((1, 8, 8), channels=0), r"must be 8, 16, 24, …, got \[0, 0, 0, 0\]"),
        (
            lambda: nets.UNet((1, 8, 8), multiples=(1, 0)),
            r"must be 8, 16, 24, …, got \[32, 32, 0\]",
        ),
        (lambda: nets.UNet((1, 8, 8), 4, (2, 2)), r"must be 8, 16, 24, …, got \[4, 8, 8\]"),
        (lambda: nets.UNet((1, 8, 8), channels=12), "must be 8, 16, 24, …, got"),
    ],
)
def test_bad_construction(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()
