"""What the estimators share: parameters, fit, partial_fit, scores, pickling."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .arrays import to_host
from .devices import Device, get_device
from .errors import DataError, OptionError
from .gauss_newton import GaussNewton
from .history import TrainingResult
from .network import ShiftedReluNetwork
from .preprocessing import Preprocessing
from .session import Session
from .weights import SampleWeights

SEEDS = 2**31 - 1
DTYPES = ("auto", "float32", "float64")
GRAM_POINTS = 5000  # up to here "auto" takes the exact Gram matrix, so that copies and weights do the same


class SublinearEstimator(BaseEstimator):
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
