"""The penalty by cross-validation: against a grid search of separate trainings, and how the early end does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.experiments.common import warm
from bench.experiments.path import SPHERE, folds_of, noisy, timed, trainer_for
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import Problem, make
from bench.harness.words import number, percent, power_of_two, seconds, versus
from gpu_sublinear.training.warmup import warm_up
from gpu_sublinear.tuning.cross_validation import PATIENCE, CrossValidation, cross_validate
from gpu_sublinear.tuning.shared_scan import SharedScan

NOISE = "noise on "  # before the name of data whose targets nothing can predict
Grid = tuple[float, float, int]  # first, last, how many in equal ratios


def problem_of(data: str, m: int, shift: float, device: str) -> Problem:
    """Return the problem, with noise on the targets of a sphere, or with noise alone."""
    name = data.removeprefix(NOISE)
    problem = noisy(make(name, m, shift, device=device))
    if name == data:
        return problem
    y = np.random.default_rng(6).standard_normal(problem.n)
    return replace(problem, data=data, y=(y - y.mean()) / y.std())


def search(problem: Problem, alphas: np.ndarray, folds: list, patience: int | None) -> CrossValidation:
    """Cross-validate from one scan."""
    trainer = trainer_for(problem, min(alphas))
    scan = SharedScan.build(trainer, problem.network(paired=True), problem.X, problem.y, len(folds))
    return cross_validate(scan, problem.y, list(alphas), folds, patience=patience)


def search_apart(problem: Problem, alphas: np.ndarray, folds: list) -> np.ndarray:
    """Return errors (k, folds) of as many trainings as a grid search does, each with its own scan."""
    errors, X, y = np.empty((len(alphas), len(folds))), problem.X, problem.y
    for column, (fold, rest) in enumerate(folds):
        for k, alpha in enumerate(alphas):
            network = problem.network(paired=True)
            trainer_for(problem, alpha).fit(network, X[fold], y[fold])
            errors[k, column] = ((network.device.to_host(network.predict(X[rest])) - y[rest]) ** 2).mean()
    return errors


def measure(settings: list, alphas: Grid, ends: list, grids: dict[str, Grid], folds: int, device: str) -> Content:
    """Search together and apart at every setting (data, m, b); at ``ends`` end early and not, on every grid; once."""
    warm(device)
    rows, early = [], []
    for place in settings:
        problem, parts = _prepared(*place, folds, device)
        rows.append(_place(problem) | _both(problem, np.geomspace(*alphas), parts))
    for place in ends:
        problem, parts = _prepared(*place, folds, device)
        early += [
            _place(problem) | {"grid": name} | _early(problem, np.geomspace(*grid), parts)
            for name, grid in grids.items()
        ]
    return {"rows": rows, "alphas": list(alphas), "ends": early, "grids": grids, "folds": folds}


def _prepared(data: str, m: int, shift: float, folds: int, device: str) -> tuple[Problem, list]:
    problem = problem_of(data, m, shift, device)
    warm_up(problem.network().device, trainer_for(problem, 1.0))
    return problem, [(fold, np.setdiff1d(np.arange(problem.n), fold)) for fold in folds_of(problem.n, folds)]


def _place(problem: Problem) -> dict:
    return {"data": problem.data, "n": problem.n, "m": problem.m, "shift": problem.shift}


def _both(problem: Problem, alphas: np.ndarray, folds: list) -> dict:
    found, together = timed(search, problem, alphas, folds, None)
    theirs, apart = timed(search_apart, problem, alphas, folds)
    ours, mine, other = found.errors, found.errors.mean(axis=1), theirs.mean(axis=1)  # (k,)
    return {
        "count": ours.size, "together": together, "apart": apart,
        "chosen": float(alphas[mine.argmin()]), "chosen_apart": float(alphas[other.argmin()]),
        "least": float(mine.min()), "least_apart": float(other.min()),
        "difference": float(abs(ours / theirs - 1).max()),
    }  # fmt: skip


def _early(problem: Problem, alphas: np.ndarray, folds: list) -> dict:
    found, ended = timed(search, problem, alphas, folds, PATIENCE)
    every, whole = timed(search, problem, alphas, folds, None)
    return {
        "count": len(alphas), "tried": found.complete, "ended": ended, "whole": whole,
        "chosen": found.alpha, "chosen_whole": every.alpha,
        "least": float(found.mean[found.best]), "least_whole": float(every.mean[every.best]),
        "error": float(every.standard_error[every.best]), "errors": every.mean.tolist(),
    }  # fmt: skip


def _loss(row: dict) -> float:
    """Return by how much the error of the chosen penalty exceeds the least of all, relative."""
    return row["least"] / row["least_whole"] - 1


def answer(content: Content) -> str:
    parts = [
        f"{row['count']} trainings, {row['data']}, m = {power_of_two(row['m'])}, b = {row['shift']:g}: one scan "
        f"{versus(row['together'], row['apart'])} against separate trainings, "
        f"{'the same' if row['chosen'] == row['chosen_apart'] else 'another'} penalty is chosen"
        for row in content["rows"]
    ]
    ends = content["ends"]
    early = [row for row in ends if row["tried"] < row["count"]]
    saved = [1 - row["ended"] / row["whole"] for row in ends]
    return (
        f"{'; '.join(parts)}. Where the search may end before the smallest penalty, it does in {len(early)} of "
        f"{len(ends)} searches; the error of the penalty it takes exceeds the least of all by "
        f"{max(map(_loss, ends)):.2%} at most, and the median search saves {percent(float(np.median(saved)))} of the "
        f"seconds, the best {percent(max(saved))}."
    )


def tables(content: Content) -> list[Table]:
    head = ["data", "m", "b", "trainings", "one scan", "apart", "ratio", "chosen", "apart", "least error", "apart",
            "largest difference of an error"]  # fmt: skip
    body = [
        [
            f"{row['data']}, n={row['n']}", power_of_two(row["m"]), f"{row['shift']:g}", str(row["count"]),
            seconds(row["together"]), seconds(row["apart"]), number(row["apart"] / row["together"]),
            f"{row['chosen']:.3g}", f"{row['chosen_apart']:.3g}", f"{row['least']:.4f}", f"{row['least_apart']:.4f}",
            f"{row['difference']:.2%}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    high, low, count = content["alphas"]
    caption = (
        f"alpha {high:g} to {low:g} in {count} values on {content['folds']} folds, with the errors on the points left "
        "out; one run"
    )
    end_head = ["data", "m", "b", "penalties", "tried", "seconds", "all", "chosen", "of all", "its error",
                "least of all", "standard error", "above"]  # fmt: skip
    end_body = [
        [
            f"{row['data']}, n={row['n']}", power_of_two(row["m"]), f"{row['shift']:g}", row["grid"],
            f"{row['tried']} of {row['count']}", seconds(row["ended"]), seconds(row["whole"]),
            f"{row['chosen']:.3g}", f"{row['chosen_whole']:.3g}", f"{row['least']:.4f}", f"{row['least_whole']:.4f}",
            f"{row['error']:.4f}", f"{_loss(row):.2%}",
        ]
        for row in content["ends"]
    ]  # fmt: skip
    return [Table(caption, head, body), Table("The early end, against trying all; one run", end_head, end_body)]


def panels(content: Content) -> list[Panel]:
    found: dict[str, Panel] = {}
    for row in content["ends"]:
        title = f"{row['data'].split(':')[0]}, n = {row['n']}"
        panel = found.setdefault(row["data"], Panel(title, "alpha", "error on points left out", {}, "x"))
        panel.curves[row["grid"]] = list(zip(np.geomspace(*content["grids"][row["grid"]]), row["errors"], strict=True))
    return list(found.values())


GRIDS = {"1000 to 1e-4, 15": [1e3, 1e-4, 15], "1e6 to 1e-6, 13": [1e6, 1e-6, 13], "1e5 to 1e-2, 71": [1e5, 1e-2, 71]}
EXPERIMENT = Experiment(
    "search", 0, "What does a search for the penalty on folds cost, and what is lost where it ends early?",
    {
        "tiny": {"settings": [["sphere:n=40,d=8", 2**10, 1.0]], "alphas": [10.0, 1.0, 2],
        "ends": [["sphere:n=40,d=8", 2**10, 1.0]], "grids": {"100 to 1, 3": [100.0, 1.0, 3]}, "folds": 2},
        "quick": {"settings": [["diabetes", 2**16, 3.0], [SPHERE, 2**16, 3.0], [SPHERE, 2**16, 0.0]],
        "alphas": [1000.0, 0.1, 13], "ends": [["diabetes", 2**13, 1.5], [SPHERE, 2**13, 1.5]],
        "grids": dict(list(GRIDS.items())[:2]), "folds": 5},
        "full": {"settings": [["diabetes", 2**18, 2.5], ["diabetes", 2**18, 3.0], [SPHERE, 2**18, 3.0],
        ["diabetes", 2**18, 0.0]], "alphas": [1000.0, 0.1, 13],
        "ends": [["diabetes", 2**14, 1.5], ["breast_cancer", 2**14, 1.5], [SPHERE, 2**14, 1.5],
        ["sphere:n=120,d=4", 2**14, 1.5], [NOISE + SPHERE, 2**14, 1.5]], "grids": GRIDS, "folds": 5},
    },
    measure, answer, tables, panels,
)  # fmt: skip
