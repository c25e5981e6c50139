"""The check of lecture 10's second program, Karras's grid of noise levels."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minigen.checks import ask, draws

F64 = torch.float64


def _steps(n: int) -> Tensor:
    return torch.arange(n, dtype=F64) / (n - 1)


def _end(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


def levels(n, low, high, rho, *, steps=_steps, into=None, back=None, end=_end) -> Tensor:
    """The right levels, or some with the slip named: each replaces one thing."""
    into = into or (lambda sigma, rho: sigma ** (1 / rho))
    back = back or (lambda root, rho: root**rho)
    first, last = into(torch.tensor(high, dtype=F64), rho), into(torch.tensor(low, dtype=F64), rho)
    return end(back(first + steps(n) * (last - first), rho))


def _at(**fixed) -> Callable:
    """The right levels for other numbers than those given."""
    names = ("n", "low", "high", "rho")

    def answer(*given):
        args = dict(zip(names, given, strict=True))
        return levels(**{**args, **{k: f(args) for k, f in fixed.items()}})

    return answer


LEVEL_SLIPS = {
    "the last level, 0, is missing: after sigma_min comes the data": partial(
        levels, end=lambda x: x
    ),
    "those are n levels with the 0 among them: n levels, then 0, are n + 1": lambda n, *args: (
        levels(n - 1, *args)
    ),
    "the last of your n levels was overwritten by 0: sigma_min is the last but one of n + 1": (
        partial(levels, end=lambda x: _end(x[:-1]))
    ),
    "your steps are i/n, so that the n-th level is not yet sigma_min: i/(n − 1)": partial(
        levels, steps=lambda n: torch.arange(n, dtype=F64) / n
    ),
    "your steps are i/(n + 1): the n-th level is sigma_min at i/(n − 1)": partial(
        levels, steps=lambda n: torch.arange(n, dtype=F64) / (n + 1)
    ),
    "your first level is one below sigma_max: i runs from 0 to n − 1": partial(
        levels, steps=lambda n: torch.arange(1, n + 1, dtype=F64) / n
    ),
    "those are n + 1 levels down to sigma_min, without the 0": lambda n, *args: levels(
        n + 1, *args, end=lambda x: x
    ),
    "your roots run down to 0 in n steps, and sigma_min is not among the levels": (
        lambda n, low, *args: levels(n + 1, 0.0, *args, end=lambda x: x)
    ),
    "your roots run down to 0, and then comes a second 0: sigma_min is not among the levels": _at(
        n=lambda a: a["n"] + 1, low=lambda a: 0.0
    ),
    "your levels rise: a walk goes from noise to data": lambda *args: levels(*args).flip(0),
    "the n levels rise, and only then comes 0: begin at sigma_max": _at(
        low=lambda a: a["high"], high=lambda a: a["low"]
    ),
    "ρ and 1/ρ have changed places: the roots are even, the levels their ρ-th powers": _at(
        rho=lambda a: 1 / a["rho"]
    ),
    "sigma ** 1/rho is σ/ρ, as the power binds first: the root is sigma ** (1/rho)": partial(
        levels, into=lambda sigma, rho: sigma / rho
    ),
    "the 0 stands first: the grid falls, and the 0 is its end": partial(
        levels, end=lambda x: _end(x).roll(1)
    ),
    "those are the roots σ^(1/ρ), evenly spaced: raise them to the power ρ": partial(
        levels, back=lambda root, rho: root
    ),
    "you spaced σ evenly and raised it to the power ρ: first take the roots of both ends": partial(
        levels, into=lambda sigma, rho: sigma
    ),
    "you spaced σ evenly, that is ρ = 1": _at(rho=lambda a: 1.0),
    "those have equal ratios, a geometric ladder, that is ρ → ∞": partial(
        levels, into=lambda sigma, rho: sigma.log(), back=lambda root, rho: root.exp()
    ),
    "you took ρ = 7, whatever it is": _at(rho=lambda a: 7.0),
    "you took Karras's sigma_max = 80, whatever it is": _at(high=lambda a: 80.0),
    "you took Karras's sigma_min = 0.002, whatever it is": _at(low=lambda a: 0.002),
    "those are levels over sigma_max, EDM's times in [0, 1]: the levels are asked for": (
        lambda n, low, high, rho: levels(n, low, high, rho) / high
    ),
    "those are variances σ²": lambda *args: levels(*args) ** 2,
    "you spaced 1/σ evenly, and most levels are near sigma_min": partial(
        levels, into=lambda sigma, rho: 1 / sigma, back=lambda root, rho: 1 / root
    ),
    "you raised the steps i/(n − 1) to the power ρ, and left the levels as they are": (
        lambda n, low, high, rho: _end(high + _steps(n) ** rho * (low - high))
    ),
    "the step to 0 repeats: the 0 stands once, after sigma_min": partial(
        levels, end=lambda x: _end(_end(x))
    ),
}


def karras_levels(function: Callable) -> None:
    """Checks karras_levels(n, sigma_min, sigma_max, rho) -> (n + 1,), falling, the last one 0.

    Raises NotYet, or Wrong with a diagnosis.
    """
    u = torch.sigmoid(draws(3, seed=34, mean=0.0)).tolist()
    low, high, rho = 0.02 + 0.05 * u[0], 5.0 + 4.0 * u[1], 2.5 + 2.0 * u[2]
    for n in (7, 4):
        ask(f"the grid of n = {n} levels", function, levels, LEVEL_SLIPS, n, low, high, rho)
    print(f"right: from {high:.3f} to {low:.3f} with ρ = {rho:.2f}, then 0")
