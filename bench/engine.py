"""The fast engine against dense Gauss-Newton, and how its cost grows with the width: ``python -m bench engine``.

One run on one machine: every contender trains the same network from the same seed to the same error, in turn, on all
cores.  ``step`` is the median over the steps after the first, ``whole`` the time of all steps and of the first scan
(drawing the weights is common to all and not counted).  Dense opponents: all neurons at once on BLAS threads; blocks of
4096 neurons, one per core, with the neurons that never fired dropped after the first step; the same with the Gram
matrix from packed bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.harness.measure import exponent, summary
from bench.harness.records import save
from bench.harness.words import power_of_two
from gpu_sublinear.data.preprocessing import Preprocessing
from gpu_sublinear.data.sources import load
from gpu_sublinear.devices import get_device
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.model.shifts import paper_shift, shift_for_fired
from gpu_sublinear.opponents.dense import CACHE_BLOCK, DenseGaussNewton
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.warmup import warm_up

TOLERANCE = 1e-5  # mse 1e-10 of the targets' variance
MAX_STEPS = 20
BLOCKS, BITS = "blocks, silent dropped", "packed bits, silent dropped"
OPPONENTS = {
    "dense": {"block": None},
    BLOCKS: {"block": CACHE_BLOCK, "drop_silent": True},
    BITS: {"block": CACHE_BLOCK, "drop_silent": True, "bits": True},
}


@dataclass(frozen=True)
class Case:
    """One row of the table: a problem, its opponents, and the ratios asked for (step, whole)."""

    data: str
    m: int
    shift: float
    targets: dict[str, tuple[float | None, float | None]]


CASES = (
    Case("sphere:n=512,d=16", 2**18, 2.5, {"dense": (40, 8)}),
    Case("sphere:n=512,d=16", 2**20, 3.0, {"dense": (150, 15)}),
    Case("digits", 2**17, paper_shift(2**17), {"dense": (None, 8)}),
    Case("sphere:n=256,d=16", 2**20, 2.0, {BLOCKS: (6, None), BITS: (2.5, None)}),
    Case("sphere:n=256,d=16", 2**20, 3.0, {BLOCKS: (4, None), BITS: (2.5, None)}),
)
WIDTHS = tuple(2**k for k in range(14, 23))
SWEEP_POINTS, SWEEP_FEATURES, SWEEP_FIRED = 64, 16, 256


def prepared(data: str) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows and standardised targets of all points of a data set."""
    raw = load(data)
    X = Preprocessing.fit(raw.X, raw.preprocessing).transform(raw.X)
    return X, (raw.y - raw.y.mean()) / raw.y.std()


def race(case: Case, device: str, repeats: int) -> dict:
    """Run all contenders of a case in turn; return their times."""
    X, y = prepared(case.data)
    runs: dict[str, Callable[[], tuple[list, float]]] = {"ours": lambda: run_ours(case, X, y, device)}
    for name in case.targets:
        runs[name] = lambda name=name: run_dense(case, X, y, device, name)
    times: dict[str, dict[str, list[float]]] = {name: {"step": [], "whole": [], "first": []} for name in runs}
    last: dict[str, list] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            history, scan = run()
            seconds = [record.seconds for record in history[:-1]]
            times[name]["step"].append(float(np.median(seconds[1:])))
            times[name]["first"].append(seconds[0])
            times[name]["whole"].append(scan + sum(record.seconds for record in history))
            last[name] = history
    ours = last["ours"]
    return {
        "data": case.data, "n": len(y), "d": X.shape[1], "m": case.m, "shift": case.shift,
        "steps": {name: len(history) - 1 for name, history in last.items()},
        "mse": {name: history[-1].mse for name, history in last.items()},
        "phases": [record.phases for record in ours], "seconds_by_step": [record.seconds for record in ours],
        "fired": ours[-1].fired, "union": ours[-1].union, "peak_bytes": ours[-1].peak_bytes,
        "candidates": [record.tree_nodes_visited for record in ours],
        "refreshed": [record.refreshed for record in ours],
        "targets": case.targets,
        "times": {name: {kind: summary(sample) for kind, sample in parts.items()} for name, parts in times.items()},
    }  # fmt: skip


def run_ours(case: Case, X: np.ndarray, y: np.ndarray, device: str) -> tuple[list, float]:
    result = GaussNewton(tolerance=TOLERANCE, max_steps=MAX_STEPS).fit(network(case.m, X, case.shift, device), X, y)
    return checked(result.history, y, "ours"), result.build_seconds


