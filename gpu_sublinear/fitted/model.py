"""Model files: the network with its preprocessing, as safetensors with JSON metadata in the header.

No pickle, so a foreign file cannot run code; no GPU needed to load, wherever the model was trained.  The file
depends on the model alone: the same model gives the same bytes.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..data.classes import Classes, names_from
from ..data.encoder import TableEncoder
from ..data.preprocessing import Kind, Preprocessing, TargetScaling
from ..devices import Device, get_device
from ..errors import ModelFileError, OptionError, shown
from ..files.tensors import DAMAGE, FileKind, first_line
from ..model.activation import SHIFTED_RELU, Activation
from ..model.network import SAMPLINGS, ShiftedReluNetwork

FORMAT_VERSION = 3
READABLE = (2, 3)  # 2 has no settings with defaults
NETWORK_SETTINGS = ("width", "shift", "seed", "paired", "sampling", "outputs")
HEADER = "gpu_sublinear"  # our key among the metadata of a safetensors file
AGAIN = "save the model again or take a copy of the file"
MODEL = FileKind("model file", HEADER, FORMAT_VERSION, ModelFileError, AGAIN, readable=READABLE)


@dataclass(frozen=True)
class FittedModel:
    """A trained network with what it needs to predict from raw features.

    Attributes
    ----------
    network : ShiftedReluNetwork
        On the device it was trained on or loaded to.
    preprocessing : Preprocessing
        From raw features to unit rows.
    targets : TargetScaling
        From standard targets to those of the user.
    metadata : dict
        Plain settings that travel with the model: ``feature_names``, ``target_name``, ``target_names`` of several
        targets, ``classes``, ``table`` (what became of the columns of a table), how it was trained.
    """

    network: ShiftedReluNetwork
    preprocessing: Preprocessing
    targets: TargetScaling
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the raw features, in their order."""
        names = self.metadata.get("feature_names")
        return tuple(names) if names else tuple(f"feature {j}" for j in range(self.preprocessing.features))

    @property
    def target_name(self) -> str:
        """Name of the target."""
        return str(self.metadata.get("target_name", "y"))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of all targets."""
        return tuple(self.metadata.get("target_names") or (self.target_name,))

    @property
    def table(self) -> TableEncoder | None:
        """What became of the columns of the table in training; None for a model of arrays, or of an older version."""
        content = self.metadata.get("table")
        return None if content is None else TableEncoder.from_dict(content)

    @property
    def classes(self) -> Classes | None:
        """The classes that the outputs speak for; None for a model of numbers."""
        return names_from(self.metadata.get("classes"))

    def classify(self, X: object) -> np.ndarray:
        """Return the names of the predicted classes.

        Parameters
        ----------
        X : array_like
            (n, features) raw features on the host.

        Returns
        -------
        numpy.ndarray
            (n,) of text.

        Raises
        ------
        OptionError
            If the model was not trained on classes.
        """
        if self.classes is None:
            raise OptionError("this model predicts numbers, not classes; use predict, or train with --classify")
        return self.classes.label(self.classes.decide(self.predict(X)))

    def predict(self, X: object) -> np.ndarray:
        """Return the predicted targets in their own units.

        Parameters
        ----------
        X : array_like
            (n, features) raw features on the host; a pandas.DataFrame is taken by the names of its columns, and may
            have text and missing cells where training had.

        Returns
        -------
        numpy.ndarray
            (n,) float64; (n, c) for several targets, and for classes of which there are more than two.
        """
        if hasattr(X, "iloc") and hasattr(X, "columns") and "feature_names" in self.metadata:
            X = (self.table or TableEncoder.of_numbers(self.feature_names)).transform(X)
        return self.targets.inverse(self.network.predict(self.preprocessing.transform(X)))

    def save(self, path: str | Path) -> None:
        """Write the model to a file, all of it or nothing.

        Parameters
        ----------
        path : str or Path
            The file; ``.safetensors`` is the usual suffix.

        Raises
        ------
        OptionError
            If :meth:`load` would refuse what is to be written: classes that are not text, names that are too few.
        """
        header, tensors = self._header(), self._tensors()
        try:
            _assemble(json.loads(json.dumps(header)), tensors, get_device("reference"))
        except DAMAGE as error:
            raise OptionError(
                f"this model is not one that could be loaded again: {first_line(error)}; change its metadata or its "
                "arrays (classes and names are given as text)"
            ) from error
        MODEL.write(path, header, tensors)

    def _tensors(self) -> dict[str, np.ndarray]:
        network = self.network
        tensors = {
            "rows": network.device.to_host(network.rows),  # (u, d)
            "neurons": network.device.to_host(network.neurons),  # (u,)
            "seen": network.device.to_host(network.seen),  # (n, d), no rows unless the sampling is virtual
            "feature_mean": self.preprocessing.mean,  # (features,)
            "feature_scale": self.preprocessing.scale,  # (features,)
        }
        if network.second is not None:
            tensors["second"] = network.device.to_host(network.second)  # (u,) or (u, c), only where it was trained
        return tensors

    def _header(self) -> dict[str, Any]:
        network = self.network
        return {
            "format_version": FORMAT_VERSION,
            "network": {name: getattr(network, name) for name in NETWORK_SETTINGS}
            | {"activation": network.activation.as_dict()},
            "preprocessing": self.preprocessing.kind,
            "target": {"mean": np.asarray(self.targets.mean).tolist(), "std": np.asarray(self.targets.std).tolist()},
            "metadata": self.metadata,
        }

    @classmethod
    def load(cls, path: str | Path, device: str | Device = "auto") -> FittedModel:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        path : str or Path
            The file.
        device : str or Device
            Where to predict: ``"auto"``, ``"cuda"``, ``"cpu"`` or ``"reference"``.

        Returns
        -------
        FittedModel
            The model, ready to predict.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged, not one of ours, or of a newer format.
        """
        header, tensors = MODEL.read(path)
        where = get_device(device)
        try:
            return _assemble(header, tensors, where)
        except DAMAGE as error:
            raise MODEL.damaged(path, error) from error


