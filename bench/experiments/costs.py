"""Is ``--solver auto`` right? Estimated against measured seconds of each solver on the first system."""

from __future__ import annotations

from itertools import product

import numpy as np

from bench.experiments.common import warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.words import power_of_two
from gpu_sublinear import GaussNewton, ShiftedReluNetwork, SketchOptions, get_device
from gpu_sublinear.data.sources import load
from gpu_sublinear.devices.clock import PhaseClock
from gpu_sublinear.linear.solver_costs import cheapest_solver, solver_seconds
from gpu_sublinear.linear.system import Place
from gpu_sublinear.model.problem import Problem
from gpu_sublinear.training.prepare import prepare

SOLVERS = ("gram", "sketch-cg", "cg")
NEAR = 4 / 3  # times the best solver's seconds that still count as a good choice


def measure(grid: list, repeats: int, device: str) -> Content:
    """Solve with every solver at every (n, d, b, m)."""
    warm(device)
    return {"rows": [_case(*case, repeats, device) for case in grid]}


def _case(n: int, d: int, shift: float, m: int, repeats: int, device_name: str) -> dict:
    """Solve the first system of a sphere problem with each solver; keep the median seconds."""
    device = get_device(device_name)
    data = load(f"sphere:n={n},d={d}")
    X, y = device.asarray(data.X, "float32"), device.asarray((data.y - data.y.mean()) / data.y.std())
    network = ShiftedReluNetwork.initialize(m, d, shift=shift, seed=1, device=device)
    run = prepare(GaussNewton(mask="lists"), network, Problem(X, y))
    active = run.index.query(shift)
    seconds, iterations = {}, {}
    for solver in SOLVERS:
        run.options = GaussNewton(mask="lists", solver=solver)
        samples = []
        for _ in range(repeats):
            run.gram = type(run.gram)(device, X, m)
            clock = PhaseClock(device)
            solution = run.solve(Place(active), y, 0, clock)
            samples.append(sum(clock.seconds.values()))
        seconds[solver], iterations[solver] = float(np.median(samples)), solution.iterations
    rows = SketchOptions().rows(n)
    chosen = cheapest_solver(active, X, SketchOptions())
    return {
        "n": n, "d": d, "b": shift, "m": m, "nnz": active.nnz, "measured": seconds, "iterations": iterations,
        "estimated": solver_seconds(active.pairs, active.nnz, n, d, rows), "chosen": chosen,
        "loss": seconds[chosen] / min(seconds.values()),
    }  # fmt: skip


def answer(content: Content) -> str:
    losses = [row["loss"] for row in content["rows"]]
    near = sum(loss <= NEAR for loss in losses)
    return (
        f"The solver chosen is within a third of the best in {near} of {len(losses)} cases; at worst it takes "
        f"{max(losses):.1f} times as long."
    )


def tables(content: Content) -> list[Table]:
    head = [
        "n", "d", "b", "m", "fired pairs", "gram, ms", "sketch-cg, ms", "cg, ms (steps)", "chosen", "chosen / best",
    ]  # fmt: skip
    body = []
    for row in content["rows"]:
        cells = [f"{row['measured'][name] * 1e3:.1f} ({row['estimated'][name] * 1e3:.1f})" for name in SOLVERS]
        cells[2] += f" {row['iterations']['cg']}"
        size = [str(row["n"]), str(row["d"]), str(row["b"]), power_of_two(row["m"]), f"{row['nnz']:,}"]
        body.append([*size, *cells, row["chosen"], f"{row['loss']:.2f}"])
    return [Table("seconds of the first solve, in brackets what the cost model says", head, body, (8,))]


def panels(content: Content) -> list[Panel]:
    curves = {
        solver: [(row["estimated"][solver], row["measured"][solver]) for row in content["rows"]] for solver in SOLVERS
    }
    return [Panel("first solve", "estimated seconds", "measured seconds", curves)]


EXPERIMENT = Experiment(
    "costs", 0, "Does the cost model choose the fastest solver?",
    {
        "tiny": {"grid": [(24, 4, 0.5, 256), (48, 4, 0.5, 256)], "repeats": 1},
        "full": {"grid": list(product((100, 400, 1600), (8, 64), (1.0, 2.5), (2**14, 2**17))), "repeats": 5},
    },
    measure, answer, tables, panels,
)  # fmt: skip
