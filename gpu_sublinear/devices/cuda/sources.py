"""The CUDA sources: where they lie, how one becomes a translation unit, and who compiles it, once.

A checkout keeps them in ``kernels/`` at its root, a wheel in ``gpu_sublinear/kernels/``.  One unit is one operation for
one data type: the macro ``REAL``, then ``common.cuh``, then the ``.cu`` file.  Nothing is ``#include``d, because CuPy's
disk cache knows the source text only, and nothing is a C++ template at the boundary, because older CuPy recompiled
those in every process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import KernelCompileError

# --fmad=false guards sums that are spelt with + and *; what decides uses helpers that never fuse, whatever the flag.
OPTIONS = ("--std=c++17", "--fmad=false")
C_TYPES = {"float32": "float", "float64": "double"}
HEADER = "common.cuh"

_log = logging.getLogger(__name__)


@cache
def folder() -> Any:
    """Return the folder of the sources, of an installed wheel or of a checkout.

    Returns
    -------
    importlib.resources.abc.Traversable
        The folder, with ``common.cuh`` in it.

    Raises
    ------
    FileNotFoundError
        If neither place has the sources: a damaged installation.
    """
    installed = files("gpu_sublinear") / "kernels"
    checkout = Path(__file__).resolve().parents[3] / "kernels"
    for place in (installed, checkout):
        if (place / HEADER).is_file():
            return place
    raise FileNotFoundError(
        f"no CUDA sources in {installed} or {checkout}; the installation is damaged: reinstall gpu-sublinear"
    )


def names() -> tuple[str, ...]:
    """Return the stems of all ``.cu`` files, sorted."""
    return tuple(sorted(entry.name[:-3] for entry in folder().iterdir() if entry.name.endswith(".cu")))


@cache
def source(name: str, dtype: str) -> str:
    """Return one translation unit.

    Parameters
    ----------
    name : str
        Stem of a ``.cu`` file, one of :func:`names`.
    dtype : str
        ``"float32"`` or ``"float64"``: what ``REAL`` is.

    Returns
    -------
    str
        The source; ``#line`` directives make messages name the file that is to blame.
    """
    parts = [f"#define REAL {C_TYPES[dtype]}"]
    for file in (HEADER, f"{name}.cu"):
        parts += [f'#line 1 "{file}"', (folder() / file).read_text(encoding="utf-8")]
    return "\n".join(parts)


class KernelLoader:
    """Compiles each translation unit once per process and remembers failures.

    Parameters
    ----------
    make_module : callable
        ``make_module(code=..., options=...)`` returns an object whose ``get_function(name)`` is launchable as
        ``function(grid, block, args, shared_mem=0)``: ``cupy.RawModule``, or the emulator's stand-in.
    architecture : str
        For messages, such as ``"sm_90"``.
    """

    def __init__(self, make_module: Callable[..., Any], architecture: str):
        self.architecture = architecture
        self._make_module = make_module
        self._modules: dict[tuple[str, str], Any] = {}
        self._functions: dict[tuple[str, str, str], Any] = {}
        self._failures: dict[tuple[str, str], KernelCompileError] = {}

    def get(self, name: str, function: str, dtype: str) -> Any:
        """Return a launchable function.

        Parameters
        ----------
        name : str
            Stem of the ``.cu`` file.
        function : str
            Name of the ``extern "C"`` kernel in it.
        dtype : str
            ``"float32"`` or ``"float64"``.

        Returns
        -------
        callable
            Called as ``function(grid, block, args, shared_mem=0)``.

        Raises
        ------
        KernelCompileError
            If the file does not compile here, now or at an earlier try.
        """
        key = (name, function, dtype)
        if key not in self._functions:
            self._functions[key] = self._compile(*key)
        return self._functions[key]

    def _compile(self, name: str, function: str, dtype: str) -> Any:
        unit = (name, dtype)
        if unit in self._failures:
            raise self._failures[unit]
        try:
            if unit not in self._modules:
                _log.debug("compiling %s.cu for %s, %s", name, dtype, self.architecture)
                self._modules[unit] = self._make_module(code=source(name, dtype), options=OPTIONS)
            return self._modules[unit].get_function(function)
        except Exception as cause:  # NVRTC, its headers, the driver: each has classes of its own, none public
            self._failures[unit] = self._failure(name, dtype, cause)
            raise self._failures[unit] from cause

    def _failure(self, name: str, dtype: str, cause: Exception) -> KernelCompileError:
        return KernelCompileError(
            f"kernels/{name}.cu does not compile for {self.architecture} with REAL = {C_TYPES[dtype]}: "
            f"{type(cause).__name__}: {cause}\n"
            "Update CuPy and its CUDA toolkit wheels (pip install -U 'gpu-sublinear[cuda12]' or [cuda13]) if they do "
            'not know this GPU; otherwise report this message.  device="cpu" works without a GPU.'
        )
