"""The package as a reader meets it: rooms in order, every public name explained and tested."""

import ast
import graphlib
import importlib
import inspect
from pathlib import Path

import pytest

import minigen

PACKAGE = Path(minigen.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))

# The order in which the course is read: the core, the kit, the lectures. A room imports only what
# stands before it here.
ROOMS = """
    shapes normal paths targets oracle
    nets data train metrics judge plot widgets
    markov vae ddpm ddim score guidance gan flow
    sde edm solvers transformer latent vq tokens distill
""".split()
IMPORTED_BY_NOBODY = {"plot", "widgets", "checks"}


def room(path: Path) -> str:
    """The room a file belongs to: checks/ddpm.py is in `checks`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(source: str) -> set[tuple[int, str]]:
    """(level, dotted name) of what a file imports from minigen, absolute (level 0) or relative."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {(0, a.name) for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            one_by_one = node.module in (None, "minigen")
            base = f"{node.module}." if node.module else ""
            names = [base + a.name for a in node.names] if one_by_one else [node.module]
            found |= {(node.level, name) for name in names}
    return {(level, name) for level, name in found if level or name.split(".")[0] == "minigen"}


def misplaced(path: str, source: str) -> set[str]:
    """The imports of a file, named as below minigen/, that the house does not allow."""
    parts = path.split("/")
    name, wrong = parts[0].removesuffix(".py"), set()
    for level, what in imports(source):
        inside = what.split(".")[1:] if not level else []
        if level:  # to another closet of the same folder
            allowed = len(parts) == 2 and level == 1 and "." not in what
        elif len(inside) != 1:  # into a closet, but for the checks of one another
            allowed = name == "checks" and what.startswith("minigen.checks")
        elif name in ("__init__", "checks"):
            allowed = inside[0] not in IMPORTED_BY_NOBODY - {"checks" if name == "checks" else ""}
        else:
            allowed = (
                inside[0] in ROOMS[: ROOMS.index(name)] and inside[0] not in IMPORTED_BY_NOBODY
            )
        if not allowed:
            wrong.add("." * level + what)
    return wrong


def public(path: Path):
    """The public functions and classes of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            yield node


def test_the_house_is_a_syllabus_and_a_kit():
    """Every room is in ROOMS; a folder's face only imports and says what is public."""
    assert {room(p) for p in FILES} - {"__init__", "checks"} == set(ROOMS)
    for face in PACKAGE.glob("*/__init__.py"):
        if face.parent.name != "checks":
            body = ast.parse(face.read_text()).body[1:]
            assert {type(node) for node in body} == {ast.ImportFrom, ast.Assign}, face
            assert body[-1].targets[0].id == "__all__", face


def test_a_module_imports_only_earlier_ones():
    wrong = {
        str(p): m for p in FILES if (m := misplaced(str(p.relative_to(PACKAGE)), p.read_text()))
    }
    assert not wrong


@pytest.mark.parametrize("folder", [p for p in PACKAGE.iterdir() if (p / "__init__.py").exists()])
def test_closets_import_one_another_in_one_direction(folder):
    files = {p.stem: p.read_text() for p in folder.glob("*.py")}
    needs = {name: {w for level, w in imports(text) if level} & {*files}
             for name, text in files.items()}  # fmt: skip
    assert list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "path, source, caught",
    [
        ("paths/gaussian.py", "from minigen.oracle import GaussianMixture", {"minigen.oracle"}),
        ("paths/gaussian.py", "from minigen.shapes import like", set()),
        ("paths/readout.py", "from .gaussian import VP", set()),
        ("paths/readout.py", "from minigen.paths import VP", {"minigen.paths"}),
        ("paths/readout.py", "from ..shapes import like", {"..shapes"}),
        ("ddim.py", "def f():\n    from minigen import flow, shapes", {"minigen.flow"}),
        ("ddim.py", "import minigen.plot", {"minigen.plot"}),
        ("ddim.py", "from . import paths", {".paths"}),
        ("ddim.py", "from minigen.paths.readout import walk", {"minigen.paths.readout"}),
        ("ddim.py", "from minigen.checks import ddim", {"minigen.checks"}),
        ("checks/ddim.py", "from minigen import ddim, plot", {"minigen.plot"}),
        ("checks/ddim.py", "from minigen.checks import Wrong", set()),
        ("__init__.py", "from minigen import ddim, widgets", {"minigen.widgets"}),
    ],
)
def test_a_misplaced_import_is_seen(path, source, caught):
    assert misplaced(path, source) == caught


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_public_name_is_explained(path):
    assert path.stat().st_size == 0 or ast.get_docstring(ast.parse(path.read_text()))
    assert not [node.name for node in public(path) if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 260
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
    for name in ROOMS:
        here = importlib.import_module(f"minigen.{name}")
        functions = {k for k in public_names(here) if inspect.isfunction(getattr(here, k))}
        assert not sorted(functions - words), name


def public_names(module) -> set[str]:
    """What a room offers: its `__all__`, or what it defines itself."""
    own = {k for k, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__}
    return set(getattr(module, "__all__", {k for k in own if k[0] != "_"}))


def test_importing_minigen_leaves_the_heavy_packages_alone(run_python):
    heavy = "{'matplotlib', 'sklearn', 'scipy', 'ipywidgets', 'safetensors', 'tqdm'}"
    found = f"({heavy} & set(sys.modules))"
    source = f"import sys, torch; own = {found}; import minigen; print(sorted({found} - own))"
    assert run_python(source) == "[]"
