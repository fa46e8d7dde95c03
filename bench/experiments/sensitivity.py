"""Question 5: sensitivity to sketch size, solver tolerance, luck, and how often the index is refreshed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench.experiments.common import GOAL, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import Problem, make
from bench.harness.words import number, percent, power_of_two, spread
from gpu_sublinear import CGOptions, SketchOptions


def variants(seeds: int) -> dict[str, list[tuple[Any, dict]]]:
    """Return the settings of every knob; all others stay at their default with the sketched solver."""
    sketched = {"solver": "sketch-cg"}
    return {
        "sketch of neurons, rows / n": [
            (c, sketched | {"sketch": SketchOptions("neurons", c)}) for c in (1.0, 2.0, 4.0, 8.0)
        ],
        "sketch of rows, rows / n": [
            (c, sketched | {"jacobian": "csr", "sketch": SketchOptions("rows", c)}) for c in (2.0, 4.0, 8.0, 16.0)
        ],
        "solver tolerance": [(t, sketched | {"cg": CGOptions(t)}) for t in (0.3, 1e-1, 1e-2, 1e-4, 1e-8)],
        "margin (tree-update frequency)": [(g, {"margin": g}) for g in (0, 0.03, 0.1, 0.3, 1.0, "auto")],
        "seed": [(k, sketched) for k in range(seeds)],
    }


def measure(data: str, m: int, b: float, repeats: int, seeds: int, device: str) -> Content:
    """Train with every variant; the seeds show how often a sketch fails."""
    warm(device)
    problem = make(data, m, b, device=device)
    rows = []
    for knob, settings in variants(seeds).items():
        for value, options in settings:
            chosen = replace(problem, seed=int(value)) if knob == "seed" else problem
            rows.append({"knob": knob, "value": value} | _run(chosen, options, 1 if knob == "seed" else repeats))
    return {"rows": rows, "data": data, "m": m, "n": problem.n, "d": problem.d, "shift": b}


def _run(problem: Problem, options: dict, repeats: int) -> dict:
    results = [train(problem, **options) for _ in range(repeats)]
    steps = results[0].history[:-1]
    return {
        "whole": summary([result.seconds for result in results]), "steps": len(steps),
        "converged": results[0].converged, "mse": results[0].history[-1].mse,
        "iterations": float(np.median([record.solver_iterations for record in steps])),
        "fell_back": sum("plain CG" in record.solver_reason for record in steps),
        "refreshed": [record.refreshed / problem.m for record in steps],
        "looked": float(np.mean([record.tree_nodes_visited for record in steps])),
    }  # fmt: skip


def by_knob(content: Content) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in content["rows"]:
        found.setdefault(row["knob"], []).append(row)
    return found


def answer(content: Content) -> str:
    parts = []
    for knob, rows in by_knob(content).items():
        times = {str(row["value"]): row["whole"]["median"] for row in rows}
        steps = [row["steps"] for row in rows]
        failed = [str(row["value"]) for row in rows if not row["converged"]]
        if knob == "seed":
            solves, lost = sum(steps), sum(row["fell_back"] for row in rows)
            parts.append(f"Over {len(rows)} seeds {lost} of {solves} sketched solves fell back to plain CG.")
            continue
        best = min(times, key=times.get)
        factor = f"{max(times.values()) / times[best]:.2g}"
        text = f"{knob}: {min(steps)} to {max(steps)} steps; fastest at {best}, slowest {factor} times that"
        parts.append(text + (f"; {', '.join(failed)} did not reach the goal." if failed else "."))
    return " ".join(parts)


def tables(content: Content) -> list[Table]:
    head = ["value", "whole run", "steps", "products per solve", "fell back", "reached mse", "rows refreshed, step 0"]
    found = []
    for knob, rows in by_knob(content).items():
        body = [
            [
                str(row["value"]), spread(row["whole"]), str(row["steps"]), number(row["iterations"]),
                str(row["fell_back"]), number(row["mse"]), percent(row["refreshed"][0]),
            ]
            for row in rows
        ]  # fmt: skip
        size = f"{content['data']}, m = {power_of_two(content['m'])}, b = {content['shift']:g}"
        found.append(Table(f"{knob}; {size}, goal mse {GOAL:g}", head, body))
    return found


def panels(content: Content) -> list[Panel]:
    return [
        Panel(knob, "value", "seconds, whole run",
              {"whole run": [(row["value"], row["whole"]["median"]) for row in rows
                             if not isinstance(row["value"], str) and row["value"] > 0]})
        for knob, rows in by_knob(content).items() if knob != "seed"
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "sensitivity", 5, "How sensitive is it to sketch size, tolerance, luck, and the frequency of tree updates?",
    {
        "tiny": {"data": "sphere:n=40,d=8", "m": 512, "b": 0.5, "repeats": 1, "seeds": 2},
        "quick": {"data": "sphere:n=320,d=16", "m": 2**15, "b": 2.0, "repeats": 2, "seeds": 10},
        "full": {"data": "sphere:n=640,d=16", "m": 2**17, "b": 2.5, "repeats": 3, "seeds": 50},
    },
    measure, answer, tables, panels,
)  # fmt: skip
