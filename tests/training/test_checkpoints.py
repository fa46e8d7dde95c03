"""Checkpoints: a run that was stopped anywhere and resumed ends with the bytes of one that was not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpu_sublinear.errors import CheckpointError, OptionError
from gpu_sublinear.files.atomic import OutputFileError
from gpu_sublinear.model.activation import Activation
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import SketchOptions
from gpu_sublinear.step.history import StepRecord
from gpu_sublinear.training.checkpoints.file import CHECKPOINT, Checkpoint, Checkpointing
from gpu_sublinear.training.gauss_newton import GaussNewton
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.kill import campaign
from tests.helpers.problems import sphere
from tests.helpers.resumption import CASES, StopAfter, fit, interrupted, network_for, trajectory, uninterrupted, weights


@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_and_resumed_the_bytes_are_the_same(tmp_path, case):
    *expected, seen = uninterrupted(case, tmp_path / "whole")
    assert seen >= CASES[case][3]
    network, result = fit(case)
    assert [weights(network), trajectory(result)] == expected  # checkpoints change nothing
    steps = len(result.history) - 1
    assert steps > 3
    assert [*interrupted(case, tmp_path / "every step", [1] * steps)] == expected
    assert [*interrupted(case, tmp_path / "in the middle", [steps // 2])] == expected
    assert len(list(tmp_path.iterdir())) == 3  # no temporary file is left


def test_a_run_that_sets_out_again_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_sublinear.training.stops.STALL", 0.9)  # damped steps count as stalled after a dozen
    monkeypatch.setitem(CASES, "far", (CASES["watchdog"][0], {"mask": "lists", "max_steps": 40}, {}, set()))
    path = tmp_path / "whole"
    *expected, _ = uninterrupted("far", path)
    steps, saved = len(expected[1]) - 2, Checkpoint.load(path)
    assert saved.control["until"] > 12 and not saved.control["may_set_out"]
    assert any(record.damping for record in saved.history) and not saved.history[-1].damping
    for middle in (steps // 2, steps - 3):
        assert [*interrupted("far", tmp_path / str(middle), [middle])] == expected


ELSEWHERE = [name for name in DEVICES if name != "cpu"]
KINDS = ["watchdog", "ridge", "leaky", "softshrink", "both layers", "batches, watchdog"]
SLOW = KINDS[4:]  # hundreds of emulated products: a quarter of a minute each


@pytest.mark.parametrize(
    ("device", "case"),
    [(d, case) for d in ELSEWHERE for case in KINDS if d != "emulated" or case not in SLOW],
)
def test_other_devices(tmp_path, device, case):
    *expected, _ = uninterrupted(case, tmp_path / "whole", device)
    assert [*interrupted(case, tmp_path / "parts", [3, 1], device)] == expected


@pytest.mark.parametrize(
    ("device", "case"),
    [(d, case) for d in ELSEWHERE for case in ("flips, watchdog", "flips, ridge")]
    + [("reference", "flips, back to the start")],  # what the other two run on the emulator is this case's, too
)
def test_flips_on_other_devices(tmp_path, device, case):
    if not make_device(device).follows_flips:
        pytest.skip(f"device {device} has no operations on implicit rows")
    test_other_devices(tmp_path, device, case)


def test_a_checkpoint_every_few_steps_and_one_at_the_end(tmp_path):
    path, written = tmp_path / "c", []
    *expected, _ = uninterrupted("lists", tmp_path / "whole")
    steps = len(expected[1]) - 2

    def look(record: StepRecord, network: ShiftedReluNetwork) -> None:
        written.append(len(Checkpoint.load(path).history) if path.exists() else 0)

    network, result = fit("lists", callbacks=[look], checkpoint=Checkpointing(path, every=3))
    assert written == [(step // 3) * 3 if step < steps else steps for step in range(steps + 1)]
    assert len(Checkpoint.load(path).history) == steps
    assert result.checkpoint_seconds > 0 and result.resumed_seconds == 0
    again, resumed = fit("lists", checkpoint=Checkpointing(path, every=3, resume=True))  # a finished run
    assert weights(again) == weights(network) and trajectory(resumed) == trajectory(result)
    assert resumed.resumed_seconds == pytest.approx(
        result.seconds - result.history[-1].seconds, rel=0.5  # the last write is not known to itself
    )  # fmt: skip
    total = resumed.build_seconds + resumed.checkpoint_seconds + sum(record.seconds for record in resumed.history)
    assert resumed.seconds == pytest.approx(total)
    stopped = interrupted("lists", tmp_path / "stopped", [2, 1], every=100)  # a callback that stops also saves
    assert [*stopped] == expected


def test_limits_may_change(tmp_path):
    path = tmp_path / "c"
    data, trainer, network, _ = CASES["lists"]
    X, y = data()
    whole = network_for(8)
    expected = GaussNewton(**trainer | {"tolerance": 1e-9}).fit(whole, X, y)
    for limits in ({"max_steps": 2}, {"time_budget": 1e-9}, {"tolerance": 0.01}, {"tolerance": 1e-9}):
        part = network_for(8)
        result = GaussNewton(**trainer | limits).fit(part, X, y, checkpoint=Checkpointing(path, resume=True))
    assert len(result.history) == len(expected.history) > 4
    assert weights(part) == weights(whole) and trajectory(result) == trajectory(expected)
    with pytest.raises(OptionError, match="steps already, more than max_steps, which is 1"):
        GaussNewton(**trainer | {"max_steps": 1}).fit(network_for(8), X, y, checkpoint=Checkpointing(path, 1, True))


# ---- files that do not fit ------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path) -> Path:
    """A checkpoint after two steps of the case "watchdog"."""
    fit("watchdog", callbacks=[StopAfter(2)], checkpoint=Checkpointing(tmp_path / "c"))
    return tmp_path / "c"


def refusal(path: Path, error: type[Exception] = CheckpointError, resume: bool = True, **changes) -> str:
    data, trainer, network, _ = CASES["watchdog"]
    X, y = data()
    content = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error) as caught:
        GaussNewton(**trainer | changes.get("trainer", {})).fit(
            network_for(8, **network | changes.get("network", {})),
            X[changes.get("points", slice(None))],
            (y + changes.get("add", 0))[changes.get("points", slice(None))],
            validation=changes.get("validation"),
            checkpoint=Checkpointing(path, resume=resume),
        )
    assert "\n" not in str(caught.value)
    assert not content or path.read_bytes() == content  # it is still there
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"trainer": {"solver": "cg"}}, ["solver was 'auto' and is 'cg' now"]),
        ({"trainer": {"alpha": 0.5, "watchdog": 2}}, ["alpha was 0.0 and is 0.5 now", "watchdog was 3 and is 2 now"]),
        ({"trainer": {"sketch": SketchOptions("neurons", 5.0)}}, ["sketch.rows_per_point was None and is 5.0 now"]),
        ({"network": {"seed": 2}}, ["seed was 1 and is 2 now"]),
        ({"network": {"shift": 1.6}}, ["shift was 1.5 and is 1.6 now"]),
        ({"network": {"width": 2**11}}, ["width was 1024 and is 2048 now"]),
        ({"network": {"dtype": "float32"}}, ["dtype was 'float64' and is 'float32' now"]),
        ({"network": {"activation": Activation(slope=0.5)}}, ["activation.slope was 'not known' and is 0.5 now"]),
        ({"network": {"device": "reference"}}, ["device was 'cpu' and is 'reference' now"]),
        ({"points": slice(1, None)}, ["the targets differ", "the training points differ"]),
        ({"add": 1e-9}, ["the targets differ"]),
        ({"validation": sphere(5, 8)}, ["the validation points differ"]),
    ],
)
def test_other_settings_and_data_are_named(written, changes, parts):
    message = refusal(written, **changes)
    assert "is a checkpoint of another run" in message
    for part in parts:
        assert part in message


def test_a_network_that_was_trained_already_is_another_one(written):
    data, trainer, options, _ = CASES["watchdog"]
    network = network_for(8, **options)
    GaussNewton(**trainer).fit(network, *data())
    with pytest.raises(CheckpointError, match="the initial weights differ"):
        GaussNewton(**trainer).fit(network, *data(), checkpoint=Checkpointing(written, resume=True))


def test_a_checkpoint_is_not_overwritten_by_accident(written):
    assert "there is a checkpoint" in refusal(written, OptionError, resume=False)


def test_missing_folder_and_bad_interval(tmp_path):
    assert "the folder" in refusal(tmp_path / "no" / "c", OutputFileError)
    assert "is a folder" in refusal(tmp_path, OutputFileError)
    with pytest.raises(OptionError, match="every must be at least 1 step; got 0"):
        Checkpointing("c", every=0)


def test_damage_is_found_wherever_it_is(written):
    whole = written.read_bytes()
    rng = np.random.default_rng(0)
    for place in (*rng.integers(len(whole), size=60), len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        written.write_bytes(changed)
        with pytest.raises(CheckpointError):
            Checkpoint.load(written)
    for length in range(0, len(whole), len(whole) // 60):
        written.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            Checkpoint.load(written)
    assert "remove it to start from the beginning" in refusal(written)
    written.write_bytes(whole)
    Checkpoint.load(written)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: replace(c, index="magic"), "speaks of the index magic"),
        (lambda c: replace(c, history=[]), "no history"),
        (lambda c: replace(c, history=c.history[1:]), "another number"),
        (lambda c: replace(c, history=[replace(c.history[0], loss="x")]), "step 0 has no proper loss"),
        (lambda c: replace(c, history=[replace(c.history[0], phases={})]), "no proper phases"),
        (lambda c: replace(c, control={"damping": 1.0}), "'control' has not the numbers"),
        (lambda c: replace(c, watch=c.watch | {"best": None}), "'watch' has not the numbers"),
        (lambda c: replace(c, ridge=-1.0), "penalty"),
        (lambda c: replace(c, identity=None), "settings"),
        (lambda c: replace(c, sampling=3), "sampling"),
        (lambda c: replace(c, arrays={"rows": c.arrays["rows"]}), "no entry 'neurons'"),
        (lambda c: replace(c, arrays=c.arrays | {"rows": c.arrays["neurons"]}), "the weights have shape"),
        (lambda c: replace(c, arrays=c.arrays | {"initial": c.arrays["rows"][1:]}), "do not fit together"),
        (lambda c: replace(c, arrays=c.arrays | {"neurons": c.arrays["neurons"][::-1]}), "not ascending"),
        (lambda c: replace(c, arrays=c.arrays | {"second": c.arrays["rows"][1:, 0]}), "second layer does not fit"),
        (lambda c: replace(c, arrays=c.arrays | {"second": c.arrays["rows"][:, 0]}), "without being trained"),
        (lambda c: replace(c, identity=c.identity | {"both_layers": True}), "trained without being there"),
        (lambda c: replace(c, arrays=c.arrays | {"seen": c.arrays["rows"][:, :2]}), "points seen"),
        (lambda c: replace(c, arrays=c.arrays | {"validation_rest": c.arrays["rows"][None]}), "validation outputs"),
    ],
)
def test_parts_that_no_run_writes_are_refused(written, change, part):
    change(Checkpoint.load(written)).save(written)  # sealed again, so only the parts themselves can tell
    assert part in refusal(written)


def test_other_files_and_versions(written, tmp_path):
    CHECKPOINT.write(written, {}, {})
    assert "is damaged: no entry 'history'" in refusal(written)
    replace(CHECKPOINT, key="gpu_sublinear").write(written, {}, {})
    assert "of another program or purpose; give a checkpoint" in refusal(written)
    replace(CHECKPOINT, version=9).write(written, {}, {})
    assert "has format version 9" in refusal(written)


def test_another_version_of_the_package_is_told(written, caplog):
    replace(Checkpoint.load(written), package_version="0.0.0").save(written)
    fit("watchdog", checkpoint=Checkpointing(written, resume=True))
    assert "was written by version 0.0.0" in caplog.text


def test_no_pickle_and_readable_by_others(written):
    from safetensors.numpy import load_file

    assert load_file(written)["rows"].shape == (len(load_file(written)["neurons"]), 8)
    header = written.read_bytes()[8:]
    assert json.loads(header[: int.from_bytes(written.read_bytes()[:8], "little")])["__metadata__"]["seal"]


def test_a_writer_that_was_killed_leaves_one_file_that_the_next_run_removes(written, monkeypatch):
    left = []

    def remember(temporary, final):
        left.append(temporary)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", remember)
        for _ in range(2):
            with pytest.raises(OutputFileError):
                Checkpoint.load(written).save(written)
    assert left[0] == left[1]
    left[0].write_bytes(b"half a checkpoint")  # what a SIGKILL leaves
    trained, _ = fit("watchdog", checkpoint=Checkpointing(written, every=99, resume=True))
    assert [path.name for path in written.parent.iterdir()] == ["c"]


# ---- killed from outside --------------------------------------------------------------------------------


def test_killed_at_random_moments_by_the_system():
    tally = campaign(6, seed=1, device="reference", span=0.5, runs=("ridge",))
    assert tally.kills == 6
    assert not tally.different
