"""Lecture 16: at which learning rate is distill_digits' consistency best?

As distill_rates, with the flow as a teacher and without one.
"""

from benchmarks.claims.distill_rates import show

RATES = 3e-5, 1e-4, 3e-4

if __name__ == "__main__":
    show({"consistency, from the flow": RATES, "consistency, from data": RATES})
