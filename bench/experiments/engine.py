"""The fast engine against dense Gauss-Newton at sizes whose goals were set before, and its cost by width.

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

from bench.experiments.common import step_seconds, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import exponent, summary
from bench.harness.words import listed, power_of_two
from gpu_sublinear import DenseGaussNewton, GaussNewton, ShiftedReluNetwork, get_device
from gpu_sublinear.data.preprocessing import Preprocessing
from gpu_sublinear.data.sources import load
from gpu_sublinear.model.shifts import paper_shift, shift_for_fired
from gpu_sublinear.opponents.dense import CACHE_BLOCK

TOLERANCE = 1e-5  # mse 1e-10 of the targets' variance
MAX_STEPS = 20
OURS, DENSE = "ours", "dense"
BLOCKS, BITS = "blocks, silent dropped", "packed bits, silent dropped"
OPPONENTS = {
    DENSE: {"block": None},
    BLOCKS: {"block": CACHE_BLOCK, "drop_silent": True},
    BITS: {"block": CACHE_BLOCK, "drop_silent": True, "bits": True},
}
FIRED = 256  # per point, whatever the width, under the second rule for shifts
SHIFTS: dict[str, Callable[[int], float]] = {
    "paper": paper_shift,
    f"{FIRED} fired": lambda m: shift_for_fired(m, FIRED),
}


@dataclass(frozen=True)
class Contest:
    """A network to be trained on all points of a data set."""

    data: str
    m: int
    shift: float
    device: str

    def prepared(self) -> tuple[np.ndarray, np.ndarray]:
        """Return unit rows (n, d) and standardised targets (n,)."""
        raw = load(self.data)
        X = Preprocessing.fit(raw.X, raw.preprocessing).transform(raw.X)
        return X, (raw.y - raw.y.mean()) / raw.y.std()

    def run(self, name: str) -> tuple[list, float]:
        """Train by one contender; return its history and the seconds of its first scan."""
        X, y = self.prepared()
        network = ShiftedReluNetwork.initialize(
            self.m, X.shape[1], shift=self.shift, seed=1, device=get_device(self.device)
        )
        limits = {"tolerance": TOLERANCE, "max_steps": MAX_STEPS}
        if name == OURS:
            result = GaussNewton(**limits).fit(network, X, y)
            history, scan = result.history, result.build_seconds
        else:
            history, scan = DenseGaussNewton(**OPPONENTS[name], **limits).fit(network, X, y), 0.0
        if history[-1].mse > TOLERANCE**2 * np.mean(y**2):
            raise AssertionError(f"{name} did not converge: mse {history[-1].mse:.2e}")
        return history, scan


def measure(cases: list, sweep_data: str, widths: list, repeats: int, device: str) -> Content:
    """Race every case (data, m, b, goals by opponent), then time steps of growing widths."""
    warm(device)
    rows = [race(Contest(*case, device), goals, repeats) for *case, goals in cases]
    sweeps = {
        name: [timed(Contest(sweep_data, m, shift(m), device), repeats) for m in widths]
        for name, shift in SHIFTS.items()
    }
    return {"rows": rows, "sweeps": sweeps}


def race(contest: Contest, goals: dict, repeats: int) -> dict:
    """Run all contenders of a case in turn; return their times beside the ratios asked for (step, whole)."""
    times: dict[str, dict[str, list]] = {name: {"step": [], "whole": [], "first": []} for name in (OURS, *goals)}
    last: dict[str, list] = {}
    for _ in range(repeats):
        for name, samples in times.items():
            history, scan = contest.run(name)
            samples["step"].append(step_seconds(history))
            samples["first"].append(history[0].seconds)
            samples["whole"].append(scan + sum(record.seconds for record in history))
            last[name] = history
    X, y = contest.prepared()
    ours = last[OURS]
    return {
        "data": contest.data, "n": len(y), "d": X.shape[1], "m": contest.m, "shift": contest.shift,
        "steps": {name: len(history) - 1 for name, history in last.items()},
        "mse": {name: history[-1].mse for name, history in last.items()},
        "phases": [record.phases for record in ours], "seconds_by_step": [record.seconds for record in ours],
        "fired": ours[-1].fired, "union": ours[-1].union, "peak_bytes": ours[-1].peak_bytes,
        "candidates": [record.tree_nodes_visited for record in ours],
        "refreshed": [record.refreshed for record in ours],
        "targets": goals,
        "times": {name: {kind: summary(sample) for kind, sample in parts.items()} for name, parts in times.items()},
    }  # fmt: skip


def timed(contest: Contest, repeats: int) -> dict:
    """Time steps after the first of one width."""
    samples = []
    for _ in range(repeats):
        history, scan = contest.run(OURS)
        samples.append(step_seconds(history))
    return {
        "m": contest.m, "shift": contest.shift, "fired": history[0].fired, "scan": scan, "step": summary(samples),
    }  # fmt: skip


def ratios(row: dict, name: str) -> dict[str, float]:
    """Return the opponent's seconds over ours."""
    ours, theirs = row["times"][OURS], row["times"][name]
    return {kind: theirs[kind]["median"] / ours[kind]["median"] for kind in ("step", "whole")}


