"""Draw the pictures of docs/method.md: ``python docs/draw_figures.py`` writes docs/figures/*.svg.

Plain SVG by hand, without a drawing library: the same bytes everywhere, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "figures"
INK, MUTED, FIRED, PRUNED, STALE = "#222222", "#666666", "#0072b2", "#bbbbbb", "#d55e00"
LEAVES = (0.3, 2.9, 1.7, -1.1, 0.8, -0.4, 0.2, 1.2, 1.9)
SHIFT, ARITY = 1.5, 3


def text(x: float, y: float, words: str, colour: str = INK, size: int = 14, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = INK, width: float = 1.5, extra: str = "") -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"{extra}/>'


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none") -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="5" fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'


def document(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif">'
    )
    ground = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{title}</title>", ground, *parts, "</svg>\n"])


# ---- the threshold tree ---------------------------------------------------------------------------------


def levels() -> list[list[float]]:
    """Return the values of the tree, the leaves first: an inner node is the largest of its children."""
    tree = [list(LEAVES)]
    while len(tree[-1]) > 1:
        below = tree[-1]
        tree.append([max(below[k : k + ARITY]) for k in range(0, len(below), ARITY)])
    return tree


def tree() -> str:
    values, parts = levels(), []
    places = [[80 + (k + 0.5) * 640 / len(row) for k in range(len(row))] for row in values]
    heights = [260 - 85 * level for level in range(len(values))]
    for level in range(len(values) - 1, -1, -1):
        for k, value in enumerate(values[level]):
            above = values[level + 1][k // ARITY] if level + 1 < len(values) else SHIFT + 1
            visited = above > SHIFT
            if level + 1 < len(values):
                ends = (places[level + 1][k // ARITY], heights[level + 1] + 16, places[level][k], heights[level] - 16)
                parts.append(line(*ends, INK if visited else PRUNED, 1.5, "" if visited else ' stroke-dasharray="4 4"'))
            parts += node(places[level][k], heights[level], value, visited)
    for k, x in enumerate(places[0]):
        fires = LEAVES[k] > SHIFT
        parts.append(text(x, 298, f"r = {k}", FIRED if fires else MUTED, 12))
    parts += [
        text(12, heights[-1] + 5, "root", MUTED, 12, "start"),
        text(12, heights[0] + 5, "leaves", MUTED, 12, "start"),
    ]
    parts += [
        text(560, 60, "query for b = 1.5: walk down,", INK, 14, "start"),
        text(560, 79, "leave a subtree at once when", INK, 14, "start"),
        text(560, 98, "its maximum is not above b", INK, 14, "start"),
        text(400, 330, "S = {1, 2, 8}: the neurons that fire on this point", FIRED),
    ]
    return document(800, 345, "One threshold tree: a query prunes every subtree whose maximum is at most b", parts)


def node(x: float, y: float, value: float, visited: bool) -> list[str]:
    fires = value > SHIFT
    fill = FIRED if fires else "#eeeeee" if visited else "#ffffff"
    colour = "#ffffff" if fires else INK if visited else PRUNED
    stroke = FIRED if fires else MUTED if visited else PRUNED
    return [box(x - 24, y - 16, 48, 32, fill, stroke), text(x, y + 5, f"{value:g}", colour)]


# ---- the lazy margin ------------------------------------------------------------------------------------


def lazy() -> str:
    left, low, b, right, axis = 40, 400, 600, 770, 150
    parts = [
        box(left, axis - 70, low - left - 2, 70, "#f2f2f2"),
        box(low, axis - 70, b - low - 2, 70, "#fdebdc"),
        box(b, axis - 70, right - b, 70, "#dcedf7"),
        text((left + low) / 2, axis - 42, "not a candidate:", MUTED),
        text((left + low) / 2, axis - 22, "not looked at", MUTED),
        text((low + b) / 2, axis - 42, "candidate: computed", STALE),
        text((low + b) / 2, axis - 22, "anew in every step", STALE),
        text((b + right) / 2, axis - 42, "candidate", FIRED),
        text((b + right) / 2, axis - 22, "that fires", FIRED),
        line(left, axis, right, axis),
        text(right, axis + 22, "&lt;w, x&gt;", INK, 14, "end"),
        line(low, axis - 80, low, axis + 8),
        text(low, axis - 88, "b - margin"),
        line(b, axis - 80, b, axis + 8),
        text(b, axis - 88, "b"),
    ]
    parts += drift(300, 80, 205, "moved by little: not even above b - margin", MUTED)
    parts += drift(370, 190, 255, "moved by D &lt;= margin: cannot have passed b", MUTED)
    parts += drift(380, 250, 305, "moved by D &gt; margin: may fire unseen, so its row is looked at afresh", STALE)
    return document(
        800, 335, "Lazy margins: a stale number that moved by at most the margin cannot pass b unseen", parts
    )


def drift(x: float, far: float, y: float, words: str, colour: str) -> list[str]:
    """A number as it was last computed, and how far it can have gone since."""
    return [
        line(x, y, x + far, y, colour, 4),
        f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{colour}"/>',
        line(x + far, y - 7, x + far, y + 7, colour, 2),
        line(600, y - 12, 600, y + 8, FIRED, 1, ' stroke-dasharray="3 3"'),
        text(x - 12, y + 5, "last seen", colour, 12, "end"),
        text(400, y + 24, words, colour, 13),
    ]


PICTURES = {"tree.svg": tree, "lazy.svg": lazy}


def main() -> None:
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
