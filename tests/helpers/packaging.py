"""Wheels and source distributions of this checkout."""

from __future__ import annotations

import importlib
import os
from pathlib import Path


def build(kind: str, name: str, root: Path, folder: Path, **options: object) -> Path:
    """Build a distribution with the build backend itself, without an environment of its own or a network."""
    builder = getattr(importlib.import_module(f"hatchling.builders.{kind}"), name)(str(root))
    before = os.getcwd()
    try:
        os.chdir(root)
        (path,) = builder.build(directory=str(folder), **options)
    finally:
        os.chdir(before)
    return Path(path)
