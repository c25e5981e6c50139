"""Markov chains: finite ones against linear algebra, samplers against the laws they must leave be.

Statistical tolerances are four standard errors of the number tested (five where many are tested).
"""

import math

import pytest
import torch
from cases import mixture

from minigen import markov
from minigen.markov import State, samplers

N = 7


def target(device="cpu", dtype=torch.float64):
    pi = torch.rand(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (pi / pi.sum()).to(device, dtype)


def proposal(device="cpu", dtype=torch.float64, n=N):
    Q = torch.rand(n, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (Q / Q.sum(1, keepdim=True)).to(device, dtype)


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# ---- finite chains ---------------------------------------------------------------------------


def test_stationary_is_kept_by_the_chain(double, device):
    P = proposal(device, double)
    pi = markov.stationary(P)
    torch.testing.assert_close(pi @ P, pi, rtol=0, atol=1e-15)
    assert abs(float(pi.sum()) - 1) < 1e-14 and bool((pi > 0).all())


def test_stationary_follows_dtype_and_device(dtype, device):
    pi = markov.stationary(proposal(device, dtype))
    assert pi.dtype == dtype and pi.device.type == device.type
    torch.testing.assert_close(pi.cpu().double(), markov.stationary(proposal()), rtol=1e-6, atol=0)


def test_two_states_forget_at_the_exact_rate():
    a, b = 0.3, 0.15
    P, pi = matrix([1 - a, a], [b, 1 - b]), matrix(b, a) / (a + b)
    torch.testing.assert_close(markov.stationary(P), pi, rtol=0, atol=1e-15)
    assert abs(float(markov.spectral_gap(P)) - (a + b)) < 1e-15
    start = matrix(1.0, 0.0)
    for n in range(1, 30):
        left = start @ torch.linalg.matrix_power(P, n) - pi
        torch.testing.assert_close(left, (1 - a - b) ** n * (start - pi), rtol=0, atol=1e-14)


def test_total_variation_decays_at_the_second_eigenvalue():
    """TV(δ_i Pⁿ, π) ≤ ½ √(1/π_i − 1) |λ₂|ⁿ for a reversible chain, and the ratio tends to |λ₂|."""
    pi = target()
    P = markov.metropolis_matrix(proposal(), pi)
    rate, p, distance = 1 - float(markov.spectral_gap(P)), torch.eye(N).double()[0], []
    for n in range(1, 61):
        p = p @ P
        distance.append(float(markov.total_variation(p, pi)))
        assert distance[-1] <= 0.5 * math.sqrt(1 / float(pi[0]) - 1) * rate**n + 1e-15
    assert abs(distance[40] / distance[39] - rate) < 1e-4


def test_total_variation_is_the_largest_difference_of_an_event():
    p, q = target(), markov.stationary(proposal())
    events = [sum(i >> k & 1 << k for k in range(N)) for i in range(2**N)]
    best = max(
        abs(float(sum((p - q)[k] for k in range(N) if e >> k & 1))) for e in range(len(events))
    )
    assert abs(float(markov.total_variation(p, q)) - best) < 1e-15
    assert float(markov.total_variation(matrix(1.0, 0.0), matrix(0.0, 1.0))) == 1.0


def test_metropolis_matrix_has_detailed_balance(double, device):
    pi, Q = target(device, double), proposal(device, double)
    P = markov.metropolis_matrix(Q, 3.0 * pi)  # π is needed up to a constant only
    flow = pi[:, None] * P
    torch.testing.assert_close(flow, flow.T, rtol=0, atol=1e-16)
    torch.testing.assert_close(markov.stationary(P), pi, rtol=0, atol=1e-15)
    i, j = 2, 5  # the definition, at a pair
    accept = min(1.0, float(pi[j] * Q[j, i] / (pi[i] * Q[i, j])))
    assert abs(float(P[i, j]) - float(Q[i, j]) * accept) < 1e-16
    assert markov.is_reversible(P, pi) and not markov.is_reversible(Q, markov.stationary(Q))


def test_a_proposal_that_cannot_come_back_is_never_taken():
    Q, pi = matrix([0.5, 0.5, 0.0], [0.3, 0.3, 0.4], [0.6, 0.0, 0.4]), matrix(0.2, 0.3, 0.5)
    P = markov.metropolis_matrix(Q, pi)
    assert P[1, 2] == 0 and P[2, 0] == 0 and bool((P.sum(1) == 1).all())


def test_closed_classes_and_the_laws_they_carry():
    ring = matrix([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])  # periodic, yet one law
    assert markov.closed_classes(ring) == [[0, 1, 2]] and float(markov.spectral_gap(ring)) < 1e-12
    torch.testing.assert_close(markov.stationary(ring), matrix(1, 1, 1) / 3, rtol=0, atol=1e-15)
    leaky = matrix([0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [0.0, 0.6, 0.4])  # state 0 is left for ever
    assert markov.closed_classes(leaky) == [[1, 2]]
    torch.testing.assert_close(
        markov.stationary(leaky), matrix(0.0, 3 / 7, 4 / 7), rtol=0, atol=1e-15
    )
    two = torch.block_diag(proposal(n=2), proposal(n=3))
    assert markov.closed_classes(two) == [[0, 1], [2, 3, 4]] and markov.spectral_gap(two) < 1e-12
    long = torch.roll(torch.eye(33, dtype=torch.float64), 1, 1)  # the path back has 32 steps
    assert markov.closed_classes(long) == [list(range(33))]


def test_a_reducible_chain_is_named():
    with pytest.raises(ValueError, match=r"reducible.*\[0, 1\], \[2, 3, 4\]"):
        markov.stationary(torch.block_diag(proposal(n=2), proposal(n=3)))


@pytest.mark.parametrize(
    "P, message",
    [
        (matrix([0.5, 0.4], [0.5, 0.5]), "row 0 sums to 0.9, not 1"),
        (matrix([1.5, -0.5], [0.5, 0.5]), "negative"),
        (matrix([math.nan, 1.0], [0.5, 0.5]), "NaN"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(P, message):
    for function in (markov.stationary, markov.spectral_gap, markov.closed_classes):
        with pytest.raises(ValueError, match=message):
            function(P)
    with pytest.raises(ValueError, match=message):
        markov.metropolis_matrix(P, torch.ones(len(P)).double())
    with pytest.raises(ValueError, match=message):
        markov.simulate(P, 0, 3)


def test_shapes_are_named_without_the_runtime_check(run_python):
    said = run_python(
        "import torch; from minigen import markov\n"
        "for f in (lambda: markov.stationary(torch.ones(2, 3) / 3),\n"
        "          lambda: markov.spectral_gap(torch.ones(3) / 3),\n"
        "          lambda: markov.metropolis_matrix(torch.eye(3), torch.ones(2))):\n"
        "    try: f()\n"
        "    except ValueError as error: print(error)"
    ).splitlines()
    assert "square, got (2, 3)" in said[0] and "square, got (3,)" in said[1]
    assert said[2] == "P is (n, n) and pi (n,), got (3, 3) and (2,)"


def test_a_law_of_other_states_is_named(run_python):
    said = run_python(
        "import torch; from minigen import markov as m\n"
        "P, p = torch.eye(3), torch.ones(3) / 3\n"
        "for f in (lambda: m.is_reversible(P, p[:1]), lambda: m.is_reversible(P, p.numpy()),\n"
        "          lambda: m.total_variation(p, p[:1]), lambda: m.total_variation(p, 0.5),\n"
        "          lambda: m.stationary(P.numpy()), lambda: m.rhat(P.numpy())):\n"
        "    try: print(f())\n"
        "    except (TypeError, ValueError) as error: print(error)"
    ).splitlines()
    array = "must be a tensor, got ndarray: use torch.as_tensor"
    assert said == [
        "P is (n, n) and pi (n,), got (3, 3) and (1,)", f"pi {array}",
        "p and q are laws of shapes (3,) and (1,)",
        "q must be a tensor, got float: use torch.as_tensor",
        f"a transition matrix {array}", f"the chains {array}",
    ]  # fmt: skip


def test_a_conditional_of_a_coordinate_that_is_not_there(generator):
    """Two values a sample, (2, 1, 2): coordinate 0 was written to both, without a word."""
    draw = lambda x, generator: torch.randn(len(x), generator=generator)
    for shape in ((2, 1, 2), (2, 1)):
        with pytest.raises(ValueError, match="must return coordinate"):
            [*markov.gibbs([draw, draw], torch.zeros(shape), n=1, generator=generator)]


def test_a_random_scan_asks_no_conditional_for_nothing(generator):
    seen = []
    draw = lambda x, generator: seen.append(len(x)) or torch.randn(len(x), generator=generator)
    [*markov.gibbs_random_scan([draw, draw], torch.zeros(1, 2), n=9, generator=generator)]
    assert seen == [1] * 9


def test_metropolis_matrix_needs_a_positive_law():
    for pi in (0 * target(), -target(), math.inf * target()):
        with pytest.raises(ValueError, match="positive numbers"):
            markov.metropolis_matrix(proposal(), pi)


def test_simulate_moves_by_the_rows(generator, dtype, device):
    P = proposal(device, dtype, n=3)
    starts = torch.arange(3, device=device).repeat_interleave(20_000)
    path = markov.simulate(P, starts, 3, generator=generator)
    assert path.shape == (3, 60_000) and bool((path[0] == starts).all())
    for i in range(3):
        for when in (1, 2):
            before = path[when - 1] == i
            share = torch.stack([(path[when][before] == j).double().mean() for j in range(3)])
            p = P[i].double().cpu()
            assert bool(((share.cpu() - p).abs() < 5 * (p * (1 - p) / before.sum()).sqrt()).all())


def test_simulate_one_path(device):
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]], device=device)
    assert markov.simulate(flip, 1, 5).tolist() == [1, 0, 1, 0, 1]
    for start, n in ((2, 3), (-1, 3), (0, 0)):
        with pytest.raises(ValueError, match="start among 0 … 1"):
            markov.simulate(flip, start, n)


@pytest.mark.parametrize("start", [[0, 1, 1], (0, 1, 1), torch.tensor([0, 1, 1]).int()])
def test_starts_may_be_a_list(start):
    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    path = markov.simulate(flip, start, 5)
    assert path.dtype == torch.int64
    assert path.T.tolist() == [[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 0, 1, 0, 1]]
    for wrong in ([0, 1, 2], [], [[0, 1], [1, 0]], [0.0, 1.0]):
        with pytest.raises((ValueError, TypeError), match="start among 0 … 1|Int"):
            markov.simulate(flip, wrong if wrong != [[0, 1], [1, 0]] else torch.tensor(wrong), 5)


def test_simulate_never_enters_a_state_of_probability_zero(dtype, monkeypatch):
    """Ten times 0.1 is summed to less than 1: the largest number below 1 lies beyond."""
    P = torch.zeros(12, 12, dtype=dtype)
    P[:, 1:11] = 0.1  # neither the first nor the last
    highest = 1 - torch.finfo(dtype).eps / 2
    for u, state in ((0.0, 1), (highest, 10)):
        fixed = lambda *size, u=u, **rest: torch.full(size, u, dtype=dtype)
        monkeypatch.setattr(torch, "rand", fixed)
        assert markov.simulate(P, [0, 5, 11], 4)[1:].unique().tolist() == [state]


def test_simulate_ends_at_the_last_state_where_the_sums_are_rounded(monkeypatch):
    """Ten 0.1 in float64 add up to 1 − 2⁻⁵³, which a uniform number can be: there is no 11th."""
    P = torch.full((10, 10), 0.1, dtype=torch.float64)
    highest = 1 - 2.0**-53
    assert float(P.cumsum(1)[0, -1]) == highest  # or nothing is tested
    fixed = lambda *size, **rest: torch.full(size, highest, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", fixed)
    assert markov.simulate(P, 0, 4).tolist() == [0, 9, 9, 9]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8])
def test_matrices_of_whole_numbers_have_laws_in_floats(dtype):
    flip, law = torch.tensor([[0, 1], [1, 0]], dtype=dtype), torch.tensor([1, 1], dtype=dtype)
    assert markov.stationary(flip).tolist() == [0.5, 0.5]
    assert markov.spectral_gap(flip).dtype == torch.float32 and markov.spectral_gap(flip) == 0
    assert markov.simulate(flip, 1, 4).tolist() == [1, 0, 1, 0]
    assert markov.closed_classes(flip) == [[0, 1]] and markov.is_reversible(flip, law)
    assert markov.metropolis_matrix(flip, law).tolist() == [[0, 1], [1, 0]]
    one, two = torch.eye(2, dtype=dtype)
    assert markov.total_variation(one, two) == 1  # 0 − 1 is 255 in uint8
    three = torch.roll(torch.eye(3, dtype=dtype), 1, 1)
    assert not markov.is_reversible(three, torch.ones(3, dtype=dtype))


def test_balance_is_judged_in_the_coarser_dtype():
    P = markov.metropolis_matrix(proposal(), target())
    assert markov.is_reversible(P, target().float()) and markov.is_reversible(P.float(), target())


def test_the_metropolis_chain_of_a_balanced_proposal_has_no_negative_rest():
    """Where nothing is refused or stays, 1 − Σ_j P_ij is rounding, of either sign."""
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        w = torch.rand(N, N, generator=g, dtype=torch.float64)
        w = (w + w.T).fill_diagonal_(0)
        pi = w.sum(1)
        P = markov.metropolis_matrix(w / pi[:, None], pi)
        torch.testing.assert_close(markov.stationary(P), pi / pi.sum(), rtol=0, atol=1e-14)


# ---- Metropolis–Hastings and MALA ------------------------------------------------------------


def normal(x):
    """log N(0, 1) up to its constant, summed over the axes."""
    return -0.5 * x.square().flatten(1).sum(1)


@pytest.mark.parametrize("step", [0.7, 2.4])
def test_acceptance_of_the_random_walk_on_a_normal(step, generator, device):
    """(2/π) arctan(2/s) in the stationary chain."""
    x = torch.randn(40_000, 1, generator=generator, device=device)
    chain = markov.metropolis_hastings(normal, x, step=step, n=3, generator=generator)
    share = torch.stack([state.accepted for state in chain]).float().mean()
    assert abs(float(share) - 2 / math.pi * math.atan(2 / step)) < 4 * 0.5 / math.sqrt(120_000)


def growth(x, *, step, generator):
    """y = x e^{step z} on x > 0: log q(x|y) − log q(y|x) = log y − log x."""
    z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x * torch.exp(step * z), step * z[:, 0]


def gamma_law(x):
    """Gamma(3, rate 2) on x > 0, −inf elsewhere: mean 3/2, variance 3/4."""
    return torch.where(x > 0, 2 * x.clamp(min=1e-300).log() - 2 * x, -math.inf)[:, 0]


@pytest.mark.parametrize("sampler", ["walk", "growth", "mala"])
def test_samplers_leave_the_law_as_it_is(sampler, generator, device):
    """Exact draws of a mixture (of a gamma law for `growth`) remain such after 40 steps."""
    n, law = 20_000, mixture(torch.float64, "cpu").to(device, torch.float32)
    if sampler == "growth":
        x = torch.distributions.Gamma(3.0, 2.0).sample((n, 1)).to(device)
        chain = markov.metropolis_hastings(
            gamma_law, x, step=1.1, n=40, generator=generator, propose=growth
        )
        mean, cov = torch.tensor([1.5]), torch.tensor([[0.75]])
    else:
        x, _ = law.sample(n, generator=generator)
        walk = markov.mala if sampler == "mala" else markov.metropolis_hastings
        chain = walk(law.log_prob, x, step=0.6, n=40, generator=generator)
        mean, cov = law.mean().cpu(), law.cov().cpu()
    *_, last = chain
    y = last.x.cpu().double()
    assert not bool((y == x.cpu().double()).all())
    assert bool(((y.mean(0) - mean).abs() < 4 * (cov.diagonal() / n).sqrt()).all())
    square = (y - mean).square()
    assert bool(((square.mean(0) - cov.diagonal()).abs() < 4 * square.std(0) / math.sqrt(n)).all())


def test_a_wrong_proposal_ratio_would_be_seen(generator, device):
    """Without log y − log x the multiplicative walk settles on another law."""
    x = torch.full((20_000, 1), 1.5, device=device)

    def careless(x, **rest):
        return growth(x, **rest)[0], 0.0

    runs = {}
    for propose in (growth, careless):
        *_, last = markov.metropolis_hastings(
            gamma_law, x, step=1.1, n=60, generator=generator, propose=propose
        )
        runs[propose] = float(last.x.mean())
    assert abs(runs[growth] - 1.5) < 4 * math.sqrt(0.75 / 20_000)
    assert abs(runs[careless] - 1.0) < 4 * math.sqrt(0.5 / 20_000)  # Gamma(2, 2): p / x


def langevin(law, x, *, step, generator):
    """The proposal of MALA, by hand, with torch's normal densities."""

    def to(x):
        return torch.distributions.Normal(x + step * law.score(x), math.sqrt(2 * step))

    z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    y = to(x).mean + math.sqrt(2 * step) * z
    return y, (to(y).log_prob(x) - to(x).log_prob(y)).sum(1)


def test_mala_is_metropolis_hastings_with_a_langevin_proposal(double, device):
    law = mixture().to(device, double)
    x, _ = law.sample(50, generator=torch.Generator(device).manual_seed(3))
    runs = []
    for kind in ("mala", "by hand"):
        g = torch.Generator(device).manual_seed(4)
        if kind == "mala":
            runs.append([*markov.mala(law.log_prob, x, step=0.3, n=20, generator=g)])
        else:
            runs.append([
                *markov.metropolis_hastings(
                    law.log_prob, x, step=0.3, n=20, generator=g,
                    propose=lambda x, **rest: langevin(law, x, **rest),
                )
            ])  # fmt: skip
    for a, b in zip(*runs, strict=True):
        assert bool((a.accepted == b.accepted).all())
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-9)  # 20 steps stretch rounding
    shares = torch.stack([s.accepted for s in runs[0]]).float().mean()
    assert 0.1 < float(shares) < 0.9  # or the acceptance is not tested


def test_mala_kernel_has_detailed_balance():
    """p(x) q(y|x) α(x, y) is symmetric, with α(x, y) read off the sampler itself."""
    law = mixture()
    points, _ = law.sample(12, generator=torch.Generator().manual_seed(5))
    h, n = 0.3, 4000
    i, j = 3, 8
    accepted = []
    for a, b in ((i, j), (j, i)):
        x, y = points[a : a + 1], points[b : b + 1]
        z = (y - x - h * law.score(x)) / math.sqrt(2 * h)
        taken = _walk_with_noise(law, x.expand(n, 2), z.expand(n, 2), h)
        q = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum()
        accepted.append((law.log_prob(x)[0] + q, taken))
    (flow_a, share_a), (flow_b, share_b) = accepted
    alpha = [min(1.0, math.exp(float(flow_b - flow_a))), min(1.0, math.exp(float(flow_a - flow_b)))]
    for share, p in zip((share_a, share_b), alpha, strict=True):
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / n)
    assert min(alpha) < 0.9  # or nothing is tested


