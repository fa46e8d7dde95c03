"""Why training ends: one sentence for each cause."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..options import Options
from ..step.damping import StepControl, little
from ..step.history import StepRecord
from .validation import Validation

STALL_STEPS, STALL = 6, 1e-3  # over so many steps the best objective must fall by this part of itself
RIDGE_STALL_STEPS = 2  # the same with a ridge penalty, if none of them raised it and the last is the best
SETTLED = 10  # tolerances: a penalised loss must fall by this part of itself, if that is less than STALL
ADVICE = (
    "contradicting or noisy targets cannot be fitted; add a ridge penalty (alpha), or a larger width or smaller shift"
)


class Stops:
    """Looks at the history after every step.

    Parameters
    ----------
    options : Options
        The options.
    size : float
        ``||y||``.
    build_seconds : float
        What the first scan took, for the time budget.
    control : StepControl
        Knows whether damped steps still help.
    """

    def __init__(self, options: Options, size: float, build_seconds: float, control: StepControl):
        self.options, self.size, self.build_seconds, self.control = options, size, build_seconds, control

    def __call__(
        self, history: list[StepRecord], stopped: bool, watch: Validation, other_seconds: float = 0.0
    ) -> tuple[bool, str]:
        """Return (converged, why to stop); an empty reason goes on; ``other_seconds`` also count for the budget."""
        record, options = history[-1], self.options
        taken = steps_taken(record.step + (record.moved_neurons > 0))
        if not np.isfinite(record.residual_norm):
            return False, f"the loss is not finite at step {record.step}; try a smaller shift or a larger width"
        if record.residual_norm <= options.tolerance * self.size:
            return True, f"||f - y|| fell below {options.tolerance:g} ||y|| after {steps_taken(record.step)}"
        if stopped:
            return False, f"a callback stopped the run after {steps_taken(record.step + 1)}"
        if watch.waited >= options.patience and watch.active:
            return False, f"the validation error did not fall for {steps_taken(watch.waited)}, stopped after {taken}"
        seconds = self.build_seconds + other_seconds + sum(r.seconds for r in history)
        if options.time_budget is not None and seconds >= options.time_budget:
            return False, f"the time budget of {options.time_budget:g} s was used up after {taken}"
        if self.control.always:
            return self._last(record)
        return self._standstill(history, taken) or self._last(record)

    def will_end(self, taken: int) -> bool:
        """Tell whether no step can follow after so many, where the run stands now."""
        norm = self.control.source.norm
        return taken >= self.options.max_steps or not self.options.tolerance * self.size < norm < np.inf

    def _standstill(self, history: list[StepRecord], taken: str) -> tuple[bool, str] | None:
        """Say whether the objective can still fall; where damped steps stall, let the control set out again."""
        options, least = self.options, self.options.tolerance
        if options.alpha and self.control.predicted <= least:
            return (
                True,
                f"the penalised loss is at its minimum: a full step promised less than {least:g} of it, {taken}",
            )
        if options.alpha and self.control.settled(least):
            return True, f"the penalised loss settled: steps change it by less than {little(least):.2g} of it, {taken}"
        if not options.alpha and self.control.predicted <= least**2:
            return False, f"no progress: the loss is at a minimum above the tolerance after {taken}; {ADVICE}"
        if self.control.wanders:
            return self._astray(history[-1].step + 1, taken)
        if self.control.stuck:
            advice = "" if options.alpha else f"; {ADVICE}"
            return False, f"no progress: no damped step lowers the objective after {taken}{advice}"
        if self.control.watches and not options.batch_size:
            return None  # full steps that do not help end in damping
        objectives = [record.objective for record in history]
        steps = STALL_STEPS if options.alpha or self.control.watches else 2 * STALL_STEPS
        soon = options.alpha and not options.batch_size  # an epoch may gain little far from the minimum
        falls = all(b < a for a, b in pairwise(objectives[-1 - RIDGE_STALL_STEPS :]))
        if soon and falls and objectives[-1] <= min(objectives):
            steps = RIDGE_STALL_STEPS
        part = min(STALL, SETTLED * least) if options.alpha else STALL
        if len(objectives) > steps and min(objectives) >= (1 - part) * min(objectives[:-steps]):
            if options.alpha:
                fell = f"it fell by less than {part:.2g} of it" if part else "it did not fall"
                return True, f"the penalised loss settled: {fell} in {steps} steps"
            if self.control.set_out(history[-1].step + 1):
                return None
            return False, f"no progress: the best loss fell by less than {STALL:.1%} in {steps} steps; {ADVICE}"
        return None

    def _astray(self, step: int, taken: str) -> tuple[bool, str] | None:
        """Say whether full steps after the stall of damped ones have gone on for long enough."""
        control = self.control
        if not control.stuck and (step < control.until or step - control.best_step < STALL_STEPS):
            return None
        end = "led to no number" if control.stuck else "did not arrive"
        return False, f"no progress: damped steps stalled, full ones after them {end} in {taken}; {ADVICE}"

    def _last(self, record: StepRecord) -> tuple[bool, str]:
        if record.step == self.options.max_steps:
            return False, f"max_steps ended the run after {steps_taken(record.step)}"
        return False, ""


def steps_taken(count: int) -> str:
    """Return a number of steps in words."""
    return f"{count} step" if count == 1 else f"{count} steps"
