"""Where the points come from: scikit-learn's bundled data, a sphere, or a file; and how they are split."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OptionError, shown
from .classes import Classes
from .preprocessing import Kind, Preprocessing, TargetScaling
from .tables import SUFFIXES, Table, find, read_csv, read_npy, read_npz

__all__ = ["Dataset", "Preprocessing", "TargetScaling", "load", "load_for_prediction", "split"]

BUNDLED = ("digits", "diabetes", "breast_cancer")
SPHERE_DEFAULTS = {"n": 512, "d": 16, "seed": 0}
WHAT_DATA_CAN_BE = "digits, diabetes, breast_cancer, sphere:n=512,d=16,seed=0, or a path to a .csv, .npz or .npy file"


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

    @property
    def outputs(self) -> int:
        """Number of targets, c."""
        return 1 if self.y.ndim == 1 else self.y.shape[1]


def load(spec: str, target: str | None = None, classify: bool = False) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    spec : str
        ``digits``, ``diabetes``, ``breast_cancer``, ``sphere:n=512,d=16,seed=0``, or a path to a .csv, .npz
        or .npy file.
    target : str, optional
        The target column by name or by index from 0 (.csv, .npy; by default the last), or the key of the
        targets (.npz; by default ``y``).  Several columns are separated by commas.
    classify : bool
        Whether the target holds class labels, words or numbers.

    Returns
    -------
    Dataset
        At least two points.

    Raises
    ------
    DataError
        If the data does not exist or cannot be used as it is; the message names the place.
    """
    dataset = _load(str(spec), target, classify)
    if len(dataset.y) < 2:
        raise DataError(f"'{dataset.name}' has {len(dataset.y)} point, but training needs at least 2; give more data")
    if not dataset.X.shape[1]:
        raise DataError(f"'{dataset.name}' has a target and no features; give at least one more column")
    return dataset


def _load(spec: str, target: str | None, classify: bool = False) -> Dataset:
    if spec in BUNDLED or spec.partition(":")[0] == "sphere":
        if target is not None:
            raise DataError(f"'{spec}' has its own target; leave out --target")
        dataset = _bundled(spec) if spec in BUNDLED else _sphere(spec)
        return _classified(dataset, dataset.y) if classify else dataset
    path = _path(spec)
    if path.suffix.lower() == ".npz":
        return _from_npz(path, target or "y", classify)
    target = "-1" if target is None else target
    table = _read_table(path, (lambda names: _labels_at(names, target)) if classify else None)
    columns = [_labels_at(table.names, target)] if classify else _columns(table.names, target)
    X, y = table.without(columns)
    names = tuple(np.delete(np.array(table.names, dtype=object), columns))
    targets = tuple(table.names[column] for column in columns)
    several = targets if len(targets) > 1 else ()
    dataset = Dataset(X, y, path.name, names, ", ".join(targets), target_names=several)
    return _classified(dataset, y if table.labels is None else table.labels) if classify else dataset


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


def _columns(names: tuple[str, ...], target: str) -> list[int]:
    """Return the positions of the target columns, in the order in which they are given."""
    if "," not in target or target in names:
        return [find(names, target)]
    columns = [find(names, part.strip()) for part in target.split(",")]
    if len(set(columns)) < len(columns):
        raise DataError(f"--target '{shown(target)}' names a column twice; give each target once")
    return columns


def _labels_at(names: tuple[str, ...], target: str) -> int:
    """Return the position of the column of class labels."""
    columns = _columns(names, target)
    if len(columns) > 1:
        raise DataError(f"--classify takes one column of labels, and --target '{shown(target)}' names {len(columns)}")
    return columns[0]


def _path(spec: str) -> Path:
    path = Path(spec)
    if path.suffix.lower() in SUFFIXES:
        return path
    if path.is_file():
        raise DataError(f"'{spec}' does not end in .csv, .npz or .npy; convert or rename the file")
    close = difflib.get_close_matches(spec, [*BUNDLED, "sphere"], 1)
    hint = f"did you mean '{close[0]}'?" if close else f"give {WHAT_DATA_CAN_BE}"
    raise DataError(f"unknown data '{spec}'; {hint}")


def _read_table(path: Path, text: Callable[[tuple[str, ...]], int | None] | None = None) -> Table:
    return read_csv(path, text) if path.suffix.lower() == ".csv" else read_npy(path)


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


# ---- data for a trained model ---------------------------------------------------------------------------


def load_for_prediction(
    spec: str, feature_names: tuple[str, ...], targets: str | tuple[str, ...], classes: Classes | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load points for a trained model, with or without their targets.

    A table with a header that has all feature names is taken by name.  Otherwise a table with as many columns
    as features is all features, and as many more as there are targets are those (found by name, or the last).

    Parameters
    ----------
    spec : str
        As for :func:`load`.
    feature_names : tuple of str
        Names of the features of training.
    targets : str or tuple of str
        Name of the target of training, or of several.
    classes : Classes, optional
        Of a model of classes.

    Returns
    -------
    X : numpy.ndarray
        (n, d) raw features.
    y : numpy.ndarray or None
        (n,) or (n, c) targets, or (n,) class numbers (-1: none of the model's), if the data has them.

    Raises
    ------
    DataError
        If the data cannot be read or has another number of features.
    """
    names = (targets,) if isinstance(targets, str) else targets
    X, y = _points_and_targets(spec, feature_names, names, classes is not None)
    if X.shape[1] != len(feature_names):
        raise DataError(
            f"'{spec}' has {X.shape[1]} features, but the model was trained on {len(feature_names)}; "
            "give the same features in the same order"
        )
    if y is not None and classes is not None:
        return X, classes.numbers(y)
    wanted = (len(X),) if len(names) == 1 else (len(X), len(names))
    return X, y if y is not None and y.shape == wanted else None


def _points_and_targets(
    spec: str, names: tuple[str, ...], targets: tuple[str, ...], classify: bool
) -> tuple[np.ndarray, Any]:
    """Return the points (n, d), and targets or labels if there are any."""
    if spec in BUNDLED or spec.partition(":")[0] == "sphere":
        dataset = _load(spec, None)
        return dataset.X, dataset.y
    path = _path(spec)
    if path.suffix.lower() == ".npz":
        key = targets[0] if len(targets) == 1 else targets[0].rpartition(" ")[0]  # as _from_npz numbered them
        return read_npz(path, key, required=False, labels=classify)
    table = _read_table(path, (lambda found: _label_column(found, names, targets[0])) if classify else None)
    places = {name: k for k, name in enumerate(table.names)}  # not Table.find, which looks through all names each time
    present = set(targets) <= set(places)
    if table.named and len(places) == len(table.names) and set(names) <= set(places):
        columns = [places[name] for name in targets] if present else []
        X = table.values[:, [places[name] for name in names]]
    elif len(table.names) != len(names) + len(targets):
        return table.values, None
    else:
        last = list(range(len(names), len(table.names)))
        columns = [table.find(name) for name in targets] if present else last
        X = table.without(columns)[0]
    if not columns:
        return X, None
    return X, table.without(columns)[1] if table.labels is None else table.labels


def _label_column(found: tuple[str, ...], names: tuple[str, ...], target: str) -> int | None:
    """Return the column of a table that may hold class labels."""
    if target in found:
        return found.index(target)
    return len(names) if len(found) == len(names) + 1 and not set(names) <= set(found) else None


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
