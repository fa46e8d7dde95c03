"""On a GPU: the engine against cuBLAS Gauss-Newton in float32 and TF32.

Everything runs on ``device="cpu"`` too, where the TF32 and tensor-core opponents are recorded as missing.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

from bench.baselines import dense, ours, tensor_core
from bench.baselines.tensor_core import tf32
from bench.experiments.common import GOAL, TINY
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import make
from bench.harness.words import number, power_of_two, seconds, spread, versus
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


def measure(cases: list, repeats: int, budget: float, device: str) -> Content:
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


def answer(content: Content) -> str:
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
            f"{where}: the fast engine {versus(good[OURS]['whole']['median'], others[best])} against {best} (whole "
            f"run)."
        )
    return " ".join(parts)


def tables(content: Content) -> list[Table]:
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


def panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for k, row in enumerate(content["rows"]):
        for name, one in row["opponents"].items():
            if "error" not in one:
                curves.setdefault(name, []).append((k, one["whole"]["median"]))
    return [Panel("whole run", "case (tables in order)", "seconds", curves, "y")]


S512, S1024 = "sphere:n=640,d=16", "sphere:n=1280,d=64"
EXPERIMENT = Experiment(
    "gpu-steps", 0, "On a GPU: does the engine beat cuBLAS Gauss-Newton, in float32 and TF32?",
    {
        "tiny": {"cases": [(TINY, 256, 0.5)], "repeats": 1, "budget": 1.0},
        "gpu": {
            "cases": [(S512, 2**18, 2.0), (S512, 2**20, 3.0), (S512, 2**18, 0.0), (S1024, 2**20, 2.58), ("digits",
            2**17, 2.38)],
            "repeats": 5, "budget": 15.0,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
