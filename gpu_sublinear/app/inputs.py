"""What commands that train begin with: the data, split and scaled, the network before training, and words for both."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..data.preprocessing import Preprocessing, TargetScaling
from ..data.sources import Dataset, split
from ..devices import get_device
from ..environment import package_version
from ..fitted.model import FittedModel
from ..model.activation import activation_of
from ..model.caps import settle_sampling
from ..model.network import ShiftedReluNetwork
from ..model.shifts import resolve_shift
from ..training import support
from ..training.gauss_newton import GaussNewton
from ..training.memory import plan_memory
from ..training.warmup import warm_up
from ..views.run_text import Fit
from .console import say
from .table_options import load, table_lines

NOTEWORTHY = 1.0  # seconds of compilation that a user should know of
MODEL_SETTINGS = (  # the options that the weights depend on: these travel in the model file
    "width",
    "shift",
    "init",
    "sampling",
    "activation",
    "both_layers",
    "seed",
    "dtype",
    "solver",
    "tolerance",
    "max_steps",
    "test_fraction",
    "classify",
    "header",
    "solver_tolerance",
    "engine",
    "margin",
    "jacobian",
    "sketch",
    "sketch_rows",
    "arity",
    "memory_limit",
    "damping",
    "alpha",
    "alphas",
    "folds",
    "per_target",
    "time_budget",
    "validation_fraction",
    "patience",
    "batch_size",
    "mask",
)


@dataclass(frozen=True)
class Inputs:
    """Data and network before training.

    Attributes
    ----------
    dataset : Dataset
        All points, raw.
    rows, held_out : ndarray
        Numbers of the points to train on and of the others.
    preprocessing : Preprocessing
        From the training points.
    targets : TargetScaling
        Likewise.
    network : ShiftedReluNetwork
        Initial weights.
    """

    dataset: Dataset
    rows: np.ndarray
    held_out: np.ndarray
    preprocessing: Preprocessing
    targets: TargetScaling
    network: ShiftedReluNetwork

    @classmethod
    def of(cls, options: Namespace, trainer: GaussNewton, outputs: int | None = None, trainings: int = 1) -> Inputs:
        """Load the data, check that training is possible and will fit, and make the network.

        Parameters
        ----------
        options : argparse.Namespace
            Data, network and device.
        trainer : GaussNewton
            How it will be trained.
        outputs : int, optional
            Of the network; one for each target by default.
        trainings : int
            How many there will be at a time.

        Returns
        -------
        Inputs
            Nothing is computed yet.
        """
        dataset = load(options)
        rows, held_out = split(len(dataset.y), options.test_fraction, options.seed)
        dataset = dataset.encoded(rows)
        if dataset.classes and dataset.labels is not None:
            dataset.classes.check_training(dataset.labels[rows])
        preprocessing = Preprocessing.fit(dataset.X[rows], dataset.preprocessing)
        targets = TargetScaling.fit(dataset.y[rows])
        device = get_device(options.device)
        b = resolve_shift(options.shift, options.width)
        phi = activation_of(options.activation)
        n, outputs = len(rows) * len(phi.hinges), outputs or dataset.outputs
        size = (n, preprocessing.inputs, options.width, b, options.dtype, outputs)  # n, d, m, b, type, c
        plan_memory(trainer, device, *size, everyone=bool(phi.slope), trainings=trainings)
        network = ShiftedReluNetwork.initialize(
            options.width,
            preprocessing.inputs,
            shift=b,
            seed=options.seed,
            dtype=options.dtype,
            paired=options.init == "paired",
            sampling=options.sampling,
            outputs=outputs,
            device=device,
            activation=phi,
        )
        support.check(trainer, network)
        settle_sampling(network, n)
        return cls(dataset, rows, held_out, preprocessing, targets, network)

    @cached_property
    def X(self) -> np.ndarray:
        """(n, d) unit rows to train on."""
        return self.preprocessing.transform(self.dataset.X[self.rows])

    @cached_property
    def y(self) -> np.ndarray:
        """(n,) or (n, c) standard targets to train on."""
        return self.targets.transform(self.dataset.y[self.rows])

    def target(self, k: int) -> Inputs:
        """Return the same with one of several targets alone."""
        name, several = self.dataset.target_names[k], self.targets
        assert isinstance(several.mean, np.ndarray) and isinstance(several.std, np.ndarray)
        dataset = replace(self.dataset, y=self.dataset.y[:, k], target_name=name, target_names=())
        return replace(self, dataset=dataset, targets=TargetScaling(float(several.mean[k]), float(several.std[k])))

    def compile(self, trainer: GaussNewton) -> float:
        """Compile what training will use, and tell of it where a user notices; return the seconds it took."""
        network = self.network
        kind = network.dtype, network.sampling, network.activation, network.outputs
        seconds = warm_up(network.device, trainer, *kind)
        if seconds > NOTEWORTHY:
            say(f"compiled {seconds:.0f} s, kept for the next run; not counted below")
        return seconds

    # ---- a model ----------------------------------------------------------------------------------------

    def model(self, options: Namespace, network: ShiftedReluNetwork) -> FittedModel:
        """Return a trained network as what predicts from raw features."""
        dataset = self.dataset
        metadata: dict[str, Any] = {
            "data": dataset.name,
            "feature_names": list(dataset.feature_names),
            "target_name": dataset.target_name,
            "package_version": package_version(),
            "settings": {name: getattr(options, name) for name in MODEL_SETTINGS if hasattr(options, name)},
        }
        if dataset.target_names:
            metadata["target_names"] = list(dataset.target_names)
        if dataset.encoder:
            metadata["table"] = dataset.encoder.to_dict()
        if dataset.classes:
            metadata["classes"] = list(dataset.classes.names)
        return FittedModel(network, self.preprocessing, self.targets, metadata)

    def fits(self, model: FittedModel) -> dict[str, Fit]:
        """Return how well a model does on the ``training`` points, and on those ``held_out`` if there are any."""
        dataset, variance, fits = self.dataset, np.asarray(model.targets.std) ** 2, {}
        for name, which in {"training": self.rows, "held_out": self.held_out}.items():
            if not len(which):
                continue
            predicted = model.predict(dataset.X[which])  # (k,) or (k, c)
            fits[name] = Fit.of(predicted, dataset.y[which], variance)
            if dataset.classes and dataset.labels is not None:
                right = dataset.classes.decide(predicted) == dataset.labels[which]
                fits[name] = replace(fits[name], accuracy=float(right.mean()))
        return fits

    # ---- words and records ------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """Of figures."""
        n, network = len(self.rows), self.network
        sizes = f"n = {n:,}   d = {network.features}   m = {network.width:,}   b = {network.shift:.4g}"
        return f"{self.dataset.name}   {sizes}"

    def opening(self, method: str) -> str:
        """Return the lines that a command begins with."""
        dataset, network, device = self.dataset, self.network, self.network.device
        on = ", ".join(f"{key} {value}" for key, value in device.describe().items() if key != "device")
        initial = "paired" if network.paired else "iid"
        if network.sampling == "virtual":
            initial += ", virtual (only neurons that take part exist)"
        return "\n".join((
            data_line(dataset, len(self.rows), len(self.held_out)),
            *table_lines(dataset),
            f"network  m = {network.width:,} neurons, d = {network.features}, shift b = {network.shift:.4g}, "
            f"{initial}, {network.activation.name}, {network.dtype}, seed {network.seed}",
            f"device   {device.name} ({on})",
            f"method   {method}",
        ))

    def settings(self, options: Namespace) -> dict[str, Any]:
        """Return every option as given, and what followed from them and the data."""
        given = {name: value for name, value in vars(options).items() if name not in ("run", "command")}
        if self.dataset.encoder:
            given |= {"columns": self.dataset.encoder.to_dict()["columns"], "notes": list(self.dataset.notes)}
        return given | {
            "data": self.dataset.name,
            "target": self.dataset.target_name,
            "device": self.network.device.name,
            "shift": self.network.shift,
            "shift_option": options.shift,
            "outputs": self.network.outputs,
            "points": len(self.rows),
            "held_out_points": len(self.held_out),
            "raw_features": self.dataset.X.shape[1],
            "features": self.network.features,
            "preprocessing": self.dataset.preprocessing,
        }


def data_line(dataset: Dataset, points: int, held_out: int) -> str:
    """Return the line that says what data there are."""
    if dataset.classes:
        what = f"{len(dataset.classes.names)} classes of '{dataset.target_name}'"
    elif dataset.outputs == 1:
        what = f"target '{dataset.target_name}'"
    else:
        what = f"{dataset.outputs} targets '{dataset.target_name}'"
    return (
        f"data     {dataset.name}: {points:,} points to train on, {held_out:,} held out, "
        f"{dataset.X.shape[1]} features, {what}"
    )
