"""Cases on which full Gauss-Newton steps may fail: clusters, flipped labels, noise, contradicting duplicates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.baselines import levenberg, torch_methods
from bench.baselines.common import Baseline, DoesNotFitError, NotInstalledError
from bench.baselines.torch_methods import ADAM_RATES
from bench.experiments.common import GOAL, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import CLUSTERS, Problem, make
from bench.harness.words import listed, number, power_of_two
from gpu_sublinear.errors import DataError

MODES = {"none": "full steps alone", "auto": "damping='auto'", "alpha": "a ridge penalty"}
CASES = (
    "clusters .3 random", "clusters .3 smooth", "clusters .03 random", "clusters .03 smooth",
    "clusters .03 random n=64", "clusters .03 random d=64", "clusters .03 random m=4096 b=1",
    "digits 10 % flipped", "diabetes", "duplicates",
)  # fmt: skip
FLOOR = 1.05  # times the least-squares loss: a run that comes this near has arrived


def problem_of(case: str, n: int, m: int, shift: float, device: str) -> Problem:
    """Return the points and targets of a case, all of them to train on."""
    kind, *words = case.split()
    rng = np.random.default_rng(0)
    if kind == "clusters":
        own = dict(word.split("=") for word in words[2:])  # what differs from the other cases
        m, shift = int(own.get("m", m)), float(own.get("b", shift))
        X, y = clusters(float(words[0]), words[1] == "smooth", int(own.get("n", n)), int(own.get("d", 16)))
    else:
        name = f"sphere:n={-(-n * 5 // 4)},d=16" if kind == "duplicates" else kind
        base = make(name, m, shift, limit=n)
        X, y = base.X, base.y.copy()
    if kind == "digits":
        y[rng.permutation(len(y))[: len(y) // 10]] *= -1
    if kind == "duplicates":  # the first tenth again, every target off by one
        again = len(y) // 10
        X, y = np.vstack([X, X[:again]]), np.concatenate([y, y[:again] + 1.0])
    return Problem(case, X, y, X, y, m, shift, device=device)


def clusters(spread: float, smooth: bool, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points within ``spread`` of 16 centres on the sphere, with a smooth function or random signs to learn."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((CLUSTERS, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X[np.arange(n) % CLUSTERS] + spread * rng.standard_normal((n, d)) / np.sqrt(d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = np.sin(3 * X @ rng.standard_normal(d)) if smooth else rng.choice([-1.0, 1.0], n)
    return X, (y - y.mean()) / y.std()


def floor_of(problem: Problem) -> float:
    """Return the loss below which no function can come: equal points with different targets."""
    _, group = np.unique(problem.X, axis=0, return_inverse=True)
    group = group.reshape(-1)
    mean = np.bincount(group, problem.y) / np.bincount(group)
    return 0.5 * float(((problem.y - mean[group]) ** 2).sum())


def measure(cases: list, n: int, m: int, shift: float, alpha: float, steps: int, budget: float, device: str) -> Content:
    """Train every case with full steps alone, with damping, with a penalty, and by dense Levenberg-Marquardt."""
    warm(device)
    rows = []
    for case in cases:
        problem = problem_of(case, n, m, shift, device)
        row = {"case": case, "n": problem.n, "floor": floor_of(problem)}
        options = {"max_steps": steps, "time_budget": budget}
        row["none"] = _run(problem, damping="none", **options)
        row["auto"] = _run(problem, **options)
        row["alpha"] = _run(problem, alpha=alpha, **options)
        row["dense"] = _opponent(problem, levenberg.fit, budget)
        try:
            row["adam"] = _opponent(problem, torch_methods.adam, budget)
        except (NotInstalledError, DoesNotFitError):
            row["adam"] = None
        rows.append(row)
    return {"rows": rows, "m": m, "shift": shift, "alpha": alpha, "steps": steps, "budget": budget}


def _run(problem: Problem, **options: float | str) -> dict:
    try:
        result = train(problem, paired=True, **options)
    except DataError as refusal:
        return {"refused": str(refusal), "finite": True}
    losses = [record.loss for record in result.history]
    last = result.final
    return {
        "converged": result.converged, "reason": result.reason, "steps": result.history[-1].step,
        "rejected": sum(record.rejected for record in result.history), "loss": last.loss,
        "objective": last.objective, "highest": max(losses) / losses[0], "seconds": result.seconds,
        "finite": bool(np.isfinite(result.network.predict(problem.X)).all()), "losses": losses,
    }  # fmt: skip


class _Paired(Problem):
    """The same problem with the paired network that the other runs have."""

    def network(self, paired: bool = True, dtype: str = "float32"):
        return super().network(True, dtype)


def _opponent(problem: Problem, baseline: Baseline, budget: float) -> dict:
    """Train the same paired network."""
    paired = _Paired(**{name: getattr(problem, name) for name in replace(problem).__dataclass_fields__})
    fit = baseline(paired, GOAL, budget)
    return {"loss": 0.5 * problem.n * fit.best, "seconds": fit.trajectory[-1][0], "trials": len(fit.trajectory) - 1}


def arrived(row: dict, mode: str) -> bool:
    """Tell whether a run ended where it should: the goal, the least-squares solution, or the penalised minimum."""
    run = row[mode]
    near = "loss" in run and run["loss"] is not None and row["floor"] > 0 and run["loss"] <= FLOOR * row["floor"]
    return bool(run.get("converged") or (mode != "alpha" and near))


def answer(content: Content) -> str:
    rows = content["rows"]
    parts = []
    for mode, words in MODES.items():
        lost = [row["case"] for row in rows if not arrived(row, mode)]
        parts.append(
            f"with {words} {len(rows) - len(lost)} of {len(rows)} cases arrive"
            + (f" (not {listed(lost)})" if lost else "")
        )
    better = sum(row["auto"]["loss"] <= FLOOR * max(row["dense"]["loss"], goal_loss(row)) for row in rows)
    finite = all(row[mode]["finite"] for row in rows for mode in ("auto", "alpha"))
    trials = [row["dense"]["trials"] for row in rows]
    text = "; ".join(parts)
    return (
        f"{text[0].upper()}{text[1:]}. With damping the loss ends at, or within 5 % of, that of dense "
        f"Levenberg-Marquardt (given {content['budget']:g} s a case, {min(trials)} to {max(trials)} trials), or below,"
        f" in {better} of {len(rows)} cases. "
        + _against_adam(rows)
        + ("No prediction of a damped or penalised run is NaN." if finite else "Some predictions are not finite.")
    )


def _against_adam(rows: list[dict]) -> str:
    there = [row for row in rows if row["adam"]]
    if not there:
        return ""
    ahead = [
        row["case"]
        for row in there
        if row["adam"]["loss"] < min(row["auto"]["loss"], row["none"].get("loss") or np.inf)
    ]
    first = f"Adam of PyTorch, full batches and the best of {len(ADAM_RATES)} rates, ends lower than both in "
    return first + (f"{listed(ahead)}. " if ahead else "no case. ")


def goal_loss(row: dict) -> float:
    """Return the loss at which a run has reached the goal."""
    return 0.5 * row["n"] * GOAL


def told(row: dict, mode: str) -> list[str]:
    """Return outcome, steps with rejections, and loss of a run."""
    run = row[mode]
    if "refused" in run:
        return ["refused", "-", "-"]
    reason = run["reason"]
    ending = "time runs out" if "time budget" in reason else "steps run out" if "max_steps" in reason else "stalls"
    ending = "arrives" if arrived(row, mode) else ending
    if run["highest"] is None or run["highest"] > 2:
        ending += ", loss rose"
    return [ending, f"{run['steps']} ({run['rejected']})", number(run["objective" if mode == "alpha" else "loss"])]


def tables(content: Content) -> list[Table]:
    head = ["case", "n", "least loss"]
    for name in ("none", "auto", "alpha"):
        head += [name, "steps (rejected)", "objective" if name == "alpha" else "loss"]
    head += ["dense LM: loss", "trials", "Adam: loss"]
    body = []
    for row in content["rows"]:
        cells = [row["case"], str(row["n"]), number(row["floor"])]
        for mode in MODES:
            cells += told(row, mode)
        adam = number(row["adam"]["loss"]) if row["adam"] else "-"
        body.append([*cells, number(row["dense"]["loss"]), str(row["dense"]["trials"]), adam])
    caption = (
        f"m = {power_of_two(content['m'])}, b = {content['shift']:g}, at most {content['steps']} steps and "
        f"{content['budget']:g} s; alpha = {content['alpha']:g}; loss = 1/2 ||f - y||^2, goal mse {GOAL:g}"
    )
    return [Table(caption, head, body)]


def panels(content: Content) -> list[Panel]:
    found = []
    for row in content["rows"]:
        curves = {
            words: [(k, loss) for k, loss in enumerate(row[mode]["losses"]) if loss]
            for mode, words in MODES.items() if "losses" in row[mode]
        }  # fmt: skip
        found.append(Panel(row["case"], "step", "loss", curves, "y", row["dense"]["loss"] or None))
    return found


EXPERIMENT = Experiment(
    "robust", 0, "What happens where full steps may fail: clusters, flipped labels, noise, contradictions?",
    {
        "tiny": {"cases": [CASES[3], CASES[-1]], "n": 48, "m": 2**11, "shift": 1.0, "alpha": 1.0, "steps": 15,
        "budget": 0.2},
        "quick": {"cases": list(CASES), "n": 192, "m": 2**14, "shift": 1.0, "alpha": 1.0, "steps": 400, "budget": 2.0},
        "full": {"cases": list(CASES), "n": 256, "m": 2**16, "shift": 2.0, "alpha": 1.0, "steps": 3000, "budget": 20.0},
    },
    measure, answer, tables, panels,
)  # fmt: skip
