"""Lecture 16: at which rate are distill_digits' mean flow and progressive distillation best?

As distill_rates.
"""

from benchmarks.claims.distill_rates import show

if __name__ == "__main__":
    show({"mean flow": (3e-4, 1e-3, 3e-3), "progressive": (1e-3, 3e-3, 1e-2)})
