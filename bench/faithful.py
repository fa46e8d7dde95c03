"""One step of the faithful method against dense Gauss-Newton, over widths: ``python -m bench faithful``.

Both train the same network on the same data from the same seed.  A step's time is the median over the steps after
the first (the first is listed apart: more pairs change in it), then over the repeats.  Dense runs twice: all neurons
at once, and in blocks of 4096 that stay in the cache.  Rows where dense wins are printed like the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.harness.measure import alternate, exponent, summary
from bench.harness.records import save
from bench.harness.words import power_of_two
from gpu_sublinear.data.sources import load
from gpu_sublinear.devices import get_device
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.opponents.dense import CACHE_BLOCK, DenseGaussNewton
from gpu_sublinear.training.gauss_newton import GaussNewton

POINTS, WIDTHS, FEATURES = (64, 256), (2**14, 2**16, 2**18), 16
TOLERANCE, MAX_STEPS = 1e-4, 12
CONTENDERS = {"ours": None, "dense": DenseGaussNewton(None), "dense, blocks": DenseGaussNewton(CACHE_BLOCK)}


@dataclass
class Contest:
    """One problem, and what its runs found."""

    n: int
    m: int
    device: str

    def __post_init__(self) -> None:
        data = load(f"sphere:n={self.n},d={FEATURES},seed=0")
        self.X, self.y = data.X, (data.y - data.y.mean()) / data.y.std()
        self.first: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        self.last_history: list = []

    def network(self) -> ShiftedReluNetwork:
        return ShiftedReluNetwork.initialize(self.m, FEATURES, seed=1, device=get_device(self.device))

    def run(self, name: str) -> float:
        """Train once; return the median seconds of a step after the first."""
        if name == "ours":
            result = GaussNewton.faithful(tolerance=TOLERANCE, max_steps=MAX_STEPS).fit(self.network(), self.X, self.y)
            history = self.last_history = result.history
        else:
            dense = DenseGaussNewton(CONTENDERS[name].block, tolerance=TOLERANCE, max_steps=MAX_STEPS)
            history = dense.fit(self.network(), self.X, self.y)
        if history[-1].mse > TOLERANCE**2 * np.mean(self.y**2):
            raise AssertionError(f"{name} did not converge at n={self.n}, m={self.m}: mse {history[-1].mse:.2e}")
        self.first[name].append(history[0].seconds)
        return float(np.median([record.seconds for record in history[1:-1]]))


def measure(n: int, m: int, device: str, repeats: int) -> dict:
    contest = Contest(n, m, device)
    seconds = alternate({name: lambda name=name: contest.run(name) for name in CONTENDERS}, repeats)
    second = contest.last_history[1]
    return {
        "n": n,
        "m": m,
        "d": FEATURES,
        "shift": contest.network().shift,
        "fired": second.fired,
        "union": second.union,
        "solver_iterations": second.solver_iterations,
        "phases": second.phases,
        "seconds": {name: summary(sample) for name, sample in seconds.items()},
        "first_step": {name: summary(sample[1:]) for name, sample in contest.first.items()},
    }


def table(rows: list[dict]) -> str:
    """Return the rows as Markdown, with the fitted exponents of seconds in m below each n."""
    lines = [
        "| n | m | fired per point | union / m | ours, ms | dense, ms | in blocks, ms | dense / ours | blocks / ours |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for n in sorted({row["n"] for row in rows}):
        chosen = [row for row in rows if row["n"] == n]
        medians = {name: [row["seconds"][name]["median"] for row in chosen] for name in CONTENDERS}
        for k, row in enumerate(chosen):
            ours, dense, blocks = (medians[name][k] for name in CONTENDERS)
            lines.append(
                f"| {n} | {power_of_two(row['m'])} | {row['fired']:.0f} | {row['union'] / row['m']:.2f} "
                f"| {ours * 1e3:.1f} | {dense * 1e3:.1f} | {blocks * 1e3:.1f} "
                f"| {dense / ours:.2f} | {blocks / ours:.2f} |"
            )
        if len(chosen) > 1:
            widths = [row["m"] for row in chosen]
            slopes = " | ".join(f"m^{exponent(widths, medians[name]):.2f}" for name in CONTENDERS)
            lines.append(f"| {n} | exponent | | | {slopes} | | |")
    return "\n".join(lines)


def main(device: str = "auto", repeats: int = 5, widths: tuple[int, ...] = WIDTHS) -> str:
    """Measure, save, and return the table."""
    chosen = get_device(device)
    rows = [measure(n, m, device, repeats) for n in POINTS for m in widths]
    settings = {"tolerance": TOLERANCE, "repeats": repeats, "device": chosen.describe()}
    path = save(f"faithful-{chosen.name}", settings, rows)
    return f"{table(rows)}\n\nwritten to bench/results/{path.name}"
