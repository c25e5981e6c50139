"""Training: fit against a hand-written loop, resuming bit for bit, averages in closed form."""

import copy
import inspect
import json
import math
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
import worker

from minigen import data, gan, nets, train
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
    assert [lr(110), lr(111), lr(200)] == [0, 0, 0]  # it does not climb again
    rises = train.cosine(2.0, 4, warmup=4)
    assert [rises(n) for n in range(6)] == [0.5, 1.0, 1.5, 2.0, 0, 0]
    for warmup in (-1, 5):
        with pytest.raises(
            ValueError, match=f"warmup must lie between 0 and steps = 4, got {warmup}"
        ):
            train.cosine(2.0, 4, warmup=warmup)


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


def test_a_run_that_nobody_asks_for_its_losses_says_so(run_python):
    """By its repr, and in a warning at the line that threw it away."""
    net, loss, _ = problem()
    before = flat(net)
    with pytest.warns(UserWarning, match="nothing was trained: fit: 0 of 30 steps done; iter") as w:
        fit(loss, net)
    assert len(w) == 1 and torch.equal(flat(net), before)
    run = fit(loss, net)
    todo = "steps done; iterate over it to train: for loss in fit(...): ..."
    assert repr(run) == "fit: 0 of 30 " + todo
    assert next(run).shape == () and repr(run) == "fit: 1 of 30 " + todo and iter(run) is run
    assert len([*run]) == 29 and repr(run) == "fit: 30 of 30 steps done"
    fit(loss, net).close()  # on purpose
    source = """
    import torch; from minigen import train; net = torch.nn.Linear(2, 1)
    train.fit(lambda: net.bias.sum(), net, steps=2)
    kept = train.fit(lambda: net.bias.sum(), net, steps=3)  # until the program ends
    """
    said = run_python(inspect.cleandoc(source), also_said=True)
    assert "<string>:2: UserWarning: nothing was trained: fit: 0 of 2 steps" in said
    assert "UserWarning: nothing was trained: fit: 0 of 3 steps" in said


def test_a_run_left_by_break_stops_there_and_then(capsys, tmp_path):
    net, loss, generator = problem()
    for _ in fit(loss, net, checkpoint=tmp_path / "run", generator=generator, every=1):
        break
    assert "stopped in step 1 of 30; " in capsys.readouterr().out


# --- an optimiser of one's own ------------------------------------------------------------------


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "momentum": lambda params, **kw: torch.optim.SGD(params, momentum=0.9, nesterov=True, **kw),
    "adamw": lambda params, **kw: torch.optim.AdamW(params, weight_decay=0.1, amsgrad=True, **kw),
    "nadam": torch.optim.NAdam,
    "rmsprop": lambda params, **kw: torch.optim.RMSprop(params, momentum=0.5, centered=True, **kw),
    "adagrad": torch.optim.Adagrad,
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_optimizer_of_ones_own_steps_and_resumes_bit_for_bit(make, device, tmp_path):
    """As in a loop by hand; stopped and taken up with a new one, as if never stopped."""

    def run(steps, path=None):
        net, loss, generator = problem(device)
        spare = torch.nn.Parameter(torch.ones(3, device=device))  # that no loss uses
        params = [*net.parameters(), spare]
        groups = [{"params": params[:2], "lr": 3e-3}, {"params": params[2:]}]
        keep = {"generator": generator, "checkpoint": path, "steps": steps, "clip": 0.5}
        losses = [*fit(loss, params, optimizer=make(groups, lr=1e-2), **keep)]
        return torch.stack(losses), flat(net)

    losses, weights = run(12)
    net, loss, _ = problem(device)
    first, *rest = [*net.parameters()][:2], *[*net.parameters()][2:]
    opt = make([{"params": first, "lr": 3e-3}, {"params": rest}], lr=1e-2)
    by_hand = []
    for _ in range(12):
        opt.zero_grad()
        by_hand.append(loss())
        by_hand[-1].backward()
        norm = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
        for p in net.parameters():
            p.grad *= (0.5 / (norm + 1e-6)).clamp(max=1)
        opt.step()
    torch.testing.assert_close(losses, torch.stack(by_hand), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weights, flat(net), rtol=1e-3, atol=1e-5)
    run(5, tmp_path / "run")
    again = run(12, tmp_path / "run")
    assert torch.equal(again[0], losses[5:]) and torch.equal(again[1], weights)


