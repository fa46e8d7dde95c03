"""REPORT.md from the JSON of a suite alone: question, answer in words chosen by the numbers, table, figure, command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.harness.experiment import Experiment
from bench.harness.figures import draw

SHOWN = ("cpu", "cores", "python", "numpy", "scipy", "numba", "cupy", "torch", "jax", "optimistix", "scikit_learn")
WARNING = {
    "tiny": "Sizes of a self-test: the numbers mean nothing.",
    "quick": "Small sizes, to show that everything runs and which way it points; quote the full suite instead.",
}


def write(experiments: list[Experiment], results: dict[str, dict[str, Any]], suite: str, path: Path) -> Path:
    """Write the report and its figures (in ``figures/SUITE`` beside it)."""
    parts = [_head(results, suite), _summary(experiments, results)]
    for experiment in experiments:
        if experiment.name in results:
            parts.append(_section(experiment, results[experiment.name], suite, path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _head(results: dict[str, dict[str, Any]], suite: str) -> str:
    lines = [f"# Benchmark report, {suite} suite", ""]
    lines.append(
        "Made by `python -m bench --report` from the results in `bench/results/`; nothing here is typed by hand."
    )
    lines += ["", WARNING[suite], ""] if suite in WARNING else [""]
    if results:
        lines.append(f"- Commit: {', '.join(_values(results, 'commit'))}")
        seen = {name: _values(results, name) for name in SHOWN}
        lines.append("- " + ", ".join(f"{name} {' or '.join(values)}" for name, values in seen.items() if values))
        lines.append(f"- Device: {', '.join(sorted({result['device'] for result in results.values()}))}")
        total = sum(result["seconds"] or 0 for result in results.values())
        lines.append(f"- {len(results)} experiments, {total / 60:.1f} minutes; medians, quartiles in brackets")
    return "\n".join(lines)


def _values(results: dict[str, dict[str, Any]], name: str) -> list[str]:
    """Return what the environments of all results say of one thing."""
    found = {result["environment"].get(name) for result in results.values()}
    return sorted(str(value) for value in found if value)


def _summary(experiments: list[Experiment], results: dict[str, dict[str, Any]]) -> str:
    lines = ["| no. | question | experiment | state |", "|--:|---|---|---|"]
    for experiment in sorted(experiments, key=lambda one: one.number or 99):
        result = results.get(experiment.name)
        state = "not run" if result is None else _state(result)
        link = f"[{experiment.name}](#{experiment.name})"
        lines.append(f"| {experiment.number or '-'} | {experiment.question} | {link} | {state} |")
    return "\n".join(lines)


def _state(result: dict[str, Any]) -> str:
    if result["error"]:
        return "FAILED"
    return "done" if result["seconds"] is None else f"done in {result['seconds']:.0f} s"  # old ones did not say


def _section(experiment: Experiment, result: dict[str, Any], suite: str, path: Path) -> str:
    number = f"Question {experiment.number}. " if experiment.number else ""
    parts = [f'## <a id="{experiment.name}"></a>{number}{experiment.question}']
    if result["error"]:
        parts.append(f"**This experiment failed:** `{result['error'].splitlines()[0]}`")
    else:
        content = result["content"]
        parts += [experiment.answer(content), *(table.markdown() for table in experiment.tables(content))]
        picture = draw(experiment.panels(content), path.parent / "figures" / suite / f"{experiment.name}.png")
        parts += [f"![{experiment.name}]({picture.relative_to(path.parent).as_posix()})"] if picture else []
    parts.append(f"Repeat: `python -m bench --suite {suite} --only {experiment.name} --device {result['device']}`")
    return "\n\n".join(parts)
