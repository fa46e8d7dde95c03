"""How near the minimum of the penalised loss a run stops, and what a smaller tolerance costs."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import warm
from bench.experiments.robust import problem_of
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import Problem
from bench.harness.words import number, power_of_two
from gpu_sublinear import GaussNewton

LONGEST = 1e-8  # tolerance of the run that others are compared with


def measure(
    cases: list, n: int, m: int, shift: float, alphas: list, tolerances: list, steps: int, device: str
) -> Content:
    """Train every case with every penalty to every tolerance, and once to ``LONGEST``."""
    warm(device)
    rows = []
    for case in cases:
        problem = problem_of(case, n, m, shift, device)
        for alpha in alphas:
            runs = [_run(problem, alpha, tolerance, steps) for tolerance in (*tolerances, LONGEST)]
            lowest = min(min(run["objectives"]) for run in runs)
            rows.append({"case": case, "n": problem.n, "alpha": alpha, "lowest": lowest, "runs": runs[:-1]})
    return {"rows": rows, "m": m, "shift": shift, "tolerances": list(tolerances), "steps": steps}


def _run(problem: Problem, alpha: float, tolerance: float, steps: int) -> dict:
    trainer = GaussNewton(alpha=alpha, tolerance=tolerance, max_steps=steps)
    result = trainer.fit(problem.network(paired=True), problem.X, problem.y)
    objectives = [record.objective for record in result.history]
    return {"objectives": objectives, "seconds": result.seconds, "settled": result.converged}


def above(row: dict, k: int) -> float:
    """Return by what part the k-th run of a row ends above the lowest objective found."""
    return min(row["runs"][k]["objectives"]) / row["lowest"] - 1


def steps_of(row: dict, k: int) -> int:
    return len(row["runs"][k]["objectives"]) - 1


def answer(content: Content) -> str:
    rows, parts = content["rows"], []
    for k, tolerance in enumerate(content["tolerances"]):
        excess = [above(row, k) for row in rows]
        took, ended = [steps_of(row, k) for row in rows], sum(row["runs"][k]["settled"] for row in rows)
        parts.append(
            f"{tolerance:g}: {np.mean(excess):.2%} above on average, {max(excess):.2%} at worst, {np.median(took):g} "
            f"steps ({ended} of {len(rows)} settled)"
        )
    return (
        f"By tolerance, against the lowest objective found (tolerance {LONGEST:g}, at most {content['steps']} steps): "
        f"{'; '.join(parts)} "
        "(medians of the steps). Kinks make the last percent slow; a smaller tolerance buys it."
    )


def tables(content: Content) -> list[Table]:
    head = ["case", "n", "alpha", "lowest objective"]
    for tolerance in content["tolerances"]:
        head += [f"above, {tolerance:g}", "steps"]
    body = []
    for row in content["rows"]:
        cells = [row["case"], str(row["n"]), f"{row['alpha']:g}", number(row["lowest"], 4)]
        for k in range(len(content["tolerances"])):
            cells += [f"{above(row, k):.2%}", str(steps_of(row, k))]
        body.append(cells)
    caption = (
        f"m = {power_of_two(content['m'])}, b = {content['shift']:g}; the objective above the lowest found in at most "
        f"{content['steps']} steps, by tolerance"
    )
    return [Table(caption, head, body)]


def panels(content: Content) -> list[Panel]:
    found = []
    for case in dict.fromkeys(row["case"] for row in content["rows"]):
        curves = {}
        for row in content["rows"]:
            if row["case"] == case:
                best = np.minimum.accumulate(row["runs"][-1]["objectives"]) / row["lowest"] - 1
                curves[f"alpha = {row['alpha']:g}"] = [(k, float(e)) for k, e in enumerate(best) if e > 0]
        found.append(Panel(case, "step", "objective above the lowest, relative", curves, "y"))
    return found


_CASES = ["clusters .3 random", "clusters .03 smooth", "digits 10 % flipped", "diabetes"]
EXPERIMENT = Experiment(
    "settle", 0, "How near the minimum does a run with a penalty stop, and what does a smaller tolerance cost?",
    {
        "tiny": {"cases": _CASES[-1:], "n": 48, "m": 2**10, "shift": 1.0, "alphas": [1.0], "tolerances": [1e-4, 1e-5],
        "steps": 15},
        "quick": {"cases": _CASES[1:], "n": 128, "m": 2**12, "shift": 1.0, "alphas": [10.0, 1.0],
        "tolerances": [1e-4, 1e-5], "steps": 100},
        "full": {"cases": _CASES, "n": 256, "m": 2**15, "shift": 2.0, "alphas": [10.0, 1.0, 0.1, 0.01],
        "tolerances": [1e-4, 1e-5, 1e-6], "steps": 300},
    },
    measure, answer, tables, panels,
)  # fmt: skip
