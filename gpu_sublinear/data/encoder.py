"""Tables as people have them become numbers: text, missing cells, booleans and dates, by what training has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import DataError, OptionError, shown
from .columns import CellError, Column, Rules, describe
from .tables import some

Missing = Literal["median", "drop", "refuse"]
Dates = Literal["refuse", "ordinal"]
MISSING_WAYS, DATE_WAYS = ("median", "drop", "refuse"), ("refuse", "ordinal")
EMPTY_CELL = "the cell is empty; fill it in, remove the line, or train with --missing median or --missing drop"
LONGEST_LINE = 90  # characters of the report
MOST_BYTES = 2**34  # of encoded columns


@dataclass(frozen=True)
class Encoded:
    """A table as numbers, and what was not as in training.

    Attributes
    ----------
    values : numpy.ndarray
        (n, features) float64.
    missing, unknown : dict
        Number of missing cells, and of those that training did not know, by column that has some.
    """

    values: np.ndarray
    missing: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind of cell that had to be made up."""
        told = {
            "missing, the median of training stands for them": self.missing,
            "not known from training": self.unknown,
        }
        return tuple(
            f"{sum(counts.values()):,} cells {what} ({_counted(counts)})" for what, counts in told.items() if counts
        )


def _counted(counts: dict[str, int], most: int = 4) -> str:
    first = ", ".join(f"{shown(name, 30)} {count:,}" for name, count in list(counts.items())[:most])
    return first + (", ..." if len(counts) > most else "")


