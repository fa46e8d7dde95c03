"""The three devices that run the method: reference (NumPy), cpu (Numba) and cuda (CuPy)."""

from __future__ import annotations

import logging
from functools import cache
from typing import cast

from ..errors import CupyMissingError, KernelCompileError, NoCudaDeviceError, OptionError
from .base import Device
from .formats import CSR, Array, Flips, ImplicitRows, NearPairs, NeuronLists, TreeLayout

__all__ = [
    "CSR",
    "NAMES",
    "Array",
    "Device",
    "Flips",
    "ImplicitRows",
    "NearPairs",
    "NeuronLists",
    "TreeLayout",
    "get_device",
]

NAMES = ("auto", "cuda", "cpu", "reference")
_log = logging.getLogger(__name__)


def get_device(name: str | Device = "auto") -> Device:
    """Return a device by name; a device is returned as it is.

    Parameters
    ----------
    name : str or Device
        ``"cuda"`` never falls back; ``"auto"`` takes it where it works, else ``"cpu"``, and logs the reason once.

    Returns
    -------
    Device
        One object per name and process.

    Raises
    ------
    OptionError
        If there is no device of that name.
    CupyMissingError, NoCudaDeviceError, KernelCompileError
        If ``"cuda"`` was asked for and does not work here.
    """
    if hasattr(name, "follows_flips"):  # a device already
        return cast(Device, name)
    if not isinstance(name, str) or name not in NAMES:
        raise OptionError(f"device must be one of {', '.join(NAMES)}; got {name!r}")
    return _make(name)


@cache
def _make(name: str) -> Device:
    if name == "auto":
        return _automatic()
    if name == "reference":
        from .reference import ReferenceDevice

        return ReferenceDevice()
    if name == "cpu":
        from .cpu.device import CpuDevice

        return CpuDevice()
    from .cuda.device import connect

    return connect()


def _automatic() -> Device:
    try:
        device = _make("cuda")
    except (CupyMissingError, NoCudaDeviceError, KernelCompileError) as reason:
        _log.info("device auto: cpu, because %s", reason)
        return _make("cpu")
    _log.info("device auto: cuda (%s)", device.describe())
    return device
