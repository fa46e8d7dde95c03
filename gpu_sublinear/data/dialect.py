"""How a table of text is written: delimiter, decimal mark, and whether its first line has names.

What is not certain is guessed from the first lines, and every guess is a note that the user gets to read; where a
guess could be wrong without anybody noticing, the user is asked.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError, shown
from .contents import EMPTY

Header = Literal["auto", "yes", "no"]
HEADERS = ("auto", "yes", "no")
HEAD_BYTES, HEAD_LINES, HEAD_RECORDS = 2**16, 4, 100  # what guesses look at
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
NATURAL = {".csv": ",", ".tsv": "\t"}  # no need to mention
MISSING = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "<NA>", "#N/A", "#NA", "?"})
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.ASCII | re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", re.ASCII)
YEARS = range(1000, 3000)


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written.

    Attributes
    ----------
    delimiter : str
        One character; a space stands for runs of them.
    decimal : str
        The decimal mark: ``.`` or ``,``.
    names : tuple of str or None
        The cells of the header, one a column, empty where they are; None without a header.
    columns : int
        Cells of each line.
    start : int
        Line that the rows begin after, the number of lines of the header.
    notes : tuple of str
        What was guessed.
    """

    delimiter: str
    decimal: str
    names: tuple[str, ...] | None
    columns: int
    start: int
    notes: tuple[str, ...]


def find_dialect(path: Path, content: bytes, header: Header = "auto") -> Dialect:
    """Find out how a table of text is written.

    Parameters
    ----------
    path : Path
        Of messages.
    content : bytes
        UTF-8 without carriage returns, not empty.
    header : {"auto", "yes", "no"}
        Whether the first line has names.

    Returns
    -------
    Dialect
        With notes of what was guessed.

    Raises
    ------
    DataError
        If the first lines cannot be read, or nobody can tell whether the first has names.
    """
    end = max(HEAD_BYTES, end_of_line(content, HEAD_LINES))
    head, cut = content[:end].decode("utf-8", "ignore"), len(content) > end
    delimiter = _delimiter(head, cut)
    found = records(path, head, delimiter, HEAD_RECORDS)
    if not found:
        raise DataError(EMPTY.format(path))
    rows = [cells for _, cells in (found[:-1] if cut and len(found) > 1 else found)]
    decimal = _decimal(delimiter, rows)
    named, note = _named(path, found[0][0], rows, header, decimal)
    columns, names = len(rows[0]), tuple(rows[0]) if named else None
    if names and rows[1:] and all(len(row) == columns + 1 for row in rows[1:]):
        names, columns = ("", *names), columns + 1  # as R writes tables with names of rows
    notes = [note] if note else []
    if decimal == ",":
        notes.append("decimal commas: 1,5 is read as 1.5")
    if delimiter != NATURAL.get(path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix.lower()):
        notes.append(f"cells are separated by {DELIMITERS[delimiter]}")
    return Dialect(delimiter, decimal, names, columns, found[0][0] if named else 0, tuple(notes[::-1]))


def records(path: Path, text: str, delimiter: str, most: int | None = None) -> list[tuple[int, list[str]]]:
    """Return the number of the last line and the stripped cells of every record that is not blank.

    Parameters
    ----------
    path : Path
        Of messages.
    text : str
        Lines, possibly with quoted cells that go over several.
    delimiter : str
        One character; a space stands for runs of them.
    most : int, optional
        How many records are wanted.

    Returns
    -------
    list of (int, list of str)
        In order.

    Raises
    ------
    DataError
        If the lines cannot be taken apart.
    """
    lines = io.StringIO(text, newline="")
    source = (line.strip(" \n") + "\n" for line in lines) if delimiter == " " else lines
    reader, found = csv.reader(source, delimiter=delimiter, skipinitialspace=True), []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if len(cells) > 1 or any(cells):
                found.append((reader.line_num, cells))
                if len(found) == most:
                    break
    except csv.Error as error:
        raise DataError(unreadable(path, error)) from error
    return found


def end_of_line(content: bytes, number: int) -> int:
    """Return where the line after the given one begins."""
    at = 0
    for _ in range(number):
        at = content.find(b"\n", at) + 1
        if not at:
            return len(content)
    return at


