"""Whose checkpoint it is: all that a trajectory begins from, settings as they are and arrays as digests."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ...devices import Array, Device
from ...files.tensors import update
from ...model.network import ShiftedReluNetwork
from ...model.problem import Problem
from ...options import Options
from ..validation import Validation

LIMITS = ("max_steps", "time_budget", "memory_limit", "tolerance")  # say when to end, not how to get there


def identity(
    options: Options,
    network: ShiftedReluNetwork,
    problem: Problem,
    watch: Validation,
) -> dict[str, Any]:
    """Return all that a trajectory begins from: settings as they are, arrays as digests.

    Parameters
    ----------
    options : Options
        What the user chose, without what only says when to end.
    network : ShiftedReluNetwork
        As it is before training.
    problem : Problem
        What is trained on.
    watch : Validation
        Its points.

    Returns
    -------
    dict
        Of numbers and words, as JSON gives them back.
    """
    device, activation, roots = network.device, network.activation, problem.weights.roots
    parts = {part.name: getattr(network, part.name) for part in fields(network)}
    drawn = {name: value for name, value in parts.items() if hasattr(value, "shape")}
    settings = {name: value for name, value in asdict(options).items() if name not in LIMITS}
    settings |= {name: value for name, value in parts.items() if name not in drawn}
    if not activation.plain:  # its name alone does not say what it is
        settings |= {f"activation.{name}": value for name, value in activation.as_dict().items() if name != "name"}
    settings |= {"features": network.features, "dtype": network.dtype, "device": device.name}
    return {
        **_plain(settings),
        "training points": digest(device, X=problem.X),
        "targets": digest(device, y=problem.y),
        "sample weights": None if roots is None else digest(device, roots=roots),
        "validation points": digest(device, X=watch.X, y=watch.y) if watch.active else None,
        "initial weights": digest(device, **drawn),
    }


def _plain(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings as one level of ``outer.inner`` names with plain values."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _plain(value, f"{before}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            flat[before + name] = value if plain else str(getattr(value, "name", value))
    return flat


def digest(device: Device, **arrays: Array) -> str:
    """Return a digest of the shapes, types and bytes of some arrays."""
    total = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        update(total, name, np.asarray(device.to_host(array)))
    return total.hexdigest()
