"""A trained network for other programs: as a PyTorch module or as an ONNX file.

Both take raw features as a trained model does, standardise and normalise them in float64, and give targets in their
own units; a bare network takes unit rows.  Outputs equal :meth:`predict` up to the rounding of one matrix product:
libraries add the same numbers in other orders.  The neurons are taken in blocks, so that memory in use is bounded by
the block, not by the width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..data.preprocessing import TargetScaling
from ..errors import GpuSublinearError, OptionError
from ..files.atomic import write_atomically
from ..model.network import ShiftedReluNetwork
from ..sizes import dtype_name
from .model import FittedModel
from .parts import Parts


class ExportLibraryError(GpuSublinearError, ImportError):
    """PyTorch or onnx was asked for and is not installed."""


def parts(model: FittedModel | ShiftedReluNetwork, dtype: str | None = None) -> Parts:
    """Return all numbers of a model or a network.

    Parameters
    ----------
    model : FittedModel or ShiftedReluNetwork
        What to export.
    dtype : {"float32", "float64"}, optional
        Type of weights and products; by default that of the network.

    Returns
    -------
    Parts
        On the host.

    Raises
    ------
    OptionError
        If ``model`` or ``dtype`` is something else.
    """
    dtype = None if dtype is None else dtype_name(dtype)
    if isinstance(model, FittedModel):
        network, preprocessing, targets = model.network, model.preprocessing, model.targets
    elif isinstance(model, ShiftedReluNetwork):
        network, preprocessing, targets = model, None, TargetScaling(0.0, 1.0)
    else:
        raise OptionError(f"model must be a FittedModel or a ShiftedReluNetwork; got {type(model).__name__}")
    W, signs, shift, scale = _parts(network)
    W = np.ascontiguousarray(W, dtype or W.dtype)  # (u, d)
    return Parts(W, signs.astype(W.dtype), shift, scale, preprocessing, targets, network.activation)


def _parts(network: ShiftedReluNetwork) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Return W (u, d), signs (u,) or (u, c), shift and scale of a network: the one place that looks inside it."""
    to_host = network.device.to_host
    blocks = [(network.rows[:0], network.signs[:0]), *network.parts()]
    W, signs = (np.concatenate([to_host(part) for part in parts]) for parts in zip(*blocks, strict=True))
    return W, signs, network.shift, network.scale


def to_torch(model: FittedModel | ShiftedReluNetwork, *, dtype: str | None = None) -> Any:
    """Return a PyTorch module with the same outputs.

    Memory: one copy of the weights; a call without gradients (``torch.no_grad()``) holds one block of n x 4096
    numbers at a time, a call with gradients holds all n x m of them.

    Parameters
    ----------
    model : FittedModel or ShiftedReluNetwork
        A trained model (raw features in, targets in their units out) or a bare network (unit rows in).
    dtype : {"float32", "float64"}, optional
        Type of weights and products; by default that of the network.

    Returns
    -------
    torch.nn.Module
        From (n, features) of any real type to (n,) or (n, c) float64.  Where ``predict`` refuses its input, the
        module gives NaN.  The weights are a parameter ``W``; all else are buffers.

    Raises
    ------
    ExportLibraryError
        If PyTorch is not installed.
    OptionError
        If an argument is something else.
    """
    found = parts(model, dtype)
    try:
        from .torch import ExportedNetwork
    except ImportError as error:
        raise ExportLibraryError(_missing("PyTorch", "torch", error)) from error
    return ExportedNetwork(found)


def to_onnx(model: FittedModel | ShiftedReluNetwork, path: str | Path, *, dtype: str | None = None) -> None:
    """Write an ONNX file with the same outputs: input ``X`` (n, features), output ``y`` (n,) or (n, c), float64.

    Memory: about three copies of the weights while writing.  A runtime that frees intermediate results holds one
    block of n x 16384 numbers beside the weights.

    Parameters
    ----------
    model : FittedModel or ShiftedReluNetwork
        A trained model (raw features in, targets in their units out) or a bare network (unit rows in).
    path : str or Path
        The file, written whole or not at all.
    dtype : {"float32", "float64"}, optional
        Type of weights and products; by default that of the network.

    Raises
    ------
    ExportLibraryError
        If onnx is not installed.
    OptionError
        If an argument is something else, or the weights pass the 2 GiB that one ONNX file can hold.
    """
    found = parts(model, dtype)
    try:
        from .onnx import serialised
    except ImportError as error:
        raise ExportLibraryError(_missing("onnx", "onnx", error)) from error
    content = serialised(found)
    write_atomically(path, lambda temporary: _fill(temporary, content))


def to_torchscript(model: FittedModel | ShiftedReluNetwork, path: str | Path, *, dtype: str | None = None) -> None:
    """Write the module of :func:`to_torch` as TorchScript, which runs without this package.

    Parameters
    ----------
    model : FittedModel or ShiftedReluNetwork
        What to export.
    path : str or Path
        The file, for ``torch.jit.load``; written whole or not at all.
    dtype : {"float32", "float64"}, optional
        Type of weights and products; by default that of the network.
    """
    module = to_torch(model, dtype=dtype)
    from .torch import save_script

    write_atomically(path, lambda temporary: save_script(module, temporary))


def _fill(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _missing(name: str, module: str, error: ImportError) -> str:
    reason = "is not installed" if error.name == module else f"cannot be imported ({error})"
    return f"{name} {reason}, and this export needs it: pip install 'gpu-sublinear[export]'"
