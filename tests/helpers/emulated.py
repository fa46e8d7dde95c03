"""The cuda device without a GPU: its own Python on NumPy arrays, its own kernels on the emulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from gpu_sublinear.devices import CSR
from gpu_sublinear.devices.cuda.device import CudaDevice
from gpu_sublinear.devices.reference import ReferenceDevice


class EmulatedToolkit:
    """Stands in for ``CupyToolkit``: NumPy, the emulator for NVRTC and GPU, SciPy for the libraries."""

    xp = np
    architecture = "emulated"
    memory_errors = (MemoryError,)

    def __init__(self, multiprocessors: int = 2) -> None:
        self.multiprocessors = multiprocessors  # few, so that grids end early and the kernels have to stride
        self._host = ReferenceDevice()

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        from tests.cuda_emulator.module import Module

        return Module(code=code, options=options)

    def describe(self) -> dict[str, str]:
        return {"gpu": "emulator", "numpy": np.__version__}

    def to_host(self, array: Any) -> np.ndarray:
        return np.array(array)  # a copy, as from a GPU

    def synchronize(self) -> None:
        pass

    def peak_bytes(self) -> int:
        return self._host.peak_bytes()

    def total_bytes(self) -> int:
        return self._host.total_bytes()

    def spmv(self, matrix: CSR) -> Any:
        product = scipy.sparse.csr_array(
            (matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        return lambda x: product @ x

    def cholesky(self, A: np.ndarray) -> np.ndarray | None:
        return self._host.cholesky(A)

    def solve_triangular(self, L: np.ndarray, b: np.ndarray, transposed: bool) -> np.ndarray:
        return self._host.solve_triangular(L, b, transposed)


def emulated_cuda_device(multiprocessors: int = 2) -> CudaDevice:
    """Return the cuda device on emulated kernels, for any dtype, with poisoned memory.

    Launches follow ``tests.cuda_emulator.module.schedule``.
    """
    return poisoned(CudaDevice(EmulatedToolkit(multiprocessors)))


def poisoned(device: CudaDevice) -> CudaDevice:
    """Fill every output buffer with NaN, or a number no kernel writes, before a kernel sees it."""
    allocate = type(device._gpu).empty

    def empty(name: str, shape: Any, dtype: Any) -> Any:
        array = allocate(device._gpu, name, shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else -(2**30) - 7)
        return array

    device._gpu.empty = empty  # type: ignore[method-assign]
    return device
