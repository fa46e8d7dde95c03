"""Copies of array arguments that end at a forbidden page, so that reading past the end is noticed."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable

import numpy as np

_PAGE = mmap.PAGESIZE
_ALIGNMENT = 16  # of the widest vector load
_PROT_NONE, _PROT_READ, _PROT_READ_WRITE = 0, 1, 3
_GARBAGE = b"\xad\xde\xff\xff" * (_PAGE // 4)  # NaN as float32 and float64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def _offset_in_allocation(array: np.ndarray) -> int:
    """Bytes between the start of the allocation behind a view and the view, modulo the alignment."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    return (array.ctypes.data - root.ctypes.data) % _ALIGNMENT


class GuardedBuffer:
    """
    `nbytes` bytes between two forbidden pages, their end as near to the second as alignment allows.

    Parameters
    ----------
    nbytes : int
        Size of the buffer.
    offset : int
        What the address has to be modulo 16: a view's misalignment must survive the copy.
    """

    def __init__(self, nbytes: int, offset: int) -> None:
        slack = -(nbytes + offset) % _ALIGNMENT
        usable = -(-max(nbytes + slack, 1) // _PAGE) * _PAGE
        self._length = usable + 2 * _PAGE
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._base = _libc.mmap(None, self._length, _PROT_READ_WRITE, anonymous, -1, 0)
        if self._base in {None, ctypes.c_void_p(-1).value}:
            raise MemoryError(f"no address space for the guarded copy of {nbytes} bytes")
        self._inside, self._usable = self._base + _PAGE, usable
        _libc.mprotect(self._base, _PAGE, _PROT_NONE)
        _libc.mprotect(self._inside + usable, _PAGE, _PROT_NONE)
        self.address = self._inside + usable - slack - nbytes
        self._canaries = [(self._inside, self.address - self._inside), (self.address + nbytes, slack)]
        for start, size in self._canaries:
            ctypes.memmove(start, _GARBAGE, size)

    def forbid_writing(self) -> None:
        """Make a write a crash, for ``const`` parameters."""
        _libc.mprotect(self._inside, self._usable, _PROT_READ)

    def intact(self) -> bool:
        """Whether nobody wrote next to the buffer."""
        return all(ctypes.string_at(start, size) == _GARBAGE[:size] for start, size in self._canaries)

    def close(self) -> None:
        """Give the memory back."""
        _libc.munmap(self._base, self._length)


class HeapBuffer:
    """The same on the heap, where AddressSanitizer and ThreadSanitizer watch."""

    def __init__(self, nbytes: int, offset: int) -> None:
        self._start = _libc.malloc(nbytes + offset)
        self.address = self._start + offset

    def forbid_writing(self) -> None:
        """Do nothing: the heap cannot."""

    def intact(self) -> bool:
        """Whether nobody wrote next to the buffer: the sanitizer would have ended the process."""
        return True

    def close(self) -> None:
        """Give the memory back."""
        _libc.free(self._start)


class ArgumentCopies:
    """
    Guarded copies of the array arguments of one launch; overlapping arrays share one, as they share memory.

    Parameters
    ----------
    arrays : iterable of (ndarray, bool)
        C-contiguous arrays, and whether the kernel may write to them.
    on_heap : bool
        Use the heap, for the sanitizers, rather than forbidden pages.
    """

    def __init__(self, arrays: Iterable[tuple[np.ndarray, bool]], on_heap: bool) -> None:
        self._groups: list[tuple[int, int, bool, GuardedBuffer | HeapBuffer]] = []  # start, nbytes, writable, copy
        extents: list[list[int]] = []  # start, end, offset, writable
        for array, writable in sorted(arrays, key=lambda pair: (pair[0].ctypes.data, -pair[0].nbytes)):
            start = array.ctypes.data
            if extents and (start < extents[-1][1] or start == extents[-1][0]):
                extents[-1][1] = max(extents[-1][1], start + array.nbytes)
                extents[-1][3] |= writable
            else:
                extents.append([start, start + array.nbytes, _offset_in_allocation(array), writable])
        try:
            for start, end, offset, writable_group in extents:
                buffer = (HeapBuffer if on_heap else GuardedBuffer)(end - start, offset)
                self._groups.append((start, end - start, bool(writable_group), buffer))
                ctypes.memmove(buffer.address, start, end - start)
                if not writable_group:
                    buffer.forbid_writing()
        except BaseException:
            self.close()
            raise

    def address(self, array: np.ndarray) -> int:
        """Where the copy of `array` lies."""
        at = array.ctypes.data
        for start, nbytes, _, buffer in self._groups:
            if start <= at < start + nbytes or at == start:
                return buffer.address + at - start
        raise KeyError("not an argument of this launch")

    def damaged(self) -> list[int]:
        """Sizes of the buffers next to which somebody wrote."""
        return [nbytes for _, nbytes, _, buffer in self._groups if not buffer.intact()]

    def write_back(self) -> None:
        """Copy what the kernel may have changed to the arrays."""
        for start, nbytes, writable, buffer in self._groups:
            if writable:
                ctypes.memmove(start, buffer.address, nbytes)

    def close(self) -> None:
        """Give the memory back."""
        for *_, buffer in self._groups:
            buffer.close()
        self._groups = []
