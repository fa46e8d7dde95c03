"""Compares two results of one experiment and flags what became slower by more than the noise.

Every ``{"median", "low", "high"}`` in the results is a time.  It is slower where the new lower quartile lies above the
old upper quartile and the medians differ by more than ``LEAST``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.records import read
from bench.harness.words import spread

LEAST = 1.15  # times: less is noise whatever the quartiles of a few repeats say
IDENTITY = ("data", "n", "m", "d", "shift", "rule", "engine", "knob", "value", "solver", "operation", "name")


@dataclass(frozen=True)
class Change:
    """One time in both files."""

    where: str
    before: dict[str, float]
    after: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.after["median"] / max(self.before["median"], 1e-12)

    @property
    def verdict(self) -> str:
        if self.ratio > LEAST and self.after["low"] > self.before["high"]:
            return "SLOWER"
        if self.ratio < 1 / LEAST and self.after["high"] < self.before["low"]:
            return "faster"
        return "same"


def samples(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every time of a result with the path to it; rows are named by what identifies them."""
    if isinstance(value, dict):
        if set(value) == {"median", "low", "high"}:
            if all(isinstance(part, (int, float)) for part in value.values()):
                yield where, value
            return
        label = ",".join(f"{key}={value[key]}" for key in IDENTITY if not isinstance(value.get(key, []), (list, dict)))
        for key, part in value.items():
            yield from samples(part, " / ".join(filter(None, (where, label, key))))
    elif isinstance(value, list):
        for part in value:
            yield from samples(part, where)


def changes(before: Path, after: Path) -> list[Change]:
    """Return the times that both files have."""
    old, new = (dict(samples(_content(path))) for path in (before, after))
    return [Change(where, old[where], new[where]) for where in old if where in new]


def _content(path: Path) -> Any:
    result = read(path)
    return result.get("content", result)


def comparison(before: Path, after: Path) -> tuple[str, bool]:
    """Return the comparison as Markdown, and whether something became slower."""
    found = changes(before, after)
    slower = [change for change in found if change.verdict == "SLOWER"]
    counts = {verdict: sum(change.verdict == verdict for change in found) for verdict in ("SLOWER", "faster", "same")}
    lines = [f"{len(found)} times in both: " + ", ".join(f"{count} {name}" for name, count in counts.items()), ""]
    lines += ["| what | before | after | after / before | |", "|---|--:|--:|--:|---|"]
    for change in sorted(found, key=lambda change: -change.ratio):
        if change.verdict != "same":
            cells = [change.where, spread(change.before), spread(change.after), f"{change.ratio:.2f}", change.verdict]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines if len(lines) > 4 or counts["same"] < len(found) else lines[:1]), bool(slower)
