"""Markov chains: where a rule settles, how fast it forgets, and rules that settle on a given law.

A chain moves by x' ~ P(x' | x) alone. `finite`: chains as matrices. `samplers`: rules for any log
density. `diagnostics`: what their states are worth.
"""

from . import diagnostics
from .diagnostics import Unmixed, autocorrelation, effective_sample_size, estimate, rhat
from .finite import (
    closed_classes,
    is_reversible,
    metropolis_matrix,
    simulate,
    spectral_gap,
    stationary,
    total_variation,
)
from .samplers import State, gibbs, gibbs_random_scan, mala, metropolis_hastings, random_walk

__all__ = [
    "State", "Unmixed", "autocorrelation", "closed_classes", "diagnostics", "effective_sample_size",
    "estimate", "gibbs", "gibbs_random_scan", "is_reversible", "mala", "metropolis_hastings",
    "metropolis_matrix", "random_walk", "rhat", "simulate", "spectral_gap", "stationary",
    "total_variation",
]  # fmt: skip
