"""
A stand-in for ``cupy.RawModule`` that runs CUDA kernels on the CPU, with NumPy arrays as arguments.

Checks what CuPy does not: the number of arguments, their dtypes, contiguity, and the size of scalars.  The running
order of threads is set for all launches by `schedule`, because the code under test launches without knowing of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .buffers import ArgumentCopies
from .toolchain import SANITIZERS, build, kernel_names

SCHEDULES = ("forward", "reverse", "random", "warps_reversed")  # enum Schedule in runtime.cpp
DEFAULT_SHARED_LIMIT = 48 * 1024  # bytes of dynamic shared memory without asking for more, as on the device
_MAX_ARGUMENT = 2**31 - 1


class LaunchError(RuntimeError):
    """The kernel did something that CUDA leaves undefined; the message names the place and the thread."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How launches run: the schedule and its seed, and whether array arguments are copied to guarded memory."""

    schedule: str = "forward"
    seed: int = 1
    copy: bool = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")

    @classmethod
    def from_environment(cls) -> Settings:
        """Read EMULATOR_SCHEDULE ("random" or "random:7") and EMULATOR_COPY ("0" or "1")."""
        name, _, seed = os.environ.get("EMULATOR_SCHEDULE", "forward").partition(":")
        return cls(name, int(seed or 1), os.environ.get("EMULATOR_COPY", "1") != "0")


_settings = Settings.from_environment()
_launch_lock = threading.Lock()  # the emulator has one state per library, and one set of signal handlers


@contextlib.contextmanager
def _changed(**changes: Any) -> Iterator[None]:
    global _settings
    before = _settings
    _settings = dataclasses.replace(before, **changes)
    try:
        yield
    finally:
        _settings = before


def schedule(name: str, seed: int = 1) -> contextlib.AbstractContextManager[None]:
    """
    Run all launches inside the ``with`` in the given order of threads.

    Parameters
    ----------
    name : str
        "forward", "reverse", "random" (with preemption at atomics and fences) or "warps_reversed".
    seed : int
        For "random".

    Returns
    -------
    context manager
        Restores the earlier schedule at its end.
    """
    return _changed(schedule=name, seed=seed)


def copying(enabled: bool) -> contextlib.AbstractContextManager[None]:
    """
    Switch the guarded copies of array arguments on or off; off saves time in long runs and finds fewer defects.

    Parameters
    ----------
    enabled : bool
        False passes the arrays' own memory to the kernel.

    Returns
    -------
    context manager
        Restores the earlier setting at its end.
    """
    return _changed(copy=enabled)


class _LaunchOptions(ctypes.Structure):
    """Mirrors LaunchOptions in runtime.h."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("schedule", ctypes.c_int),
        ("seed", ctypes.c_uint),
        ("unordered_blocks", ctypes.c_int),
    )


class Module:
    """
    Compiles a CUDA source with the host's compiler; stands in for ``cupy.RawModule``.

    Parameters
    ----------
    code : str, optional
        The source.
    path : str, optional
        Or the file that holds it.
    options : sequence of str
        NVRTC's options. ``-D`` is kept, the rest says nothing to the host.
    backend : str
        Accepted as CuPy does.
    sanitizer : str, optional
        "" (none), "asan" (addresses and undefined behaviour; only in a process started by `run_pytest_sanitized`),
        "ubsan" (undefined behaviour, anywhere) or "tsan" (data races, as "asan").  Default: the environment's
        EMULATOR_SANITIZER.

    Raises
    ------
    TypeError
        If not exactly one of `code` and `path` is given.
    ValueError
        If the sanitizer is unknown.
    """

    def __init__(
        self,
        *,
        code: str | None = None,
        path: str | None = None,
        options: Sequence[str] = (),
        backend: str = "nvrtc",
        sanitizer: str | None = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("give either code or path")
        self.code = Path(path).read_text() if path is not None else code
        self.name = os.path.basename(path) if path is not None else "kernel.cu"
        self.options = tuple(options)
        self.backend = backend
        self.sanitizer = os.environ.get("EMULATOR_SANITIZER", "") if sanitizer is None else sanitizer
        if self.sanitizer not in SANITIZERS:
            raise ValueError(f"sanitizer must be one of {SANITIZERS}, not {self.sanitizer!r}")
        self._library: ctypes.CDLL | None = None

    def compile(self, log_stream: object = None) -> None:
        """
        Compile now; otherwise the first `get_function` does, as with CuPy.

        Parameters
        ----------
        log_stream : object
            Accepted as CuPy does.

        Raises
        ------
        CompileError
            If the compiler refuses the source.
        """
        if self._library is None:
            self._library = ctypes.CDLL(str(build(self.code, _definitions(self.options), self.sanitizer, self.name)))

    def get_function(self, name: str) -> Kernel:
        """
        Find a kernel by name.

        Parameters
        ----------
        name : str
            Name of an ``extern "C" __global__`` function.

        Returns
        -------
        Kernel
            Called as ``kernel(grid, block, args, shared_mem=0)``.

        Raises
        ------
        AttributeError
            If the source has no such kernel.
        """
        self.compile()
        if name not in kernel_names(self.code):
            raise AttributeError(f'no kernel {name!r}; extern "C" kernels: {", ".join(kernel_names(self.code))}')
        return Kernel(self._library, name, on_heap=self.sanitizer in {"asan", "tsan"})


def _definitions(options: Sequence[str]) -> tuple[str, ...]:
    """The macro definitions among NVRTC's options, in each of its spellings."""
    found, rest = [], iter(options)
    for option in rest:
        if option in {"-D", "--define-macro"}:
            found.append("-D" + next(rest))
        elif option.startswith("--define-macro="):
            found.append("-D" + option.removeprefix("--define-macro="))
        elif option.startswith("-D"):
            found.append("-D" + option[2:].strip())
    return tuple(found)


