"""The documentation is true: its code runs, its output is what it says, and it knows the options of the program."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gpu_sublinear.app import cli
from tests.helpers.devices import make_device
from tests.helpers.markdown import FENCE, KINDS, PAGES, Block, blocks, commands
from tests.helpers.repository import ROOT

RUNNABLE = ("python", "sh")
TEXTS = ("", "text", "usage")
SMALL = ["--width", "1024", "--shift", "1", "--max-steps", "3"]  # later options win


class Session:
    """The blocks of one page, run in order: one namespace, one folder, as a reader would."""

    def __init__(self) -> None:
        self.names: dict[str, object] = {"__name__": "documentation"}
        self.printed = ""

    def run(self, block: Block) -> None:
        if block.marker == "output":
            assert self.printed == block.code, f"{block}: the block before prints\n{self.printed}"
        elif block.language == "python":
            self.run_python(block)
        else:
            for command in commands(block.code):
                run_command(command, small=block.marker == "small")

    def run_python(self, block: Block) -> None:
        code = compile("\n" * block.line + block.code, str(block.page), "exec")  # the page's own line numbers
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.names)
        self.printed = printed.getvalue()


def run_command(command: str, small: bool) -> None:
    program, *arguments = shlex.split(command)
    if program == "gpu-sublinear" or (program == "python" and arguments[:2] == ["-m", "gpu_sublinear"]):
        arguments = arguments if program == "gpu-sublinear" else arguments[2:]
        assert cli.main([*arguments, *(SMALL if small and arguments[0] == "train" else [])]) == 0, command
        return
    assert program == "python", f"'{command}' is none of ours: mark its block with a reason to skip it"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


def has_gpu() -> bool:
    """Tell whether a GPU works here; where REQUIRE_GPU=1 demands one and none works, fail."""
    try:
        make_device("cuda")
    except pytest.skip.Exception:
        return False
    return True


def missing(block: Block) -> str:
    """Return why a block cannot run here, or nothing."""
    kind, _, rest = block.marker.partition(" ")
    if kind == "skip":
        return block.marker
    if kind == "needs" and not importlib.util.find_spec(rest):
        return f"needs {rest}"
    return "needs a GPU" if kind == "gpu" and not has_gpu() else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_every_block_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    session = Session()
    left_out = []
    for block in blocks(page):
        if block.language not in RUNNABLE and block.marker != "output":
            continue
        reason = missing(block)
        if reason:
            left_out.append(f"{block}: {reason}")
            continue
        try:
            session.run(block)
        except SystemExit as error:
            pytest.fail(f"{block}: the program ended with {error}: {capsys.readouterr().err}")
    for line in left_out:
        print(line)


def test_every_block_is_of_a_known_language_and_marker():
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)), page
        for block in blocks(page):
            assert block.language in (*RUNNABLE, *TEXTS), f"{block}: ```{block.language} is not run by this test"
            assert not block.marker or KINDS.fullmatch(block.marker), f"{block}: unknown marker '{block.marker}'"


def test_every_marker_belongs_to_a_block():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- test:") == sum(bool(match["marker"]) for match in FENCE.finditer(text)), page


def test_the_tester_notices_broken_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "page.md"
    session = Session()
    session.run(Block(page, 1, "python", "x = 3\nprint(x)\n", ""))
    session.run(Block(page, 5, "text", "3\n", "output"))
    with pytest.raises(AssertionError, match="the block before prints"):
        session.run(Block(page, 5, "text", "4\n", "output"))
    with pytest.raises(ZeroDivisionError):
        session.run(Block(page, 9, "python", "x / 0\n", ""))
    with pytest.raises(AssertionError, match="is none of ours"):
        session.run(Block(page, 9, "sh", "rm x\n", ""))
    with pytest.raises(SystemExit):
        session.run(Block(page, 9, "sh", "gpu-sublinear fly\n", ""))
    with pytest.raises(AssertionError):
        session.run(Block(page, 9, "sh", "gpu-sublinear predict none.safetensors digits  # not there\n", ""))


def test_a_required_gpu_is_an_error_where_there_is_none(monkeypatch):
    monkeypatch.setenv("REQUIRE_GPU", "1")
    block = Block(ROOT / "page.md", 1, "python", "", "gpu")
    make_device.cache_clear()
    try:
        if missing(block):
            raise AssertionError("a block for the GPU was left out although REQUIRE_GPU=1")
    except pytest.fail.Exception as error:
        assert "REQUIRE_GPU=1" in str(error)
    finally:
        make_device.cache_clear()


# ---- synopses -------------------------------------------------------------------------------------------


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def real_options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Return the choices (empty where any value goes) by option."""
    return {
        next(name for name in action.option_strings if name.startswith("--")): set(map(str, action.choices or ()))
        for action in parser._actions
        if action.option_strings and "--help" not in action.option_strings
    }


