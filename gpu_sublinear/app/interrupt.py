"""Ctrl-C, once to stop after the current step, twice to abort."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

NOTICE = "\ngpu-sublinear: stopping after this {} and saving; Ctrl-C again aborts\n"


class StopOnInterrupt:
    """While entered, the first SIGINT sets ``requested`` and the second raises ``KeyboardInterrupt``.

    Does nothing outside the main thread, and where SIGINT is ignored (``nohup``, background jobs).

    Parameters
    ----------
    unit : str
        After what the program stops.

    Attributes
    ----------
    requested : bool
        Whether SIGINT came.
    """

    def __init__(self, unit: str = "step") -> None:
        self.requested, self.notice = False, NOTICE.format(unit).encode()
        self._previous: Any = None

    def __enter__(self) -> StopOnInterrupt:
        """Watch for SIGINT."""
        usual = threading.current_thread() is threading.main_thread()
        if usual and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Put back the handler that was there."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, self.notice)  # print is not safe here: the signal may have come in the middle of one
