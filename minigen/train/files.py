"""Tensors and facts in one sealed safetensors file: written whole or not at all, read whole or not.

The file holds, as JSON in its header, whatever facts come with the tensors and the SHA-256 of all
its bytes (with zeros in the digest's own place), so that a flipped bit anywhere is noticed.
"""

import hashlib
import json
import os
from pathlib import Path

from torch import Tensor, nn

_KEY = "minigen"  # one metadata key: with two, safetensors writes them in random order
_MARK = b'\\"sha256\\": \\"'
_BLANK = b"0" * 64


def write(path: str | os.PathLike, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors and facts to path, atomically: whoever reads finds the old file or the new."""
    from safetensors.torch import save

    try:
        facts = json.dumps({"sha256": _BLANK.decode(), "about": about})
    except (TypeError, ValueError) as error:
        raise TypeError(f"what is said about a checkpoint must fit JSON: {error}") from None
    alone = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    raw = save(alone, {_KEY: facts})
    raw = raw.replace(_MARK + _BLANK, _MARK + _digest(raw).encode(), 1)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors and facts that `write` put in path.

    Raises ValueError where it is pickled, truncated, corrupted, or not written by minigen.
    """
    from safetensors.torch import load

    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint at {path}") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder, not a checkpoint") from None
    header = _header(raw, path)
    facts = header.get("__metadata__", {}).get(_KEY)
    if facts is None or raw.count(_MARK) == 0:
        raise ValueError(f"{path} was not written by minigen: it holds no checksum to trust it by")
    stored = raw.split(_MARK, 1)[1][: len(_BLANK)]
    if _digest(raw.replace(_MARK + stored, _MARK + _BLANK, 1)).encode() != stored:
        raise ValueError(f"{path} is corrupted: its contents do not match its checksum")
    return load(raw), json.loads(facts)["about"]


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _header(raw: bytes, path) -> dict:
    """The JSON header, after 8 bytes that tell its length, if the file is whole."""
    if raw[8:9] != b"{":
        if raw[:2] == b"PK" or raw[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickled file (torch.save), which can run any code when it is read: "
                f"only safetensors files written by minigen are loaded"
            )
        cut = "truncated" if len(raw) <= 8 else "not a safetensors file"
        raise ValueError(f"{path} is {cut}: it has no header after {len(raw)} bytes")
    end = 8 + int.from_bytes(raw[:8], "little")
    if end > len(raw):
        raise ValueError(f"{path} is truncated or corrupted: its header is not complete")
    try:
        header = json.loads(raw[8:end])
        size = end + max(
            (x["data_offsets"][1] for k, x in header.items() if k != "__metadata__"), default=0
        )
        if not isinstance(header.get("__metadata__", {}), dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ValueError(f"{path} is corrupted: its header cannot be read") from None
    if size != len(raw):
        wrong = "truncated" if size > len(raw) else "corrupted"
        raise ValueError(f"{path} is {wrong}: it has {len(raw)} of {size} bytes")
    return header


def check_same(path, have: dict[str, Tensor], want: dict[str, Tensor], what: str, whose: str):
    """Refuse the first name, shape or dtype in which a file and a net differ."""
    start = f"{path} holds {what} that does not fit {whose}: "
    for name in sorted(have.keys() | want.keys()):
        if name not in have or name not in want:
            raise ValueError(start + f"only the {'net' if name in want else 'file'} has {name}")
        for of in ("shape", "dtype"):
            a, b = getattr(have[name], of), getattr(want[name], of)
            if a != b:
                a, b = (tuple(a), tuple(b)) if of == "shape" else (a, b)
                raise ValueError(start + f"the {of} of {name} is {a} in the file, {b} in the net")


def save(path: str | os.PathLike, net: nn.Module, **about) -> None:
    """Write a net's weights and what is said about it to a safetensors file, atomically."""
    write(path, net.state_dict(), {**about, "class": type(net).__name__})


def load(path: str | os.PathLike, net: nn.Module) -> dict:
    """Give net the weights in path and return what was said about them.

    Raises ValueError for a file that is pickled or corrupted, or of another net; the net is then
    untouched.
    """
    tensors, about = read(path)
    want = net.state_dict()
    check_same(path, tensors, want, f"a {about.get('class')}", f"this {type(net).__name__}")
    net.load_state_dict(tensors)
    return about
