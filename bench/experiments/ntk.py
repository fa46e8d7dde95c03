"""Question 10: is it only regression with the neural tangent kernel."""

from __future__ import annotations

import numpy as np

from bench.experiments.common import DATA_SETS, TINY, distance, train, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import power_law
from bench.harness.problems import make
from bench.harness.words import interval, number, power_of_two
from gpu_sublinear.errors import SilentPointsError
from gpu_sublinear.foresight.ntk import NtkRidge


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
        fit = power_law([row["m"] for row in rows], [median(row, "distance") for row in rows])
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


EXPERIMENT = Experiment(
    "ntk", 10, "Is it only regression with the neural tangent kernel?",
    {
        "tiny": {"data": [TINY], "widths": [256, 512, 1024], "shifts": [0.5], "seeds": 1, "limit": None},
        "quick": {"data": DATA_SETS[:2], "widths": [2**k for k in range(10, 17, 2)], "shifts": [0.0, 1.0, 2.0],
        "seeds": 2, "limit": 200},
        "full": {
            "data": DATA_SETS, "widths": [2**k for k in range(10, 19, 2)],
            "shifts": [0.0, 1.0, 2.0, 3.0], "seeds": 3, "limit": 512,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
