"""The linear system of a step: Jacobians, Gram matrices, sketches, solvers."""
