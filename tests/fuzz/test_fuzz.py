"""A short fuzz of all readers of files; the long one is ``python -m tests.fuzz``."""

from __future__ import annotations

import json
import random
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from gpu_sublinear.data import columns
from gpu_sublinear.data.encoder import TableEncoder
from gpu_sublinear.data.prediction import load_for_prediction
from gpu_sublinear.data.sources import load
from gpu_sublinear.errors import DataError, ModelFileError, shown
from gpu_sublinear.fitted.model import HEADER, FittedModel
from gpu_sublinear.training.checkpoints.file import Checkpoint
from tests.fuzz.campaign import campaign
from tests.fuzz.corpus import FEATURES, TARGET, valid_files
from tests.fuzz.mutate import mutate
from tests.helpers.models import change_tensors, make_model

COUNT = 1500  # files for each of two workers, about ten seconds in all


pytestmark = [
    pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
    pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required additional header parsing:UserWarning"),
]


@pytest.mark.parametrize("half", [0, 1])
def test_readers_survive_any_file(half):
    findings = campaign(seed=1, numbers=range(half * COUNT, (half + 1) * COUNT))
    assert not findings.failures, "\n".join(findings.failures.values())
    for suffix in valid_files():  # the mutations neither spare nor ruin every file
        assert findings.outcomes[f"{suffix} accepted"] > 10
        assert findings.outcomes[f"{suffix} refused"] > 50


def test_a_defect_would_be_found(monkeypatch):
    monkeypatch.setattr(columns, "is_number", lambda text: True)  # a reader without care for cells that are no number
    findings = campaign(seed=1, numbers=range(200))
    assert any("ValueError" in place for place in findings.failures)


def test_mutations_are_a_function_of_the_seed():
    corpus = valid_files()
    others = corpus[".csv"]
    first, second = (
        [mutate(corpus[".npz"][0], ".npz", others, random.Random(f"3 {k}")) for k in range(20)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 10


def test_the_corpus_is_valid(tmp_path):
    for suffix, contents in valid_files().items():
        path = tmp_path / f"file{suffix}"
        path.write_bytes(contents[0])
        if suffix == ".safetensors":
            assert FittedModel.load(path, "reference").feature_names == FEATURES
        elif suffix == ".checkpoint":
            assert Checkpoint.load(path).alpha == 0.1
        else:
            assert load_for_prediction(str(path), FEATURES, TARGET)[0].shape == (6, 3)


# ---- what the fuzz found --------------------------------------------------------------------------------


def test_npy_that_promises_more_than_is_there(tmp_path):
    np.save(tmp_path / "bad.npy", np.zeros((10, 4)))
    content = (tmp_path / "bad.npy").read_bytes()
    (tmp_path / "bad.npy").write_bytes(content.replace(b"(10, 4), }      ", b"(10000000, 4), }"))
    with pytest.raises(DataError, match="its header promises 320000000 bytes, and 320 are there"):
        load(str(tmp_path / "bad.npy"))


def test_npz_reads_only_what_it_needs(tmp_path):
    objects = np.array([None], dtype=object)  # a pickle, which would be refused if it were read
    np.savez(tmp_path / "more.npz", X=np.eye(3), y=np.arange(3), other=objects)
    assert load(str(tmp_path / "more.npz")).X.shape == (3, 3)


def test_npz_of_another_compression_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("X.npy", bytes(1000))
    with pytest.raises(DataError, match="it is compressed in a way that numpy.savez never does"):
        load(str(tmp_path / "bad.npz"))


def test_messages_show_foreign_text_in_one_short_line(tmp_path):
    (tmp_path / "bad.csv").write_text('"a\nb\x1b[31m",y\n1,' + "x" * 100_000 + "\n2,3")
    with pytest.raises(DataError, match=r"column 'y': 'x{37}\.\.\.' is not a number"):
        load(str(tmp_path / "bad.csv"))
    (tmp_path / "bad.csv").write_text('"a\nb\x1b[31m",y\n,1\n2,3\n')
    with pytest.raises(DataError, match=r"column 'a b \[31m': the cell is empty"):
        load(str(tmp_path / "bad.csv"), encoder=TableEncoder(missing="refuse"))
    assert shown("x" * 60) == "x" * 60
    assert shown("x" * 61) == "x" * 57 + "..."


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda h: h["network"].update(shift=float("nan")), "the shift is nan"),
        (lambda h: h["network"].update(shift=-1.0), "the shift is -1"),
        (lambda h: h["network"].update(shift=10**400), "damaged"),
        (lambda h: h["network"].update(seed=-1), "the seed is -1"),
        (lambda h: h["network"].update(seed=1.5), "the seed is 1.5"),
        (lambda h: h["target"].update(std=0), "standard deviation 0"),
        (lambda h: h["target"].update(mean=float("inf")), "mean inf"),
        (lambda h: h["metadata"].update(feature_names=["a", "b"]), "one name for each of its 3 features"),
        (lambda h: h["metadata"].update(feature_names=[1, 2, 3]), "one name for each of its 3 features"),
    ],
)
def test_numbers_and_names_that_no_model_has(tmp_path, change, part):
    model = make_model()
    header = model._header()
    header["metadata"] = dict(header["metadata"])
    change(header)
    write(tmp_path / "bad", model, json.dumps(header))
    with pytest.raises(ModelFileError, match=part):
        FittedModel.load(tmp_path / "bad", "reference")


def test_negative_deviations_are_refused(tmp_path):
    model = make_model()
    model.save(tmp_path / "bad")
    change_tensors(tmp_path / "bad", feature_scale=model.preprocessing.scale * [1, -1, 1])
    with pytest.raises(ModelFileError, match="standard deviations of the features are not float64 numbers from 0"):
        FittedModel.load(tmp_path / "bad", "reference")


def test_deeply_nested_header_is_refused(tmp_path):
    write(tmp_path / "bad", make_model(), "[" * 100_000)
    with pytest.raises(ModelFileError, match="the header of .* is damaged"):
        FittedModel.load(tmp_path / "bad", "reference")


def write(path, model, header: str) -> None:
    tensors = {
        "rows": model.network.rows,
        "neurons": model.network.neurons,
        "seen": model.network.seen,
        "feature_mean": model.preprocessing.mean,
        "feature_scale": model.preprocessing.scale,
    }
    save_file(tensors, path, metadata={HEADER: header})
