"""Training: fit against a hand-written loop, resuming bit for bit, averages in closed form."""

import copy
import json
import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import worker

from minigen import nets, train
from minigen.train import processes

WORKER = Path(__file__).with_name("worker.py")
B = 12


def problem(device="cpu", seed=0, net=None):
    """A small net, its loss and the generator that the loss draws from."""
    torch.manual_seed(1)
    net = net or nets.MLP(2, hidden=8, depth=2).to(device)
    generator = torch.Generator(device).manual_seed(seed)

    def loss():
        x0 = 3 + 2 * torch.randn(B, 2, generator=generator, device=device)
        t = torch.rand(B, generator=generator, device=device)
        return (net(x0, t) - x0).square().mean()

    return net, loss, generator


def fit(loss, params, **kw):
    return train.fit(loss, params, **{"steps": 30, "progress": False, **kw})


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


# --- the loop -----------------------------------------------------------------------------------


def test_fit_is_the_loop_written_by_hand(device):
    net, loss, _ = problem(device)
    got = [*fit(loss, net, lr=1e-2)]
    hand, loss, _ = problem(device)
    adam, want = torch.optim.Adam(hand.parameters(), lr=1e-2), []
    for _ in range(30):
        value = loss()
        adam.zero_grad()
        value.backward()
        adam.step()
        want.append(value.detach())
    torch.testing.assert_close(torch.stack(got), torch.stack(want), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flat(net), flat(hand), rtol=1e-3, atol=1e-5)


def test_fit_yields_detached_scalars_on_the_device(device):
    net, loss, _ = problem(device)
    values = [*fit(loss, [*net.parameters()], progress=True)]
    assert len(values) == 30 and values[-1] < values[0]
    assert all(v.shape == () and not v.requires_grad for v in values)
    assert values[0].device.type == device.type


def test_fit_trains_only_what_it_is_given():
    net, loss, _ = problem()
    before = copy.deepcopy(net)
    [*fit(loss, net.last.parameters())]
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before.get_parameter(n))}
    assert changed == {"last.weight", "last.bias"}


def test_learning_rate_may_be_a_function():
    """Adam's first step moves every weight by lr · g/|g|: the rate of step 0 can be read off."""
    net, loss, _ = problem()
    before = flat(net)
    next(fit(loss, net, lr=lambda n: 0.5 if n == 0 else 0.0))
    moved = (flat(net) - before).abs()
    torch.testing.assert_close(moved[moved > 0.4], torch.full_like(moved[moved > 0.4], 0.5))
    assert (moved > 0.4).any()


def test_cosine():
    lr = train.cosine(2.0, 110, warmup=10)
    assert [lr(0), lr(4), lr(9), lr(10), lr(60)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0])
    assert 0 < lr(109) < 1e-3 and train.cosine(2.0, 100)(0) == 2.0


def test_bf16_autocast(device):
    net, loss, _ = problem(device)
    seen = []
    plain = [*fit(loss, net)]
    net, loss, _ = problem(device)
    net.last.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    mixed = [*fit(loss, net, autocast=torch.bfloat16)]
    assert {*seen} == {torch.bfloat16} and net.last.weight.dtype == torch.float32
    torch.testing.assert_close(torch.stack(plain), torch.stack(mixed), rtol=0.05, atol=0)


def test_fit_never_waits_for_the_device(device):
    """Every way to read a value off the device raises inside the loop."""
    if device.type != "cuda":
        pytest.skip("only CUDA can tell that it was waited for")
    net, loss, _ = problem(device)
    run = fit(loss, net, progress=True, ema=train.Ema(net))
    next(run)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(28):
            next(run)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_device():
    assert torch.ones(2, device=train.device()).sum() == 2
    assert train.device().type == ("cuda" if torch.cuda.is_available() else train.device().type)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_fit_stops_where_the_loss_is_not_finite(device, bad):
    net, loss, _ = problem(device)
    count = iter(range(100))
    run = fit(lambda: loss() * (bad if next(count) == 4 else 1), net, steps=8)
    with pytest.raises(ValueError, match=f"the loss is (nan|{bad}) at step ., or|look for NaN"):
        for _ in run:
            pass
    if device.type == "cpu":  # noticed before the weights are touched
        assert flat(net).isfinite().all()


def test_no_checkpoint_of_a_broken_run(device, tmp_path):
    net, loss, _ = problem(device)
    with pytest.raises(ValueError, match="the loss is nan at step"):
        [*fit(lambda: loss() * math.nan, net, checkpoint=tmp_path / "run", every=1)]
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"params": []}, ValueError, "there are no parameters to train"),
        ({"params": torch.nn.SiLU()}, ValueError, "there are no parameters to train"),
        ({"steps": 0}, ValueError, "steps must be a whole number of at least 1, got 0"),
        ({"every": 0}, ValueError, "every must be a whole number of at least 1"),
        ({"autocast": torch.float16}, ValueError, "autocast must be torch.bfloat16"),
        ({"ema": train.Ema(nets.MLP(2))}, ValueError, "ema follows other parameters"),
    ],
)
def test_fit_refuses_before_it_starts(change, error, message):
    net, loss, _ = problem()
    with pytest.raises(error, match=message):
        fit(loss, **{"params": net, **change})


