"""Many trainings from one scan: penalties, targets, folds; against as many separate trainings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np

from bench.experiments.common import warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import Problem, make
from bench.harness.words import number, power_of_two, seconds, versus
from gpu_sublinear import GaussNewton, TrainingResult
from gpu_sublinear.training.stops import STALL
from gpu_sublinear.training.warmup import warm_up
from gpu_sublinear.tuning.shared_scan import SharedScan, ridge_path

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


def measure(
    settings: list,
    alphas: tuple,
    alpha: float,
    targets: int,
    folds: int,
    repeats: int,
    limit: int | None,
    device: str,
) -> Content:
    """Train together and apart at every setting (data, m, b); compare seconds, steps and objectives."""
    warm(device)
    high, low, count = alphas
    path, rows = np.geomspace(high, low, count), []
    for name, m, shift in settings:
        problem = noisy(make(name, m, shift, device=device, limit=limit))
        warm_up(problem.network().device, trainer_for(problem, alpha))
        work = (path, alpha, targets_of(problem, targets), folds_of(problem.n, folds))
        place = {"data": name, "n": problem.n, "m": m, "shift": shift}
        for kind in KINDS:
            rows.append(place | _both(problem, kind, work, repeats))
    return {"rows": rows, "alphas": list(path), "alpha": alpha, "targets": targets, "folds": folds}


def _both(problem: Problem, kind: str, work: tuple, repeats: int) -> dict:
    ours, theirs, shared, single = [], [], [], []
    for _ in range(repeats):  # in turn, so that a slow moment strikes both
        shared, spent = timed(together, problem, kind, *work)
        ours.append(spent)
        single, spent = timed(apart, problem, kind, *work)
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


def timed(work: Callable, *given) -> tuple:
    """Return what a call gives, and its seconds."""
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
            f"{versus(row['together'], row['apart'])} against separate trainings, which spend "
            f"{row['count'] * row['scan'] / row['apart']:.0%} of their time in scans"
        )
    rows = content["rows"]
    worse = max(0.0, *(row["above"] for row in rows))
    close = sum(row["above"] <= CLOSE for row in rows)
    lost = sum(not row["converged"] for row in rows)
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
    return [Table(caption, head, body)]


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
        "alphas": [100.0, 10.0, 3], "alpha": 10.0, "targets": 2, "folds": 2, "repeats": 1, "limit": None},
        "quick": {"settings": [["diabetes", 2**16, 3.0], [SPHERE, 2**16, 3.0], [SPHERE, 2**16, 0.0]],
        "alphas": [1000.0, 10.0, 20], "alpha": 100.0, "targets": 10, "folds": 5, "repeats": 1, "limit": None},
        "full": {"settings": [["diabetes", 2**18, 2.5], ["diabetes", 2**18, 3.0], ["diabetes", 2**20, 3.0],
        [SPHERE, 2**18, 3.0], [SPHERE, 2**20, 3.0], ["diabetes", 2**18, 0.0], [SPHERE, 2**20, 0.0]],
        "alphas": [1000.0, 10.0, 20], "alpha": 100.0, "targets": 10, "folds": 5, "repeats": 3, "limit": None},
    },
    measure, answer, tables, panels,
)  # fmt: skip
