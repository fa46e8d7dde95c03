"""What commands share: printing, refusing files before work begins, records as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, OptionError, SilentPointsError
from ..files.atomic import check_writable

INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended


def say(text: str = "") -> None:
    """Print a line at once; when nobody reads any more (a closed pipe), go on without printing."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Send standard output to nowhere, so that neither we nor the interpreter's exit trip over a closed pipe."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def among_training_points() -> Iterator[None]:
    """Let errors that name rows or points say which are meant."""
    try:
        yield
    except (DataError, SilentPointsError) as error:
        where = "; rows and points are numbered from 0 among the training points (--test-fraction 0 keeps all)"
        raise type(error)(f"{error}{where}") from error


def check_output_files(outputs: dict[str, str | None], *inputs: str) -> None:
    """Raise before any work if two files would overwrite each other or one cannot be written."""
    taken = {Path(name).resolve(): "an input" for name in inputs if Path(name).is_file()}
    for option, name in outputs.items():
        if name is None:
            continue
        path = check_writable(name, option).resolve()
        if path in taken:
            raise OptionError(f"{option}: '{name}' is also {taken[path]}; choose another path")
        if path.is_file() or not path.exists():  # two options may share /dev/null
            taken[path] = f"the file of {option}"


def json_text(content: Any) -> str:
    """Return plain types as an indented JSON document; numbers that are not finite become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
