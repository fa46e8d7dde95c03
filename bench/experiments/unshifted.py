"""Question 7: what remains for the ordinary ReLU, b = 0."""

from __future__ import annotations

from bench.experiments import hardware
from bench.experiments.common import TINY, Flips, train
from bench.experiments.hardware import SPHERE, grid, tables
from bench.harness.experiment import Content, Experiment, Panel
from bench.harness.problems import Problem, make
from bench.harness.words import number, power_of_two


def measure(data: str, cases: list, repeats: int, budget: float, device: str) -> Content:
    """Race as ``hardware`` does, and count the pairs that flip in each step of a run apart from the clock."""
    rows = hardware.measure(data, cases, repeats, budget, device)["rows"]
    return {"rows": [row | {"flips": _flips(make(data, row["m"], row["shift"], device=device))} for row in rows]}


def _flips(problem: Problem) -> list[float]:
    flips = Flips(problem.X, problem.network())
    result = train(problem, max_steps=8, callbacks=[flips])
    return [count / (record.fired * problem.n) for count, record in zip(flips.counts, result.history, strict=False)]


def answer(content: Content) -> str:
    flips = [row["flips"] for row in content["rows"] if row["flips"]]
    first, later = [one[0] for one in flips], [one[1] for one in flips if len(one) > 1]
    text = (
        "Without a shift half of all pairs fire, so nothing is sparse; what is left to follow are the pairs that flip: "
        f"{number(min(first))} to {number(max(first))} of the fired pairs in the first step"
    )
    text += f", {number(min(later))} to {number(max(later))} in the second. " if later else ". "
    return text + hardware.answer(content)


def panels(content: Content) -> list[Panel]:
    curves = {
        f"m = {power_of_two(row['m'])}": [(k, max(value, 1e-9)) for k, value in enumerate(row["flips"])]
        for row in content["rows"]
    }
    return [*hardware.panels(content), Panel("pairs that flip", "step", "flips / fired pairs", curves, "y")]


EXPERIMENT = Experiment(
    "unshifted", 7, "What remains for the ordinary ReLU, b = 0?",
    {
        "tiny": {"data": TINY, "cases": grid(range(8, 10), (0.0,)), "repeats": 1, "budget": 1.0},
        "quick": {"data": SPHERE, "cases": grid(range(12, 16), (0.0,)), "repeats": 2, "budget": 4.0},
        "full": {"data": SPHERE, "cases": grid(range(12, 21), (0.0,)), "repeats": 3, "budget": 30.0},
    },
    measure, answer, tables, panels,
)  # fmt: skip
