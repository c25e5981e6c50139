"""Each distance against its closed form on normals, its error bar against its own spread."""

import functools
import math

import pytest
import torch

from minigen import metrics, nets, oracle

DISTANCES = [
    metrics.energy_distance,
    metrics.mmd,
    metrics.sliced_wasserstein,
    metrics.frechet,
]


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def normal(n, mean, std, generator, dtype=torch.float64):
    mean, std = (torch.as_tensor(k, dtype=dtype, device=generator.device) for k in (mean, std))
    z = torch.randn(n, len(mean), generator=generator, dtype=dtype, device=generator.device)
    return mean + std * z


def mean_abs(mean, var):
    """E|N(mean, var)|, the folded normal."""
    phi = math.exp(-(mean**2) / (2 * var)) * math.sqrt(2 * var / math.pi)
    return phi + mean * math.erf(mean / math.sqrt(2 * var))


def energy_of_normals(m1, s1, m2, s2):
    across = mean_abs(m1 - m2, s1**2 + s2**2)
    return 2 * across - mean_abs(0, 2 * s1**2) - mean_abs(0, 2 * s2**2)


def kernel_of_normals(m, var, dim, h):
    """E exp(−‖d‖²/2h²) for d ~ N(m, var I)."""
    return (h**2 / (h**2 + var)) ** (dim / 2) * math.exp(-(m @ m) / (2 * (h**2 + var)))


def around(estimates, truth, sigmas=4.0):
    """Whether the mean of independent estimates meets the truth within its standard error."""
    estimates = torch.stack(estimates)
    error = estimates.std() / math.sqrt(len(estimates))
    return abs(estimates.mean() - truth) < sigmas * error


def test_energy_distance_is_unbiased_at_small_samples(device, double):
    g = seeded(1, device)
    got = [
        metrics.energy_distance(normal(7, [0.5], [1.3], g), normal(5, [-0.4], [0.6], g))
        for _ in range(1000)
    ]
    assert around(got, energy_of_normals(0.5, 1.3, -0.4, 0.6))


def test_mmd_is_unbiased_at_small_samples(device, double):
    g, h, m = seeded(2, device), 0.8, torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
    got = [
        metrics.mmd(normal(7, m, [1.2] * 3, g), normal(5, 0 * m, [0.7] * 3, g), bandwidth=h)
        for _ in range(1000)
    ]
    within = kernel_of_normals(0 * m, 2 * 1.2**2, 3, h) + kernel_of_normals(0 * m, 2 * 0.7**2, 3, h)
    assert around(got, within - 2 * kernel_of_normals(m, 1.2**2 + 0.7**2, 3, h))


def test_mmd_takes_the_median_distance_as_its_bandwidth():
    x, y = normal(40, [1.0, 2.0], [0.3, 3.0], seeded()), normal(30, [0.0, 2.0], [1, 1], seeded(1))
    both = torch.cat([x, y])
    median = torch.cdist(both, both).flatten().median()
    torch.testing.assert_close(metrics.mmd(x, y), metrics.mmd(x, y, bandwidth=float(median)))
    torch.testing.assert_close(metrics.mmd(x, y), metrics.mmd(7 * x, 7 * y))


def test_distances_between_equal_laws_straddle_zero():
    g = seeded(3)
    for distance in (metrics.energy_distance, metrics.mmd):
        got = [
            distance(normal(20, [3.0, 1.0], [2, 1], g), normal(30, [3.0, 1.0], [2, 1], g))
            for _ in range(300)
        ]
        assert min(got) < 0 < max(got)
        assert distance is metrics.mmd or around(got, 0.0)  # its median moves with the data


def test_wasserstein_in_one_dimension_is_exact_for_any_two_sizes(device, double):
    x, y = normal(6, [1.0], [2], seeded(0, device)), normal(4, [0.0], [1], seeded(1, device))
    many = metrics.sliced_wasserstein(
        x.repeat_interleave(2, dim=0), y.repeat_interleave(3, dim=0), directions=3
    )
    torch.testing.assert_close(metrics.sliced_wasserstein(x, y, directions=3), many)
    gap = (x.sort(dim=0).values.repeat_interleave(2, 0)) - y.sort(dim=0).values.repeat_interleave(
        3, 0
    )
    torch.testing.assert_close(many, gap.square().mean().sqrt())


