"""
Compile CUDA sources with NVRTC, which needs neither a GPU nor a driver, and read what each kernel costs.

Run as a program, it prints a table for all kernels of the product, and rewrites the budget of registers::

    python -m tests.cuda_emulator.nvrtc [--write-budget]
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import functools
import importlib.metadata
import json
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ARCHITECTURES = (75, 80, 90, 100, 120)
DTYPES = ("float32", "float64")
BUDGET = Path(__file__).resolve().parents[1] / "kernel_budget.json"

_LIBRARY_NAME = re.compile(r"(libnvrtc\.so[.\d]*|nvrtc64_\w+\.dll)")
# ptxas -v: the name, then in any order of later lines the stack frame and spills, then registers and shared memory.
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_\w+'(.*?)(?=Compiling entry function|\Z)", re.DOTALL)
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_WARNING = re.compile(r"^.*\bwarning\b.*$", re.IGNORECASE | re.MULTILINE)


class NvrtcError(RuntimeError):
    """NVRTC refuses the source, or warns; the log follows."""


@dataclasses.dataclass(frozen=True)
class KernelUsage:
    """What one kernel uses per thread (registers; bytes of spills and stack) and per block (bytes of shared memory)."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A cubin, the log of its compilation, and the usage of each kernel in it."""

    cubin: bytes
    log: str
    kernels: dict[str, KernelUsage]


def nvrtc_or_reason() -> tuple[Path | None, str]:
    """
    Find the newest NVRTC among the installed Python distributions.

    Returns
    -------
    tuple of (Path or None, str)
        The library and an empty string, or None and the reason why there is none.
    """
    found = []
    for distribution in importlib.metadata.distributions():
        if "nvrtc" not in (distribution.metadata["Name"] or "").lower():
            continue
        for file in distribution.files or ():
            if _LIBRARY_NAME.fullmatch(file.name):
                version = tuple(int(part) for part in re.findall(r"\d+", distribution.version))
                found.append((version, Path(str(distribution.locate_file(file)))))
    existing = [entry for entry in found if entry[1].exists()]
    if not existing:
        return None, "no installed distribution holds NVRTC; pip install nvidia-cuda-nvrtc"
    return max(existing)[1], ""


@functools.cache
def _library() -> ctypes.CDLL:
    path, reason = nvrtc_or_reason()
    if path is None:
        raise RuntimeError(reason)
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def compiler_options(options: Sequence[str], architecture: int) -> list[str]:
    """
    All options of a compilation: ours, then what CuPy appends, then what makes NVRTC strict and talkative.

    Parameters
    ----------
    options : sequence of str
        Ours.
    architecture : int
        Such as 90 for sm_90.

    Returns
    -------
    list of str
        In their order; of contradicting ones the last counts.
    """
    cupy = ["-ftz=true", f"-arch=sm_{architecture}", "--device-as-default-execution-space"]
    return [*options, *cupy, "-Werror=all-warnings", "--ptxas-options=-v"]


def compile_source(source: str, architecture: int, options: Sequence[str] = (), name: str = "kernel.cu") -> Compiled:
    """
    Compile to a cubin.

    Parameters
    ----------
    source : str
        One translation unit.
    architecture : int
        Such as 90 for sm_90.
    options : sequence of str
        Further options, before CuPy's.
    name : str
        What messages call the source.

    Returns
    -------
    Compiled
        The cubin and what its kernels use.

    Raises
    ------
    NvrtcError
        For errors and warnings of the compiler and the assembler.
    """
    library = _library()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        given = [option.encode() for option in compiler_options(options, architecture)]
        status = library.nvrtcCompileProgram(program, len(given), (ctypes.c_char_p * len(given))(*given))
        log = _read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if status:
            raise NvrtcError(f"{name}, sm_{architecture}: {library.nvrtcGetErrorString(status).decode()}\n{log}")
        warnings = _WARNING.findall(log)  # ptxas' own; NVRTC's are errors already
        if warnings:
            raise NvrtcError(f"{name}, sm_{architecture}: " + "\n".join(warnings))
        return Compiled(_read(program, "CUBIN"), log, parse_usage(log))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def parse_usage(log: str) -> dict[str, KernelUsage]:
    """
    Read the usage of each kernel from the words of ``ptxas -v``.

    Parameters
    ----------
    log : str
        NVRTC's log.

    Returns
    -------
    dict of str to KernelUsage
        By the kernel's name.

    Raises
    ------
    NvrtcError
        If an entry lacks a figure: then ptxas speaks differently, and silence would pass for zero spills.
    """
    usage = {}
    for name, text in _ENTRY.findall(log):
        stack, registers, shared = _STACK.search(text), _REGISTERS.search(text), _SHARED.search(text)
        if not stack or not registers:
            raise NvrtcError(f"cannot read what ptxas says about {name}:\n{text}")
        frame, stores, loads = (int(figure) for figure in stack.groups())
        usage[name] = KernelUsage(int(registers[1]), stores, loads, frame, int(shared[1]) if shared else 0)
    return usage


