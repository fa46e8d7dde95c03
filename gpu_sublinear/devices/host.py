"""What the two host devices (reference and cpu) share: NumPy arrays, and LAPACK on one thread.

LAPACK's blocked factorisations round differently for different numbers of threads.  The n x n algebra is a small
part of a step, so it runs on one BLAS thread, and a fit gives the same bytes whatever the thread count.
"""

from __future__ import annotations

import os
import platform
import threading
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from threadpoolctl import ThreadpoolController

from .base import Device
from .formats import Array

UNKNOWN_MEMORY = 1 << 62


def sums_before(counts: Any) -> np.ndarray:
    """Return the sums of the counts (k,) before each, and of all, (k + 1,) int64."""
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


class OneThread:
    """Holds BLAS and LAPACK at one thread for as long as anybody is inside, in whichever threads of Python.

    The number of threads belongs to the process.  The first to enter notes and lowers it, the last to leave puts it
    back: one that left earlier, and put back what it had found, would leave the process with one thread for good.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = _controller().limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._restore()

    def start_anew(self) -> None:
        """Forget the threads of a parent process, which do not exist in a fork of it."""
        self._lock, inside, self._inside = threading.Lock(), self._inside, 0
        if inside:
            self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            before.restore_original_limits()


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # scanning the loaded libraries takes milliseconds, so once


ONE_THREAD = OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ONE_THREAD.start_anew)


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS and LAPACK calls use a single thread."""
    return ONE_THREAD


def _peak_of_the_process() -> int:
    """Return the largest resident memory by the system's own count; 0 where it keeps none."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if platform.system() == "Darwin" else peak * 1024)  # bytes there, KiB elsewhere


class HostDevice(Device):
    """NumPy arrays in host memory."""

    xp = np

    def describe(self) -> dict[str, str]:
        """Return the device's name, the processor and NumPy's version."""
        return {"device": self.name, "processor": platform.machine(), "numpy": np.__version__}

    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return ``array`` as a C-contiguous NumPy array."""
        return np.ascontiguousarray(array, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray:
        """Return ``array`` itself: it is in host memory already."""
        return np.asarray(array)

    def synchronize(self) -> None:
        """Do nothing: host operations have ended when they return."""

    def peak_bytes(self) -> int:
        """Return the largest resident memory of this process so far."""
        with suppress(OSError, ValueError, StopIteration):  # Linux: unlike ru_maxrss, not inherited from the parent
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
        return _peak_of_the_process()

    def total_bytes(self) -> int:
        """Return the machine's physical memory; where the system does not say, more than any machine has."""
        with suppress(AttributeError, OSError, ValueError):  # no os.sysconf on Windows
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return UNKNOWN_MEMORY

    def cholesky(self, A: Array) -> Array | None:
        """Return the lower Cholesky factor, or None where A is not positive definite."""
        try:
            with one_blas_thread():
                return scipy.linalg.cholesky(A, lower=True, check_finite=False)
        except scipy.linalg.LinAlgError:
            return None

    def solve_triangular(self, L: Array, b: Array, transposed: bool = False) -> Array:
        """Solve with a lower triangular factor or its transpose."""
        with one_blas_thread():
            return scipy.linalg.solve_triangular(L, b, lower=True, trans=int(transposed), check_finite=False)

    def eigh(self, A: Array) -> tuple[Array, Array]:
        """Return eigenvalues and eigenvectors of a symmetric matrix."""
        with one_blas_thread():
            values, vectors = scipy.linalg.eigh(A, check_finite=False)
        return values, vectors
