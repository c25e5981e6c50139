"""What every test shares: one thread, shapes checked at run time, the devices, repeatable draws."""

import os
import subprocess
import sys

# Kernels inherit it. Two spinning threads on two busy cores are 2-64 times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jaxtyping
import pytest
import torch
from jaxtyping import install_import_hook

# Before the first import of minigen: here every annotated shape is a check, users never pay for it.
_hook = install_import_hook("minigen", "beartype.beartype")

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "minigen", derandomize=True, deadline=None, database=None, max_examples=40
)
hypothesis.settings.load_profile("minigen")


def _on(name: str, present: bool, what: str):
    absent = pytest.mark.skipif(not present, reason=f"this machine has no {what}")
    return pytest.param(name, marks=[pytest.mark.gpu, absent])


DEVICES = [
    "cpu",
    _on("cuda", torch.cuda.is_available(), "CUDA device"),
    _on("mps", torch.backends.mps.is_available(), "Apple GPU (mps)"),
]


# Scope "session", because hypothesis refuses fixtures that are not set up anew for each example.
@pytest.fixture(scope="session", params=DEVICES)
def device(request) -> torch.device:
    """Each device there is; the cases on an accelerator carry the mark `gpu`."""
    return torch.device(request.param)


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request, device) -> torch.dtype:
    """Both precisions on each device; float64 is skipped on mps, which has none."""
    return _reachable(request.param, device)


@pytest.fixture(scope="session")
def double(device) -> torch.dtype:
    """float64 on each device that has it, for claims that are algebra."""
    return _reachable(torch.float64, device)


def _reachable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if dtype is torch.float64 and device.type == "mps":
        pytest.skip("mps has no float64")
    return dtype


@pytest.fixture(autouse=True)
def _long(request):
    """Shapes are not checked in a test marked `long`: of thousands of steps that would be half."""
    marked = request.node.get_closest_marker("long")
    jaxtyping.config.update("jaxtyping_disable", marked is not None)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def generator(device) -> torch.Generator:
    """A freshly seeded generator on the device under test."""
    return torch.Generator(device).manual_seed(0)


@pytest.fixture(scope="session")
def run_python():
    """What a fresh interpreter prints for a piece of code, and if asked what it warns of."""

    def run(source: str, also_said: bool = False, **options) -> str:
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, timeout=300, **options
        )
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr * also_said).strip()

    return run
