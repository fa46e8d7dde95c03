"""Single operations beside their floors, and the GPU suite: steps and widths against cuBLAS in float32 and TF32.

Everything runs on ``device="cpu"`` too, where the TF32 and tensor-core opponents are recorded as missing.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from bench import micro
from bench.baselines import dense, ours, tensor_core
from bench.baselines.tensor_core import tf32
from bench.experiment import Content, Experiment, Panel, Table
from bench.experiments.common import GOAL
from bench.measure import slope, summary
from bench.problems import make
from bench.words import compare, interval, number, percent, power_of_two, seconds, spread
from gpu_sublinear import get_device

OURS = "fast engine"


def _dropped(problem, goal, budget, on=False):
    with tf32(get_device(problem.device).xp, on):
        return dense.train(problem, goal, budget, drop_silent=True)


OPPONENTS = {
    OURS: ours.fast,
    "faithful, eager tree": ours.faithful,
    "dense GN, float32": dense.all_at_once,
    "dense GN, float32, silent dropped": _dropped,
    "dense GN, float32, tensor-core mask product": tensor_core.fit,
    "dense GN, TF32, silent dropped": lambda problem, goal, budget: _dropped(problem, goal, budget, True),
}


def measure_steps(cases: list, repeats: int, budget: float, device: str) -> Content:
    """Race on every case; a case that fails is recorded and the others go on."""
    return {"rows": [_case(case, repeats, budget, device) for case in cases]}


def _case(case, repeats, budget, device) -> dict:
    data, m, b = case
    row = {"data": data, "m": m, "shift": b, "opponents": {}}
    for name, baseline in OPPONENTS.items():
        if "TF32" in name and get_device(device).xp is np:
            row["opponents"][name] = {"error": "the host has no TF32"}
            continue
        try:
            row["opponents"][name] = _raced(baseline, make(data, m, b, device=device), repeats, budget)
        except Exception as error:  # recorded beside the others
            row["opponents"][name] = {"error": f"{type(error).__name__}: {error}"}
    return row


def _raced(baseline, problem, repeats, budget) -> dict:
    begin = perf_counter()
    baseline(problem, GOAL, budget)
    first, fits = perf_counter() - begin, [baseline(problem, GOAL, budget) for _ in range(repeats)]
    steps = [np.diff([moment for moment, _ in fit.trajectory]) for fit in fits]
    return {
        "first_call": first, "whole": summary([fit.trajectory[-1][0] for fit in fits]), "best": fits[-1].best,
        "step": summary([float(np.median(some[1:] if len(some) > 1 else some)) for some in steps if len(some)] or [0]),
        "steps": len(fits[-1].trajectory) - 1,
    }  # fmt: skip


def steps_answer(content: Content) -> str:
    parts = []
    for row in content["rows"]:
        good = {name: one for name, one in row["opponents"].items() if "error" not in one and one["best"] <= GOAL}
        others = {name: one["whole"]["median"] for name, one in good.items() if name.startswith("dense")}
        where = f"{row['data']}, m = {power_of_two(row['m'])}, b = {row['shift']:g}"
        if OURS not in good or not others:
            parts.append(f"{where}: no comparison, because one side failed or did not reach mse {GOAL:g}.")
            continue
        best = min(others, key=others.get)
        parts.append(
            f"{where}: the fast engine {compare(good[OURS]['whole']['median'], others[best])} against {best} (whole "
            f"run)."
        )
    return " ".join(parts)


def steps_tables(content: Content) -> list[Table]:
    head = ["opponent", "step", "whole run", "steps", "best mse", "first call"]
    return [
        Table(
            f"{row['data']}, m = {power_of_two(row['m'])}, b = {row['shift']:g}, goal mse {GOAL:g}", head,
            [
                [name, one["error"].splitlines()[0], "-", "-", "-", "-"] if "error" in one else
                [name, spread(one["step"]), spread(one["whole"]), str(one["steps"]), number(one["best"]),
                seconds(one["first_call"])]
                for name, one in row["opponents"].items()
            ],
        )
        for row in content["rows"]
    ]  # fmt: skip


def steps_panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for k, row in enumerate(content["rows"]):
        for name, one in row["opponents"].items():
            if "error" not in one:
                curves.setdefault(name, []).append((k, one["whole"]["median"]))
    return [Panel("whole run", "case (tables in order)", "seconds", curves, "y")]


def measure_widths(data: str, widths: list, b: float, repeats: int, budget: float, device: str) -> Content:
    """Race over widths."""
    return measure_steps([(data, m, b) for m in widths], repeats, budget, device)


def width_curves(content: Content) -> dict[str, list]:
    curves: dict[str, list] = {}
    for row in content["rows"]:
        for name, one in row["opponents"].items():
            if "error" not in one and one["step"]["median"]:
                curves.setdefault(name, []).append((row["m"], one["step"]["median"]))
    return curves


def widths_answer(content: Content) -> str:
    fits = {name: slope(*zip(*points, strict=True)) for name, points in width_curves(content).items()}
    told = "; ".join(f"{name} m^{interval(fit)}" for name, fit in fits.items())
    return f"Seconds of a step after the first grow as: {told}."


def micro_answer(content: Content) -> str:
    good = [row for row in content["rows"] if "error" not in row]
    shares = {row["operation"]: row["floor"] / row["cold"]["median"] for row in good}
    best, worst = max(shares, key=shares.get), min(shares, key=shares.get)
    return (
        f"A copy moves {content['bandwidth'] / 1e9:.0f} GB/s here. Nearest to its floor of bytes is '{best}' "
        f"({percent(shares[best])}), farthest '{worst}' ({percent(shares[worst])}); operations may be bound by "
        f"arithmetic "
        "or by scattered access instead, which this floor does not know."
    )


def micro_tables(content: Content) -> list[Table]:
    head = [
        "operation",
        "n",
        "d",
        "m",
        "b",
        "cold",
        "warm",
        "floor",
        "GB/s, cold",
        "Gflop/s, warm",
        "launches",
        "first call",
    ]
    body = [
        [row["operation"], str(row["n"]), str(row["d"]), power_of_two(row["m"]), f"{row['shift']:g}"]
        + (
            [row["error"].splitlines()[0], *["-"] * 6] if "error" in row else
            [spread(row["cold"]), spread(row["warm"]), seconds(row["floor"]),
            number(row["bytes"] / row["cold"]["median"] / 1e9),
             number(row["flops"] / row["warm"]["median"] / 1e9),
             "-" if row["launches"] is None else str(row["launches"]),
             seconds(row["first_call"])]
        )
        for row in content["rows"]
    ]  # fmt: skip
    clock = "CUDA events" if content["gpu"] else "wall clock"
    return [Table(f"{clock}; cold: caches flushed before each call; floor: bytes over the measured copy", head, body)]


def micro_panels(content: Content) -> list[Panel]:
    good = [row for row in content["rows"] if "error" not in row]
    curves = {
        f"{row['operation']}, m = {power_of_two(row['m'])}": [(row["floor"], row["cold"]["median"])] for row in good
    }
    return [Panel("cold time against its floor of bytes", "floor, s", "seconds", curves)]


S512, S1024 = "sphere:n=640,d=16", "sphere:n=1280,d=64"
MICRO = Experiment(
    "micro", 0, "How far is each operation from the least bytes that it must move?",
    {
        "tiny": {"sizes": [(32, 8, 512, 0.5)], "repeats": 1},
        "quick": {"sizes": [(256, 16, 2**16, 2.0)], "repeats": 5},
        "full": {"sizes": [(256, 16, 2**16, 2.0), (512, 16, 2**20, 3.0), (1024, 64, 2**18, 2.5)], "repeats": 9},
        "gpu": {"sizes": [(512, 16, 2**20, 3.0), (1024, 64, 2**20, 2.58)], "repeats": 15},
    },
    micro.measure, micro_answer, micro_tables, micro_panels,
)  # fmt: skip
STEPS = Experiment(
    "gpu-steps", 0, "On a GPU: does the engine beat cuBLAS Gauss-Newton, in float32 and TF32?",
    {
        "tiny": {"cases": [("sphere:n=40,d=8", 256, 0.5)], "repeats": 1, "budget": 1.0},
        "gpu": {
            "cases": [(S512, 2**18, 2.0), (S512, 2**20, 3.0), (S512, 2**18, 0.0), (S1024, 2**20, 2.58), ("digits",
            2**17, 2.38)],
            "repeats": 5, "budget": 15.0,
        },
    },
    measure_steps, steps_answer, steps_tables, steps_panels,
)  # fmt: skip
WIDTHS = Experiment(
    "gpu-widths", 0, "On a GPU: how does a step grow with the width?",
    {
        "tiny": {"data": "sphere:n=40,d=8", "widths": [256, 512, 1024], "b": 0.5, "repeats": 1, "budget": 1.0},
        "gpu": {"data": S512, "widths": [2**k for k in range(14, 23, 2)], "b": 3.0, "repeats": 5, "budget": 10.0},
    },
    measure_widths, widths_answer, steps_tables, lambda content: [Panel("step", "width m", "seconds",
    width_curves(content))],
)  # fmt: skip
