"""The graded check of an exercise, which nbgrader runs in the student's kernel after theirs.

`make assignment` puts this file beside the course's notebooks, with DIGEST filled in; it is given
to nobody. It imports the check anew from files that have not been touched, draws cases that no
student has seen, and refuses an answer that hands the work to the library. What runs in the
student's own kernel can be deceived by who knows how it works; this stops what a student tries,
not what an expert of Python's insides could do. Read a submission with full points and no code.
"""

import functools
import hashlib
import importlib
import secrets
import sys
from pathlib import Path

import torch

DIGEST = ""  # of minigen's files, as they were when the assignment was made
TRUSTED = ("allclose", "equal", "isclose", "isfinite")  # what a check compares with


class Refused(AssertionError):
    """An answer that is not the student's own; shown as one line, as a check's own words are."""

    def _render_traceback_(self) -> list[str]:
        return [f"Refused: {self}"]


def digest(folder: Path) -> str:
    """One number for all of the library's files."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def fresh(room: str) -> tuple:
    """The room's checks, imported anew, and the dictionaries of every module this brought."""
    is_ours = lambda name: name.partition(".")[0] == "minigen"
    kept = {name: sys.modules.pop(name) for name in [*sys.modules] if is_ours(name)}
    try:
        checks = importlib.import_module(f"minigen.checks.{room}")
        new = {name: module for name, module in sys.modules.items() if is_ours(name)}
    finally:
        for name in [*filter(is_ours, sys.modules)]:
            del sys.modules[name]
        sys.modules.update(kept)
    new["minigen.checks"].OFFSET = secrets.randbelow(10**6)
    return (
        checks,
        {id(vars(module)) for module in new.values()},
        Path(new["minigen"].__file__).parent,
    )


def watched(function, folder: Path, rooms: tuple[str, ...], own: set[int]):
    """The function, which is refused if it runs code of the checks or of the rooms it is about."""
    forbidden = [folder / "checks", *(folder / f"{r}{end}" for r in rooms for end in ("", ".py"))]

    @functools.wraps(function)
    def run(*args, **given):
        borrowed = []

        def look(frame, event, arg):
            file = Path(frame.f_code.co_filename)
            theirs = any(file == f or f in file.parents for f in forbidden)
            if event == "call" and theirs and id(frame.f_globals) not in own:
                borrowed.append(f"{file.stem}.{frame.f_code.co_name}")
            if event == "c_call" and arg is sys.setprofile and frame.f_code is not run.__code__:
                borrowed.append("sys.setprofile")

        sys.setprofile(look)
        try:
            answer = function(*args, **given)
        finally:
            sys.setprofile(None)
        if borrowed:
            name = getattr(function, "__name__", "your function")
            raise Refused(f"{name} calls {borrowed[0]}: the exercise is to write it yourself")
        return answer

    return run


def grade(room: str, name: str, function) -> None:
    """Raises unless the function is right in cases it has never seen, by code of its own."""
    patched = [
        n for n in TRUSTED if getattr(torch, n) is not getattr(torch._C._VariableFunctions, n)
    ]
    if patched:
        raise Refused(f"torch.{patched[0]} has been replaced")
    checks, own, folder = fresh(room)
    if digest(folder) != DIGEST:
        raise Refused(f"the library in {folder} is not the one the assignment was made with")
    rooms = getattr(checks, "BORROWED", (room,))
    getattr(checks, name)(watched(function, folder, rooms, own))
