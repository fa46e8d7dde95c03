"""Fills the marked regions of README.md and docs/ from results: ``<!-- bench:NAME -->`` ... ``<!-- /bench -->``.

``NAME`` is ``SUITE/EXPERIMENT`` for all tables with their captions, ``SUITE/EXPERIMENT:2`` for the second table alone,
without caption, ``SUITE/EXPERIMENT:answer`` for the answer in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bench.experiments import BY_NAME
from bench.harness.records import RESULTS, ROOT, read, result_path

REGION = re.compile(r"(<!-- bench:(?P<name>[\w/:.-]+) -->\n)(?P<body>.*?)(<!-- /bench -->)", re.DOTALL)


def region(name: str, folder: Path = RESULTS) -> str:
    """Return the text of a region."""
    place, _, part = name.partition(":")
    suite, _, experiment = place.partition("/")
    if experiment not in BY_NAME:
        raise KeyError(f"a page asks for bench:{name}, which is no experiment")
    result = read(result_path(folder, suite, experiment))
    if result["error"]:
        return f"*This experiment failed: {result['error'].splitlines()[0]}*"
    if part == "answer":
        return BY_NAME[experiment].answer(result["content"])
    tables = BY_NAME[experiment].tables(result["content"])
    return tables[int(part) - 1].grid() if part else "\n\n".join(table.markdown() for table in tables)


def fill(text: str, folder: Path = RESULTS) -> str:
    """Return the text with every marked region replaced by its table."""
    return REGION.sub(lambda match: f"{match[1]}\n{region(match['name'], folder)}\n\n{match[4]}", text)


def pages() -> Iterator[Path]:
    """Yield the pages that have regions."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if REGION.search(path.read_text(encoding="utf-8")):
            yield path


def fill_pages(folder: Path = RESULTS) -> None:
    """Fill the regions of all pages."""
    for path in pages():
        path.write_text(fill(path.read_text(encoding="utf-8"), folder), encoding="utf-8")