def test_sliced_wasserstein_of_a_shift_is_its_length_over_root_d(device, double):
    g = seeded(4, device)
    x, shift = normal(50, [1.0] * 5, [2.0] * 5, g), torch.tensor([0.3, -1, 0.2, 0, 2], dtype=double)
    shift = shift.to(device)
    got = metrics.sliced_wasserstein(x, x + shift, directions=20_000, generator=g)
    want = shift.norm() / math.sqrt(5)
    assert abs(got / want - 1) < 0.03  # E(θ·δ)² = ‖δ‖²/D; 4 standard errors of 20,000 directions


def test_sliced_wasserstein_of_normals_tends_to_their_closed_form():
    x, y = (
        normal(40_000, [0.0] * 3, [2.0] * 3, seeded()),
        normal(40_000, [0.0] * 3, [0.5] * 3, seeded(1)),
    )
    assert abs(metrics.sliced_wasserstein(x, y, generator=seeded(2)) - 1.5) < 0.03


def whitened(n, dim, generator):
    """A sample whose mean is 0 and covariance I to rounding."""
    z = normal(n, [0.0] * dim, [1.0] * dim, generator)
    z = z - z.mean(dim=0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(z.T.cov())).T


def test_frechet_of_given_moments_is_the_closed_form(device, double):
    g = seeded(5, device)
    a, b = (torch.randn(4, 4, generator=g, dtype=double, device=device) for _ in range(2))
    m = torch.tensor([1.0, -2, 0.5, 0], dtype=double, device=device)
    x, y = whitened(90, 4, g) @ a.T + m, whitened(70, 4, g) @ b.T
    s1, s2 = a @ a.T, b @ b.T
    # tr (√S₁ S₂ √S₁)^½ = Σ √ of the eigenvalues of S₁ S₂, a product that is not symmetric
    root = torch.linalg.eigvals((s1 @ s2).cpu()).real.sqrt().sum().to(device)
    want = m @ m + s1.trace() + s2.trace() - 2 * root
    torch.testing.assert_close(metrics.frechet(x, y), want)
    torch.testing.assert_close(metrics.frechet(y, x), want)
    single = metrics.frechet(x.float(), y.float())
    assert single.dtype == torch.float32 and single.device.type == device.type
    torch.testing.assert_close(single.double(), want, rtol=1e-4, atol=1e-4)


def test_frechet_sees_features_and_survives_a_singular_covariance():
    x, y = normal(30, [1.0, 0.0], [1, 2], seeded()), normal(30, [0.0, 0.0], [1, 2], seeded(1))
    first = metrics.frechet(x, y, features=lambda z: z[:, :1])
    m, s = x[:, 0].mean() - y[:, 0].mean(), x[:, 0].std() - y[:, 0].std()
    torch.testing.assert_close(first, m**2 + s**2)
    flat = metrics.frechet(x, x + 3, features=lambda z: z[:, [0, 0, 1, 1, 0]])
    torch.testing.assert_close(flat, torch.tensor(45.0, dtype=torch.float64))


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_read_any_shape_and_follow_the_data(distance, dtype, device, generator):
    x = torch.randn(9, 1, 2, 3, generator=generator, dtype=dtype, device=device)
    y = 2 * torch.randn(8, 1, 2, 3, generator=generator, dtype=dtype, device=device)
    kwargs = {"generator": seeded()} if distance is metrics.sliced_wasserstein else {}
    got = distance(x, y, **kwargs)
    assert got.shape == () and got.dtype == dtype and got.device.type == device.type
    kwargs = {"generator": seeded()} if kwargs else {}
    torch.testing.assert_close(got, distance(x.flatten(1), y.flatten(1), **kwargs))


@pytest.mark.parametrize("distance", [*DISTANCES, metrics.duplicates, metrics.memorised])
def test_samples_that_cannot_be_compared_are_refused(distance):
    x = torch.randn(5, 3, generator=seeded())
    with pytest.raises(ValueError, match=r"samples of shapes \(3,\) and \(2,\)"):
        distance(x, x[:, :2])
    with pytest.raises(ValueError, match="two samples or more, got 5 and 1"):
        distance(x, x[:1])
    with pytest.raises(ValueError, match="not finite"):
        distance(x, x.log())


def test_the_jackknife_covers_the_truth_as_often_as_it_says():
    g, truth, hits, n = seeded(6), energy_of_normals(1.0, 1.0, 0.0, 1.5), 0, 300
    for _ in range(n):
        x, y = normal(120, [1.0], [1.0], g), normal(100, [0.0], [1.5], g)
        e = metrics.with_error(metrics.energy_distance, x, y, repeats=20, generator=g)
        hits += abs(e.value - truth) < 2.09 * e.stderr  # Student's 95 % point at 19
    assert abs(hits / n - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n)


