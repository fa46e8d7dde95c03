"""Question 6: how to choose b, and from which b on sparsity pays."""

from __future__ import annotations

from bench.baselines import BASELINES, SECOND_ORDER
from bench.experiments.common import DATA_SETS, GOAL, TINY, by_data, extremes, gram_of, step_seconds, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import Problem, make
from bench.harness.words import number, power_of_two, spread
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.foresight.ntk import NtkRidge
from gpu_sublinear.model.shifts import firing_probability

BITS = SECOND_ORDER[2]


def measure(data: list, m: int, shifts: list, repeats: int, limit: int | None, device: str) -> Content:
    """Train at every shift; look at speed, conditioning, and error on held-out points."""
    warm(device)
    rows = []
    for name in data:
        for b in shifts:
            problem = make(name, m, b, device=device, limit=limit)
            base = {"data": name, "n": problem.n, "m": m, "shift": b, "probability": firing_probability(b)}
            base |= {"ntk_r2": problem.r2(NtkRidge(b).fit(problem.X, problem.y).predict(problem.X_test))}
            rows.append(base | extremes(gram_of(problem)) | _trained(problem, repeats))
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


EXPERIMENT = Experiment(
    "shift", 6, "How should b be chosen, and from which b on does sparsity pay?",
    {
        "tiny": {"data": [TINY], "m": 512, "shifts": [0.0, 1.0], "repeats": 1, "limit": None},
        "quick": {"data": DATA_SETS[:2], "m": 2**14, "shifts": [0.0, 1.0, 1.5, 2.0, 2.5], "repeats": 1, "limit": 200},
        "full": {"data": DATA_SETS, "m": 2**17, "shifts": [0, 0.5, 1, 1.5, 2, 2.3, 2.6, 3, 3.5], "repeats": 2,
        "limit": 512},
    },
    measure, answer, tables, panels,
)  # fmt: skip
