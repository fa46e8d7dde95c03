"""What the estimators share: parameters, fit, partial_fit, scores, pickling."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..data.arrays import to_host
from ..data.preprocessing import Preprocessing
from ..devices import Device, get_device
from ..errors import DataError, OptionError, OutgrownStatisticsWarning, PoorFitWarning
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..sizes import dtype_name
from ..step.history import TrainingResult
from ..training.gauss_newton import GaussNewton
from ..training.session import Session
from ..tuning.cross_validation import ALPHAS, PATIENCE, CrossValidation, checked_fold
from ..tuning.shared_scan import check_alphas
from .doubts import NEXT_TO_NOTHING, Learned, outgrown, poor_fit
from .draft import adopt, untouched
from .files import Files
from .training import Folds, Task

SEEDS = 2**31 - 1
GRAM_POINTS = 5000  # up to here "auto" takes the exact Gram matrix, so that copies and weights do the same


def one_network(estimator: SublinearEstimator) -> bool:
    """Tell whether an estimator trains one network for all targets, to which points can be added."""
    return not estimator.per_target


class SublinearEstimator(Files, BaseEstimator):
    """What regressor and classifier share: parameters, fit, partial_fit, pickling."""

    _session: Session | None = None  # of partial_fit; holds the points given so far
    _doubts: list[tuple[str, type[Warning]]] = []  # of the last training, to warn of

    def __init__(
        self,
        *,
        width=16384,
        shift=1.5,
        activation="relu",
        both_layers=False,
        alpha="auto",
        alphas=None,
        cv=None,
        per_target=False,
        max_steps=30,
        tolerance=1e-2,
        damping="auto",
        validation_fraction=0.0,
        patience=3,
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
        self.alphas = alphas
        self.cv = cv
        self.per_target = per_target
        self.max_steps = max_steps
        self.tolerance = tolerance
        self.damping = damping
        self.validation_fraction = validation_fraction
        self.patience = patience
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
            Fitted.  A fit that fails or is interrupted leaves the estimator as it was.
        """
        adopt(self, lambda draft: draft._fit(X, y, sample_weight))
        return self._told()

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        X, y = self._read(X, y, reset=True)
        w = None if sample_weight is None else self._weights(sample_weight, X)
        folds = self._folds(X, y, w)
        if w is not None:
            X, y, w = X[w > 0], y[w > 0], w[w > 0]
        task = self._begin(X, self._learn_targets(y, w), w, folds)
        self._session = None
        self._finish(*task.train(), of=Learned(task.X, task.y, w))

    def _partial_fit(self, X: Any, y: Any, classes: Any = None):
        """Begin, or add points; a call that fails or is interrupted leaves the estimator as it was."""
        if not hasattr(self, "network_"):
            adopt(self, lambda draft: draft._first_fit(X, y, classes))
        elif self._session is None:
            adopt(self, lambda draft: draft._next_fit(X, y, classes))
        else:
            with untouched(self):
                adopt(self, lambda draft: draft._next_fit(X, y, classes))
        return self._told()

    def _first_fit(self, X: Any, y: Any, classes: Any) -> None:
        X, y = self._read(X, y, reset=True)
        task = self._begin(X, self._learn_targets(y, None, classes), None, self._folds(X, y, None))
        self._session, result, searches = task.begin()
        self._finish([result], searches, of=Learned(task.X, task.y))

    def _next_fit(self, X: Any, y: Any, classes: Any) -> None:
        X, y = self._read(X, y, reset=False)
        self._check_classes(classes)
        grown = self.preprocessing_.outgrown(X)
        if isinstance(self.network_, list):
            raise OptionError("partial_fit adds to one network, and fit has trained one for each target; call fit anew")
        assert isinstance(self.alpha_, float)
        Z, t = self.preprocessing_.transform(X).astype(self.network_.dtype), self._scaled(self._encoded(y))
        if self._session is not None:
            result = self._session.partial_fit(Z, t)
        else:
            network = deepcopy(self.network_)  # trained in place
            self._session = replace(self._trainer(len(Z)), alpha=self.alpha_).begin(network, Z, t)
            result = self._session.train()
        host = result.network.device.to_host
        self._finish([result], of=Learned(host(self._session.X), host(self._session.y)))
        if len(grown):
            text = outgrown(grown, getattr(self, "feature_names_in_", None))
            self._doubts.insert(0, (text, OutgrownStatisticsWarning))

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

    def _folds(self, X: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> Folds | None:
        """Return the folds of ``cv`` as numbers among the points of weight above 0; None unless they are asked for."""
        if not self._searches:
            return None
        splits = [
            checked_fold(fold, len(X)) for fold in check_cv(self.cv, y, classifier=is_classifier(self)).split(X, y)
        ]
        if w is None:
            return splits
        number = np.cumsum(w > 0) - 1  # (n,)
        weighted = [(number[train[w[train] > 0]], number[test[w[test] > 0]]) for train, test in splits]
        return [fold for fold in weighted if len(fold[1])]  # others leave out points of weight 0 only

    def _begin(self, X: np.ndarray, targets: np.ndarray, w: np.ndarray | None, folds: Folds | None) -> Task:
        """Fit the preprocessing; return what there is to learn from it."""
        apart = self.per_target and targets.ndim == 2
        if self.time_budget is not None and (self._searches or apart):
            asked = "per_target=True" if apart else "alpha='cv'"
            raise OptionError(f"time_budget is for one training, and {asked} makes many; leave out one of the two")
        automatic = isinstance(self.dtype, str) and self.dtype == "auto"
        dtype = str(X.dtype) if automatic else dtype_name(self.dtype)
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
            outputs=1 if targets.ndim == 1 or self.per_target else targets.shape[1],
            device=get_device(self.device),
        )
        task = Task(self._trainer(len(Z)), network, Z, self._scaled(targets), w, folds=folds)
        if not self._searches:
            return task
        return replace(task, alphas=self._penalties(), patience=PATIENCE if self.alphas is None else None)

    @property
    def _searches(self) -> bool:
        if isinstance(self.alpha, str) and self.alpha not in ("auto", "cv"):
            raise OptionError(f"alpha must be 'auto', 'cv' or a number from 0 on; got {self.alpha!r}")
        return isinstance(self.alpha, str) and self.alpha == "cv"

    def _penalties(self) -> list[float]:
        return check_alphas(ALPHAS if self.alphas is None else self.alphas)

    def _trainer(self, n: int) -> GaussNewton:
        return GaussNewton(
            solver="gram" if self.solver == "auto" and n <= GRAM_POINTS else self.solver,
            margin=self.margin,
            mask=self.mask,
            batch_size=self.batch_size,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
            memory_limit=self.memory_limit,
            alpha=min(self._penalties()) if self._searches else self.alpha,
            both_layers=self.both_layers,
            time_budget=self.time_budget,
            damping=self.damping,
            validation_fraction=self.validation_fraction,
            patience=self.patience,
        )

    def _scaled(self, targets: np.ndarray) -> np.ndarray:
        return (targets - self.targets_.mean) / self.targets_.std

    def _finish(
        self, results: list[TrainingResult], searches: list[CrossValidation] | None = None, *, of: Learned
    ) -> None:
        """Keep what training gave: one result, or one for each target; and what the folds said before."""
        for result in results:
            if not np.isfinite(result.history[-1].residual_norm):
                raise DataError(f"training diverged: {result.reason}")
        apart = self.per_target and len(results) > 1
        self.network_ = [result.network for result in results] if apart else results[0].network
        self.history_ = [result.history for result in results] if apart else results[0].history
        self.alpha_ = np.array([result.alpha for result in results]) if apart else results[0].alpha
        self.n_iter_ = max(result.history[-1].step for result in results)
        self.converged_ = all(result.converged for result in results)
        reasons = [f"target {k}: {result.reason}" if apart else result.reason for k, result in enumerate(results)]
        self.reason_ = "; ".join(reasons)
        if searches is not None:
            for name in {"alphas_", "mse_path_"} & set(vars(self)):  # of an earlier fit
                delattr(self, name)
        if searches:
            self.alphas_ = searches[0].alphas
            self.mse_path_ = np.stack([found.errors for found in searches]) if apart else searches[0].errors
        missing = [text for text, result in zip(reasons, results, strict=True) if not result.converged]
        self._doubts = [(f"training did not converge: {'; '.join(missing)}", ConvergenceWarning)] if missing else []
        poor = self._poor(results, of)
        if poor:
            alpha, text = float(np.max(self.alpha_)), "; ".join(poor)
            self._doubts.append((poor_fit(text, self.preprocessing_.kind, alpha), PoorFitWarning))

    def _poor(self, results: list[TrainingResult], of: Learned) -> list[str]:
        """Say how well networks explain their training points that explain next to nothing, one sentence each."""
        explained, several = of.explained(results), len(results) > 1
        return [
            f"R^2 of training is {explained[k]:.2g}{f' for target {k}' * several}, and that of a constant 0"
            for k in np.flatnonzero(explained < NEXT_TO_NOTHING)
        ]

    def _told(self):
        """Warn of what a training left in doubt; return the estimator, which is fitted by now."""
        doubts, self._doubts = self._doubts, []
        for text, kind in doubts:
            warnings.warn(text, kind, stacklevel=3)
        return self

    # ---- prediction -------------------------------------------------------------------------------------

    def _raw(self, X: Any) -> np.ndarray:
        """Return the targets of raw features (n, d), (n,) or (n, c) float64."""
        check_is_fitted(self, "network_")
        X = validate_data(self, to_host(X), reset=False, dtype=[np.float64, np.float32])
        Z = self.preprocessing_.transform(X)
        outputs = _each(lambda network: network.predict(Z), self.network_)
        return self.targets_.inverse(np.stack(outputs, axis=1) if isinstance(outputs, list) else outputs)

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
            state["network_"] = _each(_without_device, state["network_"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Bring the weights to the device that ``device`` names here."""
        super().__setstate__(state)
        if "network_" in state:
            device = get_device(self.device)
            self.network_ = _each(lambda network: _with_device(network, device), self.network_)


def _each(apply: Callable[[ShiftedReluNetwork], Any], networks: Any) -> Any:
    """Return what a function makes of a network, or of each in a list of networks."""
    return [apply(network) for network in networks] if isinstance(networks, list) else apply(networks)


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
