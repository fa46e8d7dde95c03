"""The ordinary ReLU: what a step costs where mask, Gram matrix and outputs are kept through the pairs that flip."""

from __future__ import annotations

from typing import Any

from bench.baselines import dense
from bench.experiments.common import train, warm
from bench.experiments.path import noisy
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import power_law, summary
from bench.harness.problems import Problem, make
from bench.harness.words import interval, number, power_of_two, seconds, spread, versus
from gpu_sublinear import GaussNewton, get_device
from gpu_sublinear.model.problem import Problem as LeastSquares
from gpu_sublinear.training.prepare import prepare
from gpu_sublinear.training.warmup import warm_up

GOAL = 1e-10  # mse of standardised targets
TARGETS = {"later": 1 / 30, "whole": 1 / 8, "exponent": 0.75}  # of dense float; of seconds against m
KINDS = {
    "scan": "first look", "first": "first step", "later": "later step", "rows": "rows at the end", "whole": "whole run",
}  # fmt: skip
FLOAT, BITS = "dense float", "dense packed bits"
MASKS, STEPS = ("flips", "bits"), 60  # with a penalty: at most so many steps
OPPONENTS = {FLOAT: dense.all_at_once, BITS: dense.bits}


def measure(n: int, d: int, widths: list, ridge: list, repeats: int, budget: float, device: str) -> Content:
    """Train to an mse of GOAL at every width, flips and opponents in turn; then with penalties, against packed bits."""
    warm(device)
    warm_up(get_device(device), GaussNewton(mask="flips"))
    rows = []
    for m in widths:
        problem = make(f"sphere:n={n * 5 // 4},d={d}", m, 0.0, device=device)
        runs, times = [], {name: [] for name in OPPONENTS}
        for _ in range(repeats):
            runs.append(train(problem, GOAL, mask="flips"))
            for name, opponent in OPPONENTS.items():
                times[name].append(opponent(problem, GOAL, budget).trajectory)
        rows.append(_row(problem, runs, times))
    return {"rows": rows, "ridge": [_with_penalty(*case, repeats, device) for case in ridge]}


def _with_penalty(data: str, m: int, alpha: float, repeats: int, device: str) -> dict[str, Any]:
    """Train to the minimum of a penalised loss with flips and with packed bits, in turn."""
    problem = noisy(make(data, m, 0.0, device=device))
    runs: dict[str, list] = {mask: [] for mask in MASKS}
    for mask in MASKS:
        warm_up(get_device(device), GaussNewton(mask=mask, alpha=alpha))
    for _ in range(repeats):
        for mask, found in runs.items():
            found.append(train(problem, paired=True, mask=mask, alpha=alpha, max_steps=STEPS))
    row: dict[str, Any] = {"data": data, "n": problem.n, "m": m, "alpha": alpha}
    for mask, found in runs.items():
        row[mask] = {
            "steps": len(found[0].history) - 1, "whole": summary([run.seconds for run in found]),
            "step": summary([_mean(_step_seconds(run.history)) for run in found]),
            "objective": found[0].final.objective, "converged": found[0].converged,
        }  # fmt: skip
    return row


def _row(problem: Problem, runs: list, times: dict[str, list]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "m": problem.m, "n": problem.n, "d": problem.d, "scan": summary([run.build_seconds for run in runs]),
        "first": summary([_step_seconds(run.history)[0] for run in runs]),
        "later": summary([_mean(_step_seconds(run.history)[1:]) for run in runs]),
        "rows": summary([run.history[-1].phases["update"] for run in runs]),
        "whole": summary([run.seconds for run in runs]), "mse": [record.mse for record in runs[0].history],
        "looked": [record.tree_nodes_visited for record in runs[0].history], "flips": _flips(problem),
        "dense": {},
    }  # fmt: skip
    for name, fits in times.items():
        reached = all(moments[-1][1] <= GOAL for moments in fits)
        steps = [(one[-1][0] - one[0][0]) / max(1, len(one) - 1) for one in fits]  # all alike
        whole = summary([moments[-1][0] for moments in fits])
        row["dense"][name] = {"reached": reached, "later": summary(steps), "whole": whole}
    return row


def _step_seconds(history: list) -> list[float]:
    """Return the seconds of every step: to solve and to move, then to find the flips and the new outputs."""
    look = [record.phases["query"] + record.phases["forward"] for record in history]
    step = [record.seconds - seen for record, seen in zip(history, look, strict=True)]
    return [a + b for a, b in zip(step, look[1:], strict=False)]


def _mean(values: list[float]) -> float:
    return sum(values) / max(1, len(values))


def _flips(problem: Problem) -> list[int]:
    """Return the number of pairs that flip in each step, from a run that is not timed."""

    network = problem.network()
    device, found = network.device, []
    X, y = device.asarray(problem.X, network.dtype), device.asarray(problem.y)
    run = prepare(GaussNewton(mask="flips"), network, LeastSquares(X, y))
    for step in range(5):
        state = run.look()
        found.append(len(run.index.implicit.before))  # type: ignore[union-attr]
        run.move(state, 0.0, step)
    return [b - a for a, b in zip(found, found[1:], strict=False)]


def times_faster(row: dict[str, Any], what: str) -> dict[str, float]:
    """Return how many times longer each opponent takes; "later" or "whole"."""
    return {name: one[what]["median"] / row[what]["median"] for name, one in row["dense"].items()}


