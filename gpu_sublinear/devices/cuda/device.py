"""The device of an NVIDIA GPU: checks, allocates, launches the kernels of ``kernels/*.cu``, calls NVIDIA's libraries.

:class:`CudaDevice` gets arrays, compiler and libraries from a toolkit, so the same lines run in CI on NumPy arrays with
emulated kernels; :func:`connect` makes the real one from CuPy.  Importing this module does nothing on the GPU.

Matrix products run in the data type of their arguments: CuPy leaves TF32 off unless ``CUPY_TF32=1`` is set.
All work goes to CuPy's current stream; what waits for the GPU says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import CupyMissingError, GpuSublinearError, KernelCompileError, NoCudaDeviceError
from ..base import Device
from ..formats import Array
from .algebra import CudaAlgebraOps
from .bits import CudaBitOps
from .implicit import CudaImplicitOps
from .jacobian import CudaJacobianOps
from .launcher import WARP, Launcher, names_memory
from .lists import CudaListOps
from .pairs import CudaPairOps
from .products import CudaProductOps
from .sketches import CudaSketchOps
from .toolkit import Toolkit, cupy_toolkit
from .trees import CudaTreeOps
from .weights import CudaWeightOps


class CudaDevice(
    CudaWeightOps, CudaTreeOps, CudaPairOps, CudaListOps, CudaBitOps, CudaProductOps, CudaJacobianOps, CudaSketchOps,
    CudaAlgebraOps, CudaImplicitOps, Device,
):  # fmt: skip
    """The op list on one GPU.

    Parameters
    ----------
    toolkit : Toolkit
        Arrays, compiler, libraries and facts of the GPU.

    Attributes
    ----------
    loader : KernelLoader
        The compiled kernels.
    """

    name = "cuda"
    check_every = 5  # a look at the residual stops the stream
    sort_bytes = 24  # order, sorted points, positions and values by neuron

    def __init__(self, toolkit: Toolkit):
        self.toolkit = toolkit
        self.xp = toolkit.xp
        self._gpu = Launcher(toolkit)
        self.loader = self._gpu.loader

    def describe(self) -> dict[str, str]:
        """Return GPU, driver, runtime and CuPy version."""
        return {"device": self.name} | self.toolkit.describe()

    @names_memory
    def asarray(self, array: Any, dtype: Any = None) -> Array:
        """Return ``array`` as a C-contiguous array on the GPU."""
        return self.xp.ascontiguousarray(self.xp.asarray(array, dtype=dtype))

    def to_host(self, array: Array) -> np.ndarray:
        """Return a copy on the host; waits for the GPU."""
        return self.toolkit.to_host(array)

    def synchronize(self) -> None:
        """Wait for the current stream."""
        self.toolkit.synchronize()

    def peak_bytes(self) -> int:
        """Return what the memory pool has taken from the GPU."""
        return self.toolkit.peak_bytes()

    def total_bytes(self) -> int:
        """Return the GPU's memory."""
        return self.toolkit.total_bytes()


# ---- the real device ------------------------------------------------------------------------------------

_outcome: CudaDevice | GpuSublinearError | None = None


def connect() -> CudaDevice:
    """Return the device of the current GPU, after compiling and running a tiny kernel on it.

    Returns
    -------
    CudaDevice
        The same object at each call.

    Raises
    ------
    CupyMissingError
        If CuPy cannot be imported.
    NoCudaDeviceError
        If there is no usable GPU or driver, or the kernel gives wrong numbers.
    KernelCompileError
        If the kernel does not compile.
    """
    global _outcome
    if _outcome is None:
        try:
            _outcome = _probe(cupy_toolkit())
        except (CupyMissingError, NoCudaDeviceError, KernelCompileError) as reason:
            _outcome = reason
    if isinstance(_outcome, GpuSublinearError):
        raise _outcome
    return _outcome


def _probe(toolkit: Toolkit) -> CudaDevice:
    """Return a device whose compiler, driver and GPU agree."""
    device = CudaDevice(toolkit)
    count = 100
    kernel = device.loader.get("probe", "probe", "float32")
    try:
        out = device.xp.zeros(count, np.float32)
        kernel((1,), (WARP,), (out, np.int64(count)))
        found = device.to_host(out)
    except Exception as cause:  # launch failures have many classes
        raise NoCudaDeviceError(f"a kernel compiled but did not run on the GPU: {cause}; see nvidia-smi") from cause
    expected = np.arange(count) / 2 + np.arange(count) % 32 // 2
    if not np.array_equal(found, expected):
        raise NoCudaDeviceError("the GPU computes wrong numbers in a test kernel; check it with nvidia-smi -q")
    return device
