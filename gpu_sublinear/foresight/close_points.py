"""Points that are equal or nearly so, and whether their targets agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLOSE = 0.98  # cosine, 11 degrees: at b = 2 two such points still share most of the neurons that fire on either
FAR = 1.0  # standard deviations between the targets of a close pair that deserve a look
LISTED = 10  # pairs that a report can show
POINTS_AT_A_TIME = 1024  # points whose inner products with all others are held at a time


@dataclass(frozen=True)
class Pair:
    """Two points whose targets disagree although they lie close.

    Attributes
    ----------
    first, second : int
        Their rows.
    cosine : float
        ``<x_i, x_j>``.
    targets : tuple of float
        Their targets, in the unit that was given; of several, those that differ most.
    slope : float
        ``|y_i - y_j| / ||x_i - x_j||``: how steep a function through both must be; infinite for equal points.
    output : int
        Which of several targets ``targets`` are of.
    """

    first: int
    second: int
    cosine: float
    targets: tuple[float, float]
    slope: float
    output: int = 0


@dataclass(frozen=True)
class Contradictions:
    """What was found among all pairs of points.

    Attributes
    ----------
    duplicates : int
        Rows that repeat an earlier row.
    contradictory_duplicates : int
        Of these, rows whose target differs from that of an equal row before it: no function fits both.
    close : int
        Pairs of different points with cosine at least ``CLOSE``.
    far : int
        Of these, pairs whose targets are at least ``FAR`` standard deviations apart.
    worst : list of Pair
        Contradictory duplicates first, then the steepest far pairs; at most ``LISTED``.
    """

    duplicates: int
    contradictory_duplicates: int
    close: int
    far: int
    worst: list[Pair]


def find_contradictions(X: np.ndarray, y: np.ndarray) -> Contradictions:
    """Look at all pairs of points, in blocks.

    Parameters
    ----------
    X : ndarray
        (n, d) unit rows.
    y : ndarray
        (n,) or (n, c) targets of standard deviation about 1.

    Returns
    -------
    Contradictions
        Counts, and the worst pairs.
    """
    y = y.reshape(len(y), -1)  # (n, c)
    repeats, equal = _duplicates(X, y)
    close = far = 0
    found: list[Pair] = []
    for i, j, cosine in _close_pairs(X):
        chord = np.linalg.norm(X[i] - X[j], axis=1)  # (pairs,): 2 - 2 cos would cancel
        apart = abs(y[i] - y[j]).max(axis=1)  # (pairs,)
        wide = (apart >= FAR) & (chord > 0)
        close, far = close + int((chord > 0).sum()), far + int(wide.sum())
        slope = apart[wide] / chord[wide]
        for k in np.argsort(-slope, kind="stable")[:LISTED]:
            a, b = int(i[wide][k]), int(j[wide][k])
            found.append(_pair(a, b, y, float(cosine[wide][k]), float(slope[k])))
    steepest = sorted(found, key=lambda pair: -pair.slope)
    return Contradictions(repeats, len(equal), close, far, (equal + steepest)[:LISTED])


def _pair(a: int, b: int, y: np.ndarray, cosine: float, slope: float) -> Pair:
    """Return a pair with the targets of the output in which they differ most."""
    output = int(np.argmax(abs(y[a] - y[b])))
    return Pair(a, b, cosine, (float(y[a, output]), float(y[b, output])), slope, output)


def _close_pairs(X: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (i, j, cosine) of all pairs i < j with cosine at least ``CLOSE``, block by block."""
    for start in range(0, len(X), POINTS_AT_A_TIME):
        K = X[start : start + POINTS_AT_A_TIME] @ X[start:].T  # (block, n - start)
        i, j = np.nonzero(K >= CLOSE)
        later = j > i
        i, j = i[later], j[later]
        yield start + i, start + j, K[i, j]


def _duplicates(X: np.ndarray, y: np.ndarray) -> tuple[int, list[Pair]]:
    """Return how many rows repeat another one, and the pairs of equal rows whose targets differ."""
    order = np.lexsort((*y.T, *X.T))
    same = (X[order[1:]] == X[order[:-1]]).all(axis=1)
    differ = np.flatnonzero(same & (y[order[1:]] != y[order[:-1]]).any(axis=1))
    pairs = [sorted((int(order[k]), int(order[k + 1]))) for k in differ]
    return int(same.sum()), [_pair(a, b, y, 1.0, float("inf")) for a, b in pairs]
