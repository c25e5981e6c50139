"""What the file of a training run may hold: all of it is looked through before any is taken up."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from . import files


def _whole(least: int):
    return lambda x: type(x) is int and least <= x < 2**63


def _sizes(x: object) -> bool:
    """Of each process, of each data.batches, how many rows there are and how many it gives."""
    return isinstance(x, list) and all(
        isinstance(each, list)
        and all(isinstance(pair, list) and [*map(type, pair)] == [int, int] for pair in each)
        for each in x
    )


def _names(x: object) -> bool:
    """Whose losses they are: one's without a name, or several's."""
    named = isinstance(x, list) and all(isinstance(who, str) and who.isidentifier() for who in x)
    return x == [""] or bool(named and x and len({*x}) == len(x))


FACTS = {
    "step": _whole(1),
    "optimizer": lambda x: isinstance(x, str),
    "processes": _whole(1),
    "generators": _whole(0),
    "updates": lambda x: x is None or _whole(0)(x),
    "batches": _sizes,
    "losses": _names,
}


def check_facts(path, about: dict, steps: int, optimizer: str) -> None:
    """Raises ValueError unless the facts in a file are those of a run of at most so many steps."""
    if "step" not in about:
        raise ValueError(f"{path} holds a net, not the state of a training run: use train.load")
    for key, fits in FACTS.items():
        if key not in about or not fits(about[key]):
            raise ValueError(
                f"{path} can't be taken up: it says {key} = {about.get(key)!r}, so it is damaged "
                f"or another version's; delete it to start anew"
            )
    if len(about["batches"]) != about["processes"]:
        raise ValueError(f"{path} can't be taken up: its processes are not those of its batches")
    if about["step"] > steps:
        raise ValueError(
            f"{path} holds step {about['step']} of a longer run than steps={steps}: ask for as "
            f"many, or delete it to start anew"
        )
    if about["optimizer"] != optimizer:
        raise ValueError(
            f"{path} was written by a run stepped by {about['optimizer']}, this one is stepped by "
            f"{optimizer}: give it the same, or delete the file"
        )
    if about["updates"] is not None and about["updates"] < about["step"]:
        raise ValueError(f"{path} can't be taken up: its average has missed steps")


def sources(generators: int, batches: Sequence, ema: bool) -> str:
    """What a run draws from and keeps, in words."""
    of = ", ".join(f"{size} of {rows} rows" for rows, size in batches)
    of = f" ({of})" if of else ""
    average = "an ema" if ema else "no ema"
    return f"{generators} generators, {len(batches)} data.batches on them{of} and {average}"


def check_optimizer(optimizer: object, params: Sequence[Tensor]) -> None:
    """Raises TypeError or ValueError where an optimiser of the user's own can't do the steps."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer of the parameters that are trained, such "
            f"as torch.optim.SGD(net.parameters(), lr=0.1), got {optimizer!r}"
        )
    own = {id(p) for group in optimizer.param_groups for p in group["params"] if p.requires_grad}
    if own != {*map(id, params)}:
        raise ValueError("optimizer moves other parameters than those that are trained")
    name = type(optimizer).__name__
    try:
        known = after_a_step(optimizer, params)
    except TypeError as error:
        raise TypeError(
            f"{name} can't be used, as its step wants more than gradients: {error}"
        ) from None
    if wrong := {k for each in known for k, x in each.items() if not isinstance(x, Tensor)}:
        raise TypeError(f"{name} can't be resumed, as its {min(wrong)} is no tensor")


def after_a_step(optimizer: torch.optim.Optimizer, params: Sequence[Tensor]) -> list[dict]:
    """What an optimiser knows of each parameter once it has stepped: a copy is asked to."""
    twin = copy.deepcopy(optimizer)
    pairs = zip(optimizer.param_groups, twin.param_groups, strict=True)
    twins = {id(p): q for a, b in pairs for p, q in zip(a["params"], b["params"], strict=True)}
    for q in twins.values():
        q.grad = torch.zeros_like(q)
    twin.step()
    return [twin.state.get(twins[id(p)], {}) for p in params]


