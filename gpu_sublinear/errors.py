"""One error class per cause; every message says what was found and what to do."""

from __future__ import annotations


def shown(text: str, limit: int = 60) -> str:
    """Return a piece of a foreign file as a message may show it: printable, on one line, at most ``limit`` long."""
    text = "".join(char if char.isprintable() else " " for char in text[: limit + 1])
    return text if len(text) <= limit else text[: limit - 3] + "..."


class GpuSublinearError(Exception):
    """Base of every error that this package raises on purpose."""


class DataError(GpuSublinearError, ValueError):
    """The data cannot be used as given: wrong shape, not finite, not numeric, too few rows, unreadable file."""


class OptionError(GpuSublinearError, ValueError):
    """An option has a value that does not exist or does not fit the problem."""


class SilentPointsError(GpuSublinearError, ValueError):
    """Some training points fire no neuron, so the Gram matrix is singular: the shift is too large for the width."""


class ModelFileError(GpuSublinearError, ValueError):
    """A model file is missing, damaged, or of a version this package does not read."""


class CheckpointError(GpuSublinearError, ValueError):
    """A checkpoint is damaged, of a version this package does not read, or of another run."""


class CupyMissingError(GpuSublinearError, ImportError):
    """``device="cuda"`` was asked for and CuPy is not installed or cannot be imported."""


class NoCudaDeviceError(GpuSublinearError, RuntimeError):
    """CuPy is there but no usable NVIDIA GPU or driver."""


class KernelCompileError(GpuSublinearError, RuntimeError):
    """A kernel did not compile; the message holds the architecture and the compiler's log."""


class DeviceMemoryError(GpuSublinearError, MemoryError):
    """An array does not fit; the message names the array, its bytes and the option to change."""


class PoorFitWarning(UserWarning):
    """A fit explains hardly more of its own training points than a constant would."""


class OutgrownStatisticsWarning(UserWarning):
    """Points added later vary where those of the first call, whose statistics are kept, hardly did or not at all."""
