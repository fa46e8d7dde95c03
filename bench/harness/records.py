"""Results as files: ``bench/results/SUITE/NAME.json``, one record a line, whole or not there at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from gpu_sublinear.files.atomic import write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
RECORD = 2  # levels of brackets of a record: names of numbers, or of medians with their quartiles
LINE = 300  # characters: deeper records share a line up to here


def result_path(folder: Path, suite: str, name: str) -> Path:
    """Return where the result of an experiment lies."""
    return folder / suite / f"{name}.json"


def read(path: Path) -> dict[str, Any]:
    """Return a result."""
    return json.loads(path.read_text(encoding="utf-8"))


def load_results(folder: Path, suite: str) -> dict[str, dict[str, Any]]:
    """Return all results of a suite by experiment."""
    return {path.stem: read(path) for path in sorted((folder / suite).glob("*.json"))}


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write plain values, whole or not at all; numbers that JSON cannot hold become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, dumps(plain(content)) + "\n")
    return path


def dumps(value: Any, indent: str = "") -> str:
    """Return JSON with one record a line; what holds records is opened."""
    line = json.dumps(value, allow_nan=False)
    if not holds_records(value, line):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {dumps(part, inner)}" for key, part in value.items()]
    else:
        lines = [dumps(part, inner) for part in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{closing}"


def holds_records(value: Any, line: str) -> bool:
    """Tell whether a value is no record itself: a list of records, or what is deep and makes a long line."""
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return True
    return levels(value) > RECORD and len(line) > LINE


def levels(value: Any) -> int:
    """Return how deep brackets lie within each other; a number, a word and a vector of these have none."""
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if not isinstance(value, dict) and not any(isinstance(part, (dict, list)) for part in parts):
        return 0
    return 1 + max(map(levels, parts), default=0)


def plain(value: Any) -> Any:
    """Return NumPy values, tuples and keys as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(part) for part in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
