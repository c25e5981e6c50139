"""Wheel and sdist build without a network, and what is installed works outside the checkout."""

import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHECKPOINTS = {p.name for p in (ROOT / "data").glob("*.safetensors")}


def build(what: str, source: Path, target: Path) -> Path:
    """The path of a wheel or sdist, built by the hatchling that is installed here."""
    command = [
        sys.executable,
        "-m",
        "build",
        f"--{what}",
        "--no-isolation",
        "--outdir",
        str(target),
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the unpacked sdist, which thereby holds all that the wheel needs."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of a new environment: the wheel, and everything but minigen from ours."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    (site,) = (*folder.glob("lib/python*/site-packages"), *folder.glob("Lib/site-packages"))
    target = ["--target", str(site), "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "install", *target], check=True, timeout=300)
    # Only this one folder is added: the .pth file in it that points to the checkout is not read.
    (site / "ours.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return next(
        p for p in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if p.exists()
    )


def run(python: Path, source: str) -> str:
    """What a program prints that sees neither the checkout nor this environment's settings."""
    command = [str(python), "-I", "-c", source]
    done = subprocess.run(command, cwd=python.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel_and_checkout_hold_the_same(wheel, sdist):
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "minigen").rglob("*.py")}
    want = package | {"minigen/py.typed"} | {f"minigen/checkpoints/{n}" for n in CHECKPOINTS}
    with zipfile.ZipFile(wheel) as archive:
        files = {n for n in archive.namelist() if ".dist-info/" not in n}
        assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
    assert {n.replace("\\", "/") for n in want} == files
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert package | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert not {n for n in names if n.startswith(("tests/", "notebooks/", "build/", ".venv/"))}


def test_the_wheel_imports_outside_the_checkout(python):
    source = (
        "import minigen, sys; from minigen import *; print(minigen.__version__, minigen.__file__)"
    )
    version, file = run(python, source).split(" ", 1)
    assert version == VERSION
    assert ROOT not in Path(file).parents and python.parents[1] in Path(file).parents


def test_checkpoints_travel_in_the_wheel(python):
    if not CHECKPOINTS:
        pytest.skip("no checkpoint is bundled yet")
    names = sorted(n.removesuffix(".safetensors") for n in CHECKPOINTS)
    source = f"from minigen import data; [print(data.checkpoint(n)) for n in {names}]"
    found = [Path(line) for line in run(python, source).splitlines()]
    assert [p.name for p in found] == [f"{n}.safetensors" for n in names]
    assert all(python.parents[1] in p.parents and p.is_file() for p in found)