def synopsis(page: Path) -> dict[str, tuple[dict[str, set[str]], list[str]]]:
    """Return options with their choices, and positional arguments, by command."""
    (block,) = (block for block in blocks(page) if block.code.startswith("gpu-sublinear train DATA"))
    found = {}
    for text in re.split(r"^gpu-sublinear ", block.code, flags=re.M)[1:]:
        name, rest = text.split(None, 1) if " " in text.strip() else (text.strip(), "")
        named = re.findall(r"\[?(--[\w-]+)(?: ([^\s\]]+))?\]?", rest)  # a flag has no value
        options = {option: set(value.split("|")) if "|" in value else set() for option, value in named}
        positional = re.findall(r"\b[A-Z]{3,}\b", re.sub(r"--[\w-]+ \S+", "", rest))
        found[name] = (options, positional)
    return found


def test_the_synopsis_of_the_readme_is_true():
    real = subparsers()
    for name, (options, _) in synopsis(ROOT / "README.md").items():
        known = real_options(real[name])
        assert set(options) <= set(known), f"{name}: the README has options that the program has not"
        for option, choices in options.items():
            if choices and known[option]:
                assert choices == known[option], f"{name} {option}"


def test_the_page_of_commands_has_everything_and_nothing_else():
    page = ROOT / "docs" / "commands.md"
    written, real = synopsis(page), subparsers()
    assert list(written) == list(real)
    for name, parser in real.items():
        options, positional = written[name]
        assert options == real_options(parser), f"{name}: the synopsis of docs/commands.md differs from the parser"
        assert positional == [action.metavar for action in parser._actions if not action.option_strings]
        section = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.M)
        (words,) = (text for text in section if text.startswith(f"{name}\n"))
        for option in options:
            assert f"`{option}" in words or f" {option} " in words, f"{name} {option} is not explained"


def test_numbers_of_transcripts_are_those_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in blocks(ROOT / "docs" / "tutorial.md") if b.language == "text" and not b.marker)
    for line in block.code.splitlines():
        assert line in readme


def test_the_table_of_ratios_is_that_of_the_readme():
    def cells(path: Path, columns: slice) -> list[list[str]]:
        rows = [line.strip("| ").split("|") for line in path.read_text(encoding="utf-8").splitlines()]
        return [[cell.strip() for cell in row][columns] for row in rows if re.match(r"(sphere|digits)", row[0].strip())]

    def opponents(rows: list[list[str]]) -> list[list[str]]:
        return [row for row in rows if row[1].startswith("2^")]  # the table of nominal widths counts in tens

    readme = [
        [*row[:4], row[6].split()[0], row[9].split()[0]] for row in opponents(cells(ROOT / "README.md", slice(None)))
    ]
    ours = cells(ROOT / "docs" / "comparison.md", slice(None))
    assert sorted(ours) == sorted(readme)


def test_figures_are_what_their_script_draws():
    spec = importlib.util.spec_from_file_location("draw_figures", ROOT / "docs" / "draw_figures.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, draw in module.PICTURES.items():
        drawn = (ROOT / "docs" / "figures" / name).read_text(encoding="utf-8")
        assert drawn == draw(), f"run python docs/draw_figures.py for {name}"