def _walk_with_noise(law, x, z, h) -> float:
    """The share of chains that accept one MALA step whose noise is z."""
    generator = torch.Generator().manual_seed(6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "noise", lambda x, *, generator: z)
        (state,) = markov.mala(law.log_prob, x, step=h, n=1, generator=generator)
    return float(state.accepted.double().mean())


def test_chains_do_not_look_at_each_other(double, device):
    """Each chain's path is the one it has with its own step, though they run side by side."""
    law, steps = mixture().to(device, double), [0.1, 0.5, 2.0]
    x = torch.zeros(3, 2, device=device, dtype=double) + 0.5
    for walk in (markov.metropolis_hastings, markov.mala):
        step = torch.tensor(steps, device=device, dtype=double)
        g = torch.Generator(device).manual_seed(7)
        together = torch.stack([s.x for s in walk(law.log_prob, x, step=step, n=9, generator=g)])
        for k, h in enumerate(steps):
            g = torch.Generator(device).manual_seed(7)
            each = [s.x for s in walk(law.log_prob, x, step=h, n=9, generator=g)]
            torch.testing.assert_close(together[:, k], torch.stack(each)[:, k], rtol=0, atol=1e-12)


def test_images_and_what_is_refused_stays(generator, dtype, device):
    x = torch.randn(6, 1, 3, 4, generator=generator, device=device, dtype=dtype)
    for walk in (markov.metropolis_hastings, markov.mala):
        last = x
        for state in walk(normal, x, step=0.7, n=5, generator=generator):
            assert isinstance(state, State) and state.x.dtype == dtype
            assert state.accepted.shape == (6,) and state.x.device == x.device
            moved = (state.x != last).flatten(1).any(1)
            assert bool((moved == state.accepted).all())
            last = state.x


