"""Digests of many small trainings, to show that a rearrangement of the code changed no byte of any.

``python -m bench.harness.digests DEVICE... > FILE.json`` before and after, then compare the two files.  A device is
``cpu``, ``reference``, ``cuda``, or ``emulated``: the cuda device on the emulator of the tests, which needs a compiler.
A training that raises has its error in place of a digest; one that ends elsewhere after being stopped and resumed has
both digests, and the exit code is 1.  The file runs on older versions of the package, too: it imports what the top
level exports, and the rest from wherever it lies.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sublinear import GaussNewton, SharedScan, ShiftedReluNetwork, cross_validate, get_device

PLACES = {  # where things that the top level does not export lie, and lay
    "Checkpointing": ("gpu_sublinear.training.checkpoints.file", "gpu_sublinear.checkpoint"),
    "emulated_cuda_device": ("tests.helpers.emulated", "tests.emulated"),
    "compiler_or_reason": ("tests.cuda_emulator",),
}
COLUMNS = (
    "loss", "fired", "union", "solver_iterations", "solver_residual", "moved_neurons", "tree_nodes_visited",
    "refreshed", "damping", "rejected", "penalty",
)  # fmt: skip
LOOKED = ("tree_nodes_visited", "refreshed")  # how fired pairs were found: a resumed run may find them otherwise
DIGITS, WORDS = 16, 80  # kept of a digest, of an error
POINTS, FEATURES, OUTPUTS, FOLDS, EARLY = 48, 5, 3, 3, 40
MANY, FEW_FEATURES, FEW_NEURONS = 2100, 3, 64  # more points than alpha="auto" looks at
STOP = 3  # records until a run is stopped

Options = dict[str, Any]
Work = Callable[[], str]

LISTS, BITS, FLIPS, TREES = ({"mask": "lists"}, {"mask": "bits"}, {"mask": "flips"}, {"margin": 0})
RIDGE, AUTO, BATCH, BOTH = {"alpha": 1e-3}, {"alpha": "auto"}, {"batch_size": 16}, {"both_layers": True}
TRAININGS: dict[str, Options] = {
    "lists": LISTS,
    "lists-eager": TREES,
    "bits": BITS,
    "flips": FLIPS,
    "auto": {},
    "faithful": {"faithful": True, "max_steps": 5},
    "cg": {"solver": "cg"} | LISTS,
    "sketch": {"solver": "sketch-cg"} | LISTS,
    "csr": {"jacobian": "csr"},
    "alpha-lists": LISTS | RIDGE,
    "alpha-bits": BITS | RIDGE,
    "alpha-flips": FLIPS | RIDGE,
    "alpha-tree": TREES | RIDGE,
    "alpha-auto": AUTO,
    "alpha-auto-flips": AUTO | FLIPS,
    "damp": {"damping": 0.1},
    "none": {"damping": "none"},
    "batch": BATCH | {"max_steps": 6},
    "batch-bits": BATCH | BITS | {"max_steps": 6},
    "batch-alpha": BATCH | RIDGE | {"max_steps": 6},
    "batch-tree": BATCH | TREES | {"max_steps": 5},
    "batch-auto": BATCH | AUTO | {"max_steps": 4},
    "both": BOTH,
    "both-alpha": BOTH | RIDGE,
    "both-auto": BOTH | AUTO,
    "both-cg": BOTH | {"solver": "cg"},
    "valid": {"validation_fraction": 0.2} | LISTS,
    "valid-flips": {"validation_fraction": 0.2} | FLIPS,
}
ACTIVATIONS = ("abs", "leaky", "leaky:0.1", "softshrink", "hardshrink")
BY_ACTIVATION: tuple[Options, ...] = ({}, TREES, {"jacobian": "csr"}, RIDGE, {"solver": "cg"})
BY_OUTPUTS: tuple[Options, ...] = ({}, {"solver": "gram"}, {"solver": "cg"}, {"solver": "sketch-cg"}, RIDGE, AUTO)
BY_WEIGHTS: tuple[Options, ...] = ({}, BITS, FLIPS, TREES)
BY_SESSION: tuple[Options, ...] = ({}, BITS, TREES, RIDGE, BATCH)
RESUMED: dict[str, Options] = {
    "lists": LISTS,
    "bits": BITS,
    "flips": FLIPS,
    "trees": TREES,
    "faithful": {"faithful": True},
    "ridge lists": LISTS | RIDGE,
    "ridge bits": BITS | RIDGE,
    "ridge flips": FLIPS | RIDGE,
    "ridge trees": TREES | RIDGE,
    "ridge auto": AUTO,
    "batches": BATCH,
    "batches bits": BATCH | BITS,
    "batches trees": BATCH | TREES,
    "batches ridge": BATCH | RIDGE,
    "both": BOTH,
    "both ridge": BOTH | RIDGE,
    "validation": {"validation_fraction": 0.2} | LISTS,
    "outputs": {"outputs": OUTPUTS},
    "outputs ridge": {"outputs": OUTPUTS} | RIDGE,
}
BY_MANY: tuple[Options, ...] = (LISTS, BITS, FLIPS)


class Data:
    """Points on the sphere with smooth targets: one, several, and integer weights."""

    def __init__(self, n: int, d: int) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, d))
        self.X = X / np.linalg.norm(X, axis=1, keepdims=True)  # (n, d)
        y = np.sin(2 * self.X[:, 0]) + self.X[:, 1] ** 2
        self.y = (y - y.mean()) / y.std()  # (n,)
        self.Y = np.stack([np.roll(self.y, k) for k in range(OUTPUTS)], axis=1)  # (n, OUTPUTS)
        self.weights = rng.integers(0, 3, n).astype(float)


DATA = Data(POINTS, FEATURES)


def digest(*arrays: Any) -> str:
    """Return the beginning of the SHA-256 of arrays, their types and shapes included."""
    found = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        found.update(str(array.dtype).encode() + str(array.shape).encode() + array.tobytes())
    return found.hexdigest()[:DIGITS]


def table(result: Any, without: tuple[str, ...] = ()) -> np.ndarray:
    """Return the history of a run as numbers, without its clocks."""
    columns = [name for name in COLUMNS if name not in without]
    return np.array([[getattr(record, name) for name in columns] for record in result.history], float)


def rows(network: Any) -> np.ndarray:
    """Return the trained rows on the host."""
    return network.device.to_host(network.rows)


def find(name: str) -> Any:
    """Return what the top level does not export, from the first module that has it."""
    for place in PLACES[name]:
        try:
            return getattr(import_module(place), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"no {name} in {', '.join(PLACES[name])}")


def draw(device: Any, m: int, b: float, d: int = FEATURES, **options: Any) -> ShiftedReluNetwork:
    """Draw a network; all have the same seed."""
    return ShiftedReluNetwork.initialize(m, d, shift=b, seed=3, device=device, **options)


def trainer(options: Options, max_steps: int, tolerance: float = 1e-6) -> GaussNewton:
    """Return the trainer; ``faithful`` chooses the published method."""
    options = {"tolerance": tolerance, "max_steps": max_steps} | options
    return GaussNewton.faithful(**options) if options.pop("faithful", False) else GaussNewton(**options)


# ---- one training each ----------------------------------------------------------------------------------


def training(device: Any, options: Options) -> str:
    network = draw(device, 512, 0.6, dtype="float32")
    result = trainer(options, 4).fit(network, DATA.X, DATA.y)
    return f"{digest(rows(network), device.to_host(network.signs), table(result))} {result.reason[:40]}"


def activation(device: Any, name: str, options: Options) -> str:
    network = draw(device, 512, 0.8, dtype="float64", activation=name)
    result = trainer(options, 6).fit(network, DATA.X, DATA.y)
    return digest(rows(network), table(result))


def outputs(device: Any, options: Options) -> str:
    network = draw(device, 1024, 0.8, outputs=OUTPUTS)
    result = trainer(options, 6).fit(network, DATA.X, DATA.Y)
    return digest(rows(network), table(result))


def weighted(device: Any, options: Options) -> str:
    network = draw(device, 512, 0.5)
    result = trainer(options, 6).fit(network, DATA.X, DATA.y, sample_weight=DATA.weights)
    return digest(rows(network), table(result))


def shared_scan(device: Any, options: Options) -> SharedScan:
    network = draw(device, 512, 0.5)
    return SharedScan.build(trainer(RIDGE | options, 6, 1e-3), network, DATA.X, DATA.y, 3)


def folds(device: Any, options: Options) -> str:
    held_out = [np.arange(k, POINTS, FOLDS) for k in range(FOLDS)]
    parts = [(np.setdiff1d(np.arange(POINTS), part), part) for part in held_out]
    return digest(cross_validate(shared_scan(device, options), DATA.y, [1e-1, 1e-2, 1e-3], parts).errors)


def path(device: Any, options: Options) -> str:
    return digest(*map(table, shared_scan(device, options).path(DATA.y, [1e-1, 1e-2])))


def session(device: Any, options: Options) -> str:
    network = draw(device, 512, 0.5)
    begun = trainer(options, 4).begin(network, DATA.X[:EARLY], DATA.y[:EARLY])
    results = [begun.train(), begun.partial_fit(DATA.X[EARLY:], DATA.y[EARLY:])]
    return digest(rows(network), *map(table, results))


def many_points(device: Any, options: Options) -> str:
    data = Data(MANY, FEW_FEATURES)
    network = draw(device, FEW_NEURONS, 0.1, FEW_FEATURES)
    result = trainer(AUTO | options, 2).fit(network, data.X, data.y)
    return digest(rows(network), table(result))


def resumed(device: Any, options: Options) -> str:
    """Train in one piece, and in two from a checkpoint; return the digest of both, or both digests."""
    with tempfile.TemporaryDirectory() as folder:
        whole = _in_pieces(device, options, Path(folder) / "whole", [0])
        pieces = _in_pieces(device, options, Path(folder) / "pieces", [STOP, 0])
    return whole if whole == pieces else f"{whole} whole, {pieces} resumed"


def _in_pieces(device: Any, options: Options, path: Path, stops: list[int]) -> str:
    options = dict(options)
    count = options.pop("outputs", 1)
    for stop in stops:
        network = draw(device, 512, 0.6, outputs=count)
        checkpoint = find("Checkpointing")(path, every=1, resume=True)
        targets = DATA.Y if count > 1 else DATA.y
        result = trainer(options, 6, 1e-12).fit(network, DATA.X, targets, [_Stop(stop)], checkpoint=checkpoint)
    return digest(rows(network), device.to_host(network.signs), table(result, LOOKED))


class _Stop:
    """Callback that stops a run at its k-th record; never for 0."""

    def __init__(self, records: int) -> None:
        self.left = records

    def __call__(self, record: Any, network: Any) -> bool:
        self.left -= 1
        return self.left == 0


# ---- all of them ----------------------------------------------------------------------------------------


def cases(device: Any) -> Iterator[tuple[str, Work]]:
    """Yield the name of every training with the function that does it."""
    for name, options in TRAININGS.items():
        yield f"{name} b=0.6", lambda options=options: training(device, options)
    for name in ACTIVATIONS:
        for options in BY_ACTIVATION:
            yield f"{name} {options}", lambda name=name, options=options: activation(device, name, options)
    groups = {
        outputs: ("outputs", BY_OUTPUTS), weighted: ("weights", BY_WEIGHTS), folds: ("cv", BY_WEIGHTS),
        path: ("path", BY_WEIGHTS), session: ("session", BY_SESSION), many_points: ("alpha-auto n=2100", BY_MANY),
    }  # fmt: skip
    for work, (name, tried) in groups.items():
        for options in tried:
            yield f"{name} {options}", lambda work=work, options=options: work(device, options)
    for name, options in RESUMED.items():
        yield f"resumed {name}", lambda options=options: resumed(device, options)


def told(work: Work) -> str:
    """Return the digest of a training, or its error."""
    try:
        return work()
    except Exception as error:  # refusing is a behaviour too
        return f"{type(error).__name__} {str(error)[:WORDS]}"


def make_device(name: str) -> Any:
    """Return a device of the package, or the emulated one."""
    if name != "emulated":
        return get_device(name)
    compiler, reason = find("compiler_or_reason")()
    if compiler is None:
        raise SystemExit(f"no emulated device: {reason}")
    return find("emulated_cuda_device")()


def main(names: list[str]) -> int:
    """Print the digests of all devices named as JSON."""
    found = {}
    for name in names or ["cpu"]:
        device = make_device(name)
        found |= {f"{name} {case}": told(work) for case, work in cases(device)}
    print(json.dumps(found, indent=0))
    return int(any(" whole, " in value for value in found.values()))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.exit(main(sys.argv[1:]))
