"""Stochastic differential equations: every Gaussian path as dx = f x dt + g dw."""
