"""Tables with text and missing cells from the command line: trained on, told of, predicted from, exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_sublinear.app.cli import main
from gpu_sublinear.errors import ModelFileError
from gpu_sublinear.fitted.model import FittedModel
from tests.helpers.command_line import SMALL, refusal, usage_error
from tests.helpers.models import change_header

TRAIN = ["train", "t.csv", *SMALL, "--max-steps", "3", "--test-fraction", "0.25"]


@pytest.fixture
def table(here) -> pd.DataFrame:
    """A working folder with t.csv: text, a missing cell, an order, a date, an index."""
    rng = np.random.default_rng(0)
    n = 40
    kinds = np.array(["oak", "ash", "elm"])[np.arange(n) % 3]
    frame = pd.DataFrame({"kind": kinds, "girth": rng.standard_normal(n).round(3), "size": ["S", "L"] * (n // 2)})
    frame["when"] = pd.date_range("2020-01-30", periods=n).strftime("%Y-%m-%d")
    frame.loc[3, "girth"] = np.nan
    frame["height"] = np.arange(n) % 3 + frame["girth"].fillna(0)
    frame.to_csv("t.csv")
    return frame


OPTIONS = ["--ordinal", "size=S<L", "--dates", "ordinal"]


def test_train_says_and_saves_what_was_done_and_predict_does_it_again(table, capsys):
    assert main([*TRAIN, *OPTIONS, "--out", "m", "--history", "h.json", "--report", "r.html"]) == 0
    out = capsys.readouterr().out
    for part in ("text, 3 levels", "ordinal, S < L", "date, in days since 1970", "tells rows apart and is left out"):
        assert part in out
    assert max(map(len, out.splitlines())) <= 100
    settings = json.loads(Path("h.json").read_text())["settings"]
    assert [column["name"] for column in settings["columns"]] == ["kind", "girth", "size", "when"]
    model = FittedModel.load("m", "reference")
    assert "kind=oak" in model.feature_names
    assert main(["predict", "m", "t.csv", "--device", "reference", "--out", "p.csv"]) == 0
    wanted = np.loadtxt("p.csv", skiprows=1)
    np.testing.assert_array_equal(model.predict(table), wanted)
    table.assign(more="x")[["more", "when", "size", "girth", "kind"]].to_csv("n.csv", index=False)
    capsys.readouterr()
    assert main(["predict", "m", "n.csv", "--device", "reference", "--out", "q.csv"]) == 0
    assert Path("q.csv").read_bytes() == Path("p.csv").read_bytes()


def test_predict_counts_what_training_did_not_know(table, capsys):
    assert main([*TRAIN, *OPTIONS, "--out", "m"]) == 0
    new = table[:3].assign(kind=["fir", None, "oak"], height=[1.0, np.nan, 2.0])
    new.to_csv("n.csv", index=False)
    capsys.readouterr()
    assert main(["predict", "m", "n.csv", "--device", "reference"]) == 0
    error = capsys.readouterr().err
    assert "1 cells not known from training (kind 1)" in error and "1 cells missing" in error
    assert "on 2 points that have targets" in error
    new.drop(columns=["kind", "girth"]).to_csv("n.csv", index=False)
    assert "no column 'kind', 'girth'" in refusal(capsys, ["predict", "m", "n.csv", "--device", "reference"])


def test_inspect_tells_the_same_and_recommends_the_same_options(table, capsys):
    assert main(["inspect", "t.csv", "--width", "2048", "--device", "reference", *OPTIONS, "--json", "i.json"]) == 0
    out = capsys.readouterr().out
    assert "text, 3 levels" in out
    assert "--ordinal 'size=S<L'" in out and "--dates ordinal" in out
    assert json.loads(Path("i.json").read_text())["table"]["columns"][2]["levels"] == ["S", "L"]


def test_refusals_name_what_to_do(table, capsys):
    assert "'when' has dates ('2020-01-30'); take them as days" in refusal(capsys, TRAIN)
    assert "drop: there is no column 'z'" in refusal(capsys, [*TRAIN, "--drop", "when,z"])
    missing = [*TRAIN, "--drop", "when", "--missing", "refuse"]
    assert "t.csv', line 5, column 'girth': the cell is empty" in refusal(capsys, missing)
    assert "given twice" in refusal(capsys, [*TRAIN, "--ordinal", "a=x<y", "--ordinal", "a=x<y"])
    assert "size=small<medium<large" in usage_error(capsys, [*TRAIN, "--ordinal", "size=S"])
    assert "at least 1" in usage_error(capsys, [*TRAIN, "--max-levels", "0"])


def test_export_says_that_it_takes_encoded_columns(table, capsys):
    pytest.importorskip("onnx")
    assert main([*TRAIN, "--drop", "when", "--out", "m"]) == 0
    capsys.readouterr()
    assert main(["export", "m", "--format", "onnx", "--out", "m.onnx"]) == 0
    assert "its input is the 7 encoded columns of numbers, not the table's own: kind=ash" in capsys.readouterr().out


def test_models_without_a_table_are_columns_of_numbers(table, capsys):
    table[["girth", "height"]].dropna().to_csv("t.csv", index=False)
    assert main([*TRAIN, "--out", "m"]) == 0
    assert main(["predict", "m", "t.csv", "--device", "reference", "--out", "p.csv"]) == 0
    change_header(Path("m"), lambda header: header["metadata"].pop("table"))  # as the version before wrote it
    assert main(["predict", "m", "t.csv", "--device", "reference", "--out", "q.csv"]) == 0
    assert Path("q.csv").read_bytes() == Path("p.csv").read_bytes()
    Path("n.csv").write_text("girth,b\n1,2\n,3\n")
    assert "line 3, column 'girth': the cell is empty" in refusal(capsys, ["predict", "m", "n.csv"])


@pytest.mark.parametrize(
    "change", [{"table": {}}, {"table": 3}, {"table": {"columns": [{"name": "a", "kind": "number"}]}}]
)
def test_tables_that_do_not_fit_are_damaged(table, change):
    assert main([*TRAIN, "--drop", "when", "--out", "m"]) == 0
    change_header(Path("m"), lambda header: header["metadata"].update(change))
    with pytest.raises(ModelFileError, match="damaged"):
        FittedModel.load("m", "reference")