def test_the_jackknife_of_a_difference_of_means_is_its_textbook_error():
    x, y = normal(400, [1.0], [2.0], seeded()), normal(300, [0.0], [0.5], seeded(1))
    e = metrics.with_error(lambda a, b: a.mean() - b.mean(), x, y, repeats=100, generator=seeded())
    assert e.value == float(x.mean() - y.mean())
    assert abs(e.stderr / math.sqrt(4 / 400 + 0.25 / 300) - 1) < 0.3  # 4/√(2·100)


def test_the_squared_error_of_the_jackknife_is_unbiased_for_a_mean():
    """Three groups of four: over random groupings its mean is the sample variance over n."""
    x, g = normal(12, [1.0], [2.0], seeded()), seeded(1)
    mean = lambda a, b: a.mean()
    squares = [
        metrics.with_error(mean, x, x, repeats=3, generator=g).stderr ** 2 for _ in range(1000)
    ]
    assert around([torch.tensor(s) for s in squares], float(x.var()) / 12)
    assert (
        abs(sum(squares) / 1000 / (float(x.var()) / 12) - 1) < 0.15
    )  # and R for R − 1 adds a half


def test_the_jackknife_is_cautious_where_the_laws_agree():
    g, z = seeded(7), []
    for _ in range(100):
        x, y = normal(80, [1.0, 0], [1, 2], g), normal(80, [1.0, 0], [1, 2], g)
        e = metrics.with_error(metrics.energy_distance, x, y, generator=g)
        z.append(e.value / e.stderr)
    assert torch.tensor(z).std() < 1.2


def test_with_error_refuses_more_groups_than_samples():
    x = torch.zeros(10, 2)
    with pytest.raises(ValueError, match="repeats must lie between 2 and half the samples, got 6"):
        metrics.with_error(metrics.energy_distance, x, x, repeats=6)


def test_an_estimate_prints_two_figures_of_its_error():
    assert str(metrics.Estimate(3.14159, 0.0213)) == "3.142 ± 0.021"
    assert str(metrics.Estimate(314.159, 21.3)) == "314 ± 21"
    assert str(metrics.Estimate(1.0, 0.0)) == "1 ± 0"
    assert repr(metrics.Estimate(3.14159, 0.0213)) == "3.142 ± 0.021"  # the end of a cell


def test_a_share_has_its_binomial_error_and_none_is_certain():
    assert metrics.share_with_error(0.9, 1000).stderr == pytest.approx(0.0095, rel=0.02)
    none = metrics.share_with_error(torch.tensor(0.0), 360)
    assert none.value == 0 and 0.003 < none.stderr < 0.005
    few = metrics.share_with_error(0.5, 12)  # (n p + 2)/(n + 4) = 1/2, in 16 samples
    assert few.value == 0.5 and few.stderr == pytest.approx(1 / 8, rel=1e-12)


def test_duplicates_finds_copies_and_takes_fresh_data_for_fresh(device, generator):
    train = torch.randn(1500, 4, generator=generator, device=device)
    fresh = torch.randn(3000, 4, generator=generator, device=device)
    assert metrics.duplicates(train[:200] + 1e-5, train) == 1
    share = metrics.duplicates(fresh, train)
    error = math.sqrt(0.01 / 1500 + 0.01 / 3000)  # of the quantile and of the share
    assert abs(share - 0.01) < 4 * error
    mixed = torch.cat([train[:300], fresh[:2700]])
    assert abs(metrics.duplicates(mixed, train) - 0.109) < 4 * error
    assert metrics.duplicates(fresh, train, quantile=0.5) > 0.4


def test_accuracy_counts_the_largest_logit():
    logits = torch.tensor([[0.1, 0.2, 0.0], [3.0, 2.0, 1.0], [0.0, 0.0, 1.0], [0.0, 1.0, 2.0]])
    label = torch.tensor([1, 0, 2, 0])
    assert metrics.accuracy(lambda x: x, logits, label) == 0.75


def test_the_classifier_reads_digits_and_its_features_feed_its_logits(device):
    net = nets.DigitsClassifier().to(device)
    x = torch.randn(5, 1, 8, 8, generator=seeded(0, device), device=device)
    assert net(x).shape == (5, 10) and net.features(x).shape == (5, 64)
    torch.testing.assert_close(net.logits(net.features(x)), net(x))
    distance = functools.partial(metrics.frechet, features=net.features)
    assert distance(x, x).abs() < 1e-4


