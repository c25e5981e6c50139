"""Tensors and facts in one sealed safetensors file: written whole or not at all, read whole or not.

The file holds, as JSON in its header, whatever facts come with the tensors and the SHA-256 of all
its bytes (with zeros in the digest's own place), so that a flipped bit anywhere is noticed.
"""

import glob
import hashlib
import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from minigen import nets

_KEY = "minigen"  # one metadata key: with two, safetensors writes them in random order
_MARK = b'\\"sha256\\": \\"'
_BLANK = b"0" * 64
_LONGEST = 10**8  # bytes of a header: the limit of safetensors itself


def write(path: str | os.PathLike, tensors: dict[str, Tensor], about: dict) -> None:
    """Write tensors and facts to path, atomically: whoever reads finds the old file or the new.

    Raises OSError, naming path, where that can't be done; the old file is then untouched.
    """
    from safetensors.torch import save

    try:
        facts = json.dumps({"sha256": _BLANK.decode(), "about": about})
    except (TypeError, ValueError) as error:
        raise TypeError(f"what is said about a checkpoint must fit JSON: {error}") from None
    alone = {name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()}
    raw = save(alone, {_KEY: facts})
    _put(path, raw.replace(_MARK + _BLANK, _MARK + _digest(raw).encode(), 1))


def check_writable(path: str | os.PathLike) -> None:
    """Raises OSError, naming path, where a file can't be written there; it leaves nothing there."""
    _put(path, b"a trial", keep=False)


