"""The checks of lecture 13 accept every right answer, and their truth is the exact one."""

import math

import pytest
import torch

from minigen.checks import Wrong
from minigen.checks import latent as check
from minigen.checks.latent import PATH, prior

F64 = torch.float64


def by_solve(weights, means, covs, A, y):
    """One component after the other, with a solver for the inverse and torch's own normal."""
    log, new, left = [], [], []
    for w, m, C in zip(weights, means, covs, strict=True):
        S, miss = A @ C @ A.T, y - A @ m
        log.append(w.log() + torch.distributions.MultivariateNormal(A @ m, S).log_prob(y))
        new.append(m + torch.linalg.solve(S, miss.T).T @ A @ C)
        left.append(C - C @ A.T @ torch.linalg.solve(S, A @ C))
    log = torch.stack(log, 1)
    weights = (log - torch.logsumexp(log, 1, keepdim=True)).exp()
    return weights, torch.stack(new, 1), torch.stack(left)


def along_the_fibre(weights, means, covs, A, y):
    """x = A⁺y + N u with A N = 0: in u the component is a Gaussian of precision Nᵀ Σ⁻¹ N."""
    _, _, V = torch.linalg.svd(A)
    N, point = V[len(A) :].T, y @ torch.linalg.pinv(A).T
    P = torch.linalg.inv(covs)
    inner = torch.linalg.inv(N.T @ P @ N)
    away = means - point[:, None]  # (B, K, D)
    u = (inner @ N.T @ P @ away[..., None]).squeeze(-1)
    x = point[:, None] + u @ N.T
    # ∫ N(x; m, Σ) du along the fibre
    rest = ((x - means)[..., None, :] @ P @ (x - means)[..., None]).flatten(1)
    density = weights * torch.exp(-0.5 * rest) * (torch.det(inner) / torch.det(covs)).sqrt()
    return [density / density.sum(1, keepdim=True), x, N @ inner @ N.T]


def joseph(weights, means, covs, A, y):
    """The covariance in its symmetric form, the weights by Bayes' rule without logarithms."""
    G = torch.linalg.solve(A @ covs @ A.T, A @ covs).mT
    miss = y[:, None] - means @ A.T
    keep = torch.eye(A.shape[1], dtype=A.dtype) - G @ A
    normal = torch.distributions.MultivariateNormal(means @ A.T, A @ covs @ A.T)
    joint = weights * normal.log_prob(y[:, None]).exp()
    new = means + torch.einsum("kdm,bkm->bkd", G, miss)
    return joint / joint.sum(1, keepdim=True), new, keep @ covs @ keep.mT


def level_by_level(denoise, path, z0, mean, std, u, eps, t_min):
    total, ends = 0, path.sigma(torch.tensor([t_min, 1.0]).double()).log()
    for part, e in zip(u, eps, strict=True):
        sigma = torch.exp(torch.lerp(ends[0], ends[1], part))
        t = path.time(sigma)
        guess = denoise(path.mix(z0, e, t), t)
        total = total + (z0 - guess).square() / sigma.square()
    a2, b2 = math.exp(-1.55), 1 - math.exp(-1.55)  # ∫ β = .1 + (3 − .1)/2
    first = path.b(torch.tensor(t_min, dtype=F64))
    entropy = 0.5 + 0.5 * math.log(2 * math.pi) + first.log()
    return (ends[1] - ends[0]) * total / len(u) + 0.5 * a2 / b2 * z0**2 + entropy


def in_scores(denoise, path, z0, mean, std, u, eps, t_min):
    """½ ∫ g² (difference of the scores)² dt, with dt = dℓ / (dℓ/dt), all levels in one call."""
    n, z, e = len(u), z0.repeat(len(u)), eps.flatten()
    low, high = (path.sigma(torch.tensor(t, dtype=F64)).log() for t in (t_min, 1.0))
    t = path.time(torch.exp(low + (high - low) * u.flatten()))
    a, b = path.a(t), path.b(t)
    zt = a * z + b * e
    difference = -e / b - (a * denoise(zt, t) - zt) / b**2
    g2, rate = path.db2(t) - 2 * b**2 * path.da(t) / a, path.db(t) / b - path.da(t) / a
    integral = (0.5 * g2 * difference**2 / rate).reshape(n, -1).mean(0) * (high - low)
    one, first = torch.tensor([1.0, t_min], dtype=F64)
    end = torch.distributions.kl_divergence(
        torch.distributions.Normal(path.a(one) * z0, path.b(one)),
        torch.distributions.Normal(0 * z0, path.b(one)),
    )
    return integral + end + torch.distributions.Normal(0, path.b(first)).entropy()


LAWS, ENTROPIES = [by_solve, along_the_fibre, joseph], [level_by_level, in_scores]


