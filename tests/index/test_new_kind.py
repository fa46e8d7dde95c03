"""What a new kind of index costs: one file, here this one, and one registration.

The kind below looks at all pairs anew in every query.  It is named in ``KINDS`` and nowhere else; whatever the lists of
the package train, it trains, with the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gpu_sublinear import GaussNewton, SharedScan, ShiftedReluNetwork, cross_validate
from gpu_sublinear.devices import Array, Device, NeuronLists
from gpu_sublinear.index.active_set import ActiveSet
from gpu_sublinear.index.first_look import survey
from gpu_sublinear.index.protocol import PlainIndex
from gpu_sublinear.training.checkpoints.file import Checkpointing
from gpu_sublinear.training.prepare import KINDS, Kind, Look
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import sphere


@dataclass
class ScanEverything(PlainIndex):
    """All pairs of the rows held, compared in every query."""

    device: Device
    X: Array
    network: ShiftedReluNetwork
    kind = "everything"

    def query(self, shift: float) -> ActiveSet:
        xp, rows = self.device.xp, self.network.rows
        neurons, limits = xp.arange(len(rows), dtype=np.int32), xp.full(len(rows), shift, dtype=rows.dtype)
        indptr, points = self.device.scan(self.X, rows, neurons, limits)
        lists = NeuronLists(neurons, indptr, points)
        fired, _, by_point, compact, values = self.device.evaluate(self.X, rows, lists, shift)
        return ActiveSet(by_point, compact, values, fired, len(rows) * len(self.X))

    def again(self, network, X, chosen=None) -> ScanEverything:
        return ScanEverything(self.device, X, network)


def over_rows(look: Look) -> ScanEverything:
    return ScanEverything(look.network.device, look.X, look.network)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(KINDS, "everything", Kind(lambda network, X: survey(network, X, 0), over_rows))


def network_for(device, **options) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(256, 5, shift=0.9, seed=2, device=device, **options)


def bytes_of(network: ShiftedReluNetwork) -> tuple[bytes, ...]:
    second = b"" if network.second is None else np.ascontiguousarray(network.device.to_host(network.second)).tobytes()
    return network.device.to_host(network.neurons).tobytes(), network.device.to_host(network.rows).tobytes(), second


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, {}),
        ({"alpha": 1e-2}, {}),
        ({"alpha": "auto"}, {}),
        ({"batch_size": 9}, {}),
        ({"batch_size": 9, "alpha": 1e-2}, {}),
        ({"solver": "sketch-cg"}, {}),
        ({"jacobian": "csr"}, {}),
        ({"both_layers": True}, {}),
        ({"validation_fraction": 0.2}, {}),
        ({}, {"activation": "softshrink"}),
        ({}, {"activation": "leaky"}),
        ({}, {"outputs": 2}),
    ],
    ids=str,
)
def test_it_trains_what_lists_train(device, options, kind):
    device = make_device(device)
    X, y = sphere(30, 5)
    y = np.stack([y, y[::-1]], axis=1) if "outputs" in kind else y
    found = []
    for mask in ("lists", "everything"):
        network = network_for(device, **kind)
        GaussNewton(mask=mask, max_steps=4, tolerance=1e-9, **options).fit(network, X, y)
        found.append(bytes_of(network))
    assert found[0] == found[1]


def test_it_serves_paths_and_folds():
    X, y = sphere(30, 5)
    folds = [(np.setdiff1d(np.arange(30), np.arange(k, 30, 3)), np.arange(k, 30, 3)) for k in range(3)]
    errors = []
    for mask in ("lists", "everything"):
        scan = SharedScan.build(GaussNewton(mask=mask, alpha=1.0, max_steps=4), network_for(make_device("cpu")), X, y)
        errors.append(cross_validate(scan, y, [1.0, 0.1], folds).errors)
    assert np.array_equal(*errors)


def test_it_goes_on_from_a_checkpoint(tmp_path):
    X, y = sphere(30, 5)
    whole, halves = (network_for(make_device("cpu")) for _ in range(2))
    trainer = GaussNewton(mask="everything", max_steps=6, tolerance=1e-12)
    trainer.fit(whole, X, y)
    stop = [lambda record, network: record.step == 1]
    trainer.fit(halves, X, y, callbacks=stop, checkpoint=Checkpointing(tmp_path / "c"))
    again = network_for(make_device("cpu"))
    trainer.fit(again, X, y, checkpoint=Checkpointing(tmp_path / "c", resume=True))
    assert bytes_of(again) == bytes_of(whole) and bytes_of(halves) != bytes_of(whole)


def test_points_that_arrive_later_are_refused_by_name():
    X, y = sphere(30, 5)
    session = GaussNewton(mask="everything").begin(network_for(make_device("cpu")), X, y)
    with pytest.raises(Exception, match="found by everything"):
        session.extend(X, y)
