"""The network as scikit-learn estimators: raw features and targets in, predictions out.

Everything learned from the training points belongs to the fitted model: means and deviations of features and targets,
classes, the penalty, the weights.  Sample weights enter all of them, so whole weights act as repetitions throughout.

The regressor minimises squared errors; the classifier too, on targets +-1 for two classes and 0/1 columns for more, so
its decision function estimates ``2 P(class 1) - 1`` or ``P(class k)`` but may leave the range; no probabilities are
offered (``sklearn.calibration`` makes some).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.metaestimators import available_if

from ..data.arrays import like
from ..data.preprocessing import TargetScaling
from .base import SublinearEstimator, one_network


class SublinearRegressor(RegressorMixin, SublinearEstimator):
    """Wide two-layer shifted-ReLU network, trained by Gauss-Newton steps; one target or several.

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
        Folds of alpha="cv", as everywhere in scikit-learn: 5 by default, in the order of the points.  All folds and
        penalties share one scan of the neurons; preprocessing is that of all points.
    per_target : bool
        Give each of several targets a network and a penalty of its own, all from one scan, instead of one network of
        several outputs.  It excludes what alpha="cv" does, and ``partial_fit``.
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
        Trained; with ``per_target`` one for each of several targets.
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
    n_features_in_, feature_names_in_ : int, ndarray
        Of X.
    """

    _checks = {"multi_output": True, "y_numeric": True}

    def __sklearn_tags__(self):
        """Say that there may be several targets."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @available_if(one_network)
    def partial_fit(self, X: Any, y: Any):
        """Add points and train on all points given so far, from the present weights.

        The first call fixes preprocessing, scaling of the targets and the penalty: give it typical points.  Later ones
        that vary where these hardly do are warned of (OutgrownStatisticsWarning).

        Parameters
        ----------
        X : array_like
            (k, d) raw features.
        y : array_like
            (k,) or (k, c) targets.

        Returns
        -------
        self
            Fitted.
        """
        return self._partial_fit(X, y)

    def predict(self, X: Any) -> Any:
        """Return the predicted targets, as an array of the kind of X.

        Parameters
        ----------
        X : array_like
            (n, d) raw features.

        Returns
        -------
        array
            (n,) or (n, c), shaped like the targets of training.
        """
        values = self._raw(X)
        return like(X, values.reshape(-1, 1) if self._column else values)

    def _learn_targets(self, y: np.ndarray, w: np.ndarray | None, classes: Any = None) -> np.ndarray:
        """Learn the scaling; return the targets (n,) or (n, c)."""
        self._column = y.ndim == 2 and y.shape[1] == 1
        y = self._encoded(y)
        self.targets_ = TargetScaling.forgiving(y, w)
        return y

    def _encoded(self, y: np.ndarray) -> np.ndarray:
        y = y.astype(np.float64)
        return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
