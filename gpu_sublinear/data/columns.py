"""One column of a table: what kind it is, what training has to remember of it, and its numbers.

A column is described from the training rows alone (:func:`describe`); the description is plain enough for JSON and
turns any later cells of the same column into numbers (:meth:`Column.encode`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from ..errors import DataError, shown
from .dialect import is_number

Kind = Literal["number", "boolean", "levels", "ordinal", "date", "left out"]
BOOLEANS = {"true": 1.0, "false": 0.0}
LOOKS_NUMERIC = re.compile(r"[$\u20ac\u00a3]?\s*[+-]?[.,]?\d[\d.,'_ e+-]*[%\u20ac$]?|[+-]?(nan|inf(inity)?)", re.I)
DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%b %d %Y", "%b %d, %Y",
    "%d %b %Y", "%B %d, %Y", "%m/%d/%y", "%d/%m/%y",
)  # fmt: skip
DATE_LIKE = re.compile(r"(?=\D{0,12}\d)[\w ,:./-]{6,32}", re.ASCII)
ALIKE = 0.5  # of the cells of a column that look like numbers: the others are mistakes, not levels
OTHER, GONE = "other", "missing"  # names of the columns for rare levels and for missing cells
DAY = np.timedelta64(1, "D")


class CellError(DataError):
    """A cell that cannot be used.

    Parameters
    ----------
    row : int
        Its row, counted from 0.
    column : str
        Name of its column.
    complaint : str
        What is wrong, and what to do.
    """

    def __init__(self, row: int, column: str, complaint: str) -> None:
        super().__init__(f"row {row} (counted from 0), column '{shown(column)}': {complaint}")
        self.row, self.column, self.complaint = row, column, complaint


@dataclass(frozen=True)
class Column:
    """What training remembers of a column.

    Attributes
    ----------
    name : str
        Its name in the table.
    kind : str
        What it is: ``number``, ``boolean`` (0 and 1), ``levels`` (one column of zeros and ones each), ``ordinal``
        (0, 1, 2, ... in the order of its levels), ``date`` (days since 1970) or ``left out``.
    levels : tuple of str
        Names of the levels.
    rare : int
        Number of levels that are one column together, ``other``.
    fill : float
        What stands for missing cells: the median.
    missing : int
        Missing cells of the training rows.
    indicator : bool
        Whether a column of zeros and ones tells where cells are missing.
    form : str
        How dates are written; empty where the table itself has dates.
    why : str
        Why it is left out.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    rare: int = 0
    fill: float = 0.0
    missing: int = 0
    indicator: bool = False
    form: str = ""
    why: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the columns of numbers that it becomes."""
        if self.kind == "left out":
            return ()
        made: tuple[str, ...] = (self.name,)
        if self.kind == "levels":
            made = tuple(f"{self.name}={level}" for level in (*self.levels, *([OTHER] if self.rare else [])))
        return (*made, f"{self.name} {GONE}") if self.indicator else made

    @property
    def words(self) -> str:
        """What is done to it, in a few words."""
        gone = f", {self.missing:,} missing" if self.missing else ""
        if self.kind == "left out":
            return f"left out: {self.why}"
        if self.kind == "levels":
            rare = f" and {self.rare:,} rare ones together" if self.rare else ""
            return f"text, {len(self.levels)} levels{rare}{gone}"
        order = " < ".join(shown(level, 12) for level in self.levels[:5]) + (" < ..." if len(self.levels) > 5 else "")
        kind = {"ordinal": f"ordinal, {order}", "date": "date, in days since 1970"}.get(self.kind, self.kind)
        return kind + gone + (f" (median {self.fill:.4g} and an indicator)" if self.indicator else "")

    def encode(self, cells: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Turn cells into numbers.

        Parameters
        ----------
        cells : pandas.Series
            (n,) cells.

        Returns
        -------
        values : numpy.ndarray
            (n, outputs) float64, finite.
        missing, unknown : numpy.ndarray
            (n,) bool: cells that are missing, and those that training did not know.

        Raises
        ------
        CellError
            If a cell of a column of numbers is none, or not finite.
        """
        missing = cells.isna().to_numpy(bool)
        if self.kind == "levels":
            values, unknown = self._one_hot(cells, missing)
        else:
            numbers, unknown = self._numbers(cells, missing)
            values = np.where(missing | unknown, self.fill, numbers)[:, None]  # (n, 1)
        if self.indicator:
            values = np.hstack([values, (missing | (unknown & (self.kind != "levels")))[:, None]])
        return values, missing, unknown

    def _one_hot(self, cells: Any, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        texts = as_text(cells)
        places = {level: k for k, level in enumerate(self.levels)}
        count = len(self.levels)
        at = texts.map(places).fillna(count).to_numpy(np.int64)  # (n,), count for levels that are not listed
        values = (at[:, None] == np.arange(count + (self.rare > 0))).astype(np.float64)
        values[missing] = 0.0
        return values, (at == count) & ~missing & (self.rare == 0)

    def _numbers(self, cells: Any, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return one number for each cell, and where there is none."""
        if self.kind == "number":
            return numbers_of(self.name, cells, missing), np.zeros(len(cells), bool)
        if self.kind == "date":
            numbers = _days(cells, self.form)
        else:
            places = BOOLEANS if self.kind == "boolean" else {level: float(k) for k, level in enumerate(self.levels)}
            texts = as_text(cells).str.lower() if self.kind == "boolean" else as_text(cells)
            numbers = texts.map(places).to_numpy(np.float64)
        return numbers, np.isnan(numbers) & ~missing

    def to_dict(self) -> dict[str, Any]:
        """Return plain types; what is as usual is left out."""
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != usual[name]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Column:
        """Return the column that :meth:`to_dict` wrote; raise ValueError or TypeError if it is none."""
        column = cls(**{**content, "levels": tuple(content.get("levels", ()))})
        texts = (column.name, column.form, column.why, *column.levels)
        whole = all(type(count) is int and 0 <= count < 2**63 for count in (column.rare, column.missing))
        if column.kind not in get_args(Kind) or not all(isinstance(text, str) for text in texts) or not whole:
            raise ValueError("a column of its table is of no known kind")
        if len(set(column.levels)) < len(column.levels) or not np.isfinite(column.fill):
            raise ValueError("a column of its table has levels twice, or a median that is no number")
        if type(column.indicator) is not bool or (column.form and column.form not in DATE_FORMATS):
            raise ValueError("a column of its table is of no known form")
        return column


# ---- describing -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """How columns are described.

    Attributes
    ----------
    max_levels : int
        Most levels of a column of text; the rarest beyond are one level together.
    dates : str
        ``refuse``, or ``ordinal`` for days since 1970.
    indicate : bool
        Whether missing cells get a column that tells where.
    """

    max_levels: int = 20
    dates: str = "refuse"
    indicate: bool = True


def describe(name: str, cells: Any, rules: Rules, order: tuple[str, ...] = (), as_levels: bool = False) -> Column:
    """Describe a column.

    Parameters
    ----------
    name : str
        Its name.
    cells : pandas.Series
        (n,) cells of the training rows.
    rules : Rules
        What to do with text, dates and missing cells.
    order : tuple of str
        Levels of an ordinal column.
    as_levels : bool
        Whether numbers are names of levels, too.

    Returns
    -------
    Column
        What encodes these and later cells.

    Raises
    ------
    CellError
        If a cell fits to nothing.
    """
    missing = cells.isna().to_numpy(bool)
    gone = int(missing.sum())
    if gone == len(missing):
        return Column(name, "left out", why="no cell has anything in it")
    if order:
        found = Column(name, "ordinal", levels=order)
    elif as_levels:
        return _levels(name, cells, gone, rules)
    else:
        found = _kind(name, cells, missing, rules)
    if found.kind in ("levels", "left out"):
        return found
    numbers, unknown = found._numbers(cells, missing)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise CellError(row, name, f"'{shown(str(cells.iloc[row]), 40)}' is not among the levels ({', '.join(order)})")
    fill = _median(numbers[~missing])
    return Column(**{**asdict(found), "fill": fill, "missing": gone, "indicator": bool(gone) and rules.indicate})


def _kind(name: str, cells: Any, missing: np.ndarray, rules: Rules) -> Column:
    """Tell numbers, booleans, dates and text apart."""
    kind = getattr(cells.dtype, "kind", "O")
    if kind == "b":
        return Column(name, "boolean")
    if kind in "iufc":
        return Column(name, "number")
    if kind == "M":
        return _date(name, cells, missing, rules, "")
    texts = as_text(cells)
    kinds = [str(text) for text in texts.dropna().unique()]
    if all(is_number(text) for text in kinds):
        return Column(name, "number")
    if all(text.lower() in BOOLEANS for text in kinds):
        return Column(name, "boolean")
    if form := _date_form(name, kinds):
        return _date(name, cells, missing, rules, form)
    alike = {text for text in kinds if LOOKS_NUMERIC.fullmatch(text)}
    if texts.isin(alike).sum() >= ALIKE * (~missing).sum():
        strange = (~texts.map(is_number, na_action="ignore").astype("boolean").fillna(True)).to_numpy(bool)
        row = int(np.argmax(strange))
        raise CellError(row, name, _no_number(str(cells.iloc[row])))
    return _levels(name, cells, int(missing.sum()), rules)


def _levels(name: str, cells: Any, gone: int, rules: Rules) -> Column:
    """Describe a column of text by its most frequent levels."""
    counts: Any = as_text(cells).value_counts()
    present = len(cells) - gone
    if len(counts) > rules.max_levels and 2 * len(counts) > present:
        return Column(name, "left out", why=f"text, {len(counts):,} different of {present:,} (names?)")
    ranked: list[tuple[int, str]] = sorted((-int(count), str(level)) for level, count in counts.items())
    kept = sorted(level for _, level in ranked[: rules.max_levels])
    rare = len(counts) - len(kept)
    return Column(name, "levels", tuple(kept), rare, missing=gone, indicator=bool(gone) and rules.indicate)


def numbers_of(name: str, cells: Any, missing: np.ndarray) -> np.ndarray:
    """Return a column of numbers as float64, NaN where cells are missing.

    Parameters
    ----------
    name : str
        Of the column.
    cells : pandas.Series
        (n,) cells.
    missing : numpy.ndarray
        (n,) bool.

    Returns
    -------
    numpy.ndarray
        (n,) float64.

    Raises
    ------
    CellError
        At the first cell that is no number, or not finite.
    """
    if getattr(cells.dtype, "kind", "O") in "biuf":
        numbers = cells.to_numpy(np.float64, na_value=np.nan)
    else:
        texts = as_text(cells)
        values = {text: float(text) if is_number(str(text)) else None for text in texts.dropna().unique()}
        strange = [text for text, value in values.items() if value is None]
        if strange:
            row = int(np.argmax(texts.isin(strange).to_numpy(bool)))
            raise CellError(row, name, _no_number(str(cells.iloc[row])))
        numbers = texts.map(values).to_numpy(np.float64)
    endless = ~np.isfinite(numbers) & ~missing
    if endless.any():
        row = int(np.argmax(endless))
        text = shown(str(cells.iloc[row]), 40)
        raise CellError(row, name, f"'{text}' is not finite; remove the line or fill in the value")
    return numbers


def as_text(cells: Any) -> Any:
    """Return cells as text without blanks around; missing cells stay missing; whole floats as whole numbers."""
    kinds = {cell: _plain(cell) for cell in cells.dropna().unique()}
    return cells.astype(object).map(kinds).astype(object)


def _plain(cell: object) -> str:
    if isinstance(cell, float | np.floating) and float(cell).is_integer() and abs(float(cell)) < 2**53:
        return str(int(cell))
    return str(cell).strip()


def _no_number(cell: str) -> str:
    return (
        f"'{shown(cell, 40)}' is not a number, and most cells of the column are; write it as 1234.5, leave out the "
        "column (--drop), or call all its cells names of levels (--categories; labels to predict: --classify)"
    )


def _median(numbers: np.ndarray) -> float:
    return float(2 * np.median(numbers / 2))  # halves do not overflow when two are added


# ---- dates ----------------------------------------------------------------------------------------------


def _date_form(name: str, kinds: list[str]) -> str:
    """Return how dates are written, or nothing if a cell is none."""
    if not all(DATE_LIKE.fullmatch(text) for text in kinds):
        return ""
    few = kinds[:20]
    forms = [form for form in DATE_FORMATS if not np.isnan(_days_of(few, form)).any()]
    forms = [form for form in forms if not np.isnan(_days_of(kinds, form)).any()]
    if len(forms) > 1 and len({_days_of(kinds, form).tobytes() for form in forms}) > 1:
        raise DataError(
            f"column '{shown(name)}' has dates such as '{shown(kinds[0])}', of which nobody can tell day and month "
            f"apart; write them as 2024-12-31, or leave out the column: --drop {shown(name)}"
        )
    return forms[0] if forms else ""


def _date(name: str, cells: Any, missing: np.ndarray, rules: Rules, form: str) -> Column:
    if rules.dates == "refuse":
        row = int(np.argmin(missing))
        raise DataError(
            f"column '{shown(name)}' has dates ('{shown(str(cells.iloc[row]))}'); take them as days since 1970: "
            f"--dates ordinal, or leave them out: --drop '{shown(name)}'"
        )
    return Column(name, "date", form=form)


def _days(cells: Any, form: str) -> np.ndarray:
    """Return days since 1970 (n,), NaN where a cell is no date of this form."""
    if getattr(cells.dtype, "kind", "O") == "M":
        moments = cells.dt.tz_convert(None) if getattr(cells.dt, "tz", None) is not None else cells
        return moments.to_numpy("M8[us]").astype("M8[us]").__sub__(np.datetime64(0, "us")) / DAY
    texts = as_text(cells)
    kinds = list(texts.dropna().unique())
    return texts.map(dict(zip(kinds, _days_of(kinds, form), strict=True))).to_numpy(np.float64)


def _days_of(texts: Iterable[str], form: str) -> np.ndarray:
    import pandas as pd

    moments = pd.to_datetime(pd.Series(list(texts), dtype=object), format=form or "ISO8601", errors="coerce")
    return (moments.to_numpy("M8[us]") - np.datetime64(0, "us")) / DAY