def test_fit_refuses_what_is_no_scalar():
    net, _, _ = problem()
    with pytest.raises(ValueError, match=r"must return a scalar .* got shape \(3, 2\)"):
        [*fit(lambda: net(torch.randn(3, 2), torch.rand(3)), net)]
    with pytest.raises(ValueError, match="requires_grad=False"):
        [*fit(lambda: torch.tensor(1.0), net)]


# --- the average --------------------------------------------------------------------------------


def test_ema_is_its_closed_form(device):
    """θ̄_n = Σ_i w_i θ_i with weights that the decays d_k = min(d, (1 + k)/(10 + k)) imply."""
    p = torch.nn.Parameter(torch.zeros(3, device=device))
    ema, values, weights = train.Ema([p], decay=0.7), [torch.zeros(3, device=device)], [1.0]
    for k in range(40):
        value = torch.randn(3, generator=torch.Generator().manual_seed(k)).to(device)
        with torch.no_grad():
            p.copy_(value)
        ema.update()
        d = min(0.7, (1 + k) / (10 + k))
        weights = [w * d for w in weights] + [1 - d]
        values.append(value)
    assert sum(weights) == pytest.approx(1)
    want = sum(w * v for w, v in zip(weights, values, strict=True))
    torch.testing.assert_close(ema.averages[0], want, rtol=1e-5, atol=1e-6)


def test_ema_applied_and_copied(device):
    net, loss, _ = problem(device)
    ema = train.Ema(net, 0.9)
    [*fit(loss, net, ema=ema)]
    own, average = flat(net), torch.cat([a.flatten() for a in ema.averages])
    assert ema.updates == 30 and not torch.allclose(own, average)
    with pytest.raises(RuntimeError, match="inside"), ema.applied():
        assert torch.equal(flat(net), average)
        raise RuntimeError("inside")
    assert torch.equal(flat(net), own)
    other = problem(device)[0]
    ema.copy_to(other)
    assert torch.equal(flat(other), average)


def test_ema_refuses():
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got 1.0"):
        train.Ema(nets.MLP(2), 1.0)
    with pytest.raises(ValueError, match="no parameters to train"):
        train.Ema([])
    with pytest.raises(ValueError, match="belongs to a net of other shapes"):
        train.Ema(nets.MLP(2)).copy_to(nets.MLP(3))


# --- stopping and resuming ----------------------------------------------------------------------


def finished(checkpoint, device, steps, **kw):
    """The end of a run of so many steps: losses, weights, average."""
    net, loss, generator = problem(device)
    ema = train.Ema(net, 0.9)
    run = fit(
        loss, net, ema=ema, generator=generator, checkpoint=checkpoint, every=10, steps=steps, **kw
    )
    losses = [*run]
    return losses, flat(net), torch.cat([a.flatten() for a in ema.averages])


def test_resumed_run_is_bit_identical(device, tmp_path, capsys):
    losses, weights, average = finished(None, device, 30)
    finished(tmp_path / "run", device, 20, lr=1e-3)
    assert capsys.readouterr().out == ""
    rest, *end = finished(tmp_path / "run", device, 30)
    assert capsys.readouterr().out == "resuming from step 20 of 30\n"
    assert torch.equal(torch.stack(rest), torch.stack(losses[20:]))
    assert torch.equal(end[0], weights) and torch.equal(end[1], average)
    again, *end = finished(tmp_path / "run", device, 30)
    assert again == [] and torch.equal(end[0], weights)


def test_interrupted_run_says_how_to_resume(tmp_path):
    net, loss, generator = problem()
    calls = iter(range(100))

    def interrupted():
        if next(calls) == 17:
            raise KeyboardInterrupt
        return loss()

    keep = {"generator": generator, "checkpoint": tmp_path / "run", "every": 10}
    with pytest.raises(KeyboardInterrupt, match="stopped in step 18 of 30; .* holds step 10: the"):
        [*fit(interrupted, net, **keep)]
    net, loss, generator = problem(seed=5)
    [*fit(loss, net, **{**keep, "generator": generator})]
    whole, loss, _ = problem()
    [*fit(loss, whole)]
    assert torch.equal(flat(net), flat(whole))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="step 1 of 30; to be able to resume, pass checkp"):
        next(fit(stop, net))
    with pytest.raises(KeyboardInterrupt, match="step 1 of 30, before the first checkpoint"):
        next(fit(stop, net, checkpoint=tmp_path / "new"))


def start(*args, ranks=1, port=None, rank=0):
    env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(WORKER.parents[1]))
    if ranks > 1:
        env |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, str(WORKER), *map(str, args)],
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def here(tmp_path, *args):
    """What the worker finds, run in this process."""
    worker.main(tmp_path / "out", *args)
    return json.loads((tmp_path / "out").read_text())[-1]


