"""What the cuda device needs of CuPy beyond its array functions; tests put a stand-in here where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ...errors import CupyMissingError, NoCudaDeviceError
from ..formats import CSR, Array


class Toolkit(Protocol):
    """Arrays, compiler, libraries and facts of one GPU.

    Attributes
    ----------
    xp : module
        Array functions with NumPy's names: CuPy.
    architecture : str
        Such as ``"sm_90"``.
    multiprocessors : int
        Streaming multiprocessors: they set the size of grids.
    memory_errors : tuple of exception classes
        What an allocation that does not fit raises.
    """

    xp: ModuleType
    architecture: str
    multiprocessors: int
    memory_errors: tuple[type[BaseException], ...]

    def module(self, code: str, options: tuple[str, ...]) -> Any: ...  # noqa: D102
    def describe(self) -> dict[str, str]: ...  # noqa: D102
    def to_host(self, array: Array) -> np.ndarray: ...  # noqa: D102
    def synchronize(self) -> None: ...  # noqa: D102
    def peak_bytes(self) -> int: ...  # noqa: D102
    def total_bytes(self) -> int: ...  # noqa: D102
    def spmv(self, matrix: CSR) -> Callable[[Array], Array]: ...  # noqa: D102
    def cholesky(self, A: Array) -> Array | None: ...  # noqa: D102
    def solve_triangular(self, L: Array, b: Array, transposed: bool) -> Array: ...  # noqa: D102


class CupyToolkit:
    """CuPy on the current GPU; see :class:`Toolkit`."""

    def __init__(self) -> None:
        import cupy

        device = cupy.cuda.Device()
        self.xp = cupy
        self.architecture = f"sm_{device.compute_capability}"
        self.multiprocessors = int(device.attributes["MultiProcessorCount"])
        self.memory_errors: tuple[type[BaseException], ...] = (cupy.cuda.memory.OutOfMemoryError,)

    def module(self, code: str, options: tuple[str, ...]) -> Any:
        """Return a module that compiles at its first ``get_function``; the disk cache is CuPy's."""
        return self.xp.RawModule(code=code, options=options)

    def describe(self) -> dict[str, str]:
        """Return names and versions."""
        runtime = self.xp.cuda.runtime
        name = runtime.getDeviceProperties(self.xp.cuda.Device().id)["name"]
        return {
            "gpu": name.decode() if isinstance(name, bytes) else str(name),
            "architecture": self.architecture,
            "driver": _version(runtime.driverGetVersion()),
            "runtime": _version(runtime.runtimeGetVersion()),
            "cupy": self.xp.__version__,
        }

    def to_host(self, array: Array) -> np.ndarray:
        """Copy to the host, which waits for the work that makes the array."""
        return self.xp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.xp.cuda.get_current_stream().synchronize()

    def peak_bytes(self) -> int:
        """Return what the memory pool has taken from the GPU: it keeps what is freed, so this is the peak."""
        return int(self.xp.get_default_memory_pool().total_bytes())

    def total_bytes(self) -> int:
        """Return the GPU's memory."""
        return int(self.xp.cuda.runtime.memGetInfo()[1])

    def spmv(self, matrix: CSR) -> Callable[[Array], Array]:
        """Set up cuSPARSE for a matrix."""
        from .cusparse import SparseProduct

        return SparseProduct(matrix)

    def cholesky(self, A: Array) -> Array | None:
        """Factor by cuSOLVER; its status word, which CuPy ignores by default, says whether A is positive definite."""
        import cupyx

        try:
            with cupyx.errstate(linalg="raise"):
                L = self.xp.linalg.cholesky(A)
        except np.linalg.LinAlgError:
            return None
        return self.xp.asfortranarray(L)  # cuBLAS' order, so that no triangular solve has to copy it

    def solve_triangular(self, L: Array, b: Array, transposed: bool) -> Array:
        """Solve by cuBLAS."""
        from cupyx.scipy.linalg import solve_triangular

        return solve_triangular(L, b, trans=int(transposed), lower=True)


def cupy_toolkit() -> CupyToolkit:
    """Return CuPy's toolkit for the current GPU.

    Returns
    -------
    CupyToolkit
        Not yet known to compile or run anything.

    Raises
    ------
    CupyMissingError
        If CuPy cannot be imported.
    NoCudaDeviceError
        If there is no usable GPU or driver.
    """
    try:
        import cupy
    except ImportError as cause:
        raise CupyMissingError(
            f"device cuda needs CuPy, which cannot be imported ({cause}); install it for your driver's CUDA: "
            "pip install 'gpu-sublinear[cuda12]' or 'gpu-sublinear[cuda13]'"
        ) from cause
    try:
        cupy.cuda.runtime.getDeviceCount()  # raises without driver or device
        return CupyToolkit()
    except RuntimeError as cause:  # CUDARuntimeError is one
        raise NoCudaDeviceError(
            f"CuPy {cupy.__version__} finds no usable NVIDIA GPU: {cause}; look at nvidia-smi and "
            'CUDA_VISIBLE_DEVICES, or use device="cpu"'
        ) from cause


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
