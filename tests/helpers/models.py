"""Small models, and damage to their files."""

from __future__ import annotations

import json
import struct

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.devices import get_device
from gpu_sublinear.fitted.model import HEADER, FittedModel
from gpu_sublinear.model.network import ShiftedReluNetwork

X = np.random.default_rng(0).standard_normal((20, 3))
Y = X @ [1.0, -2.0, 0.5] + 40


def make_model(dtype: str = "float32", kind: str = "standard") -> FittedModel:
    preprocessing = Preprocessing.fit(X, kind)
    network = ShiftedReluNetwork.initialize(
        64, preprocessing.inputs, shift=0.5, seed=5, dtype=dtype, device=get_device("reference")
    )
    network.hold_all()
    return FittedModel(
        network, preprocessing, TargetScaling.fit(Y), {"feature_names": ["a", "b", "c"], "target_name": "t"}
    )


def change_header(path, change) -> None:
    """Rewrite our entry of a safetensors header in place."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    ours = json.loads(header["__metadata__"][HEADER])
    change(ours)
    header["__metadata__"][HEADER] = json.dumps(ours)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def change_tensors(path, **arrays: np.ndarray) -> None:
    """Rewrite tensors of a safetensors file, under the same header."""
    with safe_open(path, "np") as file:
        metadata, names = file.metadata(), [*file.keys()]
        tensors = {name: file.get_tensor(name) for name in names}
    save_file(tensors | arrays, path, metadata)
