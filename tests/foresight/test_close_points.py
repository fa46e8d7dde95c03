"""Equal and close points with and without equal targets."""

from __future__ import annotations

import numpy as np

from gpu_sublinear.foresight import close_points as contradictions
from gpu_sublinear.foresight.close_points import CLOSE, FAR, find_contradictions
from tests.helpers.problems import sphere


def planted() -> tuple[np.ndarray, np.ndarray]:
    """50 far points; rows 50 and 51 near rows 3 and 7 (one agrees), row 52 equal to row 9, row 53 to row 11."""
    X, y = sphere(50, 20)
    near = X[[3, 7]] + 0.01 * np.eye(20)[:2]
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return np.vstack([X, near, X[[9, 11]]]), np.concatenate([y, [y[3] + 3, y[7] + 0.1, y[9], y[11] + 2]])


def test_planted_pairs_are_found_and_named():
    X, y = planted()
    seen = find_contradictions(X, y)
    assert (seen.duplicates, seen.contradictory_duplicates, seen.close, seen.far) == (2, 1, 2, 1)
    assert [(pair.first, pair.second) for pair in seen.worst] == [(11, 53), (3, 50)]
    equal, near = seen.worst
    assert equal.slope == np.inf
    assert near.targets == (y[3], y[50])
    assert abs(near.slope - 3 / np.linalg.norm(X[3] - X[50])) < 1e-9


def test_blocks_do_not_matter_and_all_pairs_are_counted(monkeypatch):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 2))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.standard_normal(40)
    whole = find_contradictions(X, y)
    upper = np.triu_indices(40, 1)
    cosines, apart = (X @ X.T)[upper], abs(y[:, None] - y[None])[upper]
    assert (whole.close, whole.far) == ((cosines >= CLOSE).sum(), ((cosines >= CLOSE) & (apart >= FAR)).sum())
    assert len(whole.worst) == 10
    assert sorted(whole.worst, key=lambda pair: -pair.slope) == whole.worst
    monkeypatch.setattr(contradictions, "POINTS_AT_A_TIME", 7)
    blocks = find_contradictions(X, y)
    assert [(p.first, p.second) for p in blocks.worst] == [(p.first, p.second) for p in whole.worst]
    assert (blocks.close, blocks.far) == (whole.close, whole.far)
