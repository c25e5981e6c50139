"""The front door: the README's table, the citation, the workflow, and what a first cell says."""

import re
from pathlib import Path

import pytest
import yaml
from scripts import script

import minigen

ROOT = Path(__file__).parents[1]


@pytest.fixture
def front():
    """.ci/front.py as a module."""
    return script(".ci/front.py")


def test_the_readme_lists_every_lecture_in_its_own_words(front):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme == front.renewed(readme), "python .ci/front.py"
    assert len(re.findall(r"^\| \d+ \| \[", readme, re.M)) == len(
        list((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    )


def test_what_the_pages_point_to_exists():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "site").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            assert "://" in target or (page.parent / target).exists(), (page.name, target)


def test_the_course_can_be_cited():
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cite)  # what the schema demands
    assert cite["cff-version"] == "1.2.0" and cite["type"] == "software"
    assert cite["version"] == minigen.__version__ and cite["license"] == "MIT"
    assert all({"name"} <= set(a) or {"family-names"} <= set(a) for a in cite["authors"])


def test_the_workflow_calls_ci_run_on_linux_and_the_tests_elsewhere():
    work = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))
    assert set(work[True]) == {"push", "pull_request", "schedule"}  # yaml reads `on` as true
    said = {
        name: " ".join(step.get("run", "") for step in job["steps"])
        for name, job in work["jobs"].items()
    }
    assert ".ci/run" in said["linux"]
    readme = (ROOT / "README.md").read_text("utf-8")
    install, test = said["others"].strip().split(" python -m pytest")
    assert install in readme and not test
    assert {"macos-latest", "windows-latest"} <= set(
        work["jobs"]["others"]["strategy"]["matrix"]["os"]
    )


def test_rooms_that_need_more_are_there_when_asked_for(run_python):
    source = "import minigen, sys; print('matplotlib' in sys.modules, minigen.plot.DATA)"
    assert run_python(source) == "False #56B4E9"
    assert run_python("import minigen; print(minigen.checks.__name__)") == "minigen.checks"
    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        minigen.plots  # noqa: B018


def test_a_lecture_without_its_packages_says_what_to_install(run_python):
    source = """
import sys
sys.modules["ipywidgets"] = None
try:
    from minigen import widgets
except ImportError as error:
    print(error)
"""
    said = run_python(source)
    assert said.startswith("the lectures need ipywidgets") and ".[lab,test]" in said
