"""Each lecture in JupyterLab in a real browser: it runs, and its control moves the figure.

It ends with the control: what comes after runs under nbval, and takes no name from the control
(`test_house_notebooks`). `make test-browser`. Skipped with a reason where there is no browser, but
a failure where CI is set.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
SHOTS = ROOT / "build" / "browser"
LECTURES = [
    p for p in sorted((ROOT / "notebooks").glob("*.ipynb")) if re.match(r"(?!00)\d\d_", p.name)
]
PROGRAMS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
PROGRAMS += ["/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"]
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync".split()
QUIET += ["--disable-background-networking", "--disable-component-update"]

PATIENCE = 60  # seconds a figure may take on a busy machine

# The toolbar says "idle" before the kernel is connected: the application itself is asked.
IDLE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget, session = panel?.sessionContext;
  const kernel = session?.session?.kernel;
  const connected = session?.isReady && kernel?.connectionStatus === "connected";
  return connected && kernel.status === "idle" }"""
CELLS = """window.jupyterapp.shell.currentWidget.content.widgets
  .filter(c => c.model.type === "code" && c.model.sharedModel.source.trim())"""
NOT_RUN = f"""() => {CELLS}.filter(c => !/^[0-9]+$/.test(c.prompt))
  .map(c => c.model.sharedModel.source)"""
FAILED = f"""() => {CELLS}
  .filter(c => !(c.model.getMetadata("tags") || []).includes("raises-exception"))
  .flatMap(c => c.model.outputs.toJSON())
  .filter(o => o.output_type === "error").map(o => o.evalue)"""
SHOW_CELL = """where => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  const cells = notebook.widgets.map(c => c.model);
  const i = where === "control"
    ? cells.findIndex(m => (m.getMetadata("tags") || []).includes("control"))
    : cells.findIndex(m => m.type === "markdown" && m.sharedModel.source.includes("$"));
  notebook.activeCellIndex = i;
  return notebook.scrollToItem(i, "center").then(() => i) }"""


