"""What a correlated sample is worth, against AR(1) chains, of which everything is known."""

import math

import pytest
import torch

from minigen import markov
from minigen.markov import diagnostics


def autoregressive(phi, n, chains, generator, device="cpu", mean=0.7, std=1.5):
    """n stationary states of x ← φ x + √(1 − φ²) z in each of `chains`, float64, then rescaled."""
    kind = {"generator": generator, "dtype": torch.float64, "device": device}
    x = torch.randn(chains, **kind)
    states = []
    for _ in range(n):
        states.append(x)
        x = phi * x + math.sqrt(1 - phi**2) * torch.randn(chains, **kind)
    return mean + std * torch.stack(states)


def cpu_chain(phi, n, chains, seed=0):
    return autoregressive(phi, n, chains, torch.Generator().manual_seed(seed))


def test_the_names_of_lecture_one_are_these():
    for name in ("autocorrelation", "effective_sample_size", "rhat", "estimate"):
        assert getattr(markov, name) is getattr(diagnostics, name)


def test_autocorrelation_is_the_mean_over_pairs():
    """The Fourier transform against the definition, at n ≠ B, for one chain and for several."""
    chain = cpu_chain(0.6, 37, 5)
    for x in (chain, chain[:, 0]):
        d = x - x.mean()
        c = torch.stack([(d[: len(d) - k] * d[k:]).mean() for k in range(9)])
        found = diagnostics.autocorrelation(x, 9)
        torch.testing.assert_close(found, c / c[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.6])
def test_effective_sample_size_of_an_ar1(phi):
    n, chains = 2000, 100
    right = n * chains * (1 - phi) / (1 + phi)
    assert (
        abs(float(diagnostics.effective_sample_size(cpu_chain(phi, n, chains))) / right - 1) < 0.1
    )


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_the_stated_error_of_the_mean_is_the_right_one(phi):
    """Var(x̄) = (1+φ)/(1−φ)/n − 2φ(1−φⁿ)/(n(1−φ))², its spread, and `estimate`."""
    n, repeats = 400, 4000
    chain = cpu_chain(phi, n, repeats, seed=1) / 1.5  # variance 1
    exact = (1 + phi) / (1 - phi) / n - 2 * phi * (1 - phi**n) / (n * (1 - phi)) ** 2
    spread = float(chain.mean(0).var())
    assert abs(spread / exact - 1) < 4 * math.sqrt(2 / repeats)
    stated = [diagnostics.estimate(chain[:, 4 * k : 4 * k + 4]) for k in range(100)]
    typical = sorted(e.stderr for e in stated)[50]
    assert abs(typical / math.sqrt(exact / 4) - 1) < 0.06
    hits = sum(abs(e.value - 0.7 / 1.5) < 2 * e.stderr for e in stated)
    assert hits >= 88  # 95 ± 2.2 expected; four chains know their own variance to some per cent


def test_rhat_is_one_for_chains_that_agree_and_not_otherwise():
    chain = cpu_chain(0.5, 1000, 8)
    assert 0.999 < float(diagnostics.rhat(chain)) < 1.005
    apart = chain.clone()
    apart[:, 4:] += 3.0  # two groups, each in a region of its own
    halves = torch.cat([apart[:500], apart[500:]], 1)
    within, between = halves.var(0).mean(), halves.mean(0).var()
    by_hand = float((499 / 500 + between / within).sqrt())
    assert abs(float(diagnostics.rhat(apart)) - by_hand) < 1e-12 and by_hand > 1.3
    drift = chain + torch.linspace(0, 5, 1000).double()[:, None]  # all agree, none has settled
    assert float(diagnostics.rhat(drift)) > 1.2


def test_stuck_chains_are_not_taken_for_many_draws():
    """About one mean for all: each chain by itself looks independent, together they are B draws."""
    chain = cpu_chain(0.0, 1000, 10)
    chain[:, 5:] += 30.0
    assert float(diagnostics.effective_sample_size(chain)) < 30
    assert diagnostics.estimate(chain).stderr > 1


