"""Where the points come from: scikit-learn's bundled data, a sphere, or a file; and how they are split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OptionError, shown
from .classes import Classes
from .columns import CellError, numbers_of
from .dialect import Header
from .encoder import TableEncoder
from .numpy_files import read_npz
from .preprocessing import Kind
from .table_files import data_path, read_table
from .tables import Table, find_all

BUNDLED = ("digits", "diabetes", "breast_cancer")
SPHERE_DEFAULTS = {"n": 512, "d": 16, "seed": 0}


@dataclass(frozen=True)
class Dataset:
    """Raw points and targets, with the names that reports use.

    Attributes
    ----------
    X : numpy.ndarray
        (n, d) float64 raw features.
    y : numpy.ndarray
        (n,) float64 raw targets; (n, c) for several, or for the columns of more than two classes.
    name : str
        What the data is called.
    feature_names : tuple of str
        d names.
    target_name : str
        Name of the target.
    preprocessing : str
        ``"standard"``, ``"smooth"`` or ``"unit"``: see :class:`Preprocessing`.
    classes : Classes or None
        Where the targets stand for class labels.
    labels : numpy.ndarray or None
        (n,) int64, the class numbers.
    target_names : tuple of str
        Names of several targets, empty for one.
    encoder : TableEncoder or None
        What became of the columns of a table.
    frame : pandas.DataFrame or None
        Its columns before that, numbered by the rows of the file.
    place : callable
        From the number of a row of the file to where it is.
    notes : tuple of str
        What was guessed or left out when it was read.
    """

    X: np.ndarray
    y: np.ndarray
    name: str
    feature_names: tuple[str, ...]
    target_name: str
    preprocessing: Kind = "standard"
    classes: Classes | None = None
    labels: np.ndarray | None = None
    target_names: tuple[str, ...] = ()
    encoder: TableEncoder | None = None
    frame: Any = None
    place: Callable[[int], str] = str
    notes: tuple[str, ...] = ()

    def encoded(self, rows: np.ndarray) -> Dataset:
        """Return the same points with columns treated by what the given rows have, those to train on.

        Parameters
        ----------
        rows : numpy.ndarray
            Numbers of these points.

        Returns
        -------
        Dataset
            The same where the data is no table.

        Raises
        ------
        DataError
            If a cell cannot be used; the message names the place.
        """
        if self.encoder is None:
            return self
        encoder, part = TableEncoder(**self.encoder.get_params()), self.frame.iloc[rows]
        try:
            encoder.fit(part)
            part = self.frame
            X = encoder.transform(self.frame)
        except CellError as error:
            where = f"{self.place(int(part.index[error.row]))}, column '{shown(error.column)}'"
            raise DataError(f"{where}: {error.complaint}") from error
        except DataError as error:
            raise DataError(f"'{self.name}': {error}") from error
        return replace(self, X=X, feature_names=tuple(encoder.get_feature_names_out()), encoder=encoder)

    @property
    def outputs(self) -> int:
        """Number of targets, c."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]


