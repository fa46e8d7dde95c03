"""Estimators to files and back, and to other programs: as the model files of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..errors import ModelFileError, OptionError
from ..fitted.export import to_onnx, to_torch
from ..fitted.model import FittedModel

CLASS_TYPE = "class_type"  # metadata: of the labels, which files keep as text
COLUMN = "column"  # metadata: whether targets were one column, (n, 1)


class Files:
    """What a fitted estimator can become."""

    def fitted_model(self) -> FittedModel:
        """Return the model as the command line has it: network, preprocessing, names.

        Returns
        -------
        FittedModel
            Sharing the network of the estimator.

        Raises
        ------
        OptionError
            If there is a network for each target.
        """
        check_is_fitted(self, "network_")
        network: Any = vars(self)["network_"]
        if isinstance(network, list):
            raise OptionError("a model file holds one network, and per_target=True trained several; fit without it")
        return FittedModel(network, vars(self)["preprocessing_"], vars(self)["targets_"], self._metadata())

    def _metadata(self) -> dict[str, Any]:
        found = vars(self)
        metadata: dict[str, Any] = {"alpha": float(found["alpha_"]), COLUMN: bool(found.get("_column", False))}
        if "feature_names_in_" in found:
            metadata["feature_names"] = [str(name) for name in found["feature_names_in_"]]
        if "classes_" in found:
            classes = found["classes_"]
            metadata |= {"classes": [str(label) for label in classes.tolist()], CLASS_TYPE: classes.dtype.kind}
        return metadata

    def save(self, path: str | Path) -> None:
        """Write a model file, for :meth:`load` and for ``gpu-sublinear predict``.

        Parameters
        ----------
        path : str or Path
            The file; ``.safetensors`` is the usual suffix.
        """
        self.fitted_model().save(path)

    def to_onnx(self, path: str | Path, *, dtype: Any = None) -> None:
        """Write an ONNX file that gives targets, or scores of the classes.

        Parameters
        ----------
        path : str or Path
            The file; see :func:`gpu_sublinear.fitted.export.to_onnx`.
        dtype : {"float32", "float64"}, optional
            Of weights and products; by default that of the network.
        """
        to_onnx(self.fitted_model(), path, dtype=dtype)

    def to_torch(self, *, dtype: Any = None) -> Any:
        """Return a PyTorch module (:func:`gpu_sublinear.fitted.export.to_torch`).

        Parameters
        ----------
        dtype : {"float32", "float64"}, optional
            Of weights and products; by default that of the network.

        Returns
        -------
        torch.nn.Module
            From (n, features) to targets of a regressor or scores of a classifier.
        """
        return to_torch(self.fitted_model(), dtype=dtype)

    @classmethod
    def load(cls, path: str | Path, **options: Any) -> Self:
        """Read a model file into an estimator that predicts; another ``fit`` would begin anew.

        Parameters
        ----------
        path : str or Path
            Of :meth:`save` or of ``gpu-sublinear train``.
        **options
            Parameters of the estimator: ``device`` says where to predict.

        Returns
        -------
        estimator
            Fitted.

        Raises
        ------
        ModelFileError
            If the file is none, or of a regressor where a classifier was asked for, or the other way round.
        """
        estimator = cls(**options)
        model = FittedModel.load(path, getattr(estimator, "device", "auto"))
        wanted = hasattr(cls, "decision_function")
        if wanted != (model.classes is not None):
            kinds = ("numbers: use SublinearRegressor", "classes: use SublinearClassifier")
            raise ModelFileError(f"'{path}' is a model of {kinds[not wanted]}.load")
        estimator._take(model)
        return estimator

    def _take(self, model: FittedModel) -> None:
        """Become fitted."""
        metadata = model.metadata
        found: dict[str, Any] = {
            "network_": model.network,
            "preprocessing_": model.preprocessing,
            "targets_": model.targets,
            "n_features_in_": model.preprocessing.features,
            "alpha_": float(metadata.get("alpha", 0.0)),
            "_column": metadata.get(COLUMN, False),
        }
        if "feature_names" in metadata:
            found["feature_names_in_"] = np.array(model.feature_names, object)
        if model.classes is not None:
            found["classes_"] = _labels(model.classes.names, str(metadata.get(CLASS_TYPE, "U")))
        vars(self).update(found)


def _labels(names: tuple[str, ...], kind: str) -> np.ndarray:
    """Return labels that a file keeps as text in their own type: boolean, whole, real, else text."""
    if kind == "b":
        return np.array([name == "True" for name in names])
    if kind in "iu":
        return np.array([int(name) for name in names])
    return np.array([float(name) for name in names]) if kind == "f" else np.array(names)
