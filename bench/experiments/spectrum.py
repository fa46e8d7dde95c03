"""Question 8: lambda_min of the Gram matrix, by data, m and b."""

from __future__ import annotations

from bench.experiments.common import (
    CLUSTERED,
    DATA_SETS,
    TINY,
    TINY_CLUSTERED,
    by_data,
    extremes,
    gram_of,
)
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import make
from bench.harness.words import listed, number, power_of_two
from gpu_sublinear.foresight.ntk import shifted_ntk
from gpu_sublinear.model.shifts import firing_probability


def measure(data: list, widths: list, shifts: list, limit: int | None, device: str) -> Content:
    """Compute the extreme eigenvalues of G at the start and of its infinite-width limit."""
    rows = []
    for name in data:
        for b in shifts:
            limit_values = None
            for m in widths:
                problem = make(name, m, b, device=device, limit=limit)
                limit_values = limit_values or extremes(shifted_ntk(problem.X, None, b))
                row = {"data": name, "n": problem.n, "d": problem.d, "m": m, "shift": b}
                rows.append(row | extremes(gram_of(problem)) | {"limit": limit_values, "q": firing_probability(b)})
    return {"rows": rows}


def answer(content: Content) -> str:
    parts = []
    for name, rows in by_data(content["rows"]).items():
        wide = [row for row in rows if row["m"] == max(one["m"] for one in rows)]
        shares = [row["low"] / row["q"] for row in wide]
        conditions = [f"{number(row['condition'])} at b = {row['shift']:g}" for row in wide]
        singular = [f"b = {row['shift']:g}, m = {power_of_two(row['m'])}" for row in rows if not row["low"]]
        parts.append(
            f"{name}: at the largest m, lambda_min / Q(b) is {number(min(shares))} to {number(max(shares))}, the "
            f"condition "
            f"number {listed(conditions)}" + (f"; singular at {'; '.join(singular)}." if singular else ".")
        )
    return " ".join(parts)


def tables(content: Content) -> list[Table]:
    head = ["data", "b", "m", "lambda_min", "lambda_min / Q(b)", "infinite width", "cond(G)", "infinite width"]
    body = [
        [
            row["data"], f"{row['shift']:g}", power_of_two(row["m"]), number(row["low"]), number(row["low"] / row["q"]),
            number(row["limit"]["low"]), number(row["condition"]), number(row["limit"]["condition"]),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    return [Table("eigenvalues of G at the start, and of the closed-form kernel", head, body)]


def panels(content: Content) -> list[Panel]:
    widest = max(row["m"] for row in content["rows"])
    curves = {
        name.split(":")[0]: [(row["shift"], row["low"]) for row in rows if row["m"] == widest and row["low"]]
        for name, rows in by_data(content["rows"]).items()
    }
    growth = {
        f"{name.split(':')[0]}, b={b:g}": [
            (row["m"], row["low"] / row["limit"]["low"])
            for row in rows if row["shift"] == b and row["low"] and row["limit"]["low"]
        ]
        for name, rows in by_data(content["rows"]).items() for b in sorted({row["shift"] for row in rows})
    }  # fmt: skip
    return [
        Panel("at the largest width", "shift b", "lambda_min(G)", curves, "y"),
        Panel("approach to the limit", "width m", "lambda_min / its limit", growth, "xy", 1.0),
    ]


EXPERIMENT = Experiment(
    "spectrum", 8, "How large is lambda_min, and how does it depend on the data, m and b?",
    {
        "tiny": {"data": [TINY, TINY_CLUSTERED], "widths": [512, 1024], "shifts": [0.0, 1.0], "limit": None},
        "quick": {"data": [*DATA_SETS, CLUSTERED], "widths": [2**12, 2**15], "shifts": [0.0, 1.0, 2.0], "limit": 200},
        "full": {
            "data": [*DATA_SETS, CLUSTERED], "widths": [2**k for k in range(12, 19, 2)], "shifts": [0.0, 1.0, 2.0, 3.0,
            4.0],
            "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