def _assemble(header: dict[str, Any], tensors: dict[str, np.ndarray], device: Device) -> FittedModel:
    """Build the model from the parts of a file; any part that does not fit raises."""
    mean, scale = tensors["feature_mean"], tensors["feature_scale"]
    kind: Kind = header["preprocessing"]
    if kind not in get_args(Kind):
        raise ValueError(f"unknown preprocessing {kind!r}")
    preprocessing = Preprocessing(kind, mean, scale)
    if mean.shape != scale.shape or not all(np.isfinite(array).all() for array in (mean, scale)):
        raise ValueError("the arrays are not finite or do not fit together")
    _check_numbers(header["network"], scale)
    network = _network(header["network"], tensors, preprocessing.inputs, device)
    targets = _targets(header["target"], network.outputs)
    model = FittedModel(network, preprocessing, targets, dict(header["metadata"]))
    if len(model.feature_names) != preprocessing.features or not all(isinstance(k, str) for k in model.feature_names):
        raise ValueError(f"it has not one name for each of its {preprocessing.features} features")
    if model.table is not None and len(model.table.get_feature_names_out()) != preprocessing.features:
        raise ValueError(f"its table does not give {preprocessing.features} features")
    if model.classes is not None and model.classes.outputs != network.outputs:
        raise ValueError(f"it has {len(model.classes.names)} classes and {network.outputs} outputs")
    if len(model.target_names) not in (1, network.outputs):
        raise ValueError(f"it has {len(model.target_names)} targets and {network.outputs} outputs")
    return model


def _network(settings: dict[str, Any], tensors: dict[str, np.ndarray], d: int, device: Device) -> ShiftedReluNetwork:
    """Build the network; any part that does not fit raises."""
    rows, neurons, seen = tensors["rows"], tensors["neurons"], tensors["seen"]
    if str(rows.dtype) not in ("float32", "float64") or rows.shape != (len(neurons), d) or neurons.dtype != np.int64:
        raise ValueError(f"the weights have shape {rows.shape} and type {rows.dtype}")
    width, sampling = int(settings["width"]), str(settings["sampling"])
    if seen.dtype != rows.dtype or seen.shape != (len(seen), d) or sampling not in SAMPLINGS:
        raise ValueError(f"the points seen have shape {seen.shape}, the sampling is {sampling!r}")
    numbered = len(neurons) == 0 or (neurons[0] >= 0 and bool((np.diff(neurons) > 0).all()))
    if not numbered or (sampling != "virtual" and len(neurons) and neurons[-1] >= width):
        raise ValueError("the numbers of the neurons are not ascending or beyond the width")
    if not (np.isfinite(rows).all() and np.isfinite(seen).all()):
        raise ValueError("the weights are not finite")
    network = ShiftedReluNetwork.initialize(
        width,
        d,
        shift=float(settings["shift"]),
        seed=int(settings["seed"]),
        dtype=str(rows.dtype),
        paired=bool(settings["paired"]),
        sampling=sampling,
        outputs=settings.get("outputs", 1),
        device=device,
        activation=Activation.from_dict(settings["activation"]) if "activation" in settings else SHIFTED_RELU,
    )
    network.hold(device.asarray(neurons, np.int64), device.asarray(rows, network.dtype))
    if "second" in tensors:
        second = tensors["second"]
        outputs = () if network.outputs == 1 else (network.outputs,)
        if second.shape != (*neurons.shape, *outputs) or second.dtype != rows.dtype:
            raise ValueError(f"the second layer has shape {second.shape} and type {second.dtype}")
        if not np.isfinite(second).all():
            raise ValueError("the second layer is not finite")
        network.second = device.asarray(second, network.dtype)
    network.seen = device.asarray(seen, network.dtype)
    return network


def _targets(settings: dict[str, Any], outputs: int) -> TargetScaling:
    """Build the scaling; raise ValueError unless it has one pair of numbers for each output."""
    mean, std = np.asarray(settings["mean"], np.float64), np.asarray(settings["std"], np.float64)
    wanted = () if outputs == 1 else (outputs,)
    if mean.shape != wanted or std.shape != wanted or not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ValueError(f"the target has mean {shown(str(mean))} and standard deviation {shown(str(std))}")
    if not (std > 0).all():
        raise ValueError(f"the target has the standard deviation {shown(str(std))}")
    return TargetScaling(float(mean), float(std)) if outputs == 1 else TargetScaling(mean, std)


def _check_numbers(settings: dict[str, Any], scale: np.ndarray) -> None:
    """Raise ValueError unless every number of the header is one that :meth:`FittedModel.save` could have written."""
    if not (math.isfinite(settings["shift"]) and settings["shift"] >= 0):
        raise ValueError(f"the shift is {settings['shift']}")
    if not (isinstance(settings["seed"], int) and 0 <= settings["seed"] < 2**64):
        raise ValueError(f"the seed is {settings['seed']}")
    if scale.dtype != np.float64 or (scale < 0).any():
        raise ValueError("the standard deviations of the features are not float64 numbers from 0 on")
