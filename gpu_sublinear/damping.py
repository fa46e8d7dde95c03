"""When a step counts, and how much the next one is damped.

Levenberg-Marquardt damping (Levenberg 1944, Marquardt 1963) with Nielsen's rule (H. B. Nielsen, *Damping parameter in
Marquardt's method*, 1999): with the gain ratio ``rho = actual / predicted`` decrease of the objective, an accepted
step multiplies mu by ``max(1/3, 1 - (2 rho - 1)^3)``, the k-th rejected one in a row by ``2^k``.

Full steps come first.  One that raises the objective need not be wrong: at shifts near 3 the first step overshoots,
because many pairs flip, and the next ones recover.  So full steps are watched, not stopped (the watchdog technique of
Chamberlain, Powell, Lemarechal, Pedersen, 1982): only when ``watchdog`` of them in a row fail to beat the best
objective so far does the run go back to the best weights and damp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .history import StepRecord
    from .run import Attempt, Run, State

FIRST = 0.1  # of tr(G)/n, once full steps failed: above most of the spectrum's tail, below its bulk
LARGEST = 1e8  # beyond this a step changes float32 weights by less than their rounding
SMALLEST = 1e-6  # below this a step is a full one in all but name
ENOUGH = 1e-4  # least part of the predicted decrease that a damped step must bring
LOST = 0.5  # relative residual of an iterative solve that says nothing of the minimum (G singular, targets contradict)


class StepControl:
    """Accepts and rejects steps, remembers the best state and chooses mu.

    Parameters
    ----------
    damping : "auto", "none" or float
        As :class:`GaussNewton` has it.
    watchdog : int
        Full steps in a row that may fail.
    """

    def __init__(self, damping: float | str, watchdog: int):
        self.always = damping == "none"
        self.damping = 0.0 if isinstance(damping, str) else float(damping)
        self.watchdog, self.growth, self.failures = watchdog, 2.0, 0
        self.predicted = math.inf  # relative decrease that the last full step promised
        self.finished = False  # whether no further step shall be taken
        self.best: State
        self.source: State
        self.best_step = 0

    @property
    def stuck(self) -> bool:
        """Whether damping has grown until steps are nothing."""
        return self.damping > LARGEST

    def start(self, state: State, best: State | None = None) -> None:
        """Begin at this state; ``best`` is an earlier one that was better."""
        self.best, self.source = best or state, state

    def accepts(self, attempt: Attempt, trial: State, step: int) -> bool:
        """Judge a step from ``source`` to ``trial``; after a refusal ``source`` is where to go back to."""
        old = self.source.objective
        promised = old - attempt.fit - trial.penalty
        if not attempt.damping:
            lost = attempt.solution.iterations > 1 and attempt.solution.residual > LOST
            self.predicted = promised / old if old and not lost else math.inf
        if self.always:
            self.source = trial
            return True
        if not attempt.damping:
            return self._accepts_full(trial, step)
        gain = (old - trial.objective) / promised if promised > 0 else -1.0
        if not (math.isfinite(gain) and gain > ENOUGH):
            self.damping, self.growth = self.damping * self.growth, 2 * self.growth
            return False
        self.damping *= max(1 / 3, 1 - (2 * min(gain, 2.0) - 1) ** 3)
        self.growth = 2.0
        if self.damping < SMALLEST:
            self.damping, self.failures = 0.0, 0
        self._keep(trial, step)
        return True

    def _accepts_full(self, trial: State, step: int) -> bool:
        if trial.objective < self.best.objective:
            self.failures = 0
            self._keep(trial, step)
            return True
        self.failures += 1
        if self.failures < self.watchdog and math.isfinite(trial.objective):
            self.source = trial
            return True
        self.source, self.damping, self.growth, self.failures = self.best, FIRST, 2.0, 0
        return False

    def _keep(self, trial: State, step: int) -> None:
        self.best.jacobian = self.best.G = None
        self.best = self.source = trial
        self.best_step = step

    def restore_best(self, run: Run, history: list[StepRecord]) -> int | None:
        """Go back to the best state if the run ended elsewhere; return its step, None where it is the last."""
        back = self.best is not self.source or self.stuck
        if self.always or not back or history[-1].step == self.best_step:
            return None
        run.restore(self.best)
        return self.best_step
