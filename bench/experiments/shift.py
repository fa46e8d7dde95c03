"""Question 6: how to choose b. Question 8: lambda_min by data, m and b. Question 9: how wide is wide enough."""

from __future__ import annotations

import numpy as np

from bench.baselines import BASELINES, SECOND_ORDER
from bench.experiment import Content, Experiment, Panel, Table
from bench.experiments.common import GOAL, gram_of, step_seconds, train, warm
from bench.measure import summary
from bench.problems import Problem, make
from bench.words import listed, number, power_of_two, spread
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.foresight.ntk import NtkRidge, shifted_ntk
from gpu_sublinear.model.shifts import firing_probability

BITS = SECOND_ORDER[2]


def spectrum(G: np.ndarray) -> dict[str, float]:
    """Return smallest and largest eigenvalue and the condition number (infinite where singular to rounding)."""
    values = np.linalg.eigvalsh(G)
    low, high = float(values[0]), float(values[-1])
    singular = low <= len(G) * np.finfo(float).eps * high
    return {"low": 0.0 if singular else low, "high": high, "condition": float("inf") if singular else high / low}


def measure(data: list, m: int, shifts: list, repeats: int, limit: int | None, device: str) -> Content:
    """Train at every shift; look at speed, conditioning, and error on held-out points."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            problem = make(name, m, b, device=device, limit=limit)
            base = {"data": name, "n": problem.n, "m": m, "shift": b, "probability": firing_probability(b)}
            base |= {"ntk_r2": problem.r2(NtkRidge(b).fit(problem.X, problem.y).predict(problem.X_test))}
            rows.append(base | spectrum(gram_of(problem)) | _trained(problem, repeats))
    return {"rows": rows}


def _trained(problem: Problem, repeats: int) -> dict:
    try:
        runs, theirs = [], []
        for _ in range(repeats):
            runs.append(train(problem, max_steps=25))
            theirs.append(BASELINES[BITS](problem, GOAL, 30.0).trajectory[-1][0])
    except SilentPointsError as reason:
        return {"error": str(reason)}
    return {
        "whole": summary([run.seconds for run in runs]), "step": summary([step_seconds(run.history) for run in runs]),
        "dense": summary(theirs), "steps": len(runs[0].history) - 1, "mse": runs[0].history[-1].mse,
        "converged": runs[0].converged, "r2": problem.r2(runs[0].network.predict(problem.X_test)),
    }  # fmt: skip


def by_data(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["data"], []).append(row)
    return found


def answer(content: Content) -> str:
    parts = []
    for name, rows in by_data(content["rows"]).items():
        done = [row for row in rows if row.get("converged")]
        if not done:
            parts.append(f"{name}: no shift reached mse {GOAL:g}.")
            continue
        paying = [row["shift"] for row in done if row["whole"]["median"] < row["dense"]["median"]]
        best = max(done, key=lambda row: row["r2"])
        fastest = min(done, key=lambda row: row["whole"]["median"])
        pays = (
            f"the smallest b here that pays against {BITS} is {min(paying):g}"
            if paying
            else f"no b here pays against {BITS}"
        )
        lost = [f"{row['shift']:g}" for row in rows if not row.get("converged")]
        parts.append(
            f"{name}: {pays}; fastest at b = {fastest['shift']:g}, best held-out R² {best['r2']:.3f} at b = "
            f"{best['shift']:g} "
            f"(NTK ridge with that shift {best['ntk_r2']:.3f})"
            + (f"; goal not reached at b = {', '.join(lost)}." if lost else ".")
        )
    return " ".join(parts)


def tables(content: Content) -> list[Table]:
    head = ["b", "step", "whole run", BITS, "steps", "lambda_min", "cond(G)", "held-out R²", "NTK ridge R²"]
    found = []
    for name, rows in by_data(content["rows"]).items():
        body = [
            [
                f"{row['shift']:g}", spread(row.get("step")), spread(row.get("whole")), spread(row.get("dense")),
                (str(row["steps"]) if row.get("converged") else f"not reached ({number(row.get('mse'))})"),
                number(row["low"]), number(row["condition"]), number(row.get("r2")), number(row["ntk_r2"]),
            ]
            for row in rows
        ]  # fmt: skip
        found.append(
            Table(f"{name}, n = {rows[0]['n']}, m = {power_of_two(rows[0]['m'])}, goal mse {GOAL:g}", head, body)
        )
    return found


def panels(content: Content) -> list[Panel]:
    def curves(key: str, inner: str | None = None) -> dict:
        return {
            name.split(":")[0]: [(row["shift"], row[key][inner] if inner else row[key]) for row in rows if row.get(key)]
            for name, rows in by_data(content["rows"]).items()
        }

    return [
        Panel("whole run", "shift b", "seconds", curves("whole", "median"), "y"),
        Panel("conditioning", "shift b", "cond(G)", curves("condition"), "y"),
        Panel("held out", "shift b", "R²", curves("r2"), ""),
    ]


def measure_spectrum(data: list, widths: list, shifts: list, limit: int | None, device: str) -> Content:
    """Compute the extreme eigenvalues of G at the start and of its infinite-width limit."""
    rows = []
    for name in data:
        for b in shifts:
            limit_values = None
            for m in widths:
                problem = make(name, m, b, device=device, limit=limit)
                limit_values = limit_values or spectrum(shifted_ntk(problem.X, None, b))
                row = {"data": name, "n": problem.n, "d": problem.d, "m": m, "shift": b}
                rows.append(row | spectrum(gram_of(problem)) | {"limit": limit_values, "q": firing_probability(b)})
    return {"rows": rows}


def spectrum_answer(content: Content) -> str:
    parts = []
    for name, rows in by_data(content["rows"]).items():
        wide = [row for row in rows if row["m"] == max(one["m"] for one in rows)]
        shares = [row["low"] / row["q"] for row in wide]
        conditions = [f"{number(row['condition'])} at b = {row['shift']:g}" for row in wide]
        singular = [f"b = {row['shift']:g}, m = {power_of_two(row['m'])}" for row in rows if not row["low"]]
        parts.append(
            f"{name}: at the largest m, lambda_min / Q(b) is {number(min(shares))} to {number(max(shares))}, the "
            f"condition "
            f"number {listed(conditions)}" + (f"; singular at {'; '.join(singular)}." if singular else ".")
        )
    return " ".join(parts)


def spectrum_tables(content: Content) -> list[Table]:
    head = ["data", "b", "m", "lambda_min", "lambda_min / Q(b)", "infinite width", "cond(G)", "infinite width"]
    body = [
        [
            row["data"], f"{row['shift']:g}", power_of_two(row["m"]), number(row["low"]), number(row["low"] / row["q"]),
            number(row["limit"]["low"]), number(row["condition"]), number(row["limit"]["condition"]),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    return [Table("eigenvalues of G at the start, and of the closed-form kernel", head, body)]


def spectrum_panels(content: Content) -> list[Panel]:
    widest = max(row["m"] for row in content["rows"])
    curves = {
        name.split(":")[0]: [(row["shift"], row["low"]) for row in rows if row["m"] == widest and row["low"]]
        for name, rows in by_data(content["rows"]).items()
    }
    growth = {
        f"{name.split(':')[0]}, b={b:g}": [
            (row["m"], row["low"] / row["limit"]["low"])
            for row in rows if row["shift"] == b and row["low"] and row["limit"]["low"]
        ]
        for name, rows in by_data(content["rows"]).items() for b in sorted({row["shift"] for row in rows})
    }  # fmt: skip
    return [
        Panel("at the largest width", "shift b", "lambda_min(G)", curves, "y"),
        Panel("approach to the limit", "width m", "lambda_min / its limit", growth, "xy", 1.0),
    ]


def measure_widths(data: list, widths: list, shifts: list, seeds: int, limit: int | None, device: str) -> Content:
    """Train at growing widths; a width is wide enough if every seed reaches the goal."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            for m in widths:
                runs = [_steps(make(name, m, b, seed, device, limit)) for seed in range(1, seeds + 1)]
                rows.append({"data": name, "n": runs[0]["n"], "shift": b, "m": m, "runs": runs})
    return {"rows": rows}