def test_a_rate_given_sets_that_of_every_group(device):
    """One step of plain descent moves a weight by lr · g."""
    net, loss, _ = problem(device)
    opt = torch.optim.SGD([{"params": [p], "lr": 9.0} for p in net.parameters()])
    before = flat(net)
    next(fit(loss, net, optimizer=opt, lr=lambda n: 0.25))
    grads = torch.cat([p.grad.flatten() for p in net.parameters()])
    torch.testing.assert_close(flat(net), before - 0.25 * grads)


def test_clipping_leaves_short_gradients_alone_and_shortens_long_ones(device):
    def moved(clip):
        net, loss, _ = problem(device)
        before = flat(net)
        next(fit(loss, net, optimizer=torch.optim.SGD(net.parameters(), lr=1.0), clip=clip))
        return flat(net) - before

    step = moved(None)
    long = float(step.norm())
    torch.testing.assert_close(moved(2 * long), step, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(moved(long / 4), step / 4, rtol=1e-5, atol=1e-7)


def test_an_optimizer_that_cannot_do_the_steps_is_refused_at_the_call(tmp_path):
    net, loss, generator = problem()
    params, SGD = [*net.parameters()], torch.optim.SGD

    def refused(optimizer, error, match):
        with pytest.raises(error, match=match):
            fit(loss, net, optimizer=optimizer)

    refused(SGD(params[1:], lr=0.1), ValueError, "moves other parameters than those that are tr")
    refused(torch.optim.LBFGS(params), TypeError, "LBFGS can't be used.*closure")
    for clip in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="clip must be a positive number, got"):
            fit(loss, net, clip=clip)
    net.first.bias.requires_grad_(False)  # a frozen one may be among its parameters
    next(fit(loss, net, optimizer=SGD(params, lr=0.1)))

    class Counting(SGD):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    self.state[p]["count"] = 1

    refused(Counting(params), TypeError, "Counting can't be resumed, as its count is no tensor")
    keep = {"checkpoint": tmp_path / "run", "generator": generator}
    [*fit(loss, net, steps=2, optimizer=SGD(params, lr=0.1), **keep)]
    with pytest.raises(ValueError, match="a run stepped by SGD, this one is stepped by Adam"):
        next(fit(loss, net, **keep))


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


def test_a_loss_of_another_net_is_refused():
    (net, loss, _), other = problem(), nets.MLP(2, hidden=8, depth=2)
    with pytest.raises(ValueError, match="no parameter gets a gradient: .* use another net"):
        next(fit(loss, other))
    run = train.Run({"one": net, "other": other}, None, None)
    with pytest.raises(ValueError, match="no parameter of the other gets a gradient"):
        train.descent(run, "other", 0.1)(loss(), 0)
    net.first.requires_grad_(False)
    next(fit(loss, [*net.parameters(), *other.parameters()]))  # frozen or unused some: fine


def test_parameters_in_shards_are_refused(run_python):
    """As FSDP makes them: DTensors, and the flat ones of its first version."""
    source = """
    import torch, torch.distributed as dist
    from torch.distributed.fsdp._flat_param import FlatParameter
    from torch.distributed.tensor import distribute_tensor, init_device_mesh
    from minigen import train
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    net = torch.nn.Linear(2, 2)
    x = net.weight.data
    split = distribute_tensor(x, init_device_mesh("cpu", (1,)))
    for net.weight in (torch.nn.Parameter(split), FlatParameter(x)):
        for call in (lambda: train.Ema(net), lambda: train.fit(None, net, steps=1)):
            try:
                call()
            except TypeError as error:
                print("split over processes" in str(error))
    dist.destroy_process_group()
    """
    assert run_python(inspect.cleandoc(source)).split() == ["True"] * 4


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


