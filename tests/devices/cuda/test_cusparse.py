"""The cuSPARSE wrapper against a cuSPARSE of a few lines: the calls, their order of arguments, pointers and lifetimes.

The stand-ins have the names and signatures of CuPy's (cupy_backends/cuda/libs/cusparse.pyx, equal in 13.3 and 14.2) and
read the raw addresses they get, so a wrong argument gives a wrong product.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpu_sublinear.devices import CSR
from gpu_sublinear.devices.cuda.cusparse import SparseProduct
from gpu_sublinear.errors import DeviceMemoryError

TYPES = {0: np.float32, 1: np.float64}
HANDLE = 4711


class PointerArray(np.ndarray):
    """A NumPy array that tells its address as CuPy's arrays do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def at(address: int, count: int, dtype) -> np.ndarray:
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype)


class FakeCusparse(ModuleType):
    CUSPARSE_INDEX_32I, CUSPARSE_INDEX_BASE_ZERO, CUSPARSE_OPERATION_NON_TRANSPOSE = 2, 0, 0

    def __init__(self, mixed: bool) -> None:
        super().__init__("cusparse")
        self.mixed, self.alive, self.created, self.sizes = mixed, {}, 0, 0

    def _add(self, thing) -> int:
        self.created += 1
        self.alive[self.created] = thing
        return self.created

    def createCsr(self, rows, cols, nnz, offsets, columns, values, offsets_type, columns_type, base, value_type):
        assert (offsets_type, columns_type, base) == (2, 2, 0)
        return self._add((rows, cols, nnz, offsets, columns, values, TYPES[value_type]))

    def createDnVec(self, size, values, value_type):
        return self._add((size, values, TYPES[value_type]))

    def destroySpMat(self, descriptor):
        del self.alive[descriptor]

    destroyDnVec = destroySpMat

    def spMV_bufferSize(self, handle, operation, alpha, matrix, x, beta, y, compute_type, algorithm):
        assert (handle, operation, algorithm) == (HANDLE, 0, 3)
        if not self.mixed and TYPES[compute_type] != self.alive[matrix][-1]:
            raise RuntimeError("CUSPARSE_STATUS_NOT_SUPPORTED")
        self.sizes += 1
        return 64

    def spMV(self, handle, operation, alpha, matrix, x, beta, y, compute_type, algorithm, buffer):
        assert (handle, operation, algorithm) == (HANDLE, 0, 3) and buffer
        real = TYPES[compute_type]
        assert (at(alpha, 1, real)[0], at(beta, 1, real)[0]) == (1, 0)
        rows, cols, nnz, offsets, columns, values, stored = self.alive[matrix]
        offsets, columns, values = at(offsets, rows + 1, np.int32), at(columns, nnz, np.int32), at(values, nnz, stored)
        source, target = (at(self.alive[v][1], self.alive[v][0], self.alive[v][2]) for v in (x, y))
        assert (len(source), len(target), source.dtype, target.dtype) == (cols, rows, real, real)
        for i in range(rows):
            chosen = slice(offsets[i], offsets[i + 1])
            target[i] = np.sum(values[chosen].astype(real) * source[columns[chosen]])


@pytest.fixture(params=[True, False], ids=["mixed", "uniform"])
def library(request, monkeypatch):
    fake = FakeCusparse(request.param)
    cupy = ModuleType("cupy")
    cupy.zeros = lambda shape, dtype=float: np.zeros(shape, dtype).view(PointerArray)
    cupy.empty = lambda shape, dtype=float: np.empty(shape, dtype).view(PointerArray)
    cupy._util = SimpleNamespace(is_shutting_down=lambda: False)
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.device = SimpleNamespace(get_cusparse_handle=lambda: HANDLE)
    libs = ModuleType("cupy_backends.cuda.libs")
    libs.cusparse = fake
    modules = {"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy_backends.cuda.libs": libs}
    for name in ("cupy_backends", "cupy_backends.cuda"):
        modules[name] = ModuleType(name)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def matrix(dtype: str, columns: int = 5) -> CSR:
    data = np.array([1.5, -2.0, 3.25, 1 / 3], dtype)
    parts = data, np.array([0, 3, 1, 4], np.int32), np.array([0, 2, 2, 4])
    return CSR(*(part.view(PointerArray) for part in parts), (3, columns))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_product(library, dtype):
    product = SparseProduct(matrix(dtype))
    x = np.arange(5) / 7
    want = np.array([1.5 * x[0] - 2 * x[3], 0, 3.25 * x[1] + float(np.dtype(dtype).type(1 / 3)) * x[4]])
    first, second = product(x), product(2 * x)
    precision = "float64" if library.mixed else dtype
    assert product.precision == precision and first.dtype == np.float64
    assert np.allclose(first, want, rtol=2 * np.finfo(precision).eps, atol=0)
    assert np.allclose(second, 2 * want, rtol=2 * np.finfo(precision).eps, atol=0)
    assert library.sizes == 1  # set up once


def test_descriptors_are_given_back(library):
    product = SparseProduct(matrix("float32"))
    assert len(library.alive) == 3
    del product
    gc.collect()
    assert not library.alive


def test_empty_matrix(library):
    empty = CSR(
        *(np.zeros(k, t).view(PointerArray) for k, t in ((0, "f4"), (0, "i4"), (4, "i8"))),
        (3, 5),
    )
    assert SparseProduct(empty)(np.ones(5)).tolist() == [0, 0, 0]
    assert not library.alive


def test_wrong_length_and_size(library):
    with pytest.raises(ValueError, match="x has shape"):
        SparseProduct(matrix("float32"))(np.ones(4))
    with pytest.raises(DeviceMemoryError, match="32-bit"):
        SparseProduct(matrix("float32", columns=2**31))
