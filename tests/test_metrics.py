"""Each distance against its closed form on normals, its error bar against its own spread."""

import functools
import math

import pytest
import torch

from minigen import metrics, nets

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


@pytest.mark.parametrize("distance", [*DISTANCES, metrics.duplicates])
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


def test_a_share_has_its_binomial_error_and_none_is_certain():
    assert metrics.share_with_error(0.9, 1000).stderr == pytest.approx(0.0095, rel=0.02)
    none = metrics.share_with_error(torch.tensor(0.0), 360)
    assert none.value == 0 and 0.003 < none.stderr < 0.005


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
