"""The code blocks of a Markdown page, with the markers that say how to test them.

A marker is a comment on a line of its own before the block: ``<!-- test: skip because REASON -->``,
``<!-- test: small -->`` (run with few neurons), ``<!-- test: gpu -->`` (needs an NVIDIA GPU),
``<!-- test: needs MODULE -->`` (left out where the module is not installed), ``<!-- test: output -->``
(a text: what the block before prints).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.repository import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- test: (?P<marker>[^\n]*?) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
KINDS = re.compile(r"small|gpu|output|needs [\w.]+|skip because \w.+")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    code: str
    marker: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: match.start("code")].count("\n"), match["language"], match["code"], match["marker"] or "")
        for match in FENCE.finditer(text)
    ]


def commands(code: str) -> list[str]:
    """Return the commands of a block of shell, without comments, continued lines joined."""
    lines = code.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)#.*", "", line).strip())]
