"""One step of the faithful method against dense Gauss-Newton, over widths.

Both train the same network on the same data from the same seed.  A step's time is the median over the steps after
the first (the first is listed apart: more pairs change in it), then over the repeats.  Dense runs twice: all neurons
at once, and in blocks of 4096 that stay in the cache.  Rows where dense wins are printed like the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.experiments.common import step_seconds, warm
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import alternate, exponent, summary
from bench.harness.words import power_of_two
from gpu_sublinear import DenseGaussNewton, GaussNewton, ShiftedReluNetwork, get_device
from gpu_sublinear.data.sources import load
from gpu_sublinear.opponents.dense import CACHE_BLOCK

TOLERANCE, MAX_STEPS = 1e-4, 12
OURS, DENSE, BLOCKS = CONTENDERS = ("ours", "dense", "dense, blocks")


class Contest:
    """One problem, and what its runs found."""

    def __init__(self, n: int, d: int, m: int, device: str) -> None:
        data = load(f"sphere:n={n},d={d},seed=0")
        self.X, self.y = data.X, (data.y - data.y.mean()) / data.y.std()
        self.m, self.device = m, get_device(device)
        self.first: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        self.ours: list = []  # the last history

    def network(self) -> ShiftedReluNetwork:
        return ShiftedReluNetwork.initialize(self.m, self.X.shape[1], seed=1, device=self.device)

    def run(self, name: str) -> float:
        """Train once; return the median seconds of a step after the first."""
        limits = {"tolerance": TOLERANCE, "max_steps": MAX_STEPS}
        if name == OURS:
            self.ours = history = GaussNewton.faithful(**limits).fit(self.network(), self.X, self.y).history
        else:
            block = CACHE_BLOCK if name == BLOCKS else None
            history = DenseGaussNewton(block, **limits).fit(self.network(), self.X, self.y)
        if history[-1].mse > TOLERANCE**2 * np.mean(self.y**2):
            raise AssertionError(f"{name} did not converge at n={len(self.y)}, m={self.m}: mse {history[-1].mse:.2e}")
        self.first[name].append(history[0].seconds)
        return step_seconds(history)


def measure(points: list, d: int, widths: list, repeats: int, device: str) -> Content:
    """Race at every number of points and width."""
    warm(device)
    return {"rows": [_case(n, d, m, repeats, device) for n in points for m in widths]}


def _case(n: int, d: int, m: int, repeats: int, device: str) -> dict:
    contest = Contest(n, d, m, device)
    seconds = alternate({name: lambda name=name: contest.run(name) for name in CONTENDERS}, repeats)
    second = contest.ours[1]
    return {
        "n": n, "m": m, "d": d, "shift": contest.network().shift, "fired": second.fired, "union": second.union,
        "solver_iterations": second.solver_iterations, "phases": second.phases,
        "seconds": {name: summary(sample) for name, sample in seconds.items()},
        "first_step": {name: summary(sample[1:]) for name, sample in contest.first.items()},
    }  # fmt: skip


def by_points(content: Content) -> Iterator[tuple[int, list[dict]]]:
    for n in sorted({row["n"] for row in content["rows"]}):
        yield n, [row for row in content["rows"] if row["n"] == n]


def growth(rows: list[dict], name: str) -> str:
    """Return how the seconds of a step grow with the width."""
    return f"m^{exponent([row['m'] for row in rows], [row['seconds'][name]['median'] for row in rows]):.2f}"


def ratio(row: dict, name: str) -> float:
    return row["seconds"][name]["median"] / row["seconds"][OURS]["median"]


def answer(content: Content) -> str:
    rows = content["rows"]
    wins = {name: sum(ratio(row, name) > 1 for row in rows) for name in (DENSE, BLOCKS)}
    grown = "; ".join(
        f"n = {n}: faithful {growth(some, OURS)}, dense {growth(some, DENSE)}, in blocks {growth(some, BLOCKS)}"
        for n, some in by_points(content)
    )
    return (
        f"A step of the faithful method is faster than dense Gauss-Newton over all neurons at once in {wins[DENSE]} of "
        f"{len(rows)} cases, than the same in blocks in {wins[BLOCKS]}. Seconds grow as: {grown}."
    )


def tables(content: Content) -> list[Table]:
    head = [
        "n", "m", "fired per point", "union / m", "ours, ms", "dense, ms", "in blocks, ms", "dense / ours",
        "blocks / ours",
    ]  # fmt: skip
    body = []
    for n, rows in by_points(content):
        for row in rows:
            body.append([
                str(n), power_of_two(row["m"]), f"{row['fired']:.0f}", f"{row['union'] / row['m']:.2f}",
                *(f"{row['seconds'][name]['median'] * 1e3:.1f}" for name in CONTENDERS),
                *(f"{ratio(row, name):.2f}" for name in (DENSE, BLOCKS)),
            ])  # fmt: skip
        body.append([str(n), "exponent", "", "", *(growth(rows, name) for name in CONTENDERS), "", ""])
    first = content["rows"][0]
    return [Table(f"a step after the first, d = {first['d']}, paper shift; below 1 we lose", head, body, ())]


def panels(content: Content) -> list[Panel]:
    return [
        Panel(
            f"n = {n}", "width m", "seconds, step after the first",
            {name: [(row["m"], row["seconds"][name]["median"]) for row in rows] for name in CONTENDERS},
        )
        for n, rows in by_points(content)
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "faithful", 0, "Is a step of the published method faster than a dense one?",
    {
        "tiny": {"points": [24], "d": 8, "widths": [512, 1024], "repeats": 1},
        "full": {"points": [64, 256], "d": 16, "widths": [2**14, 2**16, 2**18], "repeats": 5},
    },
    measure, answer, tables, panels,
)  # fmt: skip
