"""Generated calls of the public functions: right, or named; never silently wrong, never silent NaN.

Some functions answer each sample by itself, which is the truth they are held to: row i of the
answer is the answer for row i alone. The others are held to laws: what a change of the arguments
changes in the answer, and that the same numbers in float64 have the same answer.
`FUZZ=20000 pytest tests/test_fuzz.py` runs more calls.
"""

import copy
import math
import os
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from cases import mixture
from torch import nn

from minigen import (
    data,
    ddim,
    ddpm,
    distill,
    edm,
    flow,
    gan,
    guidance,
    markov,
    metrics,
    nets,
    oracle,
    paths,
    score,
    sde,
    solvers,
    targets,
    train,
    vae,
)
from minigen.gan import augment, style

CALLS = int(os.environ.get("FUZZ", 4000))

# In a process of its own, without the checks of annotated shapes that the tests turn on elsewhere:
# what is tried is what users meet.
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
import test_fuzz
print(*test_fuzz.campaign({calls}, {seed}), sep="\\n")
"""


def functions():
    """name: a function of (x, e, t, label), rows (B, 2), (B, 2), () or (B,), (B,); by rows."""
    torch.manual_seed(0)
    law64 = mixture()
    law = lambda x: law64.to(x.dtype) if torch.is_tensor(x) and x.is_floating_point() else law64
    net = nets.MLP(2, hidden=8, classes=3)
    torch.nn.init.normal_(net.last.weight)
    vp, linear, table = paths.VP(), paths.Linear(), paths.DDPM(ddpm.linear_betas(50))
    end = lambda walk: [*walk][-1]
    first = lambda x: x[:, 0] if x.ndim == 2 else x
    grid = torch.tensor([0.9, 0.5, 0.2])
    scaled, own = edm.scale_input(net, vp, 0.5), edm.target(0.5)
    gaussian = vae.LinearGaussian(torch.tensor([[1.0], [0.5]]), torch.tensor([0.3, -1.0]), 0.7)
    two, one_step = distill.TwoTimes(2, 8, 1, 3), distill.Consistency(net, vp, 0.5, 0.01)
    torch.nn.init.normal_(two.last.weight)
    slope = lambda x: torch.tanh(x.reshape(len(x), -1).sum(1))
    out = {
        "mix": lambda x, e, t, k: vp.mix(x, e, t),
        "value": lambda x, e, t, k: targets.value(targets.v, vp, x, e, t),
        "convert": lambda x, e, t, k: targets.convert(targets.v, targets.eps, vp, x, e, t),
        "targets.loss": lambda x, e, t, k: targets.loss(net, vp, targets.v, x, e, t, k),
        "simple_loss": lambda x, e, t, k: ddpm.simple_loss(net, table, x, t, e, k),
        "flow.loss": lambda x, e, t, k: flow.loss(net, x, e, t, k),
        "net": lambda x, e, t, k: net(x, t, k),
        "denoiser": lambda x, e, t, k: paths.denoiser(net, vp, targets.v, k)(x, t),
        "velocity": lambda x, e, t, k: flow.velocity(law(x).denoiser(vp), vp)(x, t),
        "from_denoiser": lambda x, e, t, k: score.from_denoiser(law(x).denoiser(vp), vp)(x, t),
        "log_prob": lambda x, e, t, k: law64.log_prob(x),
        "oracle.score": lambda x, e, t, k: law64.score(x),
        "posterior": lambda x, e, t, k: law64.posterior(x),
        "oracle.denoiser": lambda x, e, t, k: law64.denoiser(vp)(x, t),
        "of a class": lambda x, e, t, k: law64.denoiser(linear, k)(x, t),
        "oracle.eps": lambda x, e, t, k: law64.eps(linear)(x, t),
        "oracle.velocity": lambda x, e, t, k: law64.velocity(vp)(x, t),
        "classifier": lambda x, e, t, k: law64.classifier(vp)(x, t),
        "kl_normal": lambda x, e, t, k: vae.kl_normal(x, e),
        "linear": lambda x, e, t, k: gaussian.log_prob(x),
        "slerp": lambda x, e, t, k: ddim.slerp(x, e, t),
        "clip": lambda x, e, t, k: guidance.clip(law(x).denoiser(vp), -1, 1)(x, t),
        "interval": lambda x, e, t, k: guidance.interval(
            law(x).denoiser(vp, 1), law(x).denoiser(vp), 0.2, 0.6
        )(x, t),
        "cfg": lambda x, e, t, k: guidance.cfg(
            paths.denoiser(net, vp, targets.v, k), paths.denoiser(net, vp, targets.v), 2.0
        )(x, t),
        "explicit": lambda x, e, t, k: score.explicit_loss(torch.sin, torch.cos, x),
        "implicit": lambda x, e, t, k: score.implicit_loss(torch.sin, x),
        "r1": lambda x, e, t, k: gan.r1(slope, x),
        "ddim": lambda x, e, t, k: end(ddim.sample(law(x).denoiser(vp), vp, x, grid)),
        "heun": lambda x, e, t, k: end(flow.heun(law(x).denoiser(vp), vp, x, grid)),
        "edm.target": lambda x, e, t, k: targets.value(own, vp, x, e, t),
        "scale_input": lambda x, e, t, k: scaled(x, t, k),
        "edm's loss": lambda x, e, t, k: targets.loss(scaled, vp, own, x, e, t, k),
        "edm's denoiser": lambda x, e, t, k: paths.denoiser(scaled, vp, own, k)(x, t),
        "stochastic": lambda x, e, t, k: end(
            edm.stochastic(law(x).denoiser(vp), vp, x, grid, churn=0.0)
        ),
        "reverse": lambda x, e, t, k: end(sde.reverse(law(x).denoiser(vp), vp, x, grid, noise=0.0)),
        "sde.log_prob": lambda x, e, t, k: sde.log_prob(law(x).denoiser(vp), vp, x, grid.flip(0)),
        "divergence": lambda x, e, t, k: sde.exact_divergence(torch.sin, x),
        "2m": lambda x, e, t, k: end(solvers.dpmpp_2m(law(x).denoiser(vp), vp, x, grid)),
        "2s": lambda x, e, t, k: end(solvers.dpmpp_2s(law(x).denoiser(vp), vp, x, grid)),
        "net's taylor": lambda x, e, t, k: end(
            solvers.taylor(paths.denoiser(net, vp, targets.v, k), vp, x, grid)
        ),
        "net's ddim": lambda x, e, t, k: end(
            ddim.sample(paths.denoiser(net, vp, targets.v, k), vp, x, grid)
        ),
        "two steps in one": lambda x, e, t, k: distill.progressive_target(
            law(x).denoiser(vp), vp, x, t, 0.6 * t, 0.2 * t
        ),
        "consistency": lambda x, e, t, k: one_step(x, t, k),
        "consistency_loss": lambda x, e, t, k: distill.consistency_loss(
            one_step, one_step, vp, x, e, t, 0.5 * t
        ),
        "two times": lambda x, e, t, k: two(x, t, 0.5 * t, k),
        "mean_flow_loss": lambda x, e, t, k: distill.mean_flow_loss(
            lambda x, t, s: two(x, t, s, k), x, e, t, 0.5 * t
        ),
        "posterior law": lambda x, e, t, k: ddpm.posterior(table, x, e, t, 0.5 * t).mean,
    }
    out |= {
        f"gan.{n}": lambda x, e, t, k, f=f: f.critic(first(x), first(e))
        for n, f in gan.losses.items()
    }
    assert isinstance(law64, oracle.GaussianMixture)
    return out


def drawn(rng: random.Random):
    """One call's arguments, how they were spoilt, and whether a user could have meant them."""
    b, g = rng.choice((1, 2, 3, 5)), torch.Generator().manual_seed(rng.randrange(2**31))
    dtype = rng.choice((torch.float64, torch.float32))
    x, e = (0.5 + 1.5 * torch.randn(b, 2, generator=g, dtype=torch.float64).to(dtype) for _ in "xe")
    t = 0.05 + 0.9 * torch.rand((b,) if rng.random() < 0.5 else (), generator=g).to(dtype)
    label = torch.randint(3, (b,), generator=g)
    args = {"x": x, "e": e, "t": t, "label": label}
    how = rng.choice((*SPOILT, "as they are", "as they are"))
    if how in SPOILT:
        name = rng.choice(SPOILT[how][0])
        args[name] = SPOILT[how][1](args[name])
        how = f"{name} {how}"
    return [*args.values()], how