def test_zero_density_is_a_wall_and_no_error(generator, device):
    x = torch.full((500, 1), 0.3, device=device)
    for state in markov.metropolis_hastings(gamma_law, x, step=1.0, n=20, generator=generator):
        assert bool((state.x > 0).all())


@pytest.mark.parametrize("walk", [markov.metropolis_hastings, markov.mala])
def test_zero_density_is_refused_even_by_the_luckiest_number(walk, monkeypatch):
    """log 0 < −inf is false: a proposal of density 0 is not taken where u = 0."""
    wall = lambda x: torch.where(x[:, 0] > 0, -x[:, 0], -math.inf)
    monkeypatch.setattr(torch, "rand", lambda *size, dtype, **rest: torch.zeros(*size, dtype=dtype))
    generator = torch.Generator().manual_seed(0)
    (state,) = walk(wall, torch.full((200, 1), 0.3), step=1.0, n=1, generator=generator)
    assert bool((state.x > 0).all())
    assert 0.1 < float(state.accepted.float().mean()) < 0.99  # all others are


def test_half_precision_accepts_as_often_as_single():
    """One move of density ratio 1/1000: bfloat16 draws u = 0 in one of 256 cases."""
    drop = lambda x: torch.where(x[:, 0] > 0, math.log(1000.0), 0.0).to(x.dtype)
    shares, n = [], 200_000
    for dtype in (torch.bfloat16, torch.float32):
        (state,) = markov.metropolis_hastings(
            drop, torch.ones(n, 1, dtype=dtype), step=1.0, n=1,
            propose=lambda x, **rest: (-x, 0.0), generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        shares.append(float(state.accepted.double().mean()))
    assert max(abs(s - 1e-3) for s in shares) < 5 * math.sqrt(1e-3 / n)


def test_states_that_are_no_floats_or_none_are_named(run_python):
    """Without the runtime check of shapes, as users run it."""
    said = run_python(
        "import torch; from minigen import markov\n"
        "f = lambda x: -x.square().sum(1)\n"
        "half = lambda x, *, generator: torch.full((len(x),), 0.5)\n"
        "i = torch.zeros(3, 2, dtype=torch.int64)\n"
        "for run in (lambda: markov.metropolis_hastings(f, i, step=1.0, n=2),\n"
        "            lambda: markov.mala(f, torch.zeros(0, 2), step=1.0, n=2),\n"
        "            lambda: list(markov.gibbs([half, half], i, n=1))):\n"
        "    try: run()\n"
        "    except (ValueError, TypeError) as error: print(error)"
    ).splitlines()
    assert "x must be a float tensor" in said[0] and "x holds no samples" in said[1]
    assert "conditional 0 draws torch.float32, but x is torch.int64" in said[2]


@pytest.mark.parametrize("walk", [markov.metropolis_hastings, markov.mala])
def test_bad_input_of_the_samplers(walk, device):
    x = torch.ones(3, 2, device=device)

    def run(f=normal, **more):
        walk(f, x, **{"step": 0.5, "n": 2, **more})  # raises at the call, not at the first step

    for step in (0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 1.0, 0.0])):
        with pytest.raises(ValueError, match="step and n must be positive"):
            run(step=step)
    with pytest.raises(ValueError, match="step and n must be positive"):
        run(n=0)
    with pytest.raises(ValueError, match="sum over the data axes"):
        run(lambda x: -0.5 * x.square())
    with pytest.raises(ValueError, match=r"log_prob is nan at the start of chain 0"):
        run(lambda x: torch.sqrt(-x.sum(1)))
    with pytest.raises(ValueError, match=r"log_prob is -inf at the start"):
        run(lambda x: torch.log(0 * x.sum(1)))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_log_density_that_breaks_on_the_way_is_named(wrong, generator, device):
    def broken(x):
        return torch.where(x[:, 0] > 2, wrong, 1.0 * x.sum(1))

    for walk in (markov.metropolis_hastings, markov.mala):
        with pytest.raises(ValueError, match=r"log_prob became NaN or \+inf"):
            list(
                walk(broken, torch.zeros(9, 2, device=device), step=1.0, n=300, generator=generator)
            )


