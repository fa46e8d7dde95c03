"""Allocates GPU arrays by name and launches kernels on grids that fit the GPU: what every family of operations uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ...errors import DeviceMemoryError
from ..formats import Array, NeuronLists
from .sources import KernelLoader
from .toolkit import Toolkit

BLOCK_THREADS = 256  # threads of every block; the kernels say __launch_bounds__(256)
RESIDENT = 8  # blocks of 256 threads that fill a multiprocessor; grids stop there and stride
MAX_GRID_Y = 65535
WARP = 32
GROUP = 8  # lanes that share a list, as the kernels' own GROUP
NUMBERS_TILE = (64, 128)  # points x neurons whose computed numbers a block makes: kernels/common.cuh
ADVICE = "raise the shift, lower the width, use dtype float32, or free other GPU arrays of this process"

_Operation = TypeVar("_Operation", bound=Callable[..., Any])


def names_memory(operation: _Operation) -> _Operation:
    """Turn an out-of-memory error of the toolkit inside a device's operation into ours, which says what to change."""

    @wraps(operation)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return operation(self, *args, **kwargs)
        except self.toolkit.memory_errors as cause:
            what = f"{operation.__name__}: scratch memory does not fit the GPU ({cause}); {ADVICE}"
            raise DeviceMemoryError(what) from cause

    return guarded  # type: ignore[return-value]


class Launcher:
    """Memory and kernels of one GPU.

    Parameters
    ----------
    toolkit : Toolkit
        Arrays, compiler and facts of the GPU.

    Attributes
    ----------
    loader : KernelLoader
        The compiled kernels.
    """

    def __init__(self, toolkit: Toolkit):
        self.toolkit = toolkit
        self.loader = KernelLoader(toolkit.module, toolkit.architecture)

    def empty(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialised array; ``name`` is for the message where it does not fit."""
        return self._allocate(self.toolkit.xp.empty, name, shape, dtype)

    def zeros(self, name: str, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an array of zeros; ``name`` is for the message where it does not fit."""
        return self._allocate(self.toolkit.xp.zeros, name, shape, dtype)

    def starts(self, counts: Array) -> Array:
        """Return where each of the lists of these lengths starts, and the end of all, (count + 1,) int64."""
        starts = self.zeros("offsets of the lists", len(counts) + 1, np.int64)
        starts[1:] = self.toolkit.xp.cumsum(counts, dtype=np.int64)
        return starts

    def run(self, file: str, function: str, dtype: Any, work: int, arguments: tuple, **shape: Any) -> None:
        """Launch a kernel, or nothing where there is no work.

        Parameters
        ----------
        file, function : str
            Stem of the ``.cu`` file, and the kernel in it.
        dtype : data type
            ``REAL``.
        work : int
            Threads wanted (in each of the rows); the grid strides over what does not fit at once.
        arguments : tuple
            Arrays and NumPy scalars of exactly the kernel's types: CuPy checks neither.
        **shape : int
            ``rows``, ``layers`` (y and z of the grid) and ``shared_mem`` (bytes).
        """
        rows, layers = shape.get("rows", 1), shape.get("layers", 1)
        if work and rows and layers:
            kernel = self.loader.get(file, function, np.dtype(dtype).name)
            kernel(self.grid(work, rows, layers), (BLOCK_THREADS,), arguments, shared_mem=shape.get("shared_mem", 0))

    def grid(self, work: int, rows: int = 1, layers: int = 1) -> tuple[int, int, int]:
        """Return a grid of ``work`` threads x rows x layers, cut where it fills the GPU."""
        full = RESIDENT * self.toolkit.multiprocessors
        y = min(rows, MAX_GRID_Y)
        spread = 1 if rows == 1 else 4  # rows differ in length: more, shorter blocks even that out
        return min(-(-work // BLOCK_THREADS), -(-spread * full // y)), y, min(layers, MAX_GRID_Y)

    def _allocate(self, make: Callable[..., Array], name: str, shape: Any, dtype: Any) -> Array:
        try:
            return make(shape, dtype)
        except self.toolkit.memory_errors as cause:
            nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            raise DeviceMemoryError(
                f"{name}: {np.dtype(dtype).name} array of shape {shape}, {nbytes:,} bytes, does not fit the GPU's "
                f"{self.toolkit.total_bytes():,}; {ADVICE}"
            ) from cause


class GpuOps:
    """What the families of operations of the cuda device find in it.

    Attributes
    ----------
    xp : module
        Array functions of the toolkit.
    toolkit : Toolkit
        Libraries and facts of the GPU.
    """

    xp: ModuleType
    toolkit: Toolkit
    _gpu: Launcher


def list_arguments(lists: NeuronLists) -> tuple[Array, Array, Array, np.int64]:
    """Return lists as kernels take them."""
    return lists.neurons, lists.indptr, lists.points, np.int64(len(lists.neurons))


def philox_key(seed: int) -> np.uint64:
    """Return a seed as kernels take it: its low 64 bits."""
    return np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
