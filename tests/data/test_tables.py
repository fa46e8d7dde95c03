"""Tables as files have them: dialects, headers of numbers, index columns, and columns matched by name."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpu_sublinear.data.encoder import TableEncoder
from gpu_sublinear.data.prediction import load_for_prediction
from gpu_sublinear.data.sources import load
from gpu_sublinear.data.table_files import read_table
from gpu_sublinear.errors import DataError

WANT = [[1.5, 2.0], [4.0, 5.25]]


def write(folder, text: str, name: str = "data.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


# ---- dialects -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "note"),
    [
        ("a|b|y\n1.5|2|3\n4|5.25|6\n", "d.csv", "separated by bars"),
        ("a b y\n 1.5  2 3\n4 5.25 6 \n", "d.txt", "separated by spaces"),
        ("a\tb\ty\n1.5\t2\t3\n4\t5.25\t6\n", "d.tsv", None),
        ("a;b;y\n1,5;2;3\n4;5,25;6\n", "d.csv", "decimal commas: 1,5 is read as 1.5"),
        ('a\tb\ty\n"1,5"\t2\t3\n4\t"5,25"\t6\n', "d.tsv", "decimal commas"),
        ("# made by hand\na,b,y\n#more\n1.5,2,3\n4,5.25,6\n", "d.csv", "2 lines that begin with # left out"),
        ("a,b,y,\n1.5,2,3,\n4,5.25,6,\n", "d.csv", "the last column is empty"),
        ('"a;b",b,y\n1.5,2,3\n4,5.25,6\n', "d.csv", None),
        ("a;b,b,y\n1.5,2,3\n4,5.25,6\n", "d.csv", None),
        ('"a ""x""\nz",b,y\n1.5,"2",3\n4,5.25,6\n', "d.csv", None),
    ],
)
def test_dialects_are_found_and_told(tmp_path, text, name, note):
    dataset = load(write(tmp_path, text, name))
    np.testing.assert_array_equal(dataset.X, WANT)
    np.testing.assert_array_equal(dataset.y, [3, 6])
    assert (dataset.notes == ()) if note is None else any(note in told for told in dataset.notes)


def test_packed_text(tmp_path):
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"a,b,y\n1.5,2,3\n4,5.25,6\n"))
    np.testing.assert_array_equal(load(str(tmp_path / "d.csv.gz")).X, WANT)
    (tmp_path / "bad.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 99)[:-9])
    with pytest.raises(DataError, match="damaged or not packed by gzip"):
        load(str(tmp_path / "bad.csv.gz"))


def test_booleans_text_and_missing_cells(tmp_path):
    path = write(tmp_path, "on,kind,x,y\nTrue,oak,1,1\nFalse,ash,NA,2\nTrue,,3,3\n")
    dataset = load(path)
    assert dataset.feature_names == ("on", "kind=ash", "kind=oak", "kind missing", "x", "x missing")
    np.testing.assert_array_equal(dataset.X, [[1, 0, 1, 0, 1, 0], [0, 1, 0, 0, 2, 1], [1, 0, 0, 1, 3, 0]])
    dropped = load(path, encoder=TableEncoder(missing="drop", drop=["kind"]))
    np.testing.assert_array_equal(dropped.X, [[1, 1], [1, 3]])
    assert "1 of 3 rows left out: no value in features" in dropped.notes
    with pytest.raises(DataError, match="line 4, column 'kind': the cell is empty"):
        load(path, encoder=TableEncoder(missing="refuse", drop=["x"]))


def test_rows_without_a_target_are_left_out_and_counted(tmp_path):
    dataset = load(write(tmp_path, "x,y\n1,2\n2,\n3,NA\n4,5\n"))
    np.testing.assert_array_equal(dataset.X, [[1], [4]])
    assert dataset.notes == ("2 of 4 rows left out: no value in target 'y'",)
    classes = load(write(tmp_path, "x,y\n1,a\n2,\n3,b\n4,a\n"), classify=True)
    assert classes.labels.tolist() == [0, 1, 0]


def test_columns_are_treated_as_the_training_rows_have_them(tmp_path):
    dataset = load(write(tmp_path, "x,k,y\n1,a,1\n,b,2\n9,a,3\n3,a,4\n"))
    trained = dataset.encoded(np.array([0, 3]))
    np.testing.assert_array_equal(trained.X, [[1, 1], [2, 0], [9, 1], [3, 1]])
    assert trained.feature_names == ("x", "k=a") and dataset.X.shape == (4, 4)


@pytest.mark.parametrize(
    ("suffix", "engine"), [(".parquet", "pyarrow"), (".feather", "pyarrow"), (".xlsx", "openpyxl")]
)
def test_other_files_name_what_they_need(tmp_path, monkeypatch, suffix, engine):
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(DataError, match=f"pip install {engine}"):
        load(write(tmp_path, "PK", f"d{suffix}"))


def test_lines_are_counted_in_messages_whatever_is_above(tmp_path):
    path = write(tmp_path, '# note\n\na,b,y\n1,"2\n3",3\n\n4,inf,6\n4,5,inf\n')
    with pytest.raises(DataError, match=r"line 8, column 'y': 'inf' is not finite"):
        load(path, encoder=TableEncoder(drop=["b"]))
    with pytest.raises(DataError, match="line 4: 4 cells, but the first line has 3"):
        load(write(tmp_path, '"a",b,y\n1,2,3\n\n1,2,3,4\n'))
    with pytest.raises(DataError, match="line 3: 2 cells"):  # one line too short, one too long
        load(write(tmp_path, "a,b,y\n1,2,3\n1,2\n1,2,3,4\n"))


def test_a_long_column_has_one_type(tmp_path):
    rows = [f"1.10,{k},{k % 7}" for k in range(150_000)]
    path = write(tmp_path, "\n".join(["v,x,y", *rows, "word,5,6"]))
    table = read_table(Path(path))
    assert table.frame[0].iloc[0] == "1.10" and table.frame[1].dtype.kind == "i"
    with pytest.raises(DataError, match="line 150002, column 'v': 'word' is not a number"):
        load(path)


# ---- headers and index columns --------------------------------------------------------------------------


def test_a_header_of_numbers_is_recognised_and_told(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 3))
    pd.DataFrame(values).to_csv(tmp_path / "d.csv", index=False)
    dataset = load(str(tmp_path / "d.csv"))
    np.testing.assert_array_equal(dataset.X, values[:, :2])
    assert dataset.feature_names == ("0", "1") and dataset.target_name == "2"
    assert "the numbers 0 to 2, has the names" in dataset.notes[0]
    assert load(str(tmp_path / "d.csv"), header="no").X.shape == (7, 2)
    pd.DataFrame(values).to_csv(tmp_path / "i.csv")
    np.testing.assert_array_equal(load(str(tmp_path / "i.csv")).X, values[:, :2])
    frame = pd.DataFrame(values[:, 1:], columns=[0, 1])
    frame.insert(0, "label", ["u", "v", "u", "v", "u", "v"])
    frame.to_csv(tmp_path / "l.csv", index=False)
    assert load(str(tmp_path / "l.csv"), "label", classify=True).X.shape == (6, 2)


@pytest.mark.parametrize(
    "text",
    [
        "2019,2020,2021\n1,2,3\n4,5,6\n",
        ",2019,2020\n1,2,3\n4,5,6\n",
        "0,1\n0,1\n1,0\n",
        "name,2019,2020\n1,2,3\n4,5,6\n",
    ],
)
def test_what_nobody_can_tell_is_asked(tmp_path, text):
    with pytest.raises(DataError, match="names or data\\? give --header yes or --header no"):
        load(write(tmp_path, text))
    assert load(write(tmp_path, text), header="yes").X.shape[0] == 2


def test_words_that_occur_again_are_data(tmp_path):
    dataset = load(write(tmp_path, "a,p\nb,q\na,p\nb,p\n"), classify=True)
    assert len(dataset.y) == 4 and "its words occur again below" in dataset.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        ",a,b,y\n0,1.5,2,3\n1,4,5.25,6\n",
        ",a,b,y\n7,1.5,2,3\n3,4,5.25,6\n",
        "Unnamed: 0,a,b,y\n0,1.5,2,3\n1,4,5.25,6\n",
        '"a","b","y"\n"1",1.5,2,3\n"2",4,5.25,6\n',
        '"a" "b" "y"\n"Mazda RX4" 1.5 2 3\n"Fiat" 4 5.25 6\n',
        '"","a","b","y"\n"1",1.5,2,3\n"2",4,5.25,6\n',
    ],
)
def test_an_index_column_is_left_out_and_told(tmp_path, text):
    dataset = load(write(tmp_path, text))
    np.testing.assert_array_equal(dataset.X, WANT)
    assert dataset.feature_names == ("a", "b")
    assert any("tells rows apart and is left out" in note for note in dataset.notes)


def test_a_first_column_that_tells_no_rows_apart_stays(tmp_path):
    assert load(write(tmp_path, ",a,y\n1,2,3\n1,3,4\n")).feature_names == ("column 0", "a")


# ---- names of columns and classes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a,b,y\n1,2,3\n", "has no column 'c', which the model was trained on; it has 'a', 'b', 'y'"),
        ("C,B,A\n1,2,3\n", "has no column 'a', 'b', 'c'"),
        ("id,a,b,C\n1,2,3,4\n", "has no column 'c'"),
        ("a,a,b,c\n1,2,3,4\n", "2 columns are called 'a'"),
    ],
)
def test_columns_that_do_not_match_are_refused(tmp_path, text, part):
    with pytest.raises(DataError, match=part):
        load_for_prediction(write(tmp_path, text), ("a", "b", "c"), "y")


def test_only_columns_that_are_needed_are_looked_at(tmp_path):
    text = "note,b,y,a,note\nx,2,,1,y\nz,5,,4,\n"
    X, y = load_for_prediction(write(tmp_path, text), ("a", "b"), "y")
    np.testing.assert_array_equal(X, [[1, 2], [4, 5]])
    assert y is None
    y = load_for_prediction(write(tmp_path, "a,b,y\n1,2,\n4,5,6\n"), ("a", "b"), "y")[1]
    np.testing.assert_array_equal(y, [np.nan, 6])


def test_labels_are_read_as_they_are_written(tmp_path):
    path = write(tmp_path, "x,v\n" + "".join(f"{k},{label}\n" for k, label in enumerate(["1.1", "1.10", "007"] * 3)))
    dataset = load(path, "v", classify=True)
    assert set(dataset.classes.names) == {"1.1", "1.10", "007"}
    assert load_for_prediction(path, ("x",), "v", dataset.classes)[1].tolist() == dataset.labels.tolist()
    plain = load(write(tmp_path, "x,v\n1,0.0\n2,1.0\n3,0.0\n"), classify=True)
    assert plain.classes.names == ("0", "1")
