"""Tables as people have them: what becomes of text, missing cells, booleans and dates, in training and afterwards."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from gpu_sublinear.data.encoder import TableEncoder
from gpu_sublinear.errors import DataError, OptionError

TABLE = pd.DataFrame({
    "kind": ["oak", "ash", None, "oak"],
    "height": [1.0, np.nan, 3.0, 5.0],
    "old": [True, False, True, True],
    "size": ["S", "L", "S", "M"],
    "id": [7, 8, 9, 10],
})


def fitted(**options) -> TableEncoder:
    return TableEncoder(ordinal={"size": ["S", "M", "L"]}, drop=["id"], **options).fit(TABLE)


def test_every_kind_of_column_becomes_its_numbers():
    encoder = fitted()
    assert encoder.get_feature_names_out().tolist() == [
        "kind=ash", "kind=oak", "kind missing", "height", "height missing", "old", "size",
    ]  # fmt: skip
    want = [[0, 1, 0, 1, 0, 1, 0], [1, 0, 0, 3, 1, 0, 2], [0, 0, 1, 3, 0, 1, 0], [0, 1, 0, 5, 0, 1, 1]]
    np.testing.assert_array_equal(encoder.transform(TABLE), want)
    report = "\n".join(encoder.report())
    for part in (
        "text, 2 levels, 1 missing",
        "1 missing (median 3 and an indicator)",
        "boolean",
        "ordinal, S < M < L",
        "left out",
    ):
        assert part in report


def test_columns_are_matched_by_name_and_what_is_new_is_counted():
    encoder = fitted()
    new = pd.DataFrame({"size": ["M", "XL"], "more": ["?", "!"], "old": [False, None], "kind": ["elm", "ash"],
                        "height": [None, 2.0]})  # fmt: skip
    found = encoder.encode(new)
    np.testing.assert_array_equal(found.values, [[0, 0, 0, 3, 1, 0, 1], [1, 0, 0, 2, 0, 1, 0.5]])
    assert found.unknown == {"kind": 1, "size": 1} and found.missing == {"height": 1, "old": 1}
    assert any("2 cells not known from training (kind 1, size 1)" in note for note in found.notes)
    with pytest.raises(DataError, match="no column 'height', 'old'.*found 'size', 'more', 'kind'"):
        encoder.transform(new.drop(columns=["height", "old"]))


def test_rare_levels_are_together_and_names_are_left_out():
    words = [*"aaabbbccd", *"efghijklm"]
    encoder = TableEncoder(max_levels=2).fit(pd.DataFrame({"w": [*"aaabbbccde"], "x": range(10)}))
    assert encoder.get_feature_names_out().tolist() == ["w=a", "w=b", "w=other", "x"]
    np.testing.assert_array_equal(encoder.transform(pd.DataFrame({"w": ["c", "new"], "x": [0, 0]}))[:, 2], [1, 1])
    names = TableEncoder(max_levels=2).fit(pd.DataFrame({"w": words, "x": range(18)}))
    assert names.get_feature_names_out().tolist() == ["x"] and "13 different of 18" in names.report()[0]


def test_numbers_that_are_names_of_levels():
    encoder = TableEncoder(categories=["zip"]).fit(pd.DataFrame({"zip": [10, 20, 10], "x": [1, 2, 3]}))
    assert encoder.get_feature_names_out().tolist() == ["zip=10", "zip=20", "x"]


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["1970-01-02", "1970-01-03"], [1, 2]),
        (["31/01/1970", "01/02/1970"], [30, 31]),
        (["1/31/1970", "2/1/1970"], [30, 31]),
        (["31.01.1970", "01.02.1970"], [30, 31]),
        (["1970-01-01 12:00:00", "1970-01-02 00:00:00"], [0.5, 1]),
        (pd.to_datetime(["1970-01-02", "1970-01-03"]), [1, 2]),
    ],
)
def test_dates_are_named_and_refused_or_days(dates, days):
    table = pd.DataFrame({"when": dates})
    with pytest.raises(DataError, match="'when' has dates .*--dates ordinal.*--drop 'when'"):
        TableEncoder().fit(table)
    encoder = TableEncoder(dates="ordinal").fit(table)
    np.testing.assert_array_equal(encoder.transform(table)[:, 0], days)


def test_dates_of_which_nobody_knows_the_order_are_refused():
    with pytest.raises(DataError, match="nobody can tell day and month apart"):
        TableEncoder(dates="ordinal").fit(pd.DataFrame({"when": ["01/02/2020", "03/04/2020"]}))


@pytest.mark.parametrize(
    ("cells", "part"),
    [
        ([1.0, np.inf], "row 1 .*'inf' is not finite"),
        (["1", "2", "many"], "row 2 .*'many' is not a number, and most cells"),
        (["1,000", "2,000"], "row 0 .*'1,000' is not a number"),
        (["5 %", "6 %"], "'5 %' is not a number"),
    ],
)
def test_cells_that_fit_to_nothing_are_named(cells, part):
    with pytest.raises(DataError, match=part):
        TableEncoder().fit(pd.DataFrame({"a": cells}))


def test_what_is_refused():
    with pytest.raises(DataError, match="row 1 .*'height': the cell is empty"):
        TableEncoder(missing="refuse").fit(TABLE[["height"]])
    with pytest.raises(DataError, match="2 columns are called 'a'"):
        TableEncoder().fit(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(DataError, match="drop: there is no column 'z'"):
        TableEncoder(drop=["z"]).fit(TABLE)
    with pytest.raises(DataError, match="no column is left"):
        TableEncoder(drop=["height"]).fit(TABLE[["height"]])
    with pytest.raises(DataError, match="'L' is not among the levels"):
        TableEncoder(ordinal={"size": ["S", "M"]}).fit(TABLE)
    for options in ({"max_levels": 0}, {"missing": "mean"}, {"dates": "yes"}, {"ordinal": {"size": ["S"]}}):
        with pytest.raises(OptionError):
            TableEncoder(**options).fit(TABLE)
    with pytest.raises(OptionError, match="call fit first"):
        TableEncoder().transform(TABLE)


def test_too_many_numbers_are_refused_before_they_are_made():
    table = pd.DataFrame({"a": ["x"]})
    encoder = TableEncoder.from_dict({
        "max_levels": 20, "missing": "median", "dates": "refuse",
        "columns": [{"name": "a", "kind": "levels", "levels": [str(k) for k in range(30_000)]}],
    })  # fmt: skip
    with pytest.raises(DataError, match="100,000 rows of 30,000 encoded columns take 22 GiB"):
        encoder.transform(table.loc[[0] * 100_000])


cells = st.one_of(st.none(), st.sampled_from(["a", "b", "007", "7", "x y", "é"]))


@given(st.lists(cells, min_size=1, max_size=20), st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=20))
def test_json_keeps_everything(words, numbers):
    table = pd.DataFrame({"w": pd.Series(words, dtype=object), "x": numbers[: len(words)], "one": 1.0})
    try:
        encoder = TableEncoder().fit(table)
    except DataError:
        return
    again = TableEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert again.columns_ == encoder.columns_
    np.testing.assert_array_equal(again.transform(table), encoder.transform(table))
    assert np.isfinite(encoder.transform(table)).all()


@pytest.mark.parametrize(
    "change", [{"kind": "magic"}, {"levels": ["a", "a"]}, {"fill": "x"}, {"rare": -1}, {"form": "%Q"}, {"more": 1}]
)
def test_columns_that_no_encoder_wrote(change):
    content = fitted().to_dict()
    content["columns"][0].update(change)
    with pytest.raises((ValueError, TypeError)):
        TableEncoder.from_dict(content)


def test_habits_of_scikit_learn():
    y = [1.0, 2.0, 3.0, 4.0]
    encoder = TableEncoder(drop=["id"])
    assert clone(encoder).get_params() == encoder.get_params()
    pipeline = make_pipeline(encoder, Ridge()).fit(TABLE, y)
    assert pipeline.predict(TABLE).shape == (4,)
    assert clone(pipeline).set_params(tableencoder__max_levels=1).fit(TABLE, y).predict(TABLE).shape == (4,)
    both = ColumnTransformer([("table", TableEncoder(), ["kind", "height"])], remainder="drop").fit(TABLE)
    assert both.get_feature_names_out()[0] == "table__kind=ash" and both.transform(TABLE).shape == (4, 5)
    assert TableEncoder().fit_transform(np.eye(3)).tolist() == np.eye(3).tolist()
