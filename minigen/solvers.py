"""Few calls: solvers of the probability-flow ODE of order 2."""