def _steps(problem: Problem) -> dict:
    try:
        result = train(problem, max_steps=30)
    except SilentPointsError:
        return {"n": problem.n, "steps": None, "mse": None}
    steps = len(result.history) - 1 if result.converged else None
    return {
        "n": problem.n,
        "steps": steps,
        "mse": min(record.mse for record in result.history if np.isfinite(record.mse)),
    }


def enough(rows: list[dict]) -> dict[tuple[str, float], tuple[int | None, int]]:
    """Return by (data, b) the least width from which on every seed converges, and n."""
    found: dict[tuple[str, float], tuple[int | None, int]] = {}
    for row in sorted(rows, key=lambda row: -row["m"]):
        key = (row["data"], row["shift"])
        good = all(run["steps"] is not None for run in row["runs"])
        least, alive = found.get(key, (None, 1))
        if alive:
            found[key] = (row["m"], row["n"]) if good else (least, 0)
    return found


def width_answer(content: Content) -> str:
    parts = []
    n_of = {row["data"]: row["n"] for row in content["rows"]}
    for (name, b), (m, _) in sorted(enough(content["rows"]).items()):
        told = f"m = {power_of_two(m)} (m / n = {m / n_of[name]:.3g})" if m else "no width tried"
        parts.append(f"{name}, b = {b:g}: {told}")
    return (
        f"Least width tried from which on every seed reaches mse {GOAL:g}: {'; '.join(parts)}. The theorem asks for "
        f"about "
        "n^100, which is not runnable; it is not what training needs."
    )


