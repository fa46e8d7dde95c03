"""Valid files, small, one of each kind that the readers know: what the mutations start from."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.fitted.model import FittedModel
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.checkpoints.file import Checkpointing
from gpu_sublinear.training.gauss_newton import GaussNewton

FEATURES = ("a", "b", "c")
TARGET = "t"
X = np.random.default_rng(0).standard_normal((6, 3))  # (n, d)
Y = X @ [1.0, -2.0, 0.5] + 40  # (n,)


def valid_files() -> dict[str, list[bytes]]:
    """Return contents of valid files by suffix."""
    return {
        ".csv": tables(),
        ".npy": arrays(),
        ".npz": archives(),
        ".safetensors": models(),
        ".checkpoint": checkpoints(),
    }


def tables() -> list[bytes]:
    rows = [*map(tuple, np.column_stack([X, Y]))]
    plain = "\n".join(",".join(f"{cell:.6g}" for cell in row) for row in rows)
    header = ",".join((*FEATURES, TARGET))
    quoted = "\r\n".join(",".join(f'"{cell!r}"' for cell in map(float, row)) for row in rows)
    return [
        f"{header}\n{plain}\n".encode(),
        plain.encode(),
        f'"{header.replace(",", chr(34) + "," + chr(34))}"\r\n{quoted}'.encode("utf-8-sig"),
        f"{header}\n{plain}\n".replace(",", ";").encode(),
        f"{header}\n{plain}\n".replace(",", "\t").encode(),
        f'"a, ""x""\nnext",b,c,t\n\n{plain}\n,,,\n'.encode(),
        b"0,1,2,t\n 1 , 2 ,3,4\n1e3,-2E-4,+3.,.4\n",
        b"# comment\n,a,b,c,t\n0,oak,True,,1\n1,ash,False,2,2.5\n2,oak,True,3,\n",
        b"a b t\n1 2 3\n4 5 6\n7 8 x\n",
        "a;b;c;t\n1,5;2020-01-31;\u00e9;3,5\n2,5;2020-02-01;NA;4,5\n".encode(),
    ]


def arrays() -> list[bytes]:
    table = np.column_stack([X, Y])  # (n, d + 1)
    kinds = (table, table.astype(np.float32), np.asfortranarray(table), (table * 9).astype(np.int16), table > 0)
    others = (Y, X[None], table.astype(complex), table.astype("U5"), np.zeros((2, 2), "f4,i2"), table.astype(">f8"))
    files = [npy(array) for array in (*kinds, *others, np.zeros((0, 4)))]
    return [*files, npy(table, (2, 0)), npy(table, (3, 0)), npy(np.array([[1, "x"], [None, 2]], dtype=object))]


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def archives() -> list[bytes]:
    files = []
    for save in (np.savez, np.savez_compressed):
        for arrays in ({"X": X, "y": Y}, {"X": X.astype("f4"), "t": Y[:, None]}, {"X": X}):
            file = io.BytesIO()
            save(file, **arrays)
            files.append(file.getvalue())
    return files


def models() -> list[bytes]:
    files = []
    for kind, dtype in (("standard", "float32"), ("unit", "float64")):
        preprocessing = Preprocessing.fit(X, kind)
        network = ShiftedReluNetwork.initialize(
            8, preprocessing.inputs, shift=0.5, seed=5, dtype=dtype, device=get_device("reference")
        )
        metadata = {"feature_names": list(FEATURES), "target_name": TARGET, "settings": {"width": 8}}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.safetensors"
            FittedModel(network, preprocessing, TargetScaling.fit(Y), metadata).save(path)
            files.append(path.read_bytes())
    return files


def checkpoints() -> list[bytes]:
    """Return checkpoints of a run with a penalty and early stopping, of one without, of both layers, and of flips."""
    files = []
    unit, y = X / np.linalg.norm(X, axis=1, keepdims=True), (Y - Y.mean()) / Y.std()
    both: dict[str, Any] = {"both_layers": True, "validation_fraction": 0.2}
    for options in ({"alpha": 0.1, "validation_fraction": 0.2}, {"damping": "none"}, both, {"mask": "flips"}):
        network = ShiftedReluNetwork.initialize(32, 3, shift=0.2, seed=5, device=get_device("reference"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.checkpoint"
            GaussNewton(max_steps=2, **options).fit(network, unit, y, checkpoint=Checkpointing(path))
            files.append(path.read_bytes())
    return files
