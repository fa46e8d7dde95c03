"""What the control of steps makes of what it is told: no network, only objectives and promises."""

import math

import numpy as np
import pytest

from gpu_sublinear import GaussNewton
from gpu_sublinear.devices import get_device
from gpu_sublinear.devices.clock import PhaseClock
from gpu_sublinear.linear.solvers import Solution
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import MOST_SCALE
from gpu_sublinear.step.damping import AGAIN, StepControl, little
from gpu_sublinear.step.state import Attempt, State
from gpu_sublinear.training.stops import STALL_STEPS, Stops
from gpu_sublinear.training.validation import Validation

TOLERANCE = 1e-4
_NETWORK = ShiftedReluNetwork.initialize(2, 2, device=get_device("reference"))  # whose validation is nobody's


def at(objective: float) -> State:
    return State(None, None, math.sqrt(2 * objective), 0.0, PhaseClock(_NETWORK.device))


def towards(promise: float, damping: float = 1.0, theta: float = 0.5) -> Attempt:
    return Attempt(Solution(np.ones(1), 1, 0.0, ""), damping, theta, promise, square=1.0)


def control_at(objective: float, damping: float = 1.0) -> StepControl:
    control = StepControl(damping, 0)
    control.start(at(objective))
    return control


def test_a_run_settles_when_neither_the_last_step_nor_the_next_one_matters():
    control, least = control_at(1.0), little(TOLERANCE)
    assert control.accepts(towards(1 - least), at(1 - 0.5 * least), 1)
    assert not control.settled(TOLERANCE)  # nothing is known of the next one yet
    now = control.source.objective
    control.expect(towards(now * (1 - 1.9 * least)))  # half of it is to be expected, as half was kept
    assert control.outlook == pytest.approx(0.95 * least, rel=1e-6)
    assert control.settled(TOLERANCE)
    control.expect(towards(now * (1 - 2.1 * least)))
    assert not control.settled(TOLERANCE)


def test_a_step_that_gained_much_or_nothing_known_does_not_settle():
    least = little(TOLERANCE)
    gained = control_at(1.0)
    assert gained.accepts(towards(0.8), at(0.9), 1)
    gained.expect(towards(gained.source.objective))
    assert gained.outlook == 0 and not gained.settled(TOLERANCE)
    full = control_at(1.0, damping=0.0)
    assert full.accepts(towards(1 - least, damping=0.0), at(1 - 0.5 * least), 1)
    full.expect(towards(full.source.objective))
    assert not full.settled(TOLERANCE)  # what a full step kept says nothing of damped ones


def test_a_rise_does_not_settle_whatever_the_next_step_promises():
    control, least = control_at(1.0), little(TOLERANCE)
    assert control.accepts(towards(0.8), at(0.9), 1)
    risen = 0.9 * (1 + 0.5 * least)
    assert control.accepts(towards(0.89), at(risen), 2)  # below the highest of the last objectives
    for promise in (0.5, risen * (1 - 0.1 * least), risen):
        control.expect(towards(promise))
        assert not control.settled(TOLERANCE)


def test_a_small_fall_after_a_rise_does_not_settle_above_the_best_state():
    control, least = control_at(1.0), little(TOLERANCE)
    assert control.accepts(towards(0.8), at(0.9), 1)
    assert control.accepts(towards(0.89), at(0.91), 2)
    for objective, settled in ((0.91 * (1 - 0.1 * least), False), (0.9 * (1 - 0.1 * least), False)):
        promise = control.source.objective * (1 - 0.2 * least)
        assert control.accepts(towards(promise), at(objective), 3)
        control.expect(towards(control.source.objective * (1 - 0.1 * least)))
        assert control.settled(TOLERANCE) is settled
    now = control.source.objective
    assert control.accepts(towards(now * (1 - 0.2 * least)), at(now * (1 - 0.1 * least)), 5)
    control.expect(towards(now * (1 - 0.2 * least)))
    assert control.best is control.source and control.settled(TOLERANCE)


def test_two_falls_that_have_not_passed_the_best_do_not_settle():
    control = control_at(1.0)
    history = [Recorded(step, loss) for step, loss in enumerate((12.0, 11.0, 10.0, 10.9, 10.5, 10.1))]
    assert verdict(stops_of(control, alpha=1.0), history) == (False, "")
    history.append(Recorded(6, 9.9999))
    assert verdict(stops_of(control, alpha=1.0), history) == (
        True,
        "the penalised loss settled: it fell by less than 0.001 of it in 2 steps",
    )


def test_the_outlook_of_a_step_is_forgotten_once_it_is_taken():
    control, least = control_at(1.0), little(TOLERANCE)
    for step in (1, 2):
        now = control.source.objective
        control.expect(towards(now * (1 - 0.1 * least)))
        assert control.accepts(towards(now * (1 - 0.1 * least)), at(now * (1 - 0.05 * least)), step)
        assert control.outlook == math.inf


def stops_of(control: StepControl, **options) -> Stops:
    return Stops(GaussNewton(max_steps=10_000, **options), 1.0, 0.0, control)


def verdict(stops: Stops, history: list):
    return stops(history, False, Validation(_NETWORK))


class Recorded:
    """A record of the history as far as Stops reads it."""

    moved_neurons, seconds = 1, 0.0

    def __init__(self, step: int, objective: float):
        self.step, self.objective = step, objective
        self.residual_norm = math.sqrt(2 * objective)


def test_full_steps_that_creep_are_damped_before_a_run_gives_up():
    control = StepControl("auto", 12)
    control.start(at(1.0))
    stops, history, loss = stops_of(control), [], 1.0
    while control.watches:
        history.append(Recorded(len(history), loss))
        assert verdict(stops, history) == (False, "")
        assert not control.set_out(len(history))  # damping was never tried
        loss *= 0.9999
        control.accepts(towards(0.5, damping=0.0), at(loss), len(history))
        assert len(history) < 20
    assert len(history) > STALL_STEPS and control.damping > 0


def wandering(taken: int) -> StepControl:
    control = StepControl("auto", 12)
    control.start(at(1.0))
    control.accepts(towards(0.5, damping=0.0), at(0.9), 1)
    control.watches = False
    assert control.set_out(taken) and not control.set_out(taken)
    return control


def test_full_steps_after_the_stall_end_at_their_bound_unless_the_best_is_new():
    control = wandering(10)
    stops, last = stops_of(control), (1 + AGAIN) * 10
    history = [Recorded(step, 5.0) for step in range(last)]
    control.best_step = last - STALL_STEPS + 1
    assert verdict(stops, history[:-1]) == verdict(stops, history) == (False, "")
    control.best_step = 3
    assert verdict(stops, history[:-1]) == (False, "")
    stopped, reason = verdict(stops, history)
    assert not stopped and "did not arrive in 40 steps" in reason


def test_full_steps_after_the_stall_that_lead_to_no_number_say_so():
    control = wandering(10)
    assert not control.accepts(towards(0.5, damping=0.0), at(math.inf), 11)
    assert control.damping > MOST_SCALE and control.source is control.best
    stopped, reason = verdict(stops_of(control), [Recorded(step, 5.0) for step in range(11)])
    assert not stopped and "led to no number in 11 steps" in reason


def test_a_full_step_that_promises_nothing_ends_the_wandering():
    control = wandering(10)
    assert control.accepts(towards(0.9, damping=0.0, theta=0.0), at(0.9), 11)
    stopped, reason = verdict(stops_of(control), [Recorded(step, 0.9) for step in range(11)])
    assert not stopped and "at a minimum above the tolerance" in reason
