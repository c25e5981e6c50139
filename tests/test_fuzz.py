"""Generated calls of the public functions: right, or named; never silently wrong, never silent NaN.

Every function here answers each sample by itself, which is the truth it is held to: row i of the
answer is the answer for row i alone. `FUZZ=20000 pytest tests/test_fuzz.py` runs more calls.
"""

import os
import random
import traceback

import numpy as np
import pytest
import torch
from cases import mixture

CALLS = int(os.environ.get("FUZZ", 1800))

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
    from minigen import ddim, ddpm, flow, gan, guidance, nets, oracle, paths, score, targets, vae

    torch.manual_seed(0)
    law64 = mixture()
    law = lambda x: law64.to(x.dtype) if torch.is_tensor(x) and x.is_floating_point() else law64
    net = nets.MLP(2, hidden=8, classes=3)
    torch.nn.init.normal_(net.last.weight)
    vp, linear, table = paths.VP(), paths.Linear(), paths.DDPM(ddpm.linear_betas(50))
    end = lambda walk: [*walk][-1]
    first = lambda x: x[:, 0] if x.ndim == 2 else x
    grid = torch.tensor([0.9, 0.5, 0.2])
    gaussian = vae.LinearGaussian(torch.tensor([[1.0], [0.5]]), torch.tensor([0.3, -1.0]), 0.7)
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
        "net's ddim": lambda x, e, t, k: end(
            ddim.sample(paths.denoiser(net, vp, targets.v, k), vp, x, grid)
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


def campaign(calls: int, seed: int) -> list[str]:
    """What is wrong with so many generated calls, a line for each kind."""
    rng, found = random.Random(seed), {}
    table = functions()
    for k in range(calls):
        name = [*table][k % len(table)]
        args, how = drawn(rng)
        wrong = verdict(table[name], args, how)
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
