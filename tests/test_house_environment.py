"""One environment: pyproject.toml allows, constraints.txt pins, conda and the README repeat."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from scripts import script

import minigen

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
README = (ROOT / "README.md").read_text()
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(r) for r in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]]
BUILD = [Requirement(r) for r in PYPROJECT["build-system"]["requires"]]
INSTALL = "-c constraints.txt -e .[lab,test]"


def pins(text: str) -> dict[str, str]:
    """Name -> version of a constraints file, in which every line is one exact pin."""
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)", line).groups()
            found[canonicalize_name(name)] = version
    return found


PINS = pins((ROOT / "constraints.txt").read_text())


@pytest.mark.parametrize("line", ["torch>=2", "torch==2.13.0+cpu", "x @ file:///x", "--pre"])
def test_a_line_that_is_no_pin_is_refused(line):
    with pytest.raises(AttributeError):
        pins(line)


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_each_direct_package_is_pinned_within_its_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def closure(needed: list, extras: frozenset = frozenset(), seen: frozenset = frozenset()) -> set:
    """Every package that the requirements bring along on this machine: (name, extras)."""
    for r in needed:
        wanted = not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras | {""})
        key = canonicalize_name(r.name), frozenset(r.extras)
        if wanted and key not in seen:
            seen = seen | {key}
            try:
                further = [Requirement(line) for line in requires(r.name) or ()]
            except PackageNotFoundError:  # the browser's, where it is not installed
                continue
            seen = closure(further, key[1], seen)
    return seen


def test_the_pins_are_complete():
    there = {canonicalize_name(d.name): d.version.partition("+")[0] for d in distributions()}
    direct = {canonicalize_name(r.name) for r in DIRECT} & set(there)
    if any(there[name] != PINS[name] for name in direct):
        pytest.skip("not the pinned environment: other versions may bring other packages along")
    needed = {name for name, _ in closure(DIRECT)}
    # Torch's own helpers differ from machine to machine; its exact pin carries theirs.
    helpers = re.compile(r"setuptools|nvidia-.*|cuda-.*|triton|pyobjc.*|appnope")
    assert not {n for n in needed if not helpers.fullmatch(n)} - set(PINS)
    assert len(needed) > 60


@pytest.fixture
def oldest():
    """.ci/oldest.py as a module."""
    return script(".ci/oldest.py")


def test_the_oldest_packages_are_the_declared_minima(oldest):
    allowed = {r.name: r.specifier for r in DIRECT}
    found = [Requirement(line) for line in oldest.oldest(PYPROJECT)]
    for r in found:
        (exact,) = r.specifier
        assert exact.operator == "==" and exact.version in allowed[r.name]
        assert {s.version for s in allowed[r.name] if s.operator in (">=", "==")} == {exact.version}
    # each once: what the build needs is declared a second time for the tests, and alike
    assert sorted(r.name for r in found) == sorted(allowed)
    assert {(r.name, r.specifier) for r in BUILD} <= set(allowed.items())


@pytest.mark.parametrize("python, refused", [((3, 11), False), ((3, 12), True)])
def test_the_oldest_packages_are_asked_of_the_oldest_python(oldest, python, refused, monkeypatch):
    monkeypatch.setattr(sys, "version_info", python)
    if refused:
        with pytest.raises(SystemExit, match="need Python 3.11: make PYTHON=python3.11"):
            oldest.main()
    else:
        oldest.main()


def test_conda_installs_the_same():
    env = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, through_pip = env["dependencies"]
    assert env["channels"] == ["conda-forge"] and pip == "pip"
    assert SpecifierSet(python.split()[1]) == SpecifierSet(PROJECT["requires-python"])
    assert " ".join(through_pip["pip"]) == INSTALL


def test_make_and_the_readme_install_the_same():
    assert INSTALL.replace(".[lab,test]", "'.[lab,test]'") in (ROOT / "Makefile").read_text()
    assert README.count('pip install -c constraints.txt -e ".[lab,test]"') == 2  # Unix and Windows
    assert "conda env create -f environment.yml" in README


def test_the_version_stands_twice_and_is_one():
    assert minigen.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("version, accepted", [("3.10", 0), ("3.11", 1), ("3.13", 1), ("3.14", 0)])
def test_another_python_is_refused_with_a_sentence(version, accepted, tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    # A stand-in with another version: `-c` meets that version, `-m venv` ends the attempt.
    major, minor = version.split(".")
    (tmp_path / "python").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}.0" && exit\n'
        f'[ "$1" = -m ] && echo reached venv && exit 1\n'
        f'exec "{sys.executable}" -c "import sys; sys.version_info = ({major}, {minor}, 0); $2"\n'
    )
    (tmp_path / "python").chmod(0o755)
    make = ["make", f"PYTHON={tmp_path}/python", "test"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode
    assert ("reached venv" in done.stdout) == bool(accepted)
    assert ("minigen needs Python 3.11, 3.12 or 3.13" in done.stderr) == (not accepted)


@pytest.mark.parametrize(
    "target", re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
)
def test_every_make_target_is_explained(target):
    assert f"make {target}" in README + (ROOT / "CONTRIBUTING.md").read_text()


def test_the_readme_example_does_what_it_says():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    here = {}
    exec(example, here)
    samples, own = (here["mixture"].log_prob(here[name]) for name in ("x", "own"))
    error = (samples.var() / len(samples) + own.var() / len(own)).sqrt()
    assert abs(samples.mean() - own.mean()) < 4 * error


ALLOWED = """
    minigen notebooks tests data benchmarks README.md environment.yml pyproject.toml constraints.txt
    Makefile LICENSE CHANGELOG.md CONTRIBUTING.md CITATION.cff examples site
""".split()


def test_nothing_else_lies_at_the_top_level():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in listed.stdout.split("\0") if name}
    assert not {name for name in top if not name.startswith(".")} - set(ALLOWED)


def test_no_file_names_an_index_or_a_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"(extra-)?index-url|find-links|/(?:home|root|work|Users)/[a-z]")
    found = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".ipynb"} and path.exists():
            found += [name] if path != Path(__file__) and forbidden.search(path.read_text()) else []
    assert not found
