"""The site to read: gathers its pages from what exists, and has Sphinx build them.

usage: python site/build.py [TARGET]    (make site; into build/site)

Nothing is run: the lectures show their stored outputs. A lecture, a page beside the lectures, a
claim or a room of the library added later joins by itself.
"""

import ast
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import api
import nbformat

ROOT = Path(__file__).parents[1]
FRAMES = "application/vnd.minigen.frames+json"  # what .ci/pictures.py stores of a control


def main(target: Path = ROOT / "build" / "site") -> int:
    """Gather the pages beside the target, each at its place in the repository, and build them."""
    source = target.with_name(f"{target.name}-pages")
    for old in (source, target):
        shutil.rmtree(old, ignore_errors=True)
    gather(source)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-d", f"{source}/.read"]
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-c", str(ROOT / "site"), *options]
    return subprocess.run([*sphinx, str(source), str(target)]).returncode


def gather(source: Path) -> None:
    """Write every page of the site as Markdown or as a notebook; the README is the front page."""
    shutil.copytree(ROOT / "notebooks" / "figures", source / "notebooks" / "figures")
    for folder in ("data", "benchmarks/claims", "examples", "site", "api"):
        (source / folder).mkdir(parents=True)
    readme, contents = ROOT / "README.md", ROOT / "site" / "_contents.md"
    pages = {"index": readme.read_text("utf-8") + contents.read_text("utf-8")}
    pages |= {"benchmarks/claims/README": claims(), "benchmarks/README": speed()}
    pages |= {f"api/{name}": page for name, page in api.pages(ROOT / "minigen").items()}
    beside = [page for folder in ("data", "examples") for page in (ROOT / folder).glob("*.md")]
    for page in [*ROOT.glob("C*.md"), *beside, *ROOT.glob("site/[a-z]*.md")]:
        pages[str(page.relative_to(ROOT).with_suffix(""))] = page.read_text("utf-8")
    for page in ROOT.glob("notebooks/*.md"):
        pages[f"notebooks/{page.stem}"] = linked(page.read_text("utf-8"))
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text, "utf-8")
    for path in ROOT.glob("notebooks/*.ipynb"):
        nbformat.write(lecture(nbformat.read(path, 4)), source / "notebooks" / path.name)
    for file in ("LICENSE", "CITATION.cff"):
        shutil.copy(ROOT / file, source)


def lecture(nb) -> nbformat.NotebookNode:
    """The notebook for MyST-NB: its figures described, its control in frames, solutions folded."""
    heading = "Figure"
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"(?m)^#+ (.*)", cell.source) or [heading])[-1]
            heading = re.sub(r"[$\\]", "", heading)
            cell.source = linked(re.sub("<summary>.*?</summary>", summary, cell.source))
            # MyST wants a formula on lines of its own to be a paragraph of its own
            cell.source = re.sub(r"(?ms)^\$\$(.+?)\$\$$", r"\n$$\1$$\n", cell.source)
            continue
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        alts = [p.metadata.get("image/png", {}).get("alt") or heading for p in pictures]
        cell.metadata["mystnb"] = {"image": {"alt": "; ".join(alts)}}
        for picture in (p for p in pictures if FRAMES in p.data):
            picture.data = {"text/html": control(picture.data[FRAMES], heading)}
        if "solution" in cell.metadata.get("tags", ()):
            cell.metadata["tags"].append("hide-input")
    return nb


def linked(text: str) -> str:
    """The text with a link at each `03_ddpm` or `glossary.md`, where such a page is."""
    pages = {p.name for p in (ROOT / "notebooks").iterdir()}

    def link(name: re.Match) -> str:
        file = name[1] if "." in name[1] else f"{name[1]}.ipynb"
        return f"[{name[0]}]({file})" if file in pages else name[0]

    return re.sub(r"(?<!\[)`(\w+(?:\.ipynb|\.md)?)`(?!\])", link, text)


def summary(line: re.Match) -> str:
    """The head of a fold, which Markdown leaves alone: its maths and its code as HTML."""
    maths = lambda m: f'<span class="math notranslate nohighlight">\\({m[1]}\\)</span>'
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", re.sub(r"\$([^$]+)\$", maths, line[0]))


def control(frames: dict, heading: str) -> str:
    """A slider over pictures, of which site/_static/control.js shows the one at its position."""
    name, start, pictures = html.escape(frames["name"]), frames["start"], []
    for i, frame in enumerate(frames["frames"]):
        label = html.escape(frame["label"])
        pictures.append(
            f'<img src="data:image/webp;base64,{frame["webp"]}" data-label="{label}" '
            f'alt="{name} = {label}: {html.escape(frame["alt"] or heading)}"'
            + (">" if i == start else " hidden>")
        )
    label = html.escape(frames["frames"][start]["label"])
    slider = f'<input type="range" min="0" max="{len(pictures) - 1}" value="{start}" '
    slider += f'aria-valuetext="{label}">'
    head = f"<label>{name} {slider} <output>{label}</output></label>"
    return f'<div class="frames">{head}{"".join(pictures)}</div>'


def claims() -> str:
    """The page of the slow controls: what each asks, and its table."""
    folder, entries = ROOT / "benchmarks" / "claims", []
    for path in sorted(folder.glob("[a-z]*.py")):
        said = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        table = path.with_suffix(".txt").read_text("utf-8")
        title, _, more = said.partition("\n")
        entries.append(f"## {title.rstrip('.')}\n\n{api.prose(more)}\n\n```text\n{table}```")
    return "\n\n".join([(folder / "README.md").read_text("utf-8"), *sorted(entries)]) + "\n"


def speed() -> str:
    """The page of the speed figures: what they are, and the table if `make bench` has stored it."""
    said = ast.get_docstring(ast.parse((ROOT / "benchmarks" / "__main__.py").read_text("utf-8")))
    stored = ROOT / "benchmarks" / "speed.txt"
    table = f"```text\n{stored.read_text('utf-8')}```\n" if stored.exists() else ""
    return f"# Speed\n\n{api.prose(said)}\n\n{table}"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
