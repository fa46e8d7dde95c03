"""Do both engines and dense Gauss-Newton fire the same neurons at every step?

Trains on the digits (80 %, as ``./dev train`` splits them) in float64 with the linear systems solved to 1e-12, so
that all follow the exact Gauss-Newton trajectory, and compares all n m firing decisions after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.words import power_of_two
from gpu_sublinear import CGOptions, DenseGaussNewton, GaussNewton, ShiftedReluNetwork, ThresholdTree, get_device
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.data.sources import load, split
from gpu_sublinear.opponents.dense import CACHE_BLOCK

TOLERANCE, MAX_STEPS = 1e-6, 12
FAITHFUL, FAST, DENSE = METHODS = ("faithful", "fast", "dense")


@dataclass
class Decisions:
    """Callback that remembers who fires after every step, as packed bits."""

    X: np.ndarray
    bits: list[np.ndarray] = field(default_factory=list)
    mse: list[float] = field(default_factory=list)

    def __call__(self, record, network) -> None:
        device = network.device
        leaves = ThresholdTree.build(device, device.asarray(self.X, network.dtype), network.W).leaves
        self.bits.append(np.packbits(device.to_host(leaves > network.shift)))
        self.mse.append(float(record.mse))


def digits(limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    data = load("digits")
    train = split(len(data.y), 0.2, 0)[0][:limit]
    X = Preprocessing.fit(data.X[train], data.preprocessing).transform(data.X[train])
    return X, TargetScaling.fit(data.y[train]).transform(data.y[train])


def measure(m: int, limit: int | None, device: str) -> Content:
    """Train by all three and compare their decisions with those of dense Gauss-Newton."""
    X, y = digits(limit)
    watched = {name: Decisions(X) for name in METHODS}
    for name, decisions in watched.items():
        network = ShiftedReluNetwork.initialize(m, X.shape[1], seed=0, dtype="float64", device=get_device(device))
        _train(name, network, X, y, decisions)
    counts = {name: len(decisions.bits) for name, decisions in watched.items()}
    if len(set(counts.values())) != 1:
        raise AssertionError(f"different numbers of steps: {counts}")
    return {"n": len(y), "d": X.shape[1], "m": m, "rows": [_step(k, watched) for k in range(counts[DENSE])]}


def _train(name: str, network: ShiftedReluNetwork, X: np.ndarray, y: np.ndarray, decisions: Decisions) -> None:
    limits = {"tolerance": TOLERANCE, "max_steps": MAX_STEPS}
    if name == DENSE:
        DenseGaussNewton(CACHE_BLOCK, **limits).fit(network, X, y, decisions)
    elif name == FAST:
        GaussNewton(**limits).fit(network, X, y, [decisions])
    else:
        GaussNewton.faithful(cg=CGOptions(1e-12, 500), **limits).fit(network, X, y, [decisions])


def _step(step: int, watched: dict[str, Decisions]) -> dict:
    expected = watched[DENSE].bits[step]
    return {
        "step": step, "mse": {name: one.mse[step] for name, one in watched.items()},
        "fired": int(np.bitwise_count(expected).sum()),
        "differ": {name: int(np.bitwise_count(one.bits[step] ^ expected).sum()) for name, one in watched.items()},
    }  # fmt: skip


def answer(content: Content) -> str:
    worst = {name: max(row["differ"][name] for row in content["rows"]) for name in (FAITHFUL, FAST)}
    return (
        f"Of {content['n'] * content['m']:,} decisions per step at most {worst[FAITHFUL]} of the faithful method and "
        f"{worst[FAST]} of the fast engine differ from those of dense Gauss-Newton, in {len(content['rows'])} steps."
    )


def tables(content: Content) -> list[Table]:
    head = ["after step", "mse, dense", "fired pairs", "differ: faithful", "differ: fast"]
    body = [
        [
            str(row["step"] + 1), f"{row['mse'][DENSE]:.3e}", f"{row['fired']:,}",
            *(str(row["differ"][name]) for name in (FAITHFUL, FAST)),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    size = f"digits, n = {content['n']}, m = {power_of_two(content['m'])}, float64"
    return [Table(f"{size}; mse: before the step", head, body, ())]


def panels(content: Content) -> list[Panel]:
    curves = {name: [(row["step"], max(row["mse"][name], 1e-16)) for row in content["rows"]] for name in METHODS}
    return [Panel("three trajectories", "step", "training mse", curves, "y")]


EXPERIMENT = Experiment(
    "agreement", 0, "Do both engines fire exactly the neurons that dense Gauss-Newton fires?",
    {"tiny": {"m": 512, "limit": 60}, "full": {"m": 2**16, "limit": None}},
    measure, answer, tables, panels,
)  # fmt: skip
