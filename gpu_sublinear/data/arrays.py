"""Arrays of other libraries: NumPy, CuPy, PyTorch and all that speak DLPack come in; answers are of the same kind.

The features are prepared on the host in float64, so one copy is made each way; the device gets the prepared points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import CupyMissingError, DataError


def to_host(array: Any) -> Any:
    """Return an array of a foreign library as a NumPy array; anything else as it is.

    Parameters
    ----------
    array : object
        A NumPy array, list or table (returned as it is), a tensor of PyTorch, an array of CuPy, or an object with
        ``__cuda_array_interface__`` or ``__dlpack__``.

    Returns
    -------
    object
        On the host.

    Raises
    ------
    DataError
        If the host has no such type (``bfloat16``).
    CupyMissingError
        If an array on a GPU needs CuPy to be read and it is not installed.
    """
    library = _library(array)
    if library == "numpy":
        return array
    try:
        if library == "torch":
            return array.detach().cpu().numpy()
        if library == "cupy":
            return array.get()
        if library == "cuda":
            return _cupy().asarray(array).get()
        return np.from_dlpack(array)
    except (TypeError, BufferError, RuntimeError) as error:
        raise DataError(
            f"an array of {type(array).__module__} cannot be read ({error}); give float32 or float64"
        ) from None


def of_table(table: Any) -> Any:
    """Return the values of a table (pandas, polars) as a NumPy array; anything else as it is.

    Parameters
    ----------
    table : object
        A table or a column of one; or an array, which is returned as it is.

    Returns
    -------
    object
        Numbers on the host.

    Raises
    ------
    DataError
        If the table holds anything but numbers.
    """
    if isinstance(table, np.ndarray) or not hasattr(table, "to_numpy"):
        return table
    values = np.asarray(table.to_numpy())
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"the table must hold numbers only, and its values are of type {values.dtype}; encode other columns as "
            "numbers, and fill in what is missing"
        )
    return values


def like(array: Any, values: np.ndarray) -> Any:
    """Return ``values`` as an array of the library and on the device of ``array``.

    Parameters
    ----------
    array : object
        What the user gave.
    values : numpy.ndarray
        The answer; where numbers are real they take the floating type of ``array``: of NumPy's if it is float32, as
        float16 would overflow.

    Returns
    -------
    object
        A NumPy array for NumPy arrays, lists and tables, and for values that are not numbers.
    """
    library = _library(array)
    if values.dtype.kind not in "fiub":
        return values
    if library == "numpy":
        single = isinstance(array, np.ndarray) and array.dtype == np.float32
        return values.astype(np.float32) if single and values.dtype.kind == "f" else values
    if library == "torch":
        import torch

        answer = torch.from_numpy(np.ascontiguousarray(values))
        floating = values.dtype.kind == "f" and array.is_floating_point()
        return answer.to(array.device, array.dtype if floating else None)
    if library in ("cupy", "cuda"):
        return _cupy().asarray(_typed(values, array))
    return array.__array_namespace__().asarray(_typed(values, array), device=array.device)


def _typed(values: np.ndarray, array: Any) -> np.ndarray:
    """Return real values in the floating type of ``array``, others as they are."""
    wanted = np.dtype(str(getattr(array, "dtype", values.dtype)))
    return values.astype(wanted) if wanted.kind == values.dtype.kind == "f" else values


def _library(array: Any) -> str:
    """Return whose array it is: numpy (or a list, or a table), torch, cupy, cuda (another one's) or dlpack."""
    name = type(array).__module__.partition(".")[0]
    if name in ("torch", "cupy"):
        return name
    if isinstance(array, np.ndarray | np.generic) or hasattr(array, "__dataframe__"):
        return "numpy"
    if hasattr(array, "__cuda_array_interface__"):
        return "cuda"
    return "dlpack" if hasattr(array, "__dlpack__") and hasattr(array, "__array_namespace__") else "numpy"


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise CupyMissingError(
            f"arrays on a GPU are read with CuPy, which cannot be imported ({error}); install it"
        ) from None
    return cupy
