"""What a reader owes to any file whatever: a valid result, or one of our errors in one short sentence."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from gpu_sublinear.data.prediction import load_for_prediction
from gpu_sublinear.data.sources import load
from gpu_sublinear.errors import CheckpointError, DataError, GpuSublinearError, ModelFileError
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.training.checkpoints.file import CHECKPOINT, Checkpoint
from tests.fuzz.corpus import FEATURES, TARGET

EXPECTED: dict[str, type[GpuSublinearError]] = {".safetensors": ModelFileError, ".checkpoint": CheckpointError}
LONGEST = 1000  # characters of a message
SMALL = 96 * 2**20  # bytes that any reader may take, whatever the file
# bytes per byte of file; archives are compressed
TIMES = {
    ".csv": 400,
    ".npy": 40,
    ".npz": 4000,
    ".safetensors": 40,
    ".checkpoint": 40,
}  # bytes per byte of file; archives are compressed


def read(path: Path, target: str | None) -> str:
    """Read one file in every way there is, check the answers, and return what happened.

    Raises
    ------
    AssertionError, Exception
        Whatever a reader must not do: an invalid result, another error, too much memory.
    """
    readers: tuple[Callable[[], None], ...] = (lambda: read_dataset(path, target), lambda: read_points(path))
    if path.suffix == ".safetensors":
        readers = (lambda: read_model(path),)
    elif path.suffix == ".checkpoint":
        readers = (lambda: read_parts_of_checkpoint(path), lambda: read_checkpoint(path))
    outcomes = []
    tracemalloc.start()
    try:
        for reader in readers:
            outcomes.append(outcome(reader, EXPECTED.get(path.suffix, DataError)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = SMALL + TIMES[path.suffix] * path.stat().st_size
    assert peak <= allowed, f"{peak:,} bytes held for a file of {path.stat().st_size:,}"
    return outcomes[0]


def outcome(reader: Callable[[], None], expected: type[GpuSublinearError]) -> str:
    """Run a reader; return ``"accepted"`` or ``"refused"``."""
    try:
        reader()
    except expected as error:
        message = str(error)
        assert len(message) <= LONGEST, f"a message of {len(message)} characters: {message[:200]}"
        assert message.isprintable(), f"a message with unprintable characters: {message!r}"
        return "refused"
    return "accepted"


def read_dataset(path: Path, target: str | None) -> None:
    data = load(str(path), target)
    n, d = data.X.shape
    assert n >= 2 and d >= 1
    assert data.X.dtype == data.y.dtype == np.float64
    assert data.y.shape == (n,)
    assert len(data.feature_names) == d
    assert all(isinstance(name, str) for name in (*data.feature_names, data.target_name))
    assert np.isfinite(data.X).all() and np.isfinite(data.y).all()


def read_points(path: Path) -> None:
    X, y = load_for_prediction(str(path), FEATURES, TARGET)
    assert X.dtype == np.float64 and X.shape == (len(X), len(FEATURES)) and np.isfinite(X).all()
    assert y is None or (y.shape == (len(X),) and np.isfinite(y).all())


def read_model(path: Path) -> None:
    model = FittedModel.load(path, "reference")
    network, features = model.network, model.preprocessing.features
    assert np.isfinite(network.shift) and network.shift >= 0
    assert 0 <= network.seed < 2**64
    assert np.isfinite(model.targets.mean) and np.isfinite(model.targets.std) and model.targets.std > 0
    assert model.preprocessing.mean.shape == model.preprocessing.scale.shape == (features,)
    assert len(model.feature_names) == features
    assert all(isinstance(name, str) for name in model.feature_names)
    with np.errstate(all="ignore"):  # huge weights may overflow, as they may in a trained model
        try:
            predicted = model.predict(np.ones((2, features)))
        except DataError:  # a row that overflows or is zero after standardisation
            return
    assert predicted.shape == (2,) and predicted.dtype == np.float64


def read_checkpoint(path: Path) -> None:
    checkpoint = Checkpoint.load(path)
    rows, steps = checkpoint.arrays["rows"], [record.step for record in checkpoint.history]
    assert rows.ndim == 2 and checkpoint.arrays["neurons"].shape == rows.shape[:1]
    assert steps == list(range(len(steps))) and steps
    assert np.isfinite(checkpoint.ridge) and checkpoint.ridge >= 0


def read_parts_of_checkpoint(path: Path) -> None:
    """Look behind the digest, which refuses nearly every damaged file before its parts are read."""
    with patch("gpu_sublinear.training.checkpoints.file.CHECKPOINT", replace(CHECKPOINT, sealed=False)):
        read_checkpoint(path)
