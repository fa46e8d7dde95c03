"""What an experiment is: a question, a measurement at several sizes, and the words, tables and figure made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Content = dict[str, Any]  # what a measurement returns: plain values, so that JSON keeps all of it
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Table:
    """One Markdown table; numbers are formatted already.  ``words`` are the columns aligned to the left."""

    caption: str
    header: list[str]
    rows: list[list[str]]
    words: tuple[int, ...] = (0,)

    def markdown(self) -> str:
        return f"{self.caption}:\n\n{self.grid()}"

    def grid(self) -> str:
        """Return the table without its caption."""
        rule = "|" + "".join("---|" if k in self.words else "--:|" for k in range(len(self.header)))
        escaped = [[cell.replace("|", r"\|") for cell in cells] for cells in self.rows]
        lines = [f"| {' | '.join(cells)} |" for cells in escaped]
        return "\n".join([f"| {' | '.join(self.header)} |", rule, *lines])


@dataclass(frozen=True)
class Panel:
    """One set of axes: named curves of (x, y) points; ``log`` names the logarithmic axes ("", "x", "y", "xy")."""

    title: str
    x: str
    y: str
    curves: dict[str, Points]
    log: str = "xy"
    line: float | None = None  # a horizontal line of reference


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    ``sizes`` maps a suite to the keyword arguments of ``measure``, which also gets ``device`` (a name).  ``answer``,
    ``tables`` and ``panels`` see only the measured content, read back from JSON.
    """

    name: str
    number: int  # of the question in the list of questions; 0 for what no reviewer asked
    question: str
    sizes: dict[str, dict[str, Any]]
    measure: Callable[..., Content]
    answer: Callable[[Content], str]
    tables: Callable[[Content], list[Table]]
    panels: Callable[[Content], list[Panel]] = field(default=lambda content: [])
