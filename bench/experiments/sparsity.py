"""Question 3: how sparse the Jacobian really is, at the start and during training."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import CLUSTERED, DATA_SETS, TINY, Flips, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import make
from bench.harness.words import number, percent, power_of_two
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.model.shifts import firing_probability


def measure(data: list, shifts: list, m: int, limit: int | None, device: str) -> Content:
    """Follow the fired pairs through training on every data set at every shift."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            problem = make(name, m, b, device=device, limit=limit)
            base = {"data": name, "n": problem.n, "d": problem.d, "m": m, "shift": b}
            try:
                rows.append(base | _followed(problem))
            except SilentPointsError as reason:
                rows.append(base | {"error": str(reason)})
    return {"rows": rows}


def _followed(problem) -> dict:
    flips = Flips(problem.X, problem.network())
    before = problem.weights()[0]
    result = train(problem, max_steps=12, callbacks=[flips])
    after = result.network.device.to_host(result.network.W)
    history, n, m = result.history, problem.n, problem.m
    return {
        "expected": firing_probability(problem.shift), "mse": [record.mse for record in history],
        "fired": [record.fired / m for record in history], "union": [record.union / m for record in history],
        "moved": [record.moved_neurons / m for record in history[:-1]],
        "refreshed": [record.refreshed / m for record in history[:-1]],
        "looked": [record.tree_nodes_visited / (n * m) for record in history],
        "flips": [count / (record.fired * n) for count, record in zip(flips.counts, history[:-1], strict=False)],
        "ever_moved": float((after != before).any(axis=1).mean()),
        "movement": [float(value) for value in np.quantile(np.linalg.norm(after - before, axis=1), (0.5, 0.99, 1.0))],
    }  # fmt: skip


def good(content: Content) -> list[dict]:
    return [row for row in content["rows"] if "error" not in row]


def answer(content: Content) -> str:
    parts = []
    for b in sorted({row["shift"] for row in good(content)}):
        rows = [row for row in good(content) if row["shift"] == b]
        start, end = ([row["fired"][k] for row in rows] for k in (0, -1))
        growth = max(last / first for first, last in zip(start, end, strict=True))
        unions = [row["union"][0] for row in rows]
        flips = [row["flips"][0] for row in rows if row["flips"]]
        parts.append(
            f"b = {b:g}: {percent(min(start))} to {percent(max(start))} of J's blocks are nonzero at the start (a "
            f"fresh "
            f"neuron fires with probability {percent(rows[0]['expected'])}); during training the share grows at most "
            f"by a "
            f"factor of {growth:.2f}; {percent(min(unions))} to {percent(max(unions))} of the neurons fire on some "
            f"point; "
            f"the first step flips {percent(min(flips))} to {percent(max(flips))} of the fired pairs."
        )
    failed = [f"{row['data']} at b = {row['shift']:g}" for row in content["rows"] if "error" in row]
    return " ".join(parts) + (f" Some point fires no neuron: {'; '.join(failed)}." if failed else "")


def tables(content: Content) -> list[Table]:
    head = ["data", "b", "steps", "fired, start", "fired, end", "union, start", "union, end", "flips by step / fired"]
    body = [
        [
            row["data"], f"{row['shift']:g}", str(len(row["mse"]) - 1), percent(row["fired"][0]),
            percent(row["fired"][-1]), percent(row["union"][0]), percent(row["union"][-1]),
            ", ".join(number(value, 2) for value in row["flips"][:5]),
        ]
        for row in good(content)
    ]  # fmt: skip
    return [Table(f"shares of all pairs and of all neurons, m = {power_of_two(content['rows'][0]['m'])}", head, body)]


def panels(content: Content) -> list[Panel]:
    def curves(key: str) -> dict:
        return {
            f"{row['data'].split(':')[0]}, b={row['shift']:g}": [
                (k, max(value, 1e-9)) for k, value in enumerate(row[key])
            ]
            for row in good(content)
        }

    return [
        Panel("fired pairs", "step", "share of all pairs", curves("fired"), "y"),
        Panel("changed by the step", "step", "flips / fired pairs", curves("flips"), "y"),
    ]


SIZES = {
    "tiny": {"data": [TINY], "shifts": [0.0, 1.0], "m": 512, "limit": None},
    "quick": {"data": DATA_SETS, "shifts": [0.0, 1.0, 2.0], "m": 2**14, "limit": 200},
    "full": {"data": [*DATA_SETS, CLUSTERED], "shifts": [0.0, 1.0, 2.0, 2.5, 3.0], "m": 2**17, "limit": 512},
}
EXPERIMENT = Experiment(
    "sparsity", 3, "How sparse is the Jacobian really, at the start and during training?", SIZES, measure, answer,
    tables, panels,
)  # fmt: skip
