"""Points for a trained model: columns of a table by name, as in training; targets where there are any."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, shown
from .classes import Classes
from .columns import CellError, numbers_of
from .dialect import Header
from .encoder import TableEncoder
from .numpy_files import read_npz
from .sources import BUNDLED, is_without_file, without_file
from .table_files import data_path, read_table
from .tables import Table, some

MADE_UP = re.compile(r"(column|feature) \d+")  # names of columns that never had one
NO_LABEL = -2


def load_for_prediction(
    spec: str,
    feature_names: tuple[str, ...],
    targets: str | tuple[str, ...],
    classes: Classes | None = None,
    encoder: TableEncoder | None = None,
    header: Header = "auto",
    tell: Callable[[str], object] = lambda _: None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load points for a trained model, with or without their targets.

    Columns are matched by name, and only those that the model needs are looked at.  A table without a header, or for a
    model that was trained on one, is taken in the order of training if it has as many columns.

    Parameters
    ----------
    spec : str
        As for :func:`gpu_sublinear.data.sources.load`.
    feature_names : tuple of str
        Names of the features of training.
    targets : str or tuple of str
        Name of the target of training, or of several.
    classes : Classes, optional
        Of a model of classes.
    encoder : TableEncoder, optional
        What became of the columns in training; by default all are numbers.
    header : {"auto", "yes", "no"}
        Whether the first line of a table has names.
    tell : callable
        Gets a sentence for everything that was guessed or made up.

    Returns
    -------
    X : numpy.ndarray
        (n, d) features as the network's preprocessing takes them.
    y : numpy.ndarray or None
        (n,) or (n, c) targets, NaN where there is none; or (n,) class numbers, -1 for a class that is none of the
        model's, -2 for no label; None if the data has no targets.

    Raises
    ------
    DataError
        If the data cannot be read or has not the columns of training.
    """
    names = (targets,) if isinstance(targets, str) else targets
    encoder = encoder or TableEncoder.of_numbers(feature_names)
    if is_without_file(spec):
        dataset = without_file(spec)
        X, y = dataset.X, dataset.y
        return _checked(spec, X, y, feature_names, names, classes)
    if (path := data_path(spec, [*BUNDLED, "sphere"])).suffix.lower() == ".npz":
        key = names[0] if len(names) == 1 else names[0].rpartition(" ")[0]  # as training numbered them
        X, labels = read_npz(path, key, required=False, labels=classes is not None)
        X = encoder.transform(_framed(X, encoder)) if X.shape[1] == len(encoder.used) else X
        return _checked(spec, X, labels, feature_names, names, classes)
    return _from_table(path, read_table(path, header), encoder, names, classes, tell)


def _checked(
    spec: str,
    X: np.ndarray,
    y: np.ndarray | None,
    feature_names: Sequence[str],
    names: Sequence[str],
    classes: Classes | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return points and targets that are no table, if they are as many as in training."""
    if X.shape[1] != len(feature_names):
        raise DataError(_another_number(spec, X.shape[1], len(feature_names)))
    if y is not None and classes is not None:
        return X, classes.numbers(y)
    wanted = (len(X),) if len(names) == 1 else (len(X), len(names))
    return X, y if y is not None and y.shape == wanted else None


def _framed(X: np.ndarray, encoder: TableEncoder) -> Any:
    import pandas as pd

    return pd.DataFrame(X, columns=[column.name for column in encoder.used])


def _another_number(spec: object, found: int, wanted: int) -> str:
    given = f"'{spec}' has {found} features, but the model was trained on {wanted}"
    return f"{given}; give the same features in the same order"


# ---- tables ---------------------------------------------------------------------------------------------


def _from_table(
    path: Path,
    table: Table,
    encoder: TableEncoder,
    names: Sequence[str],
    classes: Classes | None,
    tell: Callable[[str], object],
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return points and targets of a table."""
    for note in table.notes:
        tell(note)
    features, targets = _places(path, table, encoder, names, tell)
    frame = table.frame.iloc[:, features].set_axis([column.name for column in encoder.used], axis=1)
    for column, k in zip(encoder.used, features, strict=True):
        if column.kind in ("levels", "ordinal"):
            frame[column.name] = table.text(k)
    try:
        found = encoder.encode(frame)
    except CellError as error:
        where = f"'{path}', {table.place(error.row)}, column '{shown(error.column)}'"
        raise DataError(f"{where}: {error.complaint}") from error
    for note in found.notes:
        tell(note)
    if not targets or table.frame.iloc[:, targets].isna().all(axis=None):
        return found.values, None
    return found.values, _classes(table, targets[0], classes) if classes else _targets(table, targets, tell)


def _places(
    path: Path, table: Table, encoder: TableEncoder, names: Sequence[str], tell: Callable[[str], object]
) -> tuple[list[int], list[int]]:
    """Return the positions of features and of targets, none unless all targets are there."""
    wanted = [column.name for column in encoder.used]
    made_up = all(MADE_UP.fullmatch(name) for name in wanted)
    if not table.named or made_up:
        return _in_order(path, table, encoder, names, None if made_up else tell)
    places = {name: k for k, name in enumerate(table.names)}
    gone = [name for name in wanted if name not in places]
    if gone:
        raise DataError(
            f"'{path}' has no column {some(gone)}, which the model was trained on; it has {some(table.names)}: "
            "rename its columns, or give --header no if the first line is data"
        )
    for name in wanted:
        if len(places) < len(table.names):
            table.find(name)  # refuses what is there twice
    present = all(table.names.count(name) == 1 for name in names)
    return [places[name] for name in wanted], [places[name] for name in names] if present else []


def _in_order(
    path: Path, table: Table, encoder: TableEncoder, names: Sequence[str], tell: Callable[[str], object] | None
) -> tuple[list[int], list[int]]:
    """Return the positions of features and targets in a table whose columns have no names to match."""
    count, columns = len(table.names), encoder.columns_
    if count not in (len(columns), len(columns) + len(names)):
        raise DataError(_another_number(path, count, len(columns)))
    if tell:
        tell(f"no header: the columns are taken in the order of training ({some([c.name for c in columns])})")
    places = [k for k, column in enumerate(columns) if column.kind != "left out"]
    if count == len(columns):
        return places, []
    present = all(table.names.count(name) == 1 for name in names)
    targets = [table.find(name) for name in names] if present else list(range(count - len(names), count))
    features = [k for k in range(count) if k not in set(targets)]
    return [features[k] for k in places], targets


def _classes(table: Table, column: int, classes: Classes) -> np.ndarray:
    labels = table.text(column)
    return np.where(labels.isna().to_numpy(bool), NO_LABEL, classes.numbers(labels.tolist()))


def _targets(table: Table, columns: list[int], tell: Callable[[str], object]) -> np.ndarray | None:
    """Return the targets as far as they are there; None where they are no numbers."""
    values = np.empty((len(table.frame), len(columns)))
    for k, column in enumerate(columns):
        cells = table.frame.iloc[:, column]
        try:
            values[:, k] = numbers_of(table.names[column], cells, cells.isna().to_numpy(bool))
        except CellError as error:
            tell(f"no error is told, because the target is no column of numbers: {error}")
            return None
    return values[:, 0] if len(columns) == 1 else values
