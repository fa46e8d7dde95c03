"""Question 14: other activations in the engine: steps, seconds, fired pairs, error on training and held-out points."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import GOAL, step_seconds
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import Problem, make
from bench.harness.words import listed, number, percent, power_of_two, spread
from gpu_sublinear import GaussNewton, ShiftedReluNetwork, TrainingResult, get_device
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.model.activation import activation_of
from gpu_sublinear.training.warmup import warm_up

NAMES = ("relu", "softshrink", "hardshrink", "leaky:0.1", "abs")


def network_of(problem: Problem, activation: str = "relu") -> ShiftedReluNetwork:
    """Draw a paired network of which all neurons are looked at."""
    return ShiftedReluNetwork.initialize(
        problem.m, problem.d, shift=problem.shift, seed=problem.seed, paired=True, sampling="explicit",
        device=get_device(problem.device), activation=activation,
    )  # fmt: skip


def trained(problem: Problem, trainer: GaussNewton, activation: str = "relu") -> TrainingResult:
    """Train a fresh network."""
    return trainer.fit(network_of(problem, activation), problem.X, problem.y)


def trainer_for(problem: Problem, steps: int, **options: object) -> GaussNewton:
    """Return a trainer that stops at the common goal; lists for all, so that they are compared alike."""
    relative = min(float(np.sqrt(GOAL / np.mean(problem.y**2))), 0.999)
    return GaussNewton(tolerance=relative, max_steps=steps, mask="lists", **options)  # type: ignore[arg-type]


def measure(data: list, m: int, shifts: list, repeats: int, limit: int | None, device: str, steps: int = 20) -> Content:
    """Train every activation on the same weights and points."""
    for name in NAMES:
        warm_up(get_device(device), GaussNewton(mask="lists"), activation=activation_of(name))
    rows = []
    for name in data:
        for b in shifts:
            problem = make(name, m, b, device=device, limit=limit)
            for activation in NAMES:
                base = {"data": name, "n": problem.n, "shift": b, "activation": activation}
                rows.append(
                    base
                    | {"all_rows": bool(activation_of(activation).slope)}
                    | _run(problem, activation, repeats, steps)
                )
    return {"rows": rows, "m": m}


def _run(problem: Problem, activation: str, repeats: int, steps: int) -> dict:
    try:
        runs = [trained(problem, trainer_for(problem, steps), activation) for _ in range(repeats)]
    except SilentPointsError as reason:
        return {"error": str(reason)}
    history = runs[0].history
    return {
        "steps": len(history) - 1, "reached": runs[0].converged, "mse": min(record.mse for record in history),
        "fired": history[0].fired / problem.m, "moved": history[0].moved_neurons / problem.m,
        "whole": summary([run.seconds for run in runs]), "step": summary([step_seconds(run.history) for run in runs]),
        "r2": problem.r2(runs[0].network.predict(problem.X_test)),
    }  # fmt: skip


def answer(content: Content) -> str:
    rows = [row for row in content["rows"] if "error" not in row]
    told = []
    for name in NAMES:
        some = [row for row in rows if row["activation"] == name]
        if not some:
            told.append(f"{name}: no run, because some point fired no neuron")
            continue
        ratios = [
            row["step"]["median"] / plain["step"]["median"]
            for row in some
            if name != "relu" and (plain := _plain(rows, row))
        ]
        cost = (
            f", a step took {number(min(ratios), 2)} to {number(max(ratios), 2)} times that of relu" if ratios else ""
        )
        told.append(
            f"{name}: {sum(row['reached'] for row in some)} of {len(some)} runs reach mse {GOAL:g}, "
            f"{percent(min(row['moved'] for row in some))} to {percent(max(row['moved'] for row in some))} of all rows "
            f"move in the first step{cost}, held-out R² {min(row['r2'] for row in some):.3f} to "
            f"{max(row['r2'] for row in some):.3f}"
        )
    everyone = listed(sorted({row["activation"] for row in rows if row["all_rows"]}) or ["none"])
    return (
        f"At m = {power_of_two(content['m'])}, by lists of fired pairs: {'; '.join(told)}. A slope everywhere "
        f"({everyone}) moves all rows in every step, which is linear in the width."
    )


def _plain(rows: list[dict], row: dict) -> dict | None:
    """Return the row of relu on the same problem."""
    same = (one for one in rows if one["activation"] == "relu" and one["data"] == row["data"])
    return next((one for one in same if one["shift"] == row["shift"]), None)


def tables(content: Content) -> list[Table]:
    head = [
        "data",
        "b",
        "activation",
        "steps",
        "whole run",
        "step",
        "fired",
        "rows moved",
        "training mse",
        "held-out R²",
    ]
    body = [
        [
            row["data"], f"{row['shift']:g}", row["activation"],
            *([row["error"][:40], *["-"] * 6] if "error" in row else [
                str(row["steps"]) if row["reached"] else f"not reached ({row['steps']})",
                spread(row["whole"]), spread(row["step"]), percent(row["fired"]), percent(row["moved"]),
                number(row["mse"]), number(row["r2"]),
            ]),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    return [
        Table(f"m = {power_of_two(content['m'])}, paired, float32, goal mse {GOAL:g}; fired: of all pairs", head, body)
    ]


def panels(content: Content) -> list[Panel]:
    rows = [row for row in content["rows"] if "error" not in row]
    found = []
    for name in sorted({row["data"] for row in rows}):
        curves = {
            activation: [(row["shift"], row["step"]["median"]) for row in rows
                         if row["data"] == name and row["activation"] == activation]
            for activation in NAMES
        }  # fmt: skip
        found.append(Panel(name, "shift b", "seconds a step", curves, "y"))
    return found


EXPERIMENT = Experiment(
    "activations", 14, "What do other piecewise-linear activations cost and give in the engine?",
    {
        "tiny": {"data": ["sphere:n=40,d=8"], "m": 512, "shifts": [0.5], "repeats": 1, "limit": None, "steps": 4},
        "quick": {"data": ["sphere:n=320,d=16", "digits"], "m": 2**13, "shifts": [1.0, 2.0], "repeats": 1,
        "limit": 200},
        "full": {
            "data": ["sphere:n=320,d=16", "digits"], "m": 2**15, "shifts": [1.0, 2.0], "repeats": 2, "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
