"""A classifier by the rules of scikit-learn: one output of a network for each class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..data.arrays import like, to_host
from ..data.classes import coded, decided
from ..data.preprocessing import TargetScaling
from ..errors import DataError
from ..step.history import TrainingResult
from .base import SublinearEstimator, one_network
from .doubts import NEXT_TO_NOTHING, Learned


class SublinearClassifier(ClassifierMixin, SublinearEstimator):
    """Wide two-layer shifted-ReLU network, trained on classes by Gauss-Newton steps on squared errors.

    Parameters
    ----------
    width : int
        m, even; time of the first scan is proportional to it.
    shift : float, "paper" or "fired:K"
        b >= 0: larger ones make training cheaper, and at these widths predictions a little worse.
    activation : str or Activation
        Of the neurons (:mod:`gpu_sublinear.model.activation`); all but relu and max have one output.
    both_layers : bool
        Train the second layer as well; without folds and ``partial_fit``.
    alpha : "auto", "cv" or float
        Ridge penalty on the distance from the initial weights, in units of tr(G_0)/n; "auto" takes that of least
        leave-one-out error of the linearised network (:mod:`gpu_sublinear.training.penalty`), "cv" that of least mean
        squared error on the folds of ``cv`` (:mod:`gpu_sublinear.tuning.cross_validation`), without both layers,
        batches, early stopping, time budget, and activations other than relu and max; 0 interpolates.
    alphas : array_like, optional
        Penalties above 0 that "cv" tries, all of them.  Default: 15 from 1000 to 1e-4, the largest first, until errors
        have risen for long (:class:`gpu_sublinear.tuning.cross_validation.Rise`).
    cv : int, splitter or iterable, optional
        Folds of alpha="cv", as everywhere in scikit-learn: 5 by default, stratified.  All folds and penalties share one
        scan of the neurons; preprocessing is that of all points.
    per_target : bool
        Give each class, of three or more, a network and a penalty of its own, all from one scan, instead of one network
        of several outputs.  It excludes what alpha="cv" does, and ``partial_fit``.
    max_steps : int
        Most Gauss-Newton steps.
    tolerance : float
        Training ends when the error is this part of the targets, or a step promises less than this part of the loss.
    damping : {"auto", "none"} or float
        Levenberg-Marquardt damping in units of tr(G)/n: none until full steps fail, never, or from the first step on.
    validation_fraction : float
        Share of the training points, drawn at random, that are kept for early stopping; not with folds or partial_fit.
    patience : int
        Steps without a better error on these before training stops, with the best weights.
    preprocessing : {"smooth", "standard", "unit"}
        Standardise, append a constant coordinate (large: smooth; 1: standard) and normalise each row, or only
        normalise: :class:`gpu_sublinear.data.preprocessing.Preprocessing`.
    sampling : {"explicit", "virtual", "auto"}
        Of the neurons; the last two draw only neurons that take part, as the order of the points says.
    solver, margin, mask, batch_size, memory_limit, time_budget : optional
        As of :class:`gpu_sublinear.GaussNewton`.
    dtype : {"auto", "float32", "float64"}
        Of weights and products; "auto" takes the type of X.
    device : {"auto", "cuda", "cpu", "reference"}
        Where to train and predict.
    random_state : int, RandomState or None
        Of the initial weights.

    Attributes
    ----------
    network_ : ShiftedReluNetwork or list
        Trained; with ``per_target`` one for each of three classes or more.
    preprocessing_ : Preprocessing
        From raw features to unit rows.
    targets_ : TargetScaling
        From standard targets to those of the user.
    history_ : list of StepRecord
        Of the last training; with ``per_target`` a list for each network.
    alpha_ : float or ndarray
        Penalty used; with ``per_target`` (c,).
    alphas_, mse_path_ : ndarray
        With alpha="cv": penalties tried (k,), decreasing, and errors (k, folds) on what folds leave out, in units of
        the variance of the targets, NaN where the search had ended; with ``per_target`` (c, k, folds).
    n_iter_ : int
        Steps taken, the most of all networks.
    converged_, reason_ : bool, str
        Whether and why training ended.
    classes_ : ndarray
        Sorted.
    n_features_in_, feature_names_in_ : int, ndarray
        Of X.
    """

    _checks: dict[str, Any] = {}

    @available_if(one_network)
    def partial_fit(self, X: Any, y: Any, classes: Any = None):
        """Add points and train on all points given so far, from the present weights.

        The first call fixes preprocessing, class frequencies and the penalty: give it typical points.  Later ones
        that vary where these hardly do are warned of (OutgrownStatisticsWarning).

        Parameters
        ----------
        X : array_like
            (k, d) raw features.
        y : array_like
            (k,) classes.
        classes : array_like, optional
            All classes; those of the first call by default.

        Returns
        -------
        self
            Fitted.
        """
        return self._partial_fit(X, y, classes)

    def decision_function(self, X: Any) -> Any:
        """Return the score of every class, as an array of the kind of X.

        Parameters
        ----------
        X : array_like
            (n, d) raw features.

        Returns
        -------
        array
            (n,) for two classes, positive for the second; (n, c) for more.
        """
        return like(X, self._raw(X))

    def predict(self, X: Any) -> Any:
        """Return the class of largest score; of the kind of X where classes are numbers.

        Parameters
        ----------
        X : array_like
            (n, d) raw features.

        Returns
        -------
        array
            (n,).
        """
        numbers = decided(self._raw(X))  # first: it says so where nothing is fitted
        return like(X, self.classes_[numbers])

    def _learn_targets(self, y: np.ndarray, w: np.ndarray | None, classes: Any = None) -> np.ndarray:
        """Learn classes and scaling; return +-1 (n,) or 0/1 (n, c)."""
        y = self._classes_of(y)
        self.classes_ = np.unique(y if classes is None else to_host(classes))
        if len(self.classes_) < 2:
            raise DataError(f"training needs two classes, but y holds one class only, {self.classes_.tolist()[0]!r}")
        targets = self._encoded(y)
        self.targets_ = TargetScaling.forgiving(targets, w, together=True)
        return targets

    def _check_classes(self, classes: Any) -> None:
        if classes is None:
            return
        found = np.unique(to_host(classes))
        if not np.array_equal(found, self.classes_):
            raise DataError(
                f"classes must stay {self.classes_.tolist()}, as the first call has them; got {found.tolist()}"
            )

    def _poor(self, results: list[TrainingResult], of: Learned) -> list[str]:
        """Say how many points a classifier that explains next to nothing gets right."""
        explained = of.explained(results)
        if not np.nanmean(explained) < NEXT_TO_NOTHING:
            return []
        found, constant = of.accuracy([result.network for result in results], self.targets_)
        return [
            f"accuracy of training is {found:.3g}, and {constant:.3g} for the most frequent class alone "
            f"(R^2 of the scores is {np.nanmean(explained):.2g})"
        ]

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        y = self._classes_of(y)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise DataError(f"y holds the class {unknown[0]!r}, which is none of classes_ {self.classes_.tolist()}")
        return coded(np.searchsorted(self.classes_, y), len(self.classes_))

    @staticmethod
    def _classes_of(y: np.ndarray) -> np.ndarray:
        check_classification_targets(y)
        return column_or_1d(y, warn=True)
