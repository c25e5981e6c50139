"""Lecture 16: at which learning rate are distill_digits' regression and reflow best?

Three trainings at each of three rates, with seeds that distill_digits does not use, 24 seconds of
one core each; the course's verdict of one call, errors of the mean over trainings. distill_digits
takes the rate of least mean distance; the brackets are chosen to hold it. The same for the other
methods: distill_rates_consistency, distill_rates_means.
"""

from benchmarks.claims.distill_digits import row
from minigen import judge

SEEDS = 3, 4, 5


def show(brackets):
    """The table of {method: rates}."""
    table = {}
    for name, rates in brackets.items():
        for rate in rates:
            runs = [row(name, seed, rate)[0][f"{name}, 1"] for seed in SEEDS]
            table[f"{name}, {rate:g}"] = runs
    print(judge.table(table))


if __name__ == "__main__":
    show({"the map by regression": (3e-3, 1e-2, 3e-2), "reflow": (1e-2, 3e-2, 1e-1)})
