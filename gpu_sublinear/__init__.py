"""Train two-layer networks of enormous width by Gauss-Newton steps that follow the fired pairs, not the width.

>>> from gpu_sublinear import GaussNewton, ShiftedReluNetwork, get_device
>>> network = ShiftedReluNetwork.initialize(65536, 16, seed=0, device=get_device("auto"))
>>> result = GaussNewton(tolerance=1e-4).fit(network, X, y)      # X: unit rows (n, 16); y: (n,)  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .devices import Device, get_device
from .errors import GpuSublinearError
from .index.tree import ThresholdTree
from .linear.jacobian import SparseJacobian
from .model.activation import Activation, Hinge
from .model.network import ShiftedReluNetwork
from .opponents.dense import DenseGaussNewton
from .options import CGOptions, SketchOptions, TreeOptions
from .step.history import StepRecord, TrainingResult
from .training.checkpoints.file import Checkpointing
from .training.gauss_newton import GaussNewton
from .training.session import Session
from .tuning.cross_validation import CrossValidation, cross_validate
from .tuning.shared_scan import SharedScan, ridge_path

if TYPE_CHECKING:
    from .estimators.classifier import SublinearClassifier
    from .estimators.regressor import SublinearRegressor

from .version import __version__ as __version__

__all__ = [
    "Activation",
    "CGOptions",
    "Checkpointing",
    "CrossValidation",
    "DenseGaussNewton",
    "Device",
    "GaussNewton",
    "GpuSublinearError",
    "Hinge",
    "Session",
    "SharedScan",
    "ShiftedReluNetwork",
    "SketchOptions",
    "SparseJacobian",
    "StepRecord",
    "SublinearClassifier",
    "SublinearRegressor",
    "ThresholdTree",
    "TrainingResult",
    "TreeOptions",
    "cross_validate",
    "get_device",
    "ridge_path",
]

ESTIMATORS = {"SublinearClassifier": "classifier", "SublinearRegressor": "regressor"}  # and their files


def __getattr__(name: str) -> Any:
    """Import the estimators when they are asked for: all else works without scikit-learn."""
    if name not in ESTIMATORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".estimators.{ESTIMATORS[name]}", __name__)
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        raise ImportError(
            f"{name} needs scikit-learn 1.6 or later, which cannot be imported ({error}); install it: "
            "pip install 'scikit-learn>=1.6'"
        ) from error
    return getattr(module, name)
