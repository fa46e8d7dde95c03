"""The report of ``gpu-sublinear doctor``: what is installed, what works, what to do for the rest.

Every probe is guarded: whatever is broken, the report goes on and says so.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..devices import get_device
from ..environment import cpu_model, git_commit, module_version, package_version, usable_cores
from ..errors import GpuSublinearError

INSTALL_CUDA = (
    "pip install 'gpu-sublinear[cuda13]'  (driver 580 or newer)",
    "pip install 'gpu-sublinear[cuda12]'  (driver 525 or newer)",
)


def report() -> Iterator[str]:
    """Return the lines of the report, each as soon as it is known.

    Yields
    ------
    str
        One or more lines of text.
    """
    yield "gpu-sublinear doctor"
    for name, probe in PROBES.items():
        yield f"  {name:<13} {guarded(probe)}"
    yield ""
    yield from _advice()


def guarded(probe: Callable[[], str]) -> str:
    """Return what a probe says, or in one line why it failed."""
    try:
        return probe()
    except Exception as error:  # the report must always print
        return f"does not work: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


# ---- what runs everywhere -------------------------------------------------------------------------------


def _package() -> str:
    commit = git_commit()
    return package_version() + (f", commit {commit}" if commit else "")


def _python() -> str:
    return f"{platform.python_version()} ({platform.python_implementation()}), {platform.platform()}"


def _processor() -> str:
    return f"{cpu_model()}, {usable_cores()} usable cores"


def _version(module: str, missing: str = "not installed") -> Callable[[], str]:
    return lambda: module_version(module) or missing


def _numba() -> str:
    """Compile and run one parallel function."""
    import numba

    def total(values: np.ndarray) -> float:
        result = 0.0
        for k in numba.prange(len(values)):
            result += values[k]
        return result

    begin = time.perf_counter()
    answer = numba.njit(parallel=True)(total)(np.ones(1000))
    if answer != 1000:
        raise ArithmeticError(f"a compiled sum of 1000 ones gave {answer}")
    return (
        f"{numba.__version__}, compiled and ran a parallel function in {time.perf_counter() - begin:.1f} s "
        f"({numba.get_num_threads()} threads, {numba.threading_layer()})"
    )


# ---- CUDA -----------------------------------------------------------------------------------------------


def cupy_wheels() -> list[str]:
    """Return the installed distributions that bring a module called cupy, with their versions."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = str(distribution.metadata["Name"] or "").lower().replace("_", "-")
        if re.fullmatch(r"cupy(-cuda\d+x?|-rocm-[\d-]+)?", name):
            found[name] = distribution.version
    return [f"{name} {version}" for name, version in sorted(found.items())]


def _cupy() -> str:
    wheels = cupy_wheels()
    if not wheels:
        return "not installed (needed for NVIDIA GPUs only)"
    listed = ", ".join(wheels)
    if len(wheels) > 1:
        return f"{listed}: several wheels overwrite each other; uninstall all of them, then install one"
    return f"{listed}, imports as {_import_cupy().__version__}"


def _import_cupy() -> Any:
    return importlib.import_module("cupy")


def _driver() -> str:
    if cupy_wheels():
        code = int(_import_cupy().cuda.runtime.driverGetVersion())
        if code:
            return f"supports CUDA up to {code // 1000}.{code % 1000 // 10}{_smi_version()}"
    return _smi_version().removeprefix(", ") or "not found"


def _smi_version() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.split()
    return f", version {lines[0]}" if lines else ""


def _nvrtc() -> str:
    if cupy_wheels():
        return ".".join(map(str, importlib.import_module("cupy.cuda.nvrtc").getVersion()))
    for name in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            return f"{importlib.metadata.version(name)} (wheel {name}; CuPy, which would use it, is not installed)"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed (comes with CuPy)"


def _gpus() -> str:
    if not cupy_wheels():
        return "not looked for: CuPy is not installed"
    runtime = _import_cupy().cuda.runtime
    gpus = [runtime.getDeviceProperties(k) for k in range(runtime.getDeviceCount())]
    return ", ".join(map(_gpu, gpus)) or "none found"


def _gpu(properties: dict[str, Any]) -> str:
    name, gib = properties["name"], properties["totalGlobalMem"] / 2**30
    text = name.decode() if isinstance(name, bytes) else str(name)
    return f"{text} (sm_{properties['major']}{properties['minor']}, {gib:.0f} GiB)"


def _kernel() -> str:
    """Draw a few weights on the GPU with one of our kernels and compare them with the reference device."""
    if not cupy_wheels():
        return "not tried: CuPy is not installed"
    begin = time.perf_counter()
    device = get_device("cuda")
    drawn = device.to_host(device.normal_rows(7, 0, 16, 3, "float32"))  # (16, 3)
    seconds = time.perf_counter() - begin
    expected = get_device("reference").normal_rows(7, 0, 16, 3, "float32")  # (16, 3)
    if not np.allclose(drawn, expected, rtol=1e-5, atol=1e-6):
        raise ArithmeticError("a kernel ran but gave wrong numbers; please report this with the lines above")
    return f"compiled and ran one in {seconds:.1f} s, right answer"


# ---- what to do -----------------------------------------------------------------------------------------


def _advice() -> Iterator[str]:
    """Say which device ``auto`` takes and why, and how to get the others."""
    try:
        get_device("cuda")
    except GpuSublinearError as error:
        reason = " ".join(str(error).split())
    except Exception as error:
        reason = f"probing CUDA failed: {_one_line(error)}"
    else:
        yield "Device 'auto' is cuda: it compiled and ran a kernel on this GPU."
        yield "The others need nothing more: --device cpu (Numba), --device reference (NumPy, slow)."
        return
    yield f"Device 'auto' {_automatic()}, because cuda is not available:"
    yield f"  {reason}"
    yield "To use the others:"
    yield "  --device reference  needs nothing more (NumPy only, slow)"
    yield "  --device cuda       needs an NVIDIA GPU and one of"
    yield from (f"                        {line}" for line in INSTALL_CUDA)
    if not _smi_version():
        yield "No NVIDIA driver was found here, and none is needed: every command runs on the processor."


def _automatic() -> str:
    """Return the rest of a sentence that begins with the device."""
    try:
        return f"is {get_device('auto').name}"
    except Exception as error:  # the report must always print
        return f"does not work ({_one_line(error)})"


PROBES: dict[str, Callable[[], str]] = {
    "package": _package,
    "Python": _python,
    "processor": _processor,
    "NumPy": _version("numpy"),
    "SciPy": _version("scipy"),
    "scikit-learn": _version("sklearn"),
    "safetensors": _version("safetensors"),
    "Numba": _numba,
    "matplotlib": _version("matplotlib", "not installed (figures: pip install 'gpu-sublinear[plot]')"),
    "CuPy": _cupy,
    "driver": _driver,
    "NVRTC": _nvrtc,
    "GPU": _gpus,
    "kernel": _kernel,
}