def growth(rows: list[dict]) -> str:
    """Return how a step after the first grows with the width."""
    return f"m^{exponent([row['m'] for row in rows], [row['step']['median'] for row in rows]):.2f}"


def answer(content: Content) -> str:
    met = [
        ratio >= goal
        for row in content["rows"]
        for name, goals in row["targets"].items()
        for ratio, goal in zip(ratios(row, name).values(), goals, strict=True)
        if goal
    ]
    told = [f"as {growth(rows)} by the rule '{name}'" for name, rows in content["sweeps"].items()]
    return (
        f"{sum(met)} of the {len(met)} ratios that were asked for beforehand are reached. With shifts that grow with "
        f"the width a step after the first grows {listed(told)}."
    )


def tables(content: Content) -> list[Table]:
    return [_races(content["rows"]), _widths(content["sweeps"])]


def _races(rows: list[dict]) -> Table:
    head = [
        "data", "m", "b", "opponent", "step, ours, ms", "step, ms", "ratio", "whole, ours, s", "whole, s", "ratio",
    ]  # fmt: skip
    body = []
    for row in rows:
        ours = row["times"][OURS]
        for name, (step, whole) in row["targets"].items():
            theirs, ratio = row["times"][name], ratios(row, name)
            body.append([
                row["data"], power_of_two(row["m"]), f"{row['shift']:.3g}", name,
                f"{ours['step']['median'] * 1e3:.0f}", f"{theirs['step']['median'] * 1e3:.0f}",
                asked(ratio["step"], step),
                f"{ours['whole']['median']:.2f}", f"{theirs['whole']['median']:.2f}", asked(ratio["whole"], whole),
            ])  # fmt: skip
    return Table(
        "whole runs to mse 1e-10 and steps after the first; in brackets what was asked for", head, body, (0, 3)
    )


def asked(ratio: float, goal: float | None) -> str:
    return f"{ratio:.1f}" + (f" (>= {goal:g})" if goal else "")


def _widths(sweeps: dict[str, list[dict]]) -> Table:
    head = ["m", *(title for name in sweeps for title in (f"b, {name}", "step, ms", "scan, ms"))]
    body = [
        [power_of_two(rows[0]["m"])]
        + [
            cell for row in rows
            for cell in (f"{row['shift']:.2f}", f"{row['step']['median'] * 1e3:.2f}", f"{row['scan'] * 1e3:.0f}")
        ]
        for rows in zip(*sweeps.values(), strict=True)
    ]  # fmt: skip
    body.append(["exponent", *(cell for rows in sweeps.values() for cell in ("", growth(rows), ""))])
    return Table("the fast engine by width", head, body, ())


def panels(content: Content) -> list[Panel]:
    curves = {
        f"b: {name}": [(row["m"], row["step"]["median"]) for row in rows] for name, rows in content["sweeps"].items()
    }
    return [Panel("step after the first", "width m", "seconds", curves)]


S512, S256 = "sphere:n=512,d=16", "sphere:n=256,d=16"
EXPERIMENT = Experiment(
    "engine", 0, "Is the fast engine as much faster than dense Gauss-Newton as was asked for, and how does it grow?",
    {
        "tiny": {
            "cases": [("sphere:n=32,d=8", 1024, 0.5, {DENSE: (None, 1), BITS: (1, None)})],
            "sweep_data": "sphere:n=16,d=8", "widths": [512, 1024], "repeats": 1,
        },
        "full": {
            "cases": [
                (S512, 2**18, 2.5, {DENSE: (40, 8)}), (S512, 2**20, 3.0, {DENSE: (150, 15)}),
                ("digits", 2**17, paper_shift(2**17), {DENSE: (None, 8)}),
                (S256, 2**20, 2.0, {BLOCKS: (6, None), BITS: (2.5, None)}),
                (S256, 2**20, 3.0, {BLOCKS: (4, None), BITS: (2.5, None)}),
            ],
            "sweep_data": "sphere:n=64,d=16", "widths": [2**k for k in range(14, 23)], "repeats": 3,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