def normed(seed=0):
    """A net with a spectral norm, a batch norm and a frozen layer, trained a little, in float64."""
    torch.manual_seed(seed)
    linear = lambda *size: torch.nn.Linear(*size, dtype=torch.float64)
    sn = torch.nn.utils.parametrizations.spectral_norm
    frozen, norm = linear(5, 3).requires_grad_(False), torch.nn.BatchNorm1d(5, dtype=torch.float64)
    return torch.nn.Sequential(sn(linear(2, 5)), norm, frozen, torch.nn.SiLU(), sn(linear(3, 2)))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_copy_gets_the_average_and_all_else_of_the_net(frozen):
    """A twin with buffers of its own computes what the net does with the averaged weights."""
    net, draw = normed(), torch.Generator().manual_seed(0)
    ema = train.Ema(net, 0.9)
    x = lambda n=64: 3 + 2 * torch.randn(n, 2, generator=draw, dtype=torch.float64)
    for _ in fit(lambda: (net(y := x()) - y).square().mean(), net, lr=1e-2, ema=ema, steps=60):
        pass
    twin = normed(seed=1).requires_grad_(not frozen)
    ema.copy_to(twin)
    net.eval(), twin.eval()
    with ema.applied():
        want = net(test := x(1000))
    assert torch.equal(twin(test), want)
    for layer in (twin[0], twin[4]):
        norm = float(torch.linalg.matrix_norm(layer.weight.detach(), 2))
        assert norm == pytest.approx(1, abs=0.05)
    assert torch.equal(twin[2].weight, net[2].weight)
    assert all(torch.equal(x, net[1].get_buffer(k)) for k, x in twin[1].named_buffers())


def test_applied_leaves_the_buffers_as_they_were():
    net = normed()
    ema, before = train.Ema(net), copy.deepcopy(net.state_dict())
    with ema.applied():
        net(torch.randn(8, 2, dtype=torch.float64))
        assert not torch.equal(net[1].running_mean, before["1.running_mean"])
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


def test_an_average_of_a_list_knows_no_buffers():
    net = normed()
    ema = train.Ema([p for p in net.parameters() if p.requires_grad])
    ema.copy_to(net)
    with pytest.raises(ValueError, match="nothing of the buffers .*running_mean.*train.Ema.net"):
        ema.copy_to(normed(1))
    plain = torch.nn.Linear(2, 3)
    twin = torch.nn.Linear(2, 3).requires_grad_(False)
    train.Ema(plain.parameters()).copy_to(twin)
    assert torch.equal(flat(twin), flat(plain))


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


def test_a_finished_run_gives_its_curve_again(device, tmp_path, capsys):
    """Also one that was stopped on the way; it trains nothing, and says so."""
    path = tmp_path / "run"
    first, _, _ = finished(path, device, 20)
    rest, weights, average = finished(path, device, 30)
    capsys.readouterr()
    again, *end = finished(path, device, 30)
    said = f"finished before: {path} holds all 30 steps; delete it to train anew\n"
    assert capsys.readouterr().out == said
    assert torch.equal(torch.stack(again), torch.stack([*first, *rest]))
    assert all(x.shape == () and x.device.type == device.type for x in again)
    assert torch.equal(end[0], weights) and torch.equal(end[1], average)
    with pytest.raises(ValueError, match="holds step 30 of a longer run than steps=25"):
        finished(path, device, 25)


def test_a_finished_game_gives_its_curve_again(tmp_path):
    def play(steps):
        torch.manual_seed(0)
        net, g = torch.nn.Linear(2, 2), torch.Generator().manual_seed(0)
        critic = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(0))
        draw = lambda n=8: torch.randn(n, 2, generator=g)
        keep = {"checkpoint": tmp_path / "run", "generator": g, "progress": False}
        return [
            *gan.alternate(net, critic, gan.nonsaturating, draw, latents=draw, steps=steps, **keep)
        ]

    first = [*play(3), *play(5)]
    again = play(5)
    assert [tuple(map(float, x)) for x in again] == [tuple(map(float, x)) for x in first]
    assert float(again[4].critic) == float(first[4].critic) and type(again[0]) is gan.Losses


def test_the_last_step_is_written_whatever_every_is(tmp_path):
    whole = finished(tmp_path / "run", "cpu", 25)  # every = 10
    again = finished(tmp_path / "run", "cpu", 25)
    assert torch.equal(torch.stack(again[0]), torch.stack(whole[0])) and len(again[0]) == 25


def drawn(several, steps, path):
    """Losses of a run on two data.batches, of one generator or of several, and what comes next."""
    net, _, _ = problem()
    g = [torch.Generator().manual_seed(k) for k in range(2)] if several else [torch.Generator()] * 2
    x = 3 + 2 * torch.randn(11, 2, generator=torch.Generator().manual_seed(5))
    one = data.batches(x, x.sum(1), size=3, generator=g[0])
    two = data.batches(x[:7], size=2, generator=g[1])

    def loss():
        (a, total), (b,) = next(one), next(two)
        t = torch.rand(len(a), generator=g[0])
        return (net(a, t) - total[:, None]).square().mean() + (net(b, t[:2]) - b).square().mean()

    generator = g if several else g[0]
    run = fit(loss, net, steps=steps, generator=generator, checkpoint=path, every=4)
    return torch.stack([*run]), next(two)[0]