@pytest.mark.parametrize(
    "exercise, right",
    [(check.upsampled, f) for f in LAWS] + [(check.cross_entropy, f) for f in ENTROPIES],
)
def test_every_right_form_is_accepted(exercise, right, capsys):
    exercise(right)
    assert capsys.readouterr().out.startswith("right")


def log_density(x, weights, means, covs):
    """Of points (n, D) under a mixture."""
    parts = torch.distributions.MultivariateNormal(means, covs)
    return torch.logsumexp(parts.log_prob(x[:, None]) + weights.log(), 1)


@pytest.mark.parametrize("upsampled", LAWS)
def test_the_law_asked_for_is_the_prior_along_the_fibre(upsampled):
    """Two images x with A x = y: the ratio of their densities is that of the prior's."""
    g, (B, D, K, M) = torch.Generator().manual_seed(0), (5, 4, 3, 2)
    root, means, A, x, u = (
        torch.randn(s, generator=g, dtype=F64)
        for s in ((K, D, D), (K, D), (M, D), (B, D), (7, D - M))
    )
    weights, covs, y = torch.tensor([0.2, 0.5, 0.3], dtype=F64), root @ root.mT, x @ A.T
    new, centres, left = upsampled(weights, means, covs, A, y)
    assert torch.allclose(centres @ A.T, y[:, None].expand(-1, K, -1), atol=1e-10)
    assert float((A @ left).abs().max()) < 1e-10
    N = torch.linalg.svd(A)[2][M:].T  # the fibre's directions
    for i in range(B):
        x = torch.linalg.pinv(A) @ y[i] + u @ N.T
        before = log_density(x, weights, means, covs)
        after = log_density(x @ N, new[i], centres[i] @ N, N.T @ left @ N)
        assert float((after - before).std()) < 1e-9


@pytest.mark.parametrize("cross_entropy", ENTROPIES)
def test_the_estimate_asked_for_is_the_cross_entropy(cross_entropy):
    """E over z0 ~ N(.4, .6²) of −log p(z0) at t_min, against quadrature."""
    g, n, t_min = torch.Generator().manual_seed(1), 60_000, 0.02
    mean, std = torch.full((n,), 0.4, dtype=F64), torch.full((n,), 0.6, dtype=F64)
    z0 = mean + std * torch.randn(n, generator=g, dtype=F64)
    u = (torch.arange(8)[:, None] + torch.rand(8, n, generator=g, dtype=F64)) / 8
    eps = torch.randn(8, n, generator=g, dtype=F64)
    got = cross_entropy(prior, PATH, z0, mean, std, u, eps, t_min)
    a, b = (f(torch.tensor(t_min, dtype=F64)) for f in (PATH.a, PATH.b))
    z = torch.linspace(-9, 9, 20_001, dtype=F64)
    normal = lambda m, s: torch.distributions.Normal(a * m, (a**2 * s**2 + b**2).sqrt())
    q, low, high = normal(0.4, 0.6), normal(-1.2, 0.5), normal(0.9, 0.7)
    log_p = (low.log_prob(z).exp() / 3 + 2 * high.log_prob(z).exp() / 3).log()
    exact = torch.trapezoid(-q.log_prob(z).exp() * log_p, z)
    error = float(got.std()) / n**0.5
    assert error < 0.007 and abs(float(got.mean() - exact)) < 4 * error


def in_place(weights, means, covs, A, y):
    return by_solve(weights.div_(2), means, covs, A, y)


def doubled(*given):
    weights, means, covs = by_solve(*given)
    return weights, 2 * means, covs


def vectorised(denoise, path, z0, mean, std, u, eps, t_min):
    return denoise(z0 + eps, u).mean(0)


def one_time(denoise, path, z0, mean, std, u, eps, t_min):
    return denoise(z0, 0.5)


def own_noise(denoise, path, z0, mean, std, u, eps, t_min):
    return in_scores(denoise, path, z0, mean, std, u, torch.randn(u.shape).double(), t_min)


@pytest.mark.parametrize(
    "exercise, answer, message",
    [
        (check.upsampled, in_place, "writes into"),
        (check.upsampled, doubled, "of means is 2 times what is right"),
        (check.upsampled, lambda *given: by_solve(*given)[0], "return all three"),
        (check.upsampled, lambda *given: by_solve(*given)[:2], "got a tuple of 2 tensors"),
        (check.upsampled, lambda *given: (1, 2, 3), "of weights should be one tensor"),
        (check.upsampled, lambda w, m, c, A, y: (w, m, c), r"weights has shape \(3,\), expected"),
        (check.cross_entropy, one_time, r"a time for each, .* t 0\.5"),
        (check.cross_entropy, own_noise, "draw nothing yourself"),
        (check.cross_entropy, vectorised, r"one level after another; got latents \(3, 5\)"),
    ],
)
def test_what_no_value_tells_is_named_too(exercise, answer, message):
    with pytest.raises(Wrong, match=message):
        exercise(answer)
