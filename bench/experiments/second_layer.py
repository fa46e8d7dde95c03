"""Question 14: the second layer trained together with the first, in the engine: steps, seconds, held-out error."""

from __future__ import annotations

import numpy as np

from bench.experiments.activations import trained, trainer_for
from bench.experiments.common import GOAL
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import Problem, make
from bench.harness.words import number, power_of_two, spread
from gpu_sublinear import CGOptions, GaussNewton, get_device
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.training.warmup import warm_up

EXACT = CGOptions(1e-8)  # so that steps differ by what is trained, not by how well the system is solved


def measure(data: list, m: int, shifts: list, seeds: int, limit: int | None, device: str, steps: int = 20) -> Content:
    """Train the first layer alone, and both, from the same weights."""
    for both in (False, True):
        warm_up(get_device(device), GaussNewton(mask="lists", solver="gram", both_layers=both))
    rows = []
    for name in data:
        for b in shifts:
            for both in (False, True):
                runs = [_run(make(name, m, b, seed, device, limit), both, steps) for seed in range(1, seeds + 1)]
                good = [run for run in runs if run]
                if good:
                    rows.append({
                        "data": name,
                        "shift": b,
                        "both": both,
                        "runs": good,
                        "whole": summary([r["seconds"] for r in good]),
                    })
    return {"rows": rows, "m": m, "seeds": seeds}


def _run(problem: Problem, both: bool, steps: int) -> dict | None:
    trainer = trainer_for(problem, steps, solver="gram", cg=EXACT, both_layers=both)
    try:
        result = trained(problem, trainer)
    except SilentPointsError:
        return None
    a = result.network.device.to_host(result.network.signs)
    return {
        "steps": len(result.history) - 1, "reached": result.converged, "seconds": result.seconds,
        "mse": min(record.mse for record in result.history), "r2": problem.r2(result.network.predict(problem.X_test)),
        "products": float(np.median([record.solver_iterations for record in result.history[:-1]] or [0])),
        "moved": float(abs(abs(a) - 1).max(initial=0.0)),
    }  # fmt: skip


def mean(row: dict, key: str) -> float:
    return float(np.mean([run[key] for run in row["runs"]]))


def pairs(rows: list[dict]) -> list[tuple[dict, dict]]:
    """Return (first layer, both layers) of every problem that has both."""
    firsts = {(row["data"], row["shift"]): row for row in rows if not row["both"]}
    return [(firsts[key], row) for row in rows if row["both"] and (key := (row["data"], row["shift"])) in firsts]


def answer(content: Content) -> str:
    found = pairs(content["rows"])
    if not found:
        return "No run: some point fired no neuron in every problem."
    gains = [mean(both, "r2") - mean(first, "r2") for first, both in found]
    steps = [mean(both, "steps") - mean(first, "steps") for first, both in found]
    times = [both["whole"]["median"] / first["whole"]["median"] for first, both in found]
    reached = [sum(run["reached"] for pair in found for run in pair[k]["runs"]) for k in (0, 1)]
    total = [sum(len(pair[k]["runs"]) for pair in found) for k in (0, 1)]
    products = [mean(both, "products") for _, both in found]
    farthest = max(run["moved"] for _, both in found for run in both["runs"])
    return (
        f"At m = {power_of_two(content['m'])}, {content['seeds']} seeds: training the second layer too changes the "
        f"steps by {min(steps):+.1f} to {max(steps):+.1f}, the mean held-out R² by {min(gains):+.4f} to "
        f"{max(gains):+.4f} and the time of a run by a factor of {number(min(times), 2)} to {number(max(times), 2)}. "
        f"Mse {GOAL:g} is reached in {reached[0]} of {total[0]} runs with the first layer and {reached[1]} of "
        f"{total[1]} with both. A solve of both layers took {number(min(products), 2)} to {number(max(products), 2)} "
        f"products with G, to a residual of {EXACT.tolerance:g}; no |a_r| moved further from 1 than "
        f"{number(farthest, 2)}."
    )


def tables(content: Content) -> list[Table]:
    head = [
        "data",
        "b",
        "layers",
        "steps by seed",
        "whole run",
        "training mse",
        "held-out R²",
        "products",
        "farthest a",
    ]
    body = [
        [
            row["data"], f"{row['shift']:g}", "both" if row["both"] else "first",
            "/".join(str(run["steps"]) if run["reached"] else "x" for run in row["runs"]), spread(row["whole"]),
            number(mean(row, "mse")), number(mean(row, "r2"), 4), number(mean(row, "products"), 2),
            number(max(run["moved"] for run in row["runs"])),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    caption = f"m = {power_of_two(content['m'])}, paired, float32, goal mse {GOAL:g}; x: not reached; means over seeds"
    return [Table(caption, head, body)]


def panels(content: Content) -> list[Panel]:
    def curves(name: str, key: str) -> dict:
        return {
            "both layers" if both else "first layer": [
                (row["shift"], mean(row, key)) for row in content["rows"] if row["data"] == name and row["both"] == both
            ]
            for both in (False, True)
        }

    names = sorted({row["data"] for row in content["rows"]})
    return [Panel(name, "shift b", "held-out R²", curves(name, "r2"), "") for name in names]


EXPERIMENT = Experiment(
    "second_layer", 14, "What does it change to train the second layer together with the first?",
    {
        "tiny": {"data": ["sphere:n=40,d=8"], "m": 512, "shifts": [0.5], "seeds": 1, "limit": None, "steps": 4},
        "quick": {"data": ["sphere:n=320,d=16", "digits"], "m": 2**12, "shifts": [1.0, 2.0], "seeds": 2, "limit": 200},
        "full": {
            "data": ["sphere:n=320,d=16", "digits", "breast_cancer"], "m": 2**14, "shifts": [1.0, 2.0], "seeds": 3,
            "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
