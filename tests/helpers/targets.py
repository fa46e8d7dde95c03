"""Data with several targets: classes as labels, and columns."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tests.helpers.problems import sphere

NAMES = ("rose", "ash, white", "elm")  # one of them needs quotes in a CSV file


def flowers(path: Path, classes: tuple[str, ...] = NAMES, n: int = 36, header: bool = True) -> list[str]:
    """Write points around one centre for each class, the label in the middle column; return the labels."""
    rng = np.random.default_rng(0)
    numbers = np.arange(n) % len(classes)
    X = 3 * np.eye(3)[numbers] + 0.1 * rng.standard_normal((n, 3))  # (n, 3), far apart
    labels = [classes[k] for k in numbers]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        if header:
            rows.writerow(["a", "b", "kind", "c"])
        rows.writerows([x[0], x[1], label, x[2]] for x, label in zip(X.tolist(), labels, strict=True))
    return labels


def columns(n=24, d=4, outputs=3, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Points on the sphere and smooth targets (n, c), each of mean 0 and variance 1."""
    X, _ = sphere(n, d, seed)
    rng = np.random.default_rng(seed + 1)
    Y = np.sin(2 * X @ rng.standard_normal((d, outputs))) + (X @ rng.standard_normal((d, outputs))) ** 2
    return X, (Y - Y.mean(axis=0)) / Y.std(axis=0)
