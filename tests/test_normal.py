"""The normal laws of chains and latents: their one KL divergence, also where it is tiny."""

import pytest
import torch
from torch.testing import assert_close

from minigen import vae
from minigen.normal import Normal, kl, kl_terms

F64 = torch.float64


def draws(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("shape", [(), (5,), (5, 2, 3)])
def test_kl_is_torchs(shape):
    q = Normal(0.7 + draws(5, 2, 3), draws(*shape, seed=1).exp())
    p = Normal(draws(5, 2, 3, seed=2), draws(*shape, seed=3).exp())
    torchs = [torch.distributions.Normal(x.mean, x.spread().sqrt()) for x in (q, p)]
    want = torch.distributions.kl_divergence(*torchs).sum((1, 2))
    assert_close(kl(q, p), want, rtol=1e-12, atol=1e-12)
    by_logs = vae.kl_normal(q.mean, q.spread().log(), p.mean, p.spread().log())
    assert_close(by_logs, want, rtol=1e-12, atol=1e-12)
    assert_close(kl_terms(torch.zeros(3), torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize("delta", [2e-4, -2e-4, 1e-3])
def test_a_tiny_kl_keeps_its_digits(delta):
    """log ρ = δ: ½ (e^δ − 1 − δ) = δ²/4 + δ³/12; ρ − 1 − log ρ would leave none in float32."""
    zero = torch.zeros(1, 1)
    q, p = (Normal(zero, torch.tensor([v], dtype=F64).exp().float()) for v in (delta, 0.0))
    want = delta**2 / 4 + delta**3 / 12
    assert float(kl(q, p)) == pytest.approx(want, rel=1e-2)  # of 1 + δ, rounded, δ is known so well
    assert float(vae.kl_normal(zero, zero + delta)) == pytest.approx(want, rel=1e-3)


def test_a_law_has_no_divergence_from_itself_however_narrow():
    mean, log_var = torch.ones(2, 3), torch.full((2, 3), -100.0)
    assert vae.kl_normal(mean, log_var, mean, log_var).tolist() == [0, 0]