@pytest.mark.parametrize("kind", ["one", "game"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_killed_process_resumes_bit_for_bit(tmp_path, how, kind, capsys):
    """A process killed somewhere after its step 10 loses only the work since a checkpoint."""
    killed = start(tmp_path / "never", 60, tmp_path / "run", 0.02, "shard", kind)
    while killed.stdout.readline().strip() != "15":
        assert killed.poll() is None, killed.stderr.read()
    killed.send_signal(how)
    out, err = killed.communicate(timeout=60)
    if how == signal.SIGINT:
        assert "the same call resumes from there" in out + err
    got = here(tmp_path, 60, tmp_path / "run", 0, "shard", kind)
    want = here(tmp_path, 60, None, 0, "shard", kind)
    assert len(got["losses"]) in range(20, 51, 10) and not (tmp_path / "never").exists()
    assert got["losses"] == want["losses"][-len(got["losses"]) :]
    assert got["weights"] == want["weights"] and got["average"] == want["average"]


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run"
    finished(path, "cpu", 20)
    net, loss, generator = problem()
    keep = {"checkpoint": path, "steps": 30}

    def refused(match, loss, params, **kw):
        with pytest.raises(ValueError, match=match):
            next(fit(loss, params, **keep, **kw))

    wide, wide_loss, _ = problem(net=nets.MLP(2, hidden=9, depth=2))
    refused(
        r"holds a run .* the shape of first.bias is \(8,\) in the file, \(9,\)", wide_loss, wide
    )
    deep, deep_loss, _ = problem(net=nets.MLP(2, hidden=8, depth=3))
    refused("only the net has hidden.1.bias", deep_loss, deep)
    refused("only the net has 0", loss, net.parameters())
    refused("1 generators and an ema: give this run the same", loss, net, generator=generator)
    refused("1 generators and an ema: give this run the same", loss, net, ema=train.Ema(net))
    train.save(path, net)
    refused("holds a net, not the state of a training run: use train.load", loss, net)


# --- several processes --------------------------------------------------------------------------


def together(*args, ranks=2):
    """Such processes as torchrun starts, and what they said at their end."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = [start(*args, ranks=ranks, port=port, rank=r) for r in range(ranks)]
    return [(p.communicate(timeout=120)[1], p.returncode) for p in processes]


@pytest.mark.parametrize("kind", ["one", "game"])
def test_two_processes_are_one_with_the_joint_batch(tmp_path, kind):
    """The same losses, weights and average to float64 rounding, also in a resumed run."""
    ends = together(tmp_path / "two", "20,30", tmp_path / "run", 0, "shard", kind)
    assert [code for _, code in ends] == [0, 0], ends
    two = json.loads((tmp_path / "two").read_text())
    one = here(tmp_path, 30, None, 0, "shard", kind)
    assert two == json.loads((tmp_path / "two.1").read_text())
    two = two[-1]
    torch.testing.assert_close(two["losses"], one["losses"][20:], rtol=1e-10, atol=1e-12)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-8, abs=1e-10)
    assert two["average"] == pytest.approx(one["average"], rel=1e-8, abs=1e-10)


def test_processes_that_forgot_to_shard_are_told(tmp_path):
    for err, code in together(tmp_path / "out", 3, "", 0, "whole"):
        assert code == 1 and "give each its part with train.shard" in err


def test_one_process_is_alone():
    """Outside torchrun nothing is sent anywhere, and no process group is needed."""
    x = torch.tensor(2.0)
    assert (processes.rank(), processes.world()) == (0, 1)
    assert processes.mean(x) is x and processes.gather("a") == ["a"]
    assert processes.begin([x]) is None and processes.average([torch.nn.Parameter(x)]) is None
    assert processes.joined(x, first=True) is x


def test_shard(monkeypatch):
    x, y = torch.arange(12).reshape(6, 2), torch.arange(6)
    assert train.shard(x) is x and train.shard(x, y)[1] is y
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(train.shard(x, y))
        assert torch.equal(parts[-1][0][:, 0] // 2, parts[-1][1])
    assert torch.equal(torch.cat([p[1] for p in parts]), y)
    with pytest.raises(ValueError, match="a batch of 5 does not split evenly over 3 processes"):
        train.shard(y[:5])


def test_a_player_descends_alone():
    """In one run of two: a step by hand for the one, nothing for the other, not even a gradient."""
    torch.manual_seed(0)
    one, other = nets.MLP(2, hidden=8), nets.MLP(2, hidden=8)
    for net in (one, other):
        net.last.reset_parameters()
    hand, before, x, t = copy.deepcopy(one), flat(other), torch.randn(5, 2), torch.tensor(0.5)
    run = train.Run({"one": one, "other": other}, None, None)
    step = train.descent(run, "one", lambda n: 0.1 / (1 + n))
    for n in range(3):
        assert not step((one(x, t) - other(x, t)).square().mean(), n).requires_grad
    adam = torch.optim.Adam(hand.parameters(), fused=True)
    for n in range(3):
        adam.param_groups[0]["lr"] = 0.1 / (1 + n)
        adam.zero_grad()
        (hand(x, t) - other(x, t).detach()).square().mean().backward()
        adam.step()
    assert torch.equal(flat(one), flat(hand)) and torch.equal(flat(other), before)
    assert all(p.grad is None for p in other.parameters())
