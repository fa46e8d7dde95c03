"""The device of a machine without a GPU: Numba loops on all cores, BLAS for dense products."""

from __future__ import annotations

import numba

from ..host import HostDevice
from .algebra import CpuAlgebraOps
from .bits import CpuBitOps
from .implicit import CpuImplicitOps
from .jacobian import CpuJacobianOps
from .lists import CpuListOps
from .pairs import CpuPairOps
from .products import CpuProductOps
from .sketches import CpuSketchOps
from .trees import CpuTreeOps
from .weights import CpuWeightOps


class CpuDevice(
    CpuWeightOps, CpuTreeOps, CpuPairOps, CpuListOps, CpuBitOps, CpuProductOps, CpuJacobianOps, CpuSketchOps,
    CpuAlgebraOps, CpuImplicitOps, HostDevice,
):  # fmt: skip
    """Numba, parallel, deterministic for any number of threads."""

    name = "cpu"

    def describe(self) -> dict[str, str]:
        """Return what HostDevice says, and Numba's version and threads."""
        return super().describe() | {"numba": numba.__version__, "threads": str(numba.get_num_threads())}
