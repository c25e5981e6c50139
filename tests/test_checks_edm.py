"""The checks of lecture 10 accept every right answer, and name what no value tells."""

import math

import pytest
import torch

from minigen import checks, edm, paths
from minigen.checks import NotYet, Wrong
from minigen.checks import edm as check


def by_the_library(F, x, sigma, sigma_data):
    path = paths.EDM(1e3)
    net = edm.scale_input(lambda x, t: F(x, path.sigma(t)), path, sigma_data)
    return paths.denoiser(net, path, edm.target(sigma_data))(x, path.time(sigma))


def by_coefficients(F, x, sigma, sigma_data):
    c_skip, c_out, c_in = (c[:, None] for c in edm.coefficients(sigma, sigma_data))
    return c_skip * x + c_out * F(c_in * x, sigma)


def sample_by_sample(F, x, sigma, sigma_data):
    roots = [math.hypot(float(k), sigma_data) for k in sigma]
    said = F(torch.stack([row / root for row, root in zip(x, roots, strict=True)]), sigma)
    each = zip(x, said, sigma, roots, strict=True)
    return torch.stack([(sigma_data / r) ** 2 * a + k * sigma_data / r * f for a, f, k, r in each])


def as_an_angle(F, x, sigma, sigma_data):
    """sigma = sigma_data tan φ: the skip is cos², and c_out is sigma_data sin φ."""
    phi = torch.atan(sigma / sigma_data).unsqueeze(1)
    return phi.cos() ** 2 * x + sigma_data * phi.sin() * F(phi.cos() / sigma_data * x, sigma)


def even_roots(n, sigma_min, sigma_max, rho):
    roots = torch.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n, dtype=torch.float64)
    return torch.cat([roots**rho, torch.zeros(1, dtype=torch.float64)])


def one_by_one(n, low, high, rho):
    root = lambda i: (1 - i / (n - 1)) * high ** (1 / rho) + i / (n - 1) * low ** (1 / rho)
    return torch.tensor([root(i) ** rho for i in range(n)] + [0.0])


def upwards(n, low, high, rho):
    rising = torch.linspace(low ** (1 / rho), high ** (1 / rho), n, dtype=torch.float64).pow(rho)
    return torch.nn.functional.pad(rising, (1, 0)).flip(0)


def of_the_grid(n, low, high, rho):
    path = paths.Cosine()
    return path.sigma(edm.grid(path, n, low, high, rho))


DENOISERS = [by_the_library, by_coefficients, sample_by_sample, as_an_angle]
LEVELS = [even_roots, one_by_one, upwards, of_the_grid]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.edm_denoise, f) for f in DENOISERS] + [(check.karras_levels, f) for f in LEVELS],
)
def test_every_right_form_is_accepted(exercise, right, capsys, monkeypatch):
    for offset in (0, 1, 77):  # other cases, as a graded check draws them
        monkeypatch.setattr(checks, "OFFSET", offset)
        exercise(right)
        assert capsys.readouterr().out.startswith("right")


@pytest.mark.parametrize("exercise", [check.edm_denoise, check.karras_levels])
def test_the_slips_keep_their_names_in_other_cases(exercise, monkeypatch):
    for offset in (1, 2, 3, 12345):
        monkeypatch.setattr(checks, "OFFSET", offset)
        for why, slip in check.SLIPS[exercise].items():
            with pytest.raises(Wrong) as said:
                exercise(slip)
            assert str(said.value).endswith(why)


def column(F, x, sigma, sigma_data):
    return by_coefficients(lambda x, sigma: F(x, sigma[:, None]), x, sigma, sigma_data)


def without_axes(F, x, sigma, sigma_data):
    c_skip, c_out, c_in = edm.coefficients(sigma, sigma_data)
    return c_skip * x + c_out * F(c_in * x, sigma)


def across(F, x, sigma, sigma_data):
    c_skip, c_out, c_in = edm.coefficients(sigma.mean().expand(3), sigma_data)
    return (c_skip * x + c_out * F(c_in * x, sigma))[:, :1]


def one_level(F, x, sigma, sigma_data):
    return by_coefficients(lambda x, sigma: F(x, float(sigma[0])), x, sigma, sigma_data)


def all_three(F, x, sigma, sigma_data):
    return edm.coefficients(sigma, sigma_data)


def with_math(F, x, sigma, sigma_data):
    return x / math.sqrt(sigma**2 + sigma_data**2)


def a_sum(F, x, sigma, sigma_data):
    root = (sigma + sigma_data)[:, None]
    skip, out = (sigma_data / root) ** 2, sigma[:, None] * sigma_data / root
    return skip * x + out * F(x / root, sigma)


def no_root(F, x, sigma, sigma_data):
    root = (sigma**2 + sigma_data**2)[:, None]
    return sigma_data**2 / root * x + sigma[:, None] * sigma_data / root * F(x / root, sigma)


@pytest.mark.parametrize("wrong, why", [
    (a_sum, r"all three have σ \+ s"),
    (no_root, "the root is missing in c_in and c_out"),
    (column, r"one noise level for each sample, sigma of shape \(5,\), got shape \(5, 1\)"),
    (without_axes, r"shapes did not fit in line .* c\.reshape\(-1, 1\)"),
    (across, r"has shape \(5, 1\), expected \(5, 3\)"),
    (one_level, r"sigma of shape \(5,\), got \d"),
    (all_three, "one tensor of shape .* got a tuple of 3 tensors"),
    (with_math, "wants one number and got a tensor of many: torch.exp"),
    (lambda F, x, sigma, s: by_coefficients(F, x[:1], sigma[:1], s), r"F takes one noise level"),
    (lambda F, x, sigma, s: 2 * by_coefficients(F, x, sigma, s), "2 times what is right"),
    (lambda F, x, sigma, s: by_coefficients(F, x, sigma, s) + 1, "is right, yours gives"),
    (lambda F, x, sigma, s: x.mul_(2), "writes into a tensor"),
    (lambda F, x, sigma, s: by_coefficients(F, x, sigma, s) / 0, "NaN or infinite"),
])  # fmt: skip
def test_a_wrong_denoiser_is_told(wrong, why):
    with pytest.raises(Wrong, match=why):
        check.edm_denoise(wrong)


def roots_to_zero(n, low, high, rho):
    return torch.linspace(high ** (1 / rho), 0, n + 1, dtype=torch.float64) ** rho


def power_first(n, low, high, rho):
    roots = torch.linspace(high**1 / rho, low**1 / rho, n, dtype=torch.float64)
    return torch.cat([roots**rho, torch.zeros(1, dtype=torch.float64)])


@pytest.mark.parametrize("wrong, why", [
    (lambda *a: even_roots(*a).tolist(), "one tensor of shape"),
    (roots_to_zero, "sigma_min is not among the levels"),
    (power_first, "the power binds first"),
    (lambda *a: even_roots(*a).roll(1), "the 0 stands first"),
    (lambda *a: even_roots(*a)[:, None], r"has shape \(8, 1\), expected \(8,\)"),
    (lambda *a: even_roots(*a).round(decimals=1), "is right, yours gives"),
    (lambda n, low, high, rho: even_roots(7, low, high, rho), r"n = 4 levels has shape \(8,\)"),
    (lambda n, low, high, rho: even_roots(n, low, high, rho) / 2, "0.5 times what is right"),
])  # fmt: skip
def test_wrong_levels_are_told(wrong, why):
    with pytest.raises(Wrong, match=why):
        check.karras_levels(wrong)


def test_a_stub_is_no_answer():
    with pytest.raises(NotYet):
        check.edm_denoise(lambda F, x, sigma, sigma_data: ...)
