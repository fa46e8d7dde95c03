"""A table as it was read: columns by name or place, with or without a header."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError, shown

INDEX_NAMES = ("", "Unnamed: 0", "rownames")  # what an index is called that was written as a column


@dataclass(frozen=True)
class Table:
    """Columns of numbers, booleans or text, the target not yet told from the features.

    Attributes
    ----------
    frame : pandas.DataFrame
        n rows; its columns are numbered as in the file, missing cells are NaN.
    names : tuple of str
        Names of the columns; made up (``column 0``, ...) where the file has none.
    named : bool
        Whether the names come from the file.
    notes : tuple of str
        What was guessed when it was read.
    place : callable
        From the number of a row to where it is: ``line 3``.
    words : callable
        From the number of a column in the file to its cells as they are written, a pandas.Series.
    """

    frame: Any
    names: tuple[str, ...]
    named: bool
    notes: tuple[str, ...] = ()
    place: Callable[[int], str] = "row {} (counted from 0)".format
    words: Callable[[int], Any] | None = None

    @property
    def values(self) -> np.ndarray:
        """All columns as numbers, (n, columns) float64."""
        return self.frame.to_numpy(np.float64)

    def text(self, column: int) -> Any:
        """Return the cells of a column as they are written, a pandas.Series of text or missing cells."""
        if self.words is not None:
            return self.words(self.frame.columns[column])
        cells = self.frame.iloc[:, column]
        return cells.map(str, na_action="ignore").astype(object)

    def find(self, column: str) -> int:
        """Return the position of a column: see :func:`find`."""
        return find(self.names, column)

    def without_index(self) -> Table:
        """Return the table without the column that names or counts its rows, if there is one."""
        if not self.named or len(self.names) < 2 or self.names[0] not in INDEX_NAMES or not _tells_rows(self):
            names = tuple(name or f"column {k}" for k, name in enumerate(self.names))
            return replace(self, names=names)
        name = f"'{self.names[0]}'" if self.names[0] else "without a name"
        note = f"the first column, {name}, tells rows apart and is left out"
        names = tuple(name or f"column {k}" for k, name in enumerate(self.names[1:], 1))
        return replace(self, frame=self.frame.iloc[:, 1:], names=names, notes=(*self.notes, note))

    def without_empty_end(self) -> Table:
        """Return the table without a last column that has neither a name nor cells: lines that end in a delimiter."""
        last = len(self.names) - 1
        if not last or not self.frame.iloc[:, last].isna().all() or self.names[last] != f"column {last}":
            return self
        note = "the last column is empty and left out"
        return replace(self, frame=self.frame.iloc[:, :last], names=self.names[:last], notes=(*self.notes, note))


def _tells_rows(table: Table) -> bool:
    """Tell whether the first column has another whole number, or (where it has no name) another word, in each row."""
    cells = table.frame.iloc[:, 0]
    if not cells.is_unique or cells.isna().any() or len(cells) < 2:
        return False
    if cells.dtype.kind in "iu":
        return not table.names[0] or bool(np.array_equal(cells - cells.iloc[0], np.arange(len(cells))))
    return not table.names[0] and cells.dtype.kind not in "bfc"


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
    if re.fullmatch(r"[+-]?\d{1,9}", column, re.ASCII) and -count <= int(column) < count:
        return int(column) % count
    raise DataError(
        f"there is no column '{shown(column)}' among the {count} columns ({some(names)}); "
        f"give a name or an index from 0 to {count - 1} (-1 is the last)"
    )


def find_all(names: tuple[str, ...], columns: str) -> list[int]:
    """Return the positions of columns given by names or indices with commas between them, in this order.

    Parameters
    ----------
    names : tuple of str
        Names of all columns.
    columns : str
        One name (which may hold commas) or index, or several.

    Returns
    -------
    list of int
        Different positions.

    Raises
    ------
    DataError
        If a column does not exist, or is named twice.
    """
    if "," not in columns or columns in names:
        return [find(names, columns)]
    found = [find(names, part.strip()) for part in columns.split(",")]
    if len(set(found)) < len(found):
        raise DataError(f"'{shown(columns)}' names a column twice; give each once")
    return found


def some(names: Sequence[str], limit: int = 6) -> str:
    """Return the first names as a message may show them."""
    first = ", ".join(f"'{shown(name)}'" for name in names[:limit])
    return first + (", ..." if len(names) > limit else "")
