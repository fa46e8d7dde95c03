"""When a step counts and how much the next one is damped (Levenberg 1944, Marquardt 1963).

Full steps come first.  One that raises the objective need not be wrong: at shifts near 3 the first step overshoots,
because many pairs flip, and the next ones recover.  So full steps are watched, not stopped (the watchdog technique of
Chamberlain, Powell, Lemarechal, Pedersen, 1982): only when ``watchdog`` of them in a row fail to beat the best
objective so far, or ``PATIENT_STEPS`` of them do not halve it, does the run go back to the best weights and damp.  With
a ridge penalty, or a damping that was given, every step is judged.

**The damping is the curvature that the model lacks.**  The objective after a step s is that of the linearised network
plus what the kinks add, ``phi(W + s) = model(s) + c/2 ||s||^2``.  Both sides are known once the step was tried, so c
is, and ``mu = c`` would minimise the right side.  A part of it is taken: like an exact line search on a badly
conditioned problem, the whole c is best for one step and slow for many.  The part is 1/2 at first, less after every
step that lowers the objective and more after one that does not.  Where the error of the model is of higher order, as
near an exact fit, c vanishes with the step and convergence is that of full steps.  With a small
penalty lambda, ``mu`` of a few lambda leaves the fit as it is and shortens only what the penalty takes back from the
weights; a full step would replace all of ``W - W_0`` each time, and never settle.

**Steps may rise a little**: one is refused only if it does not beat the highest of the last ``MEMORY`` objectives
(Grippo, Lampariello, Lucidi, *SIAM J. Numer. Anal.* 23, 1986); a refused one at least doubles mu.  The best state is
kept and returned to.

**Setting out again.**  The loss has kinks, and at some of them no damped step leads on, though a full one promises
much: near-duplicates with contradicting labels are such a case.  There full steps are taken again, unjudged, for
``AGAIN`` times as many steps as there were before, and on while the best loss falls; a penalty, a damping that was
given and batches have no such end.  The loss may rise 10^5-fold on the way, weights grow, and as kinks move less than
the weights the steps settle; if not, the best state is returned to.

**The minimum.**  A damped step promises less than a full one, but with a penalty not arbitrarily so: every eigenvalue
of the model is at least lambda, so a full step promises at most ``1 / (theta (2 - theta))`` times as much, ``theta =
lambda / (lambda + mu)``.  Where kinks deny what the model promises, that bound stays large to the end; there the next
step is expected to keep its promise as well as the last damped one did, and if that one led to the best state and both
change the objective by less than 0.025 % (tolerances below 1e-4: 2.5 times the tolerance), the penalised loss has
settled.
"""

from __future__ import annotations

import math
from typing import Any

from .history import StepRecord
from .state import Attempt, State

PATIENT_STEPS = 8  # full steps that do not halve the objective; where they work, each divides it by 4 and more
PART, LEAST_PART = 0.5, 0.2  # of the curvature: at first, and at least
TRUST, DOUBT = 0.95, 1.5  # factors of the part after a step that lowers the objective, and after one that does not
MEMORY = 3  # objectives, the present one included
MOST_CHANGE = 10.0  # times as much or as little damping from one step to the next
MOST_DAMPING = 1e8  # beyond this a step changes float32 weights by less than their rounding
LEAST_DAMPING = 1e-12  # below this a step is a full one in all but name
ENOUGH = 1e-4  # least part of the predicted decrease that a damped step must bring
LITTLE, AT_MOST = 2.5, 2.5e-4  # of the tolerance, and of 1: steps that change the objective by less are not worth it
AGAIN = 3  # full steps after the stall of damped ones, for each step before: the cases of `robust` need up to 2.4
LOST = 0.5  # relative residual of an iterative solve that says nothing of the minimum (G singular, targets contradict)


def little(tolerance: float) -> float:
    """Return the relative change of a penalised loss that is not worth a step."""
    return min(LITTLE * tolerance, AT_MOST)