def budget_complaints(
    usage: dict[str, KernelUsage], budget: dict[str, dict[str, int]], dtype: str, architecture: int
) -> list[str]:
    """
    Compare what kernels use with what they may use.

    Parameters
    ----------
    usage : dict of str to KernelUsage
        Of one compilation.
    budget : dict
        Most registers, by kernel and dtype.
    dtype : str
        The REAL of the compilation.
    architecture : int
        Its architecture.

    Returns
    -------
    list of str
        One sentence for each excess.
    """
    complaints = []
    for name, used in usage.items():
        where = f"{name}, {dtype}, sm_{architecture}"
        allowed = budget.get(name, {}).get(dtype)
        if used.spill_stores or used.spill_loads:
            complaints.append(f"{where}: spills {used.spill_stores} bytes out, {used.spill_loads} bytes in")
        if used.stack:
            complaints.append(f"{where}: {used.stack} bytes of local memory")
        if allowed is None:
            complaints.append(f"{where}: {used.registers} registers, but no budget in {BUDGET.name}")
        elif used.registers > allowed:
            complaints.append(f"{where}: {used.registers} registers, more than the budget of {allowed}")
    return complaints


def read_budget() -> dict[str, dict[str, int]]:
    """Most registers by kernel and dtype, as checked in; empty without the file."""
    return json.loads(BUDGET.read_text()) if BUDGET.exists() else {}


def compile_all(architecture: int) -> list[tuple[str, str, Compiled | NvrtcError]]:
    """
    Compile every kernel file of the product for both dtypes.

    Parameters
    ----------
    architecture : int
        Such as 90 for sm_90.

    Returns
    -------
    list of (str, str, Compiled or NvrtcError)
        File stem, dtype, and what came of it.
    """
    from gpu_sublinear.devices.cuda import sources as kernels

    def compile_one(job: tuple[str, str]) -> tuple[str, str, Compiled | NvrtcError]:
        name, dtype = job
        try:
            source = kernels.source(name, dtype)
            return name, dtype, compile_source(source, architecture, kernels.OPTIONS, f"{name}.cu")
        except NvrtcError as error:
            return name, dtype, error

    jobs = [(name, dtype) for name in kernels.names() for dtype in DTYPES]
    with ThreadPoolExecutor() as pool:  # ctypes lets go of the interpreter's lock
        return list(pool.map(compile_one, jobs))


def _read(program: ctypes.c_void_p, what: str) -> bytes:
    """The bytes behind a pair of functions nvrtcGet...Size and nvrtcGet...."""
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status:
        raise NvrtcError(_library().nvrtcGetErrorString(status).decode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table of all kernels; with ``--write-budget`` make today's registers the budget."""
    parser = argparse.ArgumentParser(description="Compile all kernels for all architectures and show what they use.")
    parser.add_argument("--write-budget", action="store_true", help=f"rewrite {BUDGET.name} with today's registers")
    write = parser.parse_args(arguments).write_budget
    budget: dict[str, dict[str, int]] = {}
    failures = 0
    row = "{:<32} {:<8} {:>6} {:>9} {:>11} {:>5} {:>6}\n"
    sys.stdout.write(row.format("kernel", "dtype", "arch", "registers", "spill bytes", "stack", "shared"))
    for architecture in ARCHITECTURES:
        for file, dtype, result in compile_all(architecture):
            if isinstance(result, NvrtcError):
                sys.stdout.write(f"{file}, {dtype}, sm_{architecture}: does not compile\n{result}\n")
                failures += 1
                continue
            for kernel, used in result.kernels.items():
                spills = used.spill_stores + used.spill_loads
                arch = f"sm_{architecture}"
                sys.stdout.write(row.format(kernel, dtype, arch, used.registers, spills, used.stack, used.shared))
                entry = budget.setdefault(kernel, {})
                entry[dtype] = max(entry.get(dtype, 0), used.registers)
    if write and not failures:
        BUDGET.write_text(json.dumps(budget, indent=2, sort_keys=True) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