def twice(x):
    return torch.cat([x.reshape(-1)] * 2) if x.ndim < 2 else torch.cat([x, x])


def other_precision(x):
    return x.double() if x.dtype == torch.float32 else x.float()


BATCHES, ALL = ("x", "e"), ("x", "e", "t", "label")
SPOILT = {
    "strided": (BATCHES, lambda x: torch.stack([x, x], -1)[..., 0]),
    "transposed": (BATCHES, lambda x: x.T.contiguous().T),
    "expanded": (BATCHES, lambda x: x[:1].expand(x.shape)),
    "empty": (BATCHES, lambda x: x[:0]),
    "narrow": (BATCHES, lambda x: x[:, :1]),
    "wide": (BATCHES, lambda x: torch.cat([x, x], 1)),
    "flat": (BATCHES, lambda x: x.flatten()),
    "one row": (BATCHES, lambda x: x[0]),
    "deep": (BATCHES, lambda x: x[:, None]),
    "longer": (ALL, twice),
    "a column": (("t", "label"), lambda x: x.reshape(-1, 1)),
    "of integers": (BATCHES, lambda x: x.long()),
    "in half precision": (BATCHES, lambda x: x.half()),
    "in the other precision": (BATCHES, other_precision),
    "an array": (ALL, lambda x: np.asarray(x)),
    "a number": (("t", "label"), lambda x: x.reshape(-1)[0].item()),
    "a numpy number": (("t", "label"), lambda x: x.reshape(-1)[0].numpy()[()]),
    "0-d": (("t", "label"), lambda x: x.reshape(-1)[0]),
    "too large": (("t", "label"), lambda x: x + 3),
    "negative": (("t", "label"), lambda x: -1 - x),
    "NaN": (("t",), lambda x: x * torch.nan),
    "at the data": (("t",), torch.zeros_like),
    "at the noise": (("t",), torch.ones_like),
    "of floats": (("label",), lambda x: x.float()),
    "None": (("label",), lambda x: None),
}  # fmt: skip


