"""Writing files so that a reader sees the whole new file or the old one, never a part."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import GpuSublinearError

REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


class OutputFileError(GpuSublinearError, OSError):
    """A file cannot be written; nothing of it is left behind."""


def _refusal(path: Path, error: OSError) -> str:
    """Return one sentence: why ``path`` cannot be written and what to do."""
    why = REMEDIES.get(error.errno or 0) or f"{error.strerror or error}; choose another path"
    return f"cannot write '{path}': {why}"


def check_writable(path: str | Path, what: str) -> Path:
    """Check before a long computation that ``path`` can be written after it.

    Parameters
    ----------
    path : str or Path
        The file to be written later.
    what : str
        What asks for the file, for the message: ``"--out"``.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    OutputFileError
        If the folder does not exist or cannot be written, or ``path`` is a folder or write-protected.
    """
    path = Path(path)
    try:
        _check_target(path, what)
        if not _is_stream(path):
            probe = _create_temporary(_final(path).parent, secrets.token_hex(8))
            probe.unlink()
    except OutputFileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        error = error if isinstance(error, OSError) else OSError(str(error))
        raise OutputFileError(_refusal(path, error)) from error
    return path


def write_atomically(path: str | Path, write: Callable[[Path], None], again: bool = False) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in the place of ``path`` at once.

    The data reaches the disk (fsync) before the rename, and the rename before this returns.  A symbolic link is
    followed; a device or a pipe, such as ``/dev/stdout``, is written directly.

    Parameters
    ----------
    path : str or Path
        The file to write.
    write : callable
        Called with the path to fill.
    again : bool
        Whether the file is one that is written again and again: its temporary file has the same name each time, so that
        a program killed in the middle leaves at most one behind, which the next write takes over.

    Raises
    ------
    OutputFileError
        If the file system refuses (full, read-only, no permission); the temporary file is removed.
    """
    path = Path(path)
    try:
        if _is_stream(path):
            write(path)
            return
        final = _final(path)
        with _temporary(final, again) as temporary:
            write(temporary)
            _sync(temporary)
            os.replace(temporary, final)
            _sync_folder(final.parent)
    except OutputFileError:
        raise
    except OSError as error:
        raise OutputFileError(_refusal(path, error)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with :func:`write_atomically`."""
    write_atomically(path, lambda temporary: _fill(temporary, text))


def _fill(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def _check_target(path: Path, what: str) -> None:
    if path.is_dir():
        raise OutputFileError(f"{what}: '{path}' is a folder; give the path of a file")
    if not path.parent.is_dir():
        raise OutputFileError(f"{what}: the folder '{path.parent}' does not exist; create it or choose another path")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputFileError(f"{what}: '{path}' is write-protected; remove it or choose another path")


def _is_stream(path: Path) -> bool:
    """Tell whether ``path`` is a device, pipe or socket: renaming over one of these would destroy it."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _final(path: Path) -> Path:
    return Path(os.path.realpath(path))


@contextmanager
def _temporary(final: Path, again: bool) -> Iterator[Path]:
    """Yield an empty file beside ``final`` and remove it afterwards if it is still there."""
    if again:
        discard_temporary(final)
    temporary = _create_temporary(final.parent, _own_name(final) if again else secrets.token_hex(8))
    try:
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def discard_temporary(path: str | Path) -> None:
    """Remove what a killed program left of a file that it wrote ``again``; harmless if there is nothing."""
    final = _final(Path(path))
    with suppress(OSError):  # where that is impossible, writing fails and says why
        (final.parent / f".gpu-sublinear-{_own_name(final)}.tmp").unlink()


def _own_name(final: Path) -> str:
    return hashlib.blake2b(os.fsencode(final.name), digest_size=8).hexdigest()


def _create_temporary(folder: Path, name: str) -> Path:
    temporary = folder / f".gpu-sublinear-{name}.tmp"
    # 0o666 less the umask: the permissions of an ordinary new file, which tempfile would not give
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    return temporary


def _sync(path: Path) -> None:
    """Bring the contents of ``path`` to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring a rename in ``folder`` to the disk, where the system can."""
    with suppress(OSError):  # not every file system syncs folders; the new file is in its place all the same
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
