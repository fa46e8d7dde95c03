"""Is ``--solver auto`` right? Estimated against measured seconds of each solver: ``python -m bench costs``."""

from __future__ import annotations

from itertools import product

import numpy as np

from bench.harness.records import save
from bench.harness.words import power_of_two
from gpu_sublinear.data.sources import load
from gpu_sublinear.devices import get_device
from gpu_sublinear.linear.solver_costs import cheapest_solver, solver_seconds
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import SketchOptions
from gpu_sublinear.step.history import PhaseClock
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.prepare import prepare
from gpu_sublinear.training.warmup import warm_up

GRID = tuple(product((100, 400, 1600), (8, 64), (1.0, 2.5), (2**14, 2**17)))
SOLVERS = ("gram", "sketch-cg", "cg")


def measure(n: int, d: int, shift: float, m: int, device_name: str, repeats: int) -> dict:
    """Solve the first system of a sphere problem with each solver; keep the median seconds."""
    device = get_device(device_name)
    data = load(f"sphere:n={n},d={d}")
    X, y = device.asarray(data.X, "float32"), device.asarray((data.y - data.y.mean()) / data.y.std())
    network = ShiftedReluNetwork.initialize(m, d, shift=shift, seed=1, device=device)
    run = prepare(GaussNewton(), network, X, y)
    active = run.index.query(shift)
    seconds, iterations = {}, {}
    for solver in SOLVERS:
        run.trainer = GaussNewton(solver=solver)
        samples = []
        for _ in range(repeats):
            run.gram = type(run.gram)(device, X, m)
            clock = PhaseClock(device)
            solution = run.solve(active, run.jacobian(active), y, 0, clock)
            samples.append(sum(clock.seconds.values()))
        seconds[solver], iterations[solver] = float(np.median(samples)), solution.iterations
    rows = SketchOptions().rows(n)
    chosen = cheapest_solver(active, X, SketchOptions())
    return {
        "n": n, "d": d, "b": shift, "m": m, "nnz": active.nnz, "measured": seconds, "iterations": iterations,
        "estimated": solver_seconds(active.pairs, active.nnz, n, d, rows), "chosen": chosen,
        "loss": seconds[chosen] / min(seconds.values()),
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    lines = [
        "| n | d | b | m | fired pairs | gram, ms | sketch-cg, ms | cg, ms (steps) | chosen | chosen / best |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    for row in rows:
        cells = [f"{row['measured'][name] * 1e3:.1f} ({row['estimated'][name] * 1e3:.1f})" for name in SOLVERS]
        cells[2] += f" {row['iterations']['cg']}"
        size = f"{row['n']} | {row['d']} | {row['b']} | {power_of_two(row['m'])} | {row['nnz']:,}"
        lines.append(f"| {size} | {' | '.join(cells)} | {row['chosen']} | {row['loss']:.2f} |")
    losses = [row["loss"] for row in rows]
    right = sum(loss <= 4 / 3 for loss in losses)
    return "\n".join([*lines, f"\nwithin a third of the best: {right} of {len(rows)}; worst {max(losses):.1f}"])


def main(device: str = "auto", repeats: int = 5) -> str:
    """Measure, save, and return the table; in brackets what the cost model says."""
    chosen = get_device(device)
    for solver in SOLVERS:
        warm_up(chosen, GaussNewton(solver=solver))
    rows = [measure(*case, device, repeats) for case in GRID]
    path = save(f"costs-{chosen.name}", {"repeats": repeats, "device": chosen.describe()}, rows)
    return f"{table(rows)}\n\nwritten to bench/results/{path.name}"
