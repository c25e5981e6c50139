"""Checkpoint files: what was saved comes back, and nothing else is ever loaded."""

import copy
import pickle
import random
import string

import pytest
import torch

from minigen import nets, train
from minigen.train import files


def small(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    net = nets.MLP(2, hidden=3, depth=2, classes=2).to(dtype)
    torch.nn.init.normal_(net.last.weight)
    return net


def flat(net):
    return [x.clone() for x in net.state_dict().values()]


def unchanged(net, before):
    return all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip(tmp_path, device, dtype):
    path, net = tmp_path / "new" / "net.safetensors", small(1, dtype).to(device)
    facts = {"seed": 3, "note": '"sha256": "' + "0" * 64 + '", ᾱ', "fid": [1.5, None]}
    train.save(path, net, **facts)
    other = small(2, dtype).to(device)
    assert train.load(path, other) == {**facts, "class": "MLP"}
    assert unchanged(other, flat(net))
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


def test_the_same_net_makes_the_same_bytes(tmp_path):
    for name in "ab":
        train.save(tmp_path / name, small(), seed=1, command="make")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_any_tensors_and_facts(tmp_path):
    tensors = {"a.b": torch.arange(3), "empty": torch.zeros(0, 2), "one": torch.tensor(1.5)}
    files.write(tmp_path / "f", tensors, {"step": 4})
    got, about = files.read(tmp_path / "f")
    assert about == {"step": 4}
    files.check_same("f", got, tensors, "this", "that")
    assert all(torch.equal(got[k], x) for k, x in tensors.items())


def test_other_programs_can_read_it(tmp_path):
    from safetensors.torch import load_file

    net = small()
    train.save(tmp_path / "net", net)
    other = copy.deepcopy(net)
    other.load_state_dict(load_file(tmp_path / "net"))


def test_tied_and_strided_weights(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net[0].bias.data = torch.randn(6)[::2]
    train.save(tmp_path / "net", net)
    other = copy.deepcopy(net)
    torch.nn.init.zeros_(other[0].weight)
    train.load(tmp_path / "net", other)
    assert unchanged(other, flat(net))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net"
    train.save(path, small(), seed=1)
    with open(path, "rb") as reader:  # who has the old file open goes on reading the old file
        train.save(path, small(), seed=2)
        assert b"seed" in (old := reader.read()) and old != path.read_bytes()
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        train.save(path, small(1), seed=2)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    with pytest.raises(TypeError, match="what is said about a checkpoint must fit JSON"):
        train.save(path, small(), device=torch.device("cpu"))


# --- nothing else is loaded ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "net"
    train.save(path, small(1), seed=7)
    return path.read_bytes()


def refused(path, raw):
    """The reason for which a file of these bytes is refused; the net must stay as it was."""
    path.write_bytes(raw)
    net = small(2)
    before = flat(net)
    with pytest.raises(ValueError) as error:
        train.load(path, net)
    assert type(error.value) is ValueError and unchanged(net, before)
    assert str(error.value).startswith(str(path))
    return str(error.value).removeprefix(str(path))


def test_truncated_anywhere(tmp_path, sealed):
    for n in {*range(0, 40), *range(40, len(sealed), 37), len(sealed) - 1}:
        assert "truncated" in refused(tmp_path / "cut", sealed[:n]), n
    assert "corrupted" in refused(tmp_path / "long", sealed + b"\0")


def test_one_bit_flipped_anywhere(tmp_path, sealed):
    """Every bit of the length, and bits throughout the header and the weights."""
    draw = random.Random(0)
    bits = {*range(64), *(draw.randrange(8 * len(sealed)) for _ in range(600))}
    for bit in bits:
        raw = bytearray(sealed)
        raw[bit // 8] ^= 1 << bit % 8
        message = refused(tmp_path / "flip", bytes(raw))
        assert any(w in message for w in ("corrupted", "truncated", "not a", "not written")), bit


def test_random_bytes(tmp_path):
    draw = random.Random(1)
    for n in range(200):
        head = draw.choice([b"", b'\x20\0\0\0\0\0\0\0{"a"', b"PK\3\4", b"\x80\4", b"{}"])
        junk = bytes(draw.choices(string.printable.encode(), k=n))
        refused(tmp_path / "junk", head + junk)


def test_pickles_are_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    torch.save(small().state_dict(), tmp_path / "zip.pt")
    torch.save(small().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    bombs = [pickle.dumps({"net": Bomb()}, protocol=p) for p in (2, 4, 5)]
    for raw in [(tmp_path / "zip.pt").read_bytes(), (tmp_path / "old.pt").read_bytes(), *bombs]:
        assert "is a pickled file (torch.save)" in refused(tmp_path / "pickle", raw)


def test_without_a_seal(tmp_path):
    from safetensors.torch import save

    for metadata in (None, {"minigen": "{}"}):
        assert "was not written by minigen" in refused(
            tmp_path / "f", save(small().state_dict(), metadata)
        )


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        train.load(tmp_path / "nowhere", small())
    with pytest.raises(ValueError, match="is a folder, not a checkpoint"):
        files.read(tmp_path)


@pytest.mark.parametrize(
    "other, message",
    [
        (nets.MLP(2, hidden=3, depth=3, classes=2), "only the net has hidden.1.bias"),
        (nets.MLP(2, hidden=3, depth=2), "only the file has label.weight"),
        (nets.MLP(2, hidden=4, depth=2, classes=2), r"first.bias is \(3,\) in the file, \(4,\) in"),
        (small(dtype=torch.float64), "dtype of first.bias is torch.float32 in the file, torch.flo"),
        (nets.ResMLP(2, hidden=3), "holds a MLP that does not fit this ResMLP"),
    ],
)
def test_another_net_is_refused(tmp_path, other, message):
    train.save(tmp_path / "net", small())
    before = flat(other)
    with pytest.raises(ValueError, match=message):
        train.load(tmp_path / "net", other)
    assert unchanged(other, before)
