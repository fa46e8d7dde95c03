"""Question 4: does today's hardware profit from the sparsity, and where does it lose."""

from __future__ import annotations

import numpy as np

from bench.baselines import BASELINES, OURS, SECOND_ORDER
from bench.baselines.common import Fit
from bench.experiments.common import GOAL, TINY, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import make
from bench.harness.words import listed, number, power_of_two, spread, versus

DENSE = SECOND_ORDER[:3]  # Levenberg-Marquardt takes the same products and some more


def measure(data: str, cases: list, repeats: int, budget: float, device: str) -> Content:
    """Race the engine against dense Gauss-Newton on a grid of (m, b), in turn."""
    warm(device)
    rows = []
    for m, b in cases:
        problem = make(data, m, b, device=device)
        fits: dict[str, list[Fit]] = {name: [] for name in (OURS, *DENSE)}
        for _ in range(repeats):
            for name, runs in fits.items():
                runs.append(BASELINES[name](problem, GOAL, budget))
        row = {"m": m, "shift": b, "n": problem.n, "d": problem.d, "data": data}
        rows.append(row | {"opponents": {name: _times(runs) for name, runs in fits.items()}})
    return {"rows": rows}


def _times(runs: list[Fit]) -> dict:
    steps = [np.diff([moment for moment, _ in run.trajectory]) for run in runs]
    return {
        "whole": summary([run.trajectory[-1][0] for run in runs]),
        "step": summary([float(np.median(some[1:] if len(some) > 1 else some)) for some in steps if len(some)] or [0]),
        "steps": len(runs[0].trajectory) - 1, "best": runs[0].best,
    }  # fmt: skip


def strongest(row: dict, kind: str) -> tuple[str, float]:
    """Return the fastest dense opponent that reached the goal (any, where none did), with its seconds."""
    there = {name: row["opponents"][name] for name in DENSE}
    arrived = {name: one for name, one in there.items() if one["best"] <= GOAL} or there
    name = min(arrived, key=lambda key: arrived[key][kind]["median"])
    return name, arrived[name][kind]["median"]


def answer(content: Content) -> str:
    verdicts: dict[str, dict[str, list[str]]] = {kind: {} for kind in ("step", "whole")}
    for row in content["rows"]:
        for kind, found in verdicts.items():
            word = versus(row["opponents"][OURS][kind]["median"], strongest(row, kind)[1]).split()[0]
            found.setdefault(word, []).append(f"m = {power_of_two(row['m'])}, b = {row['shift']:g}")
    parts = []
    for kind, label in (("whole", "whole run (first scan and all steps)"), ("step", "step after the first")):
        told = [f"{word} in {len(where)} ({'; '.join(where)})" for word, where in sorted(verdicts[kind].items())]
        parts.append(
            f"By {label}, against the strongest dense opponent at each size, the engine {listed(told)} of "
            f"{len(content['rows'])} cases."
        )
    last = max(content["rows"], key=lambda row: (row["m"], row["shift"]))
    name, theirs = strongest(last, "whole")
    verdict = versus(last["opponents"][OURS]["whole"]["median"], theirs)
    plain = versus(last["opponents"][OURS]["whole"]["median"], last["opponents"]["dense GN"]["whole"]["median"])
    size = f"m = {power_of_two(last['m'])}, b = {last['shift']:g}"
    return " ".join([*parts, f"At {size} it {verdict} against {name}, and {plain} against plain dense GN."])


def tables(content: Content) -> list[Table]:
    found = []
    for kind, label in (("whole", "whole run to the goal"), ("step", "step after the first")):
        body = [
            [
                power_of_two(row["m"]), f"{row['shift']:g}",
                *(spread(row["opponents"][name][kind]) for name in (OURS, *DENSE)),
                number(strongest(row, kind)[1] / row["opponents"][OURS][kind]["median"]),
            ]
            for row in content["rows"]
        ]  # fmt: skip
        first = content["rows"][0]
        caption = f"{label}, {first['data']}, n = {first['n']}, goal mse {GOAL:g}; a ratio below 1 means that we lose"
        found.append(Table(caption, ["m", "b", OURS, *DENSE, "best dense / ours"], body))
    return found


def panels(content: Content) -> list[Panel]:
    shifts = sorted({row["shift"] for row in content["rows"]})
    curves = {
        f"b = {b:g}": [
            (row["m"], strongest(row, "whole")[1] / row["opponents"][OURS]["whole"]["median"])
            for row in content["rows"] if row["shift"] == b
        ]
        for b in shifts
    }  # fmt: skip
    return [Panel("whole run: above the line we win", "width m", "best dense / ours", curves, line=1.0)]


def grid(powers: range, shifts: tuple[float, ...]) -> list[tuple[int, float]]:
    return [(2**k, b) for k in powers for b in shifts]


SPHERE = "sphere:n=320,d=16"
EXPERIMENT = Experiment(
    "hardware", 4, "Does today's hardware profit from the sparsity, and where does it lose?",
    {
        "tiny": {"data": TINY, "cases": [(256, 0.5), (512, 0.5)], "repeats": 1, "budget": 1.0},
        "quick": {"data": SPHERE, "cases": grid(range(12, 17, 2), (0.0, 1.0, 2.0)), "repeats": 2, "budget": 4.0},
        "full": {"data": SPHERE, "cases": grid(range(12, 21, 2), (0.0, 1.0, 2.0, 3.0)), "repeats": 3,
        "budget": 30.0},
    },
    measure, answer, tables, panels,
)  # fmt: skip
