"""How the loops of this folder are compiled, and into how many blocks they share out their work.

Parallel loops write rows that nobody else writes, or sums of their own block, so any thread count gives equal bytes.
No fast-math anywhere: LLVM then neither reorders sums nor fuses multiply and add, which the computed number
(:mod:`gpu_sublinear.devices.base`) relies on.
"""

from __future__ import annotations

import os

# Threads that wait must sleep: spinning ones keep the others from the cores that they wait for.  On two cores shared
# with one other busy process, solver iterations took 32 ms instead of 1 (read when Numba starts its threads).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from numba import njit

BLOCKS = 64  # blocks of neurons with sums of their own: enough to balance tens of threads, n x 64 doubles of memory

parallel = njit(parallel=True, cache=True, nogil=True)
serial = njit(cache=True, nogil=True)