def run_dense(case: Case, X: np.ndarray, y: np.ndarray, device: str, name: str) -> tuple[list, float]:
    dense = DenseGaussNewton(**OPPONENTS[name], tolerance=TOLERANCE, max_steps=MAX_STEPS)
    return checked(dense.fit(network(case.m, X, case.shift, device), X, y), y, name), 0.0


def network(m: int, X: np.ndarray, shift: float, device: str) -> ShiftedReluNetwork:
    return ShiftedReluNetwork.initialize(m, X.shape[1], shift=shift, seed=1, device=get_device(device))


def checked(history: list, y: np.ndarray, name: str) -> list:
    if history[-1].mse > TOLERANCE**2 * np.mean(y**2):
        raise AssertionError(f"{name} did not converge: mse {history[-1].mse:.2e}")
    return history


def sweep(shift_of: Callable[[int], float], device: str, repeats: int) -> list[dict]:
    """Time steps after the first for growing widths."""
    X, y = prepared(f"sphere:n={SWEEP_POINTS},d={SWEEP_FEATURES}")
    rows = []
    for m in WIDTHS:
        case = Case("sphere", m, shift_of(m), {})
        samples = []
        for _ in range(repeats):
            history, scan = run_ours(case, X, y, device)
            samples.append(float(np.median([record.seconds for record in history[1:-1]])))
        rows.append({"m": m, "shift": case.shift, "fired": history[0].fired, "scan": scan, "step": summary(samples)})
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        "| data | m | b | opponent | step, ours, ms | step, ms | ratio | whole, ours, s | whole, s | ratio |",
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ours = row["times"]["ours"]
        for name, (step, whole) in row["targets"].items():
            theirs = row["times"][name]
            ratios = {kind: theirs[kind]["median"] / ours[kind]["median"] for kind in ("step", "whole")}
            lines.append(
                f"| {row['data']} | {power_of_two(row['m'])} | {row['shift']:.3g} | {name} "
                f"| {ours['step']['median'] * 1e3:.0f} | {theirs['step']['median'] * 1e3:.0f} "
                f"| {asked(ratios['step'], step)} "
                f"| {ours['whole']['median']:.2f} | {theirs['whole']['median']:.2f} | {asked(ratios['whole'], whole)} |"
            )
    return "\n".join(lines)


def asked(ratio: float, target: float | None) -> str:
    return f"{ratio:.1f}" + (f" (>= {target:g})" if target else "")


def sweep_table(sweeps: dict[str, list[dict]]) -> str:
    lines = ["| m | " + " | ".join(f"b, {name} | step, ms | scan, ms" for name in sweeps) + " |"]
    lines.append("|--:" * (1 + 3 * len(sweeps)) + "|")
    for k, m in enumerate(WIDTHS):
        cells = [
            f"{rows[k]['shift']:.2f} | {rows[k]['step']['median'] * 1e3:.2f} | {rows[k]['scan'] * 1e3:.0f}"
            for rows in sweeps.values()
        ]
        lines.append(f"| {power_of_two(m)} | " + " | ".join(cells) + " |")
    slopes = [f"| m^{slope(rows):.2f} | " for rows in sweeps.values()]
    lines.append("| exponent | " + " | ".join(slopes) + " |")
    return "\n".join(lines)


def slope(rows: list[dict]) -> float:
    return exponent([row["m"] for row in rows], [row["step"]["median"] for row in rows])


def main(device: str = "auto", repeats: int = 3) -> str:
    """Measure all cases and both sweeps, save, and return the tables."""
    chosen = get_device(device)
    warm_up(chosen, GaussNewton())
    warm_up(chosen, GaussNewton(solver="sketch-cg"))
    small = Case("sphere:n=64,d=16", 4096, 1.0, {})
    X, y = prepared(small.data)
    for name in OPPONENTS:
        run_dense(small, X, y, device, name)
    rows = [race(case, device, repeats) for case in CASES]
    sweeps = {
        "paper": sweep(paper_shift, device, repeats),
        f"{SWEEP_FIRED} fired": sweep(lambda m: shift_for_fired(m, SWEEP_FIRED), device, repeats),
    }
    settings = {"tolerance": TOLERANCE, "repeats": repeats, "device": chosen.describe(), "sweep_n": SWEEP_POINTS}
    path = save(f"engine-{chosen.name}", settings, rows, sweeps=sweeps)
    return f"{table(rows)}\n\n{sweep_table(sweeps)}\n\nwritten to bench/results/{path.name}"
