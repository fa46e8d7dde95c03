"""Model files and atomic writing: whole or not at all, and never code."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.errors import DataError, ModelFileError, OptionError
from gpu_sublinear.files.atomic import OutputFileError, check_writable, write_text
from gpu_sublinear.fitted.model import HEADER, FittedModel
from tests.helpers.models import X, Y, make_model


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        FittedModel.load(path, "reference")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- round trips ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["standard", "smooth", "unit"])
def test_round_trip_gives_the_same_predictions(tmp_path, dtype, kind):
    model = make_model(dtype, kind)
    model.save(tmp_path / "m.safetensors")
    loaded = FittedModel.load(tmp_path / "m.safetensors", "reference")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.predict(X).shape == (20,)
    assert loaded.network.dtype == dtype
    assert loaded.network.shift == model.network.shift
    assert loaded.feature_names == ("a", "b", "c")
    assert loaded.target_name == "t"
    assert leftovers(tmp_path) == ["m.safetensors"]


def test_same_model_same_bytes_and_readable_by_safetensors(tmp_path):
    model = make_model()
    for name in ("a", "b"):
        model.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    np.testing.assert_array_equal(load_file(tmp_path / "a")["rows"], model.network.rows)


def test_arrays_start_at_a_multiple_of_eight_bytes(tmp_path):
    make_model().save(tmp_path / "m")
    assert int.from_bytes((tmp_path / "m").read_bytes()[:8], "little") % 8 == 0


def test_predict_refuses_another_number_of_features():
    with pytest.raises(DataError, match="X has 2 features, but the model was trained on 3"):
        make_model().predict(X[:, :2])


def test_names_have_defaults():
    model = FittedModel(make_model().network, Preprocessing.fit(X), TargetScaling.fit(Y))
    assert model.feature_names == ("feature 0", "feature 1", "feature 2")
    assert model.target_name == "y"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"classes": [0, 1]}, "classes are not two or more different names"),
        ({"classes": ["a", "a"]}, "classes are not two or more different names"),
        ({"classes": ["a", "b", "c"]}, "3 classes and 1 outputs"),
        ({"feature_names": ["a"]}, "not one name for each of its 3 features"),
        ({"feature_names": [1, 2, 3]}, "not one name for each of its 3 features"),
        ({"target_names": ["s", "t"]}, "2 targets and 1 outputs"),
        ({"seeds": np.arange(3)}, "not JSON serializable"),
        ({"classes": 5}, "classes and names are given as text"),
    ],
    ids=str,
)
def test_what_could_not_be_loaded_is_not_written(tmp_path, metadata, words):
    model = replace(make_model(), metadata=metadata)
    with pytest.raises(OptionError, match=words):
        model.save(tmp_path / "m")
    assert not leftovers(tmp_path)


def test_weights_that_are_no_numbers_are_not_written(tmp_path):
    model = make_model()
    model.network.rows[0, 0] = np.nan
    with pytest.raises(OptionError, match="the weights are not finite"):
        model.save(tmp_path / "m")
    scaled = replace(make_model(), targets=TargetScaling(0.0, 0.0))
    with pytest.raises(OptionError, match="the standard deviation 0"):
        scaled.save(tmp_path / "m")


# ---- files that are not models --------------------------------------------------------------------------


def test_missing_empty_foreign_and_folder(tmp_path):
    assert "there is no model file" in refusal(tmp_path / "none")
    (tmp_path / "empty").touch()
    assert "not a readable model file" in refusal(tmp_path / "empty")
    (tmp_path / "text").write_text("a,b\n1,2\n" * 100)
    assert "not a readable model file" in refusal(tmp_path / "text")
    save_file({"W": np.ones((2, 2))}, tmp_path / "foreign")
    assert "of another program" in refusal(tmp_path / "foreign")
    assert "not a readable model file" in refusal(tmp_path)


def test_every_truncation_is_refused(tmp_path):
    make_model().save(tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    for length in range(0, len(whole), 61):
        (tmp_path / "cut").write_bytes(whole[:length])
        refusal(tmp_path / "cut")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda h, t: h.update(format_version=99), "format version 99"),
        (lambda h, t: h.pop("format_version"), "header"),
        (lambda h, t: h.pop("network"), "no entry 'network'"),
        (lambda h, t: h.update(preprocessing="magic"), "unknown preprocessing"),
        (lambda h, t: h.update(target={"mean": "x", "std": 1}), "damaged"),
        (lambda h, t: h.update(metadata=3), "damaged"),
        (lambda h, t: t.pop("rows"), "no entry 'rows'"),
        (lambda h, t: t.update(rows=t["rows"][:, :2]), "shape (64, 2)"),
        (lambda h, t: t.update(rows=t["rows"].ravel()), "shape"),
        (lambda h, t: t.update(rows=t["rows"].astype(np.int32)), "type int32"),
        (lambda h, t: t.update(rows=t["rows"] * np.nan), "not finite"),
        (lambda h, t: t.update(feature_scale=t["feature_scale"][:2]), "do not fit"),
        (lambda h, t: t.update(feature_mean=np.float64(1)), "damaged"),
    ],
)
def test_altered_models_are_refused(tmp_path, change, part):
    make_model().save(tmp_path / "m")
    tensors = {key: value.copy() for key, value in load_file(tmp_path / "m").items()}
    header = make_model()._header()
    change(header, tensors)
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    save_file(tensors, tmp_path / "bad", metadata={HEADER: json.dumps(header)})
    assert part in refusal(tmp_path / "bad")


@pytest.mark.parametrize("header", ["", "[]", "null", "{", "3"])
def test_damaged_headers_are_refused(tmp_path, header):
    save_file({"W": np.ones((2, 2))}, tmp_path / "bad", metadata={HEADER: header})
    assert "header" in refusal(tmp_path / "bad")


# ---- atomic writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("number", "part"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EIO, "Input/output error")],
)
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, failing, number, part):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, failing, fail)
    for write in (lambda: write_text(path, "new"), lambda: make_model().save(path)):
        with pytest.raises(OutputFileError) as caught:
            write()
        assert part in str(caught.value)
        assert "Errno" not in str(caught.value)
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_one_sentence():
    for write in (lambda: write_text("/dev/full", "text"), lambda: make_model().save("/dev/full")):
        with pytest.raises(OutputFileError, match="cannot write '/dev/full': the disk is full"):
            write()
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)  # not replaced by a file


def test_devices_are_written_and_never_replaced():
    write_text(os.devnull, "text")
    make_model().save(os.devnull)
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)


def test_an_interrupt_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "file", "new")
    assert leftovers(tmp_path) == []


def test_new_files_have_ordinary_permissions_and_links_are_followed(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "text")
    make_model().save(tmp_path / "model")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "text"
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "target", "model")}
    assert len(modes) == 1


def test_text_is_written_as_given(tmp_path):
    write_text(tmp_path / "file", "é\r\nx\n")
    assert (tmp_path / "file").read_bytes() == "é\r\nx\n".encode()


def test_paths_are_checked_before_work(tmp_path):
    assert check_writable(tmp_path / "new", "--out") == tmp_path / "new"
    assert leftovers(tmp_path) == []
    with pytest.raises(OutputFileError, match="--out: the folder '.*nowhere' does not exist; create it"):
        check_writable(tmp_path / "nowhere" / "file", "--out")
    with pytest.raises(OutputFileError, match="--out: '.*' is a folder"):
        check_writable(tmp_path, "--out")
    with pytest.raises(OutputFileError, match="cannot write"):
        check_writable("nul\0", "--out")
    with pytest.raises(OutputFileError, match="the name is too long"):
        check_writable(tmp_path / ("x" * 300), "--out")


def test_folders_that_refuse_are_found_before_work(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputFileError, match="permission denied; choose a folder you may write to"):
        check_writable(tmp_path / "file", "--out")


def test_write_protected_files_are_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everything
    with pytest.raises(OutputFileError, match="is write-protected"):
        check_writable(tmp_path / "file", "--out")
