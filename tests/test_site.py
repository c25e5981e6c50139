"""The site to read: built from stored outputs, complete, described, and alive without a kernel.

The parts are tested everywhere; the site itself by `make test-site`, which looks at each page in
a real browser, from files: whatever leaves the machine is seen.
"""

import importlib.util
import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import test_browser
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from scripts import script

ROOT = Path(__file__).parents[1]
LECTURES = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
chromium = test_browser.chromium


@pytest.fixture(scope="module")
def build():
    """site/build.py as a module, which finds its neighbour `api`."""
    sys.path.insert(0, str(ROOT / "site"))
    yield script("site/build.py")
    sys.path.remove(str(ROOT / "site"))


# The parts ---------------------------------------------------------------------------------------


def test_a_lecture_gets_alt_texts_frames_and_folds(build):
    figure = new_output("display_data", {"image/png": "AAAA"}, metadata={"image/png": {"alt": "a"}})
    plain = new_output("display_data", {"image/png": "AAAA"})
    frames = [{"label": str(i), "webp": f"W{i}", "alt": "<x>"} for i in range(3)]
    moved = {"name": "t", "start": 1, "frames": frames}
    control = new_output("display_data", {"image/png": "AAAA", build.FRAMES: moved})
    fold = "<details><summary>Why $x_0 \\ne$ `y`?</summary>\n\nSo:\n$$x$$\nas in `00_start`."
    words = new_markdown_cell(f"## Heading $x$\n{fold}")
    cells = [words, *(new_code_cell("1", outputs=[o]) for o in (figure, plain, control))]
    solution = new_code_cell("2", metadata={"tags": ["solution"]})
    nb = build.lecture(new_notebook(cells=[*cells, solution]))
    assert "Why $" not in nb.cells[0].source and "\\(x_0 \\ne\\)</span>" in nb.cells[0].source
    assert "<code>y</code>" in nb.cells[0].source and "\n\n$$x$$\n\n" in nb.cells[0].source
    assert "as in [`00_start`](00_start.ipynb)." in nb.cells[0].source
    alts = [c.metadata["mystnb"]["image"]["alt"] for c in nb.cells[1:4]]
    assert alts == ["a", "Heading x", "Heading x"]
    (shown,) = nb.cells[3].outputs
    page = shown.data["text/html"]
    assert "image/png" not in shown.data
    assert page.count("<img ") == 3 and page.count(" hidden>") == 2
    assert re.search(r'W1" data-label="1" alt="t = 1: &lt;x&gt;">', page)
    assert 'max="2" value="1"' in page
    assert nb.cells[4].metadata["tags"] == ["solution", "hide-input"]


def test_a_docstring_keeps_its_lines_code_and_formulas(build):
    text = "One *sentence* of `a_b`.\n\n    y = a*b\n\n" + " ".join(10 * ["word"]) + "\nnext"
    kept = build.api.prose(text, width=54)  # `next` would have found room on the line before
    assert kept.startswith("One \\*sentence\\* of `a_b`.\n\n    y = a*b\n\nword")
    assert kept.endswith(" word\\\nnext")
    assert "\\\nnext" not in build.api.prose(text, width=53)


def test_every_public_name_has_an_entry_with_a_short_signature(build):
    import minigen

    pages = build.api.pages(ROOT / "minigen")
    for room in minigen.__all__:
        for name in getattr(getattr(minigen, room), "__all__", ()):
            assert re.search(rf"\}} {name}\b|`{room}.{name}`|# {room}.{name}\n", pages[room]), name
    heads = [line for page in pages.values() for line in re.findall("{py:function} (.*)", page)]
    assert len(heads) > 150 and max(map(len, heads)) < 500
    assert any("denoise: Denoiser, path: GaussianPath, xT: X" in head for head in heads)


# The site ----------------------------------------------------------------------------------------

LOOK = r"""() => {
  const words = document.querySelector("main").cloneNode(true);
  words.querySelectorAll("pre, code, mjx-container, script, style").forEach(e => e.remove());
  return {
    ids: [...document.querySelectorAll("[id]")].map(e => e.id),
    links: [...document.querySelectorAll("a[href], link[href]")].map(e => e.href),
    pictures: [...document.images].map(e => e.alt),
    figures: document.querySelectorAll("main img").length,
    formulas: document.querySelectorAll("mjx-container").length,
    wrong: document.querySelectorAll("mjx-merror, [data-mjx-error]").length,
    tex: words.textContent.match(/.{0,40}(\$|\\[a-zA-Z(\[]).{0,40}/g) || [],
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth }}"""
SET = "async () => { await window.MathJax?.startup.promise; return true }"  # all maths is drawn


def pages_of(site: Path) -> list[Path]:
    return sorted(p for p in site.rglob("*.html") if "_static" not in p.parts)


@pytest.fixture(scope="module")
def site(build, tmp_path_factory):
    """The site, built within three minutes and without a warning."""
    for needed in ("myst_nb", "sphinx_book_theme"):
        if importlib.util.find_spec(needed) is None:
            test_browser.absent(f"{needed} is not installed: make site installs it")
    target, begin = tmp_path_factory.mktemp("built") / "site", time.time()
    assert build.main(target) == 0
    assert time.time() - begin < 180
    return target


