"""An inspection as text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import numpy as np

from ..data.preprocessing import TargetScaling
from ..foresight.close_points import CLOSE, FAR
from ..foresight.inspection import Inspection
from ..foresight.wide_limit import Forecast
from .run_text import RULE, memory, percent

COLUMNS = 100


def inspection_text(found: Inspection, targets: TargetScaling | None = None) -> str:
    """Return the whole report.

    Parameters
    ----------
    found : Inspection
        What :func:`gpu_sublinear.foresight.inspection.inspect` returned.
    targets : TargetScaling, optional
        Gives targets in their own unit instead of standard deviations.

    Returns
    -------
    str
        Lines without a final newline.
    """
    sections = (_firing(found), _spectra(found), _points(found, targets), _forecasts(found), _costs(found))
    lines = [line for section in sections for line in (RULE, *section)]
    return "\n".join([*lines, RULE, *_advice(found), *_warnings(found)])


def _firing(found: Inspection) -> Iterator[str]:
    trial, counts = found.trial, found.trial.counts
    yield f"{'fired neurons per point':<38}{f'drawn, m = {trial.width:,}':>22}{'theory':>14}"
    rows = [
        ("mean, against m Q(b)", f"{counts.mean():,.1f}", f"{found.expected_fired:,.1f}"),
        ("spread, against the binomial", f"{counts.std():,.1f}", f"{found.binomial_spread:,.1f}"),
        ("smallest and largest", f"{counts.min():,} .. {counts.max():,}", ""),
        ("points that no neuron sees", f"{int((counts == 0).sum()):,}", f"{_expected_silent(found):.2g}"),
        ("neurons that fire on some point", percent(trial.union, trial.width), ""),
    ]
    for name, drawn, theory in rows:
        yield f"  {name:<36}{drawn:>22}{theory:>14}".rstrip()


def _expected_silent(found: Inspection) -> float:
    share = found.expected_fired / found.trial.width
    return found.points * (1 - share) ** found.trial.width


def _spectra(found: Inspection) -> Iterator[str]:
    drawn, limit = found.trial.eigenvalues, found.limit_eigenvalues
    n = "" if found.sampled_points == found.points else f", {found.sampled_points:,} points"
    yield f"{'Gram matrix':<32}{'drawn (exact)':>22}{'infinite width' + n:>30}"
    for name, of in (("smallest eigenvalue", _smallest), ("largest eigenvalue", _largest), ("condition", _condition)):
        first = "not computed (n large)" if drawn is None else of(drawn)
        yield f"  {name:<30}{first:>22}{of(limit):>30}"


def _smallest(values: np.ndarray) -> str:
    return f"{values[0]:.3g}"


def _largest(values: np.ndarray) -> str:
    return f"{values[-1]:.3g}"


def _condition(values: np.ndarray) -> str:
    singular = values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]
    return "singular" if singular else f"{values[-1] / values[0]:.3g}"


def _points(found: Inspection, targets: TargetScaling | None) -> Iterator[str]:
    seen = found.contradictions
    yield f"{'points':<38}{found.points:>22,}"
    rows = [
        ("repeated rows", seen.duplicates),
        ("repeated rows with another target", seen.contradictory_duplicates),
        (f"close pairs (cosine >= {CLOSE:g})", seen.close),
        (f"close pairs {FAR:g} deviation or more apart", seen.far),
    ]
    for name, count in rows:
        yield f"  {name:<36}{count:>22,}"
    for pair in seen.worst:
        first, second = (t if targets is None else _in_unit(t, targets, pair.output) for t in pair.targets)
        name = "targets" if targets is None or np.ndim(targets.std) == 0 else f"target {pair.output}:"
        yield f"    rows {pair.first} and {pair.second}: cosine {pair.cosine:.4f}, {name} {first:.4g} and {second:.4g}"


def _in_unit(value: float, targets: TargetScaling, output: int) -> float:
    """Return a standard target in the unit of its column."""
    return value * float(np.ravel(targets.std)[output]) + float(np.ravel(targets.mean)[output])


def _forecasts(found: Inspection) -> Iterator[str]:
    yield "mse after each full step, foretold from infinite width (an estimate)"
    yield _forecast("as given", found.forecast)
    chosen = found.recommended
    if chosen and (chosen.width, chosen.shift) != (found.width, found.shift):
        yield _forecast("recommended", chosen)


def _forecast(name: str, forecast: Forecast) -> str:
    shown = "  ".join(f"{value:.0e}" for value in forecast.mse[1:8])
    end = "" if forecast.settles else "  does not settle"
    return f"  {name:<12} b = {forecast.shift:<6.4g}{forecast.flips:>6.0%} flip   {shown}{end}"


def _costs(found: Inspection) -> Iterator[str]:
    parts = sorted(found.memory.items(), key=lambda item: -item[1])
    yield f"{'memory (plan; lists are estimates)':<38}{memory(sum(found.memory.values())):>22}"
    yield from (f"  {name:<36}{memory(size):>22}" for name, size in parts)
    yield f"{'time (estimate, to a factor of 3)':<38}{'seconds':>22}"
    yield from (f"  {name:<36}{seconds:>22.3g}" for name, seconds in found.seconds.items())


def _advice(found: Inspection) -> Iterator[str]:
    yield "recommended" if found.advice else "recommended: nothing; see the warnings"
    for advice in found.advice:
        yield from _wrapped(f"  {advice.option:<12}{advice.value:<9}", advice.reason)


def _warnings(found: Inspection) -> Iterator[str]:
    for warning in found.warnings:
        yield from _wrapped("warning  ", warning)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent=head, subsequent_indent=" " * len(head))
