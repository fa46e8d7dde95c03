"""Question 12: conjugate gradients with products alone, instead of n^3."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import power_law, summary
from bench.harness.problems import make
from bench.harness.words import interval, number, power_of_two, seconds, spread, versus

SOLVERS = ("gram", "sketch-cg", "cg")


def measure(points: list, d: int, m: int, b: float, repeats: int, device: str, data: str = "sphere") -> Content:
    """Train with each solver at growing n, in turn."""
    warm(device)
    rows = []
    for n in points:
        problem = make(f"{data}:n={n * 5 // 4},d={d}", m, b, device=device)
        runs: dict[str, list] = {solver: [] for solver in SOLVERS}
        for _ in range(repeats):
            for solver, results in runs.items():
                results.append(train(problem, solver=solver, max_steps=8))
        for solver, results in runs.items():
            records = [record for result in results for record in result.history[:-1]]
            solve = [record.phases["solve"] + record.phases["sketch"] + record.phases["jacobian"] for record in records]
            rows.append({
                "n": problem.n, "d": d, "m": m, "shift": b, "solver": solver, "data": data, "solve": summary(solve),
                "iterations": float(np.median([record.solver_iterations for record in records])),
                "worst": max(record.solver_residual for record in records), "steps": len(results[0].history) - 1,
                "whole": summary([result.seconds for result in results]), "peak": results[-1].history[-1].peak_bytes,
            })  # fmt: skip
    return {"rows": rows}


def answer(content: Content) -> str:
    parts = []
    for solver in SOLVERS:
        rows = [row for row in content["rows"] if row["solver"] == solver]
        fit = power_law([row["n"] for row in rows], [row["solve"]["median"] for row in rows])
        count = f"{number(rows[0]['iterations'])} to {number(rows[-1]['iterations'])} products"
        parts.append(f"{solver}: n^{interval(fit)}, {count} a solve.")
    last = {row["solver"]: row["solve"]["median"] for row in content["rows"][-len(SOLVERS) :]}
    verdict = versus(last["cg"], min(last["gram"], last["sketch-cg"]))
    return " ".join([
        *parts,
        f"At the largest n here plain CG, which forms no n x n matrix, {verdict} against the better of the two that "
        f"do.",
    ])


def tables(content: Content) -> list[Table]:
    head = ["n", "solver", "Jacobian, sketch and solve", "products", "worst residual", "steps", "whole run"]
    body = [
        [str(row["n"]), row["solver"], spread(row["solve"]), number(row["iterations"]), number(row["worst"]),
         str(row["steps"]), seconds(row["whole"]["median"])]
        for row in content["rows"]
    ]  # fmt: skip
    first = content["rows"][0]
    return [Table(f"{first['data']}, m = {power_of_two(first['m'])}, b = {first['shift']:g}", head, body)]


def panels(content: Content) -> list[Panel]:
    curves = {
        solver: [(row["n"], row["solve"]["median"]) for row in content["rows"] if row["solver"] == solver]
        for solver in SOLVERS
    }
    return [Panel("Jacobian, sketch and solve", "points n", "seconds a step", curves)]


EXPERIMENT = Experiment(
    "solvers", 12, "Would plain CG with Jacobian-vector products do, instead of n^3?",
    {
        "tiny": {"points": [32, 48, 64], "d": 8, "m": 512, "b": 0.5, "repeats": 1},
        "quick": {"points": [128, 256, 512, 1024], "d": 16, "m": 2**14, "b": 2.0, "repeats": 2},
        "full": {"points": [256, 512, 1024, 2048, 4096], "d": 16, "m": 2**16, "b": 2.5, "repeats": 3},
    },
    measure, answer, tables, panels,
)  # fmt: skip