def test_memory_is_found_through_grain_and_fresh_data_are_fresh(device, generator):
    """Grain lengthens the squares to all images alike: copies are found as without it."""
    make = lambda n: torch.randn(n, 30, generator=generator, device=device)
    train, fresh = make(500), make(400)
    error = math.sqrt(0.01 * 0.99 / 400)
    for std in (0.0, 0.3):
        share = metrics.memorised(train[:300] + std * make(300), train)
        assert share > 0.9  # in 30 dimensions almost none has a near twin
        assert metrics.memorised(fresh + std * make(400), train) < 0.01 + 5 * error
    assert metrics.duplicates(train[:300] + make(300), train) < 0.1  # to it they are fresh
    half = torch.cat([fresh[:150], train[:150]])
    assert abs(metrics.memorised(half, train) - 0.5) < 0.06
    assert metrics.memorised(fresh, train, quantile=0.5) > 0.4
    with pytest.raises(ValueError, match="two neighbours"):
        metrics.memorised(fresh, train[:2])


def test_recall_counts_what_is_within_reach(device, dtype):
    """By the definition, ball by ball; then half of the data left out is half the recall."""
    g = torch.Generator().manual_seed(0)
    x, real = torch.randn(40, 3, generator=g), 1.5 * torch.randn(30, 3, generator=g)
    x, real = x.to(device, dtype), real.to(device, dtype)
    apart = (x[:, None] - x[None]).square().sum(-1).sqrt()
    radius = apart.sort(dim=1).values[:, 2]  # the second neighbour, after itself
    inside = (real[:, None] - x[None]).square().sum(-1).sqrt() <= radius
    want = inside.any(1).double().mean()
    found = metrics.recall(x, real, k=2)
    assert found.dtype == dtype and abs(float(found) - float(want)) < 1e-6
    two = torch.cat([real - 50, real + 50])
    assert float(metrics.recall(two[:30] + 0.01, two)) == 0.5
    assert float(metrics.recall(two, two[:30] + 0.01)) == 1.0  # the precision is not touched
    doubled = metrics.recall(x, real, features=lambda z: 2 * z, k=2)
    assert float(doubled) == float(found)


def test_recall_refuses_impossible_neighbours():
    for k in (0, 5):
        with pytest.raises(ValueError, match="k counts neighbours among the 5 samples"):
            metrics.recall(torch.randn(5, 2), torch.randn(9, 2), k=k)


# ---- What has surprised ------------------------------------------------------------------------

PAIRS = [
    *DISTANCES,
    metrics.duplicates,
    functools.partial(metrics.recall, k=2),
    lambda x, y: metrics.wasserstein_1d(x.flatten(), y.flatten()),
]


def seen(distance, *samples):
    """The distance, along the same random directions each time."""
    if distance is metrics.sliced_wasserstein:
        return distance(*samples, generator=seeded())
    return distance(*samples)


@pytest.mark.parametrize("distance", [*DISTANCES[:3], PAIRS[-1]])  # frechet has no gradient
def test_a_sample_has_a_finite_gradient_of_its_distance_from_itself(distance):
    for dtype in (torch.float32, torch.float64):
        a = normal(20, [1.0, -2.0], [2.0, 0.3], seeded(), dtype).requires_grad_()
        value = seen(distance, a, a.detach())
        value.backward()
        assert bool(torch.isfinite(a.grad).all())
        if distance is metrics.sliced_wasserstein:
            assert value == 0 and not bool(a.grad.any())


def test_sliced_wasserstein_keeps_its_gradient_elsewhere_and_its_overflow():
    a, b = normal(9, [1.0] * 3, [2.0] * 3, seeded()), normal(7, [0.0] * 3, [1.0] * 3, seeded(1))
    distance = lambda z: metrics.sliced_wasserstein(z, b, generator=seeded())
    assert torch.autograd.gradcheck(distance, a.requires_grad_())
    far = torch.full((5, 3), 3e38)
    assert not bool(torch.isfinite(metrics.sliced_wasserstein(far, -far)))


@pytest.mark.parametrize("distance", PAIRS)
def test_samples_of_any_number_type_are_compared_in_floats(distance):
    """Whole numbers, which wrap and truncate, half precision, and two that differ."""
    g = seeded()
    x, y = (torch.randint(0, 200, (n, 3), generator=g) for n in (12, 9))
    want = seen(distance, x.double(), y.double())
    for kinds in (
        (torch.uint8, torch.uint8), (torch.int64, torch.int64), (torch.int64, torch.float32),
        (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16),
        (torch.float32, torch.float64),
    ):  # fmt: skip
        got = seen(distance, x.to(kinds[0]), y.to(kinds[1]))
        assert got.dtype == (torch.float64 if torch.float64 in kinds else torch.float32)
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("distance", PAIRS)
def test_numbers_are_vectors_of_one_coordinate(distance):
    x, y = normal(12, [1.0], [2.0], seeded()), normal(9, [0.0], [1.0], seeded(1))
    torch.testing.assert_close(seen(distance, x[:, 0], y[:, 0]), seen(distance, x, y))


