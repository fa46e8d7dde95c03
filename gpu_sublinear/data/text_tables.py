"""Tables of text (.csv, .tsv, .txt, packed by gzip or not): parsed by pandas, checked line by line here.

Pandas fills lines that are too short and says nothing.  So its answer counts only where the number of delimiters shows
that every line is whole; any other table is taken apart by Python's reader first, which knows the lines.
"""

from __future__ import annotations

import csv
import io
import re
import warnings
from pathlib import Path
from typing import Any

from ..errors import DataError
from .contents import read_text
from .dialect import MISSING, Dialect, Header, end_of_line, find_dialect, is_number, records, unreadable
from .tables import Table

COMMENT = re.compile(rb"(?m)^[ \t]*#[^\n]*")


def read_text_table(path: Path, header: Header = "auto") -> Table:
    """Read a table of text.

    Parameters
    ----------
    path : Path
        A UTF-8 file, packed if its name ends in ``.gz``.
    header : {"auto", "yes", "no"}
        Whether the first line has names.

    Returns
    -------
    Table
        Columns of numbers, booleans and text; missing cells are NaN.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, or its lines have different numbers of cells.
    """
    content = read_text(path)
    comments = 0
    if b"#" in content:
        content, comments = COMMENT.subn(b"", content)  # the empty lines keep the count of lines
        if not content.strip():
            raise DataError(f"'{path}' has comments and no rows; give a file with one row per point")
    dialect = find_dialect(path, content, header)
    body = content[end_of_line(content, dialect.start) :]
    if not body.strip():
        raise DataError(f"'{path}' has a header and no rows; give a file with one row per point")
    body, plain, frame = _parsed(path, body, dialect)
    notes = dialect.notes
    if comments:
        notes = (f"{comments:,} line{'s' * (comments > 1)} that begin{'s' * (comments == 1)} with # left out", *notes)
    names = dialect.names or tuple(f"column {k}" for k in range(dialect.columns))
    return Table(
        frame,
        names,
        named=dialect.names is not None,
        notes=notes,
        place=lambda row: f"line {_line(path, content, dialect, row)}",
        words=lambda column: _stripped(_read(path, body, plain, dtype=str, usecols=[column])[column]),
    )


def _parsed(path: Path, body: bytes, dialect: Dialect) -> tuple[bytes, Dialect, Any]:
    """Return the rows as text, how this is written, and the frame; every line has its number of cells."""
    if dialect.delimiter != " " and b'"' not in body:
        try:
            with warnings.catch_warnings():  # of columns whose parts have different types
                warnings.simplefilter("ignore")
                frame = _read(path, body, dialect, low_memory=True)  # in parts, which is twice as fast
            if any(str(dtype) == "object" for dtype in frame.dtypes):
                frame = _read(path, body, dialect)
        except DataError:
            frame = None  # the exact reader finds the line
        cuts = body.count(dialect.delimiter.encode())
        if frame is not None and frame.shape[1] == dialect.columns and cuts == len(frame) * (dialect.columns - 1):
            return body, dialect, _settled(frame, dialect.decimal)
    body, count = _normal(path, body, dialect)
    plain = Dialect(",", dialect.decimal, dialect.names, dialect.columns, 0, ())
    frame = _read(path, body, plain)
    if frame.shape != (count, dialect.columns):
        raise DataError(f"'{path}' is not a readable table (quotes that do not match); save it again as CSV")
    return body, plain, _settled(frame, dialect.decimal)


def _read(path: Path, body: bytes, dialect: Dialect, low_memory: bool = False, **options: Any) -> Any:
    """Return what pandas makes of rows, columns numbered from 0."""
    import pandas as pd

    if tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1):
        options["float_precision"] = "round_trip"  # later versions always are exact
    try:
        return pd.read_csv(
            io.BytesIO(body),
            sep=dialect.delimiter,
            decimal=dialect.decimal,
            header=None,
            na_values=list(MISSING),
            keep_default_na=False,
            skipinitialspace=True,
            low_memory=low_memory,
            encoding="utf-8",
            **options,
        )
    except (ValueError, OverflowError, RecursionError, pd.errors.ParserError) as error:
        raise DataError(unreadable(path, error)) from error


def _normal(path: Path, body: bytes, dialect: Dialect) -> tuple[bytes, int]:
    """Return the rows as plain CSV, and their number; raise where a line has another number of cells."""
    found = records(path, body.decode("utf-8"), dialect.delimiter)
    for line, cells in found:
        if len(cells) != dialect.columns:
            raise DataError(
                f"'{path}', line {line + dialect.start}: {len(cells)} cells, but the first line has {dialect.columns}; "
                "give every line the same number of cells"
            )
    if not found:
        raise DataError(f"'{path}' has a header and no rows; give a file with one row per point")
    plain = io.StringIO()
    csv.writer(plain, lineterminator="\n").writerows(cells for _, cells in found)
    return plain.getvalue().encode("utf-8"), len(found)


def _settled(frame: Any, decimal: str) -> Any:
    """Return the frame with text stripped, and as numbers where every cell is one or missing."""
    for column in frame.columns:
        if frame[column].dtype.kind not in "biufc":
            frame[column] = _numbers(_stripped(frame[column]), decimal)
    return frame


def _stripped(column: Any) -> Any:
    """Return a column of text without blanks around cells; cells that become empty or NA are missing."""
    kinds = column.dropna().unique()
    changed = {cell: cell.strip() for cell in kinds if isinstance(cell, str) and cell != cell.strip()}
    if not changed:
        return column
    texts = {cell: changed.get(cell, cell) for cell in kinds}
    return column.map({cell: None if text in MISSING else text for cell, text in texts.items()})


def _numbers(column: Any, decimal: str) -> Any:
    """Return a column of text as float64 if all of it are numbers (too long for pandas, or None beside them)."""
    values = {}
    for cell in column.dropna().unique():
        text = str(cell)
        if text == "None":
            values[cell] = float("nan")
        elif not is_number(text, decimal):
            return column
        else:
            values[cell] = float(text.replace(",", ".") if decimal == "," else text)
    if all(value != value for value in values.values()):
        return column
    return column.map(values).astype("float64")


def _line(path: Path, content: bytes, dialect: Dialect, row: int) -> int:
    """Return the number of the line that ends a row; rows are counted from 0."""
    found = records(path, content.decode("utf-8"), dialect.delimiter, row + 1 + (dialect.names is not None))
    return found[-1][0]