class Kernel:
    """One kernel of a `Module`; stands in for ``cupy.RawKernel``."""

    def __init__(self, library: ctypes.CDLL, name: str, on_heap: bool) -> None:
        self.name = name
        self.max_dynamic_shared_size_bytes = DEFAULT_SHARED_LIMIT
        self._on_heap = on_heap
        self._launch = getattr(library, f"emulator_launch_{name}")
        describe = getattr(library, f"emulator_parameters_{name}")
        describe.restype = ctypes.c_char_p
        self.parameters = tuple(describe().decode().split(",")[:-1])  # such as ("const f4*", "i8")

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *, shared_mem: int = 0) -> None:
        """
        Run the kernel to its end.

        Parameters
        ----------
        grid, block : sequence of 1 to 3 int
            Number of blocks, and of threads in each.
        args : sequence
            NumPy arrays for pointers (None: a null pointer), NumPy scalars or Python numbers for the rest.
        shared_mem : int
            Bytes of dynamic shared memory.

        Raises
        ------
        TypeError
            If an argument does not fit the kernel's parameter.
        LaunchError
            If the kernel does something undefined.
        """
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, {len(args)} given")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            limit = self.max_dynamic_shared_size_bytes
            raise LaunchError(f"{self.name}: {shared_mem} bytes of shared memory, more than its limit of {limit}")
        for i, (value, parameter) in enumerate(zip(args, self.parameters, strict=True)):
            self._check(i, value, parameter)
        if not _settings.copy:
            self._run(grid, block, [_packed(value) for value in args], shared_mem)
            return
        pairs = zip(args, self.parameters, strict=True)
        arrays = [(value, not p.startswith("const ")) for value, p in pairs if isinstance(value, np.ndarray)]
        copies = ArgumentCopies(arrays, self._on_heap)
        try:
            self._run(grid, block, [_packed(value, copies) for value in args], shared_mem)
            if copies.damaged():
                raise LaunchError(f"{self.name}: write next to an array of {copies.damaged()[0]} bytes")
            copies.write_back()
        finally:
            copies.close()

    def _check(self, i: int, value: Any, parameter: str) -> None:
        """Raise TypeError unless `value` fits the `i`-th parameter."""
        is_pointer = parameter.endswith("*")
        wanted = parameter.removeprefix("const ").removesuffix("*")
        complaint = ""
        if isinstance(value, np.ndarray) or value is None:
            if not is_pointer:
                complaint = "an array where a number belongs"
            elif value is not None:
                complaint = _array_complaint(value, wanted, writable=not parameter.startswith("const "))
        elif not isinstance(value, (bool, int, float, np.generic)):
            complaint = f"{type(value).__name__} is neither an array nor a number"
        elif is_pointer:
            complaint = "a number where an array belongs"
        else:
            dtype = np.asarray(value).dtype
            if dtype.itemsize != int(wanted[1:]) or (dtype.kind == "f") != (wanted[0] == "f"):
                complaint = f"a number of type {dtype}"
        if complaint:
            raise TypeError(f"{self.name}, argument {i}, declared as {parameter}: {complaint}")

    def _run(self, grid: Sequence[int], block: Sequence[int], values: list[Any], shared_mem: int) -> None:
        pointers = (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(value) for value in values))
        options = _LaunchOptions(
            _three(grid),
            _three(block),
            shared_mem,
            SCHEDULES.index(_settings.schedule),
            _settings.seed & 0xFFFFFFFF,
            os.environ.get("EMULATOR_TSAN_GRID", "0") != "0",
        )
        error = ctypes.create_string_buffer(1024)
        with _launch_lock:
            failed = self._launch(ctypes.byref(options), pointers, error, ctypes.c_size_t(len(error)))
        if failed:
            raise LaunchError(f"{self.name}: {error.value.decode()}")


def _array_complaint(array: np.ndarray, wanted: str, writable: bool) -> str:
    """What is wrong with an array for a pointer to `wanted`, or an empty string."""
    kind = {"f": "f", "i": "i", "u": "u", "b": "u"}.get(array.dtype.kind, "?")
    bytes_alike = array.itemsize == 1 and wanted in {"i1", "u1"}  # char's sign is the compiler's choice
    if wanted[0] != "s" and f"{kind}{array.itemsize}" != wanted and not bytes_alike:
        return f"an array of {array.dtype}"
    if not array.dtype.isnative:
        return "an array in foreign byte order"
    if not array.flags.c_contiguous:
        return "an array that is not C-contiguous"
    if writable and not array.flags.writeable:
        return "a read-only array where the kernel may write"
    return ""


def _packed(value: Any, copies: ArgumentCopies | None = None) -> Any:
    """The argument as a ctypes object of 8 bytes whose address goes to the kernel."""
    if value is None:
        return ctypes.c_void_p(0)
    if isinstance(value, np.ndarray):
        return ctypes.c_void_p(copies.address(value) if copies else value.ctypes.data)
    return ctypes.c_uint64.from_buffer_copy(np.asarray(value).tobytes().ljust(8, b"\0"))


def _three(sizes: Sequence[int]) -> Any:
    """A grid or block as three numbers; sizes that do not fit become 0, which the launch refuses."""
    values = [int(size) for size in sizes] if 1 <= len(sizes) <= 3 else [0]
    values += [1] * (3 - len(values))
    return (ctypes.c_uint * 3)(*(value if 0 < value <= _MAX_ARGUMENT else 0 for value in values))
