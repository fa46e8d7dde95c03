"""Full batch against mini-batches; points that arrive later against beginning anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.baselines.ours import MAX_STEPS
from bench.experiments.common import train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import Problem, make
from bench.harness.words import listed, number, power_of_two, spread
from gpu_sublinear import GaussNewton, TrainingResult

ARRIVING = 0.1  # of the points that are there first
EPOCHS = 2 * MAX_STEPS  # at most


def measure(
    data: list, m: int, shift: float, batches: list, goals: list, alpha: float, repeats: int, device: str
) -> Content:
    """Train to every goal with every batch size, and with a penalty; add a tenth of the points to a trained session."""
    warm(device)
    rows, penalised, later = [], [], []
    for name in data:
        problem = make(name, m, shift, device=device)
        base = {"data": name, "n": problem.n, "m": m, "shift": shift}
        for batch in (None, *(size for size in batches if size < problem.n)):
            train(problem, max(goals), batch_size=batch, max_steps=1, paired=True)  # compiles what is not yet compiled
            rows += [base | _to_goal(problem, batch, goal, repeats) for goal in goals]
            penalised.append(base | _penalised(problem, batch, alpha, repeats))
            later.append(base | _arrival(problem, batch, min(goals), repeats))
    return {"rows": rows, "penalised": penalised, "alpha": alpha, "later": later}


def _to_goal(problem: Problem, batch: int | None, goal: float, repeats: int) -> dict[str, Any]:
    last, found = _trained(problem, batch, repeats, goal=goal)
    side = -(-problem.n // -(-problem.n // (batch or problem.n)))  # points of the largest block
    return {
        "goal": goal, "reached": last.converged, "gram_bytes": 8 * side**2, "mse": last.history[-1].mse,
    } | found  # fmt: skip


def _penalised(problem: Problem, batch: int | None, alpha: float, repeats: int) -> dict[str, Any]:
    last, found = _trained(problem, batch, repeats, alpha=alpha)
    return {"settled": last.converged, "objective": last.final.objective} | found


def _trained(
    problem: Problem, batch: int | None, repeats: int, **options: Any
) -> tuple[TrainingResult, dict[str, Any]]:
    """Train several times; return the last run and what every row tells of it."""
    options |= {"batch_size": batch, "max_steps": EPOCHS, "solver": "gram", "paired": True}
    runs = [train(problem, **options) for _ in range(repeats)]
    last = runs[-1]
    return last, {
        "batch": batch, "epochs": len(last.history) - 1, "seconds": summary([run.seconds for run in runs]),
        "r2": problem.r2(last.network.predict(problem.X_test)),
    }  # fmt: skip


def _arrival(problem: Problem, batch: int | None, goal: float, repeats: int) -> dict[str, Any]:
    first = round(problem.n / (1 + ARRIVING))
    tolerance = min(float(np.sqrt(goal / np.mean(problem.y**2))), 0.999)
    trainer = GaussNewton(batch_size=batch, tolerance=tolerance, max_steps=EPOCHS, solver="gram")
    arrived, anew = [], []
    for _ in range(repeats):
        session = trainer.begin(problem.network(True), problem.X[:first], problem.y[:first])
        session.train()
        arrived.append(session.partial_fit(problem.X[first:], problem.y[first:]))
        anew.append(trainer.fit(problem.network(True), problem.X, problem.y))
    found = {"batch": batch, "goal": goal, "new": problem.n - first}
    return found | {"arrived": _cost(arrived), "anew": _cost(anew)}


def _cost(runs: list[TrainingResult]) -> dict[str, Any]:
    return {
        "whole": summary([run.seconds for run in runs]), "scan": summary([run.build_seconds for run in runs]),
        "epochs": len(runs[-1].history) - 1, "reached": runs[-1].converged,
    }  # fmt: skip


def _size(row: dict) -> str:
    return "all points" if row["batch"] is None else str(row["batch"])


def _ratio(row: dict, key: str) -> float:
    return row["arrived"][key]["median"] / row["anew"][key]["median"]


def answer(content: Content) -> str:
    return " ".join(
        part for name in dict.fromkeys(row["data"] for row in content["rows"]) for part in _told(name, content)
    )


def _told(name: str, content: Content) -> list[str]:
    """Return sentences about one data set."""
    rows = [row for row in content["rows"] if row["data"] == name]
    goal = min(row["goal"] for row in rows)
    rows = [row for row in rows if row["goal"] == goal]
    whole, *parts = rows
    reached = [row for row in parts if row["reached"]]
    said = [f"{row['epochs']} epochs of {row['batch']} points, in {spread(row['seconds'])}" for row in reached]
    lost = [str(row["batch"]) for row in parts if not row["reached"]]
    full = f"takes {whole['epochs']} steps, {spread(whole['seconds'])}" if whole["reached"] else "does not get there"
    sentences = [f"{name}, to mse {goal:g}: the full batch {full}"]
    sentences[0] += f"; batches take {listed(said)}." if said else "; no batch size tried gets there."
    if lost:
        sentences.append(f"Not reached in {EPOCHS} epochs with batches of {listed(lost)}.")
    if parts:
        least = min(parts, key=lambda row: row["gram_bytes"])
        sentences.append(
            f"The smallest batch divides the memory of a Gram matrix by "
            f"{whole['gram_bytes'] / least['gram_bytes']:.3g}; "
            f"held-out R² {least['r2']:.3f} against {whole['r2']:.3f}."
        )
    whole, *parts = (row for row in content["penalised"] if row["data"] == name)
    if parts:
        excess = [row["objective"] / whole["objective"] - 1 for row in parts]
        ratios = [f"{row['seconds']['median'] / whole['seconds']['median']:.2f} ({row['batch']})" for row in parts]
        sentences.append(
            f"With a ridge penalty, alpha = {content['alpha']:g}, batches "
            + ("all settle" if all(row["settled"] for row in parts) else "do not all settle")
            + f", {min(excess):+.2%} to {max(excess):+.2%} from the objective of the full batch, in {listed(ratios)} "
            f"of its time."
        )
    later = [row for row in content["later"] if row["data"] == name]
    ratios = [f"{_ratio(row, 'whole'):.2f} ({_size(row)}; its scan {_ratio(row, 'scan'):.2f})" for row in later]
    sentences.append(f"partial_fit of {later[0]['new']} new points costs {listed(ratios)} of a fit anew.")
    return sentences


def tables(content: Content) -> list[Table]:
    first = content["rows"][0]
    where = f"m = {power_of_two(first['m'])}, b = {first['shift']:g}"
    head = ["data", "n", "batch", "goal mse", "epochs", "seconds", "Gram matrix", "held-out R²"]
    body = [
        [
            row["data"], str(row["n"]), _size(row), f"{row['goal']:g}",
            str(row["epochs"]) if row["reached"] else f"not reached ({number(row['mse'])})", spread(row["seconds"]),
            f"{number(row['gram_bytes'] / 2**20)} MiB", f"{row['r2']:.3f}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    penalised_head = ["data", "batch", "epochs", "seconds", "objective", "held-out R²"]
    penalised = [
        [
            row["data"], _size(row), str(row["epochs"]) if row["settled"] else f"{row['epochs']}, not settled",
            spread(row["seconds"]), f"{row['objective']:.5g}", f"{row['r2']:.3f}",
        ]
        for row in content["penalised"]
    ]  # fmt: skip
    later_head = ["data", "batch", "new", "partial_fit", "epochs", "anew", "epochs", "ratio", "ratio of scans"]
    later = [
        [
            row["data"], _size(row), str(row["new"]), spread(row["arrived"]["whole"]), _epochs(row["arrived"]),
            spread(row["anew"]["whole"]), _epochs(row["anew"]), number(_ratio(row, "whole")),
            number(_ratio(row, "scan")),
        ]
        for row in content["later"]
    ]  # fmt: skip
    return [
        Table(f"full batch and mini-batches, {where}", head, body),
        Table(f"with a ridge penalty, alpha = {content['alpha']:g}, {where}", penalised_head, penalised),
        Table(f"a tenth more points: partial_fit against a fit anew, {where}", later_head, later),
    ]


def _epochs(cost: dict) -> str:
    return str(cost["epochs"]) if cost["reached"] else f"{cost['epochs']}, not reached"


def panels(content: Content) -> list[Panel]:
    goal = min(row["goal"] for row in content["rows"])
    rows = [row for row in content["rows"] if row["goal"] == goal and row["reached"]]

    def curves(value: Any) -> dict:
        found: dict[str, list] = {}
        for row in rows:
            found.setdefault(row["data"].split(":")[0], []).append((row["batch"] or row["n"], value(row)))
        return found

    return [
        Panel(f"to mse {goal:g}", "points in a batch", "seconds", curves(lambda row: row["seconds"]["median"])),
        Panel(f"to mse {goal:g}", "points in a batch", "epochs", curves(lambda row: row["epochs"])),
    ]


TINY = "sphere:n=40,d=8"
EXPERIMENT = Experiment(
    "batches", 0, "What do mini-batches cost and save, and what does it cost to add points to a trained network?",
    {
        "tiny": {"data": [TINY], "m": 512, "shift": 0.5, "batches": [16], "goals": [1e-2], "alpha": 1.0, "repeats": 1},
        "quick": {
            "data": ["sphere:n=400,d=16"], "m": 2**14, "shift": 1.0, "batches": [160, 40], "goals": [1e-3, 1e-5],
            "alpha": 1.0, "repeats": 1,
        },
        "full": {
            "data": ["sphere:n=2000,d=16", "digits"], "m": 2**15, "shift": 1.5, "batches": [800, 400, 100],
            "goals": [1e-3, 1e-6], "alpha": 1.0, "repeats": 1,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
