"""Question 9: how wide is wide enough."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import CLUSTERED, DATA_SETS, GOAL, TINY, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import Problem, make
from bench.harness.words import number, power_of_two
from gpu_sublinear.errors import SilentPointsError


def measure(data: list, widths: list, shifts: list, seeds: int, limit: int | None, device: str) -> Content:
    """Train at growing widths; a width is wide enough if every seed reaches the goal."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            for m in widths:
                runs = [_steps(make(name, m, b, seed, device, limit)) for seed in range(1, seeds + 1)]
                rows.append({"data": name, "n": runs[0]["n"], "shift": b, "m": m, "runs": runs})
    return {"rows": rows}


def _steps(problem: Problem) -> dict:
    try:
        result = train(problem, max_steps=30)
    except SilentPointsError:
        return {"n": problem.n, "steps": None, "mse": None}
    steps = len(result.history) - 1 if result.converged else None
    return {
        "n": problem.n,
        "steps": steps,
        "mse": min(record.mse for record in result.history if np.isfinite(record.mse)),
    }


def least_widths(rows: list[dict]) -> dict[tuple[str, float], tuple[int | None, int]]:
    """Return by (data, b) the least width from which on every seed converges, and n."""
    found: dict[tuple[str, float], tuple[int | None, int]] = {}
    for row in sorted(rows, key=lambda row: -row["m"]):
        key = (row["data"], row["shift"])
        good = all(run["steps"] is not None for run in row["runs"])
        least, alive = found.get(key, (None, 1))
        if alive:
            found[key] = (row["m"], row["n"]) if good else (least, 0)
    return found


def answer(content: Content) -> str:
    parts = []
    n_of = {row["data"]: row["n"] for row in content["rows"]}
    for (name, b), (m, _) in sorted(least_widths(content["rows"]).items()):
        told = f"m = {power_of_two(m)} (m / n = {m / n_of[name]:.3g})" if m else "no width tried"
        parts.append(f"{name}, b = {b:g}: {told}")
    return (
        f"Least width tried from which on every seed reaches mse {GOAL:g}: {'; '.join(parts)}. The theorem asks for "
        f"about "
        "n^100, which is not runnable; it is not what training needs."
    )


def tables(content: Content) -> list[Table]:
    widths = sorted({row["m"] for row in content["rows"]})
    cells: dict[tuple[str, float], list[str]] = {}
    for row in sorted(content["rows"], key=lambda row: row["m"]):
        steps = [run["steps"] for run in row["runs"]]
        best = min((run["mse"] for run in row["runs"] if run["mse"] is not None), default=None)
        text = "/".join(map(str, steps)) if None not in steps else f"x ({number(best, 2)})"
        cells.setdefault((row["data"], row["shift"]), []).append(text)
    body = [[name, f"{b:g}", *row] for (name, b), row in cells.items()]
    caption = f"steps to mse {GOAL:g} by seed; x: some seed stalled (best mse)"
    return [Table(caption, ["data", "b", *map(power_of_two, widths)], body)]


def panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for row in content["rows"]:
        steps = [run["steps"] for run in row["runs"]]
        if None not in steps:
            name = f"{row['data'].split(':')[0]}, b={row['shift']:g}"
            curves.setdefault(name, []).append((row["m"] / row["n"], float(np.median(steps))))
    return [Panel("steps to the goal", "m / n", "steps", curves, "x")]


EXPERIMENT = Experiment(
    "enough", 9, "How wide is wide enough: what m / n is really needed?",
    {
        "tiny": {"data": [TINY], "widths": [64, 512], "shifts": [0.5], "seeds": 1, "limit": None},
        "quick": {
            "data": DATA_SETS, "widths": [2**8, 2**10, 2**12, 2**14], "shifts": [0.0, 1.0], "seeds": 2, "limit": 200,
        },
        "full": {
            "data": [*DATA_SETS, CLUSTERED], "widths": [2**k for k in range(8, 17, 2)], "shifts": [0.0, 1.0, 2.0, 3.0],
            "seeds": 3, "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
