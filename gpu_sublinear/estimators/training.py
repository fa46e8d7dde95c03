"""How estimators train: one network or one for each target; the penalty given, foreseen, or searched for on folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..model.network import ShiftedReluNetwork
from ..step.history import TrainingResult
from ..step.run import Run
from ..training import support
from ..training.gauss_newton import GaussNewton
from ..training.session import Session
from ..tuning.cross_validation import CrossValidation, cross_validate
from ..tuning.shared_scan import SharedScan, warm_starts

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Task:
    """What there is to learn.

    Attributes
    ----------
    trainer : GaussNewton
        Options; with ``folds`` its alpha is the least of ``alphas``.
    network : ShiftedReluNetwork
        Initial weights; of one output where each target gets a network of its own.
    X : ndarray
        (n, d) unit rows.
    y : ndarray
        (n,) or (n, c) standard targets.
    weights : ndarray or None
        (n,) above 0.
    alphas : sequence of float
        Penalties to try on the folds.
    folds : list or None
        Numbers of the points to train on and to judge by; None takes the penalty of the trainer.
    patience : int or None
        As for :func:`gpu_sublinear.tuning.cross_validation.cross_validate`.
    """

    trainer: GaussNewton
    network: ShiftedReluNetwork
    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    alphas: Sequence[float] = ()
    folds: Folds | None = None
    patience: int | None = None

    def train(self) -> tuple[list[TrainingResult], list[CrossValidation]]:
        """Return what training gave, and what the folds said: one of each, or one for each target."""
        if self.folds is None and not self.apart:
            return [self.trainer.fit(self.network, self.X, self.y, sample_weight=self.weights)], []
        scan, results, searches = self._scan(), [], []
        for y in self.y.T if self.apart else [self.y]:
            if self.folds is None:
                results.append(scan.fit(y, sample_weight=self.weights))
                continue
            _, result, found = self._search(scan, y, self.folds)
            results.append(result)
            searches.append(found)
        return results, searches

    def begin(self) -> tuple[Session, TrainingResult, list[CrossValidation]]:
        """Return what :meth:`train` does for one network, with the session to which points can be added."""
        if self.folds is None:
            session = self.trainer.begin(self.network, self.X, self.y)
            return session, session.train(), []
        support.check(self.trainer, self.network, support.SESSION)
        run, result, found = self._search(self._scan(), self.y, self.folds)
        return Session(replace(self.trainer, alpha=found.alpha), run), result, [found]

    @property
    def apart(self) -> bool:
        """Whether each target gets a network of its own."""
        return self.y.ndim == 2 and self.network.outputs == 1

    def _scan(self) -> SharedScan:
        y = self.y[:, 0] if self.apart else self.y  # flips foresee the length of steps from it
        return SharedScan.build(self.trainer, self.network, self.X, y, 1 if self.folds is None else len(self.folds))

    def _search(self, scan: SharedScan, y: np.ndarray, folds: Folds) -> tuple[Run, TrainingResult, CrossValidation]:
        """Search on folds, then train on all points as folds were, down to the best: minima depend on the way."""
        found = cross_validate(scan, y, self.alphas, folds, self.weights, self.patience)
        run = scan.run(y, alpha=1.0, sample_weight=self.weights)
        *_, (_, result) = warm_starts(run, found.alphas[: found.best + 1].tolist())
        return run, result, found
