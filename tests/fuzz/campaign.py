"""One campaign: many mutated files, each a function of (seed, number), so that a failure can be repeated alone."""

from __future__ import annotations

import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.corpus import valid_files
from tests.fuzz.mutate import mutate
from tests.fuzz.readers import read

HANG = 60  # seconds for one small file: no reader needs them, however busy the machine is
TARGETS = (None, None, "t", "0", "-1", "y", "99")


class HangError(BaseException):
    """A reader did not come back."""  # not an Exception, which a reader could catch


@dataclass
class Findings:
    """What a campaign saw.

    Attributes
    ----------
    outcomes : Counter
        Files by suffix and outcome.
    failures : dict
        The number of the first file, by where it failed.
    slowest : tuple
        Seconds and number of the slowest file.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)


def campaign(seed: int, numbers: Iterable[int]) -> Findings:
    """Read the mutated files of these numbers."""
    corpus, findings = valid_files(), Findings()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            _one(seed, number, corpus, Path(folder), findings)
    return findings


def _one(seed: int, number: int, corpus: dict[str, list[bytes]], folder: Path, findings: Findings) -> None:
    rng = random.Random(f"{seed} {number}")
    suffix = rng.choice(tuple(corpus))
    others = [content for contents in corpus.values() for content in contents]
    path = folder / f"file{suffix}"
    path.write_bytes(mutate(rng.choice(corpus[suffix]), suffix, others, rng))
    begin = time.perf_counter()
    try:
        with limited():
            outcome = read(path, rng.choice(TARGETS))
    except (Exception, HangError) as error:
        outcome = "FAILED"
        findings.failures.setdefault(_place(error), f"file {number}: {type(error).__name__}: {str(error)[:300]}")
    findings.outcomes[f"{suffix} {outcome}"] += 1
    findings.slowest = max(findings.slowest, (time.perf_counter() - begin, number))


@contextmanager
def limited() -> Iterator[None]:
    """End a reader that hangs."""

    def end(*_: object) -> None:
        raise HangError(f"no answer after {HANG} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _place(error: BaseException) -> str:
    """Return the kind of an error and the line it came from, which tell one defect from another."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