@pytest.mark.parametrize("several", [False, True])
def test_batches_resume_bit_for_bit_wherever_they_were_stopped(tmp_path, several):
    want, after = drawn(several, 20, None)
    for stop in range(1, 20):
        first, _ = drawn(several, stop, tmp_path / f"{stop}")
        rest, next_ = drawn(several, 20, tmp_path / f"{stop}")
        assert torch.equal(torch.cat([first, rest]), want) and torch.equal(next_, after), stop
        _, next_ = drawn(several, 20, tmp_path / f"{stop}")
        assert torch.equal(next_, after)


def test_batches_that_are_not_the_runs_are_refused(tmp_path):
    net, loss, generator = problem()
    x, keep = torch.zeros(9, 2), {"generator": generator, "checkpoint": tmp_path / "run"}
    stream = data.batches(x, size=4, generator=generator)
    other = data.batches(x, size=4)
    [*fit(loss, net, steps=2, **keep)]
    del other
    assert len([*fit(loss, net, steps=3, **keep)]) == 1
    more = data.batches(x, size=3, generator=generator)
    with pytest.raises(
        ValueError, match=r"1 data.batches on them \(4 of 9 rows\) .* 2 data.batches"
    ):
        next(fit(loss, net, **keep))
    del stream, more
    with pytest.raises(ValueError, match="this one has 1 generators, 0 data.batches"):
        next(fit(loss, net, **keep))


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
        lo = next(
            name for _, name in socket.if_nameindex() if name.startswith("lo")
        )  # lo0 on macOS
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": lo}
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
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's job in the background has it
    killed = start(tmp_path / "never", 60, tmp_path / "run", 0.02, "shard", kind)
    signal.signal(signal.SIGINT, old)
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
    refused(
        "1 generators, 0 data.batches on them and an ema, this one has 1",
        loss,
        net,
        generator=generator,
    )
    refused(
        "an ema, this one has 0 generators, 0 data.batches on them and an ema",
        loss,
        net,
        ema=train.Ema(net),
    )
    train.save(path, net)
    refused("holds a net, not the state of a training run: use train.load", loss, net)


# --- several processes --------------------------------------------------------------------------


@pytest.fixture
def together():
    """Such processes as torchrun starts, and what they said at their end."""
    running = []

    def run(*args, ranks=2):
        try:
            with closing(socket.create_server(("127.0.0.1", 0))) as server:
                port = server.getsockname()[1]
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError as error:
            pytest.skip(f"this machine has no loopback: {error}")
        running.extend(start(*args, ranks=ranks, port=port, rank=r) for r in range(ranks))
        return [(p.communicate(timeout=120)[1], p.returncode) for p in running]

    yield run
    for p in running:
        p.kill()
        p.communicate()


@pytest.mark.parametrize("kind", ["one", "game", "part", "own"])
def test_two_processes_are_one_with_the_joint_batch(tmp_path, kind, together):
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
    assert two["seen"] == pytest.approx(one["seen"], rel=1e-8, abs=1e-10)


def test_processes_that_forgot_to_shard_are_told(tmp_path, together):
    for err, code in together(tmp_path / "out", 3, "", 0, "whole"):
        assert code == 1 and "give each its part with train.shard" in err


def test_one_process_is_alone():
    """Outside torchrun nothing is sent anywhere, and no process group is needed."""
    x = torch.tensor(2.0)
    assert (processes.rank(), processes.world()) == (0, 1)
    assert processes.mean(x) is x and processes.gather("a") == ["a"]
    assert processes.begin([x]) is None and processes.average([torch.nn.Parameter(x)]) is None
    assert processes.joined(x, first=True) is x
    assert processes.settle([x]) is None and x == 2 and processes.leave() is None


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


def test_shard_tells_type_checkers_what_comes_back(run_python):
    source = "import typing; from minigen import train; o = typing.get_overloads(train.shard);"
    source += "print(*(typing.get_type_hints(f)['return'] for f in o), sep='; ')"
    assert run_python(source) == "<class 'torch.Tensor'>; tuple[torch.Tensor, ...]"


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
