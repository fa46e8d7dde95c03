"""Question 2: seconds to a given training error against all opponents, each at its best setting."""

from __future__ import annotations

import numpy as np

from bench.baselines import BASELINES, KERNELS, OURS
from bench.baselines.common import attempt
from bench.experiments.common import GOAL, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import make
from bench.harness.words import listed, number, power_of_two, seconds, spread, versus

SLOW = ("torch SGD, momentum", "torch Adam", "torch L-BFGS", "torch LM, J stored", "optimistix LM, CG", *KERNELS[1:])


def measure(
    cases: list, opponents: list | None, budget: float, repeats: int, limit: int | None, device: str
) -> Content:
    """Run every opponent on every case; those that arrive, but the slow ones, ``repeats`` times, in turn."""
    warm(device)
    return {"cases": [_case(make(*case, device=device, limit=limit), opponents, budget, repeats) for case in cases]}


def _case(problem, opponents, budget, repeats) -> dict:
    chosen = list(opponents or BASELINES)
    runs: dict[str, list[dict]] = {name: [] for name in chosen}
    for name in [name for _ in range(repeats) for name in chosen if name not in SLOW]:
        if all(result["time"] is not None for result in runs[name]):
            runs[name].append(attempt(BASELINES[name], problem, GOAL, budget))
    for name in filter(SLOW.__contains__, chosen):  # last: the threads of torch and jax would disturb BLAS
        runs[name].append(attempt(BASELINES[name], problem, GOAL, budget))
    return {
        "data": problem.data, "n": problem.n, "d": problem.d, "m": problem.m, "shift": problem.shift, "budget": budget,
        "opponents": {name: _merged(results) for name, results in runs.items()},
    }  # fmt: skip


def _merged(results: list[dict]) -> dict:
    """Return the last run with the summary of all runs' times, if all arrived."""
    times = [result["time"] for result in results]
    moments = [moment for moment, _ in results[-1]["trajectory"]]
    step = float(np.median(np.diff(moments))) if len(moments) > 1 else None
    arrived = summary(times) if all(time is not None for time in times) else None
    return results[-1] | {"times": arrived, "step": step, "runs": len(results)}


def name_of(case: dict) -> str:
    return f"{case['data']}, m = {power_of_two(case['m'])}, b = {case['shift']:.3g}"


def answer(content: Content) -> str:
    parts = []
    for case in content["cases"]:
        ours, others = case["opponents"][OURS]["times"], case["opponents"]
        if ours is None:
            parts.append(f"On {name_of(case)} the fast engine does not reach mse {GOAL:g} in {case['budget']:g} s.")
            continue
        there = {k: v["times"]["median"] for k, v in others.items() if v["times"] and k != OURS}
        nets = {name: time for name, time in there.items() if name not in KERNELS and "engine" not in name}
        late = [name for name, one in others.items() if not one["times"] and "not installed" not in one["note"]]
        line = f"On {name_of(case)} the fast engine needs {seconds(ours['median'])} to mse {GOAL:g}."
        if nets:
            best = min(nets, key=nets.get)
            line += (
                f" Against the best opponent that trains the network, {best}, it {versus(ours['median'], nets[best])}."
            )
        kernels = {name: time for name, time in there.items() if name in KERNELS}
        if kernels:
            best = min(kernels, key=kernels.get)
            line += f" Against {best}, which trains no network, it {versus(ours['median'], kernels[best])}."
        missing = [name for name, one in others.items() if "not installed" in one["note"]]
        line += f" Not there in {case['budget']:g} s or too large: {listed(late)}." if late else ""
        line += f" Not installed, so not compared: {listed(missing)}." if missing else ""
        parts.append(line)
    return "\n\n".join(parts)


def tables(content: Content) -> list[Table]:
    head = ["opponent", "seconds to goal", "seconds per step", "best mse", "held-out R²", "first call", "note"]
    found = []
    for case in content["cases"]:
        body = [
            [
                name, spread(one["times"]) if one["times"] else "not reached", seconds(one["step"]),
                number(one["best"]),
                number(one["r2"]), seconds(one["first_call"]), one["note"],
            ]
            for name, one in case["opponents"].items()
        ]  # fmt: skip
        caption = f"{name_of(case)}, n = {case['n']}, d = {case['d']}; goal: mse {GOAL:g}; median (quartiles)"
        found.append(Table(caption, head, body))
    return found


def panels(content: Content) -> list[Panel]:
    return [
        Panel(
            name_of(case), "seconds", "training mse",
            {name: [(max(t, 1e-4), max(e, 1e-16)) for t, e in one["trajectory"] if e is not None]
             for name, one in case["opponents"].items() if one["trajectory"]}, line=GOAL,
        )
        for case in content["cases"]
    ]  # fmt: skip


SPHERE = "sphere:n=256,d=16"
SIZES = {
    "tiny": {
        "cases": [("sphere:n=40,d=8", 256, 0.5)], "opponents": None, "budget": 0.3, "repeats": 1, "limit": None,
    },
    "quick": {
        "cases": [(SPHERE, 2**14, 2.0), ("digits", 2**13, 1.0)], "opponents": None, "budget": 1.5, "repeats": 2,
        "limit": 256,
    },
    "full": {
        "cases": [
            (SPHERE, 2**18, 2.0), (SPHERE, 2**20, 3.0), ("digits", 2**16, 2.3), ("diabetes", 2**16, 0.0),
        ],
        "opponents": None, "budget": 12.0, "repeats": 2, "limit": None,
    },
}  # fmt: skip
EXPERIMENT = Experiment(
    "race", 2, "How long to a given training error, against other second-order methods, SGD and Adam?", SIZES, measure,
    answer, tables, panels,
)  # fmt: skip
