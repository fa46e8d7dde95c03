"""Find the host compiler, build shared libraries from kernel sources, and keep them in a cache."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SANITIZERS = ("", "asan", "ubsan", "tsan")

_FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",  # CUDA code reinterprets shared memory
    "-ffp-contract=off",  # a host FMA where the source has none would hide differences
    "-w",  # warnings about the source are NVRTC's business
)
_UNDEFINED = ("-fno-sanitize-recover=undefined", "-fno-sanitize=vptr")
# The kernel's instrumentation; the scheduler itself gets only the definitions (see runtime.h).
_INSTRUMENTATION = {
    "": ("-O2",),
    "asan": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", *_UNDEFINED),
    "ubsan": ("-O1", "-fsanitize=undefined", *_UNDEFINED),
    "tsan": ("-O1", "-g1", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
_LINK = {"": (), "asan": ("-fsanitize=address",), "ubsan": (), "tsan": ("-fsanitize=thread",)}

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(r'extern\s+"C"\s+((?:__global__|void|__launch_bounds__\s*\([^)]*\)|\s)+)\b(\w+)\s*\(')
_DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+(?:__align__\s*\(\s*\d+\s*\)\s*)?([\w:<>\s]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)


class CompileError(RuntimeError):
    """The host compiler refuses the source; its message follows."""


def compiler_or_reason() -> tuple[str | None, str]:
    """
    Find a C++ compiler: ``$CXX``, else g++, c++ or clang++.

    Returns
    -------
    tuple of (str or None, str)
        The compiler's path and an empty string, or None and the reason why there is none.
    """
    if not sys.platform.startswith("linux"):
        return None, f"the CUDA emulator needs Linux, this is {sys.platform}"
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++", "clang++"]
    for name in wanted:
        path = shutil.which(name)
        if path:
            return path, ""
    return None, f"no C++ compiler: {' or '.join(wanted)} not found; install g++ or set CXX"


def kernel_names(source: str) -> tuple[str, ...]:
    """Names of the ``extern "C" __global__ void`` functions in `source`, in their order."""
    found = _KERNEL.findall(_COMMENT.sub(" ", source))
    return tuple(dict.fromkeys(name for head, name in found if "__global__" in head))


def build(source: str, definitions: tuple[str, ...], sanitizer: str, name: str = "kernel.cu") -> Path:
    """
    Compile `source` and the emulator to a shared library, or take it from the cache.

    Parameters
    ----------
    source : str
        CUDA source, one translation unit.
    definitions : tuple of str
        Options ``-D...`` for the source.
    sanitizer : str
        One of `SANITIZERS`.
    name : str
        What messages call the source.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    CompileError
        If the compiler or the linker refuses.
    RuntimeError
        If there is no compiler.
    """
    compiler, reason = compiler_or_reason()
    if compiler is None:
        raise RuntimeError(reason)
    modes = [f"-DEMULATOR_{sanitizer.upper()}"] if sanitizer in {"asan", "tsan"} else []
    if os.environ.get("EMULATOR_UCONTEXT"):
        modes.append("-DEMULATOR_UCONTEXT")
    runtime = _cached(".o", [compiler, *_FLAGS, "-O2", *modes, "-c", str(HERE / "runtime.cpp")])
    # The regular expression keeps the line; `extern thread_local T name[]` could not be given a size at launch.
    body = _DYNAMIC_SHARED.sub(r"\1* \2 = reinterpret_cast<\1*>(emulator::dynamic_shared);", source)
    exports = "".join(f"EMULATOR_EXPORT({kernel})\n" for kernel in kernel_names(source))
    text = f'#line 1 "{name}"\n{body}\n#line 1 "exports of {name}"\n{exports}'
    flags = [*_FLAGS, *_INSTRUMENTATION[sanitizer], *modes, *definitions]
    include = ["-include", str(HERE / "emulator.h"), "-x", "c++", "-c", "-"]
    kernel = _cached(".o", [compiler, *flags, *include], text)
    return _cached(".so", [compiler, "-shared", *_LINK[sanitizer], str(kernel), str(runtime)])


@functools.cache
def _headers_digest() -> bytes:
    files = sorted(path for path in HERE.iterdir() if path.suffix in {".h", ".cpp"})
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).digest()


@functools.cache
def _compiler_version(compiler: str) -> bytes:
    return subprocess.run([compiler, "--version"], capture_output=True, env=_plain_environment()).stdout


def _plain_environment() -> dict[str, str]:
    """The environment without LD_PRELOAD: the compiler itself must not run under a sanitizer."""
    return {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    path = Path(base) / "cuda-emulator" if base else Path(tempfile.gettempdir()) / f"cuda-emulator-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _cached(suffix: str, command: list[str], text: str = "") -> Path:
    """Run `command -o FILE` unless FILE, named by everything it depends on, exists already."""
    parts = [_headers_digest(), _compiler_version(command[0]), "\0".join(command).encode(), text.encode()]
    target = _cache_directory() / (hashlib.sha256(b"\0\0".join(parts)).hexdigest()[:32] + suffix)
    if target.exists():
        return target
    handle, unfinished = tempfile.mkstemp(suffix=suffix, dir=target.parent)
    os.close(handle)
    try:
        result = subprocess.run(
            [*command, "-o", unfinished], input=text, text=True, capture_output=True, env=_plain_environment()
        )
        if result.returncode:
            raise CompileError(f"{command[0]} refuses the source:\n{result.stderr}")
        os.replace(unfinished, target)  # atomic: another process may build the same
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return target
