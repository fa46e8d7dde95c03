"""Time against nominal width when only the neurons that take part are drawn.

The sphere at about 3000 fired neurons per point from 10^6 to 10^12, the billion of the README, and the digits at 10^8
beside an explicit run, each trained once after a warm-up.  The peak is that of the whole process so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import exponent
from bench.harness.words import listed
from gpu_sublinear import GaussNewton, ShiftedReluNetwork, TrainingResult, get_device
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.data.sources import load, split
from gpu_sublinear.training.warmup import warm_up

FIRED = "fired:3000"
SPHERE, GOAL = "sphere:n=256,d=16", 1e-5  # ||f - y|| <= 1e-5 ||y|| is mse 1e-10 of the variance
BILLION = 10**9


def measure(cases: list, device: str) -> Content:
    """Train all cases (data, width, shift, sampling, tolerance) once, after the narrowest virtual one."""
    warm_up(get_device(device), GaussNewton(), sampling="virtual")
    virtual = [case for case in cases if case[3] == "virtual"]
    _train(*min(virtual, key=lambda case: case[1]), device)  # memory of the process, pages of the program
    return {"rows": [_train(*case, device) for case in cases]}


def _train(data: str, width: int, shift: float | str, sampling: str, tolerance: float, device: str) -> dict[str, Any]:
    raw = load(data)
    train, held_out = split(len(raw.y), 0.2 if data == "digits" else 0.0, 0)
    preprocessing, targets = Preprocessing.fit(raw.X[train], raw.preprocessing), TargetScaling.fit(raw.y[train])
    X, y = preprocessing.transform(raw.X[train]), targets.transform(raw.y[train])
    network = ShiftedReluNetwork.initialize(
        width, X.shape[1], shift=shift, paired=True, sampling=sampling, device=get_device(device)
    )
    result = GaussNewton(tolerance=tolerance).fit(network, X, y)
    r2 = None
    if len(held_out):
        outputs, expected = (
            network.predict(preprocessing.transform(raw.X[held_out])),
            targets.transform(raw.y[held_out]),
        )
        r2 = 1 - float(((outputs - expected) ** 2).mean() / expected.var())
    return {"data": data, "width": width, "shift_option": shift} | _told(network, result) | {"held_out_r2": r2}


def _told(network: ShiftedReluNetwork, result: TrainingResult) -> dict[str, Any]:
    history = result.history
    return {
        "shift": network.shift, "sampling": network.sampling, "neurons": len(network.rows),
        "converged": result.converged, "steps": len(history) - 1, "mse": history[-1].mse,
        "fired_first": history[0].fired, "fired_last": history[-1].fired,
        "first_look": result.build_seconds, "seconds": result.seconds,
        "step": float(np.median([record.seconds for record in history[1:]])),
        "peak_bytes": max(record.peak_bytes for record in history),
    }  # fmt: skip


def along(content: Content) -> list[dict]:
    """Return the rows of one number of fired neurons per point."""
    return [row for row in content["rows"] if row["shift_option"] == FIRED]


def growth(rows: list[dict]) -> str:
    return f"{exponent([row['width'] for row in rows], [row['seconds'] for row in rows]):.2f}"


def answer(content: Content) -> str:
    parts = {"": along(content), " up to a billion": [row for row in along(content) if row["width"] <= BILLION]}
    told = [f"m^{growth(rows)}{where}" for where, rows in parts.items() if len(rows) > 1]
    widest = max(content["rows"], key=lambda row: row["width"])
    return (
        f"At a fixed number of fired neurons per point seconds grow as {listed(told)}; {widest['width']:.3g} neurons, "
        f"of which {widest['neurons']:,} exist, train in {widest['seconds']:.2f} s."
    )


def tables(content: Content) -> list[Table]:
    head = [
        "data", "width", "b", "neurons that exist", "fired per point, first / last", "first look, s", "all, s", "steps",
        "mse", "peak, GiB", "held-out R^2",
    ]  # fmt: skip
    body = [
        [
            row["data"], f"{row['width']:.3g}", f"{row['shift']:.2f}", f"{row['neurons']:,}",
            f"{row['fired_first']:,.0f} / {row['fired_last']:,.0f}", f"{row['first_look']:.2f}",
            f"{row['seconds']:.2f}", str(row["steps"]), f"{row['mse']:.0e}", f"{row['peak_bytes'] / 2**30:.2f}",
            "" if row["held_out_r2"] is None else f"{row['held_out_r2']:.3f}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    return [Table("one run each; the sphere to mse 1e-10, the digits to 1e-8", head, body)]


def panels(content: Content) -> list[Panel]:
    curves = {
        name: [(row["width"], row[key]) for row in along(content)]
        for name, key in (("whole run", "seconds"), ("first look", "first_look"))
    }
    return [Panel(f"{FIRED.partition(':')[2]} fired per point", "nominal width m", "seconds", curves)]


EXPERIMENT = Experiment(
    "virtual", 0, "What does a nominal width of up to 10^12 cost when only neurons that take part are drawn?",
    {
        "tiny": {"cases": [("sphere:n=16,d=4", m, FIRED, "virtual", 1e-3) for m in (10**5, 10**6)]},
        "full": {
            "cases": [
                (SPHERE, BILLION, 4.5, "virtual", GOAL),
                *((SPHERE, 10**k, FIRED, "virtual", GOAL) for k in range(6, 13)),
                ("digits", 2**17, "paper", "explicit", 1e-4), ("digits", 10**8, "fired:1000", "virtual", 1e-4),
            ],
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
