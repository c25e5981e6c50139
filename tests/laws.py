"""Two normals on a fine grid, for claims that quadrature decides: divergences, critics, games."""

import torch

from minigen import oracle

DOUBLE = torch.float64
GRID = torch.linspace(-14, 14, 56_001, dtype=DOUBLE)[:, None]


def normal(mean, std, d=1):
    """N(mean, std² I), mean ≠ 0 and variance ≠ 1 but where 0 and 1 are asked for."""
    return oracle.GaussianMixture.isotropic(torch.full((1, d), mean, dtype=DOUBLE), std)


def integral(values):
    return torch.trapezoid(values, GRID[:, 0])


def two_laws(p=(0.3, 0.7), q=(1.5, 0.9)):
    """The log densities of two normals on the grid, and the densities."""
    p, q = (normal(*law).log_prob(GRID) for law in (p, q))
    return p, q, p.exp(), q.exp()


def draws(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
