"""Checks of the arrays that kernels get: raw kernels see pointers only, so a wrong array is silent garbage."""

from __future__ import annotations

from typing import Any

from ..formats import Array, NeuronLists

REAL = ("float32", "float64")


def check_array(name: str, array: Array, ndim: int, dtype: str, shape: tuple[int | None, ...] | None = None) -> None:
    """Check data type, dimensions and memory order of one argument.

    Parameters
    ----------
    name : str
        For the message.
    array : Array
        The argument.
    ndim : int
        Wanted number of dimensions.
    dtype : str
        Wanted data type, or ``"REAL"`` for float32 or float64.
    shape : tuple of (int or None), optional
        Wanted extents; None where any will do.

    Raises
    ------
    TypeError
        If it is no array, or of another data type.
    ValueError
        If dimensions, extents or memory order differ.
    """
    found: Any = getattr(getattr(array, "dtype", None), "name", None)
    if found not in (REAL if dtype == "REAL" else (dtype,)):
        wanted = "float32 or float64" if dtype == "REAL" else dtype
        raise TypeError(f"{name} must be an array of {wanted}; got {found or type(array).__name__}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions; got shape {array.shape}")
    if shape is not None and any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous in memory (C order); pass device.asarray({name})")


def check_offsets(offsets_name: str, offsets: Array, name: str, entries: Array) -> None:
    """Check the offsets and the entries of lists that lie end to end."""
    check_array(offsets_name, offsets, 1, "int64")
    check_array(name, entries, 1, "int32")


def check_lists(name: str, lists: NeuronLists) -> None:
    """Check the three arrays of lists of points."""
    check_array(f"{name}.neurons", lists.neurons, 1, "int32")
    check_array(f"{name}.indptr", lists.indptr, 1, "int64", (len(lists.neurons) + 1,))
    check_array(f"{name}.points", lists.points, 1, "int32")


def check_points_and_weights(X: Array, W: Array) -> str:
    """Check X (n, d) and W (m, d) and return their data type."""
    check_array("X", X, 2, "REAL")
    check_array("W", W, 2, X.dtype.name, (None, X.shape[1]))
    return X.dtype.name
