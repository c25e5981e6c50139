"""The small vocabulary that all rooms share: how coefficients meet data, and what is refused."""

import pytest
import torch

from minigen import shapes


def test_a_coefficient_meets_the_samples_it_belongs_to(device, dtype):
    x = torch.ones(3, 2, 4, dtype=dtype, device=device)
    mask = torch.tensor([True, False, True], device=device)
    assert shapes.per_sample(mask, x).shape == (3, 1, 1)
    assert shapes.per_sample(mask, x).dtype == torch.bool  # `like` would have cast it
    assert shapes.per_sample(mask[0], x).shape == ()
    assert shapes.per_sample(mask, x[:, 0, 0]).shape == (3,)


def test_times_are_never_rounded_below_float32():
    ts = torch.arange(1, 1000, dtype=torch.float64) / 1000
    for dtype, seen in (
        (torch.bfloat16, torch.float32), (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):  # fmt: skip
        times = shapes.clock(ts, torch.zeros(2, dtype=dtype))
        assert times[0].dtype == seen and len({float(t) for t in times}) == 999


def test_values_are_looked_at_on_the_cpu_alone():
    assert shapes.readable(torch.zeros(2)) and not shapes.readable(torch.zeros(2, device="meta"))


def test_a_generator_of_another_device_is_named():
    g, x = torch.Generator(), torch.zeros(2, device="meta")
    assert shapes.check_generator(x, None) is None
    assert shapes.check_generator(torch.zeros(2), g) is None
    with pytest.raises(ValueError, match=r"generator is on cpu but the data is on meta"):
        shapes.check_generator(x, g)


@pytest.mark.parametrize(
    "x, sentence",
    [
        (
            torch.tensor([3.0, 1.0, 2.0]),
            r"x\[1\] = 1 is followed by x\[2\] = 2; did you mean x.flip",
        ),
        (torch.tensor([1.0, torch.nan]), r"x\[0\] = 1 is followed by x\[1\] = nan"),
        (torch.zeros(0), r"must have shape \(N,\), got \(0,\)"),
        (torch.tensor([2, 1]), "must be a float tensor, got torch.int64"),
        ([2.0, 1.0], r"must be a float tensor, got \[2.0, 1.0\]"),
    ],
)
def test_what_does_not_fall_is_named(x, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        shapes.check_falls(x, "x", "x must fall", "x.flip(0)")


def test_what_falls_comes_back_in_float64():
    x = torch.tensor([3.0, 1.0, -2.0], requires_grad=True)
    fell = shapes.check_falls(x, "x", "", "")
    assert fell.tolist() == [3, 1, -2] and fell.dtype == torch.float64 and not fell.requires_grad


def test_batches_are_named():
    x = torch.zeros(3, 2)
    assert shapes.check_batch(x, "x") is None and shapes.check_alike(x, x + 1, "these") is None
    with pytest.raises(TypeError, match=r"x must be a float tensor of shape \(B, ...\), got list"):
        shapes.check_batch([0.0], "x")
    with pytest.raises(TypeError, match="got torch.int64"):
        shapes.check_batch(x.long(), "x")
    for empty in (x[:0], x[0, 0]):
        with pytest.raises(ValueError, match="is its class empty"):
            shapes.check_batch(empty, "x")
    with pytest.raises(ValueError, match=r"x and y share one shape, got \(3, 2\) and \(3, 1\)"):
        shapes.check_alike(x, x[:, :1], "x and y")


def test_an_answer_is_of_the_kind_of_what_was_asked():
    x = torch.zeros(3, 2)
    assert shapes.check_answer(x + 1, x).shape == (3, 2)
    for wrong in (x[:, :1], x[:, None], None):
        with pytest.raises(ValueError, match=r"for states \(3, 2\) the net or denoiser gave"):
            shapes.check_answer(wrong, x)
    with pytest.raises(TypeError, match="answered in torch.float64"):
        shapes.check_answer(x.double(), x)
    with torch.autocast("cpu", torch.bfloat16):  # whose nets answer in bfloat16 as they should
        assert shapes.check_answer(x.bfloat16(), x).dtype == torch.bfloat16


def test_a_net_of_another_dtype_is_named():
    net, x = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU()), torch.zeros(3, 2)
    for fits in (net, torch.nn.ReLU(), lambda x: x):
        assert shapes.check_dtype(fits, x) is None
    with pytest.raises(TypeError, match="are torch.float64 but the net's parameters are torch.f"):
        shapes.check_dtype(net, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        shapes.check_dtype(net, x.bfloat16())
    net[0].double()  # of two dtypes, as under mixed precision: whoever makes such a net knows
    shapes.check_dtype(net, x)
    shapes.check_dtype(net, x.double())


def test_labels_are_named():
    for good in (0, 2, torch.tensor(1), torch.tensor([0, 2, 1])):
        assert shapes.check_label(good, 3) is None
    for bad, kind in ((3, ValueError), (-1, ValueError), (torch.tensor([0, 3]), ValueError),
                      (1.0, TypeError), (True, TypeError), (torch.zeros(3), TypeError),
                      (torch.zeros(3, 1).long(), TypeError), ("cat", TypeError)):  # fmt: skip
        with pytest.raises(kind, match="label"):
            shapes.check_label(bad, 3)


def test_as_many_as_samples():
    x, t = torch.zeros(3, 2), torch.rand(3)
    assert shapes.check_length(t, x, "times") is None and shapes.check_times(t, x) is t
    assert shapes.check_times(t[0], x) == t[0] and shapes.check_pair(x, x, t) is None
    with pytest.raises(ValueError, match="2 times were given for a batch of 3"):
        shapes.check_pair(x, x, t[:2])
    with pytest.raises(TypeError, match="x0 and eps are pairs and share one dtype"):
        shapes.check_pair(x, x.double())


def test_what_is_traced_has_no_values():
    seen = []
    look = lambda x: seen.append((shapes.traced(x), shapes.readable(x))) or x
    torch.func.vmap(look)(torch.rand(3))
    assert seen == [(True, False)] and not shapes.traced(torch.rand(3))


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3", None])
def test_counts_are_whole_and_positive(n):
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        shapes.check_count(n, "steps")
    assert shapes.check_count(1) is None


def test_what_is_no_tensor_is_named():
    shapes.check_tensor(torch.zeros(0), "x")
    with pytest.raises(TypeError, match="x must be a tensor, got list: use torch.as_tensor"):
        shapes.check_tensor([1.0], "x")
    with pytest.raises(ValueError, match="x must have a first axis, got the one number 1.0"):
        shapes.check_tensor(torch.tensor(1.0), "x")
    with pytest.raises(TypeError, match="a and b are tensors, got Tensor and float"):
        shapes.check_alike(torch.zeros(2), 0.0, "a and b")


def test_no_derivative_of_ours_warns_of_torchs_own_jit(run_python):
    """Forward mode is loaded in silence, whoever asks first; the caller can do nothing about it."""
    start = "import torch, warnings; warnings.simplefilter('error'); x = torch.zeros(3, 2)\n"
    run_python(
        start + "from minigen import paths, solvers\n"
        "[*solvers.taylor(lambda x, t: x / 2, paths.Linear(), x + 1, torch.tensor([0.8, 0.2]))]"
    )
    run_python(
        start + "from minigen import distill; t = torch.rand(3)\n"
        "distill.mean_flow_loss(lambda x, t, s: x * t[:, None], x, x + 1, t, t / 2)"
    )


def test_the_worst_number_out_of_range_is_found():
    for ids, wrong in (([0, 2], None), ([2, 3], 3), ([5, -1], -1), ([-2, -1], -2), ([4, 7], 7)):
        assert shapes.outside(torch.tensor(ids), 3) == wrong, ids
