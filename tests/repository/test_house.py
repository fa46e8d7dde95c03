"""Rules of the house that no linter knows: nobody asks of what kind an index, mask, Jacobian, run or device is."""

from __future__ import annotations

import ast

import pytest

from tests.helpers.repository import ROOT

KINDS = ("Index", "Tree", "Mask", "Set", "Jacobian", "Run", "Device", "Rows", "Blocks")  # how their names end


def asked(source: str) -> list[str]:
    """Return the kinds that ``isinstance`` is asked about in a source text."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    about = [call.args[1] for call in calls if getattr(call.func, "id", "") == "isinstance"]
    names = [getattr(node, "id", getattr(node, "attr", "")) for kind in about for node in ast.walk(kind)]
    return [name for name in names if name.endswith(KINDS)]


def test_nobody_asks_for_a_kind():
    found = {str(path): asked(path.read_text(encoding="utf-8")) for path in (ROOT / "gpu_sublinear").rglob("*.py")}
    assert len(found) > 100 and not {path: kinds for path, kinds in found.items() if kinds}


@pytest.mark.parametrize("line", ["isinstance(index, LazyIndex)", "isinstance(x, bits.BitMask | ActiveSet)"])
def test_the_rule_notices_a_question(line):
    assert asked(line) and not asked("isinstance(x, int | str)")
