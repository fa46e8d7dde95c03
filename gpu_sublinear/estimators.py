"""The network as scikit-learn estimators: raw features and targets in, predictions out.

Everything learned from the training points belongs to the fitted model: means and deviations of features and targets,
classes, the penalty, the weights.  Sample weights enter all of them, so whole weights act as repetitions throughout.

The regressor minimises squared errors; the classifier too, on targets +-1 for two classes and 0/1 columns for more, so
its decision function estimates ``2 P(class 1) - 1`` or ``P(class k)`` but may leave the range; no probabilities are
offered (``sklearn.calibration`` makes some).
"""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from .arrays import like, to_host
from .classes import coded, decided
from .devices import Device, get_device
from .errors import DataError, OptionError
from .gauss_newton import GaussNewton
from .history import TrainingResult
from .network import ShiftedReluNetwork
from .preprocessing import Preprocessing, TargetScaling
from .session import Session
from .weights import SampleWeights

SEEDS = 2**31 - 1
DTYPES = ("auto", "float32", "float64")
GRAM_POINTS = 5000  # up to here "auto" takes the exact Gram matrix, so that copies and weights do the same


class _Sublinear(BaseEstimator):
    """What regressor and classifier share: parameters, fit, partial_fit, pickling."""

    _session: Session | None = None  # of partial_fit; holds the points given so far

    def __init__(
        self,
        *,
        width=16384,
        shift=1.5,
        activation="relu",
        both_layers=False,
        alpha="auto",
        max_steps=30,
        tolerance=1e-2,
        preprocessing="smooth",
        sampling="explicit",
        solver="auto",
        margin="auto",
        mask="auto",
        batch_size=None,
        memory_limit=None,
        time_budget=None,
        dtype="auto",
        device="auto",
        random_state=0,
    ):
        self.width = width
        self.shift = shift
        self.activation = activation
        self.both_layers = both_layers
        self.alpha = alpha
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.preprocessing = preprocessing
        self.sampling = sampling
        self.solver = solver
        self.margin = margin
        self.mask = mask
        self.batch_size = batch_size
        self.memory_limit = memory_limit
        self.time_budget = time_budget
        self.dtype = dtype
        self.device = device
        self.random_state = random_state

    # ---- training ---------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None):
        """Train from the initial weights.

        Parameters
        ----------
        X : array_like
            (n, d) raw features: array, table, or an array of CuPy, PyTorch or another library with DLPack.
        y : array_like
            (n,) or (n, c) targets; (n,) classes.
        sample_weight : array_like, optional
            (n,) numbers >= 0, how much each point counts.

        Returns
        -------
        self
            Fitted.
        """
        X, y = self._read(X, y, reset=True)
        w = None if sample_weight is None else self._weights(sample_weight, X)
        if w is not None:
            X, y, w = X[w > 0], y[w > 0], w[w > 0]
        trainer, network, Z, t = self._begin(X, self._learn_targets(y, w), w)
        self._session = None
        return self._finish(trainer.fit(network, Z, t, sample_weight=w))

    def _partial_fit(self, X: Any, y: Any, classes: Any = None):
        first = not hasattr(self, "network_")
        X, y = self._read(X, y, reset=first)
        if first:
            trainer, network, Z, t = self._begin(X, self._learn_targets(y, None, classes), None)
            self._session = trainer.begin(network, Z, t)
            return self._finish(self._session.train())
        self._check_classes(classes)
        Z, t = self.preprocessing_.transform(X).astype(self.network_.dtype), self._scaled(self._encoded(y))
        if self._session is not None:
            return self._finish(self._session.partial_fit(Z, t))
        self._session = replace(self._trainer(len(Z)), alpha=self.alpha_).begin(self.network_, Z, t)
        return self._finish(self._session.train())

    def _check_classes(self, classes: Any) -> None:
        """Refuse classes that differ from those of the first call."""

    def _read(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return X (n, d) and y on the host, checked by scikit-learn."""
        X, y = validate_data(self, to_host(X), to_host(y), reset=reset, dtype=[np.float64, np.float32], **self._checks)
        return X, y

    def _weights(self, sample_weight: Any, X: np.ndarray) -> np.ndarray:
        """Return the weights (n,) float64, checked."""
        w = _check_sample_weight(to_host(sample_weight), X, dtype=np.float64)
        SampleWeights.of(get_device("reference"), w, len(X))
        return w

    def _begin(self, X: np.ndarray, targets: np.ndarray, w: np.ndarray | None) -> tuple[Any, ...]:
        """Fit the preprocessing; return trainer, initial network, points (n, d') and scaled targets."""
        if self.dtype not in DTYPES:
            raise OptionError(f"dtype must be one of {', '.join(DTYPES)}; got {self.dtype!r}")
        dtype = str(X.dtype) if self.dtype == "auto" else self.dtype
        self.preprocessing_ = Preprocessing.fit(X, self.preprocessing, w)
        Z = self.preprocessing_.transform(X).astype(dtype)
        network = ShiftedReluNetwork.initialize(
            self.width,
            Z.shape[1],
            shift=self.shift,
            activation=self.activation,
            seed=int(check_random_state(self.random_state).randint(SEEDS)),
            dtype=dtype,
            paired=True,
            sampling=self.sampling,
            outputs=1 if targets.ndim == 1 else targets.shape[1],
            device=get_device(self.device),
        )
        return self._trainer(len(Z)), network, Z, self._scaled(targets)

    def _trainer(self, n: int) -> GaussNewton:
        return GaussNewton(
            solver="gram" if self.solver == "auto" and n <= GRAM_POINTS else self.solver,
            margin=self.margin,
            mask=self.mask,
            batch_size=self.batch_size,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
            memory_limit=self.memory_limit,
            alpha=self.alpha,
            both_layers=self.both_layers,
            time_budget=self.time_budget,
        )

    def _scaled(self, targets: np.ndarray) -> np.ndarray:
        return (targets - self.targets_.mean) / self.targets_.std

    def _finish(self, result: TrainingResult):
        """Keep what a training gave."""
        last = result.history[-1]
        if not np.isfinite(last.residual_norm):
            raise DataError(f"training diverged: {result.reason}")
        self.network_ = result.network
        self.history_ = result.history
        self.alpha_ = result.alpha
        self.n_iter_ = last.step
        self.converged_ = result.converged
        self.reason_ = result.reason
        if not result.converged:
            warnings.warn(f"training did not converge: {result.reason}", ConvergenceWarning, stacklevel=3)
        return self

    # ---- prediction -------------------------------------------------------------------------------------

    def _raw(self, X: Any) -> np.ndarray:
        """Return the targets of raw features (n, d), (n,) or (n, c) float64."""
        check_is_fitted(self, "network_")
        X = validate_data(self, to_host(X), reset=False, dtype=[np.float64, np.float32])
        return self.targets_.inverse(self.network_.predict(self.preprocessing_.transform(X)))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 of a regressor, accuracy of a classifier.

        Parameters
        ----------
        X : array_like
            (n, d) raw features.
        y : array_like
            Targets or classes.
        sample_weight : array_like, optional
            (n,) numbers >= 0.

        Returns
        -------
        float
            At most 1.
        """
        return super().score(to_host(X), to_host(y), to_host(sample_weight))

    # ---- pickling ---------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Leave device and session behind; the arrays travel as NumPy arrays."""
        state = dict(super().__getstate__())
        state.pop("_session", None)
        if "network_" in state:
            state["network_"] = _without_device(state["network_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the weights to the device that ``device`` names here."""
        super().__setstate__(state)
        if "network_" in state:
            self.network_ = _with_device(self.network_, get_device(self.device))


class SublinearRegressor(RegressorMixin, _Sublinear):
    """Wide two-layer shifted-ReLU network, trained by Gauss-Newton steps; one target or several.

    Parameters
    ----------
    width : int
        m, even; time of the first scan is proportional to it.
    shift : float, "paper" or "fired:K"
        b >= 0: larger ones make training cheaper, and at these widths predictions a little worse.
    activation : str or Activation
        Of the neurons (:mod:`gpu_sublinear.activation`); all but relu and max have one output.
    both_layers : bool
        Train the second layer as well; needs one output.
    alpha : "auto" or float
        Ridge penalty on the distance from the initial weights, in units of tr(G_0)/n; "auto" takes that of least
        leave-one-out error of the linearised network (:mod:`gpu_sublinear.penalty`); 0 interpolates.
    max_steps : int
        Most Gauss-Newton steps.
    tolerance : float
        Training ends when the error is this part of the targets, or a step promises less than this part of the loss.
    preprocessing : {"smooth", "standard", "unit"}
        Standardise, append a constant coordinate (large: smooth; 1: standard) and normalise each row, or only
        normalise: :class:`gpu_sublinear.preprocessing.Preprocessing`.
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
    network_ : ShiftedReluNetwork
        Trained.
    preprocessing_ : Preprocessing
        From raw features to unit rows.
    targets_ : TargetScaling
        From standard targets to those of the user.
    history_ : list of StepRecord
        Of the last training.
    alpha_ : float
        Penalty used.
    n_iter_ : int
        Steps taken.
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

    def partial_fit(self, X: Any, y: Any):
        """Add points and train on all points given so far, from the present weights.

        The first call fixes preprocessing, scaling of the targets and the penalty: give it typical points.

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


class SublinearClassifier(ClassifierMixin, _Sublinear):
    """Wide two-layer shifted-ReLU network, trained on classes by Gauss-Newton steps on squared errors.

    Parameters
    ----------
    width : int
        m, even; time of the first scan is proportional to it.
    shift : float, "paper" or "fired:K"
        b >= 0: larger ones make training cheaper, and at these widths predictions a little worse.
    activation : str or Activation
        Of the neurons (:mod:`gpu_sublinear.activation`); all but relu and max have one output.
    both_layers : bool
        Train the second layer as well; needs one output.
    alpha : "auto" or float
        Ridge penalty on the distance from the initial weights, in units of tr(G_0)/n; "auto" takes that of least
        leave-one-out error of the linearised network (:mod:`gpu_sublinear.penalty`); 0 interpolates.
    max_steps : int
        Most Gauss-Newton steps.
    tolerance : float
        Training ends when the error is this part of the targets, or a step promises less than this part of the loss.
    preprocessing : {"smooth", "standard", "unit"}
        Standardise, append a constant coordinate (large: smooth; 1: standard) and normalise each row, or only
        normalise: :class:`gpu_sublinear.preprocessing.Preprocessing`.
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
    network_ : ShiftedReluNetwork
        Trained.
    preprocessing_ : Preprocessing
        From raw features to unit rows.
    targets_ : TargetScaling
        From standard targets to those of the user.
    history_ : list of StepRecord
        Of the last training.
    alpha_ : float
        Penalty used.
    n_iter_ : int
        Steps taken.
    converged_, reason_ : bool, str
        Whether and why training ended.
    classes_ : ndarray
        Sorted.
    n_features_in_, feature_names_in_ : int, ndarray
        Of X.
    """

    _checks: dict[str, Any] = {}

    def partial_fit(self, X: Any, y: Any, classes: Any = None):
        """Add points and train on all points given so far, from the present weights.

        The first call fixes preprocessing, class frequencies and the penalty: give it typical points.

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


def _without_device(network: ShiftedReluNetwork) -> ShiftedReluNetwork:
    """Return the network with NumPy arrays and without a device, for a pickle."""
    device = network.device
    host: dict[str, Any] = {name: device.to_host(a) for name, a in _fields(network) if isinstance(a, device.xp.ndarray)}
    return replace(network, **(host | {"device": None}))


def _with_device(network: ShiftedReluNetwork, device: Device) -> ShiftedReluNetwork:
    """Return the network with its arrays on a device."""
    there: dict[str, Any] = {
        name: device.asarray(a, str(a.dtype)) for name, a in _fields(network) if isinstance(a, np.ndarray)
    }
    return replace(network, device=device, **there)


def _fields(network: ShiftedReluNetwork) -> list[tuple[str, Any]]:
    return [(f.name, getattr(network, f.name)) for f in fields(network) if f.init]
