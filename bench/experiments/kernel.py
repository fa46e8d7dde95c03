"""Question 10: is it only regression with the NTK? Question 11: implicit bias against Adam and SGD."""

from __future__ import annotations

import numpy as np

from bench.baselines import BASELINES, OURS
from bench.baselines.common import DoesNotFitError, Fit, NotInstalledError
from bench.experiment import Content, Experiment, Panel, Table
from bench.experiments.common import train, warm
from bench.measure import slope
from bench.problems import make
from bench.words import interval, listed, number, power_of_two
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.foresight.ntk import NtkRidge

TRAINERS = (OURS, "torch SGD, momentum", "torch Adam", "torch L-BFGS")


def distance(a: np.ndarray, b: np.ndarray, scale: float) -> float:
    """Return the root mean square difference in units of the targets' standard deviation."""
    return float(np.sqrt(np.mean((a - b) ** 2))) / scale


def measure(data: list, widths: list, shifts: list, seeds: int, limit: int | None, device: str) -> Content:
    """Compare trained networks, zero at the start (paired), with the closed-form NTK on held-out points."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            for m in widths:
                rows.append(_against_kernel(name, m, b, seeds, limit, device))
    return {"rows": rows}


def _against_kernel(name, m, b, seeds, limit, device) -> dict:
    problem = make(name, m, b, device=device, limit=limit)
    kernel = NtkRidge(b).fit(problem.X, problem.y)
    limit_outputs, scale = kernel.predict(problem.X_test), float(problem.y_test.std())
    row = {"data": name, "n": problem.n, "m": m, "shift": b, "ntk_r2": problem.r2(limit_outputs), "runs": []}
    row["ntk_mse"] = float(np.mean((kernel.predict(problem.X) - problem.y) ** 2))
    for seed in range(1, seeds + 1):
        try:
            result = train(make(name, m, b, seed, device, limit), max_steps=25, paired=True)
        except SilentPointsError as reason:
            return row | {"error": str(reason)}
        outputs = result.network.predict(problem.X_test)
        run = {"mse": result.history[-1].mse, "r2": problem.r2(outputs), "converged": result.converged}
        row["runs"].append(run | {"distance": distance(outputs, limit_outputs, scale)})
    return row


def groups(content: Content) -> dict[tuple[str, float], list[dict]]:
    found: dict[tuple[str, float], list[dict]] = {}
    for row in content["rows"]:
        if "error" not in row and all(run["converged"] for run in row["runs"]):
            found.setdefault((row["data"], row["shift"]), []).append(row)
    return found


def median(row: dict, key: str) -> float:
    return float(np.median([run[key] for run in row["runs"]]))


def answer(content: Content) -> str:
    parts = []
    for (name, b), rows in groups(content).items():
        last = max(rows, key=lambda row: row["m"])
        fit = slope([row["m"] for row in rows], [median(row, "distance") for row in rows])
        gain = median(last, "r2") - last["ntk_r2"]
        verdict = "the same" if abs(gain) < 0.02 else "better" if gain > 0 else "worse"
        shrinking = f"shrinking as m^{interval(fit)}" if fit else "at too few widths for an exponent"
        parts.append(
            f"{name}, b = {b:g}: at m = {power_of_two(last['m'])} the predictions differ from NTK regression by "
            f"{median(last, 'distance'):.2g} standard deviations, {shrinking}; held-out R² "
            f"{median(last, 'r2'):.3f} against {last['ntk_r2']:.3f}: {verdict} (within 0.02 counts as noise)."
        )
    near = [median(max(rows, key=lambda row: row["m"]), "distance") < 0.1 for rows in groups(content).values()]
    close = f"In {sum(near)} of {len(near)} cases"
    head = f"{close} the widest network is within a tenth of a standard deviation of its kernel."
    return " ".join([head, *parts])


def tables(content: Content) -> list[Table]:
    head = ["data", "b", "m", "training mse", "held-out R²", "NTK R²", "distance to NTK"]
    body = [
        [row["data"], f"{row['shift']:g}", power_of_two(row["m"]), number(median(row, "mse")), number(median(row,
        "r2")),
         number(row["ntk_r2"]), number(median(row, "distance"))]
        if "error" not in row else [row["data"], f"{row['shift']:g}", power_of_two(row["m"]), "silent points", "-",
        "-", "-"]
        for row in content["rows"]
    ]  # fmt: skip
    caption = "paired initialisation, median over seeds; distance: root mean square over held-out points / std(y)"
    return [Table(caption, head, body)]


def panels(content: Content) -> list[Panel]:
    items = groups(content).items()
    curves = {f"{k[0].split(':')[0]}, b={k[1]:g}": [(r["m"], median(r, "distance")) for r in rows] for k, rows in items}
    scores = {
        f"{k[0].split(':')[0]}, b={k[1]:g}": [(r["m"], median(r, "r2") - r["ntk_r2"]) for r in rows]
        for k, rows in items
    }
    return [
        Panel("distance of predictions", "width m", "rms / std(y)", curves),
        Panel("gain over the kernel", "width m", "R² - R² of NTK", scores, "x", 0.0),
    ]


def measure_bias(
    data: list, m: int, shifts: list, goal: float, budget: float, limit: int | None, device: str
) -> Content:
    """Train the same network from the same weights by each method to the same error; compare where they end."""
    warm(device)
    return {
        "rows": [_bias(make(name, m, b, device=device, limit=limit), goal, budget) for name in data for b in shifts]
    }


def _bias(problem, goal, budget) -> dict:
    start, outputs, runs = problem.weights()[0], {}, {}
    for name in TRAINERS:
        try:
            fit: Fit = BASELINES[name](problem, goal, budget)
        except (NotInstalledError, DoesNotFitError) as reason:
            runs[name] = {"note": str(reason)}
            continue
        outputs[name] = fit.predict(problem.X_test)
        moved = np.linalg.norm(fit.weights() - start, axis=1) if fit.weights else np.zeros(1)
        runs[name] = {
            "note": fit.note, "mse": fit.best, "r2": problem.r2(outputs[name]),
            "movement": float(np.linalg.norm(moved)),
            "largest": float(moved.max()), "reached": fit.best <= goal,
        }  # fmt: skip
    scale = float(problem.y_test.std())
    outputs["NTK ridge"] = NtkRidge(problem.shift).fit(problem.X, problem.y).predict(problem.X_test)
    runs["NTK ridge"] = {"note": "closed form", "mse": 0.0, "r2": problem.r2(outputs["NTK ridge"]), "reached": True}
    between = {a: distance(outputs[a], outputs[OURS], scale) for a in outputs}
    return {
        "data": problem.data,
        "n": problem.n,
        "m": problem.m,
        "shift": problem.shift,
        "runs": runs,
        "between": between,
    }


def bias_answer(content: Content) -> str:
    parts = []
    for row in content["rows"]:
        ours = row["runs"][OURS]
        told = []
        for name, run in row["runs"].items():
            if name == OURS or "r2" not in run:
                continue
            late = "" if run["reached"] else f", stopped at mse {number(run['mse'])}"
            told.append(f"{name} {run['r2']:.3f} (distance {row['between'][name]:.2g}{late})")
        parts.append(
            f"{row['data']}, b = {row['shift']:g}: held-out R² of Gauss-Newton {ours['r2']:.3f}, {listed(told)}."
        )
    missing = sorted({n for row in content["rows"] for n, run in row["runs"].items() if "not installed" in run["note"]})
    return " ".join(parts) + (f" Not installed: {listed(missing)}." if missing else "")


def bias_tables(content: Content) -> list[Table]:
    head = ["method", "training mse", "held-out R²", "distance to Gauss-Newton", "||W - W_0||", "largest row", "note"]
    return [
        Table(
            f"{row['data']}, b = {row['shift']:g}, m = {power_of_two(row['m'])}; same initial weights", head,
            [
                [name, number(run.get("mse")), number(run.get("r2")), number(row["between"].get(name)),
                 number(run.get("movement")), number(run.get("largest")), run["note"]]
                for name, run in row["runs"].items()
            ],
        )
        for row in content["rows"]
    ]  # fmt: skip


def bias_panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for k, row in enumerate(content["rows"]):
        for name, run in row["runs"].items():
            if run.get("r2") is not None:
                curves.setdefault(name, []).append((k, run["r2"]))
    return [Panel("held out", "case (rows of the tables in order)", "R²", curves, "")]


NAMES, TINY = ["sphere:n=320,d=16", "digits", "breast_cancer"], "sphere:n=40,d=8"
EXPERIMENT = Experiment(
    "ntk", 10, "Is it only regression with the neural tangent kernel?",
    {
        "tiny": {"data": [TINY], "widths": [256, 512, 1024], "shifts": [0.5], "seeds": 1, "limit": None},
        "quick": {"data": NAMES[:2], "widths": [2**k for k in range(10, 17, 2)], "shifts": [0.0, 1.0, 2.0],
        "seeds": 2, "limit": 200},
        "full": {
            "data": [*NAMES, "diabetes"], "widths": [2**k for k in range(10, 19, 2)],
            "shifts": [0.0, 1.0, 2.0, 3.0], "seeds": 3, "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
BIAS = Experiment(
    "bias", 11, "Which solution is found: test error and distance against SGD and Adam?",
    {
        "tiny": {"data": [TINY], "m": 256, "shifts": [0.5], "goal": 1e-3, "budget": 0.3, "limit": None},
        "quick": {"data": NAMES[:2], "m": 2**12, "shifts": [0.0, 1.5], "goal": 1e-4, "budget": 4.0, "limit": 200},
        "full": {"data": NAMES, "m": 2**14, "shifts": [0.0, 1.0, 2.0], "goal": 1e-6, "budget": 12.0,
        "limit": 512},
    },
    measure_bias, bias_answer, bias_tables, bias_panels,
)  # fmt: skip
