"""Tables of numbers from .csv, .npz and .npy files, with errors that name the place.

Nothing read here can run code: pickled arrays are refused.
"""

from __future__ import annotations

import csv
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from ..errors import DataError, shown
from .preprocessing import as_points, as_targets

SUFFIXES = (".csv", ".npz", ".npy")
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Columns of numbers, the target not yet told from the features.

    Attributes
    ----------
    values : numpy.ndarray
        (n, columns) float64, finite.
    names : tuple of str
        Names of the columns; made up (``column 0``, ...) where the file has none.
    named : bool
        Whether the names come from the file.
    labels : tuple of str or None
        The cells of the column that was read as text; zeros stand for it in ``values``.
    """

    values: np.ndarray
    names: tuple[str, ...]
    named: bool
    labels: tuple[str, ...] | None = None

    def find(self, column: str) -> int:
        """Return the position of a column: see :func:`find`."""
        return find(self.names, column)

    def without(self, columns: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the other columns (n, columns - c) and the given ones (n, c), or (n,) for one."""
        chosen = columns[0] if len(columns) == 1 else columns
        return np.delete(self.values, columns, axis=1), np.ascontiguousarray(self.values[:, chosen])


def find(names: tuple[str, ...], column: str) -> int:
    """Return the position of a column given by name, or by index from 0 (negative: from the end).

    Parameters
    ----------
    names : tuple of str
        Names of all columns.
    column : str
        The name or the index.

    Returns
    -------
    int
        The position, 0 or more.

    Raises
    ------
    DataError
        If there is no such column or several have this name.
    """
    if names.count(column) > 1:
        raise DataError(f"{names.count(column)} columns are called '{shown(column)}'; rename them or give an index")
    if column in names:
        return names.index(column)
    count = len(names)
    if re.fullmatch(r"[+-]?\d{1,9}", column) and -count <= int(column) < count:
        return int(column) % count
    raise DataError(
        f"there is no column '{shown(column)}' among the {count} columns ({_some(names)}); "
        f"give a name or an index from 0 to {count - 1} (-1 is the last)"
    )


def _some(names: tuple[str, ...], limit: int = 6) -> str:
    some = ", ".join(f"'{shown(name)}'" for name in names[:limit])
    return some + (", ..." if len(names) > limit else "")


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bytes
        All of it, not empty.

    Raises
    ------
    DataError
        If there is no such file, it cannot be read, or it is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no file '{path}'; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read '{path}': {reason}; give a file that you may read") from error
    if not content.strip():
        raise DataError(f"'{path}' is empty; give a file with one row per point")
    return content


# ---- CSV ------------------------------------------------------------------------------------------------


def read_csv(path: Path, text: Callable[[tuple[str, ...]], int | None] | None = None) -> Table:
    """Read a table of numbers, with or without a header line.

    The first line is a header when none of its cells is a number (the names ``0, 1, 2, ...`` aside).  Cells
    are separated by commas, or by tabs or semicolons if the first line has those.  Blank lines are skipped.

    Parameters
    ----------
    path : Path
        A UTF-8 file.
    text : callable, optional
        From the names to the column whose cells may be words: class labels.

    Returns
    -------
    Table
        All columns.

    Raises
    ------
    DataError
        If the file is empty, not UTF-8 text, ragged, or holds a cell that is not a finite number.
    """
    try:
        content = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    try:
        lines = list(_lines(content))
    except csv.Error as error:
        raise DataError(f"'{path}' is not a readable CSV file: {error}; save it again as CSV") from error
    if not lines:
        raise DataError(f"'{path}' is empty; give a file with one row per point")
    named = _is_header(lines[0][1])
    names = _names(lines[0][1], named)
    rows = lines[named:]
    if not rows:
        raise DataError(f"'{path}' has a header and no rows; give a file with one row per point")
    words = text(names) if text else None
    labels = None if words is None else tuple(_taken(path, number, cells, names, words) for number, cells in rows)
    values = np.array([_numbers(path, number, cells, names) for number, cells in rows])  # (n, columns)
    return Table(values, names, named, labels)


def _taken(path: Path, line: int, cells: list[str], names: tuple[str, ...], column: int) -> str:
    """Return the label of one line and put a number in its place."""
    if len(cells) <= column:
        return ""  # too few cells: _numbers says so
    label, cells[column] = cells[column], "0"
    if not label:
        raise DataError(f"'{path}', line {line}, column '{shown(names[column])}': the label is empty; fill it in")
    return label


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the stripped cells of every line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), skipinitialspace=True)
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if len(cells) > 1 or any(cells):
            yield reader.line_num, cells


def _delimiter(text: str) -> str:
    first = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    return next((mark for mark in "\t;" if mark in first), ",")


def _is_header(cells: list[str]) -> bool:
    """Tell a header from data: some cell is text, and none is a number except an index at its own place."""
    text = [cell for cell in cells if cell and _number(cell) is None]
    numbers = [(k, cell) for k, cell in enumerate(cells) if _number(cell) is not None]
    return bool(text) and all(cell == str(k) for k, cell in numbers)


def _names(first: list[str], named: bool) -> tuple[str, ...]:
    return tuple(cell if named and cell else f"column {k}" for k, cell in enumerate(first))


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _numbers(path: Path, line: int, cells: list[str], names: tuple[str, ...]) -> list[float]:
    """Return the cells of one line as numbers, or raise with the place of the first that is none."""
    if len(cells) != len(names):
        raise DataError(
            f"'{path}', line {line}: {len(cells)} cells, but the first line has {len(names)}; "
            "give every line the same number of cells"
        )
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if numbers and all(map(np.isfinite, numbers)) and not any("_" in cell for cell in cells):
        return numbers
    column = next(k for k, cell in enumerate(cells) if _number(cell) is None or not np.isfinite(float(cell)))
    raise DataError(f"'{path}', line {line}, column '{shown(names[column])}': {_complaint(cells[column])}")


def _complaint(cell: str) -> str:
    if not cell:
        return "the cell is empty; fill it in or remove the line"
    if _number(cell) is not None:
        return f"'{shown(cell, 40)}' is not finite; remove the line or fill in the value"
    advice = "encode text as numbers or remove the column (labels to predict: --classify)"
    return f"'{shown(cell, 40)}' is not a number; {advice}"


# ---- NumPy files ----------------------------------------------------------------------------------------


def read_npy(path: Path) -> Table:
    """Read a two-dimensional array, one row per point.

    Parameters
    ----------
    path : Path
        A .npy file.

    Returns
    -------
    Table
        All columns.

    Raises
    ------
    DataError
        If the file is damaged or pickled, or its array is not two-dimensional, finite and numeric.
    """
    array: np.ndarray = _load_numpy(path, lambda file: _read_array(file, file.getbuffer().nbytes))
    if array.ndim != 2:
        raise DataError(f"'{path}' holds an array of shape {array.shape}; give rows of points (n, columns)")
    values = as_points(array, f"'{path}'")
    return Table(values, tuple(f"column {k}" for k in range(values.shape[1])), named=False)


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
