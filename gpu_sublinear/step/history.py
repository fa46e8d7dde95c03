"""What a run leaves behind: one record per step, and the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..model.network import ShiftedReluNetwork


@dataclass(frozen=True)
class StepRecord:
    """One step: the state before it, and the work done in it.

    Attributes
    ----------
    step : int
        0, 1, ...; the last record only evaluates the network, so its solver fields are 0.
    loss : float
        ``1/2 ||f - y||^2`` before the step.
    mse : float
        ``||f - y||^2 / n``; over n c numbers for c outputs.
    residual_norm : float
        ``||f - y||``.
    fired : float
        Mean number of neurons fired on a point.
    union : int
        Neurons that fire on at least one point.
    solver_iterations : int
        Products with G.
    solver_residual : float
        True relative residual of the linear system.
    solver_reason : str
        Why the solver stopped.
    moved_neurons : int
        Rows of W that the step changed.
    tree_nodes_visited : int
        Numbers compared with the threshold by the query: nodes of all n trees, or candidate products.
    refreshed : int
        Rows that the lazy index looked at afresh after the step (0 for trees).
    seconds : float
        Wall-clock time of the step, without callbacks.
    phases : dict of str to float
        Seconds by phase; the keys are ``gpu_sublinear.devices.clock.PHASES``.
    peak_bytes : int
        Largest memory held so far (GPU pool, or resident memory of the process).
    damping : float
        mu of the step, in units of tr(G)/n.
    rejected : int
        Steps from here that were taken back before this one.
    penalty : float
        ``lambda/2 ||W - W_0||^2`` before the step.
    validation_mse : float or None
        ``||f - y||^2 / n`` on the validation part before the step.
    """

    step: int
    loss: float
    mse: float
    residual_norm: float
    fired: float
    union: int
    solver_iterations: int
    solver_residual: float
    solver_reason: str
    moved_neurons: int
    tree_nodes_visited: int
    refreshed: int
    seconds: float
    phases: dict[str, float]
    peak_bytes: int
    damping: float = 0.0
    rejected: int = 0
    penalty: float = 0.0
    validation_mse: float | None = None

    @property
    def objective(self) -> float:
        """What is minimised: loss and penalty."""
        return self.loss + self.penalty

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain types, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes
    ----------
    network : ShiftedReluNetwork
        The trained network (the object that was given, changed in place).
    history : list of StepRecord
        One per step, and a last one for the final state.
    converged : bool
        Whether the tolerance was reached.
    reason : str
        Why training stopped, in one sentence.
    seconds : float
        Total time without callbacks: building the trees, all steps, writing checkpoints.
    build_seconds : float
        Time to build the trees (the preprocessing that is linear in the width).
    best_step : int or None
        The step whose weights were restored in the end, None where the last ones were kept.
    alpha : float
        Ridge penalty in units of tr(G_0)/n, as given or chosen.
    checkpoint_seconds : float
        Of ``seconds``, those spent on writing checkpoints.
    resumed_seconds : float
        Of ``seconds``, those before the run was resumed, as far as its checkpoint knows of them.
    """

    network: ShiftedReluNetwork
    history: list[StepRecord]
    converged: bool
    reason: str
    seconds: float
    build_seconds: float
    best_step: int | None = None
    alpha: float = 0.0
    checkpoint_seconds: float = 0.0
    resumed_seconds: float = 0.0

    @property
    def final(self) -> StepRecord:
        """The record of the weights that the network holds: the last, or that of ``best_step``."""
        return self.history[-1 if self.best_step is None else self.best_step]
