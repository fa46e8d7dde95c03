"""Fills the marked regions of README.md from results: ``<!-- bench:NAME -->`` ... ``<!-- /bench -->``.

``NAME`` is ``engine``, ``engine-widths``, ``virtual`` or ``faithful`` (the named benchmarks), or
``SUITE/EXPERIMENT`` for the tables of the suite, ``SUITE/EXPERIMENT:answer`` for its answer in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from bench import engine, faithful, virtual
from bench.experiments import BY_NAME
from bench.harness.records import RESULTS, read

REGION = re.compile(r"(<!-- bench:(?P<name>[\w/:.-]+) -->\n)(?P<body>.*?)(<!-- /bench -->)", re.DOTALL)


def _rows(name: str, folder: Path) -> dict:
    return read(folder / f"{name}-cpu.json")


NAMED: dict[str, Callable[[Path], str]] = {
    "engine": lambda folder: engine.table(_rows("engine", folder)["rows"]),
    "engine-widths": lambda folder: engine.sweep_table(_rows("engine", folder)["sweeps"]),
    "virtual": lambda folder: virtual.table(_rows("virtual", folder)["rows"]),
    "faithful": lambda folder: faithful.table(_rows("faithful", folder)["rows"]),
}


def region(name: str, folder: Path = RESULTS) -> str:
    """Return the text of a region."""
    if name in NAMED:
        return NAMED[name](folder)
    path, _, part = name.partition(":")
    suite, _, experiment = path.partition("/")
    if experiment not in BY_NAME:
        raise KeyError(f"README asks for bench:{name}, which is no experiment")
    result = read(folder / suite / f"{experiment}.json")
    if result["error"]:
        return f"*This experiment failed: {result['error'].splitlines()[0]}*"
    if part == "answer":
        return BY_NAME[experiment].answer(result["content"])
    return "\n\n".join(table.markdown() for table in BY_NAME[experiment].tables(result["content"]))


def fill(text: str, folder: Path = RESULTS) -> str:
    """Return the text with every marked region replaced by its table."""
    return REGION.sub(lambda match: f"{match[1]}\n{region(match['name'], folder)}\n\n{match[4]}", text)
