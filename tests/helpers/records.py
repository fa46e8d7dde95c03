"""Records of steps, made up."""

from __future__ import annotations

from gpu_sublinear.devices.clock import PHASES
from gpu_sublinear.step.history import StepRecord


def record(step: int, loss: float = 1.0, moved: int = 10, **changes) -> StepRecord:
    phases = {phase: 0.1 * (k + 1) for k, phase in enumerate(PHASES)}
    values = {
        "step": step, "loss": loss, "mse": loss / 50, "residual_norm": loss**0.5, "fired": 700.25, "union": 50_000,
        "solver_iterations": 7, "solver_residual": 3e-3, "solver_reason": "", "moved_neurons": moved,
        "refreshed": 0, "tree_nodes_visited": 5, "seconds": 2.1, "phases": phases, "peak_bytes": 3 * 2**30,
    }  # fmt: skip
    return StepRecord(**(values | changes))
