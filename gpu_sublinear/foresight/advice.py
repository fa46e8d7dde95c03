"""Which shift, width, margin and solver to take, and why.

The rule: full steps must be foretold to reach the goal (:mod:`gpu_sublinear.foresight.wide_limit`), every point must be
seen by enough neurons, the run must fit into memory; among these the largest shift, because a step's work follows
``m Q(b)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..model.shifts import firing_probability
from ..training.checks import WELL_FIRED
from .wide_limit import PROMPT, Forecast, WideLimit

SHIFTS = (2.5, 2.25, 2.0, 1.5, 1.0, 0.5, 0.0)  # beyond 2.5 little time is left to win, and such networks predict worse
WIDENING = (2, 4, 16, 64, 256)  # factors tried where the width asked for is not enough
NOISY = 4  # steps that noisy targets took for each step foretold, at most
MOST_FIRED = 3e7  # fired pairs of a wider network than was asked for: a step of some seconds on two cores
RARE = 1e-3  # chance of a silent point that is accepted


@dataclass(frozen=True)
class Advice:
    """One recommended setting.

    Attributes
    ----------
    option : str
        Its name on the command line.
    value : str
        What to give.
    reason : str
        Why, in a sentence or two.
    """

    option: str
    value: str
    reason: str


def enough_fired(n: int) -> float:
    """Return the neurons that must be expected on a point so that all n are seen, with chance ``RARE`` of a miss."""
    return max(WELL_FIRED, math.log(n / RARE))


def choose(
    limit_at: Callable[[float], WideLimit], n: int, width: int, goal: float, affordable: Callable[[int, float], bool]
) -> tuple[Forecast, WideLimit] | None:
    """Find the largest shift, at ``width`` or else at the least work, with which full steps are foretold to settle.

    Parameters
    ----------
    limit_at : callable
        The limit of infinite width at a shift.
    n : int
        Points.
    width : int
        m that was asked for.
    goal : float
        Mean squared error to reach.
    affordable : callable
        ``(width, shift) -> bool``: whether the run fits into memory.

    Returns
    -------
    tuple or None
        The forecast of the choice and the limit it came from; None where nothing affordable settles.
    """
    wider: list[tuple[float, int, float]] = []
    for shift in SHIFTS:
        seen = firing_probability(shift)
        limit = limit_at(shift)
        for factor in (1, *WIDENING):
            m = factor * width
            if m >= 2**31 or m * seen < limit.patterns * enough_fired(n) or not affordable(m, shift):
                continue
            if factor > 1 and n * m * seen > MOST_FIRED:
                break
            forecast = limit.forecast(m, goal, PROMPT)
            if forecast.prompt and factor == 1:
                return forecast, limit
            if forecast.prompt:
                wider.append((m * seen, m, shift))
                break
    if not wider:
        return None
    _, m, shift = min(wider)
    limit = limit_at(shift)
    return limit.forecast(m, goal), limit


def least_width(limit: WideLimit, n: int, width: int, goal: float) -> int:
    """Return ``width`` halved as long as full steps are foretold to settle and every point is seen."""
    seen = firing_probability(limit.shift)
    enough = limit.patterns * enough_fired(n)
    while width % 4 == 0 and width // 2 * seen >= enough and limit.forecast(width // 2, goal, PROMPT).prompt:
        width //= 2
    return width


def shift_reason(forecast: Forecast, given: Forecast) -> str:
    """Say why this shift."""
    fired = forecast.width * firing_probability(forecast.shift)
    text = (
        f"{fired:,.0f} neurons fire on a point, the first step flips about {forecast.flips:.0%} of them, and full "
        f"steps are foretold to reach the tolerance in {forecast.steps}"
    )
    if not given.prompt:
        text += f"; with b = {given.shift:.3g} and m = {given.width:,} it takes more than {PROMPT}, or never gets there"
    elif forecast.shift > given.shift:
        now = given.width * firing_probability(given.shift)
        text += f"; b = {given.shift:.3g} would do as well with {now:,.0f} fired"
    return text


def steps_advice(forecast: Forecast, usual: int) -> list[Advice]:
    """Return the advice to allow more steps than usual, where noisy targets may need them."""
    most = NOISY * forecast.steps
    if most <= usual:
        return []
    return [
        Advice("--max-steps", f"{most}", f"noisy targets took up to {NOISY} times the steps foretold in our trials")
    ]


def width_reason(forecast: Forecast, asked: int, least: int) -> str:
    """Say why this width."""
    if forecast.width > asked:
        return f"at m = {asked:,} full steps are foretold to settle at no shift: rows would move too far"
    if least < asked:
        return f"as asked for; {least:,} are enough by the same forecast, more moves each row less"
    return "as asked for; half as many would not settle by the forecast"


def solver_reason(seconds: dict[str, float], speed: float) -> str:
    """Say what each solver would take for one step."""
    order = sorted(seconds.items(), key=lambda item: item[1])
    times = ", ".join(f"{name} {value * speed:.2g} s" for name, value in order)
    return f"takes {order[0][0]} here and decides anew at every step; estimated for one step: {times}"


def margin_reason(lists: int, trees: int) -> str:
    """Say what the lazy index saves."""
    return (
        f"lists of candidates take about {lists / 2**20:,.0f} MiB, threshold trees (margin 0) {trees / 2**20:,.0f} MiB"
    )