def test_mala_needs_a_gradient(device):
    with pytest.raises(ValueError, match="cannot be differentiated"):
        markov.mala(lambda x: normal(x).detach(), torch.ones(3, 2, device=device), step=0.1, n=1)


def test_same_seed_same_chain(device):
    x = torch.ones(3, 2, device=device)
    runs = [
        torch.stack([
            s.x for s in markov.metropolis_hastings(
                normal, x, step=0.5, n=5, generator=torch.Generator(device).manual_seed(seed)
            )
        ])
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_random_walk_is_the_default_proposal(device):
    x = torch.zeros(20_000, 1, device=device)
    y, ratio = markov.random_walk(x, step=1.7, generator=torch.Generator(device).manual_seed(0))
    assert ratio == 0 and abs(float(y.std()) - 1.7) < 4 * 1.7 / math.sqrt(40_000)


# ---- Gibbs -----------------------------------------------------------------------------------


def gaussian_conditionals(rho):
    """x_i | x_j ~ N(ρ x_j, 1 − ρ²) for two standard normals of correlation ρ."""

    def draw(i):
        def conditional(x, *, generator):
            z = torch.randn(len(x), generator=generator, device=x.device, dtype=x.dtype)
            return rho * x[:, 1 - i] + math.sqrt(1 - rho**2) * z

        return conditional

    return [draw(0), draw(1)]


def test_gaussian_gibbs_is_autoregressive_with_the_square_of_rho(generator, device):
    rho, n, chains = 0.9, 200, 2000
    x = torch.randn(chains, 2, generator=generator, device=device)
    x[:, 1] = rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]
    sweeps = markov.gibbs(gaussian_conditionals(rho), x, n=n, generator=generator)
    states = torch.stack([s.x for s in sweeps])
    for i in (0, 1):
        found = markov.autocorrelation(states[..., i], 4).cpu().double()
        right = rho ** (2 * torch.arange(4.0).double())
        # Bartlett: the variance of ρ̂_1 is (1 − φ²)/N; the others' is below 8 times that
        assert bool(((found - right).abs() < 4 * math.sqrt(8 * (1 - rho**4) / (n * chains))).all())
    tau = (1 + rho**2) / (1 - rho**2)
    ess = float(markov.effective_sample_size(states[..., 0]))
    assert abs(ess / (n * chains / tau) - 1) < 0.1


