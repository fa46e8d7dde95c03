"""Data sources, tables with errors that name the place, preprocessing, splits."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_sublinear.data.prediction import load_for_prediction
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling, as_points, as_targets
from gpu_sublinear.data.sources import load, split
from gpu_sublinear.data.text_tables import read_text_table
from gpu_sublinear.errors import DataError, OptionError

EPS = np.finfo(np.float64).eps


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refusal(spec: str, target: str | None = None) -> str:
    """Return the one sentence with which the data is refused."""
    with pytest.raises(DataError) as caught:
        load(spec, target)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- sources without a file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"), [("digits", (1797, 64)), ("diabetes", (442, 10)), ("breast_cancer", (569, 30))]
)
def test_bundled_data_has_its_known_shape(name, shape):
    dataset = load(name)
    assert dataset.X.shape == shape
    assert dataset.y.shape == (shape[0],)
    assert dataset.X.dtype == dataset.y.dtype == np.float64
    assert len(dataset.feature_names) == shape[1]
    assert dataset.preprocessing == "standard"


def test_sphere_has_unit_rows_and_its_formula():
    dataset = load("sphere:n=40,d=5,seed=3")
    u = np.random.default_rng([3, 1]).standard_normal((3, 5))
    X = dataset.X
    assert np.abs(np.linalg.norm(X, axis=1) - 1).max() <= 4 * EPS
    np.testing.assert_array_equal(dataset.y, np.sin(2 * X @ u[0]) + (X @ u[1]) ** 2 - np.abs(X @ u[2]))
    assert dataset.preprocessing == "unit"


def test_a_larger_sphere_extends_the_same_problem():
    small, large = load("sphere:n=20,d=4"), load("sphere:n=50,d=4")
    np.testing.assert_array_equal(small.X, large.X[:20])
    np.testing.assert_allclose(small.y, large.y[:20], rtol=0, atol=64 * EPS)  # BLAS may block differently


def test_sphere_defaults_and_partial_options():
    assert load("sphere").X.shape == (512, 16)
    assert load("sphere:d=3").X.shape == (512, 3)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        ("sphere:n=10,k=3", "'k=3'"),
        ("sphere:n=ten", "'n=ten'"),
        ("sphere:n", "'n'"),
        ("sphere:n=-5", "'n=-5'"),
        ("sphere:n=1", "n must be at least 2"),
        ("sphere:d=0", "d must be at least 1"),
        ("sphere:n=999999999999,d=999999999999", "do not fit into memory"),
        ("digitz", "did you mean 'digits'?"),
        ("what", "give digits, diabetes"),
        ("", "unknown data ''"),
    ],
)
def test_unknown_data_is_refused_with_a_hint(spec, part):
    assert part in refusal(spec)


def test_bundled_data_takes_no_target():
    assert "leave out --target" in refusal("digits", "3")


# ---- CSV ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n1,2,3\n4,5,6\n",
        "a,b,y\r\n1,2,3\r\n4,5,6\r\n",
        "\ufeffa,b,y\n1,2,3\n4,5,6",
        'a,b,y\n"1","2",3\n4,"5.0",6\n',
        "a; b; y\n1; 2; 3\n4; 5; 6\n",
        "a\tb\ty\n1\t2\t3\n4\t5\t6\n",
        "\n\na,b,y\n1,2,3\n\n4,5,6\n\n",
        " a , b , y\n 1 , 2 , 3\n 4 , 5 , 6\n",
    ],
)
def test_csv_dialects(tmp_path, text):
    dataset = load(write(tmp_path, text))
    np.testing.assert_array_equal(dataset.X, [[1, 2], [4, 5]])
    np.testing.assert_array_equal(dataset.y, [3, 6])
    assert dataset.feature_names == ("a", "b")
    assert dataset.target_name == "y"


def test_csv_without_header_and_with_indices_for_names(tmp_path):
    assert load(write(tmp_path, "1,2,3\n4,5,6\n")).X.shape == (2, 2)
    named = load(write(tmp_path, "0,1,target\n1,2,3\n4,5,6\n"))
    assert named.feature_names == ("0", "1")
    assert named.target_name == "target"


@pytest.mark.parametrize(("target", "column"), [("b", 1), ("0", 0), ("-3", 0), ("2", 2), (None, 2)])
def test_target_by_name_or_index(tmp_path, target, column):
    dataset = load(write(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), target)
    np.testing.assert_array_equal(dataset.y, np.array([[1, 2, 3], [4, 5, 6]])[:, column])
    assert dataset.target_name == "abc"[column]
    assert dataset.feature_names == tuple("abc".replace("abc"[column], ""))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        (" \n\n", ["is empty"]),
        ("a,b,y\n", ["a header and no rows"]),
        ("a,b,y\n1,2,3\n", ["has 1 point", "at least 2"]),
        ("1\n2\n3\n", ["a target and no features"]),
        ("a,y\n1,Rome\n2,Oslo\n", ["line 2", "column 'y'", "'Rome' is not a number"]),
        ("a,b,y\n1,2,3\n4,oops,6\n", ["line 3", "column 'b'", "'oops'"]),
        ("1,2,3\n4,x,6\n", ["line 2", "column 'column 1'", "'x'"]),
        ("1,oops,3.5\n4,5,6\n", ["line 1", "'oops'"]),
        ("a,b,y\n1,2,3\n4,5,-inf\n", ["line 3", "column 'y'", "'-inf' is not finite"]),
        ("a,b,y\n1,1e999,3\n4,5,6\n", ["column 'b'", "'inf' is not finite"]),
        ("a,a,y\n1,2,3\n4,5,6\n", ["2 columns are called 'a'"]),
        ("a,b,y\n1,2,\n4,5,NA\n", ["has 0 points"]),
        ("# a\n#b\n", ["has comments and no rows"]),
        ("a,b\0,y\n1,2,3\n", ["byte 3 is zero"]),
        ("a,b,y\n1,2,3\n4,5\n", ["line 3", "2 cells", "the first line has 3"]),
        ("a,b,y\n1,2,3\n4,5,6,7\n", ["line 3", "4 cells"]),
        ("a,b,y\n1,1_000,3\n4,5,6\n", ["'1_000' is not a number"]),
        ("a;b;y\n1.234,5;2;3\n4;5;6\n", ["'1.234,5' is not a number"]),
        ("a,b,y\n$1,2,3\n$4,5,6\n", ["line 2", "'$1' is not a number"]),
        (b"a,b\n\xff\xfe,2\n", ["is not UTF-8 text (byte 4)"]),
        ("a,b,y\n1,2," + "x" * 200 + "\n", ["xxx...", "is not a number"]),
    ],
)
def test_bad_csv_is_refused_with_its_place(tmp_path, text, parts):
    message = refusal(write(tmp_path, text))
    assert "data.csv'" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("target", "part"), [("z", "there is no column 'z'"), ("3", "from 0 to 2"), ("a", "2 columns are called 'a'")]
)
def test_unknown_or_ambiguous_target(tmp_path, target, part):
    assert part in refusal(write(tmp_path, "a,a,y\n1,2,3\n4,5,6\n"), target)


def test_missing_and_unreadable_files(tmp_path):
    assert "there is no file" in refusal(str(tmp_path / "no.csv"))
    (tmp_path / "folder.csv").mkdir()
    assert "cannot read" in refusal(str(tmp_path / "folder.csv"))
    assert "does not end in .csv, .tsv," in refusal(write(tmp_path, "1,2\n", "data.dat"))
    assert "cannot read" in refusal("nul\0.csv")


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.integers(1, 5).flatmap(lambda d: st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1)),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_csv_round_trip(tmp_path_factory, rows, named, newline):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL if named else csv.QUOTE_MINIMAL)
    writer.writerows(
        ([[f"f{k}" for k in range(len(rows[0]))]] if named else []) + [list(map(repr, row)) for row in rows]
    )
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    path.write_text(text.getvalue(), newline="")
    table = read_text_table(path)
    np.testing.assert_array_equal(table.values, np.array(rows))
    assert table.named == named


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text(alphabet='0123456789.,;\t\n\r" abnaifE+-_\ufeff\0', max_size=120).map(str.encode),
    )
)
@pytest.mark.parametrize("name", ["garbage.csv", "garbage.npy", "garbage.npz"])
def test_garbage_is_data_or_a_data_error(tmp_path_factory, name, content):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        dataset = load(str(path))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(dataset.X).all()
        assert dataset.X.ndim == 2


# ---- NumPy files ----------------------------------------------------------------------------------------


def test_npy_and_npz(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "a.npz", X=values[:, :2], y=values[:, 2:], z=np.array([1, 2, 3, 5]))
    for name in ("a.npy", "a.npz"):
        dataset = load(str(tmp_path / name))
        np.testing.assert_array_equal(dataset.X, values[:, :2])
        np.testing.assert_array_equal(dataset.y, values[:, 2])
    np.testing.assert_array_equal(load(str(tmp_path / "a.npz"), "z").y, [1, 2, 3, 5])
    np.testing.assert_array_equal(load(str(tmp_path / "a.npy"), "0").y, values[:, 0])


@pytest.mark.parametrize(
    ("arrays", "part"),
    [
        ({"y": np.ones(3)}, "has no array 'X' (it has: y)"),
        ({"X": np.ones((3, 2))}, "has no array 'y'"),
        ({"X": np.ones((3, 2)), "y": np.ones(4)}, "y has 4 values for 3 points"),
        ({"X": np.ones((3, 2)), "y": np.ones((3, 2, 2))}, "one number per point"),
        ({"X": np.ones(3), "y": np.ones(3)}, "two dimensions"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "is empty"),
        ({"X": np.array([["a"], ["b"]]), "y": np.ones(2)}, "real numbers only"),
        ({"X": np.ones((2, 2)) * 1j, "y": np.ones(2)}, "real numbers only"),
        ({"X": np.array([[1.0, np.nan], [0, 1]]), "y": np.ones(2)}, "nan at row 0, column 1"),
        ({"X": np.ones((2, 1)), "y": np.array([1, np.inf])}, "inf at row 1"),
        ({"X": np.array([[object()], [None]]), "y": np.ones(2)}, "pickled objects, which are never loaded"),
    ],
)
def test_bad_npz(tmp_path, arrays, part):
    np.savez(tmp_path / "bad.npz", **arrays)
    assert part in refusal(str(tmp_path / "bad.npz"))


def test_bad_npy(tmp_path):
    np.save(tmp_path / "flat.npy", np.ones(5))
    assert "shape (5,)" in refusal(str(tmp_path / "flat.npy"))
    np.save(tmp_path / "pickled.npy", np.array([[{}]], dtype=object))
    assert "pickled objects" in refusal(str(tmp_path / "pickled.npy"))
    whole = (np.save(tmp_path / "cut.npy", np.ones((50, 3))), (tmp_path / "cut.npy").read_bytes())[1]
    (tmp_path / "cut.npy").write_bytes(whole[:-100])
    assert "damaged" in refusal(str(tmp_path / "cut.npy"))


def test_every_truncation_of_an_npz_is_refused(tmp_path):
    np.savez(tmp_path / "whole.npz", X=np.ones((3, 2)), y=np.arange(3))
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in range(1, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        assert "damaged" in refusal(str(tmp_path / "cut.npz"))


# ---- for prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected_y"),
    [
        ("1,2\n4,5\n", None),
        ("1,2,3\n4,5,6\n", [3, 6]),
        ("a,b\n1,2\n4,5\n", None),
        ("b,a\n2,1\n5,4\n", None),
        ("y,b,a\n3,2,1\n6,5,4\n", [3, 6]),
        ("y,b,id,a\n3,2,8,1\n6,5,9,4\n", [3, 6]),
    ],
)
def test_prediction_finds_features_and_target(tmp_path, text, expected_y):
    X, y = load_for_prediction(write(tmp_path, text), ("a", "b"), "y")
    np.testing.assert_array_equal(X, [[1, 2], [4, 5]])
    assert (y is None) == (expected_y is None)
    if y is not None:
        np.testing.assert_array_equal(y, expected_y)


def test_prediction_accepts_one_point_and_npz_without_targets(tmp_path):
    X, y = load_for_prediction(write(tmp_path, "1,2\n"), ("a", "b"), "y")
    assert X.shape == (1, 2)
    assert y is None
    np.savez(tmp_path / "new.npz", X=np.ones((3, 2)))
    assert load_for_prediction(str(tmp_path / "new.npz"), ("a", "b"), "y")[1] is None
    assert load_for_prediction("sphere:n=9,d=2", ("a", "b"), "y")[1].shape == (9,)


def test_prediction_refuses_another_number_of_features(tmp_path):
    with pytest.raises(DataError, match=r"csv' has 4 features, but the model was trained on 2"):
        load_for_prediction(write(tmp_path, "1,2,3,4\n"), ("a", "b"), "y")


# ---- preprocessing --------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 6), st.sampled_from([1e-200, 1e-3, 1.0, 1e6, 1e200])
)
def test_standard_preprocessing_gives_unit_rows_at_any_scale(seed, n, d, scale):
    X = np.random.default_rng(seed).standard_normal((n, d)) * scale
    fitted = Preprocessing.fit(X)
    Z = fitted.transform(X)
    assert Z.shape == (n, d + 1)
    assert np.abs(np.linalg.norm(Z, axis=1) - 1).max() <= 8 * EPS
    raw = Z[:, :-1] / Z[:, -1:]  # undo the normalisation: standard features
    cancelled = 1 + np.abs(fitted.mean / fitted.scale).max()  # digits that subtracting the mean costs
    np.testing.assert_allclose(raw.mean(axis=0), 0, atol=64 * n * EPS * cancelled)
    np.testing.assert_allclose(raw.std(axis=0), 1, rtol=64 * n * EPS * cancelled)


def test_constant_features_become_zero_also_on_new_points():
    fitted = Preprocessing.fit([[0.1, 1.0], [0.1, 2.0], [0.1, 4.0]])
    assert fitted.scale[0] == 0
    assert (fitted.transform([[0.1, 1.0], [99.0, 2.0]])[:, 0] == 0).all()


def test_statistics_come_from_training_alone():
    train, new = np.array([[0.0], [2.0]]), np.array([[5.0]])
    Z = Preprocessing.fit(train).transform(new)
    np.testing.assert_allclose(Z, np.array([[4.0, 1.0]]) / np.sqrt(17), rtol=4 * EPS)


def test_smooth_preprocessing_has_a_large_constant_coordinate():
    X = np.random.default_rng(0).normal(3.0, 5.0, (50, 9))
    Z = np.column_stack([(X - X.mean(axis=0)) / X.std(axis=0), np.full(50, 2 * np.sqrt(9.0))])
    want = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    np.testing.assert_allclose(Preprocessing.fit(X, "smooth").transform(X), want, rtol=64 * EPS, atol=8 * EPS)
    assert Preprocessing.fit([[0.1, 1.0], [0.1, 2.0]], "smooth").scale[0] == 0


def test_unit_preprocessing_only_normalises_and_names_a_zero_row():
    fitted = Preprocessing.fit([[3.0, 4.0]], "unit")
    np.testing.assert_allclose(fitted.transform([[3.0, 4.0], [1e-300, 0]]), [[0.6, 0.8], [1, 0]], rtol=4 * EPS)
    with pytest.raises(DataError, match="row 1 of X .* is all zeros"):
        fitted.transform([[1.0, 0.0], [0.0, 0.0]])


def test_preprocessing_refusals():
    fitted = Preprocessing.fit([[1.0, 2.0], [2.0, 3.0]])
    with pytest.raises(DataError, match="X has 3 features, but the model was trained on 2"):
        fitted.transform(np.ones((1, 3)))
    with pytest.raises(DataError, match="overflows"):
        Preprocessing.fit([[1e-300], [2e-300]]).transform([[1e300]])
    with pytest.raises(OptionError, match="'standard', 'smooth' or 'unit'"):
        Preprocessing.fit([[1.0]], "whiten")


@pytest.mark.parametrize(
    ("X", "part"),
    [
        ([1.0, 2.0], "two dimensions"),
        (np.ones((0, 3)), "is empty"),
        (np.ones((3, 0)), "is empty"),
        ([["a"]], "real numbers only"),
        ([[1.0], [2.0, 3.0]], "real numbers only"),
        ([[None]], "holds nan"),
        ([[np.inf]], "inf at row 0, column 0"),
    ],
)
def test_points_are_checked(X, part):
    with pytest.raises(DataError) as caught:
        as_points(X)
    assert part in str(caught.value)


def test_targets_are_checked():
    np.testing.assert_array_equal(as_targets([[1], [2]]), [1.0, 2.0])
    np.testing.assert_array_equal(as_targets(np.array([True, False])), [1.0, 0.0])
    with pytest.raises(DataError, match="constant: all 3 training values are 7"):
        TargetScaling.fit([7, 7, 7])
    with pytest.raises(DataError, match="at least 2 points, but there is 1"):
        TargetScaling.fit([7])
    with pytest.raises(DataError, match="nan at row 1"):
        TargetScaling.fit([7, np.nan])


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30).filter(lambda y: max(y) - min(y) > 1e-3))
def test_target_scaling_round_trip(y):
    scaling = TargetScaling.fit(y)
    z = scaling.transform(y)
    assert abs(z.mean()) <= 8 * len(y) * EPS * (1 + np.abs(y).max() / scaling.std)
    np.testing.assert_allclose(scaling.inverse(z), y, atol=8 * EPS * np.abs(y).max())


# ---- split ----------------------------------------------------------------------------------------------


@given(st.integers(4, 200), st.floats(0, 0.5), st.integers(0, 100))
def test_split_is_a_partition_that_the_seed_decides(n, fraction, seed):
    train, test = split(n, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert len(test) == round(fraction * n)
    np.testing.assert_array_equal(split(n, fraction, seed)[1], test)


def test_split_refusals():
    with pytest.raises(OptionError, match="from 0 to below 1"):
        split(10, 1.0, 0)
    with pytest.raises(DataError, match="holding out 9 of 10 points leaves 1"):
        split(10, 0.9, 0)
