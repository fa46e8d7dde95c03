"""Class labels as targets: +-1 for two classes, one column for each class otherwise.

Labels keep their text.  Only where every label is a plain number as programs write them (``1``, ``1.0``, ``-0.5``) are
equal numbers one class; ``007``, ``1.10`` and ``1e3`` are text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, shown

MOST_CLASSES = 1000  # each is an output; a forgotten --target makes thousands
LEAST_POINTS = 3  # per class on average: fewer is a column of measurements, not of labels


@dataclass(frozen=True)
class Classes:
    """The classes of a problem, in a fixed order.

    Attributes
    ----------
    names : tuple of str
        Two or more names: numbers in numerical order, else words in the order of their letters.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Iterable[object], what: str) -> Classes:
        """Find the classes of a data set.

        Parameters
        ----------
        labels : iterable
            One label for each point: words or numbers.
        what : str
            What messages call the column.

        Returns
        -------
        Classes
            In order.

        Raises
        ------
        DataError
            If there is one class only, or so many that the column holds no labels.
        """
        texts = [str(label).strip() for label in labels]
        different = set(texts)
        if all(map(_is_canonical, different)):
            texts = [label_text(text) for text in texts]
            different = set(texts)
        names = sorted(different, key=_order)
        if len(names) < 2:
            one = f"the one class '{shown(names[0], 40)}'" if names else "no label"
            raise DataError(f"{what} has {one}; classification needs two or more classes")
        if len(names) > MOST_CLASSES:
            raise DataError(
                f"{what} has {len(names):,} different values, more than {MOST_CLASSES:,} classes; "
                "name the column of labels with --target, or leave out --classify"
            )
        if len(names) * LEAST_POINTS > max(len(texts), 2 * LEAST_POINTS):
            raise DataError(
                f"{what} has {len(names)} different values for {len(texts)} points, fewer than {LEAST_POINTS} points "
                "a class; give a column of labels, or leave out --classify"
            )
        return cls(tuple(names))

    @property
    def outputs(self) -> int:
        """Number of outputs: 1 for two classes, else one for each."""
        return 1 if len(self.names) == 2 else len(self.names)

    def numbers(self, labels: Iterable[object]) -> np.ndarray:
        """Return the place of each label among the names, (n,) int64; -1 for a class that is not among them."""
        place = {name: k for k, name in enumerate(self.names)}
        return np.array([_place(place, str(label).strip()) for label in labels], np.int64)

    def targets(self, numbers: np.ndarray) -> np.ndarray:
        """Return the targets of class numbers (n,): -1 and +1, (n,), for two classes, else 0 and 1, (n, c)."""
        return coded(numbers, len(self.names))

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """Return the class numbers that outputs (n,) or (n, c) speak for, (n,) int64: the sign, or the largest."""
        return decided(outputs)

    def label(self, numbers: np.ndarray) -> np.ndarray:
        """Return the names of class numbers (n,)."""
        return np.array(self.names)[numbers]

    def check_training(self, numbers: np.ndarray) -> None:
        """Refuse training points that lack a class.

        Parameters
        ----------
        numbers : numpy.ndarray
            (n,) classes of the training points.

        Raises
        ------
        DataError
            Naming the class.
        """
        counts = np.bincount(numbers, minlength=len(self.names))
        if not counts.all():
            name = self.names[int(np.argmin(counts))]
            raise DataError(
                f"class '{shown(name, 40)}' has no training point, all are held out; "
                "give more of them, another --seed or a smaller --test-fraction"
            )


def coded(numbers: np.ndarray, count: int) -> np.ndarray:
    """Return the targets of class numbers (n,): -1 and +1, (n,), for two classes, else 0 and 1, (n, count)."""
    return 2.0 * numbers - 1 if count == 2 else np.eye(count)[numbers]


def decided(outputs: np.ndarray) -> np.ndarray:
    """Return the class numbers that outputs (n,) or (n, c) speak for, (n,) int64: the sign, or the largest."""
    return (outputs > 0).astype(np.int64) if outputs.ndim == 1 else outputs.argmax(axis=1)


def _place(places: dict[str, int], text: str) -> int:
    """Return the place of a label: as it is written, else as the number that it is."""
    if text in places or not _is_canonical(text):
        return places.get(text, -1)
    return places.get(label_text(text), -1)


def _is_canonical(text: str) -> bool:
    """Tell whether a label is a number written as str, repr or numpy.savetxt write it."""
    number = _number(text)
    if number is None:
        return False
    ways = [repr(number), f"{number:.18e}"]
    return text in ([*ways, str(int(number))] if number.is_integer() else ways)


def label_text(label: object) -> str:
    """Return a label as text; numbers that are equal give the same text."""
    text = str(label).strip()
    number = _number(text)
    if number is None:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def names_from(names: Sequence[str] | None) -> Classes | None:
    """Return the classes that a model file tells of, None for a model of numbers.

    Parameters
    ----------
    names : sequence of str or None
        Entry ``classes`` of the metadata.

    Returns
    -------
    Classes or None
        In the order of the outputs.

    Raises
    ------
    ValueError
        If they are not two or more different words.
    """
    if names is None:
        return None
    if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not two or more different names")
    return Classes(tuple(names))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _order(name: str) -> tuple[bool, float, str]:
    number = _number(name)
    return (number is None, 0.0 if number is None else number, name)