class TableEncoder:
    """Columns of a table as numbers, in the manner of a scikit-learn transformer.

    Numbers stay; booleans become 0 and 1; text becomes one column of zeros and ones for each level; missing cells get
    the median, and a column that tells where they are.  Everything that it learns is plain (:meth:`to_dict`).

    Parameters
    ----------
    max_levels : int
        Most levels of a column of text; the rarest beyond are one level together, ``other``.
    missing : {"median", "drop", "refuse"}
        What to do with missing cells.  ``drop`` is for who leaves out rows beforehand, as the command line does: later
        missing cells get the median.
    dates : {"refuse", "ordinal"}
        Whether dates become days since 1970.
    ordinal : dict of str to sequence of str, optional
        Levels in their order, by column; they become 0, 1, 2, ....
    categories : sequence of str
        Columns whose numbers are names of levels.
    drop : sequence of str
        Columns to leave out.

    Attributes
    ----------
    columns_ : tuple of Column
        What became of each column, once fitted.
    """

    def __init__(
        self,
        max_levels: int = 20,
        missing: Missing = "median",
        dates: Dates = "refuse",
        ordinal: Mapping[str, Sequence[str]] | None = None,
        categories: Sequence[str] = (),
        drop: Sequence[str] = (),
    ) -> None:
        self.max_levels = max_levels
        self.missing = missing
        self.dates = dates
        self.ordinal = ordinal
        self.categories = categories
        self.drop = drop

    # ---- fitting and encoding ---------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        """Learn what becomes of each column.

        Parameters
        ----------
        X : pandas.DataFrame or array_like
            (n, columns) of the training points; columns of an array are called ``x0``, ``x1``, ....
        y : object
            Not looked at.

        Returns
        -------
        TableEncoder
            Itself.

        Raises
        ------
        DataError
            If a column cannot be used as it is, its names are not different, or nothing is left.
        """
        self._check()
        frame = _frame(X)
        names = [str(name) for name in frame.columns]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise DataError(f"{names.count(twice[0])} columns are called '{shown(twice[0])}'; rename or --drop them")
        self._known(names)
        rules = Rules(self.max_levels, self.dates, self.missing == "median")
        self.columns_ = tuple(self._column(name, frame.iloc[:, k], rules) for k, name in enumerate(names))
        self.n_features_in_ = len(names)
        self.feature_names_in_ = np.array(names, dtype=object)
        if names and not self.get_feature_names_out().size:
            raise DataError(f"no column is left of {some(names)}; give at least one that has numbers or few words")
        return self

    def _column(self, name: str, cells: Any, rules: Rules) -> Column:
        if name in self.drop:
            return Column(name, "left out", why="as you asked")
        missing = cells.isna().to_numpy(bool)
        if self.missing == "refuse" and missing.any():
            raise CellError(int(np.argmax(missing)), name, EMPTY_CELL)
        order = tuple((self.ordinal or {}).get(name, ()))
        return describe(name, cells, rules, order, name in self.categories)

    def _check(self) -> None:
        if not isinstance(self.max_levels, int) or self.max_levels < 1:
            raise OptionError(f"max_levels must be a whole number from 1 on, not {self.max_levels!r}")
        if self.missing not in MISSING_WAYS:
            raise OptionError(f"missing is 'median', 'drop' or 'refuse', not {self.missing!r}")
        if self.dates not in DATE_WAYS:
            raise OptionError(f"dates is 'refuse' or 'ordinal', not {self.dates!r}")
        for name, levels in (self.ordinal or {}).items():
            if len(levels) < 2 or len(set(levels)) < len(levels):
                raise OptionError(f"ordinal column '{shown(name)}' needs two or more different levels")

    def _known(self, names: list[str]) -> None:
        for what, given in (("drop", self.drop), ("ordinal", self.ordinal or {}), ("categories", self.categories)):
            for name in given:
                if name not in names:
                    raise DataError(f"{what}: there is no column '{shown(name)}' among {some(names)}")

    def encode(self, X: Any) -> Encoded:
        """Turn a table into numbers and count what was not as in training.

        Parameters
        ----------
        X : pandas.DataFrame or array_like
            (n, columns) with the columns of training, in any order; others are not looked at.

        Returns
        -------
        Encoded
            (n, features) numbers.

        Raises
        ------
        DataError
            If a column is missing.
        CellError
            If a cell cannot be used.
        """
        frame, used = self._matched(_frame(X)), self.used
        features = sum(len(column.outputs) for column in used)
        if 8 * len(frame) * features > MOST_BYTES:
            raise DataError(
                f"{len(frame):,} rows of {features:,} encoded columns take {8 * len(frame) * features / 2**30:.0f} "
                f"GiB, more than {MOST_BYTES / 2**30:g}; use fewer rows or a smaller --max-levels"
            )
        values = np.empty((len(frame), features))
        found, first = Encoded(values), 0
        for column in used:
            block, missing, unknown = column.encode(frame[column.name])
            if self.missing == "refuse" and missing.any():
                raise CellError(int(np.argmax(missing)), column.name, EMPTY_CELL)
            values[:, first : first + block.shape[1]] = block
            first += block.shape[1]
            for counts, where in ((found.missing, missing), (found.unknown, unknown)):
                if where.any():
                    counts[column.name] = int(where.sum())
        return found

    def _matched(self, frame: Any) -> Any:
        """Return the columns of training by name, or refuse."""
        names = [str(name) for name in frame.columns]
        frame = frame.set_axis(names, axis=1)
        gone = [column.name for column in self.used if column.name not in set(names)]
        if gone:
            raise DataError(f"there is no column {some(gone)}, which the model was trained on; found {some(names)}")
        several = Counter(names)
        twice = [column.name for column in self.used if several[column.name] > 1]
        if twice:
            raise DataError(f"{names.count(twice[0])} columns are called '{shown(twice[0])}'; rename all but one")
        return frame

    def transform(self, X: Any) -> np.ndarray:
        """Return a table as numbers, (n, features) float64: see :meth:`encode`."""
        return self.encode(X).values

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit, and return the table as numbers."""
        return self.fit(X, y).transform(X)

    @property
    def used(self) -> tuple[Column, ...]:
        """The columns that are not left out."""
        if not hasattr(self, "columns_"):
            raise OptionError("this TableEncoder knows no columns yet; call fit first")
        return tuple(column for column in self.columns_ if column.kind != "left out")

    @property
    def plain(self) -> bool:
        """Whether every column is numbers, none missing."""
        return all(column.kind == "number" and not column.missing for column in self.columns_)

    # ---- words and records ------------------------------------------------------------------------------

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns of numbers, (features,) of text."""
        return np.array([name for column in self.used for name in column.outputs], dtype=object)

    def report(self) -> list[str]:
        """Return a line for each kind of treatment: what was done, and to which columns."""
        groups: dict[str, list[str]] = {}
        for column in self.columns_:
            groups.setdefault(column.words, []).append(column.name)
        named = {_names(names): words for words, names in groups.items()}
        width = max(map(len, named), default=0)
        return [shown(f"{names:<{width}}  {words}", LONGEST_LINE) for names, words in named.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain types, for JSON."""
        settings = {name: getattr(self, name) for name in ("max_levels", "missing", "dates")}
        return settings | {"columns": [column.to_dict() for column in self.columns_]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TableEncoder:
        """Return the fitted encoder that :meth:`to_dict` wrote.

        Parameters
        ----------
        content : dict
            Plain types.

        Returns
        -------
        TableEncoder
            Ready to encode.

        Raises
        ------
        ValueError
            If it is something else.
        """
        columns = tuple(Column.from_dict(column) for column in content["columns"])
        ordinal = {column.name: column.levels for column in columns if column.kind == "ordinal"}
        encoder = cls(content["max_levels"], content["missing"], content["dates"], ordinal)
        encoder._check()
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise ValueError("two columns of its table have the same name")
        encoder.columns_ = columns
        encoder.n_features_in_, encoder.feature_names_in_ = len(names), np.array(names, dtype=object)
        return encoder

    @classmethod
    def of_numbers(cls, names: Sequence[str]) -> TableEncoder:
        """Return a fitted encoder of columns of numbers that refuses missing cells, as all models once did."""
        columns = [{"name": name, "kind": "number"} for name in names]
        return cls.from_dict({"max_levels": 20, "missing": "refuse", "dates": "refuse", "columns": columns})

    # ---- the manners of scikit-learn --------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options by name."""
        return {name: getattr(self, name) for name in OPTIONS}

    def set_params(self, **options: Any) -> TableEncoder:
        """Set options by name and return itself."""
        for name, value in options.items():
            if name not in OPTIONS:
                raise OptionError(f"TableEncoder has no option '{name}'; it has {', '.join(OPTIONS)}")
            setattr(self, name, value)
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "columns_")

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, TransformerMixin

        return type("Plain", (TransformerMixin, BaseEstimator), {})().__sklearn_tags__()

    def __repr__(self) -> str:
        return f"TableEncoder({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"


OPTIONS = ("max_levels", "missing", "dates", "ordinal", "categories", "drop")


def _names(names: list[str]) -> str:
    text = ", ".join(shown(name, 20) for name in names[:4]) + (", ..." if len(names) > 4 else "")
    text = shown(text, 28 if len(names) > 4 else 34)
    return f"{text} ({len(names)})" if len(names) > 4 else text


def _frame(X: Any) -> Any:
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X
    array = np.asarray(X)
    if array.ndim != 2:
        raise DataError(f"X must be a table (points, columns), but its shape is {array.shape}")
    return pd.DataFrame(array, columns=[f"x{j}" for j in range(array.shape[1])])
