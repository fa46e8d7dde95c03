"""Do both engines and dense Gauss-Newton fire the same neurons at every step? ``python -m bench agreement``.

Trains on the digits (80 %, as ``./dev train`` splits them) in float64 with the linear systems solved to 1e-12, so
that all follow the exact Gauss-Newton trajectory, and compares all n m firing decisions after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.harness.records import save
from bench.harness.words import power_of_two
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.data.sources import load, split
from gpu_sublinear.devices import get_device
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.opponents.dense import CACHE_BLOCK, DenseGaussNewton
from gpu_sublinear.options import CGOptions
from gpu_sublinear.training.gauss_newton import GaussNewton

WIDTH, TOLERANCE, MAX_STEPS = 2**16, 1e-6, 12


@dataclass
class Watch:
    """Remembers who fires after every step, as packed bits."""

    X: np.ndarray
    bits: list[np.ndarray] = field(default_factory=list)
    mse: list[float] = field(default_factory=list)

    def __call__(self, record, network) -> None:
        device = network.device
        nodes = ThresholdTree.build(device, device.asarray(self.X, network.dtype), network.W).leaves
        self.bits.append(np.packbits(device.to_host(nodes > network.shift)))
        self.mse.append(float(record.mse))


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load("digits")
    train, _ = split(len(data.y), 0.2, 0)
    X = Preprocessing.fit(data.X[train], data.preprocessing).transform(data.X[train])
    return X, TargetScaling.fit(data.y[train]).transform(data.y[train])


def main(device: str = "auto", width: int = WIDTH) -> str:
    """Run both, save and return the comparison."""
    chosen = get_device(device)
    X, y = digits()

    def network() -> ShiftedReluNetwork:
        return ShiftedReluNetwork.initialize(width, X.shape[1], seed=0, dtype="float64", device=chosen)

    options = {"tolerance": TOLERANCE, "max_steps": MAX_STEPS}
    tight = CGOptions(1e-12, 500)
    watches = {name: Watch(X) for name in ("faithful", "fast", "dense")}
    GaussNewton.faithful(cg=tight, **options).fit(network(), X, y, [watches["faithful"]])
    GaussNewton(**options).fit(network(), X, y, [watches["fast"]])
    DenseGaussNewton(CACHE_BLOCK, **options).fit(network(), X, y, watches["dense"])
    dense = watches["dense"]
    if len({len(watch.bits) for watch in watches.values()}) != 1:
        raise AssertionError(f"different numbers of steps: { {name: len(w.bits) for name, w in watches.items()} }")
    rows = [
        {
            "step": step,
            "mse": {name: watch.mse[step] for name, watch in watches.items()},
            "fired": int(np.bitwise_count(bits).sum()),
            "differ": {name: int(np.bitwise_count(watch.bits[step] ^ bits).sum()) for name, watch in watches.items()},
        }
        for step, bits in enumerate(dense.bits)
    ]
    settings = {"n": len(y), "d": X.shape[1], "m": width, "device": chosen.describe()}
    path = save(f"agreement-{chosen.name}", settings, rows)
    lines = ["| after step | mse, dense | fired pairs | differ: faithful | differ: fast |", "|--:|--:|--:|--:|--:|"]
    for row in rows:
        differ = f"{row['differ']['faithful']} | {row['differ']['fast']}"
        lines.append(f"| {row['step'] + 1} | {row['mse']['dense']:.3e} | {row['fired']:,} | {differ} |")
    table = "\n".join(lines)
    head = f"digits, n = {len(y)}, m = {power_of_two(width)}, float64"
    return f"{head} (mse: before the step)\n\n{table}\n\nwritten to bench/results/{path.name}"
