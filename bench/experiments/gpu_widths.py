"""On a GPU: how a step grows with the width, against the same opponents."""

from __future__ import annotations

from bench.experiments import gpu_steps
from bench.experiments.common import TINY
from bench.harness.experiment import Content, Experiment, Panel
from bench.harness.measure import power_law
from bench.harness.words import interval


def measure(data: str, widths: list, b: float, repeats: int, budget: float, device: str) -> Content:
    """Race over widths."""
    return gpu_steps.measure([(data, m, b) for m in widths], repeats, budget, device)


def width_curves(content: Content) -> dict[str, list]:
    curves: dict[str, list] = {}
    for row in content["rows"]:
        for name, one in row["opponents"].items():
            if "error" not in one and one["step"]["median"]:
                curves.setdefault(name, []).append((row["m"], one["step"]["median"]))
    return curves


def answer(content: Content) -> str:
    fits = {name: power_law(*zip(*points, strict=True)) for name, points in width_curves(content).items()}
    told = "; ".join(f"{name} m^{interval(fit)}" for name, fit in fits.items())
    return f"Seconds of a step after the first grow as: {told}."


def panels(content: Content) -> list[Panel]:
    return [Panel("step", "width m", "seconds", width_curves(content))]


EXPERIMENT = Experiment(
    "gpu-widths", 0, "On a GPU: how does a step grow with the width?",
    {
        "tiny": {"data": TINY, "widths": [256, 512, 1024], "b": 0.5, "repeats": 1, "budget": 1.0},
        "gpu": {
            "data": gpu_steps.S512, "widths": [2**k for k in range(14, 23, 2)], "b": 3.0, "repeats": 5, "budget": 10.0,
        },
    },
    measure, answer, gpu_steps.tables, panels,
)  # fmt: skip
