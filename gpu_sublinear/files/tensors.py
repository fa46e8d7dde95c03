"""Our files of arrays: safetensors with a JSON header of our own among its metadata, for models and checkpoints.

No pickle, so a foreign file cannot run code; the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import GpuSublinearError, shown
from .atomic import write_atomically

DTYPES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}
SEAL = "seal"  # the metadata entry with a digest of everything else
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)  # what assembling parts may raise


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    Attributes
    ----------
    name : str
        For messages: "model file".
    key : str
        Of our header among the metadata.
    version : int
        The ``format_version`` that is written.
    error : type
        Raised for files that cannot be read.
    remedy : str
        What to do about a damaged file.
    sealed : bool
        Whether a digest of header and arrays is written, and checked.
    readable : tuple of int
        Ascending versions that are read; empty for the written one alone.
    """

    name: str
    key: str
    version: int
    error: type[GpuSublinearError]
    remedy: str
    sealed: bool = False
    readable: tuple[int, ...] = ()

    def write(
        self, path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], again: bool = False
    ) -> None:
        """Write a file, all of it or nothing.

        Parameters
        ----------
        path : str or Path
            The file.
        header : mapping
            What JSON can hold; ``format_version`` is added.
        arrays : mapping
            float32, float64, int32 or int64 arrays of the host by name.
        again : bool
            Whether the file is written again and again, see :func:`gpu_sublinear.files.atomic.write_atomically`.
        """
        text = json.dumps({**header, "format_version": self.version}, sort_keys=True)
        metadata = {self.key: text}
        if self.sealed:
            metadata[SEAL] = seal(text, arrays)
        write_atomically(path, lambda temporary: _write(arrays, metadata, temporary), again)

    def read(self, path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return our header and the arrays of a file.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        dict, dict
            Header and arrays, neither looked into yet.

        Raises
        ------
        GpuSublinearError
            ``error``, if the file is missing, damaged, not of this kind, or of another version.
        """
        metadata, arrays = self._open(Path(path))
        if self.key not in metadata:
            raise self.error(
                f"'{path}' is a safetensors file of another program or purpose; give a {self.name} of gpu-sublinear"
            )
        text = metadata[self.key]
        try:
            header = json.loads(text)
            version = header["format_version"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise self.error(f"the header of '{path}' is damaged ({first_line(error)}); {self.remedy}") from error
        readable = self.readable or (self.version,)
        if version not in readable:
            known = f"{readable[0]} to {readable[-1]}" if len(readable) > 1 else str(readable[0])
            raise self.error(
                f"'{path}' has format version {shown(str(version))}, and this program reads {known}; "
                "update gpu-sublinear"
            )
        if self.sealed and metadata.get(SEAL) != seal(text, arrays):
            raise self.damaged(path, "its contents do not agree with its digest")
        return header, arrays

    def damaged(self, path: str | Path, why: BaseException | str) -> GpuSublinearError:
        """Return the error for a file whose parts do not fit."""
        return self.error(f"'{path}' is damaged: {why if isinstance(why, str) else first_line(why)}; {self.remedy}")

    def _open(self, path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
        except FileNotFoundError as error:
            raise self.error(f"there is no {self.name} '{path}'; check the path") from error
        except (SafetensorError, OSError, ValueError, TypeError, MemoryError, AttributeError) as error:
            raise self.error(f"'{path}' is not a readable {self.name} ({first_line(error)}); {self.remedy}") from error


def seal(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return a digest of a header and all arrays: their names, types, shapes and bytes."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
    for name in sorted(arrays):
        update(digest, name, arrays[name])
    return digest.hexdigest()


def update(digest: Any, name: str, array: np.ndarray) -> None:
    """Add an array to a digest of :mod:`hashlib`."""
    digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode("utf-8", "surrogatepass"))
    digest.update(little_endian(array).data)


def little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array (a copy only where it must be) as files and digests have it; never without dimensions."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def first_line(error: BaseException) -> str:
    """Return what an error says, as a message about a foreign file may show it."""
    text = f"no entry {error}" if isinstance(error, KeyError) else str(error)
    return shown((text.splitlines() or [type(error).__name__])[0], 200)


def _write(arrays: Mapping[str, np.ndarray], metadata: dict[str, str], path: Path) -> None:
    """Write the safetensors format: length of the header (8 bytes), header (JSON), arrays end to end."""
    # By hand, because the library's save_file renames a file of its own into place and its save copies all arrays.
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the arrays start at a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(little_endian(array).data)
