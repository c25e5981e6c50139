"""The package as a reader meets it: rooms in order, every public name explained and tested."""

import ast
from pathlib import Path

import pytest

import minigen

PACKAGE = Path(minigen.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# The order in which the course is read. A module imports only what stands before it here.
ROOMS = """
    shapes normal paths targets oracle embeddings nets toys data files parallel state train metrics
    diagnostics linear_gaussian plot widgets
    markov vae ddpm ddim score guidance divergences critics augment style gan flow
""".split()
BACK_ROOMS = {"files", "parallel", "state"}  # train's own helpers, tested through it
IMPORTED_BY_NOBODY = {"plot", "widgets", "checks"}


def room(path: Path) -> str:
    """The room a file belongs to: checks/ddpm.py is in `checks`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(source: str) -> set[str]:
    """The rooms of minigen that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(["minigen"] * min(node.level, 1) + [node.module] * bool(node.module))
            found |= {module} | {f"{module}.{a.name}" for a in node.names if module == "minigen"}
    return {name.split(".")[1] for name in found if name.startswith("minigen.")}


def misplaced(name: str, source: str) -> set[str]:
    """The imports of a room that the house does not allow."""
    if name == "__init__":
        return imports(source) & IMPORTED_BY_NOBODY
    if name == "checks":
        return imports(source) & {"plot", "widgets"}
    earlier = ROOMS[: ROOMS.index(name)]
    return {m for m in imports(source) if m not in earlier or m in IMPORTED_BY_NOBODY}


def public(path: Path):
    """The public functions and classes of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node


def test_a_module_imports_only_earlier_ones():
    rooms = {room(p) for p in FILES} - {"__init__", "checks"}
    assert rooms <= set(ROOMS), "a new room: give it its place in ROOMS"
    wrong = {str(p): m for p in FILES if (m := misplaced(room(p), p.read_text()))}
    assert not wrong


@pytest.mark.parametrize(
    "name, source, caught",
    [
        ("paths", "from minigen.oracle import GaussianMixture", {"oracle"}),
        ("paths", "from minigen.shapes import like", set()),
        ("paths", "def f():\n    from minigen import oracle, shapes", {"oracle"}),
        ("ddim", "import minigen.plot", {"plot"}),
        ("ddim", "from . import paths, score", {"score"}),
        ("ddim", "from .score import langevin", {"score"}),
        ("ddim", "from minigen.checks import ddim", {"checks"}),
        ("checks", "from minigen import ddim, plot", {"plot"}),
        ("__init__", "from minigen import ddim, widgets", {"widgets"}),
    ],
)
def test_a_misplaced_import_is_seen(name, source, caught):
    assert misplaced(name, source) == caught


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_name_is_explained(path):
    assert path.stat().st_size == 0 or ast.get_docstring(ast.parse(path.read_text()))
    assert not [node.name for node in public(path) if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short(path):
    functions = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)]
    # Code alone: a docstring may take the room that its equation needs.
    code = {f.name: f.body[bool(ast.get_docstring(f)) :] for f in functions}
    assert not [
        n for n, body in code.items() if body and body[-1].end_lineno - body[0].lineno >= 40
    ]


def test_every_public_function_is_named_in_a_test():
    words = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            words |= {getattr(node, "id", None), getattr(node, "attr", None)}
            words |= {a.name for a in getattr(node, "names", ()) if isinstance(a, ast.alias)}
    rooms = [p for p in FILES if p.parent == PACKAGE and room(p) not in BACK_ROOMS]
    names = {(p.name, n.name) for p in rooms for n in public(p) if isinstance(n, ast.FunctionDef)}
    assert not sorted(f for f in names if f[1] not in words)


def test_importing_minigen_leaves_the_heavy_packages_alone(run_python):
    heavy = "{'matplotlib', 'sklearn', 'scipy', 'ipywidgets', 'safetensors', 'tqdm'}"
    found = f"({heavy} & set(sys.modules))"
    source = f"import sys, torch; own = {found}; import minigen; print(sorted({found} - own))"
    assert run_python(source) == "[]"
