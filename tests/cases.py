"""The paths, targets and samplers that tests run over: a new one joins by adding its name."""

from functools import partial

import torch

from minigen import ddim, ddpm, edm, flow, oracle, paths, sde, solvers, targets

PATHS = {
    "linear": paths.Linear(),
    "cosine": paths.Cosine(),
    "vp": paths.VP(),
    "sub-vp": paths.SubVP(),
    "ve": paths.VE(),
    "edm": paths.EDM(7.0),
    "ddpm-linear": paths.DDPM(ddpm.linear_betas()),
    "ddpm-cosine-37": paths.DDPM(ddpm.cosine_betas(37)),
}
TARGETS = [
    targets.eps, targets.x0, targets.v, targets.velocity, targets.score, edm.target(0.6),
]  # fmt: skip

# name: (the walk (denoise, path, xT, ts) -> states, its order, or None where it draws noise)
SAMPLERS = {
    "ddim": (ddim.sample, 1),
    "ddim, eta ½": (partial(ddim.sample, eta=0.5), None),
    "ancestral": (ddpm.ancestral, None),
    "ancestral, β": (partial(ddpm.ancestral, variance=ddpm.forward_variance), None),
    "euler": (flow.euler, 1),
    "heun": (flow.heun, 2),
    "stochastic, churn 0": (partial(edm.stochastic, churn=0.0), 2),
    "stochastic": (partial(edm.stochastic, churn=0.5, s_max=2.0), None),
    "reverse": (sde.reverse, None),
    "reverse, no noise": (partial(sde.reverse, noise=0.0), 1),
    "predictor-corrector": (sde.predictor_corrector, None),
    "dpmpp_2m": (solvers.dpmpp_2m, 2),
    "dpmpp_2s": (solvers.dpmpp_2s, 2),
    "taylor": (solvers.taylor, 2),
}


def ends(walk, *args, order=None, generator=None, **kwargs):
    """The last state of a sampler's walk; one that draws is given a generator."""
    drawn = {"generator": generator or torch.Generator().manual_seed(3)} if order is None else {}
    *_, x = walk(*args, **drawn, **kwargs)
    return x


def mixture(dtype=torch.float64, device="cpu") -> oracle.GaussianMixture:
    """Three unequal components in the plane, each axis its own std: mean ≠ 0, variance ≠ 1."""
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-2.0, 0.5], [1.0, 3.0], [0.3, -1.0]], dtype=torch.float64)
    stds = torch.tensor([[0.3, 0.9], [0.5, 0.2], [1.2, 0.4]], dtype=torch.float64)
    return oracle.GaussianMixture(weights, means, stds).to(device, dtype)


def line(dtype=torch.float64, device="cpu") -> oracle.GaussianMixture:
    """0.3 N(−2, 0.3) + 0.7 N(1, 0.2) on the line, variances second."""
    weights, means, var = ([0.3, 0.7], [[-2.0], [1.0]], [[0.3], [0.2]])
    tensors = (torch.tensor(x, dtype=torch.float64) for x in (weights, means, var))
    weights, means, var = tensors
    return oracle.GaussianMixture(weights, means, var.sqrt()).to(device, dtype)