def width_tables(content: Content) -> list[Table]:
    widths = sorted({row["m"] for row in content["rows"]})
    cells: dict[tuple[str, float], list[str]] = {}
    for row in sorted(content["rows"], key=lambda row: row["m"]):
        steps = [run["steps"] for run in row["runs"]]
        best = min((run["mse"] for run in row["runs"] if run["mse"] is not None), default=None)
        text = "/".join(map(str, steps)) if None not in steps else f"x ({number(best, 2)})"
        cells.setdefault((row["data"], row["shift"]), []).append(text)
    body = [[name, f"{b:g}", *row] for (name, b), row in cells.items()]
    caption = f"steps to mse {GOAL:g} by seed; x: some seed stalled (best mse)"
    return [Table(caption, ["data", "b", *map(power_of_two, widths)], body)]


def width_panels(content: Content) -> list[Panel]:
    curves: dict[str, list] = {}
    for row in content["rows"]:
        steps = [run["steps"] for run in row["runs"]]
        if None not in steps:
            name = f"{row['data'].split(':')[0]}, b={row['shift']:g}"
            curves.setdefault(name, []).append((row["m"] / row["n"], float(np.median(steps))))
    return [Panel("steps to the goal", "m / n", "steps", curves, "x")]


NAMES = ["sphere:n=320,d=16", "digits", "breast_cancer", "diabetes"]
CLUSTERED, TINY = "clustered:n=320,d=16", "sphere:n=40,d=8"
EXPERIMENT = Experiment(
    "shift", 6, "How should b be chosen, and from which b on does sparsity pay?",
    {
        "tiny": {"data": [TINY], "m": 512, "shifts": [0.0, 1.0], "repeats": 1, "limit": None},
        "quick": {"data": NAMES[:2], "m": 2**14, "shifts": [0.0, 1.0, 1.5, 2.0, 2.5], "repeats": 1, "limit": 200},
        "full": {"data": NAMES, "m": 2**17, "shifts": [0, 0.5, 1, 1.5, 2, 2.3, 2.6, 3, 3.5], "repeats": 2,
        "limit": 512},
    },
    measure, answer, tables, panels,
)  # fmt: skip
SPECTRUM = Experiment(
    "spectrum", 8, "How large is lambda_min, and how does it depend on the data, m and b?",
    {
        "tiny": {"data": [TINY, "clustered:n=40,d=8"], "widths": [512, 1024], "shifts": [0.0, 1.0], "limit": None},
        "quick": {"data": [*NAMES, CLUSTERED], "widths": [2**12, 2**15], "shifts": [0.0, 1.0, 2.0], "limit": 200},
        "full": {
            "data": [*NAMES, CLUSTERED], "widths": [2**k for k in range(12, 19, 2)], "shifts": [0.0, 1.0, 2.0, 3.0,
            4.0],
            "limit": 512,
        },
    },
    measure_spectrum, spectrum_answer, spectrum_tables, spectrum_panels,
)  # fmt: skip
WIDTH = Experiment(
    "enough", 9, "How wide is wide enough: what m / n is really needed?",
    {
        "tiny": {"data": [TINY], "widths": [64, 512], "shifts": [0.5], "seeds": 1, "limit": None},
        "quick": {"data": NAMES, "widths": [2**8, 2**10, 2**12, 2**14], "shifts": [0.0, 1.0], "seeds": 2, "limit": 200},
        "full": {
            "data": [*NAMES, CLUSTERED], "widths": [2**k for k in range(8, 17, 2)], "shifts": [0.0, 1.0, 2.0, 3.0],
            "seeds": 3, "limit": 512,
        },
    },
    measure_widths, width_answer, width_tables, width_panels,
)  # fmt: skip