def unreadable(path: Path, error: Exception) -> str:
    """Return what to say of a table that cannot be taken apart."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return f"'{path}' is not a readable table ({shown(reason, 200)}); save it again as CSV"


def is_number(cell: str, decimal: str = ".") -> bool:
    """Tell whether a cell is a number in plain notation."""
    return bool(NUMBER.fullmatch(cell.replace(",", ".") if decimal == "," and "." not in cell else cell))


# ---- delimiter and decimal mark -------------------------------------------------------------------------


def _delimiter(head: str, cut: bool) -> str:
    """Return the delimiter that gives the most regular table; blanks only where no other divides anything."""
    best = max(",;\t|", key=lambda mark: _regularity(head, mark, cut))
    if _regularity(head, best, cut)[0]:
        return best
    divides, share = _regularity(head, " ", cut)[:2]
    return " " if divides and share == 1 else ","


def _regularity(head: str, delimiter: str, cut: bool) -> tuple[bool, float, float, int]:
    """Return how regular the first records are: divided at all, share of equal length, of numbers, cells."""
    try:
        rows = [cells for _, cells in records(Path(), head, delimiter, HEAD_RECORDS)]
    except DataError:
        return False, 0.0, 0.0, 0
    rows = rows[:-1] if cut and len(rows) > 1 else rows
    lengths = Counter(len(cells) for cells in rows)
    cells, often = max(lengths.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
    body = [cell for row in rows[1:] or rows for cell in row if cell]
    numbers = sum(is_number(cell) or bool(DECIMAL_COMMA.fullmatch(cell)) for cell in body)
    often += bool(rows) and len(rows[0]) == cells - 1 and often == len(rows) - 1  # names of rows have no header
    return cells > 1, often / max(len(rows), 1), numbers / max(len(body), 1), cells


def _decimal(delimiter: str, rows: list[list[str]]) -> str:
    cells = [cell for row in rows for cell in row]
    if delimiter == "," or any(DECIMAL_POINT.fullmatch(cell) for cell in cells):
        return "."
    return "," if any(DECIMAL_COMMA.fullmatch(cell) for cell in cells) else "."


# ---- the header -----------------------------------------------------------------------------------------


def _named(path: Path, line: int, rows: list[list[str]], header: Header, decimal: str) -> tuple[bool, str]:
    """Return whether the first line has names, and what to tell of it."""
    if header != "auto":
        return header == "yes", ""
    first, below = rows[0], rows[1:]
    words = [j for j, cell in enumerate(first) if cell not in MISSING and not is_number(cell, decimal)]
    numbers = [cell for cell in first if is_number(cell, decimal)]
    counted = bool(numbers) and numbers == [str(k) for k in range(len(numbers))]
    in_place = all(cell == str(j) for j, cell in enumerate(first) if is_number(cell, decimal))
    asked = f"'{path}', line {line}: are {_some(first)} names or data? give --header yes or --header no"
    if not words:
        return _counting(first, numbers, below, counted, asked)
    if not numbers:
        if len(words) > 1 and below and all(first[j] in _column(below, j) for j in words):
            return False, "the first line is data: its words occur again below (--header yes: they are names)"
        return True, ""
    if counted or in_place:
        return True, f"the first line has the names of the columns: {_some(first)} (--header no: it is data)"
    if any(_all_numbers(_column(below, j), decimal) for j in words):
        raise DataError(asked)
    return False, ""


def _counting(
    first: list[str], numbers: list[str], below: list[list[str]], counted: bool, asked: str
) -> tuple[bool, str]:
    """Tell whether a first line of numbers alone has names: 0, 1, ..., k - 1, unless these occur again below."""
    places = [j for j, cell in enumerate(first) if cell in numbers]
    if counted and len(numbers) > 1:
        if below and all(first[j] in _column(below, j) for j in places):
            raise DataError(asked)
        last = f"0 to {len(numbers) - 1}"
        return True, f"the first line, the numbers {last}, has the names of the columns (--header no: it is data)"
    years = [int(cell) for cell in numbers if re.fullmatch(r"\d{4}", cell, re.ASCII)]
    if len(years) == len(numbers) > 1 and years[0] in YEARS and years == list(range(years[0], years[0] + len(years))):
        raise DataError(asked)
    return False, ""


def _column(rows: list[list[str]], j: int) -> list[str]:
    return [row[j] for row in rows if j < len(row) and row[j] not in MISSING]


def _all_numbers(cells: list[str], decimal: str) -> bool:
    return bool(cells) and all(is_number(cell, decimal) for cell in cells)


def _some(cells: list[str], most: int = 4) -> str:
    return ", ".join(f"'{shown(cell, 20)}'" for cell in cells[:most]) + (", ..." if len(cells) > most else "")