def test_copies_are_copies_where_the_training_data_hold_twins():
    train = torch.randn(200, 4, generator=seeded())
    train[-4:] = train[:4]  # 2 %: the quantile of the nearest distances is 0
    assert metrics.duplicates(train, train) == 1
    fresh = torch.randn(300, 4, generator=seeded(1))
    assert metrics.duplicates(torch.cat([fresh, train[50:150]]), train) == 0.25
    binary = (train > 0).float()  # every image has its twins
    assert metrics.duplicates(binary, binary) == 1 and metrics.duplicates(binary + 0.1, binary) == 0


def test_a_bandwidth_must_have_a_length():
    x = (torch.randn(30, 1, generator=seeded()) > 0).float()
    with pytest.raises(
        ValueError, match="bandwidth must be positive, got 0: do many samples agree"
    ):
        metrics.mmd(x, x[:20])
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="bandwidth must be positive"):
            metrics.mmd(x, x, bandwidth=wrong)
    p, q, k = float(x.mean()), float(x[:20].mean()), math.exp(-0.5)  # E k from the shares of 1s
    biased = (p - q) ** 2 * 2 * (1 - k)
    assert abs(float(metrics.mmd(x, x[:20], bandwidth=1.0)) - biased) < (1 - k) * (1 / 29 + 1 / 19)


def test_directions_are_counted():
    x = torch.randn(5, 3, generator=seeded())
    for wrong in (0, -1, 2.0):
        with pytest.raises((ValueError, TypeError), match="directions"):
            metrics.sliced_wasserstein(x, x + 1, directions=wrong)


def test_accuracy_compares_one_label_with_each_sample():
    logits, label = torch.eye(8), torch.arange(8)
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.uint8):
        share = metrics.accuracy(lambda x: x.float(), logits.to(kind), label)
        assert share == 1 and share.is_floating_point()
    with pytest.raises((ValueError, TypeError), match="share one shape|label"):
        metrics.accuracy(lambda x: x, logits, label[:, None])
    with pytest.raises(ValueError, match="the logits holds no samples"):
        metrics.accuracy(lambda x: x, logits[:0], label[:0])


def test_the_words_for_labels_without_the_runtime_check(run_python):
    said = run_python(
        "import torch; from minigen import metrics\n"
        "x, label = torch.eye(8), torch.arange(8)\n"
        "for run in (lambda: metrics.accuracy(lambda x: x, x, label[:, None]),\n"
        "            lambda: metrics.sliced_wasserstein(x, x, directions=2.0)):\n"
        "    try: run()\n"
        "    except ValueError as error: print(error)"
    ).splitlines()
    assert said[0] == "predictions and labels share one shape, got (8,) and (8, 1)"
    assert said[1] == "directions must be a whole number of at least 1, got 2.0"


def test_mode_coverage_reads_numbers_and_refuses_none():
    law = oracle.GaussianMixture.isotropic(torch.tensor([[-5.0], [5.0]]), 0.5)
    x = law.sample(40, generator=seeded())[0]
    assert metrics.mode_coverage(x[:, 0], law) == metrics.mode_coverage(x, law)
    assert metrics.mode_coverage(x[:, 0], law).hit == 2
    with pytest.raises(ValueError, match="x holds no samples"):
        metrics.mode_coverage(x[:0], law)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_a_reference_is_recall_precision_and_memory_in_one(k, generator, device, dtype):
    draw = lambda *shape: torch.randn(*shape, generator=generator, device=device, dtype=dtype)
    real = draw(60, 2, 3)
    x = torch.cat([draw(30, 2, 3), real[:5]])
    got = metrics.Reference(real, k=k, quantile=0.1)(x)
    want = (
        metrics.recall(x, real, k=k),
        metrics.recall(real, x, k=k),
        metrics.memorised(x, real, quantile=0.1),
    )
    assert got == want and 0 < min(want) and max(want) < 1
    with pytest.raises(ValueError, match="k counts neighbours among the 60 images, got 60"):
        metrics.Reference(real, k=60)
    with pytest.raises(ValueError, match=f"k counts neighbours among the {k} samples, got {k}"):
        metrics.Reference(real, k=k)(x[:k])  # as `recall`: not a reach without end
