"""Class labels and several target columns: found, refused, trained on and predicted from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_sublinear.app.cli import main
from gpu_sublinear.data.classes import Classes, label_text, names_from
from gpu_sublinear.data.prediction import load_for_prediction
from gpu_sublinear.data.sources import load
from gpu_sublinear.errors import DataError, ModelFileError, OptionError
from gpu_sublinear.fitted.model import FittedModel
from tests.helpers.command_line import refusal
from tests.helpers.models import change_header
from tests.helpers.targets import NAMES, flowers

SMALL = ["--width", "2048", "--shift", "1", "--device", "reference", "--max-steps", "3"]


# ---- classes --------------------------------------------------------------------------------------------


def test_words_and_numbers_have_one_order_and_equal_numbers_are_one_class():
    assert Classes.of(["10", " b", "a", "b", "9", "a", "9", "10", "9", "9", "9", "9"], "it").names == (
        "9", "10", "a", "b",
    )  # fmt: skip
    numbers = Classes.of(["10", "9.0", "9", "10.0", "1.000000000000000000e+01", "9"], "it")
    assert numbers.names == ("9", "10")
    assert numbers.numbers(["9.0", 10, "1e1", "11"]).tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize(
    "names",
    [("1.1", "1.10"), ("1000", "1e3"), ("007", "7"), ("1", "01", "1.0"), ("9", "9.0", "a"), ("1_0", "10"), ("+1", "1")],
)
def test_labels_keep_their_text_unless_all_are_plain_numbers(names):
    classes = Classes.of(list(names) * 3, "it")
    assert set(classes.names) == set(names)
    assert classes.label(classes.numbers(names)).tolist() == list(names)


def test_a_forgotten_target_makes_no_thousand_outputs():
    with pytest.raises(DataError, match=r"1,001 different values, more than 1,000 classes; .* --target"):
        Classes.of([f"v{k}" for k in range(1001)] * 3, "it")


def test_labels_have_one_text():
    assert [label_text(value) for value in (1, 1.0, "1.0", True, np.str_("x "), np.float64(0.5))] == [
        "1", "1", "1", "True", "x", "0.5",
    ]  # fmt: skip
    assert [label_text(value) for value in ("nan", "inf", "1_0")] == ["nan", "inf", "1_0"]


@given(st.lists(st.sampled_from(["x", "y", "z", "7", "8"]), min_size=24, max_size=40))
def test_targets_decide_for_their_own_class(labels):
    if len(set(labels)) < 2:
        with pytest.raises(DataError, match="needs two or more"):
            Classes.of(labels, "it")
        return
    classes = Classes.of(labels, "it")
    numbers = classes.numbers(labels)
    targets = classes.targets(numbers)
    assert targets.shape == ((len(labels),) if classes.outputs == 1 else (len(labels), classes.outputs))
    assert np.array_equal(classes.decide(targets), numbers)
    assert classes.label(numbers).tolist() == labels
    assert classes.numbers(["never seen"]).tolist() == [-1]


def test_a_column_of_measurements_holds_no_classes():
    with pytest.raises(DataError, match="20 different values for 20 points"):
        Classes.of(np.linspace(0, 1, 20), "it")
    assert Classes.of(["a", "b"], "it").outputs == 1  # two points are few, but two classes are labels


def test_a_class_without_a_training_point_is_refused():
    with pytest.raises(DataError, match="class 'b' has no training point"):
        Classes(("a", "b", "c")).check_training(np.array([0, 2, 2]))


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", 3]])
def test_names_that_are_no_classes(names):
    with pytest.raises(ValueError, match="two or more different"):
        names_from(names)


# ---- data -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [True, False])
def test_a_csv_file_with_words_is_read_with_and_without_labels(tmp_path, header):
    labels = flowers(tmp_path / "f.csv", header=header)
    dataset = load(str(tmp_path / "f.csv"), "kind" if header else "2", classify=True)
    assert dataset.classes.names == tuple(sorted(NAMES)) and dataset.X.shape == (36, 3)
    assert dataset.classes.label(dataset.labels).tolist() == labels
    assert dataset.feature_names == (("a", "b", "c") if header else ("column 0", "column 1", "column 3"))
    if header:
        X, y = load_for_prediction(str(tmp_path / "f.csv"), dataset.feature_names, "kind", dataset.classes)
        assert np.array_equal(X, dataset.X) and np.array_equal(y, dataset.labels)
    np.savetxt(tmp_path / "plain.csv", dataset.X, delimiter=",")
    X, y = load_for_prediction(str(tmp_path / "plain.csv"), dataset.feature_names, "kind", dataset.classes)
    assert np.array_equal(X, dataset.X) and y is None


def test_labels_in_npz_and_npy_files(tmp_path):
    X, words = np.random.default_rng(0).standard_normal((9, 2)), np.array(["u", "v", "w"] * 3)
    np.savez(tmp_path / "a.npz", X=X, y=words, z=words[:4])
    dataset = load(str(tmp_path / "a.npz"), classify=True)
    assert dataset.classes.names == ("u", "v", "w") and dataset.outputs == 3
    found = load_for_prediction(str(tmp_path / "a.npz"), dataset.feature_names, "y", dataset.classes)[1]
    assert np.array_equal(found, dataset.labels)
    with pytest.raises(DataError, match="one label for each of 9 points"):
        load(str(tmp_path / "a.npz"), "z", classify=True)
    np.save(tmp_path / "a.npy", np.column_stack([X, np.arange(9) % 2]))
    dataset = load(str(tmp_path / "a.npy"), classify=True)
    assert dataset.classes.names == ("0", "1") and set(dataset.y) == {-1.0, 1.0}


def test_several_target_columns_keep_their_order(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 4))
    np.savetxt(tmp_path / "t.csv", values, delimiter=",", header="p,q,r,s", comments="")
    dataset = load(str(tmp_path / "t.csv"), "s, q")
    assert dataset.target_names == ("s", "q") and dataset.feature_names == ("p", "r")
    np.testing.assert_array_equal(dataset.y, values[:, [3, 1]])
    X, y = load_for_prediction(str(tmp_path / "t.csv"), ("p", "r"), ("s", "q"))
    np.testing.assert_array_equal(X, values[:, [0, 2]])
    np.testing.assert_array_equal(y, values[:, [3, 1]])
    np.savetxt(tmp_path / "one.csv", values[:, :3], delimiter=",", header="p,r,s", comments="")
    X, y = load_for_prediction(str(tmp_path / "one.csv"), ("p", "r"), ("s", "q"))
    assert X.shape == (6, 2) and y is None  # one target of two is none
    with pytest.raises(DataError, match="names a column twice"):
        load(str(tmp_path / "t.csv"), "s,3")
    with pytest.raises(DataError, match="no column 'x'"):
        load(str(tmp_path / "t.csv"), "s,x")
    np.savez(tmp_path / "t.npz", X=values[:, :2], y=values[:, 2:])
    dataset = load(str(tmp_path / "t.npz"))
    assert dataset.outputs == 2 and dataset.target_names == ("y 0", "y 1")
    X, y = load_for_prediction(str(tmp_path / "t.npz"), dataset.feature_names, dataset.target_names)
    np.testing.assert_array_equal(y, values[:, 2:])


# ---- the program ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [NAMES, NAMES[:2]])
def test_train_and_predict_classes_end_to_end(tmp_path, monkeypatch, capsys, classes):
    monkeypatch.chdir(tmp_path)
    labels = flowers(Path("f.csv"), classes)
    files = ["--out", "m.safetensors", "--history", "h.json", "--report", "r.html"]
    assert main(["train", "f.csv", "--target", "kind", "--classify", *SMALL, *files]) == 0
    out = capsys.readouterr().out
    assert f"{len(classes)} classes of 'kind'" in out and "accuracy" in out
    assert max(map(len, out.splitlines())) <= 100
    history = json.loads(Path("h.json").read_text())
    assert history["settings"]["outputs"] == (1 if len(classes) == 2 else 3)
    assert history["result"]["held_out"]["accuracy"] == 1.0
    assert "accuracy" in Path("r.html").read_text() and "100.00%" in Path("r.html").read_text()
    assert main(["predict", "m.safetensors", "f.csv", "--out", "p.csv", "--device", "reference"]) == 0
    assert "36 points predicted; accuracy 100.00%" in capsys.readouterr().out
    with Path("p.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["prediction"], *([label] for label in labels)]
    model = FittedModel.load("m.safetensors", "reference")
    assert model.classes.names == tuple(sorted(classes))
    assert model.classify(load("f.csv", "kind", classify=True).X).tolist() == labels


def test_train_and_predict_several_targets_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).standard_normal((30, 3))
    table = np.column_stack([X, 40 + X[:, 0], 1e3 * X[:, 1]])
    np.savetxt("t.csv", table, delimiter=",", header='a,b,c,"rent, cold",price', comments="")
    arguments = ["train", "t.csv", "--target=-1,-2", *SMALL, "--out", "m.safetensors", "--test-fraction", "0"]
    assert main(arguments) == 0
    assert "2 targets 'price, rent, cold'" in capsys.readouterr().out
    assert main(["predict", "m.safetensors", "t.csv", "--device", "reference"]) == 0
    captured = capsys.readouterr()
    rows = list(csv.reader(captured.out.splitlines()))
    assert rows[0] == ["price", "rent, cold"] and len(rows) == 31
    model = FittedModel.load("m.safetensors", "reference")
    assert np.array_equal(np.array(rows[1:], float), model.predict(X))
    assert "R^2 0.9" in captured.err
    with pytest.raises(OptionError, match="predicts numbers, not classes"):
        model.classify(X)


def test_what_is_refused_is_told_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flowers(Path("f.csv"))
    train = ["train", "f.csv", *SMALL]
    assert "(labels to predict: --classify)" in refusal(capsys, [*train, "--target", "kind"])
    assert "takes one column of labels" in refusal(capsys, [*train, "--target", "kind,a", "--classify"])
    assert "40 different values for 40 points" in refusal(capsys, ["train", "sphere:n=40,d=6", "--classify", *SMALL])
    classify = [*train, "--target", "kind", "--classify"]
    assert "jacobian='csr' has one output" in refusal(capsys, [*classify, "--jacobian", "csr"])
    Path("e.csv").write_text("a,kind\n1,x\n2,\n3,x\n")
    assert "the one class 'x'" in refusal(capsys, ["train", "e.csv", "--classify", *SMALL])


@pytest.mark.parametrize("change", [{"classes": ["a", "b"]}, {"classes": ["a"]}, {"target_names": ["t", "u"]}])
def test_model_files_whose_classes_do_not_fit_are_damaged(tmp_path, change):
    flowers(tmp_path / "f.csv")
    path = tmp_path / "m.safetensors"
    assert main(["train", str(tmp_path / "f.csv"), "--target", "kind", "--classify", *SMALL, "--out", str(path)]) == 0
    change_header(path, lambda header: header["metadata"].update(change))
    with pytest.raises(ModelFileError, match="damaged"):
        FittedModel.load(path, "reference")
