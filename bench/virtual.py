"""Time against nominal width when only the neurons that take part are drawn: ``python -m bench virtual``.

The sphere at about 3000 fired neurons per point from 10^6 to 10^12, the billion of the README, and the digits at 10^8
beside an explicit run, each trained once after a warm-up.  The peak is that of the whole process so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.harness.measure import exponent
from bench.harness.records import save
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.data.sources import load, split
from gpu_sublinear.devices import Device, get_device
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.warmup import warm_up

FIRED = "fired:3000"
WIDTHS = (10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12)
SPHERE, GOAL = "sphere:n=256,d=16", 1e-5  # ||f - y|| <= 1e-5 ||y|| is mse 1e-10 of the variance
CASES = (
    (SPHERE, 10**9, 4.5, "virtual", GOAL),
    *((SPHERE, width, FIRED, "virtual", GOAL) for width in WIDTHS),
    ("digits", 2**17, "paper", "explicit", 1e-4),
    ("digits", 10**8, "fired:1000", "virtual", 1e-4),
)


def main(device: str = "auto", cases: tuple = CASES) -> str:
    """Train all cases, save and return the table."""
    chosen = get_device(device)
    warm_up(chosen, GaussNewton(), sampling="virtual")
    case(chosen, SPHERE, 10**6, FIRED, "virtual", GOAL)  # memory of the process, pages of the program
    rows = [case(chosen, *one) for one in cases]
    along = [row for row in rows if row["shift_option"] == FIRED]
    slopes = {
        name: exponent([row["width"] for row in part], [row["seconds"] for row in part])
        for name, part in (("all", along), ("to 1e9", [row for row in along if row["width"] <= 10**9]))
        if len(part) > 1
    }
    path = save(f"virtual-{chosen.name}", {"fired": FIRED}, rows, exponents=slopes)
    text = ", ".join(f"{name} m^{slope:.2f}" for name, slope in slopes.items())
    return f"{table(rows)}\n\nseconds against width at fixed fired: {text}\nsaved to {path}"


def case(device: Device, data: str, width: int, shift: float | str, sampling: str, tolerance: float) -> dict[str, Any]:
    """Train once; return what is to be known."""
    dataset = load(data)
    train, held_out = split(len(dataset.y), 0.2 if data == "digits" else 0.0, 0)
    preprocessing, targets = (
        Preprocessing.fit(dataset.X[train], dataset.preprocessing),
        TargetScaling.fit(dataset.y[train]),
    )
    X, y = preprocessing.transform(dataset.X[train]), targets.transform(dataset.y[train])
    network = ShiftedReluNetwork.initialize(
        width, X.shape[1], shift=shift, paired=True, sampling=sampling, device=device
    )
    result = GaussNewton(tolerance=tolerance).fit(network, X, y)
    r2 = None
    if len(held_out):
        wrong = network.predict(preprocessing.transform(dataset.X[held_out])) - targets.transform(dataset.y[held_out])
        r2 = (
            1
            - float((wrong**2).sum())
            / float(((dataset.y[held_out] - dataset.y[held_out].mean()) ** 2).sum())
            * targets.std**2
        )
    return {
        "data": data,
        "width": width,
        "shift_option": shift,
        "shift": network.shift,
        "sampling": network.sampling,
        "neurons": len(network.rows),
        "converged": result.converged,
        "steps": len(result.history) - 1,
        "mse": result.history[-1].mse,
        "fired_first": result.history[0].fired,
        "fired_last": result.history[-1].fired,
        "first_look": result.build_seconds,
        "seconds": result.seconds,
        "step": float(np.median([record.seconds for record in result.history[1:]])),
        "peak_bytes": max(record.peak_bytes for record in result.history),
        "held_out_r2": r2,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    titles = "data|width|b|neurons that exist|fired per point, first / last|first look, s|all, s|steps|mse|peak, GiB"
    lines = ["| " + " | ".join([*titles.split("|"), "held-out R^2"]) + " |", "|---" + "|--:" * 10 + "|"]
    for row in rows:
        r2 = "" if row["held_out_r2"] is None else f"{row['held_out_r2']:.3f}"
        lines.append(
            f"| {row['data']} | {row['width']:.3g} | {row['shift']:.2f} | {row['neurons']:,} | "
            f"{row['fired_first']:,.0f} / {row['fired_last']:,.0f} | {row['first_look']:.2f} | {row['seconds']:.2f} | "
            f"{row['steps']} | {row['mse']:.0e} | {row['peak_bytes'] / 2**30:.2f} | {r2} |"
        )
    return "\n".join(lines)
