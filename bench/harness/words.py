"""Numbers as a report writes them, and the few words that are chosen by numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

TIE = 1.1  # ratios within 10 % are called one


def number(value: float | None, digits: int = 3) -> str:
    """Return a number to a few digits; a dash where there is none."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{digits}g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.{digits - 1}e}"


def seconds(value: float | None) -> str:
    """Return seconds with a unit that suits them."""
    if value is None:
        return "-"
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value / 1e-9:.3g} ns"


def spread(sample: dict[str, float] | None) -> str:
    """Return a median with its quartiles."""
    if sample is None:
        return "-"
    return f"{seconds(sample['median'])} ({seconds(sample['low'])}-{seconds(sample['high'])})"


def percent(value: float | None) -> str:
    """Return a share as per cent."""
    return "-" if value is None else f"{100 * value:.3g} %"


def interval(fit: dict[str, float] | None) -> str:
    """Return a fitted exponent with its interval."""
    return "-" if fit is None else f"{fit['value']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"


def versus(ours: float, theirs: float) -> str:
    """Say who needs less, and by what factor."""
    ratio = theirs / ours
    if ratio >= TIE:
        return f"wins by a factor of {ratio:.3g}"
    if ratio <= 1 / TIE:
        return f"loses by a factor of {1 / ratio:.3g}"
    return f"ties (ratio {ratio:.2f})"


def listed(parts: Iterable[str]) -> str:
    """Return 'a, b and c'."""
    parts = list(parts)
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def power_of_two(value: int) -> str:
    """Return 65536 as ``2^16``."""
    power = math.log2(value)
    return f"2^{int(power)}" if power.is_integer() else f"{value:,}"