def named(error: Exception) -> bool:
    """Whether minigen itself raised it, as a ValueError or TypeError with a sentence."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        isinstance(error, ValueError | TypeError) and f"{os.sep}minigen{os.sep}" in frame.filename
    )


def row(x, i: int, b: int):
    """Argument x of sample i alone."""
    if isinstance(x, torch.Tensor | np.ndarray) and x.ndim and len(x) == b:
        return x[i : i + 1]
    return x


def verdict(f, args, how: str) -> str:
    """'' where the call is right or named, else what is wrong with it."""
    try:
        with torch.no_grad():
            got = f(*args)
    except Exception as error:
        return "" if named(error) else f"unnamed {type(error).__name__}: {str(error)[:80]}"
    x, e, t, label = args
    if not isinstance(x, torch.Tensor):
        return f"took {type(x).__name__}"
    b = len(x)
    if len(got) != b:
        return f"{len(got)} answers for {b} samples"
    finite = all(bool(torch.isfinite(a).all()) for a in (x, e, t) if isinstance(a, torch.Tensor))
    if finite and not bool(torch.isfinite(got).all()):
        return "silent NaN or infinity"
    if isinstance(e, torch.Tensor) and len(e) != b and "e " in how:
        return ""  # a function that never looks at e
    for i in range(b):
        with torch.no_grad():
            alone = f(*(row(a, i, b) for a in args))
        tol = 1e-9 if got.dtype == torch.float64 else 2e-2 if got.dtype == torch.half else 2e-4
        if alone.shape != got[i : i + 1].shape or not torch.allclose(
            alone, got[i : i + 1], rtol=tol, atol=tol, equal_nan=True
        ):
            return "differs from the sample's own answer"
    return ""


# Samples, chains, matrices, images, counts: functions with laws of their own ----------------------


def parts(got) -> list[torch.Tensor]:
    """All numbers of an answer."""
    if isinstance(got, torch.Tensor):
        return [got.detach()]
    if isinstance(got, bool | int | float | np.number):
        return [torch.tensor(got, dtype=torch.float64)]
    if isinstance(got, nn.Module):
        return [*got.state_dict().values()]
    return [x for part in got for x in parts(part)]


def finite(got) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in parts(got))


def near(a, b, tol: float) -> bool:
    a, b = parts(a), parts(b)
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=tol, atol=tol)
        for x, y in zip(a, b, strict=True)
    )


def rounding(args: dict) -> float:
    """What the coarsest of the arguments may change in an answer."""
    kinds = {x.dtype for x in args.values() if isinstance(x, torch.Tensor)}
    return 5e-2 if torch.half in kinds else 5e-4 if kinds - {torch.float64} else 1e-6


@dataclass
class Law:
    """holds(f, args, got), and in words what it is."""

    words: str
    holds: Callable

    def __call__(self, f, args: dict, got) -> bool:
        return bool(self.holds(f, args, got))


def becomes(words: str, change: Callable, value: Callable = lambda got, args: got) -> Law:
    """After a change of the arguments the answer is `value` of what it was."""
    return Law(
        words,
        lambda f, a, got: near(f(*{**a, **change(a)}.values()), value(got, a), rounding(a)),
    )


def says(words: str, holds: Callable) -> Law:
    """holds(answer, arguments)."""
    return Law(words, lambda f, a, got: holds(got, a))


def plain(name: str, x):
    """The same numbers as a tensor in float64, but for labels and states; or as they are."""
    if isinstance(x, torch.Tensor | np.ndarray | list):
        x = torch.as_tensor(x).contiguous()
        return x if name in ("label", "start") else x.double()
    return x


precise = becomes("in float64", lambda a: {k: plain(k, x) for k, x in a.items()})
symmetric = becomes("the other way round", lambda a: {"x": a["y"], "y": a["x"]})
shuffled = becomes("in another order", lambda a: {"x": a["x"].flip(0), "y": a["y"].roll(1, 0)})
moved = becomes("elsewhere", lambda a: {"x": 3 + a["x"], "y": 3 + a["y"]})
as_vectors = becomes("as vectors", lambda a: {k: a[k][:, None].flatten(1) for k in "xy"})
alike = says("as x", lambda y, a: y.shape == a["x"].shape and y.dtype == a["x"].dtype)
share = says("in [0, 1]", lambda p, a: 0 <= p <= 1)
per_row = says("one a sample", lambda y, a: y.shape == a["x"].shape[:1])
distance = (precise, symmetric, shuffled, moved)


def scaled(power: int) -> Law:
    both = lambda a: {"x": 4 * a["x"], "y": 4 * a["y"]}
    return becomes("in other units", both, lambda got, a: 4**power * got)


def of_twins(value: float) -> Law:
    same = lambda a: {"x": a["x"], "y": a["x"].clone()}
    return becomes("of equal samples", same, lambda got, a: torch.full_like(got, value))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def dyadic(g, *shape: int, dtype=torch.float64):
    """Multiples of 1/64 in [−1, 2], which no precision rounds."""
    return (torch.randint(-64, 129, shape, generator=g) / 64).to(dtype)


def samples(g, rng, dtype):
    shape = rng.choice(((), (1,), (2,), (3, 1, 2)))
    x, y = (dyadic(g, rng.randrange(2, 9), *shape, dtype=dtype) for _ in "xy")
    return {"x": x, "y": y}


def numbers(g, rng, dtype):
    return {k: dyadic(g, rng.randrange(1, 9), dtype=dtype) for k in "xy"}


def pairs(g, rng, dtype):
    shape = rng.randrange(1, 5), *rng.choice(((), (2,), (1, 2, 3)))
    return {k: dyadic(g, *shape, dtype=dtype) for k in "xy"}


def plane(g, rng, dtype):
    return {"x": dyadic(g, rng.randrange(1, 6), 2, dtype=dtype)}


def labelled(g, rng, dtype):
    b = rng.randrange(1, 5)
    return {"x": dyadic(g, b, 3, dtype=dtype), "label": torch.randint(3, (b,), generator=g)}


def chain(g, rng, dtype):
    shape = rng.randrange(4, 12), *rng.choice(((), (1,), (3,), (2, 2)))
    x = dyadic(g, *shape, dtype=dtype)
    return {"x": (64 * x).long() if rng.random() < 0.3 else x}


def matrix(g, rng, dtype):
    P = torch.rand(2 * [rng.randrange(1, 5)], generator=g, dtype=torch.float64) + 0.05
    return {"P": (P / P.sum(1, keepdim=True)).to(dtype)}


def path(g, rng, dtype):
    P = matrix(g, rng, dtype)["P"]
    start = torch.randint(len(P), (rng.randrange(1, 4),), generator=g)
    return {"P": P, "start": rng.choice((start, start.tolist(), 0)), "n": rng.randrange(1, 6)}


def with_law(g, rng, dtype):
    P = matrix(g, rng, dtype)["P"]
    return {"P": P, "pi": (0.1 + torch.rand(len(P), generator=g)).to(dtype)}


def walkers(g, rng, dtype):
    return {**plane(g, rng, dtype), "step": 0.5, "n": rng.randrange(1, 4)}


def images(g, rng, dtype):
    shape = rng.randrange(1, 4), *rng.choice(((1, 3, 3), (2, 5, 3), (3, 3, 5)))
    return {"x": dyadic(g, *shape, dtype=dtype)}


def edited(g, rng, dtype):
    side = rng.randrange(1, 5)
    shape = rng.randrange(1, 4), rng.choice((1, 3)), side, side
    return {"x": dyadic(g, *shape, dtype=dtype), "p": rng.choice((0.0, 0.5, 1.0))}


def styled(g, rng, dtype):
    x = images(g, rng, dtype)["x"]
    return {"x": x} | {k: dyadic(g, *x.shape[:2], dtype=dtype) for k in ("scale", "shift")}


def modulated(g, rng, dtype):
    C = rng.randrange(1, 4)
    return {"weight": dyadic(g, 2, C, 3, 3, dtype=dtype), "scale": dyadic(g, 4, C, dtype=dtype)}


def filters(g, rng, dtype):
    x = images(g, rng, dtype)["x"]
    return {"x": x, "weight": 3 + dyadic(g, len(x), 2, x.shape[1], 3, 3, dtype=dtype)}


def count(g, rng, dtype):
    return {"n": rng.choice((1, 2, 5))}


def of_metrics():
    law = mixture()
    swd = lambda x, y: metrics.sliced_wasserstein(x, y, generator=seeded())
    error = lambda x, y: metrics.with_error(swd, x, y, repeats=2, generator=seeded())
    return {
        "energy_distance": (samples, metrics.energy_distance, *distance, as_vectors, scaled(1)),
        "mmd": (samples, metrics.mmd, *distance, as_vectors, scaled(0)),
        "mmd, h": (samples, lambda x, y: metrics.mmd(x, y, bandwidth=0.5), *distance, as_vectors),
        "sliced": (samples, swd, *distance, as_vectors, scaled(1), of_twins(0.0)),
        "W1": (numbers, metrics.wasserstein_1d, *distance, scaled(1), of_twins(0.0)),
        "frechet": (samples, metrics.frechet, *distance, as_vectors, scaled(2), of_twins(0.0)),
        "duplicates": (
            samples, metrics.duplicates, precise, shuffled, moved, scaled(0), of_twins(1.0), share
        ),
        "recall": (
            samples, lambda x, y: metrics.recall(x, y, k=1),
            precise, shuffled, moved, scaled(0), of_twins(1.0), share,
        ),
        "with_error": (
            samples, error, says("its value", lambda e, a: e.value == float(swd(*a.values())))
        ),
        "mode_coverage": (
            plane, lambda x: metrics.mode_coverage(x, law),
            precise, becomes("in another order", lambda a: {"x": a["x"].flip(0)}),
        ),
        "accuracy": (labelled, lambda x, label: metrics.accuracy(torch.sin, x, label), share),
        "share_with_error": (
            count, lambda n: metrics.share_with_error(1.0, n),
            says("positive", lambda e, a: e.stderr > 0),
        ),
    }  # fmt: skip


def of_markov():
    total = lambda x: x[:, None].flatten(1).sum(1)
    log_prob = lambda x: -0.5 * total(x.square())
    draw = lambda x, generator: (
        0.5 * total(x) + torch.randn(len(x), generator=generator, dtype=torch.result_type(x, 0.5))
    )
    walk = lambda f, *what: lambda x, step, n: [*f(*what, x, step=step, n=n, generator=seeded())]
    scan = lambda f: lambda x, step, n: [*f([draw, draw], x, n=n, generator=seeded())]
    states = says("n states as x", lambda s, a: len(s) == a["n"] and all(
        y.shape == a["x"].shape and y.dtype == a["x"].dtype and ok.shape == a["x"].shape[:1]
        for y, ok in s
    ))  # fmt: skip
    visited = says("n states from the start", lambda s, a: (
        len(s) == a["n"] and s.shape[1:] == torch.as_tensor(a["start"]).shape
        and bool((s[0] == torch.as_tensor(a["start"])).all())
        and s.dtype == torch.int64 and 0 <= s.min() and s.max() < len(a["P"])
    ))  # fmt: skip
    still = lambda pi, P: (pi.double() @ P.double() - pi).abs().max() < 1e-5
    renamed = becomes("renamed", lambda a: {"P": a["P"].flip(0, 1)}, lambda pi, a: pi.flip(0))
    units = becomes("in other units", lambda a: {"x": 3 - 8 * a["x"]})
    beside = becomes("in another order", lambda a: {"x": a["x"].flip(1)} if a["x"].ndim > 1 else {})
    any_unit = precise, units, beside
    positive = says("positive", lambda e, a: bool((e > 0).all()))
    return {
        "autocorrelation": (chain, lambda x: markov.autocorrelation(x, 3), *any_unit),
        "effective_sample_size": (chain, markov.effective_sample_size, *any_unit, positive),
        "rhat": (chain, lambda x: 1 / markov.rhat(x), *any_unit),
        "estimate": (chain, lambda x: markov.estimate(x), precise, beside),
        "stationary": (
            matrix, markov.stationary, precise, renamed,
            says("stationary", lambda pi, a: still(pi, a["P"])),
        ),
        "spectral_gap": (matrix, markov.spectral_gap, precise, share),
        "closed_classes": (matrix, lambda P: markov.closed_classes(P), precise),
        "simulate": (path, lambda *a: markov.simulate(*a, generator=seeded()), visited),
        "metropolis_matrix": (
            with_law, lambda P, pi: markov.metropolis_matrix(P, pi), precise,
            says("reversible", lambda P, a: markov.is_reversible(P, a["pi"])),
        ),
        "is_reversible": (with_law, lambda P, pi: markov.is_reversible(P, pi)),
        "total_variation": (
            pairs, lambda x, y: markov.total_variation(x, y), precise, symmetric,
            says("over states", lambda d, a: d.ndim == max(x.ndim for x in a.values()) - 1),
        ),
        "metropolis": (walkers, walk(markov.metropolis_hastings, log_prob), states),
        "mala": (walkers, walk(markov.mala, log_prob), states),
        "gibbs": (walkers, scan(markov.gibbs), states),
        "gibbs_random_scan": (walkers, scan(markov.gibbs_random_scan), states),
    }  # fmt: skip


def of_gan():
    critic = lambda x: torch.tanh(x[:, None].flatten(1)).sum(1)
    log_p, log_q = critic, lambda x: -critic(x)
    edits = {
        "translate": augment.translate, "flip": augment.flip, "cutout": augment.cutout,
        "colour": augment.colour, "rotate": augment.rotate,
        "compose": augment.compose(augment.flip, augment.colour),
    }  # fmt: skip
    off = becomes("at p = 0", lambda a: {"p": 0.0}, lambda got, a: a["x"])
    same = lambda x: style.resample(x, *x.shape[2:])
    moments = says("its mean and std", lambda y, a: near(
        (y.mean((2, 3)), y.std((2, 3), correction=0)), (a["shift"], a["scale"].abs()), 2e-2
    ))  # fmt: skip
    penalty = says("positive", lambda p, a: bool((p >= 0).all()))
    out = {
        f"augment.{name}": (
            edited, lambda x, p, f=f: f(x, p, generator=seeded()), alike, off
        )
        for name, f in edits.items()
    }  # fmt: skip
    out |= {
        f"{name}.bound": (
            numbers, lambda x, y, f=f: f.bound(x - 9, y - 9), precise, shuffled
        )
        for name, f in gan.f_divergences.items()
    }  # fmt: skip
    return out | {
        "divergence": (pairs, lambda x, y: gan.js(log_p, log_q, x, y), precise, symmetric),
        "gradient_penalty": (
            pairs, lambda x, y: gan.gradient_penalty(critic, x, y, generator=seeded()),
            per_row, penalty,
        ),
        "consistency": (
            pairs, lambda x, y: augment.consistency(critic, x, y, lambda z, generator: 2 * z),
            precise, per_row, penalty,
        ),
        "overfitting": (numbers, lambda x, y: augment.overfitting(x), precise),
        "adapt": (
            lambda *_: {"p": 0.5, "r": 0.7}, augment.adapt, says("a probability", lambda p, a: (
                0 <= p <= 1
            )),
        ),
        "adain": (styled, style.adain, precise, moments),
        "modulate": (modulated, style.modulate, precise),
        "demodulate": (
            filters, lambda x, weight: style.demodulate(weight), precise,
            says("of norm 1", lambda w, a: near(
                w.square().sum((2, 3, 4)), torch.ones(w.shape[:2]), 2e-2
            )),
        ),
        "conv": (filters, lambda x, weight: style.conv(x, weight, padding=1), precise),
        "shift": (
            lambda *a: {**images(*a), "down": 0.5, "right": 0.25}, style.shift, precise, alike,
            becomes("by a pixel", lambda a: {"down": 1.0, "right": 0.0},
                    lambda got, a: same(a["x"]).roll(1, 2)),
        ),
        "resample": (
            lambda *a: {**images(*a), "height": 5, "width": 7}, style.resample, precise,
            says("its size", lambda y, a: y.shape == (*a["x"].shape[:2], a["height"], a["width"])),
        ),
        "alias_free": (images, lambda x: style.alias_free(torch.relu, x), precise, alike),
        "truncate": (
            lambda *a: {**plane(*a), "psi": 0.5},
            lambda x, psi: style.truncate(x, torch.ones(2, dtype=torch.float64), psi), precise,
            becomes("ψ = 1", lambda a: {"psi": 1.0}, lambda got, a: a["x"]),
        ),
        "path_length": (
            plane, lambda x: style.path_length(lambda w: 2 * w, x, generator=seeded()), per_row
        ),
    }  # fmt: skip


def of_edm():
    vp, ts = paths.VP(), torch.tensor([0.9, 0.5, 0.2])
    walk = lambda x, **given: [
        *edm.stochastic(lambda x, t: 0.5 * x, vp, x, ts, **given, generator=seeded())
    ][-1]
    levels = {"n": 4, "low": 0.01, "high": 5.0, "rho": 7.0}
    unit = says("unit variance in", lambda c, a: near(
        (a["x"].double() ** 2 + float(a["s"]) ** 2) * c[2].double() ** 2,
        torch.ones(a["x"].shape), 2e-2,
    ))  # fmt: skip
    return {
        "edm.grid": (
            lambda *_: dict(levels), lambda n, low, high, rho: edm.grid(vp, n, low, high, rho),
            says("n + 1 that fall to 0", lambda y, a: (
                len(y) == a["n"] + 1 and bool((y.diff() < 0).all()) and y[-1] == 0
            )),
            says("from high", lambda y, a: near(vp.sigma(y[0]), float(a["high"]), 1e-9)),
        ),
        "log_normal_times": (
            lambda *_: {"n": 3, "mean": -1.0, "std": 0.5},
            lambda n, mean, std: edm.log_normal_times(vp, n, mean, std, generator=seeded()),
            says("n of them, in [0, 1]", lambda t, a: (
                len(t) == a["n"] and bool(((t >= 0) & (t <= 1)).all())
            )),
        ),
        "edm.coefficients": (
            lambda *a: {"x": plane(*a)["x"].abs(), "s": 0.5}, edm.coefficients, precise, unit,
        ),
        "edm.stochastic": (
            lambda *a: {**plane(*a), "churn": 0.5, "s_noise": 1.0},
            lambda x, churn, s_noise: walk(x, churn=churn, s_noise=s_noise), alike,
        ),
    }  # fmt: skip


def of_vae():
    W, b = torch.tensor([[1.0], [0.5]]).double(), torch.tensor([0.3, -1.0]).double()
    exact = vae.LinearGaussian(W, b, 0.7)
    decoder = nn.Linear(1, 2).double()
    decoder.load_state_dict({"weight": W, "bias": b})
    posterior = exact.posterior(torch.zeros(1, 2).double())
    spread = posterior.covariance_matrix[0, 0].log()
    encoder = lambda x: torch.cat([exact.posterior(x).mean, spread.expand(len(x), 1)], 1)
    model = vae.VAE(encoder, decoder, vae.Gaussian(2 * math.log(0.7)).double(), latent=1)
    evidence = says("exact", lambda w, a: near(w, exact.log_prob(a["x"]), 5e-4))
    with_n = lambda *a: {**plane(*a), "n": 3}
    return {
        "elbo": (
            with_n, lambda x, n: vae.elbo(model, x, samples=n, generator=seeded()),
            says("the sum of its parts", lambda e, a: near(e.total, e.reconstruction - e.kl, 1e-9)),
        ),
        "iwae": (
            with_n, lambda x, n: vae.iwae(model, x, samples=n, generator=seeded()), evidence,
        ),
        "reparameterize": (
            pairs, lambda x, y: vae.reparameterize(x, y, generator=seeded()), alike
        ),
        "kl_residual": (pairs, lambda x, y: vae.kl_residual(x, y, 0.5), precise, per_row),
        "free_bits": (
            pairs, lambda x, y: vae.free_bits(x, y, 0.1), precise,
            becomes("in another order", lambda a: {"x": a["x"].flip(0), "y": a["y"].flip(0)}),
        ),
        "active_units": (plane, vae.active_units, precise),
        "VAE.sample": (
            count, lambda n: model.sample(n, generator=seeded()),
            says("n of them", lambda x, a: x.shape == (a["n"], 2)),
        ),
        "LinearGaussian.sample": (
            count, lambda n: exact.sample(n, generator=seeded()),
            says("n of them", lambda x, a: x.shape == (a["n"], 2)),
        ),
        "LinearGaussian.fit": (
            lambda g, rng, dtype: {"x": dyadic(g, 9, 3, dtype=dtype), "k": 1},
            lambda x, k: vae.LinearGaussian.fit(x, k).log_prob(x), precise,
        ),
        "LinearGaussian.posterior": (plane, lambda x: exact.posterior(x).mean, precise),
        "LinearGaussian.elbo": (
            plane, lambda x: exact.elbo(x, exact.posterior(x).mean, spread.exp().reshape(1, 1)),
            evidence,
        ),
    }  # fmt: skip


def of_data():
    of_length = says("n of them", lambda x, a: all(len(each) == a["n"] for each in parts(x)))
    bright = says("in [−1, 1]", lambda x, a: parts(x)[0].abs().max() <= 1)
    drawn = lambda f: (count, lambda n: f(n, generator=seeded()), of_length)
    sized = lambda g, rng, dtype: {"n": rng.choice((1, 3)), "size": 8}
    rows = lambda x, size: next(data.batches(x, size=size, generator=seeded()))[0]
    return {name: drawn(f) for name, f in data.TOYS.items()} | {
        "glyphs": (
            sized, lambda n, size: data.glyphs(n, size, generator=seeded()), of_length, bright
        ),
        "patches": (
            sized, lambda n, size: data.patches(n, size, generator=seeded()), of_length, bright
        ),
        "digits": (lambda *_: {"split": "test"}, data.digits, bright),
        "batches": (
            lambda *a: {**plane(*a), "size": 1}, rows,
            says("rows of x", lambda y, a: y.dtype == a["x"].dtype and y.shape == (
                a["size"], *a["x"].shape[1:]
            )),
        ),
    }  # fmt: skip


def of_training():
    def trained(lr, steps, every):
        p = nn.Parameter(torch.ones(2))
        return [*train.fit(lambda: p.square().sum(), [p], lr=lr, steps=steps, every=every,
                           progress=False)]  # fmt: skip

    def lost(x):
        p = nn.Parameter(torch.ones((), dtype=torch.float64))
        loss = lambda: p * x if isinstance(x, torch.Tensor) else x
        return [*train.fit(loss, [p], steps=1, progress=False)]

    def averaged(decay):
        ema = train.Ema(net := nn.Linear(1, 1), decay)
        ema.update()
        return nn.utils.parameters_to_vector(net.parameters()) * 0 + ema.updates

    at = torch.tensor(0.5)
    points, pixels = torch.ones(2, 3), torch.ones(2, 1, 4, 4)
    net = lambda f, x: lambda *sizes: f(x.shape[1:], *sizes)(x, at)
    sizes = lambda **a: lambda *_: dict(a)
    zero = says("zero at birth", lambda y, a: not y.any())
    rate = lambda lr, steps, warmup: [train.cosine(lr, steps, warmup)(n) for n in range(5)]
    return {
        "fit": (
            sizes(lr=0.1, steps=2, every=1), trained,
            says("a loss a step", lambda y, a: len(y) == a["steps"]),
        ),
        "fit's loss": (lambda g, rng, dtype: {"x": dyadic(g, 1, dtype=dtype)[0]}, lost),
        "cosine": (
            sizes(lr=0.1, steps=4, warmup=2), rate,
            says("up to lr", lambda y, a: max(map(abs, y)) <= abs(a["lr"])),
        ),
        "Ema": (sizes(decay=0.5), averaged),
        "MLP": (sizes(hidden=8, depth=1, classes=2), net(nets.MLP, points), zero),
        "ResMLP": (sizes(hidden=8, depth=1, classes=2), net(nets.ResMLP, points), zero),
        "UNet": (sizes(channels=8), net(nets.UNet, pixels), zero),
        "Sinusoidal": (sizes(dim=4), lambda dim: nets.Sinusoidal(dim)(at[None])),
        "Fourier": (
            sizes(dim=4), lambda dim: nets.Fourier(dim, generator=seeded())(at[None])
        ),
        "vae.mlp": (
            sizes(latent=1, hidden=4, depth=1),
            lambda *sizes: vae.mlp(3, *sizes).encode(points)[0].shape,
        ),
    }  # fmt: skip


def general(change: Callable) -> Callable:
    """The change, where the shape allows it."""

    def changed(x):
        try:
            return change(x)
        except (IndexError, RuntimeError):
            return x

    return changed


TENSORS = {how: general(change) for how, (_, change) in SPOILT.items() if how != "None"}
TENSORS |= {
    "transposed": general(lambda x: x.transpose(0, -1).contiguous().transpose(0, -1)),
}
NUMBERS = {
    "zero": lambda n: 0 * n,
    "negative": lambda n: -n,
    "and a half": lambda n: n + 0.5,
    "a float": float,
    "NaN": lambda n: math.nan,
    "infinite": lambda n: math.inf,
    "a tensor": torch.tensor,
    "a numpy number": lambda n: np.asarray(n)[()],
    "true": lambda n: True,
}
OTHERS = {"of another name": lambda x: f"{x}s", "a number": lambda x: 3}


def spoilt(args: dict, rng: random.Random):
    """The arguments with at most one of them spoilt, and how."""
    name = rng.choice([*args])
    x = args[name]
    table = TENSORS if isinstance(x, torch.Tensor) else NUMBERS
    table = table if isinstance(x, torch.Tensor | int | float) else OTHERS
    how = rng.choice([*table])
    if rng.random() < 0.25:
        return args, "as they are"
    return {**args, name: table[how](x)}, f"{name} {how}"


def lawful(f: Callable, laws, args: dict) -> str:
    """'' where the call is right or named, else what is wrong with it."""
    before, state = copy.deepcopy(args), torch.get_rng_state()
    try:
        got = f(*args.values())
    except Exception as error:
        return "" if named(error) else f"unnamed {type(error).__name__}: {str(error)[:80]}"
    drew = not torch.equal(state, torch.get_rng_state())
    given = [x for x in args.values() if not isinstance(x, str)]
    if not finite([plain("", x) for x in given]):
        return ""
    if not finite(got):
        return "silent NaN or infinity"
    if not near([plain("", x) for x in given], [
        plain("", x) for x in before.values() if not isinstance(x, str)
    ], 0.0):  # fmt: skip
        return "changed what it was given"
    if not drew and not near(got, f(*args.values()), 0.0):
        return "differs when it is asked again"
    for law in laws:
        try:
            if not law(f, args, got):
                return f"breaks a law: {law.words}"
        except Exception as error:
            return f"breaks a law: {law.words} raises {type(error).__name__}: {str(error)[:80]}"
    return ""


def campaign(calls: int, seed: int) -> list[str]:
    """What is wrong with so many generated calls, a line for each kind."""
    rng, found = random.Random(seed), {}
    by_sample = functions()
    by_law = of_metrics() | of_markov() | of_gan() | of_edm() | of_vae() | of_data() | of_training()
    names = [*by_sample, *by_law]
    for k in range(calls):
        name = names[k % len(names)]
        if name in by_sample:
            args, how = drawn(rng)
            wrong = verdict(by_sample[name], args, how)
        else:
            draw, f, *laws = by_law[name]
            g = torch.Generator().manual_seed(rng.randrange(2**31))
            args, how = spoilt(draw(g, rng, rng.choice((torch.float64, torch.float32))), rng)
            wrong = lawful(f, laws, args)
        if wrong:
            found.setdefault(f"{name}, {how}: {wrong}", k)
    return [*sorted(found), f"{calls} calls, {len(found)} kinds"]


def test_generated_calls_are_right_or_named(run_python):
    here = os.path.dirname(__file__)
    said = run_python(PROGRAM.format(tests=here, calls=CALLS, seed=0)).splitlines()
    assert said == [f"{CALLS} calls, 0 kinds"], "\n".join(said)


@pytest.mark.parametrize(
    "wrong, complaint",
    [
        (lambda x, e, t, k: x.sum(1) * 0 + x.sum(), "differs from the sample's own answer"),
        (lambda x, e, t, k: x.mean(0), "answers for"),
        (lambda x, e, t, k: x / 0 * 0, "silent NaN"),
        (lambda x, e, t, k: torch.linalg.cholesky(x), "unnamed"),
    ],
)
def test_the_fuzz_sees_what_is_wrong(wrong, complaint):
    x = torch.randn(5, 2)
    assert complaint in verdict(wrong, [x, x, torch.tensor(0.5), torch.zeros(5).long()], "")


@pytest.mark.parametrize(
    "wrong, law, complaint",
    [
        (lambda x, y: x.float().mean() - y.mean(), symmetric, "the other way round"),
        (lambda x, y: x[0, 0] + y[0, 0], shuffled, "in another order"),
        (lambda x, y: (x * x).mean() - (y * y).mean(), moved, "elsewhere"),
        (lambda x, y: x.mean() + (x.dtype == torch.float32), precise, "in float64"),
        (lambda x, y: (x.mean() - y.mean()).abs(), scaled(2), "in other units"),
        (lambda x, y: (x.mean() - y.mean()) ** 2 + 1e-3, of_twins(0.0), "of equal samples"),
        (lambda x, y: x.sum(0), as_vectors, "as vectors"),
        (lambda x, y: x.double(), alike, "as x"),
        (lambda x, y: 1 + x.square().mean(), share, "in [0, 1]"),
        (lambda x, y: x, per_row, "one a sample"),
        (lambda x, y: x / 0 * 0, share, "silent NaN"),
        (lambda x, y: x.add_(1).sum(), share, "changed what it was given"),
        (lambda x, y: time.perf_counter(), share, "differs when it is asked again"),
        (lambda x, y: torch.linalg.cholesky(x), share, "unnamed"),
    ],
)
def test_the_laws_are_seen_to_be_broken(wrong, law, complaint):
    args = {k: dyadic(seeded(), 4, 3, 1, dtype=torch.float32) + (k == "y") for k in "xy"}
    assert complaint in lawful(wrong, [law], args)
