"""Many trainings from one scan: penalties, targets, folds, penalties on folds; against as many separate trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from bench.experiment import Content, Experiment, Panel, Table
from bench.experiments.common import warm
from bench.problems import Problem, make
from bench.words import compare, number, power_of_two, seconds
from gpu_sublinear import GaussNewton, TrainingResult
from gpu_sublinear.cross_validation import cross_validate
from gpu_sublinear.path import SharedScan, ridge_path
from gpu_sublinear.stops import STALL
from gpu_sublinear.warmup import warm_up

NOISE = 0.5  # standard deviation, of targets whose own is 1
CLOSE = 5 * STALL  # of the objective: runs end where three steps gain less than STALL, some way above the minimum
STEPS = 60
KINDS = ("alphas", "targets", "folds")
Runs = list[TrainingResult]


def trainer_for(problem: Problem, alpha: float) -> GaussNewton:
    """Return the options: ordinary ReLU follows its flips."""
    return GaussNewton(alpha=alpha, max_steps=STEPS, mask="flips" if problem.shift == 0 else "auto")


def noisy(problem: Problem) -> Problem:
    """Return the problem with noise on the targets of a sphere; data that have noise of their own stay."""
    if not problem.data.startswith("sphere"):
        return problem
    y = problem.y + NOISE * np.random.default_rng(3).standard_normal(problem.n)
    return replace(problem, y=(y - y.mean()) / y.std())


def targets_of(problem: Problem, count: int) -> list[np.ndarray]:
    """Return targets: the given ones with fresh noise each."""
    rng = np.random.default_rng(4)
    return [problem.y + NOISE * rng.standard_normal(problem.n) for _ in range(count)]


def folds_of(n: int, count: int) -> list[np.ndarray]:
    """Return the points to train on, ascending, for every fold."""
    order = np.random.default_rng(5).permutation(n)
    return [np.sort(np.delete(order, np.s_[k::count])) for k in range(count)]


def together(problem: Problem, kind: str, alphas: np.ndarray, alpha: float, targets: list, folds: list) -> Runs:
    """Train from one scan."""
    trainer, X, y = trainer_for(problem, alpha), problem.X, problem.y
    if kind == "alphas":
        return ridge_path(problem.network(paired=True), X, y, list(alphas), trainer)
    scan = SharedScan.build(trainer, problem.network(paired=True), X, y)
    if kind == "targets":
        return [scan.fit(target) for target in targets]
    return [scan.fit(y[fold], fold) for fold in folds]


def apart(problem: Problem, kind: str, alphas: np.ndarray, alpha: float, targets: list, folds: list) -> Runs:
    """Train each from a scan of its own."""

    def fit(alpha: float, X: np.ndarray, y: np.ndarray) -> TrainingResult:
        return trainer_for(problem, alpha).fit(problem.network(paired=True), X, y)

    if kind == "alphas":
        return [fit(one, problem.X, problem.y) for one in alphas]
    if kind == "targets":
        return [fit(alpha, problem.X, target) for target in targets]
    return [fit(alpha, problem.X[fold], problem.y[fold]) for fold in folds]


def searched(problem: Problem, alphas: np.ndarray, folds: list) -> np.ndarray:
    """Cross-validate all penalties from one scan; return the errors (k, folds)."""
    trainer = trainer_for(problem, min(alphas))
    scan = SharedScan.build(trainer, problem.network(paired=True), problem.X, problem.y, len(folds))
    return cross_validate(scan, problem.y, list(alphas), folds, patience=None).errors


def searched_apart(problem: Problem, alphas: np.ndarray, folds: list) -> np.ndarray:
    """Do the same by as many trainings, as a grid search does."""
    errors, X, y = np.empty((len(alphas), len(folds))), problem.X, problem.y
    for column, (fold, rest) in enumerate(folds):
        for k, alpha in enumerate(alphas):
            network = problem.network(paired=True)
            trainer_for(problem, alpha).fit(network, X[fold], y[fold])
            errors[k, column] = ((network.device.to_host(network.predict(X[rest])) - y[rest]) ** 2).mean()
    return errors


def measure(
    settings: list,
    alphas: tuple,
    alpha: float,
    targets: int,
    folds: int,
    repeats: int,
    limit: int | None,
    device: str,
    search: tuple = (1000.0, 0.1, 13),
    search_width: int = 0,
) -> Content:
    """Train together and apart at every setting (data, m, b); compare seconds, steps and objectives.

    The penalties ``search`` are tried on all folds up to the width ``search_width``, once.
    """
    warm(device)
    high, low, count = alphas
    path, rows, searches = np.geomspace(high, low, count), [], []
    for name, m, shift in settings:
        problem = noisy(make(name, m, shift, device=device, limit=limit))
        warm_up(problem.network().device, trainer_for(problem, alpha))
        parts = folds_of(problem.n, folds)
        work = (path, alpha, targets_of(problem, targets), parts)
        place = {"data": name, "n": problem.n, "m": m, "shift": shift}
        for kind in KINDS:
            rows.append(place | _both(problem, kind, work, repeats))
        if m <= search_width:
            searches.append(place | _search(problem, np.geomspace(*search), parts))
    return {
        "rows": rows,
        "searches": searches,
        "search": list(search),
        "alphas": list(path),
        "alpha": alpha,
        "targets": targets,
        "folds": folds,
    }


def _both(problem: Problem, kind: str, work: tuple, repeats: int) -> dict:
    ours, theirs, shared, single = [], [], [], []
    for _ in range(repeats):  # in turn, so that a slow moment strikes both
        shared, spent = _timed(together, problem, kind, *work)
        ours.append(spent)
        single, spent = _timed(apart, problem, kind, *work)
        theirs.append(spent)
    mine, other = ([run.final.objective for run in runs] for runs in (shared, single))
    return {
        "kind": kind, "count": len(shared), "together": float(np.median(ours)), "apart": float(np.median(theirs)),
        "scan": float(np.median([run.build_seconds for run in single])),
        "steps": [len(run.history) - 1 for run in shared], "steps_apart": [len(run.history) - 1 for run in single],
        "above": max(a / b - 1 for a, b in zip(mine, other, strict=True)),
        "below": max(b / a - 1 for a, b in zip(mine, other, strict=True)),
        "converged": all(run.converged for run in shared) and all(run.converged for run in single),
        "mse": [run.final.mse for run in shared], "objective": mine, "objective_apart": other,
    }  # fmt: skip


def _search(problem: Problem, alphas: np.ndarray, folds: list) -> dict:
    folds = [(fold, np.setdiff1d(np.arange(problem.n), fold)) for fold in folds]
    ours, together = _timed(searched, problem, alphas, folds)
    theirs, apart = _timed(searched_apart, problem, alphas, folds)
    mine, other = ours.mean(axis=1), theirs.mean(axis=1)  # (k,)
    return {
        "count": ours.size, "together": together, "apart": apart,
        "chosen": float(alphas[mine.argmin()]), "chosen_apart": float(alphas[other.argmin()]),
        "least": float(mine.min()), "least_apart": float(other.min()),
        "difference": float(abs(ours / theirs - 1).max()),
    }  # fmt: skip


def _timed(work: Callable, *given) -> tuple:
    begin = perf_counter()
    found = work(*given)
    return found, perf_counter() - begin


def answer(content: Content) -> str:
    words = {
        "alphas": f"{len(content['alphas'])} penalties", "targets": f"{content['targets']} targets",
        "folds": f"{content['folds']} folds",
    }  # fmt: skip
    parts = []
    for row in content["rows"]:
        parts.append(
            f"{words[row['kind']]}, {row['data']}, m = {power_of_two(row['m'])}, b = {row['shift']:g}: one scan "
            f"{compare(row['together'], row['apart'])} against separate trainings, which spend "
            f"{row['count'] * row['scan'] / row['apart']:.0%} of their time in scans"
        )
    rows = content["rows"]
    worse = max(0.0, *(row["above"] for row in rows))
    close = sum(row["above"] <= CLOSE for row in rows)
    lost = sum(not row["converged"] for row in rows)
    for row in content["searches"]:
        parts.append(
            f"{row['count']} trainings of a cross-validated search, {row['data']}, m = {power_of_two(row['m'])}, "
            f"b = {row['shift']:g}: one scan {compare(row['together'], row['apart'])} against separate trainings, the "
            f"{'same' if row['chosen'] == row['chosen_apart'] else 'another'} penalty is chosen"
        )
    return (
        f"{'; '.join(parts)}. In {close} of {len(rows)} rows no objective is above that of the separate training by "
        f"more than {CLOSE:.1%}, five times what the stopping rule looks at; the largest excess is {worse:.2%}. "
        + (f"{lost} rows have a training that did not settle." if lost else "All trainings settled.")
    )


def tables(content: Content) -> list[Table]:
    head = ["data", "m", "b", "trainings", "one scan", "apart", "ratio", "steps", "steps apart", "scans, of apart",
            "objective above", "below"]  # fmt: skip
    body = [
        [
            f"{row['data']}, n={row['n']}", power_of_two(row["m"]), f"{row['shift']:g}",
            f"{row['count']} {row['kind']}", seconds(row["together"]), seconds(row["apart"]),
            number(row["apart"] / row["together"]), str(sum(row["steps"])), str(sum(row["steps_apart"])),
            f"{row['count'] * row['scan'] / row['apart']:.0%}", f"{row['above']:.2%}", f"{row['below']:.2%}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    low, high = content["alphas"][-1], content["alphas"][0]
    caption = f"alpha {high:g} to {low:g} in {len(content['alphas'])} values; targets and folds at {content['alpha']:g}"
    return [Table(caption, head, body), *_search_table(content)]


def _search_table(content: Content) -> list[Table]:
    head = ["data", "m", "b", "trainings", "one scan", "apart", "ratio", "chosen", "apart", "least error", "apart",
            "largest difference of an error"]  # fmt: skip
    body = [
        [
            f"{row['data']}, n={row['n']}", power_of_two(row["m"]), f"{row['shift']:g}", str(row["count"]),
            seconds(row["together"]), seconds(row["apart"]), number(row["apart"] / row["together"]),
            f"{row['chosen']:.3g}", f"{row['chosen_apart']:.3g}", f"{row['least']:.4f}", f"{row['least_apart']:.4f}",
            f"{row['difference']:.2%}",
        ]
        for row in content["searches"]
    ]  # fmt: skip
    high, low, count = content["search"]
    caption = (
        f"alpha {high:g} to {low:g} in {count} values on {content['folds']} folds, with the errors on the points left "
        "out; one run"
    )
    return [Table(caption, head, body)] if body else []


def panels(content: Content) -> list[Panel]:
    found = []
    for row in content["rows"]:
        if row["kind"] == "alphas":
            curves = {
                name: list(zip(content["alphas"], row[key], strict=True))
                for name, key in (("path", "steps"), ("apart", "steps_apart"))
            }
            title = f"{row['data'].split(':')[0]}, m = {power_of_two(row['m'])}, b = {row['shift']:g}"
            found.append(Panel(title, "alpha", "steps", curves, "x"))
    return found


SPHERE = "sphere:n=320,d=16"
EXPERIMENT = Experiment(
    "path", 0, "What does one scan for many penalties, targets or folds save?",
    {
        "tiny": {"settings": [["sphere:n=40,d=8", 2**10, 1.0], ["sphere:n=40,d=8", 2**10, 0.0]],
        "alphas": [100.0, 10.0, 3], "alpha": 10.0, "targets": 2, "folds": 2, "repeats": 1, "limit": None,
        "search": [10.0, 1.0, 2], "search_width": 2**10},
        "quick": {"settings": [["diabetes", 2**16, 3.0], [SPHERE, 2**16, 3.0], [SPHERE, 2**16, 0.0]],
        "alphas": [1000.0, 10.0, 20], "alpha": 100.0, "targets": 10, "folds": 5, "repeats": 1, "limit": None,
        "search_width": 2**16},
        "full": {"settings": [["diabetes", 2**18, 2.5], ["diabetes", 2**18, 3.0], ["diabetes", 2**20, 3.0],
        [SPHERE, 2**18, 3.0], [SPHERE, 2**20, 3.0], ["diabetes", 2**18, 0.0], [SPHERE, 2**20, 0.0]],
        "alphas": [1000.0, 10.0, 20], "alpha": 100.0, "targets": 10, "folds": 5, "repeats": 3, "limit": None,
        "search_width": 2**18},
    },
    measure, answer, tables, panels,
)  # fmt: skip
