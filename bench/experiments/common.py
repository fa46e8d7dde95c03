"""What several experiments do: one warm-up, one run of the engine, one look at the dense Gram matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from bench.baselines import dense
from bench.baselines.ours import MAX_STEPS
from bench.harness.problems import Problem, make
from gpu_sublinear import GaussNewton, TrainingResult, get_device
from gpu_sublinear.model.shifts import paper_shift, shift_for_fired
from gpu_sublinear.training.warmup import warm_up

GOAL = 1e-6  # mse of standardised targets
DENSE_NEURONS = 8192  # neurons at a time in dense looks
DATA_SETS = ["sphere:n=320,d=16", "digits", "breast_cancer", "diabetes"]
CLUSTERED = "clustered:n=320,d=16"
TINY, TINY_CLUSTERED = "sphere:n=40,d=8", "clustered:n=40,d=8"  # of the self-test


@cache
def warm(device: str) -> None:
    """Compile everything that is timed: both engines, all solvers, the dense opponents."""
    chosen = get_device(device)
    for trainer in (GaussNewton(solver="gram"), GaussNewton(solver="sketch-cg"), GaussNewton(solver="cg")):
        warm_up(chosen, trainer)
    warm_up(chosen, GaussNewton.faithful())
    small = make("sphere:n=80,d=16", 2**12, 1.0, device=device)
    train(small)
    dense.all_at_once(small, GOAL, 1.0)
    if chosen.xp is np:
        dense.blocks(small, GOAL, 1.0)
        dense.bits(small, GOAL, 1.0)


def train(
    problem: Problem, goal: float = GOAL, make_trainer: Callable[..., GaussNewton] = GaussNewton, **options: Any
) -> TrainingResult:
    """Train a fresh network until the mse is below ``goal``."""
    callbacks, paired = options.pop("callbacks", ()), options.pop("paired", False)
    relative = min(float(np.sqrt(goal / np.mean(problem.y**2))), 0.999)
    trainer = make_trainer(tolerance=relative, **{"max_steps": MAX_STEPS} | options)
    return trainer.fit(problem.network(paired), problem.X, problem.y, callbacks=callbacks)


def step_seconds(history: Sequence[Any]) -> float:
    """Return the median seconds of a step after the first (the only one, where there is but one)."""
    steps = [record.seconds for record in history[:-1]]
    return float(np.median(steps[1:] or steps or [history[-1].seconds]))


def mask_of(network: Any, X: np.ndarray) -> np.ndarray:
    """Return who fires on what as packed bits (n, m / 8), dense and in blocks."""
    device = network.device
    X = device.asarray(X, network.dtype)
    starts = range(0, network.width, DENSE_NEURONS)
    blocks = (device.matmul(X, network.W[first : first + DENSE_NEURONS].T) > network.shift for first in starts)
    return np.concatenate([np.packbits(device.to_host(block), axis=1) for block in blocks], axis=1)


def gram_of(problem: Problem) -> np.ndarray:
    """Return the Gram matrix of the initial network, dense, (n, n) float64."""
    network = problem.network()
    device, counts = network.device, np.zeros((problem.n, problem.n))
    X = device.asarray(problem.X, network.dtype)
    for first in range(0, network.width, DENSE_NEURONS):
        mask = (device.matmul(X, network.W[first : first + DENSE_NEURONS].T) > network.shift).astype(np.float32)
        counts += device.to_host(device.matmul(mask, mask.T))
    return problem.X @ problem.X.T * counts / problem.m


def shift_by(rule: str | float, m: int) -> float:
    """Return the shift of a rule: "paper", "256 fired", or a number."""
    if rule == "paper":
        return paper_shift(m)
    if isinstance(rule, str):
        return shift_for_fired(m, float(rule.split()[0]))
    return float(rule)


def by_data(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["data"], []).append(row)
    return found


def extremes(G: np.ndarray) -> dict[str, float]:
    """Return smallest and largest eigenvalue and the condition number (infinite where singular to rounding)."""
    values = np.linalg.eigvalsh(G)
    low, high = float(values[0]), float(values[-1])
    singular = low <= len(G) * np.finfo(float).eps * high
    return {"low": 0.0 if singular else low, "high": high, "condition": float("inf") if singular else high / low}


class Flips:
    """Counts the pairs that change sides between steps, apart from the clock."""

    def __init__(self, X: np.ndarray, network) -> None:
        self.X, self.last, self.counts = X, mask_of(network, X), []

    def __call__(self, record, network) -> None:
        now = mask_of(network, self.X)
        self.counts.append(int(np.bitwise_count(now ^ self.last).sum()))
        self.last = now


def distance(a: np.ndarray, b: np.ndarray, scale: float) -> float:
    """Return the root mean square difference in units of the targets' standard deviation."""
    return float(np.sqrt(np.mean((a - b) ** 2))) / scale
