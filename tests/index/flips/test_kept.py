"""What a checkpoint keeps of flips: parts that no run writes are refused before anything looks into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gpu_sublinear.errors import CheckpointError
from gpu_sublinear.index.flips.kept import BEST, HERE, check_flips
from gpu_sublinear.training.checkpoints.file import Checkpoint, Checkpointing
from tests.helpers.resumption import StopAfter, fit

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Arrays:
    """The arrays of a checkpoint whose best weights are others than the present ones."""
    path = tmp_path_factory.mktemp("flips") / "c"
    found: list[Arrays] = []

    def look(record, network) -> None:
        if path.exists() and not found and BEST + "total" in (kept := Checkpoint.load(path).arrays):
            found.append(kept)

    fit("flips, watchdog", callbacks=[look], checkpoint=Checkpointing(path))
    check_flips(found[0], penalised=False)
    return found[0]


def with_entry(name: str, place: int, value: float) -> Callable[[Arrays], Arrays]:
    """Return what puts a value into an array."""

    def change(arrays: Arrays) -> Arrays:
        changed = arrays[name].copy()
        changed[place] = value
        return arrays | {name: changed}

    return change


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def as_type(name: str, dtype: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: arrays[name].astype(dtype)}


def shorter(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: arrays[name][:-1]}


WRONG = {
    "log of another type": (as_type("flip_points", "int64"), "log of flips do not fit"),
    "log too short": (shorter("flip_above"), "log of flips do not fit"),
    "neuron not there": (with_entry("flip_neurons", -1, 2**8), "speak of neurons or points"),
    "neuron below 0": (with_entry("flip_neurons", 0, -1), "speak of neurons or points"),
    "point not there": (with_entry("flip_points", 0, 48), "speak of neurons or points"),
    "flips not in order": (lambda a: a | {"flip_neurons": a["flip_neurons"][::-1]}, "flips are not in order"),
    "steps that do not add up": (shorter("flip_lengths"), "are not those of the log"),
    "an empty step": (lambda a: a | {"flip_lengths": np.append(a["flip_lengths"], 0)}, "are not those of the log"),
    "sums that overflow": (with_entry("flip_lengths", 0, 2**63 - 1), "are not those of the log"),
    "no sums": (without(HERE + "total"), HERE + "total"),
    "sums of fewer points": (shorter(HERE + "totals"), "'totals' of the flips has shape"),
    "no certificate": (without(HERE + "numbers"), HERE + "numbers"),
    "half a certificate": (shorter(HERE + "numbers"), "'numbers' of the flips has shape"),
    "coefficients of fewer flips": (shorter(HERE + "coefficients"), "'coefficients' of the flips has shape"),
    "best coefficients of fewer flips": (shorter(BEST + "coefficients"), "'coefficients' of the flips has shape"),
    "sums at home of two points": (lambda a: a | {HERE + "home": np.zeros(2)}, "'home' of the flips has shape"),
    "near pairs of fewer neurons": (shorter(HERE + "near"), "'near' of the flips has shape"),
    "near pairs below 0": (with_entry(HERE + "near", 0, -1), "are not those listed"),
    "near pairs not there": (shorter(HERE + "near_points"), "'near_values' of the flips has shape"),
    "near points not there": (with_entry(HERE + "near_points", 0, -1), "speak of neurons or points"),
    "near values of another type": (as_type(BEST + "near_values", "float32"), "'near_values' of the flips"),
    "best place of another log": (with_entry(BEST + "lengths", 0, 1), "best weights are not those of the log"),
    "best place without sums": (without(BEST + "total"), "sums at the best weights are missing"),
    "best place cut short": (without(BEST + "near"), BEST + "near"),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_that_no_run_writes_are_refused(arrays, case):
    change, part = WRONG[case]
    with pytest.raises((ValueError, KeyError), match=part):
        check_flips(change(arrays), penalised=False)


def test_a_penalty_and_its_sums_at_home_come_together(arrays):
    with pytest.raises(ValueError, match="'home' of the flips has shape"):
        check_flips(arrays, penalised=True)
    sums = {place + "home": np.zeros(arrays[place + "total"].size) for place in (HERE, BEST)}
    check_flips(arrays | sums, penalised=True)
    for place in (HERE, BEST):
        with pytest.raises(ValueError, match="'home' of the flips has shape"):
            check_flips(arrays | sums | {place + "home": np.zeros(0)}, penalised=True)


def test_a_file_of_other_points_is_refused(tmp_path):
    path = tmp_path / "c"
    fit("flips", callbacks=[StopAfter(2)], checkpoint=Checkpointing(path))
    saved = Checkpoint.load(path)
    more = {HERE + name: np.append(saved.arrays[HERE + name], 0.0) for name in ("total", "totals")}
    replace(saved, arrays=saved.arrays | more).save(path)  # sealed again
    with pytest.raises(CheckpointError, match="its flips are those of other points"):
        fit("flips", checkpoint=Checkpointing(path, resume=True))
    replace(saved, arrays={name: array for name, array in saved.arrays.items() if name[:4] != "flip"}).save(path)
    with pytest.raises(CheckpointError, match="is damaged: no entry 'flips_total'"):
        fit("flips", checkpoint=Checkpointing(path, resume=True))
