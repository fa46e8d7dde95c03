"""The shift b: how many neurons fire at a given one, and which one makes a given number fire."""

from __future__ import annotations

import math

from scipy.special import ndtr, ndtri

from ..errors import OptionError

PAPER_FACTOR = 0.48


def paper_shift(width: int) -> float:
    """Return the paper's shift ``sqrt(0.48 ln m)``: with it at most O(m^0.76) neurons fire on a point."""
    return math.sqrt(PAPER_FACTOR * math.log(width))


def firing_probability(shift: float) -> float:
    """Return ``Q(b) = Pr[N(0, 1) > b]``, the chance that a fresh neuron fires on a unit point."""
    return float(ndtr(-shift))


def shift_for_fired(width: int, fired: float) -> float:
    """Return the shift at which ``fired`` of ``width`` fresh neurons are expected to fire on a point (>= 0)."""
    return max(0.0, float(-ndtri(min(1.0, fired / width))))


def resolve_shift(shift: float | str, width: int) -> float:
    """Return the shift as a number.

    Parameters
    ----------
    shift : float, "paper" or "fired:K"
        What the user asked for: b itself, the paper's rule, or the shift at which about K neurons fire on a point.
    width : int
        m, for the two rules.

    Returns
    -------
    float
        b >= 0.

    Raises
    ------
    OptionError
        If it is negative, not finite or an unknown word.
    """
    if shift == "paper":
        return paper_shift(width)
    try:
        if isinstance(shift, str) and shift.startswith("fired:"):
            return shift_for_fired(width, float(shift.removeprefix("fired:")))
        value = float(shift)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise OptionError(f"shift must be a finite number >= 0, 'paper' or 'fired:K'; got {shift!r}")
    return value