def fits(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return exponents in m of the seconds of all later steps, of a whole run, and of the flips of the first step."""
    widths = [row["m"] for row in rows]
    found = {name: power_law(widths, [row[name]["median"] for row in rows]) for name in KINDS}
    return found | {"flips": power_law(widths, [row["flips"][0] for row in rows])}


def answer(content: Content) -> str:
    rows = content["rows"]
    row, fit = rows[-1], fits(rows)
    later = fit["later"]["high"] if fit["later"] else None
    judged = []
    for name, what in (("a step after the first", "later"), (f"a whole run to an mse of {GOAL:g}", "whole")):
        times, target = times_faster(row, what), 1 / TARGETS[what]
        judged.append(
            f"{name} is {number(times[FLOAT])} times faster than {FLOAT} (target {number(target)}, "
            f"{_met(times[FLOAT] >= target)}) and {number(times[BITS])} times faster than {BITS}"
        )
    text = f"At shift 0, m = {power_of_two(row['m'])}, n = {row['n']}: {'; '.join(judged)}. "
    text += f"Steps after the first grow as m^{interval(fit['later'])} (95 %; target {TARGETS['exponent']}, all of it"
    text += f", {_met(later <= TARGETS['exponent'])}" if later is not None else ""
    text += f"), the first look as m^{interval(fit['scan'])}, flips of the first step as m^{interval(fit['flips'])}."
    return text + _penalised(content["ridge"])


def _penalised(rows: list[dict[str, Any]]) -> str:
    """Return how flips with a penalty compare with our own packed bits."""
    parts = [
        f"{versus(row['flips']['whole']['median'], row['bits']['whole']['median'])} ({row['data']}, "
        f"m = {power_of_two(row['m'])}, alpha {row['alpha']:g})"
        for row in rows
    ]
    apart = max((abs(row["flips"]["objective"] / row["bits"]["objective"] - 1) for row in rows), default=0.0)
    return (
        f" With a ridge penalty, flips against packed bits of ours, whole runs: {'; '.join(parts)}; the objectives "
        f"they end with differ by at most {number(apart)} of themselves."
        if parts
        else ""
    )


def _met(good: bool) -> str:
    return "met" if good else "missed"


def tables(content: Content) -> list[Table]:
    rows = content["rows"]
    head = ["m", *KINDS.values()]
    head += [f"{name}: {what}" for name in OPPONENTS for what in ("step", "whole run")] + ["flips per step"]
    body = [
        [
            power_of_two(row["m"]), *(spread(row[name]) for name in KINDS),
            *(_told(one, what) for one in row["dense"].values() for what in ("later", "whole")),
            ", ".join(map(str, row["flips"])),
        ]
        for row in rows
    ]  # fmt: skip
    fit = fits(rows)
    exponents = [interval(fit[name]) for name in KINDS]
    last = ["exponent", *exponents, *[""] * (2 * len(OPPONENTS)), interval(fit["flips"])]
    n, d = rows[0]["n"], rows[0]["d"]
    first = Table(f"Shift 0, sphere n = {n}, d = {d}; a step ends where the next begins", head, [*body, last])
    return [first, _table_of_penalties(content["ridge"])]


def _table_of_penalties(rows: list[dict[str, Any]]) -> Table:
    head = ["data", "m", "alpha", "steps", "flips: mean step", "whole run", "bits: mean step", "whole run", "ratio"]
    body = [
        [
            f"{row['data']}, n={row['n']}", power_of_two(row["m"]), f"{row['alpha']:g}", str(row["flips"]["steps"]),
            *(spread(row[mask][what]) for mask in MASKS for what in ("step", "whole")),
            number(row["bits"]["whole"]["median"] / row["flips"]["whole"]["median"]),
        ]
        for row in rows
    ]  # fmt: skip
    return Table("Shift 0 with a ridge penalty, noisy targets: kept through flips, and packed bits", head, body)


def _told(one: dict[str, Any], what: str) -> str:
    return seconds(one[what]["median"]) + ("" if one["reached"] else " (goal not reached)")


def panels(content: Content) -> list[Panel]:
    rows = content["rows"]
    curves = {words: [(row["m"], row[name]["median"]) for row in rows] for name, words in KINDS.items()}
    for name in OPPONENTS:
        curves[f"{name}: step"] = [(row["m"], row["dense"][name]["later"]["median"]) for row in rows]
    return [Panel("shift 0, kept through flips", "width m", "seconds", curves)]


SPHERE = "sphere:n=640,d=16"
SIZES = {
    "tiny": {"n": 32, "d": 8, "widths": [512, 1024, 2048], "ridge": [["sphere:n=40,d=8", 512, 1.0]],
             "repeats": 1, "budget": 2.0},
    "quick": {"n": 128, "d": 16, "widths": [2**k for k in range(12, 16)], "ridge": [[SPHERE, 2**15, 1.0]],
              "repeats": 2, "budget": 5.0},
    "full": {"n": 512, "d": 16, "widths": [2**k for k in range(14, 21)], "ridge": [
        [SPHERE, 2**16, 1.0], [SPHERE, 2**18, 1.0], [SPHERE, 2**20, 1.0], ["diabetes", 2**18, 1.0],
        ["diabetes", 2**18, 0.1], ["digits", 2**16, 1.0]], "repeats": 3, "budget": 60.0},
}  # fmt: skip
EXPERIMENT = Experiment(
    "flips", 7, "What does the ordinary ReLU cost where everything follows the flips?", SIZES, measure, answer, tables,
    panels,
)  # fmt: skip