def test_dtype_device_and_scale(dtype, device, generator):
    chain = autoregressive(0.5, 50, 3, torch.Generator().manual_seed(0)).to(device, dtype)
    for function in (diagnostics.effective_sample_size, diagnostics.rhat):
        value, moved = function(chain), function(100 - 8 * chain)
        assert value.dtype == dtype and value.device.type == device.type and value.shape == ()
        torch.testing.assert_close(value, moved, rtol=1e-3, atol=0)
    assert diagnostics.autocorrelation(chain, 6).shape == (6,)


@pytest.mark.parametrize(
    "chain, message",
    [
        (torch.ones(3, 2), "n ≥ 4"),
        (torch.ones(9, 2), "never moved"),
        (torch.full((9, 3), 0.1, dtype=torch.float64), "never moved"),  # whose mean is rounded
        (torch.full((9,), 0.1, dtype=torch.float64), "never moved"),
        (torch.randint(5, (9, 2, 2)) * torch.tensor([0, 1]), "never moved"),
        (torch.randn(9, 2, 2, 2), r"\(n, B, D\)"),
        (torch.full((9, 2), math.nan), "NaN"),
    ],
)
def test_bad_chains(chain, message):
    for function in (
        diagnostics.effective_sample_size, diagnostics.rhat, diagnostics.estimate,
        lambda x: diagnostics.autocorrelation(x, 2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            function(chain)


def test_a_chain_that_moved_in_the_state_between_its_halves():
    """Of an odd number of states the middle one is in neither half: R̂ was 0/0, a NaN."""
    chain = torch.zeros(9)
    chain[4] = 1
    for function in (diagnostics.rhat, diagnostics.estimate):
        with pytest.raises(ValueError, match="never moved"):
            function(chain)
    chain[3] = 1
    assert torch.isfinite(diagnostics.rhat(chain))


def test_lags_beyond_the_chain():
    for lags in (0, 10):
        with pytest.raises(ValueError, match="lags must be between 1 and"):
            diagnostics.autocorrelation(torch.randn(9, 2), lags)


def test_the_sum_of_pairs_never_rises_again():
    """Geyer's monotone sequence, written as a loop, on a chain with a rhythm whose Γ_m do rise."""
    beat = torch.cos(2 * math.pi * torch.arange(600) / 5).double()[:, None]
    chain = cpu_chain(0.95, 600, 3) + beat
    rho = diagnostics.autocorrelation(chain, 600).tolist()
    tau, last, rises = -1.0, math.inf, 0
    for m in range(300):
        gamma = rho[2 * m] + rho[2 * m + 1]
        if gamma <= 0:
            break
        rises += gamma > last
        last = min(last, gamma)
        tau += 2 * last
    assert rises  # or nothing is tested
    assert abs(float(diagnostics.effective_sample_size(chain)) * tau / chain.numel() - 1) < 1e-10


# ---- What has surprised ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_whole_numbers_are_answered_in_floats(dtype):
    """Of two states that are kept with probability 0.95, ρ_k = 0.9^k: no truncation to 0 and 1."""
    P = torch.tensor([[0.95, 0.05], [0.05, 0.95]])
    starts, g = torch.arange(2).repeat(10), torch.Generator().manual_seed(0)
    chain = markov.simulate(P, starts, 2000, generator=g)
    assert chain.dtype == torch.int64
    found = markov.autocorrelation(chain.to(dtype), 4)
    assert bool(((found - 0.9 ** torch.arange(4)).abs() < 0.03).all())
    for function in (markov.effective_sample_size, markov.rhat):
        torch.testing.assert_close(function(chain.to(dtype)), function(chain.float()))
    assert markov.estimate(chain.to(dtype)) == markov.estimate(chain.float())


def test_half_precision_chains_are_answered_in_single():
    chain = cpu_chain(0.0, 1000, 100).bfloat16()
    ess = markov.effective_sample_size(chain.half())  # 10⁵ is beyond float16
    assert ess.dtype == torch.float32 and 80_000 < float(ess) < 130_000
    assert markov.rhat(chain).dtype == torch.float32


@pytest.mark.parametrize("n", [4, 5, 100, 101])
def test_states_that_alternate_are_worth_more_than_they_are_many_up_to_the_cap(n):
    """0101…: the mean of a pair is exact, and ρ_2m + ρ_2m+1 is 0 or rounding below it."""
    chain = torch.arange(n) % 2
    assert float(markov.effective_sample_size(chain)) == pytest.approx(n * math.log10(n))
    found = markov.estimate(chain)
    std = float(chain.double().std(correction=0))
    assert found.stderr == pytest.approx(std / math.sqrt(n * math.log10(n)))


def test_the_effective_sample_size_is_positive_for_every_alternating_chain():
    """AR(−0.9): n/τ = 19 n for one short chain; noise makes it anything, but not negative."""
    chain = cpu_chain(-0.9, 1000, 200)
    found = torch.stack([markov.effective_sample_size(x) for x in chain.unbind(1)])
    assert bool((found > 1000).all()) and float(found.max()) == pytest.approx(3000)
    together = float(markov.effective_sample_size(cpu_chain(-0.6, 2000, 100)))
    assert together == pytest.approx(4 * 200_000, rel=0.1)  # the cap is far away


def test_an_estimate_of_chains_that_disagree_says_so():
    """Walks of short steps on Gamma(2), mean 2: where the error is too small, the text has said."""
    law = lambda x: torch.where(x > 0, x.clamp(min=1e-9).log() - x, -math.inf)[:, 0]
    g = torch.Generator().manual_seed(0)
    start = 0.5 + torch.rand(60 * 4, 1, generator=g)
    steps = markov.metropolis_hastings(law, start, step=0.3, n=100, generator=g)
    runs = torch.stack([state.x[:, 0] for state in steps]).reshape(100, 60, 4).unbind(1)
    wrong = []
    for run in runs:
        found, agree = markov.estimate(run), float(markov.rhat(run))
        value, stderr = found  # still two numbers
        wrong += [agree > 1.05] if abs(value - 2) > 3 * stderr else []
        if agree > 1.05:
            assert isinstance(found, markov.Unmixed) and found.rhat == agree
            assert str(found) == repr(found) and f"R̂ = {agree:.2f}: the chains have not" in str(
                found
            )
        else:
            assert not isinstance(found, markov.Unmixed)
    assert len(wrong) > 10 and sum(wrong) > 0.8 * len(wrong)
    assert "R̂" not in str(markov.estimate(cpu_chain(0.5, 1000, 4)))


def test_the_doubt_begins_at_the_stated_bound():
    chain = cpu_chain(0.5, 1000, 2)
    for shift in torch.linspace(0, 1, 21):
        moved = chain + shift * torch.tensor([0.0, 1.0])
        doubted = isinstance(markov.estimate(moved), markov.Unmixed)
        assert doubted == (float(markov.rhat(moved)) > 1.05)
    assert doubted  # or nothing is tested


def test_every_coordinate_is_answered_by_itself():
    chain = torch.stack([cpu_chain(phi, 300, 4, seed=i) for i, phi in enumerate((0.9, 0, -0.5))], 2)
    each = chain.unbind(2)
    for function in (
        markov.effective_sample_size, markov.rhat, lambda x: markov.autocorrelation(x, 7),
    ):  # fmt: skip
        want = torch.stack([function(x) for x in each], -1)
        torch.testing.assert_close(function(chain), want, rtol=1e-12, atol=1e-12)
    assert markov.estimate(chain) == [markov.estimate(x) for x in each]
