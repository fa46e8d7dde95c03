"""Question 11: which solution is found, against SGD and Adam."""

from __future__ import annotations

import numpy as np

from bench.baselines import BASELINES, OURS
from bench.baselines.common import DoesNotFitError, Fit, NotInstalledError
from bench.experiments.common import DATA_SETS, TINY, distance, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import make
from bench.harness.words import listed, number, power_of_two
from gpu_sublinear.foresight.ntk import NtkRidge

TRAINERS = (OURS, "torch SGD, momentum", "torch Adam", "torch L-BFGS")


def measure(data: list, m: int, shifts: list, goal: float, budget: float, limit: int | None, device: str) -> Content:
    """Train the same network from the same weights by each method to the same error; compare where they end."""
    warm(device)
    return {
        "rows": [_ends(make(name, m, b, device=device, limit=limit), goal, budget) for name in data for b in shifts]
    }


def _ends(problem, goal, budget) -> dict:
    start, outputs, runs = problem.weights()[0], {}, {}
    for name in TRAINERS:
        try:
            fit: Fit = BASELINES[name](problem, goal, budget)
        except (NotInstalledError, DoesNotFitError) as reason:
            runs[name] = {"note": str(reason)}
            continue
        outputs[name] = fit.predict(problem.X_test)
        moved = np.linalg.norm(fit.weights() - start, axis=1) if fit.weights else np.zeros(1)
        runs[name] = {
            "note": fit.note, "mse": fit.best, "r2": problem.r2(outputs[name]),
            "movement": float(np.linalg.norm(moved)),
            "largest": float(moved.max()), "reached": fit.best <= goal,
        }  # fmt: skip
    scale = float(problem.y_test.std())
    outputs["NTK ridge"] = NtkRidge(problem.shift).fit(problem.X, problem.y).predict(problem.X_test)
    runs["NTK ridge"] = {"note": "closed form", "mse": 0.0, "r2": problem.r2(outputs["NTK ridge"]), "reached": True}
    between = {a: distance(outputs[a], outputs[OURS], scale) for a in outputs}
    return {
        "data": problem.data,
        "n": problem.n,
        "m": problem.m,
        "shift": problem.shift,
        "runs": runs,
        "between": between,
    }


def answer(content: Content) -> str:
    parts = []
    for row in content["rows"]:
        ours = row["runs"][OURS]
        told = []
        for name, run in row["runs"].items():
            if name == OURS or "r2" not in run:
                continue
            late = "" if run["reached"] else f", stopped at mse {number(run['mse'])}"
            told.append(f"{name} {run['r2']:.3f} (distance {row['between'][name]:.2g}{late})")
        parts.append(
            f"{row['data']}, b = {row['shift']:g}: held-out R² of Gauss-Newton {ours['r2']:.3f}, {listed(told)}."
        )
    missing = sorted({n for row in content["rows"] for n, run in row["runs"].items() if "not installed" in run["note"]})
    return " ".join(parts) + (f" Not installed: {listed(missing)}." if missing else "")


def tables(content: Content) -> list[Table]:
    head = ["method", "training mse", "held-out R²", "distance to Gauss-Newton", "||W - W_0||", "largest row", "note"]
    return [
        Table(
            f"{row['data']}, b = {row['shift']:g}, m = {power_of_two(row['m'])}; same initial weights", head,
            [
                [name, number(run.get("mse")), number(run.get("r2")), number(row["between"].get(name)),
                 number(run.get("movement")), number(run.get("largest")), run["note"]]
                for name, run in row["runs"].items()
            ],
        )
        for row in content["rows"]
    ]  # fmt: skip


def panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for k, row in enumerate(content["rows"]):
        for name, run in row["runs"].items():
            if run.get("r2") is not None:
                curves.setdefault(name, []).append((k, run["r2"]))
    return [Panel("held out", "case (rows of the tables in order)", "R²", curves, "")]


EXPERIMENT = Experiment(
    "bias", 11, "Which solution is found: test error and distance against SGD and Adam?",
    {
        "tiny": {"data": [TINY], "m": 256, "shifts": [0.5], "goal": 1e-3, "budget": 0.3, "limit": None},
        "quick": {"data": DATA_SETS[:2], "m": 2**12, "shifts": [0.0, 1.5], "goal": 1e-4, "budget": 4.0, "limit": 200},
        "full": {"data": DATA_SETS[:3], "m": 2**14, "shifts": [0.0, 1.0, 2.0], "goal": 1e-6, "budget": 12.0,
        "limit": 512},
    },
    measure, answer, tables, panels,
)  # fmt: skip
