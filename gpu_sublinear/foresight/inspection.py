"""What can be known of a training problem before any step: :func:`inspect` looks, :class:`Inspection` tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..data.preprocessing import as_targets
from ..devices import Device, get_device
from ..model.shifts import firing_probability, resolve_shift, shift_for_fired
from ..model.signs import check_outputs, pattern_count
from ..training.checks import check_training_data
from ..training.gauss_newton import GaussNewton
from ..training.memory import plan
from ..training.warmup import warm_up
from .advice import (
    Advice,
    choose,
    enough_fired,
    least_width,
    margin_reason,
    shift_reason,
    solver_reason,
    steps_advice,
    width_reason,
)
from .close_points import FAR, Contradictions, find_contradictions
from .seconds import Prices, Work, expected_seconds
from .trial import Trial, affordable_width, fits, run_trial
from .wide_limit import PROMPT, Forecast, WideLimit

SAMPLED_POINTS = 1536  # points of the infinite-width kernel: each shift that is tried costs n^3 / 3 operations
NAMED = 10  # silent points that are listed


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found.

    Attributes
    ----------
    points, features, width : int
        n, d, m.
    shift : float
        b.
    dtype, device : str
        Type of the weights; where the trial ran.
    trial : Trial
        Exact numbers of one random network (of ``trial.width`` neurons), and measured seconds.
    silent : list of int
        Points on which no neuron of the trial fires (the first ``NAMED``; the count is in ``trial.counts``).
    sampled_points : int
        Points in the infinite-width kernel; fewer than ``points`` where n is large.
    limit_eigenvalues : ndarray
        (sampled_points,) of the infinite-width Gram matrix, ascending.
    contradictions : Contradictions
        Duplicates and close pairs with far targets.
    forecast : Forecast
        Foretold errors with the settings that were given.
    recommended : Forecast or None
        Foretold errors with the recommended settings; None where nothing affordable settles.
    advice : list of Advice
        Recommended settings with their reasons.
    memory : dict
        Planned bytes by name, for the recommended settings (or, without any, the given ones).
    seconds : dict
        Expected seconds, for the same settings.
    warnings : list of str
        What should be looked at before training.
    """

    points: int
    features: int
    width: int
    shift: float
    dtype: str
    device: str
    trial: Trial
    silent: list[int]
    sampled_points: int
    limit_eigenvalues: np.ndarray
    contradictions: Contradictions
    forecast: Forecast
    recommended: Forecast | None
    advice: list[Advice]
    memory: dict[str, int]
    seconds: dict[str, float]
    warnings: list[str]

    @property
    def expected_fired(self) -> float:
        """``m Q(b)`` at the trial's width."""
        return self.trial.width * firing_probability(self.shift)

    @property
    def binomial_spread(self) -> float:
        """Standard deviation of Binomial(m, Q(b)) at the trial's width."""
        return math.sqrt(self.expected_fired * (1 - firing_probability(self.shift)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain types, for JSON."""
        values = asdict(self) | {"expected_fired": self.expected_fired, "binomial_spread": self.binomial_spread}
        return _plain(values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def inspect(
    X: Any,
    y: Any,
    *,
    width: int = 65536,
    shift: float | str = "paper",
    seed: int = 0,
    dtype: str = "float32",
    device: Device | None = None,
    trainer: GaussNewton | None = None,
) -> Inspection:
    """Look at a training problem without training.

    Parameters
    ----------
    X : array
        (n, d) rows of unit Euclidean norm.
    y : array
        (n,) or (n, c) targets of order 1.
    width : int
        m that is thought of.
    shift : float or "paper"
        b that is thought of.
    seed : int
        Of the trial network.
    dtype : {"float32", "float64"}
        Type of the weights.
    device : Device, optional
        Default: ``get_device("auto")``.
    trainer : GaussNewton, optional
        Its tolerance, memory limit and solver options count.

    Returns
    -------
    Inspection
        Counts, spectra, contradictions, forecast, recommendation, memory and time.
    """
    device, trainer = get_device(device or "auto"), trainer or GaussNewton()
    y = as_targets(y, several=True)
    outputs = 1 if y.ndim == 1 else y.shape[1]
    check_outputs(outputs, width)
    check_training_data(device, X, np.zeros(len(y)), np.shape(X)[-1])  # equal rows with unequal targets are reported
    X = device.to_host(X).astype(np.float64)  # (n, d)
    n, d = X.shape
    b = resolve_shift(shift, width)
    warm_up(device, trainer, dtype)
    m = affordable_width(trainer, device, n, d, width, b, dtype, outputs)
    trial = run_trial(device, device.asarray(X, dtype), m, b, seed, dtype)
    contradictions = find_contradictions(X, y)
    rows = _sample(n, seed, outputs)
    limit_at = _limits(X[rows], y[rows], seed)
    given = limit_at(b)
    outlook = Outlook.of(trainer, device, trial, limit_at, given, (n, d, width, dtype, outputs), float(np.mean(y**2)))
    return Inspection(
        points=n,
        features=d,
        width=width,
        shift=b,
        dtype=dtype,
        device=device.name,
        trial=trial,
        silent=np.flatnonzero(trial.counts == 0)[:NAMED].tolist(),
        sampled_points=len(rows),
        limit_eigenvalues=given.eigenvalues,
        contradictions=contradictions,
        forecast=outlook.given,
        recommended=outlook.chosen,
        advice=outlook.advice,
        memory=outlook.memory,
        seconds=outlook.seconds,
        warnings=list(_warnings(n, len(rows), trial, contradictions, outlook)),
    )


@dataclass(frozen=True)
class Outlook:
    """What training is expected to do, with the settings that were given and with the best that were found."""

    given: Forecast
    chosen: Forecast | None
    advice: list[Advice]
    memory: dict[str, int]
    seconds: dict[str, float]

    @classmethod
    def of(
        cls,
        trainer: GaussNewton,
        device: Device,
        trial: Trial,
        limit_at: Callable[[float], WideLimit],
        given: WideLimit,
        problem: tuple[int, int, int, str, int],
        square: float,
    ) -> Outlook:
        """Choose settings and count what they cost; ``problem`` is (n, d, m, dtype, c), ``square`` that of y."""
        n, d, width, dtype, outputs = problem
        goal = trainer.tolerance**2 * square
        forecast = given.forecast(width, goal)
        found = choose(limit_at, n, width, goal, lambda m, b: fits(trainer, device, n, d, m, b, dtype, outputs))
        chosen, limit = found or (forecast, given)
        pairs = chosen.width * limit.pairs * (n / limit.points) ** 2
        work = Work(n, d, chosen.width, chosen.shift, pairs, trainer.sketch.rows(n), outputs)
        prices = Prices.of(trial, n, d)
        solver = min(work.solvers(), key=work.solvers().__getitem__)
        size = (device, n, d, chosen.width, chosen.shift, dtype, outputs)
        held = {margin: sum(plan(replace(trainer, margin=margin), *size).values()) for margin in ("auto", 0)}
        advice = [
            Advice(
                "--width", f"{chosen.width}", width_reason(chosen, width, least_width(limit, n, chosen.width, goal))
            ),
            Advice("--shift", f"{chosen.shift:.4g}", shift_reason(chosen, forecast)),
            Advice("--margin", "auto", margin_reason(held["auto"], held[0])),
            Advice("--solver", "auto", solver_reason(work.solvers(), prices.speed)),
            *steps_advice(chosen, trainer.max_steps),
        ]
        seconds = expected_seconds(work, prices, solver, trial.union / trial.width)
        return cls(forecast, found and chosen, advice if found else [], plan(trainer, *size), seconds)


def _sample(n: int, seed: int, outputs: int) -> np.ndarray:
    """Return the points of the infinite-width kernel: all, or as many as keep the work in bounds, ascending."""
    most = math.isqrt(SAMPLED_POINTS**2 // pattern_count(outputs))  # every pattern of signs has a forecast of its own
    return np.sort(np.random.default_rng([seed, 4]).permutation(n)[:most])


def _limits(X: np.ndarray, y: np.ndarray, seed: int) -> Callable[[float], WideLimit]:
    """Return the function that makes the limit at a shift, from distinct points: equal rows share their mean target."""
    distinct, which, repeats = np.unique(X, axis=0, return_inverse=True, return_counts=True)
    targets = np.zeros((len(distinct), *y.shape[1:]))
    np.add.at(targets, which.ravel(), y)
    targets = (targets.T / repeats).T
    return lambda shift: WideLimit(distinct, targets, shift, seed)


def _warnings(n: int, sampled: int, trial: Trial, contradictions: Contradictions, outlook: Outlook) -> Iterator[str]:
    """Yield one sentence for each thing that should be looked at before training."""
    width, b = outlook.given.width, outlook.given.shift
    silent = np.flatnonzero(trial.counts == 0)
    if trial.width < width:
        yield (
            f"a trial with all {width:,} neurons would take too long or too much memory: fired neurons, union and the "
            f"drawn Gram matrix are those of {trial.width:,} neurons"
        )
    if sampled < n:
        yield (
            f"the infinite-width kernel is that of {sampled:,} of the {n:,} points: with all of them the smallest "
            "eigenvalue is smaller and the forecasts are less good"
        )
    if len(silent) and trial.width == width:
        works = shift_for_fired(width, enough_fired(n))
        names = ", ".join(map(str, silent[:NAMED])) + (", ..." if len(silent) > NAMED else "")
        yield (
            f"{len(silent)} of {n} points fire no neuron of the {trial.width:,} (points {names}), so training would "
            f"refuse; take a shift of {math.floor(works * 100) / 100:g} or less, or more neurons"
        )
    if contradictions.contradictory_duplicates:
        yield (
            f"{contradictions.contradictory_duplicates} duplicated rows have different targets, which no network fits: "
            "training ends at their mean, whatever is foretold (--damping none refuses); average them or keep one"
        )
    if contradictions.far:
        yield (
            f"{contradictions.far} of {contradictions.close} close pairs have targets at least {FAR:g} standard "
            "deviation apart (the worst are listed): if these are errors, correct them; full steps fit both"
        )
    if not outlook.given.prompt:
        yield (
            f"with m = {width:,} and b = {b:.3g} full steps are not foretold to reach the tolerance in {PROMPT}: "
            "it may take more, or an error may stay (smooth targets at shifts above 2 often still go well)"
        )
    if outlook.chosen is None:
        yield (
            "no shift and no width that fits here is foretold to fit these targets by full steps: they look like noise "
            "to this kernel; take a larger --tolerance, remove contradictions, or regularise"
        )
