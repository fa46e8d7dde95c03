"""How the loops of this folder are compiled, and into how many blocks they share out their work.

Parallel loops write rows that nobody else writes, or sums of their own block, so any thread count gives equal bytes.
No fast-math anywhere: LLVM then neither reorders sums nor fuses multiply and add, which the computed number
(:mod:`gpu_sublinear.devices.base`) relies on.

**Where threads are not to be had.**  GNU OpenMP ends a process that was forked after its threads had started, and a
pool of such processes waits for ever: there parallel loops run serially, to the same bytes.  Numba's own ``workqueue``
ends a process in which two threads of Python run loops at a time: there one waits for the other.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any

# Threads that wait must sleep: spinning ones keep the others from the cores that they wait for.  On two cores shared
# with one other busy process, solver iterations took 32 ms instead of 1 (read when Numba starts its threads).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba
from numba import njit

BLOCKS = 64  # blocks of neurons with sums of their own: enough to balance tens of threads, n x 64 doubles of memory
FORKS = ("tbb", "workqueue")  # layers whose threads start anew in a forked process
ONE_AT_A_TIME = "workqueue"  # the layer that only one thread of Python may use

_log = logging.getLogger(__name__)


def compiled(loop: Callable[..., Any], **options: Any) -> Any:
    """Return a function compiled by Numba, kept for later processes where some folder can be written.

    Parameters
    ----------
    loop : callable
        What to compile.
    **options
        Of ``numba.njit``.

    Returns
    -------
    callable
        Compiled at its first call.
    """
    try:
        return njit(cache=True, nogil=True, **options)(loop)
    except RuntimeError:  # neither the folder of the source nor that of the user
        _nothing_is_kept()
        return njit(nogil=True, **options)(loop)


@functools.cache
def _nothing_is_kept() -> None:
    _log.warning(
        "compiled functions cannot be kept, because neither the folder of this package nor the user's cache folder can "
        "be written: every process compiles them anew; set NUMBA_CACHE_DIR to a folder that can be written"
    )


class Threads:
    """What is known of Numba's threads in this process.

    Attributes
    ----------
    settled : bool
        Whether loops may be called just so: they are parallel, and from any thread of Python.
    forked : bool
        Whether this is a fork of a process whose threads cannot be had here.
    lock : Lock
        Held by whoever runs a loop until ``settled``.
    """

    def __init__(self) -> None:
        self.settled, self.forked, self.lock = False, False, threading.Lock()

    def look(self) -> None:
        """Settle the matter once some loop has started the threads, for all layers but one."""
        with suppress(ValueError):  # not started
            self.settled = numba.threading_layer() != ONE_AT_A_TIME

    def fork(self) -> None:
        """Find out, in a new fork, whether its parent had started threads that do not outlive one."""
        self.lock = threading.Lock()
        with suppress(ValueError):
            self.forked = self.forked or numba.threading_layer() not in FORKS
        self.settled = self.settled and not self.forked


THREADS = Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.fork)


class Parallel:
    """A loop on all threads, where there are any.

    Parameters
    ----------
    loop : function
        In Python, with ``numba.prange``.
    **options
        Of ``numba.njit``.
    """

    def __init__(self, loop: Any, **options: Any) -> None:
        functools.update_wrapper(self, loop)
        self.loop, self.options, self.on_all_threads = loop, options, compiled(loop, parallel=True, **options)

    def __call__(self, *arguments: Any) -> Any:
        """Run the loop."""
        if THREADS.settled:
            return self.on_all_threads(*arguments)
        if THREADS.forked:
            return self.on_one_thread(*arguments)
        with THREADS.lock:
            result = self.on_all_threads(*arguments)
            THREADS.look()
        return result

    @functools.cached_property
    def on_one_thread(self) -> Any:
        """The same loop without threads; under a name of its own, because Numba's cache knows functions by name."""
        loop = self.loop
        twin = FunctionType(loop.__code__, loop.__globals__, loop.__name__, loop.__defaults__, loop.__closure__)
        twin.__module__, twin.__qualname__ = loop.__module__, f"{loop.__qualname__}_on_one_thread"
        return compiled(twin, **self.options)


parallel = Parallel
serial = compiled
