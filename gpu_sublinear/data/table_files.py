"""Tables in files of any kind that is known, told by the end of the name."""

from __future__ import annotations

import difflib
import io
from pathlib import Path
from typing import Any

from ..errors import DataError, shown
from .contents import read_bytes
from .dialect import Header
from .numpy_files import read_npy
from .tables import Table
from .text_tables import read_text_table

TEXT = (".csv", ".tsv", ".txt")
BINARY = {".parquet": "pyarrow", ".feather": "pyarrow", ".xlsx": "openpyxl"}  # and what pandas reads them with
SUFFIXES = (*TEXT, ".csv.gz", *BINARY, ".npz", ".npy")
WHAT_DATA_CAN_BE = (
    "digits, diabetes, breast_cancer, sphere:n=512,d=16,seed=0, or a path to a .csv, .tsv, .txt, .csv.gz, .parquet, "
    ".feather, .xlsx, .npz or .npy file"
)


def data_path(spec: str, others: list[str]) -> Path:
    """Return the path of a file of data.

    Parameters
    ----------
    spec : str
        What the user gave.
    others : list of str
        Names of data without a file, for a hint.

    Returns
    -------
    Path
        Its name ends as it should; the file need not exist.

    Raises
    ------
    DataError
        If the name ends otherwise.
    """
    if _suffix(spec):
        return Path(spec)
    if Path(spec).is_file():
        raise DataError(f"'{spec}' does not end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; convert or rename it")
    close = difflib.get_close_matches(spec, others, 1)
    hint = f"did you mean '{close[0]}'?" if close else f"give {WHAT_DATA_CAN_BE}"
    raise DataError(f"unknown data '{spec}'; {hint}")


def _suffix(name: str) -> str:
    name = name.lower()
    packed = next((f"{kind}.gz" for kind in TEXT if name.endswith(f"{kind}.gz")), "")
    return packed or next((kind for kind in SUFFIXES if name.endswith(kind)), "")


def read_table(path: Path, header: Header = "auto") -> Table:
    """Read a table, without the column that names or counts its rows.

    Parameters
    ----------
    path : Path
        Of any kind but ``.npz``.
    header : {"auto", "yes", "no"}
        Whether the first line of a text file has names.

    Returns
    -------
    Table
        Columns of numbers, booleans, text or dates.

    Raises
    ------
    DataError
        If the file cannot be read or has no rows.
    """
    suffix = _suffix(path.name)
    if suffix == ".npy":
        return _table(read_npy(path), named=False)
    table = _read_binary(path, suffix, header) if suffix in BINARY else read_text_table(path, header)
    return table.without_index().without_empty_end()


def _table(array: Any, named: bool) -> Table:
    import pandas as pd

    frame = pd.DataFrame(array)
    return Table(frame, tuple(f"column {k}" for k in range(frame.shape[1])), named)


def _read_binary(path: Path, suffix: str, header: Header) -> Table:
    """Read a table that another program has written with its types."""
    import pandas as pd

    readers = {".parquet": pd.read_parquet, ".feather": pd.read_feather, ".xlsx": pd.read_excel}
    options: dict[str, Any] = {"engine": BINARY[suffix]} if suffix == ".xlsx" else {}
    named = suffix != ".xlsx" or header != "no"
    options |= {} if named else {"header": None}
    content = read_bytes(path)
    try:
        frame = readers[suffix](io.BytesIO(content), **options)
    except ImportError as error:
        engine = BINARY[suffix]
        raise DataError(f"'{path}': {suffix} files are read with {engine}; install it: pip install {engine}") from error
    except Exception as error:  # damaged files make the engines raise errors of many classes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"'{path}' is damaged or no {suffix} file ({shown(reason, 200)}); save it again") from error
    if not len(frame) or not frame.shape[1]:
        raise DataError(f"'{path}' has no rows; give a table with one row per point")
    names = tuple(str(name) if named else f"column {name}" for name in frame.columns)
    return Table(frame.set_axis(range(len(names)), axis=1).reset_index(drop=True), names, named=named)