def load(
    spec: str,
    target: str | None = None,
    classify: bool = False,
    header: Header = "auto",
    encoder: TableEncoder | None = None,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec : str
        ``digits``, ``diabetes``, ``breast_cancer``, ``sphere:n=512,d=16,seed=0``, or a path to a table (.csv,
        .tsv, .txt, .csv.gz, .parquet, .feather, .xlsx, .npy) or a .npz file.
    target : str, optional
        The target column by name or by index from 0 (by default the last), or the key of the targets (.npz; by
        default ``y``).  Several columns are separated by commas.
    classify : bool
        Whether the target holds class labels, words or numbers.
    header : {"auto", "yes", "no"}
        Whether the first line of a table has names.
    encoder : TableEncoder, optional
        What to do with text, missing cells and dates; not fitted, and left as it is.

    Returns
    -------
    Dataset
        At least two points.

    Raises
    ------
    DataError
        If the data does not exist or cannot be used as it is; the message names the place.
    """
    dataset = _load(str(spec), target, classify, header, encoder or TableEncoder())
    n = len(dataset.y)
    if n < 2:
        points = f"{n} point{'s' * (n != 1)}"
        raise DataError(f"'{dataset.name}' has {points}, but training needs at least 2; give more data")
    if not dataset.X.shape[1]:
        raise DataError(f"'{dataset.name}' has a target and no features; give at least one more column")
    return dataset


def _load(spec: str, target: str | None, classify: bool, header: Header, encoder: TableEncoder) -> Dataset:
    if is_without_file(spec):
        if target is not None:
            raise DataError(f"'{spec}' has its own target; leave out --target")
        dataset = without_file(spec)
        return _classified(dataset, dataset.y) if classify else dataset
    path = data_path(spec, [*BUNDLED, "sphere"])
    if path.suffix.lower() == ".npz":
        return _from_npz(path, target or "y", classify)
    return _from_table(path, target, classify, header, encoder)


def is_without_file(spec: str) -> bool:
    """Tell whether data is bundled or made."""
    return spec in BUNDLED or spec.partition(":")[0] == "sphere"


def without_file(spec: str) -> Dataset:
    """Return bundled or made data."""
    return _bundled(spec) if spec in BUNDLED else _sphere(spec)


# ---- tables ---------------------------------------------------------------------------------------------


def _from_table(path: Path, target: str | None, classify: bool, header: Header, encoder: TableEncoder) -> Dataset:
    """Tell target and features apart, leave out rows that cannot be used, and encode the others."""
    table = read_table(path, header)
    columns = _target_columns(table.names, target, classify, encoder.drop)
    wanted = _order_of_columns(table, columns, encoder)
    notes, kept = list(table.notes), np.ones(len(table.frame), bool)
    targets = [table.text(k) if classify else table.frame.iloc[:, k] for k in columns]
    for column, cells in zip(columns, targets, strict=True):
        kept = _without(kept, cells.isna().to_numpy(bool), f"target '{shown(table.names[column])}'", notes)
    if encoder.missing == "drop":
        gone = wanted.isna() & ~wanted.isna().all()  # an empty column is left out as a whole
        gone = gone.drop(columns=[name for name in encoder.drop if name in gone.columns])
        kept = _without(kept, gone.any(axis=1).to_numpy(bool), "features", notes)
    y = None if classify else _numbers(path, table, columns, kept)
    labels = targets[0][kept].tolist() if classify else None
    dataset = Dataset(
        np.empty((int(kept.sum()), 0)),
        np.empty(int(kept.sum())) if y is None else y,
        path.name,
        (),
        ", ".join(table.names[column] for column in columns),
        target_names=tuple(table.names[column] for column in columns) if len(columns) > 1 else (),
        encoder=encoder,
        frame=wanted[kept],
        place=lambda row: f"'{path}', {table.place(row)}",
        notes=tuple(notes),
    )
    dataset = _classified(dataset, labels) if labels is not None else dataset
    return dataset.encoded(np.arange(len(dataset.y))) if len(dataset.y) else dataset


def _target_columns(names: tuple[str, ...], target: str | None, classify: bool, drop: Sequence[str]) -> list[int]:
    """Return the positions of the target columns; by default the last that is not to be dropped."""
    if target is None:
        left = [k for k, name in enumerate(names) if name not in drop]
        return left[-1:] or [len(names) - 1]
    columns = find_all(names, target)
    if classify and len(columns) > 1:
        raise DataError(f"--classify takes one column of labels, and --target '{shown(target)}' names {len(columns)}")
    return columns


def _order_of_columns(table: Table, targets: list[int], encoder: TableEncoder) -> Any:
    """Return the frame of features by name; names of levels as they are written."""
    features = [k for k in range(len(table.names)) if k not in set(targets)]
    frame = table.frame.iloc[:, features].set_axis([table.names[k] for k in features], axis=1)
    as_written = {*encoder.categories, *(encoder.ordinal or {})}
    for k in features:
        if table.names[k] in as_written and table.names.count(table.names[k]) == 1:
            frame[table.names[k]] = table.text(k)
    return frame


def _without(kept: np.ndarray, gone: np.ndarray, what: str, notes: list[str]) -> np.ndarray:
    """Return the rows that stay, and note how many do not."""
    count = int((gone & kept).sum())
    if count:
        notes.append(f"{count:,} of {len(gone):,} rows left out: no value in {what}")
    return kept & ~gone


def _numbers(path: Path, table: Table, columns: list[int], kept: np.ndarray) -> np.ndarray:
    """Return the targets, (n,) or (n, c)."""
    values = np.empty((int(kept.sum()), len(columns)))
    for k, column in enumerate(columns):
        cells, name = table.frame.iloc[:, column][kept], table.names[column]
        try:
            values[:, k] = numbers_of(name, cells, np.zeros(len(cells), bool))
        except CellError as error:
            where = f"'{path}', {table.place(int(cells.index[error.row]))}, column '{shown(name)}'"
            advice = error.complaint if "finite" in error.complaint else _no_target(cells.iloc[error.row])
            raise DataError(f"{where}: {advice}") from error
    return values[:, 0] if len(columns) == 1 else values


def _no_target(cell: object) -> str:
    return f"'{shown(str(cell), 40)}' is not a number; choose another --target (labels to predict: --classify)"


# ---- arrays and labels ----------------------------------------------------------------------------------


def _from_npz(path: Path, target: str, classify: bool) -> Dataset:
    X, y = read_npz(path, target, labels=classify)
    assert y is not None
    several = tuple(f"{target} {k}" for k in range(y.shape[1])) if y.ndim > 1 else ()
    dataset = Dataset(X, y, path.name, _feature_names(X.shape[1]), target, target_names=several)
    return _classified(dataset, y) if classify else dataset


def _classified(dataset: Dataset, labels: Sequence[object] | np.ndarray) -> Dataset:
    """Return the data set with the targets of its classes in place of the labels."""
    classes = Classes.of(labels, f"'{dataset.name}': column '{dataset.target_name}'")
    numbers = classes.numbers(labels)
    return replace(dataset, y=classes.targets(numbers), classes=classes, labels=numbers)


def _feature_names(d: int) -> tuple[str, ...]:
    return tuple(f"feature {j}" for j in range(d))


# ---- data without a file --------------------------------------------------------------------------------


def _bundled(name: str) -> Dataset:
    from sklearn import datasets  # half a second that other commands need not wait

    bunch = getattr(datasets, f"load_{name}")()
    target = {"digits": "digit", "diabetes": "disease progression", "breast_cancer": "benign"}[name]
    names = tuple(str(feature) for feature in bunch.feature_names)
    return Dataset(bunch.data.astype(np.float64), bunch.target.astype(np.float64), name, names, target)


def _sphere(spec: str) -> Dataset:
    """Return uniform points of the unit sphere with a smooth target and a kink."""
    # The first points and the target are the same for every n: a larger n extends the same problem.
    options = _sphere_options(spec)
    n, d, seed = options["n"], options["d"], options["seed"]
    try:
        X = np.random.default_rng([seed, 0]).standard_normal((n, d))
    except (MemoryError, ValueError) as error:
        raise DataError(f"'{spec}': {n} x {d} numbers do not fit into memory; choose smaller n and d") from error
    X /= np.linalg.norm(X, axis=1, keepdims=True)  # (n, d)
    u = np.random.default_rng([seed, 1]).standard_normal((3, d))
    y = np.sin(2 * X @ u[0]) + (X @ u[1]) ** 2 - np.abs(X @ u[2])  # (n,)
    return Dataset(X, y, spec, _feature_names(d), "y", "unit")


def _sphere_options(spec: str) -> dict[str, int]:
    options = dict(SPHERE_DEFAULTS)
    text = spec.partition(":")[2]
    for part in filter(None, text.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in options or not re.fullmatch(r"\d{1,12}", value):
            raise DataError(f"'{spec}': '{part}' is not one of n=..., d=..., seed=... with a whole number")
        options[key] = int(value)
    for key, least in (("n", 2), ("d", 1)):
        if options[key] < least:
            raise DataError(f"'{spec}': {key} must be at least {least}")
    return options


def split(n: int, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide n points at random into training and held-out points.

    Parameters
    ----------
    n : int
        Number of points.
    test_fraction : float
        Share of the points to hold out, from 0 to below 1.
    seed : int
        Of the random choice.

    Returns
    -------
    train : numpy.ndarray
        (n - h,) int64, ascending, at least two.
    test : numpy.ndarray
        (h,) int64, ascending, h = ``test_fraction`` n rounded.

    Raises
    ------
    OptionError
        If the fraction is not from 0 to below 1.
    DataError
        If fewer than two points are left to train on.
    """
    if not 0 <= test_fraction < 1:
        raise OptionError(f"the test fraction must be from 0 to below 1, not {test_fraction:g}")
    held_out = round(test_fraction * n)
    if n - held_out < 2:
        raise DataError(
            f"holding out {held_out} of {n} points leaves {n - held_out} to train on, and 2 are needed; "
            "give more data or a smaller --test-fraction"
        )
    order = np.random.default_rng([seed, 2]).permutation(n)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
