"""When a step counts, how long it is, and how much the next one is damped (Levenberg 1944, Marquardt 1963).

Full steps come first.  One that raises the objective need not be wrong: at shifts near 3 the first step overshoots,
because many pairs flip, and the next ones recover.  So full steps are watched, not stopped (the watchdog technique of
Chamberlain, Powell, Lemarechal, Pedersen, 1982): only when ``watchdog`` of them in a row fail to beat the best
objective so far, or ``PATIENCE`` of them do not halve it, does the run go back to the best weights and damp.

**Damping in proportion to the error** (``"auto"``).  ``mu = factor ||f - y|| / ||f_0 - y||`` in units of tr(G)/n:
strong while the error is large, gone as it vanishes, so that the last steps are full ones (Yamashita and Fukushima
2001, Fan and Yuan 2005: with mu of the order of ``||r||`` to ``||r||^2`` convergence is quadratic under an error
bound).  These steps are watched as full ones are, not refused one by one: a rule that demands a decrease of each, or a
good gain ratio, raises mu until steps are nothing, because kinks make every step worse than its promise.  Each time
``watchdog`` of them in a row fail the factor doubles.

**A given damping** adapts by Nielsen's rule (H. B. Nielsen, *Damping parameter in Marquardt's method*, 1999): with the
gain ratio ``rho = actual / predicted`` decrease of the objective, an accepted step multiplies mu by
``max(1/3, 1 - (2 rho - 1)^3)``, the k-th rejected one in a row by ``2^k``.

**With a ridge penalty the steps are shortened first.**  At its minimum many pairs sit at the threshold: a whole step
makes them fire, the next one stops them again, and the run swings about the minimum.  The swings are along the step,
so its length helps where damping crawls.  With the promised decrease p of a whole step the objective along it begins as
``phi(t) = phi_0 - 2 p t + c t^2``; its value at the length l that was tried gives
``c = (phi(l) - phi_0 + 2 p l) / l^2`` and the best length ``p / c``, which is taken next: at once from the old place
where the objective rose, and by the next step where it fell.  Neither needs a solve.  Damping begins where a step of
1/64 does not help.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .history import StepRecord
    from .run import Run
    from .state import Attempt, State

FACTOR = 0.3  # of tr(G)/n at the first error: 0.1 oscillates on noisy targets, 1 crawls on contradicting ones
PATIENCE = 8  # full steps that do not halve the objective; where they work, each divides it by 4 and more
FIRST = 0.1  # of tr(G)/n, once full steps failed: above most of the spectrum's tail, below its bulk
LARGEST = 1e8  # beyond this a step changes float32 weights by less than their rounding
SMALLEST = 1e-6  # below this a step is a full one in all but name
ENOUGH = 1e-4  # least part of the predicted decrease that a damped step must bring
SHORTEST = 1 / 64  # of a step; if that does not help, its direction is no descent
LOST = 0.5  # relative residual of an iterative solve that says nothing of the minimum (G singular, targets contradict)


class StepControl:
    """Accepts and rejects steps, remembers the best state and chooses mu.

    Parameters
    ----------
    damping : "auto", "none" or float
        As :class:`GaussNewton` has it.
    watchdog : int
        Full steps in a row that may fail.
    shorten : bool
        Whether a step that fails is tried shorter before it is damped, as a ridge penalty has it.
    """

    def __init__(self, damping: float | str, watchdog: int, shorten: bool = False):
        self.always = damping == "none"
        self.damping = 0.0 if isinstance(damping, str) else float(damping)
        self.watchdog, self.growth, self.failures = watchdog, 2.0, 0
        self.shorten, self.length = shorten, 1.0
        self.follows, self.factor, self.first = damping == "auto" and not shorten, 0.0, 0.0
        self.halved, self.since = 0.0, 0  # the best objective when it last halved (0: none yet), and steps since
        self.predicted = math.inf  # relative decrease that the last full step promised
        self.finished = False  # whether no further step shall be taken
        self.best: State
        self.source: State
        self.best_step = 0

    @property
    def stuck(self) -> bool:
        """Whether damping has grown until steps are nothing."""
        return max(self.damping, self.factor) > LARGEST

    def start(self, state: State, best: State | None = None) -> None:
        """Begin at this state; ``best`` is an earlier one that was better."""
        self.best, self.source = best or state, state
        self.first = self.first or state.norm or 1.0

    def expect(self, proposal: Attempt) -> float:
        """Note what a step from ``source`` promises, relative to the objective there, and return it."""
        old = self.source.objective
        if not proposal.damping:
            lost = proposal.solution.iterations > 1 and proposal.solution.residual > LOST
            promised = old - proposal.fit - proposal.penalty
            self.predicted = promised / old if old and not lost else math.inf
        return self.predicted

    def accepts(self, attempt: Attempt, trial: State, step: int) -> bool:
        """Judge a step from ``source`` to ``trial``; after a refusal ``source`` is where to go back to."""
        old = self.source.objective
        promised = old - attempt.fit - attempt.penalty
        self.expect(attempt)
        if self.always:
            self.source = trial
            return True
        if self.follows:
            return self._accepts_watched(trial, step)
        if not attempt.damping:
            if self.shorten:
                return self._accepts_part(attempt.length, promised, trial, step)
            return self._accepts_watched(trial, step)
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

    def _accepts_part(self, length: float, promised: float, trial: State, step: int) -> bool:
        """Judge a step of this length, and choose the next one by the parabola of the module docstring."""
        gained = self.source.objective - trial.objective
        bend = 2 * promised * length - gained  # c l^2
        best = promised * length**2 / bend if bend > 0 else 1.0
        enough = gained > ENOUGH * promised * length * (2 - length)  # of what the parabola promised; False for NaN
        longest = 1.0 if enough else length / 2
        self.length = max(min(best, 2 * length, longest), length / 10) if math.isfinite(best) else length / 10
        if enough:
            self._keep(trial, step)
        elif self.length < SHORTEST:
            self.damping, self.growth, self.length = FIRST, 2.0, 1.0
        return enough

    def _accepts_watched(self, trial: State, step: int) -> bool:
        """Take a step that was not asked to help; after too many that did not, go back and damp, or damp more."""
        if not self.halved or self.best.objective <= self.halved / 2:
            self.halved, self.since = self.best.objective, 0
        slow = self.follows and not self.factor and self.since >= PATIENCE
        self.since += 1
        if trial.objective < self.best.objective:
            self.failures = 0
            self._keep(trial, step)
            if slow:
                self._damp(trial)
            self._follow(trial)
            return True
        self.failures += 1
        if self.failures < self.watchdog and not slow and math.isfinite(trial.objective):
            self.source = trial
            self._follow(trial)
            return True
        self.source, self.failures = self.best, 0
        self._damp(self.best)
        return False

    def _damp(self, state: State) -> None:
        """Damp from this state on, or more than before."""
        self.halved = 0.0
        if self.follows:
            self.factor = 2 * self.factor or FACTOR
            self._follow(state)
        else:
            self.damping, self.growth = FIRST, 2.0

    def _follow(self, state: State) -> None:
        """Let the damping follow the error."""
        if self.factor:
            self.damping = self.factor * state.norm / self.first

    def _keep(self, trial: State, step: int) -> None:
        self.best.jacobian = self.best.G = self.best.proposal = None
        self.best = self.source = trial
        self.best_step = step

    def restore_best(self, run: Run, history: list[StepRecord]) -> int | None:
        """Go back to the best state if the run ended elsewhere; return its step, None where it is the last."""
        back = self.best is not self.source or self.stuck
        if self.always or not back or history[-1].step == self.best_step:
            return None
        run.restore(self.best)
        return self.best_step