def _put(path: str | os.PathLike, raw: bytes, keep: bool = True) -> None:
    path = Path(path)
    stem = "." + os.fsencode(path.name)[:200].decode(errors="ignore") + "."  # names end at 255
    temporary = path.with_name(f"{stem}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent, stem)
        try:
            with open(temporary, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
            if keep:
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        blocked = isinstance(error, FileExistsError)
        why = f"{path.parent} is no folder" if blocked else error.strerror or error
        raise OSError(error.errno, f"a checkpoint can't be written to {path}: {why}") from error


def _sweep(folder: Path, stem: str) -> None:
    """Remove what processes that were killed while they wrote have left."""
    for old in folder.glob(glob.escape(stem) + "*"):
        number = old.name.removeprefix(stem)
        if number.isascii() and number.isdigit() and not _lives(int(number)):
            with suppress(OSError):
                old.unlink()


def _lives(process: int) -> bool:
    """Whether there is a process of that number."""
    if os.name == "nt":  # there os.kill would end it, but an open file can't be removed anyway
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


def read(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """The tensors and facts that `write` put in path.

    Raises ValueError where it is pickled, truncated, corrupted, or not written by minigen.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        raw, header = _whole(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"there is no checkpoint at {path}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    facts = header.get("__metadata__", {}).get(_KEY)
    if facts is None or raw.count(_MARK) == 0:
        raise ValueError(f"{path} was not written by minigen: it holds no checksum to trust it by")
    stored = raw.split(_MARK, 1)[1][: len(_BLANK)]
    if _digest(raw.replace(_MARK + stored, _MARK + _BLANK, 1)).encode() != stored:
        raise ValueError(f"{path} is corrupted: its contents do not match its checksum")
    try:
        tensors, about = load(raw), json.loads(facts)["about"]
        about.keys()
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} was not written by minigen: {error!r}") from None
    return tensors, about


def _whole(path: str | os.PathLike) -> tuple[bytes, dict]:
    """All bytes of a file and its header; no more is read of a file that is not as long as it says.

    Only a regular file is opened: a pipe would wait for ever, a device has no end.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, device or socket"
        raise ValueError(f"{path} is a {kind}, not a checkpoint")
    with open(path, "rb") as file:
        end = _end(file.read(9), found.st_size, path)
        file.seek(0)
        start = file.read(end)
        header = _header(start, found.st_size, path)
        return start + file.read(found.st_size - end), header


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _end(start: bytes, size: int, path) -> int:
    """Where the JSON header ends, which the first 8 bytes of a file tell."""
    if start[8:9] != b"{":
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickled file (torch.save), which can run any code when it is read: "
                f"only safetensors files written by minigen are loaded"
            )
        cut = "truncated" if size <= 8 else "not a safetensors file"
        raise ValueError(f"{path} is {cut}: it has no header after {min(size, 8)} bytes")
    end = 8 + int.from_bytes(start[:8], "little")
    if end > min(size, _LONGEST):
        raise ValueError(f"{path} is truncated or corrupted: its header is not complete")
    return end


def _header(start: bytes, length: int, path) -> dict:
    """The JSON header, after 8 bytes that tell its length, if the file is as long as it says."""
    try:
        header = json.loads(start[8:])
        size = len(start) + max(
            (x["data_offsets"][1] for k, x in header.items() if k != "__metadata__"), default=0
        )
        if not isinstance(header.get("__metadata__", {}), dict):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise ValueError(f"{path} is corrupted: its header cannot be read") from None
    if size != length:
        wrong = "truncated" if size > length else "corrupted"
        raise ValueError(f"{path} is {wrong}: it has {length} of {size} bytes")
    return header


def check_same(path, have: dict, want: dict, what: str, whose: str, here: str = "net") -> None:
    """Refuse the first name, shape or dtype in which the tensors of a file and of a net differ."""
    start = f"{path} holds {what} that does not fit {whose}: "
    for name in sorted(have.keys() | want.keys()):
        if name not in have or name not in want:
            raise ValueError(start + f"only the {here if name in want else 'file'} has {name}")
        for of in ("shape", "dtype"):
            a, b = getattr(have[name], of), getattr(want[name], of)
            if a != b:
                a, b = (tuple(a), tuple(b)) if of == "shape" else (a, b)
                raise ValueError(
                    start + f"the {of} of {name} is {a} in the file, {b} in the {here}"
                )


def save(path: str | os.PathLike, net: nn.Module, **about) -> None:
    """Write a net's weights and what is said about it to a safetensors file, atomically.

    Of a net of minigen also the arguments that it was made with, for `rebuild`, if they fit
    JSON: an embedding of one's own doesn't.
    """
    about = {**about, "class": type(net).__name__}
    if type(net) is _kinds().get(about["class"]):
        with suppress(TypeError, ValueError):
            about["arguments"] = json.loads(json.dumps(getattr(net, "arguments", {})))
    write(path, net.state_dict(), about)


def _kinds() -> dict[str, type[nn.Module]]:
    """The public nets of minigen by name: those of the kit, and of the lectures that have some."""
    known = {name: getattr(nets, name) for name in nets.__all__}
    new = [nets.Rebuildable]
    while new:
        new = [kind for parent in new for kind in parent.__subclasses__()]
        known |= {k.__name__: k for k in new if k.__module__.startswith("minigen.")}
    return known


def rebuild(path: str | os.PathLike) -> nn.Module:
    """The net of minigen that was saved in path, made anew: its class, arguments and weights.

    It is on the CPU, in the dtype that it was saved in. Nothing is run but the constructors of
    minigen's nets. Raises ValueError for a net of another kind, or one whose file doesn't say how
    it was made, which you make yourself and give to `load`, and where `load` does.
    """
    tensors, about = read(path)
    name, arguments = about.get("class"), about.get("arguments")
    yourself = "make the net yourself, and give it its weights by train.load(path, net)"
    kinds = _kinds()
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{path} holds a {name}, which is no net of minigen: {yourself}")
    if arguments is None:
        raise ValueError(f"{path} does not say what its {name} was made with: {yourself}")
    try:
        with torch.device("meta"):  # nothing is drawn, and no weights made on the file's word alone
            net = kinds[name](**arguments)
        first = next((key for key, _ in net.named_parameters() if key in tensors), None)
        net.to(tensors[first].dtype if first else None)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} asks for a {name} that can't be made: {error}") from None
    _fill(path, net, tensors, about, assign=True)
    return net


def load(path: str | os.PathLike, net: nn.Module) -> dict:
    """Give net the weights in path and return what was said about them.

    Raises ValueError for a file that is pickled or corrupted, of another net, or of weights that
    are not finite; the net is then untouched.
    """
    tensors, about = read(path)
    _fill(path, net, tensors, about)
    return about


def _fill(path, net: nn.Module, tensors: dict, about: dict, assign: bool = False) -> None:
    want = net.state_dict(keep_vars=True)
    check_same(path, tensors, want, f"a {about.get('class')}", f"this {type(net).__name__}")
    for name, x in want.items():
        if isinstance(x, nn.Parameter) and not tensors[name].isfinite().all():
            raise ValueError(f"{path} holds weights that are not finite: {name}")
    net.load_state_dict(tensors, assign=assign)
