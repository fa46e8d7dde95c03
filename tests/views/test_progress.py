"""Live lines: only on terminals, never wider than them, and gone afterwards."""

from __future__ import annotations

import io
import time

import pytest

from gpu_sublinear.app.cli import main
from gpu_sublinear.views import progress
from gpu_sublinear.views.progress import ERASE, LiveLine, ProgressBar
from gpu_sublinear.views.run_text import STEP_HEADER, narrowed, step_line
from tests.helpers.command_line import SPHERE
from tests.helpers.records import record


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")


def test_nothing_is_written_where_nobody_looks():
    pipe = io.StringIO()
    bar = ProgressBar(stream=pipe)
    assert [bar(record(k, 10.0**-k)) for k in range(3)] == [False] * 3
    with LiveLine(pipe) as line:
        line.replace("text")
        line.count("text")
    assert pipe.getvalue() == ""


def test_the_bar_grows_with_the_digits_won(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    screen = Terminal()
    bar = ProgressBar(tolerance=1e-4, stream=screen)
    shares = []
    for k, mse in enumerate((1.0, 1e-4, 1e-8)):
        bar(record(k, mse=mse, moved=0 if k == 2 else 10))
        shares.append(bar.share(mse))
    assert shares == [0, 0.5, 1]
    assert bar.share(float("nan")) == 0
    assert bar.share(5.0) == 0
    lines = screen.getvalue().split(ERASE)[1:]
    assert [line.count("#") for line in lines] == [0, 12, 24]
    assert "mse 1.0e-04" in lines[1]
    assert "6.3 s" in lines[2]  # three steps of 2.1 s
    assert lines[-1].endswith("\n")


def test_lines_are_cut_to_the_terminal(narrow):
    screen = Terminal()
    LiveLine(screen).replace("x" * 200)
    assert screen.getvalue() == ERASE + "x" * 39


def test_a_long_step_counts_seconds_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(progress, "TICK", 0.01)
    screen = Terminal()
    with LiveLine(screen) as line:
        line.count("step 3")
        deadline = time.monotonic() + 30
        while "step 3, 0 s" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "step 3, 0 s" in screen.getvalue()
    assert screen.getvalue().endswith(ERASE)
    written = screen.getvalue()
    time.sleep(0.05)
    assert screen.getvalue() == written  # the thread is done


def test_a_terminal_that_goes_away_is_no_error():
    screen = Terminal()
    line = LiveLine(screen)
    screen.close()
    line.replace("text")
    line.settle()


@pytest.mark.parametrize("columns", [200, 68, 60, 50, 40, 20])
def test_narrow_tables_keep_their_columns_aligned(columns):
    header, line = narrowed(STEP_HEADER, columns), narrowed(step_line(record(3), 65536), columns)
    assert len(header) == len(line) <= max(columns, 15)
    assert header.split()[:2] == ["step", "mse"]
    assert line.split()[:2] == ["3", "2.000e-02"]
    if columns >= 68:
        assert header == STEP_HEADER


def test_train_on_a_narrow_terminal(narrow, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    assert main(SPHERE) == 0
    steps = [line for line in screen.getvalue().splitlines() if line.strip().startswith(("step", "0 ", "1 "))]
    assert len(steps) >= 3
    assert max(map(len, steps)) <= 40


def test_quiet_prints_nothing_and_still_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SPHERE, "-q", "--history", "h.json"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert (tmp_path / "h.json").stat().st_size > 100
    assert main(["train", "nowhere.csv", "--quiet"]) == 1
    assert "nowhere.csv" in capsys.readouterr().err
