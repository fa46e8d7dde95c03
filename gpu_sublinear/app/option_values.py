"""Values of options: text in, numbers out, or one sentence about what was expected."""

from __future__ import annotations

import argparse
import csv
import math
import re
from collections.abc import Callable

import numpy as np

from ..errors import GpuSublinearError
from ..options import MOST_SCALE

MOST_PENALTIES = 10_000  # penalties of one path


def whole(text: str) -> int:
    """Read a whole number: ``65536``, ``65_536``, ``1e6``, ``2^16`` or ``2**16``.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    int
        The number.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not a whole number, or is beyond 2^64.
    """
    power = re.fullmatch(r"(\d{1,10})(?:\^|\*\*)(\d{1,3})", text)
    try:
        value = float(power[1]) ** int(power[2]) if power else float(text)
        exact = int(power[1]) ** int(power[2]) if power else int(text) if text.isdigit() else int(value)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number such as 65536, 1e6 or 2^16") from error
    if not (value.is_integer() and abs(value) <= 2.0**64):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number such as 65536, 1e6 or 2^16")
    return exact


def at_least(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` on."""

    def read(text: str) -> int:
        value = whole(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
        return value

    return read


def number(low: float, high: float, *, open_low: bool = False) -> Callable[[str], float]:
    """Return a reader of finite numbers from ``low`` (or above it) to below ``high``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value < high or (open_low and value == low):
            least = f"above {low:g}" if open_low else f"at least {low:g}"
            most = "" if high == math.inf else f" and below {high:g}"
            raise argparse.ArgumentTypeError(f"must be a number {least}{most}, not '{text}'")
        return value

    return read


def shift(text: str) -> float | str:
    """Read a shift: ``paper``, ``fired:K`` or a number from 0 on."""
    if text.startswith("fired:"):
        number(0, math.inf, open_low=True)(text.removeprefix("fired:"))
        return text
    return text if text == "paper" else number(0, math.inf)(text)


def margin(text: str) -> float | str:
    """Read a margin: ``auto`` or a number from 0 on."""
    return text if text == "auto" else number(0, math.inf)(text)


def damping(text: str) -> float | str:
    """Read a damping: ``auto``, ``none`` or a number above 0."""
    return text if text in ("auto", "none") else number(0, MOST_SCALE, open_low=True)(text)


def penalty(text: str) -> float | str:
    """Read a ridge penalty: ``auto`` or a number from 0 on."""
    return text if text == "auto" else number(0, MOST_SCALE)(text)


def activation(text: str) -> str:
    """Read the name of an activation.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    str
        The name.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no such activation.
    """
    from ..model.activation import activation_of

    try:
        activation_of(text)
    except GpuSublinearError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def size(text: str) -> int:
    """Read a number of bytes: ``8GiB``, ``500MB`` or ``1e9``.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    int
        Bytes, at least 1.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not a positive number with a known unit.
    """
    parts = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([kKMGT]?)(i?)B?", text)
    try:
        value = float(parts[1]) if parts else 0.0
    except ValueError:
        value = 0.0
    if not parts or value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 8GiB, 500MB or 1e9")
    power = ("", "K", "M", "G", "T").index(parts[2].upper())
    return int(value * (1024 if parts[3] else 1000) ** power)


def alphas(text: str) -> list[float]:
    """Read penalties: ``1000:0.1:13``, so many from the first to the last in equal ratios, or ``100,10,1``.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    list of float
        Above 0.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither, or a number is not above 0.
    """
    above, parts = number(0, MOST_SCALE, open_low=True), text.split(":")
    if len(parts) == 1:
        return [above(part) for part in text.split(",")]
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"'{text}' is no sequence of penalties such as 1000:0.1:13 or 100,10,1")
    (first, last), count = map(above, parts[:2]), at_least(2)(parts[2])
    if count > MOST_PENALTIES:
        raise argparse.ArgumentTypeError(f"at most {MOST_PENALTIES:,} penalties are tried, not {parts[2]}")
    return np.geomspace(first, last, count).tolist()


def names(text: str) -> tuple[str, ...]:
    """Read names of columns with commas between them; a name with a comma is quoted: ``a,"b, c"``.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    tuple of str
        The names.

    Raises
    ------
    argparse.ArgumentTypeError
        If a name is empty.
    """
    found = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not found or not all(found):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of columns such as id,name")
    return tuple(found)


def ordinal(text: str) -> tuple[str, tuple[str, ...]]:
    """Read a column and its levels in their order: ``size=small<medium<large``.

    Parameters
    ----------
    text : str
        What the user typed.

    Returns
    -------
    name : str
        The column.
    levels : tuple of str
        Two or more.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else, or a level is there twice.
    """
    name, _, order = text.partition("=")
    levels = tuple(level.strip() for level in order.split("<"))
    if not name.strip() or len(levels) < 2 or not all(levels) or len(set(levels)) < len(levels):
        raise argparse.ArgumentTypeError(f"'{text}' is not a column with its levels such as size=small<medium<large")
    return name.strip(), levels