def wanted(
    tensors: Mapping[str, Tensor],
    about: dict,
    known: Sequence[Mapping[str, Tensor]],
    averages: Sequence[Tensor],
    generators: Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """Tensors of the names, shapes and dtypes that a file of these facts holds beside the net's."""
    begun = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    want = {f"ema.{i}": x for i, x in enumerate(averages)}
    for i, state in enumerate(known):
        if str(i) in begun or not begun:  # of a parameter that no loss has used nothing is known
            for key, x in state.items():
                name = f"optimizer.{i}.{key}"
                want[name] = x if x.ndim else _floating(tensors, name, ())
    for rank, sizes in enumerate(about["batches"]):
        want |= {f"generator.{rank}.{i}": g.get_state() for i, g in enumerate(generators)}
        for i in range(len(sizes)):
            name = f"batches.{rank}.{i}"
            want[name] = torch.empty(tensors[name].numel() if name in tensors else 0).long()
    for who in about["losses"]:
        want[f"losses.{who}"] = _floating(tensors, f"losses.{who}", (about["step"],))
    return want


def _floating(tensors: Mapping[str, Tensor], name: str, shape: tuple) -> Tensor:
    """A tensor of that shape, in the file's precision if it has one."""
    dtype = tensors[name].dtype if name in tensors else torch.float32
    return torch.empty(shape, dtype=dtype if dtype.is_floating_point else torch.float32)


def flaw(name: str, x: Tensor) -> str | None:
    """What is wrong with the values of a tensor that goes by that name in a file, if anything."""
    if name.startswith(("generator.", "batches.")):
        return None
    if x.is_floating_point() and not x.isfinite().all():
        return "is not finite"
    signed = name[:10] != "optimizer." or not name.endswith((".exp_avg_sq", ".step"))
    return None if signed or (x >= 0).all() else "is negative"


def flaw_of_state(state: Tensor, generator: torch.Generator) -> str | None:
    """What is wrong with a state, if such a generator can't take it."""
    try:
        torch.Generator(generator.device).set_state(state)
    except RuntimeError as error:
        return f"is no generator's state: {error}"
    dead = state.numel() > 5000 and not state[24:5016].any()  # the Mersenne twister stuck at 0
    return "is no generator's state: it would draw nothing but zeros" if dead else None


def flaw_of_count(count: Tensor, about: Mapping) -> str | None:
    """What is wrong with a number of Adam's steps; of several players one may take many a step."""
    most = about["step"] if about["losses"] == [""] else torch.inf
    exact = count.dtype in (torch.float32, torch.float64) and count == count.floor()
    return None if exact and 1 <= count <= most else "is no number of steps"


def flaw_of_order(rest: Tensor, rows: int, size: int) -> str | None:
    """What is wrong with rows still to come in a pass over so many, that gives `size` at a time."""
    begun = len(rest) in range(rows - size, -1, -size)
    fine = not len(rest) or (begun and 0 <= rest.min() and rest.max() < rows)
    return None if fine and len(rest.unique()) == len(rest) else f"is no order of {rows} rows"


def check(path, tensors, about, want, net, generators) -> None:
    """Raises ValueError for the first tensor in the file that the run could not go on from.

    `want` as from `wanted`; `net` names what of the net is trained, and so must be finite.
    """
    rest = {name: x for name, x in tensors.items() if not name.startswith("net.")}
    files.check_same(path, rest, want, "a run", "this run", "run")
    for name, x in tensors.items():
        kind, *where = name.split(".")
        if kind == "generator":
            wrong = flaw_of_state(x, generators[int(where[1])])
        elif kind == "batches":
            wrong = flaw_of_order(x, *about["batches"][int(where[0])][int(where[1])])
        elif kind == "optimizer" and where[-1] == "step" and about["optimizer"] == "Adam":
            wrong = flaw_of_count(x, about)
        else:
            wrong = flaw(name, x) if kind != "net" or name in net else None
        if wrong:
            raise ValueError(f"{path} can't be taken up: {name} {wrong}")
