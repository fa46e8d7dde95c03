"""What a run prints and draws."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from gpu_sublinear.devices.clock import PHASES
from gpu_sublinear.errors import OptionError
from gpu_sublinear.step.history import StepRecord, TrainingResult
from gpu_sublinear.views.run_figure import check_figure, draw, save_figure
from gpu_sublinear.views.run_text import STEP_HEADER, Fit, closing_table, memory, percent, phase_seconds, step_line
from tests.helpers.records import record


def result(history: list[StepRecord]) -> TrainingResult:
    return TrainingResult(None, history, True, "done", 7.0, 0.5)


def test_step_lines_align_with_their_header():
    for k in (record(0), record(19, loss=1e-13, fired=39_565.1, union=10**7, seconds=1234.5), record(7, moved=0)):
        line = step_line(k, 2**24)
        assert len(line) == len(STEP_HEADER) <= 80
    assert step_line(record(3, moved=0), 65536).split()[5:8] == ["-", "-", "2.10"]
    assert "76.3 %" in step_line(record(0), 65536)


def test_closing_table_adds_up():
    history = [record(0), record(1, moved=20), record(2, moved=0)]
    table = closing_table(result(history), 65536, Fit(80, 1e-9, 1.0), Fit(20, 0.1, None), 10.0)
    assert max(map(len, table.splitlines())) <= 88
    assert "15 of 65,536 per step (0.0%), at most 20" in table
    assert "3.00 GiB" in table
    shares = [
        float(line.split("%")[0].split()[-1]) for line in table.splitlines() if "%" in line and line.startswith("  ")
    ]
    assert abs(sum(shares[:-1]) - 100) <= 0.05 * len(shares)  # each rounded to 0.1
    assert phase_seconds(history)["update"] == pytest.approx(1.8)


def test_closing_table_without_held_out_points_or_steps():
    table = closing_table(result([record(0, moved=0)]), 100, Fit(80, 1e-9, 1.0), None, 0.0)
    assert "held out" not in table
    assert "neurons touched" not in table


def test_fit_measures():
    fit = Fit.of(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), 2.0)
    assert (fit.points, fit.mse) == (3, pytest.approx(1 / 6))
    assert fit.r2 == pytest.approx(1 - 1 / 2)
    assert Fit.of(np.array([1.0]), np.array([2.0]), 1.0).r2 is None


def test_units():
    assert [memory(k) for k in (0, 2048, 5 * 2**20, 2**40)] == ["0 bytes", "2 KiB", "5 MiB", "1024.00 GiB"]
    assert [percent(k, 1000) for k in (0, 1, 10, 1000)] == ["0 %", "0.1 %", "1.0 %", "100.0 %"]


# ---- figure ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_figures_are_written_twice_alike(tmp_path, suffix, magic):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        save_figure(path, [record(k, 10.0**-k) for k in range(5)], "title", 1e-3)
    contents = [path.read_bytes() for path in paths]
    assert contents[0].startswith(magic)
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    "history",
    [[record(0, moved=0)], [record(0), record(1, loss=0.0)], [record(k) for k in range(40)], [record(0, phases={})]],
)
def test_unusual_runs_are_drawn(tmp_path, history):
    save_figure(tmp_path / "f.png", history, "title")
    assert (tmp_path / "f.png").stat().st_size > 1000


def test_all_axes_are_labelled_and_the_legend_names_every_phase():
    loss, seconds, pairs = draw([record(0), record(1, 0.1)], "title", 0.01).axes
    assert loss.get_yscale() == "log"
    assert all([axes.get_xlabel() == "step" and axes.get_ylabel() for axes in (loss, seconds, pairs)])
    assert [text.get_text() for text in seconds.get_legend().get_texts()] == list(PHASES)[::-1]
    assert pairs.get_legend() is None
    assert pairs.lines[0].get_ydata() == pytest.approx([700.25 * 100] * 2)  # fired per point times n = 2 loss / mse


def test_flipped_pairs_are_drawn_where_records_count_them():
    steps = [SimpleNamespace(**record(k).as_dict(), flipped=count) for k, count in enumerate((500, 0, None))]
    fired, flipped = draw(steps, "title").axes[2].lines
    assert len(fired.get_ydata()) == 3
    assert flipped.get_ydata()[0] == 500
    assert np.isnan(flipped.get_ydata()[1:]).all()


def test_unknown_formats_are_refused():
    for name in ("f.gif", "f", ".png"):
        with pytest.raises(OptionError, match=r"must end in \.png, \.svg or \.pdf"):
            check_figure(name)
