"""Contents of files: bytes, unpacked where they are packed, and text; with errors that name the file."""

from __future__ import annotations

import io
import zlib
from gzip import BadGzipFile, GzipFile
from pathlib import Path

from ..errors import DataError

EMPTY = "'{}' is empty; give a file with one row per point"
MOST_UNPACKED = 2**32  # bytes of text in a packed file: a small file may promise any number of them


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bytes
        All of it, not empty.

    Raises
    ------
    DataError
        If there is no such file, it cannot be read, or it is empty.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no file '{path}'; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read '{path}': {reason}; give a file that you may read") from error
    if not content or content[:64].isspace() and not content.strip():
        raise DataError(EMPTY.format(path))
    return content


def read_text(path: Path) -> bytes:
    """Return the contents of a text file, unpacked if its name ends in ``.gz``, lines ended by line feeds alone.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bytes
        Valid UTF-8 without a byte order mark, not empty.

    Raises
    ------
    DataError
        If it cannot be read, is empty, damaged, too large or not UTF-8 text.
    """
    content = read_bytes(path)
    if path.suffix.lower() == ".gz":
        content = _unpacked(path, content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"'{path}' is not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    if (nul := content.find(b"\0")) >= 0:
        raise DataError(f"'{path}' is not a text file (byte {nul} is zero); save it as CSV in UTF-8")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not content[:64].strip() and not content.strip():
        raise DataError(EMPTY.format(path))
    return content


def _unpacked(path: Path, content: bytes) -> bytes:
    try:
        with GzipFile(fileobj=io.BytesIO(content)) as file:
            text = file.read(MOST_UNPACKED + 1)
    except (BadGzipFile, EOFError, zlib.error, OSError) as error:
        raise DataError(f"'{path}' is damaged or not packed by gzip ({error}); pack it again") from error
    if len(text) > MOST_UNPACKED:
        raise DataError(f"'{path}' holds more than {MOST_UNPACKED / 2**30:g} GiB of text; give fewer rows")
    return text
