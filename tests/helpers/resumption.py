"""Runs that are stopped and resumed: the kinds, and what is compared of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import SketchOptions
from gpu_sublinear.step.history import StepRecord, TrainingResult
from gpu_sublinear.training.checkpoints.file import Checkpoint, Checkpointing
from gpu_sublinear.training.gauss_newton import GaussNewton
from tests.helpers.devices import make_device
from tests.helpers.problems import clusters, sphere

# What depends on clocks, on the process, or on how the fired pairs were found; everything else must be equal.
FREE = {"seconds", "phases", "peak_bytes", "refreshed", "tree_nodes_visited"}
NETWORK = {"width": 2**10, "shift": 1.5, "seed": 1, "paired": True, "sampling": "explicit"}


def contradictions() -> tuple[np.ndarray, np.ndarray]:
    """Points on which full steps fail: near-duplicates with random signs."""
    return clusters(0.03, False, 48)


def noisy(size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    X, y = sphere(60, 6)
    return X, y + size * np.random.default_rng(0).standard_normal(60)


def mild() -> tuple[np.ndarray, np.ndarray]:
    return noisy(0.3)


LISTS = {"mask": "lists"}
FAITHFUL = {"solver": "sketch-cg", "margin": 0, "jacobian": "csr", "sketch": SketchOptions("rows"), "max_steps": 5}
BOTH = {"both_layers": True, "max_steps": 6, "tolerance": 1e-9}
BATCHES = {"batch_size": 13, "max_steps": 6, "tolerance": 1e-9, "mask": "lists"}
FLIPS = {"mask": "flips", "max_steps": 6, "tolerance": 1e-9}
FAR = {"width": 10**11, "shift": 5.9, "sampling": "virtual"}

# name -> data, options of the trainer, options of the network, what must be seen in its checkpoints or history
CASES: dict[str, tuple[Callable, dict, dict, set[str]]] = {
    "lists": (lambda: sphere(40, 8), LISTS, {}, {"lists"}),
    "rejections": (contradictions, LISTS | {"max_steps": 9, "watchdog": 1}, {}, {"lists", "rejected"}),
    "watchdog": (contradictions, LISTS | {"max_steps": 10}, {"dtype": "float64"}, {"best elsewhere: lists"}),
    "undamped": (contradictions, LISTS | {"max_steps": 5, "damping": "none"}, {}, {"lists"}),
    "damped": (lambda: sphere(40, 8), {"damping": 0.5}, {}, {"bits"}),
    "ridge": (contradictions, LISTS | {"alpha": 0.01, "max_steps": 6}, {}, {"lists", "initial", "rejected"}),
    "ridge, bits": (contradictions, {"alpha": 1e-3, "max_steps": 6}, {"shift": 0.0}, {"bits", "initial"}),
    "ridge, float64": (contradictions, {"alpha": 1e-3, "max_steps": 8}, {"dtype": "float64"}, {"initial", "rejected"}),
    "ridge, trees": (contradictions, {"alpha": 1e-3, "max_steps": 5, "margin": 0}, {}, {"trees", "initial"}),
    "validation": (noisy, {"validation_fraction": 0.3, "tolerance": 1e-9}, {"width": 2**8}, {"validation", "restored"}),
    "bits": (noisy, {"mask": "bits", "max_steps": 5, "tolerance": 1e-9}, {"shift": 0.0}, {"bits"}),
    "bits, watchdog": (contradictions, {"mask": "bits", "max_steps": 8}, {}, {"best elsewhere: bits", "rejected"}),
    "virtual": (lambda: sphere(24, 6), LISTS, {"width": 10**7, "shift": 4.2, "sampling": "virtual"}, {"lists", "seen"}),
    "lists to bits": (lambda: sphere(24, 6), {"watchdog": 2, "max_steps": 8}, FAR, {"bits", "best elsewhere: lists"}),
    "unpaired": (noisy, LISTS | {"max_steps": 5, "margin": 0.2}, {"paired": False}, {"lists"}),
    "trees": (contradictions, {"margin": 0, "max_steps": 8, "watchdog": 2}, {}, {"best elsewhere: trees", "rejected"}),
    "sketch-cg": (noisy, {"solver": "sketch-cg", "max_steps": 5}, {"dtype": "float64"}, {"lists"}),
    "cg": (contradictions, {"solver": "cg", "max_steps": 8, "alpha": 1e-3}, {}, {"rejected"}),
    "csr": (noisy, {"jacobian": "csr", "max_steps": 5}, {}, {"lists"}),
    "faithful": (noisy, FAITHFUL, {"paired": False}, {"trees"}),
    "leaky": (contradictions, {"max_steps": 9}, {"activation": "leaky"}, {"best elsewhere: lists", "rejected"}),
    "abs, trees": (noisy, {"margin": 0, "max_steps": 5}, {"activation": "abs"}, {"trees"}),
    "abs, ridge": (noisy, {"alpha": 0.01, "max_steps": 5, "tolerance": 1e-9}, {"activation": "abs"}, {"initial"}),
    "softshrink": (contradictions, {"max_steps": 9}, {"activation": "softshrink"}, {"best elsewhere: lists"}),
    "softshrink, trees": (
        contradictions,
        {"margin": 0, "max_steps": 8},
        {"activation": "softshrink"},
        {"best elsewhere: trees"},
    ),
    "hardshrink, ridge": (
        noisy,
        {"alpha": 0.1, "max_steps": 5, "tolerance": 1e-9},
        {"activation": "hardshrink"},
        {"initial"},
    ),
    "hardshrink, cg": (noisy, {"solver": "sketch-cg", "max_steps": 5}, {"activation": "hardshrink"}, {"lists"}),
    "both layers": (noisy, BOTH, {}, {"lists", "second"}),
    "both layers, watchdog": (
        contradictions,
        BOTH | {"max_steps": 16},
        {"width": 2**8},
        {"best_second", "rejected"},
    ),
    "both layers, trees": (contradictions, BOTH | {"margin": 0, "watchdog": 2}, {}, {"best elsewhere: trees"}),
    "both layers, validation": (
        mild,
        BOTH | {"validation_fraction": 0.3},
        {"width": 2**8},
        {"validation", "validation_second", "restored"},
    ),
    "both layers, ridge": (
        contradictions,
        BOTH | {"alpha": 1e-3, "max_steps": 9},
        {},
        {"initial", "second", "rejected"},
    ),
    "both layers, cg": (noisy, BOTH | {"solver": "sketch-cg"}, {"dtype": "float64"}, {"second"}),
    "batches": (noisy, BATCHES, {}, {"lists"}),
    "batches, watchdog": (contradictions, BATCHES | {"max_steps": 12}, {}, {"best elsewhere: lists", "rejected"}),
    "batches, ridge": (
        contradictions,
        BATCHES | {"alpha": 1e-3, "max_steps": 12},
        {"width": 2**8},
        {"initial", "shares", "rejected"},
    ),
    "batches, ridge, best elsewhere": (
        contradictions,
        BATCHES | {"alpha": 0.1, "max_steps": 9},
        {"width": 2**12},
        {"best_shares"},
    ),
    "batches, trees": (
        contradictions,
        BATCHES | {"margin": 0, "mask": "auto", "max_steps": 12},
        {"dtype": "float64"},
        {"best elsewhere: trees"},
    ),
    "batches, bits": (noisy, BATCHES | {"mask": "bits"}, {"shift": 0.0}, {"bits"}),
    "batches, virtual": (
        lambda: sphere(24, 6),
        BATCHES,
        {"width": 10**7, "shift": 4.2, "sampling": "virtual"},
        {"lists", "seen"},
    ),
    "batches, validation": (
        noisy,
        BATCHES | {"validation_fraction": 0.3},
        {"width": 2**8},
        {"validation", "restored"},
    ),
    "flips": (noisy, FLIPS, {"shift": 0.0}, {"flips"}),
    "flips, watchdog": (
        contradictions,
        FLIPS | {"max_steps": 16},
        {"width": 2**8, "dtype": "float64"},
        {"best elsewhere: flips", "best_flips_total", "rejected"},
    ),
    "flips, back to the start": (contradictions, FLIPS | {"max_steps": 9}, {}, {"best elsewhere: flips", "rejected"}),
    "flips, ridge": (noisy, FLIPS | {"alpha": 0.01, "max_steps": 8}, {"shift": 0.0}, {"flips"}),
    "flips, ridge, best elsewhere": (
        contradictions,
        FLIPS | {"alpha": 1e-3, "max_steps": 14},
        {"width": 2**8, "shift": 0.0},
        {"best elsewhere: flips", "best_flips_total"},
    ),
    "flips, damped": (
        contradictions,
        FLIPS | {"damping": 1e-4, "max_steps": 12},
        {"shift": 0.0, "width": 2**8, "paired": False},
        {"rejected"},
    ),
    "flips, validation": (
        mild,
        FLIPS | {"validation_fraction": 0.3},
        {"width": 2**8},
        {"flips", "validation", "restored"},
    ),
    "batches, damped": (contradictions, BATCHES | {"damping": 0.1, "solver": "sketch-cg"}, {}, {"rejected"}),
}


def network_for(features: int, device: str = "cpu", **options) -> ShiftedReluNetwork:
    settings = NETWORK | {"device": make_device(device)} | options
    return ShiftedReluNetwork.initialize(settings.pop("width"), features, **settings)


def weights(network: ShiftedReluNetwork) -> tuple[bytes, ...]:
    host = network.device.to_host
    arrays = (network.rows, network.neurons, network.seen, network.signs)
    return tuple(host(array).tobytes() for array in arrays)


def trajectory(result: TrainingResult) -> list[dict]:
    """Return the history without what may differ, and how it ended."""
    records = [{k: v for k, v in record.as_dict().items() if k not in FREE} for record in result.history]
    return [*records, {"converged": result.converged, "reason": result.reason, "best": result.best_step}]


class StopAfter:
    """Callback that stops the run in the process at its k-th record, as Ctrl-C would."""

    def __init__(self, records: int):
        self.left = records

    def __call__(self, record: StepRecord, network: ShiftedReluNetwork) -> bool:
        self.left -= 1
        return not self.left


def fit(case: str, device: str = "cpu", callbacks=(), **options) -> tuple[ShiftedReluNetwork, TrainingResult]:
    data, trainer, network, _ = CASES[case]
    X, y = data()
    trained = network_for(X.shape[1], device, **network)
    return trained, GaussNewton(**trainer).fit(trained, X, y, callbacks, **options)


def interrupted(case: str, path: Path, stops: list[int], device: str = "cpu", every: int = 1):
    """Train in as many pieces as there are stops and one; return weights and trajectory of the last."""
    for stop in [*stops, 0]:
        checkpoint = Checkpointing(path, every, resume=True)
        network, result = fit(case, device, [StopAfter(stop)], checkpoint=checkpoint)
    return weights(network), trajectory(result)


def uninterrupted(case: str, path: Path, device: str = "cpu"):
    """Train in one piece; return weights, trajectory, and what was seen on the way."""
    seen: set[str] = set()

    def look(record: StepRecord, network: ShiftedReluNetwork) -> None:
        if record.rejected:
            seen.add("rejected")
        if path.exists():
            checkpoint = Checkpoint.load(path)
            seen.update({checkpoint.index, *(name for name, array in checkpoint.arrays.items() if len(array))})
            if {"best_rows", "best_flips_lengths"} & set(checkpoint.arrays):
                seen.add(f"best elsewhere: {checkpoint.best_index}")

    network, result = fit(case, device, [look], checkpoint=Checkpointing(path))
    if result.best_step is not None:
        seen.add("restored")
    if "validation_rows" in seen:
        seen.add("validation")
    return weights(network), trajectory(result), seen