@pytest.fixture(scope="module")
def seen(site, chromium):
    """What a reader's browser finds on each page, on a phone: address in the site -> what."""
    page, found, noise = chromium.new_page(viewport={"width": 390, "height": 844}), {}, []
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or noise.append(r.url))
    page.on("console", lambda m: m.type == "error" and noise.append(m.text))
    page.on("pageerror", lambda e: noise.append(str(e)))
    for path in pages_of(site):
        noise.clear()
        page.goto(path.as_uri())
        page.evaluate(SET)
        found[str(path.relative_to(site))] = page.evaluate(LOOK) | {"noise": [*noise]}
    page.close()
    return found


@pytest.mark.browser
def test_every_lecture_and_page_is_there(seen):
    for lecture in LECTURES:
        page = seen[f"notebooks/{lecture}.html"]
        assert page["formulas"] > 20 and page["figures"] > 5
    for name in ("index", "notebooks/glossary", "notebooks/slips", "data/README", "search"):
        assert f"{name}.html" in seen
    assert {"api/ddim.html", "benchmarks/README.html", "benchmarks/claims/README.html"} <= {*seen}


def problems(name: str, seen: dict, site: Path) -> list[str]:
    """What a reader of a page would miss: links, descriptions, formulas, quiet, width."""
    page = seen[name]
    found = [f"noise: {line}" for line in page["noise"]] + [f"raw TeX: {t}" for t in page["tex"]]
    found += [f"{page['wrong']} formulas failed"] * bool(page["wrong"])
    found += [f"{page['wide']} pixels wider than a phone"] * (page["wide"] > 0)
    for alt in page["pictures"]:
        found += [f"no alt text: {alt}"] * (not alt.strip() or bool(re.search(r"[$\\]", alt)))
    for link in (urlsplit(link) for link in page["links"] if link.startswith("file:")):
        file = Path(unquote(link.path))
        target = seen.get(str(file.relative_to(site))) if file.is_relative_to(site) else None
        lost = target and link.fragment and unquote(link.fragment) not in target["ids"]
        found += [f"broken link: {link.geturl()}"] * bool(not file.is_file() or lost)
    return found


@pytest.mark.browser
def test_nothing_is_broken_undescribed_raw_or_asked_of_another_machine(site, seen):
    assert not {name: found for name in seen if (found := problems(name, seen, site))}


def test_each_problem_would_be_seen(tmp_path):
    (tmp_path / "a.html").touch()
    here = (tmp_path / "a.html").as_uri()
    good = {"noise": [], "tex": [], "wrong": 0, "wide": 0, "pictures": ["a field"], "ids": ["one"]}
    good["links"] = [f"{here}?v=1#one", "https://doi.org/1"]
    assert not problems("a.html", {"a.html": good}, tmp_path)
    for bad in (
        {"noise": ["https://cdn.org/x.js"]},
        {"tex": ["$x_0$"]},
        {"wrong": 1},
        {"wide": 9},
        {"pictures": [" "]},
        {"pictures": ["the $x_0$"]},
        {"links": [f"{here}#two"]},
        {"links": [here.replace("a.html", "b.html")]},
    ):
        assert len(problems("a.html", {"a.html": good | bad}, tmp_path)) == 1, bad


@pytest.mark.browser
@pytest.mark.parametrize("lecture", LECTURES)
def test_the_control_moves_by_keyboard_without_a_kernel(lecture, site, chromium):
    page = chromium.new_page()
    page.goto((site / "notebooks" / f"{lecture}.html").as_uri())
    page.set_default_timeout(10_000)  # milliseconds
    box = page.locator(".frames")
    picture, slider = box.locator("img:visible"), box.get_by_role("slider")
    slider.focus()
    states = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End"):
        page.keyboard.press(key)
        label = box.locator("output").inner_text()
        assert slider.get_attribute("aria-valuetext") == label
        assert f"= {label}:" in picture.get_attribute("alt")  # one picture only is seen
        states.append((label, picture.get_attribute("src")))
    page.close()
    assert len({label for label, _ in states}) == len({src for _, src in states}) == 4


@pytest.mark.browser
def test_the_search_finds_and_the_dark_is_dark(site, chromium):
    page = chromium.new_page(color_scheme="dark")
    page.goto((site / "search.html").as_uri() + "?q=slerp")
    page.locator("#search-results li a").first.wait_for()
    found = page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("04_ddim" in link for link in found) and any("api/ddim" in link for link in found)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall("[0-9]+", colour)[:3])) < 60
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("name, width, scheme", [("desk", 1280, "light"), ("phone", 390, "dark")])
def test_pictures_of_the_pages_to_look_at(name, width, scheme, site, chromium):
    page = chromium.new_page(viewport={"width": width, "height": 1600}, color_scheme=scheme)
    test_browser.SHOTS.mkdir(parents=True, exist_ok=True)
    for where in ("index", "notebooks/04_ddim", "api/ddim"):
        page.goto((site / f"{where}.html").as_uri())
        page.evaluate(SET)
        page.screenshot(path=test_browser.SHOTS / f"site-{name}-{Path(where).name}.png")
    page.close()