class StepControl:
    """Accepts and rejects steps, remembers the best state and chooses mu.

    Parameters
    ----------
    damping : "auto", "none" or float
        As :class:`GaussNewton` has it.
    watchdog : int
        Full steps in a row that may fail; 0 judges every step.
    """

    def __init__(self, damping: float | str, watchdog: int):
        self.always = damping == "none"
        self.damping = 0.0 if isinstance(damping, str) else float(damping)
        self.part = PART
        self.watchdog, self.failures = watchdog, 0
        self.watches = watchdog > 0 and damping == "auto"
        self.may_set_out, self.until = self.watches, 0  # once; until which step full ones are taken unjudged
        self.halved, self.since = 0.0, 0  # the best objective when it last halved (0: none yet), and steps since
        self.last, self.before = -math.inf, -math.inf  # objectives before the present one
        self.predicted = math.inf  # relative decrease that a full step promised
        self.fell, self.kept = math.inf, math.inf  # by the last step, if damped and the best: decrease, part of promise
        self.outlook = math.inf  # relative decrease to expect of the next one, once that is known
        self.finished = False  # whether no further step shall be taken
        self.best: State
        self.source: State
        self.best_step = 0

    @property
    def wanders(self) -> bool:
        """Whether full steps are taken again, unjudged."""
        return self.until > 0

    def set_out(self, taken: int) -> bool:
        """Take full steps from now on, after ``taken`` steps, if damped ones were tried and full ones can be solved."""
        if self.watches or not (self.may_set_out and math.isfinite(self.predicted)):
            return False
        self.may_set_out, self.until, self.damping = False, (1 + AGAIN) * taken, 0.0
        return True

    @property
    def stuck(self) -> bool:
        """Whether damping has grown until steps are nothing."""
        return self.damping > MOST_DAMPING

    def start(self, state: State, best: State | None = None) -> None:
        """Begin at this state; ``best`` is an earlier one that was better."""
        self.best, self.source = best or state, state

    def expect(self, proposal: Attempt) -> float:
        """Note what a full step from ``source`` promises at most, relative to the objective there, and return it."""
        old, theta = self.source.objective, proposal.theta
        if not proposal.damping:
            theta = 1.0
        elif not theta:
            return self.predicted
        lost = proposal.solution.iterations > 1 and proposal.solution.residual > LOST
        promised = (old - proposal.promise) / (theta * (2 - theta))
        self.predicted = promised / old if old and not lost else math.inf
        self.outlook = self.kept * (1 - proposal.promise / old) if old and not lost else math.inf
        return self.predicted

    def settled(self, tolerance: float) -> bool:
        """Tell whether the last damped step led to the best state by little and the next one will not do more."""
        return max(self.fell, self.outlook) < little(tolerance)

    def accepts(self, attempt: Attempt, trial: State, step: int) -> bool:
        """Judge a step from ``source`` to ``trial``; after a refusal ``source`` is where to go back to."""
        self.expect(attempt)
        if self.always:
            self.source = trial
            return True
        if self.wanders:
            return self._accepts_any(trial, step)
        curvature = self.part * attempt.curvature(trial)
        if self.watches:
            return self._accepts_watched(curvature, trial, step)
        promised, highest = self.source.objective - attempt.promise, max(self.source.objective, self.last, self.before)
        old, falls = self.damping, trial.objective < self.source.objective
        self.fell = self.kept = self.outlook = math.inf
        self.part = max(TRUST * self.part, LEAST_PART) if falls else min(DOUBT * self.part, 1.0)
        if not highest - trial.objective > ENOUGH * promised or not promised > 0:  # so that NaN is refused
            self.damping = (
                max(curvature, 2 * old, LEAST_DAMPING) if math.isfinite(curvature) else max(MOST_CHANGE * old, 1.0)
            )
            if self.stuck:
                self.set_out(step)
            return False
        self.damping = max(curvature, old / MOST_CHANGE)
        if old:
            self.damping = min(self.damping, MOST_CHANGE * old)
            fall = self.source.objective - trial.objective
            if trial.objective < self.best.objective:
                self.fell, self.kept = fall / self.source.objective, fall / promised
        if self.damping < LEAST_DAMPING:
            self.damping = 0.0
        self.before, self.last = self.last, self.source.objective
        self._keep(trial, step)
        return True

    def _accepts_watched(self, damping: float, trial: State, step: int) -> bool:
        """Take a full step that was not asked to help; after too many that did not, go back and damp from now on."""
        if not self.halved or self.best.objective <= self.halved / 2:
            self.halved, self.since = self.best.objective, 0
        slow = self.since >= PATIENT_STEPS
        self.since += 1
        helps = trial.objective < self.best.objective
        self.failures = 0 if helps else self.failures + 1
        if helps or (self.failures < self.watchdog and not slow and math.isfinite(trial.objective)):
            self._keep(trial, step)
            if slow:
                self._damp_from_now_on(damping)
            return True
        self.source = self.best
        self._damp_from_now_on(damping)
        return False

    def _accepts_any(self, trial: State, step: int) -> bool:
        """Take a full step wherever it leads, unless that is no number: then no further step is taken."""
        if not math.isfinite(trial.objective):
            self.source, self.damping = self.best, math.inf
            return False
        self._keep(trial, step)
        return True

    def _damp_from_now_on(self, damping: float) -> None:
        self.watches = False
        self.damping = max(damping, LEAST_DAMPING) if math.isfinite(damping) else 1.0

    def _keep(self, trial: State, step: int) -> None:
        """Stand at this state, the best one if it is."""
        if trial.objective < self.best.objective:
            self.best.forget()
            self.best, self.best_step = trial, step
        self.source = trial

    def restore_best(self, run: Any, history: list[StepRecord]) -> int | None:
        """Go back to the best state if the run ended elsewhere; return its step, None where it is the last."""
        back = self.best is not self.source or self.stuck
        if self.always or not back or history[-1].step == self.best_step:
            return None
        run.restore(self.best)
        return self.best_step