def absent(reason: str):
    """Skip for want of a browser; in CI, where one must be, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="module")
def chromium():
    """A running browser, or a reason why there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed: make test-browser installs it")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        absent("there is no Chromium or Chrome on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def lab(folder: Path):
    """JupyterLab on a folder, with settings of its own; its address has %s for a notebook."""
    (folder / "root").mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    token = secrets.token_hex(16)
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    own |= {
        "JUPYTERLAB_WORKSPACES_DIR": "spaces",
        "JUPYTER_RUNTIME_DIR": "run",
        "IPYTHONDIR": "ipy",
    }
    options = f"""--no-browser --ip=127.0.0.1 --port={port} --ServerApp.port_retries=0
        --IdentityProvider.token={token} --LabApp.expose_app_in_browser=True
        --LabApp.news_url=None --LabApp.extension_manager=readonly""".split()
    options += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                f"--ServerApp.root_dir={folder / 'root'}",
                *options,
            ],
            env=os.environ | {name: str(folder / place) for name, place in own.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_server(server, f"http://127.0.0.1:{port}/api?token={token}", folder / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/%s?token={token}&reset"
    finally:
        server.terminate()
        server.wait(60)


def wait_for_server(server, address: str, log: Path) -> None:
    for _ in range(480):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.25)
    pytest.fail(log.read_text())


def open_and_run(page, address: str) -> None:
    """Open a notebook and run all cells, the refused stubs included."""
    page.goto(address)
    page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
    page.wait_for_function(IDLE)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu").get_by_text("Run All Cells", exact=True).click()
    page.wait_for_timeout(500)
    deadline = time.time() + 15 * 60
    while page.evaluate(NOT_RUN) or not page.evaluate(IDLE):
        assert time.time() < deadline, page.evaluate(NOT_RUN)[:1]
        page.wait_for_timeout(500)


def figure(control) -> str:
    """What the control shows now: its picture, or its text where it draws none."""
    picture = control.locator(".jp-OutputArea-output img, .jp-OutputArea-output svg")
    if picture.count():
        return picture.last.get_attribute("src") or picture.last.inner_html()
    return control.locator(".jp-OutputArea-output").last.inner_text()


def changed(page, control, before: str) -> str:
    """The figure once it differs from `before` and no longer changes."""
    now = before
    for _ in range(2 * PATIENCE):
        page.wait_for_timeout(500)
        last, now = now, figure(control)
        if now == last != before:
            return now
    pytest.fail("the slider was moved, but the figure stayed as it was")


def move(page, control) -> None:
    """The learner's keyboard, then the learner's mouse; the figure follows each."""
    handle = control.get_by_role("slider").first
    handle.scroll_into_view_if_needed()
    first = figure(control)
    handle.focus()
    page.keyboard.press("ArrowRight")  # once: two would draw two figures, and which came last?
    value = handle.get_attribute("aria-valuetext")
    second = changed(page, control, first)
    box = control.locator(".noUi-target").first.bounding_box()
    for share in (0.9, 0.1):  # one of the two is not where the slider stands
        page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.wait_for_timeout(300)
        if handle.get_attribute("aria-valuetext") != value:
            break
    changed(page, control, second)


def as_far_as_its_control(notebook: Path) -> nbformat.NotebookNode:
    nb = nbformat.read(notebook, 4)
    at = [i for i, c in enumerate(nb.cells) if "control" in c.metadata.get("tags", [])]
    assert at, "no cell is tagged control"
    nb.cells = nb.cells[: at[0] + 1]
    return nb


def check(browser, notebook: Path, folder: Path) -> None:
    """The visit of one notebook; the committed file is not written."""
    with lab(folder) as address:
        nbformat.write(as_far_as_its_control(notebook), folder / "root" / notebook.name)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(60_000)  # milliseconds
        outside = []
        inside = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
        page.on("request", lambda r: r.url.startswith(inside) or outside.append(r.url))
        try:
            open_and_run(page, address % notebook.name)
            assert not page.evaluate(FAILED)
            assert page.evaluate(SHOW_CELL, "maths") >= 0
            page.locator(".katex, mjx-container, .MathJax").first.wait_for()
            index = page.evaluate(SHOW_CELL, "control")
            control = page.locator(f'.jp-Cell[data-windowed-list-index="{index}"]')
            move(page, control)
        finally:
            SHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / f"{notebook.stem}.png")
            page.close()
        assert not outside


@pytest.mark.parametrize("notebook", LECTURES, ids=lambda p: p.name)
def test_a_lecture_runs_and_its_control_moves(notebook, chromium, tmp_path):
    check(chromium, notebook, tmp_path)


def small(draw: str) -> nbformat.NotebookNode:
    """A notebook with maths, a stub that its check refuses, and a slider that draws."""
    v4 = nbformat.v4
    setup = "import matplotlib.pyplot as plt\nfrom ipywidgets import interact"
    control = f"@interact(k=(0, 10))\ndef show(k=5):\n    {draw}\n    plt.show()"
    sources = {"raises-exception": "assert False, 'not yet begun'", "": setup, "control": control}
    cells = [v4.new_markdown_cell("$x_t$")]
    cells += [v4.new_code_cell(c, metadata={"tags": [t] if t else []}) for t, c in sources.items()]
    kernel = {"name": "python3", "display_name": "Python 3"}  # else Lab asks which
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.mark.parametrize(
    "draw, works", [("plt.plot([0, k], [k, 0])", True), ("plt.plot([0, 1])", False)]
)
def test_a_control_that_moves_nothing_is_seen(draw, works, chromium, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SHOTS", tmp_path / "shots")
    monkeypatch.setitem(globals(), "PATIENCE", 60 if works else 10)
    nbformat.write(small(draw), tmp_path / "small.ipynb")
    if works:
        check(chromium, tmp_path / "small.ipynb", tmp_path)
    else:
        with pytest.raises(pytest.fail.Exception, match="stayed as it was"):
            check(chromium, tmp_path / "small.ipynb", tmp_path)
