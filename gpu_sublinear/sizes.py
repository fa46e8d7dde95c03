"""Whole numbers, bytes and types as people write them: ``"2^10"``, ``"1GB"``, ``numpy.float32``."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from .errors import OptionError

DTYPES = ("float32", "float64")
MOST = 2**64
UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def whole_number(value: Any, name: str) -> int:
    """Return a whole number that was given as one, or as text.

    Parameters
    ----------
    value : int, float or str
        65536, 1e6, ``"65_536"``, ``"1e6"``, ``"2^16"`` or ``"2**16"``.
    name : str
        Of the option, for the message.

    Returns
    -------
    int
        The number.

    Raises
    ------
    OptionError
        If it is none, or is beyond 2^64.
    """
    number = _read(value)
    if number is None or abs(number) > MOST:
        raise OptionError(f"{name} must be a whole number such as 65536, 1e6 or '2^16'; got {value!r}")
    return number


def _read(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, str):
        power = re.fullmatch(r" *(\d{1,10}) *(?:\^|\*\*) *(\d{1,3}) *", value)
        if power:
            return int(power[1]) ** int(power[2])
        try:
            return int(value)
        except ValueError:
            pass
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def byte_count(value: Any, name: str) -> int:
    """Return a number of bytes.

    Parameters
    ----------
    value : int, float or str
        10**9, 1e9, ``"1e9"``, ``"1GB"``, ``"500 MB"`` or ``"8GiB"``.
    name : str
        Of the option, for the message.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    OptionError
        If it is no positive number with a known unit.
    """
    parts = re.fullmatch(r" *([0-9.]+(?:E\+?[0-9]+)?) *([KMGT]?)(I?)B? *", str(value).upper())
    try:
        count = int(float(parts[1]) * (1024 if parts[3] else 1000) ** UNITS[parts[2]]) if parts else 0
    except (ValueError, OverflowError):
        count = 0
    if count < 1:
        raise OptionError(f"{name} must be a size such as 8GiB, 500MB or 1e9 bytes, or None; got {value!r}")
    return count


def dtype_name(value: Any) -> str:
    """Return ``"float32"`` or ``"float64"``.

    Parameters
    ----------
    value : str, type or numpy.dtype
        ``"float32"``, ``numpy.float32``, ``numpy.dtype("f4")``, ``torch.float32``.

    Returns
    -------
    str
        The name.

    Raises
    ------
    OptionError
        If it is another type.
    """
    try:
        name = np.dtype(value).name
    except TypeError:
        name = str(value).rpartition(".")[2]  # torch.float32
    if name not in DTYPES or value is None:
        raise OptionError(f"dtype must be 'float32' or 'float64'; got {value!r}")
    return name
