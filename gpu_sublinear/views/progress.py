"""Live progress on a terminal: one line that is written over, and nothing where nobody looks.

``ProgressBar`` is a callback for ``GaussNewton.fit``; ``LiveLine`` is the line itself, which also counts the seconds
of a long step from a thread of its own, so that a scan of 10^7 neurons does not look like a hang.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

from ..step.history import StepRecord

CELLS = 24  # of the bar
TICK = 0.5  # seconds between two looks at the clock; anything faster than this needs no live line
ERASE = "\r\x1b[K"


class LiveLine:
    """A line at the bottom of a terminal that can be replaced; silent where the stream is no terminal.

    Parameters
    ----------
    stream : text file, optional
        Default: standard output at the time of the call.

    Attributes
    ----------
    shown : bool
        Whether the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.shown = bool(getattr(self.stream, "isatty", lambda: False)())
        self._lock = threading.Lock()
        self._dirty = False
        self._stop: threading.Event | None = None

    @property
    def columns(self) -> int:
        """Columns of the terminal."""
        return shutil.get_terminal_size((80, 24)).columns

    def replace(self, text: str) -> None:
        """Show ``text``, cut to the terminal, in place of what was shown."""
        if self.shown:
            with self._lock:
                self._write(ERASE + text[: self.columns - 1])
                self._dirty = True

    def erase(self) -> None:
        """Leave an empty line, for a line that stays to be printed in its place."""
        with self._lock:
            if self._dirty:
                self._write(ERASE)
                self._dirty = False

    def keep(self) -> None:
        """Leave what is shown where it is and go to the next line."""
        with self._lock:
            if self._dirty:
                self._write("\n")
                self._dirty = False

    def count(self, text: str) -> None:
        """Show ``text`` and the seconds since now, every ``TICK``, until :meth:`settle`."""
        self.settle()
        if not self.shown:
            return
        self._stop = threading.Event()
        threading.Thread(target=self._tick, args=(text, self._stop, time.perf_counter()), daemon=True).start()

    def settle(self) -> None:
        """Stop counting and erase."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
        self.erase()

    def _tick(self, text: str, stop: threading.Event, begin: float) -> None:
        while not stop.wait(TICK):
            with self._lock:
                if not stop.is_set():
                    self._write(f"{ERASE}{text}, {time.perf_counter() - begin:.0f} s"[: self.columns + len(ERASE) - 1])
                    self._dirty = True

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a terminal that went away must not end a training run
            self.stream.write(text)
            self.stream.flush()

    def __enter__(self) -> LiveLine:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal clean, whatever happened."""
        self.settle()


class ProgressBar:
    """Callback that shows a bar with loss, fired neurons and seconds while ``GaussNewton.fit`` runs.

    The bar's length is how far the error has come from its first value to the tolerance, on a logarithmic scale,
    because full steps gain digits, not differences.

    Parameters
    ----------
    tolerance : float
        That of the trainer, for targets of mean square 1.
    stream : text file, optional
        Default: standard error.  Nothing is written where it is no terminal.

    Examples
    --------
    >>> trainer = GaussNewton(tolerance=1e-5)  # doctest: +SKIP
    >>> trainer.fit(network, X, y, callbacks=[ProgressBar(trainer.tolerance)])  # doctest: +SKIP
    """

    def __init__(self, tolerance: float = 1e-4, stream: TextIO | None = None) -> None:
        self.goal = tolerance**2
        self._line = LiveLine(stream or sys.stderr)
        self._first = math.nan
        self._seconds = 0.0

    def __call__(self, record: StepRecord, network: Any = None) -> bool:
        """Show the state after a record; never asks to stop."""
        if record.step == 0:
            self._first, self._seconds = record.mse, 0.0
        self._seconds += record.seconds
        self._line.replace(self.text(record))
        if self.share(record.mse) >= 1 or not record.moved_neurons:
            self.close()
        return False

    def share(self, mse: float) -> float:
        """Return how much of the way to the tolerance is done, from 0 to 1."""
        if not (math.isfinite(mse) and math.isfinite(self._first)) or self._first <= 0:
            return 0.0
        if mse <= self.goal:
            return 1.0
        if self.goal <= 0 or self._first <= self.goal:
            return 0.0
        return min(1.0, max(0.0, math.log(self._first / mse) / math.log(self._first / self.goal)))

    def text(self, record: StepRecord) -> str:
        """Return the line for a record."""
        full = int(CELLS * self.share(record.mse))
        bar = "#" * full + "-" * (CELLS - full)
        numbers = f"mse {record.mse:.1e}  fired {record.fired:,.0f}  {self._seconds:.1f} s"
        return f"step {record.step:>2} [{bar}] {numbers}"

    def close(self) -> None:
        """Keep the last line and go to the next; harmless if nothing is shown."""
        self._line.keep()
