"""The page of a run: complete, self-contained, and the same from the history file."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpu_sublinear.app.cli import main
from gpu_sublinear.views.run_page import command_of, page, read_history
from tests.helpers.command_line import SPHERE, refusal

VOID = {"meta", "path", "use", "rect", "img", "br"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A folder with the history and the page of one run."""
    folder = tmp_path_factory.mktemp("run")
    files = ["--history", str(folder / "h.json"), "--report", str(folder / "r.html")]
    assert main([*SPHERE, "--seed", "3", *files]) == 0
    return folder


class Tags(HTMLParser):
    """Checks that tags nest, and collects identifiers and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(run):
    text = (run / "r.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.open == []
    assert tags.names.count("svg") == 3
    assert len(tags.ids) == len(set(tags.ids))
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert not {"script", "link", "img", "iframe"} & set(tags.names)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(tags.ids)
    assert "$" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)  # no place of the template was left empty


def test_every_colour_of_the_figures_comes_from_the_style_sheet(run):
    text = (run / "r.html").read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        assert not re.search(r"(?:fill|stroke): ?#[0-9a-fA-F]{6}", svg)
        assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(re.findall(r"(--\w+):", style))
    assert "prefers-color-scheme: dark" in style


def test_the_page_tells_the_run(run):
    text = (run / "r.html").read_text(encoding="utf-8")
    history = json.loads((run / "h.json").read_text())
    assert history["result"]["reason"] in text
    assert f"gpu-sublinear train {SPHERE[1]} --width 2048 --shift 1 --device reference --seed 3" in text
    for record in history["steps"]:
        assert f"<td>{record['mse']:.3e}</td>" in text
    assert f"{history['result']['held_out']['r2']:.6f}" in text
    for value in (history["environment"]["python"], "first scan (once)", "solver tolerance"):
        assert value in text


def test_the_history_gives_the_same_page_later(run, tmp_path, capsys):
    later = tmp_path / "later.html"
    assert main(["report", str(run / "h.json"), "--out", str(later)]) == 0
    assert "later.html" in capsys.readouterr().out
    assert later.read_bytes() == (run / "r.html").read_bytes()


def test_flipped_pairs_numbers_that_are_missing_and_strange_names(run):
    history = json.loads((run / "h.json").read_text())
    for k, step in enumerate(history["steps"]):
        step["flipped"] = 1234 + k
    history["steps"][-1] |= {"loss": None, "mse": None, "residual_norm": None, "flipped": None}
    history["settings"] |= {"data": "<b>&", "arguments": None}
    history["result"] |= {"training": None, "held_out": None, "converged": False}
    text = page(history)
    assert Tags(text).open == []
    assert '<th scope="col">flipped</th>' in text
    assert "<td>1,234</td>" in text
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    assert "not converged" in text


def test_old_histories_without_the_command_give_their_settings():
    settings = {"data": "digits", "shift": 2.3, "shift_option": "paper", "width": 64, "seed": 1}
    assert command_of(settings) == "gpu-sublinear train digits --shift paper --width 64 --seed 1"


@pytest.mark.parametrize("content", [None, "no json", "[]", '{"steps": []}'])
def test_other_files_are_refused(tmp_path, capsys, content):
    path = tmp_path / "h.json"
    if content is not None:
        path.write_text(content)
    error = refusal(capsys, ["report", str(path), "--out", str(tmp_path / "r.html")])
    assert "give a file written by train --history" in error
    assert not (tmp_path / "r.html").exists()


def test_the_page_may_not_replace_its_history(run, capsys):
    path = str(run / "h.json")
    assert "is also the history; choose another path" in refusal(capsys, ["report", path, "--out", path])
    assert json.loads(Path(path).read_text())["steps"]


def test_the_environment_is_read_back(run):
    assert set(read_history(run / "h.json")) == {"environment", "settings", "steps", "result"}
