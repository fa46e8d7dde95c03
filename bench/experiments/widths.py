"""Question 1: what a step costs as the network widens, phase by phase."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import shift_by, step_seconds, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import power_law, summary
from bench.harness.problems import make
from bench.harness.words import interval, power_of_two, seconds, spread
from gpu_sublinear import GaussNewton
from gpu_sublinear.devices.clock import PHASES

ENGINES = {"fast": GaussNewton, "faithful": GaussNewton.faithful}


def measure(n: int, d: int, widths: dict, rules: list, repeats: int, device: str) -> Content:
    """Train ``repeats`` times at every width under every rule; engines take turns."""
    warm(device)
    rows = []
    for rule in rules:
        for m in widths["fast"]:
            problem = make(f"sphere:n={n * 5 // 4},d={d}", m, shift_by(rule, m), device=device)
            engines = {name: make_trainer for name, make_trainer in ENGINES.items() if m in widths[name]}
            runs = {name: [] for name in engines}
            for _ in range(repeats):
                for name, make_trainer in engines.items():
                    runs[name].append(train(problem, make_trainer=make_trainer))
            rows += [_row(rule, problem, name, results) for name, results in runs.items()]
    return {"rows": rows}


def _row(rule, problem, engine, results) -> dict:
    later = [record for result in results for record in (result.history[1:-1] or result.history[:-1])]
    return {
        "rule": str(rule), "engine": engine, "m": problem.m, "n": problem.n, "d": problem.d, "shift": problem.shift,
        "step": summary([step_seconds(result.history) for result in results]),
        "scan": summary([result.build_seconds for result in results]),
        "phases": {name: float(np.median([record.phases[name] for record in later])) for name in PHASES},
        "fired": results[0].history[0].fired, "union": results[0].history[0].union,
        "steps": len(results[0].history) - 1, "mse": results[0].history[-1].mse,
    }  # fmt: skip


def groups(content: Content) -> dict[tuple[str, str], list[dict]]:
    """Return the rows by (engine, rule)."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in content["rows"]:
        found.setdefault((row["engine"], row["rule"]), []).append(row)
    return found


def fits(rows: list[dict]) -> dict[str, dict | None]:
    """Return the fitted exponents of the step, the scan, the fired pairs and every phase that takes time."""
    widths = [row["m"] for row in rows]
    found = {"step": power_law(widths, [row["step"]["median"] for row in rows])}
    found["first scan"] = power_law(widths, [row["scan"]["median"] for row in rows])
    found["fired"] = power_law(widths, [row["fired"] for row in rows])
    for phase in PHASES:
        found[phase] = power_law(widths, [row["phases"][phase] for row in rows])
    return found


def answer(content: Content) -> str:
    parts = []
    for (engine, rule), rows in groups(content).items():
        fit = fits(rows)
        step = fit["step"]
        if step is None:
            continue
        verdict = "below 1" if step["high"] < 1 else "not shown to be below 1" if step["low"] < 1 else "not below 1"
        parts.append(
            f"The {engine} engine with shift rule '{rule}': a step after the first grows as m^{interval(step)} (95 %), "
            f"{verdict}; the fired neurons grow as m^{interval(fit['fired'])}; the first scan as "
            f"m^{interval(fit['first scan'])}."
        )
    last = max(content["rows"], key=lambda row: (row["engine"] == "fast", row["m"]))
    phase = max(last["phases"], key=last["phases"].get)
    share = last["scan"]["median"] / (last["scan"]["median"] + last["steps"] * last["step"]["median"])
    parts.append(
        f"At m = {power_of_two(last['m'])} (fast) the largest phase is '{phase}', and the first scan, linear in m by "
        f"construction, is {share:.0%} of a whole run: end to end the method is not sublinear."
    )
    return " ".join(parts)


def tables(content: Content) -> list[Table]:
    head = ["m", "b", "fired per point", "step", "first scan", *PHASES]
    found = []
    for (engine, rule), rows in groups(content).items():
        body = [
            [
                power_of_two(row["m"]), f"{row['shift']:.2f}", f"{row['fired']:.0f}", spread(row["step"]),
                seconds(row["scan"]["median"]), *(seconds(row["phases"][phase]) for phase in PHASES),
            ]
            for row in rows
        ]  # fmt: skip
        fit = fits(rows)
        exponents = [interval(fit[name]) for name in ("fired", "step", "first scan", *PHASES)]
        n, d = rows[0]["n"], rows[0]["d"]
        caption = (
            f"{engine} engine, sphere n = {n}, d = {d}, shift rule {rule}; last line: exponents with 95 % interval"
        )
        found.append(Table(caption, head, [*body, ["exponent", "", *exponents]]))
    return found


def panels(content: Content) -> list[Panel]:
    found = []
    for (engine, rule), rows in groups(content).items():
        curves = {phase: [(row["m"], row["phases"][phase]) for row in rows] for phase in PHASES}
        curves = {"step": [(row["m"], row["step"]["median"]) for row in rows]} | curves
        curves["first scan"] = [(row["m"], row["scan"]["median"]) for row in rows]
        kept = {name: points for name, points in curves.items() if max(value for _, value in points) > 1e-6}
        found.append(Panel(f"{engine}, b: {rule}", "width m", "seconds", kept))
    return found


def widths_of(fast: range, faithful: range) -> dict[str, list[int]]:
    return {"fast": [2**k for k in fast], "faithful": [2**k for k in faithful]}


SIZES = {
    "tiny": {"n": 32, "d": 8, "widths": widths_of(range(9, 12), range(9, 12)), "rules": ["paper"], "repeats": 1},
    "quick": {
        "n": 64, "d": 16, "widths": widths_of(range(12, 19), range(12, 16)), "rules": ["paper", "256 fired", 1.0],
        "repeats": 3,
    },
    "full": {
        "n": 256, "d": 16, "widths": widths_of(range(12, 22), range(12, 18)), "rules": ["paper", "256 fired", 1.0],
        "repeats": 5,
    },
}  # fmt: skip
EXPERIMENT = Experiment(
    "widths", 1, "What does an iteration cost as the width m grows, phase by phase?", SIZES, measure, answer, tables,
    panels,
)  # fmt: skip
