"""Checkpoint files: what was saved comes back, and nothing else is ever loaded."""

import copy
import inspect
import os
import pickle
import random
import string
import subprocess
import sys

import pytest
import torch

from minigen import data, nets, train
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
    made = {"shape": 2, "hidden": 3, "depth": 2, "classes": 2}
    assert train.load(path, other) == {**facts, "class": "MLP", "arguments": made}
    assert unchanged(other, flat(net))
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "net",
    [
        nets.MLP(2, 16, depth=2, classes=3),
        nets.ResMLP((1, 4, 4), hidden=8, out=2),
        nets.UNet((3, 8, 8), 8, (1, 2), classes=4),
        nets.DigitsClassifier(),
        nets.Reader((2, 6, 9), 5, length=3, width=7),
    ],
    ids=lambda net: type(net).__name__,
)
def test_a_net_is_rebuilt_from_its_file_alone(net, dtype, tmp_path):
    """It computes the same; a copy of it can be saved as well; no random number is drawn."""
    net = copy.deepcopy(net).to(dtype)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    train.save(tmp_path / "net", net)
    state = torch.get_rng_state()
    again = train.rebuild(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(again) is type(net) and unchanged(again, flat(net))
    assert all(p.requires_grad and p.dtype == dtype for p in again.parameters())
    x = torch.randn(5, *getattr(net, "shape", (1, 8, 8))).to(dtype)
    rest = () if isinstance(net, nets.Reader) else (torch.rand(5),)
    assert torch.equal(again(x, *rest), net(x, *rest))


def test_what_cannot_be_rebuilt_says_what_to_do(tmp_path, monkeypatch):
    class MLP(torch.nn.Linear):  # of the same name, but another class
        pass

    def refused(match):
        with pytest.raises(ValueError, match=f"^{path} .*{match}"):
            train.rebuild(path)

    path, own = tmp_path / "net", lambda t: t[:, None]
    for net, said in (
        (
            torch.nn.Linear(2, 3),
            "holds a Linear, which is no net of minigen: make the",
        ),
        (nets.MLP(2, embedding=own), "does not say what its MLP was made with: make the net your"),
        (MLP(2, 3), "does not say what its MLP was made with"),
    ):
        train.save(path, net)
        refused(said)
    for change, said in (
        (facts(arguments={"shape": 2, "hiden": 3}), "asks for a MLP that can't be made: .*hiden"),
        (facts(arguments={"shape": 0}), "asks for a MLP that can't be made: each of shape"),
        (facts(arguments=[2]), "asks for a MLP that can't be made"),
        (facts(arguments={"shape": 10**6, "hidden": 10**9}), "shape of first.bias is"),
        (facts(arguments={"shape": 3}), "the shape of first.bias"),
        (facts(**{"class": "mlp"}), "holds a mlp, which is no net of minigen"),
        (facts(**{"class": ["MLP"]}), "which is no net of minigen"),
    ):
        train.save(path, small())
        change(path)
        refused(said)


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
    with pytest.raises(OSError, match=f"a checkpoint can't be written to {path}: no space left"):
        train.save(path, small(1), seed=2)
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
    with pytest.raises(TypeError, match="what is said about a checkpoint must fit JSON"):
        train.save(path, small(), device=torch.device("cpu"))


def run_to(path, steps=6, every=2, seed=0, **kw):
    """A run of a small net with an average, batches and a generator, and the net."""
    net, generator = small(seed), torch.Generator().manual_seed(seed)
    stream = data.batches(torch.arange(14.0).reshape(7, 2), size=2, generator=generator)
    loss = lambda: (
        (net(x := next(stream)[0], torch.rand(2, generator=generator)) - x).square().mean()
    )
    ema, more = train.Ema(net), {"generator": generator, "progress": False}
    run = train.fit(loss, net, ema=ema, checkpoint=path, steps=steps, every=every, **more, **kw)
    return run, net, ema, generator, stream


def test_a_run_that_cannot_write_says_so_at_the_call(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run"
    with pytest.raises(OSError, match=f"can't be written to {path}: {path.parent} is no folder"):
        run_to(path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=f"can't be written to {tmp_path / 'run'}: No space left"):
            run_to(tmp_path / "run")
    run, *_ = run_to(tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    next(run), next(run)
    monkeypatch.setattr("os.fsync", full)
    next(run)
    with pytest.raises(OSError, match="No space left on device; the file there still holds step 2"):
        next(run)


def test_a_long_name(tmp_path):
    path = tmp_path / ("ä" * 100 + "a" * 50)  # 250 bytes
    train.save(path, small())
    train.load(path, small(1))
    assert [*tmp_path.iterdir()] == [path]


def test_what_a_killed_run_left_goes_with_the_next_write(tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
    )
    alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    gone, stays = (
        f".net.{int(killed.stdout)}",
        {f".net.{alive.pid}", ".net.old", ".nets.1", "net.1"},
    )
    for name in (gone, *stays):
        (tmp_path / name).touch()
    train.save(tmp_path / "net", small())
    alive.communicate(b"\n")
    assert {p.name for p in tmp_path.iterdir()} == {"net", *stays}


# --- nothing else is loaded ---------------------------------------------------------------------


def test_only_regular_files_of_their_size_are_read(tmp_path, run_python):
    """A pipe would hang, a device or a hole of 20 GiB fill the memory: all are refused."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    whole = tmp_path / "whole"
    train.save(whole, small())
    for name, start in (
        ("hole", b""),
        ("tail", whole.read_bytes()),
        ("head", b"\0\0\0\0\4\0\0\0{"),
    ):
        with open(tmp_path / name, "wb") as file:
            file.write(start)
            file.truncate(20 * 2**30)
    source = """
    import contextlib, resource, sys; from minigen.train import files
    with contextlib.suppress(ValueError):  # macOS takes no such limit
        resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30,) * 2)
    for path in sys.stdin.read().splitlines():
        try:
            files.read(path)
        except ValueError as error:
            print(str(error).removeprefix(path))
    """
    names = ("pipe", "loop", "hole", "tail", "head")
    asked = "\n".join([*(str(tmp_path / name) for name in names), "/dev/zero"])
    said = run_python(inspect.cleandoc(source), input=asked).splitlines()
    words = (
        "a pipe",
        "can't be read: Too many",
        "not a safetensors",
        "of",
        "not complete",
        "device",
    )
    assert len(said) == 6 and all(word in line for word, line in zip(words, said, strict=True)), (
        said
    )


def test_a_run_refuses_a_loop_of_links(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match="loop can't be read: Too many levels"):
        next(run_to(tmp_path / "loop")[0])


def edited(change):
    """A file of a run with a valid seal, after a change of its tensors and facts."""

    def edit(path):
        tensors, about = files.read(path)
        change(tensors, about)
        files.write(path, tensors, about)

    return edit


def facts(**new):
    return edited(lambda tensors, about: about.update(new))


def without(name):
    return edited(lambda tensors, about: (tensors.pop(name, 0), about.pop(name, 0)))


def tensor(name, x):
    return edited(lambda tensors, about: tensors.update({name: x(tensors.get(name))}))


def stuck(state):
    state[24 : 24 + 8 * 624] = 0
    return state


nan = lambda x: torch.full_like(x, torch.nan)
moments = lambda tensors: [name for name in tensors if name.startswith("optimizer.")]


@pytest.mark.parametrize(
    "damage, message",
    [
        (facts(step="2"), "it says step = '2'"),
        (facts(step=-3), "it says step = -3"),
        (facts(step=True), "it says step = True"),
        (facts(step=10**9), "holds step 1000000000 of a longer run than steps=6"),
        (facts(step=3), r"shape of losses. is \(4,\) in the file, \(3,\) in the run"),
        (facts(updates="many"), "it says updates = 'many'"),
        (facts(updates=2), "its average has missed steps"),
        (facts(updates=10**19), "it says updates = 1000"),
        (facts(updates=None), "no ema, this one has .* an ema"),
        (without("updates"), "it says updates = None"),
        (facts(processes=0), "it says processes = 0"),
        (facts(processes=2), "its processes are not those of its batches"),
        (facts(generators=2), "2 generators"),
        (facts(batches=7), "it says batches = 7"),
        (facts(batches=[[[7, 3]]]), r"\(3 of 7 rows\)"),
        (without("batches"), "it says batches = None"),
        (without("losses"), "it says losses = None"),
        (facts(losses=["a b"]), r"it says losses = \['a b'\]"),
        (without("losses."), "only the run has losses."),
        (tensor("losses.", nan), "losses. is not finite"),
        (tensor("other", lambda _: torch.ones(2)), "only the file has other"),
        (
            tensor("optimizer.99.exp_avg", lambda _: torch.ones(2)),
            "only the file has optimizer.99.exp_avg",
        ),
        (without("optimizer.0.exp_avg"), "only the run has optimizer.0.exp_avg"),
        (tensor("optimizer.0.exp_avg", lambda x: x[1:]), "the shape of optimizer.0.exp_avg"),
        (tensor("optimizer.0.exp_avg", nan), "optimizer.0.exp_avg is not finite"),
        (tensor("optimizer.0.exp_avg_sq", lambda x: x - 1), "optimizer.0.exp_avg_sq is negative"),
        (tensor("optimizer.0.step", lambda x: x.expand(2)), "the shape of optimizer.0.step"),
        (tensor("optimizer.0.step", torch.zeros_like), "optimizer.0.step is no number of steps"),
        (tensor("optimizer.0.step", lambda x: x - 0.5), "optimizer.0.step is no number of steps"),
        (tensor("optimizer.0.step", lambda x: x + 1), "optimizer.0.step is no number of steps"),
        (tensor("optimizer.0.step", torch.Tensor.half), "optimizer.0.step is no number of steps"),
        (
            edited(lambda tensors, _: [*map(tensors.pop, moments(tensors))]),
            "only the run has optimizer.",
        ),
        (without("ema.0"), "only the run has ema.0"),
        (tensor("ema.0", lambda x: x[1:]), "the shape of ema.0"),
        (tensor("ema.0", nan), "ema.0 is not finite"),
        (tensor("net.first.bias", nan), "net.first.bias is not finite"),
        (tensor("net.first.bias", torch.Tensor.double), "the dtype of first.bias"),
        (tensor("generator.0.0", torch.zeros_like), "generator.0.0 is no generator's state"),
        (tensor("generator.0.0", stuck), "generator.0.0 is no generator's state: it would draw"),
        (tensor("generator.0.0", lambda x: x[:9]), "the shape of generator.0.0"),
        (without("generator.0.0"), "only the run has generator.0.0"),
        (without("batches.0.0"), "only the run has batches.0.0"),
        (tensor("batches.0.0", lambda _: torch.tensor([1, 1])), "is no order of 7 rows"),
        (tensor("batches.0.0", lambda _: torch.tensor([1, 7])), "is no order of 7 rows"),
        (tensor("batches.0.0", lambda _: torch.tensor([-1])), "is no order of 7 rows"),
        (tensor("batches.0.0", lambda _: torch.arange(7)), "is no order of 7 rows"),
        (tensor("batches.0.0", lambda _: torch.arange(4)), "is no order of 7 rows"),
        (tensor("batches.0.0", lambda _: torch.ones(1)), "the dtype of batches.0.0"),
    ],
)
def test_a_sealed_file_of_no_run_is_refused_whole(tmp_path, damage, message):
    """Whatever is wrong in it is named, before anything of the new run is overwritten."""
    [*run_to(tmp_path / "run", steps=4)[0]]
    damage(tmp_path / "run")
    run, net, ema, generator, stream = run_to(tmp_path / "run", seed=1)
    before = flat(net), [*map(torch.clone, ema.averages)], generator.get_state(), stream.rest
    with pytest.raises(ValueError, match=f"^{tmp_path / 'run'} .*{message}"):
        next(run)
    assert unchanged(net, before[0]) and ema.updates == 0
    assert all(torch.equal(a, b) for a, b in zip(ema.averages, before[1], strict=True))
    assert torch.equal(generator.get_state(), before[2]) and stream.rest is before[3]


def test_no_checkpoint_of_broken_weights(tmp_path):
    """A finite loss with an infinite gradient, √0, breaks the weights; they are not written."""
    p = torch.nn.Parameter(torch.zeros(2))
    broken = lambda: p.square().sum().sqrt()
    run = train.fit(broken, [p], steps=1, checkpoint=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="net.0 is not finite after step 1.*infinite gradient"):
        next(run)
    assert not [*tmp_path.iterdir()]


def test_a_sealed_file_without_facts(tmp_path, run_python):
    """Sealed by the same rule, but with other JSON inside."""
    source = """
    import sys, torch; from minigen.train import files
    for about in ([1], "net", None):
        files.write(sys.argv[1], {"a": torch.ones(1)}, about)
        try:
            files.read(sys.argv[1])
        except ValueError as error:
            print("was not written by minigen" in str(error))
    """
    source = inspect.cleandoc(source).replace("sys.argv[1]", repr(str(tmp_path / "f")))
    assert run_python(source).split() == ["True"] * 3


# --- the seal -----------------------------------------------------------------------------------


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


def test_broken_weights_are_refused_and_broken_statistics_are_not(tmp_path):
    saved, net = (torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)) for _ in "sn")
    saved[1].running_mean[1] = torch.nan
    train.save(tmp_path / "net", saved)
    train.load(tmp_path / "net", net)
    saved[0].bias.data[1] = torch.nan
    train.save(tmp_path / "net", saved)
    before = [x.nan_to_num() for x in flat(net)]
    with pytest.raises(ValueError, match="net holds weights that are not finite: 0.bias"):
        train.load(tmp_path / "net", net)
    assert all(torch.equal(a.nan_to_num(), b) for a, b in zip(flat(net), before, strict=True))


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    train.save(tmp_path / "net", small())
    monkeypatch.setattr("builtins.open", broken)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'net'} can't be read: Input/output error"):
        files.read(tmp_path / "net")


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