def table():
    """A joint law of two variables with 2 and 3 values, and its conditionals as samplers."""
    p = torch.rand(2, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    p = p / p.sum()

    def first(x, *, generator):
        rows = (p / p.sum(0)).T[x[:, 1].long()]
        return torch.multinomial(rows, 1, generator=generator)[:, 0].to(x)

    def second(x, *, generator):
        rows = (p / p.sum(1, keepdim=True))[x[:, 0].long()]
        return torch.multinomial(rows, 1, generator=generator)[:, 0].to(x)

    return p, [first, second]


def gibbs_matrices():
    """The exact kernels on the 6 states (i, j) = 3 i + j: one sweep, and one random-scan step."""
    p, _ = table()
    given_j, given_i = p / p.sum(0), p / p.sum(1, keepdim=True)
    A, B = torch.zeros(2, 6, 6, dtype=torch.float64)
    for i in range(2):
        for j in range(3):
            for k in range(2):
                A[3 * i + j, 3 * k + j] = given_j[k, j]
            for k in range(3):
                B[3 * i + j, 3 * i + k] = given_i[i, k]
    return p.flatten(), A @ B, 0.5 * (A + B)


def test_which_scan_is_reversible():
    pi, sweep, random = gibbs_matrices()
    torch.testing.assert_close(pi @ sweep, pi, rtol=0, atol=1e-15)
    torch.testing.assert_close(pi @ random, pi, rtol=0, atol=1e-15)
    assert markov.is_reversible(random, pi) and not markov.is_reversible(sweep, pi)


@pytest.mark.parametrize("scan", [markov.gibbs, markov.gibbs_random_scan])
def test_gibbs_moves_by_its_exact_kernel(scan):
    """The frequencies of one step from each of the six states, against the matrix."""
    _, sweep, random = gibbs_matrices()
    exact = sweep if scan is markov.gibbs else random
    states = torch.cartesian_prod(torch.arange(2), torch.arange(3)).double()
    n, generator = 20_000, torch.Generator().manual_seed(9)
    start = states.repeat_interleave(n, 0)
    (state,) = scan(table()[1], start, n=1, generator=generator)
    assert bool(state.accepted.all())
    end = (3 * state.x[:, 0] + state.x[:, 1]).long().reshape(6, n)
    share = torch.stack([(end == k).double().mean(1) for k in range(6)], 1)
    assert bool(((share - exact).abs() <= 5 * (exact * (1 - exact) / n).sqrt() + 1e-12).all())


def test_a_block_may_be_drawn_whole(generator, device):
    """A conditional that returns the whole state: here both coordinates at once, independent."""
    x = torch.zeros(20_000, 2, device=device)

    def both(x, *, generator):
        z = torch.randn(x.shape, generator=generator, device=x.device)
        return torch.stack([z[:, 0], 0.6 * z[:, 0] + 0.8 * z[:, 1]], 1)

    for scan in (markov.gibbs, markov.gibbs_random_scan):
        *_, last = scan([both], x, n=2, generator=generator)
        r = float(torch.corrcoef(last.x.T.cpu())[0, 1])
        assert abs(r - 0.6) < 4 * (1 - 0.36) / math.sqrt(20_000)


@pytest.mark.parametrize("scan", [markov.gibbs, markov.gibbs_random_scan])
def test_gibbs_leaves_the_start_alone_and_refuses_bad_input(scan, generator, device):
    x = torch.zeros(4, 2, device=device)
    list(scan(gaussian_conditionals(0.5), x, n=2, generator=generator))
    assert not bool(x.any())
    with pytest.raises(ValueError, match="must be positive"):
        scan(gaussian_conditionals(0.5), x, n=0)
    with pytest.raises(ValueError, match="conditional 0 must return coordinate 0"):
        list(scan([lambda x, *, generator: x.sum()], x, n=1, generator=generator))
