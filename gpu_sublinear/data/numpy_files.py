"""Arrays of .npz and .npy files, with errors that name the place.

Nothing read here can run code: pickled arrays are refused.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from ..errors import DataError, shown
from .contents import read_bytes
from .preprocessing import as_points, as_targets

T = TypeVar("T")


def read_npy(path: Path) -> np.ndarray:
    """Read a two-dimensional array, one row per point.

    Parameters
    ----------
    path : Path
        A .npy file.

    Returns
    -------
    numpy.ndarray
        (n, columns) float64, finite.

    Raises
    ------
    DataError
        If the file is damaged or pickled, or its array is not two-dimensional, finite and numeric.
    """
    array: np.ndarray = _load_numpy(path, lambda file: _read_array(file, file.getbuffer().nbytes))
    if array.ndim != 2:
        raise DataError(f"'{path}' holds an array of shape {array.shape}; give rows of points (n, columns)")
    return as_points(array, f"'{path}'")


def read_npz(
    path: Path, target: str = "y", required: bool = True, labels: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the points ``X`` and their targets.

    Parameters
    ----------
    path : Path
        A .npz file.
    target : str
        Key of the targets.
    required : bool
        Whether the targets must be there.
    labels : bool
        Whether the targets are class labels: numbers or words.

    Returns
    -------
    X : numpy.ndarray
        (n, d) float64.
    y : numpy.ndarray or None
        (n,) or (n, c) float64, or (n,) labels as they are; None where they are neither there nor required.

    Raises
    ------
    DataError
        If the file is damaged or pickled, lacks a key, or its arrays do not fit together.
    """
    arrays: dict[str, Any] = _load_numpy(path, lambda file: _read_archive(file, ("X", target)))
    for key in ("X", target) if required else ("X",):
        if key not in arrays:
            known = shown(", ".join(sorted(arrays)), 200) or "none"
            raise DataError(f"'{path}' has no array '{shown(key)}' (it has: {known}); save it with X=... and y=...")
    X = as_points(arrays["X"], f"'{path}': X")
    y = arrays.get(target)
    name = f"'{path}': {target}"
    if y is not None and labels:
        y = np.asarray(y)
        if y.shape != (len(X),) or y.dtype.kind not in "biufUS":
            raise DataError(
                f"{name} has shape {y.shape} and type {y.dtype}; give one label for each of {len(X)} points"
            )
        return X, y.astype(str) if y.dtype.kind == "S" else y
    return X, None if y is None else as_targets(y, len(X), name, several=True)


def _read_archive(file: io.BytesIO, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return the wanted arrays by key; other keys are there with None, unread."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {key: _read_member(archive, members[key]) if key in wanted else None for key in members}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # an LZMA dictionary may take 4 GiB
        raise ValueError("it is compressed in a way that numpy.savez never does")
    with archive.open(info) as member:
        return _read_array(member, info.file_size)


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """Read an array from ``size`` bytes, if they can be there: NumPy allocates what a header promises."""
    formats = np.lib.format
    version = formats.read_magic(file)
    # version 3.0 is 2.0 with names of fields in UTF-8, and arrays with fields are refused later
    read_header = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
    shape, _, dtype = read_header(file)
    needed, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if needed > left and not dtype.hasobject:
        raise ValueError(f"its header promises {needed} bytes, and {left} are there")
    file.seek(0)
    return formats.read_array(file, allow_pickle=False)


def _load_numpy(path: Path, read: Callable[[io.BytesIO], T]) -> T:
    content = read_bytes(path)
    try:
        return read(io.BytesIO(content))
    except Exception as error:  # damaged files make the parsers beneath raise errors of a dozen classes
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    if "allow_pickle" in str(error) or "Object arrays" in str(error):
        return DataError(f"'{path}' holds pickled objects, which are never loaded; save plain arrays of numbers")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"'{path}' is damaged or not a NumPy file ({shown(reason, 200)}); save it again")
