"""The examples: one process, several and Slurm's take the same steps; killed, they go on."""

import importlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from minigen import train
from minigen.train import files, processes

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SMALL = "--size 16 --characters abc --channels 8 --batch 8 --steps 12 --every 4 --samples 6".split()


@pytest.fixture
def example(monkeypatch):
    """An example as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


def curve(folder: Path):
    """The losses of all steps, those before the run was killed included."""
    return files.read(folder / "run.safetensors")[0]["losses."]


def environment(**more) -> dict:
    """This process's own, with torchrun and this checkout's minigen."""
    more["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    more["GLOO_SOCKET_IFNAME"] = next(n for _, n in socket.if_nameindex() if n.startswith("lo"))
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def torchrun(script: str, *options) -> subprocess.Popen:
    """Two processes on this machine."""
    command = ["torchrun", "--standalone", "--nproc-per-node=2", str(EXAMPLES / script)]
    return subprocess.Popen(
        [*command, *map(str, options)], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory):
    """The folder of a run that Slurm started as two tasks, played here, and what it printed."""
    folder = tmp_path_factory.mktemp("slurm")
    for name, does in (
        ("srun", '"$@" & "$@" && wait $!'),
        ("scontrol", "echo 127.0.0.1; echo other"),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{does}\n")
        (folder / name).chmod(0o755)
    slurm = {"SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    env = environment(**slurm, SLURM_JOB_ID=str(os.getpid()))
    env["PATH"] = f"{folder}:{env['PATH']}"
    command = ["bash", str(EXAMPLES / "train_glyphs.slurm"), *SMALL, "--out", str(folder / "out")]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_two_hosts_are_one_process_with_the_joint_batch(example, two_hosts, tmp_path, capsys):
    example("train_glyphs").main([*SMALL, "--out", str(tmp_path)])
    folder, said = two_hosts
    assert len(curve(folder)) == 12
    torch.testing.assert_close(curve(folder), curve(tmp_path), rtol=1e-5, atol=0)
    assert said == capsys.readouterr().out  # once, and the same samples, to three digits
    assert re.findall(r"step (\d+): loss [\d.]+, energy distance [\d.]+ \(glyphs", said) == [
        "4", "8", "12",
    ]  # fmt: skip
    assert len([*folder.glob("samples_*.png")]) == 3


def test_a_killed_run_goes_on_with_as_many_processes_or_with_one(example, two_hosts, tmp_path):
    killed = torchrun("train_glyphs.py", *SMALL, "--out", tmp_path / "two")
    while not (tmp_path / "two" / "run.safetensors").exists():
        assert killed.poll() is None, killed.stderr.read()
        time.sleep(0.01)
    killed.send_signal(signal.SIGTERM)  # as Slurm does; torchrun ends its own
    killed.communicate(timeout=60)
    assert len(curve(tmp_path / "two")) in (4, 8)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    example("train_glyphs").main([*SMALL, "--out", str(tmp_path / "one")])
    again = torchrun("train_glyphs.py", *SMALL, "--out", tmp_path / "two")
    assert "resuming from step" in finished(again)
    whole = curve(two_hosts[0])
    for name in ("one", "two"):
        torch.testing.assert_close(curve(tmp_path / name), whole, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "flags",
    [["--loss", "eps"], ["--bf16"], ["--net", "dit"], ["--bf16", "--net", "dit"]],
    ids=lambda f: "-".join(f).strip("-"),
)
def test_each_flag_trains_a_net_that_its_file_rebuilds(example, flags, tmp_path, capsys):
    glyphs = example("train_glyphs")
    options = [*SMALL, "--steps", "30", "--every", "15", "--lr", "3e-3", *flags]
    glyphs.main([*options, "--out", str(tmp_path)])
    losses = curve(tmp_path)
    assert losses[-10:].mean() < 0.8 * losses[:3].mean()
    net, options = train.rebuild(tmp_path / "net.safetensors"), glyphs.parse(options)
    generator = torch.Generator().manual_seed(0)
    x = glyphs.sample(net, torch.tensor([0, 1, 2]), options, generator)
    assert x.shape == (3, 1, 16, 16) and x.isfinite().all()


def test_tasks_of_slurm_that_would_train_alone_are_refused(monkeypatch):
    net = torch.nn.Linear(2, 1)
    monkeypatch.setenv("SLURM_NTASKS", "4")
    with pytest.raises(RuntimeError, match="Slurm gave 4 tasks, but .* one of 1: .* train alone"):
        train.fit(lambda: net.bias.sum(), net, steps=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="4 tasks, but this process is one of 2"):
        processes.check_start()
    for name, value in (("WORLD_SIZE", "8"), ("SLURM_NTASKS", "1")):
        monkeypatch.setenv(name, value)
        processes.check_start()
    assert train.rank() == 0


# --- Lightning Fabric ---------------------------------------------------------------------------


def test_fabrics_loop_has_the_same_curve_and_goes_on_where_it_stopped(example, tmp_path, two_hosts):
    pytest.importorskip("lightning_fabric")
    fabric, whole = example("fabric"), curve(two_hosts[0])
    options = fabric.parse([*SMALL, "--out", str(tmp_path)])
    first = [*itertools.islice(fabric.fit(fabric.make_fabric(options), options), 9)]
    rest = [*fabric.fit(fabric.make_fabric(options), options)]
    assert [n for n, _ in [*first[:8], *rest]] == [*range(1, 13)] and rest[0] == first[8]
    losses = torch.stack([loss for _, loss in [*first[:8], *rest]])
    torch.testing.assert_close(losses, whole, rtol=1e-5, atol=0)


def test_fabrics_loop_has_the_same_curve_on_two_processes(two_hosts, tmp_path):
    pytest.importorskip("lightning_fabric")
    run = torchrun("fabric.py", *SMALL, "--every", "1", "--out", tmp_path)
    losses = [float(x) for x in re.findall(r"step \d+: loss ([\d.]+)", finished(run))]
    assert losses == pytest.approx(curve(two_hosts[0]).tolist(), rel=1e-5)


def test_each_example_is_short_and_named_on_the_page():
    page = (EXAMPLES / "README.md").read_text("utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name in page or path.suffix in (".md", ""), path
        assert len(path.read_text("utf-8").splitlines()) <= 150, path
