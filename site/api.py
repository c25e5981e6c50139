"""Pages of the library from its source: signatures as they are written, aliases left as they are.

The source is read, not imported: `X` stays X, where autodoc would write out what jaxtyping makes of
it. A docstring is plain text with code in backticks; its lines and its formulas stay apart.
"""

import ast
import re
from itertools import pairwise
from pathlib import Path

WIDTH = 100  # of a line of the source
COMMON = "shapes"  # the room whose aliases all rooms use: there `X` is X, elsewhere `Critic` gan's


def pages(package: Path) -> dict[str, str]:
    """The page of each room, in Markdown with the directives of Sphinx's Python domain."""
    rooms = [p for p in package.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    return {p.stem: room(p, p.stem) for p in rooms if p.stem != "__init__"}


def room(path: Path, name: str) -> str:
    """A room's page: what it is for, then each public name and alias, in the source's order."""
    face = path if path.suffix else path / "__init__.py"
    tree = ast.parse(face.read_text("utf-8"))
    public = {x for n in tree.body if named(n) == "__all__" for x in ast.literal_eval(n.value)}
    inner = {a.name for n in tree.body if is_from(n, None) for a in n.names}  # from . import style
    free = lambda n: not public and named(n)[:1] not in ("", "_")
    shown = lambda n: named(n) in public or is_alias(n) or free(n)
    parts, seen = [f"# {name}", prose(ast.get_docstring(tree) or ""), within(name)], set()
    for closet in [face] + [p for p in sorted(path.glob("[a-z]*.py")) if public]:
        source = closet.read_text("utf-8")
        found = [n for n in ast.parse(source).body if closet.stem not in inner and shown(n)]
        parts += [entry(n, source, name) for n in found if named(n)]
        seen |= {named(n) for n in found}
    for what in sorted(public - seen - inner):
        parts.append(f"`{name}.{what}` is {{py:obj}}`{origin(tree, what)}`.")
    for what in sorted(inner):
        parts.append(re.sub("(?m)^# ", "## ", room(path / f"{what}.py", f"{name}.{what}")))
    return "\n\n".join(filter(None, parts)) + "\n"


def within(module: str) -> str:
    """What follows belongs to the module: its names are shown and sought with it."""
    return f"```{{py:currentmodule}} {module}\n```"


def is_from(node: ast.stmt, module: str | None) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == module


def named(node: ast.stmt) -> str:
    """The name that a statement of a file defines, or nothing; not of a signature among several."""
    if "overload" in map(ast.unparse, getattr(node, "decorator_list", ())):
        return ""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return getattr(node, "name", "")


def is_alias(node: ast.stmt) -> bool:
    """Whether the statement gives a type a name: `Critic = Callable[[X], Logits]`."""
    kinds = ast.Subscript | ast.BinOp
    return named(node)[:1].isupper() and isinstance(getattr(node, "value", None), kinds)


def origin(tree: ast.Module, what: str) -> str:
    """The room and name of what a face passes on from another room, or from torch."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and what in {a.name for a in node.names}:
            return f"{node.module.removeprefix('minigen.')}.{what}"
    raise ValueError(f"{what} is public, but nothing defines it")


def entry(node: ast.stmt, source: str, module: str) -> str:
    """A function, class, alias or constant of a room."""
    if isinstance(node, ast.FunctionDef):
        return directive("function", signature(node), described(node))
    if isinstance(node, ast.ClassDef):
        methods = [
            method(n)
            for n in node.body
            if isinstance(n, ast.FunctionDef) and n.name[0] != "_" and ast.get_docstring(n)
        ]
        head = node.name + fields(node)
        return directive("class", head, "\n\n".join([described(node), *methods]))
    value, comment = written(node.value), source.splitlines()[node.end_lineno - 1]
    words = prose(comment.partition("  # ")[2])
    if is_alias(node):
        alias = directive("type", named(node), f":canonical: {value}\n\n{words}")
        common = [within("None"), alias, within(module)]
        return "\n\n".join(common) if module == COMMON else alias
    short = f":value: {value}\n\n" if len(value) < WIDTH else ""
    return directive("data", named(node), short + words)


def directive(kind: str, head: str, body: str) -> str:
    """One entry in Markdown, with as many backticks as what stands inside it asks for."""
    fence = "`" * (1 + max([3, *map(len, re.findall("`{3,}", body))]))
    return f"{fence}{{py:{kind}}} {head}\n{body}\n{fence}"


def method(node: ast.FunctionDef) -> str:
    """A method or a property of a class."""
    marks = {ast.unparse(d).rpartition(".")[2] for d in node.decorator_list}
    if marks & {"property", "cached_property"}:
        kind = f":type: {written(node.returns)}\n\n" if node.returns else ""
        return directive("property", node.name, kind + described(node))
    if not marks & {"staticmethod"}:
        node.args.args = node.args.args[1:]  # self or cls
    option = next((f":{m}:\n\n" for m in ("classmethod", "staticmethod") if m in marks), "")
    return directive("method", signature(node), option + described(node))


def signature(node: ast.FunctionDef) -> str:
    """As it is written: names, types, defaults."""
    gives = f" -> {written(node.returns)}" if node.returns else ""
    return f"{node.name}({written(node.args)}){gives}"


def written(node: ast.AST) -> str:
    """The source of a type or of arguments, without the space that jaxtyping wants in " N"."""
    return ast.unparse(node).replace("Tensor, ' ", "Tensor, '")


def fields(node: ast.ClassDef) -> str:
    """What a class is made of: the arguments of `__init__`, or the fields of a dataclass."""
    for n in node.body:
        if named(n) == "__init__":
            n.args.args = n.args.args[1:]
            return f"({written(n.args)})"
    found = [written(n) for n in node.body if isinstance(n, ast.AnnAssign)]
    return f"({', '.join(found)})" if found else ""


def described(node) -> str:
    return prose(ast.get_docstring(node) or "", WIDTH - node.col_offset - 4)


def prose(text: str, width: int = WIDTH) -> str:
    """Plain text as Markdown: a line that ends early ends there, what is indented is a formula."""
    lines, out = [*text.strip("\n").splitlines(), ""], []
    for line, after in pairwise(lines):
        if line[:1] in ("", " "):
            out.append(line)
            continue
        early = after.strip() and after[0] != " " and len(f"{line} {after.split()[0]}") <= width
        parts = line.split("`")  # code stands at the odd places, if it does not run over two lines
        parts[::2] = [re.sub(r"([\\*_\[\]<>#$|~{}])", r"\\\1", part) for part in parts[::2]]
        out.append("`".join(parts) + ("\\" if early else ""))
    return "\n".join(out)
