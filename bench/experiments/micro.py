"""Single operations of the method beside their floors: the bytes that must move over the measured copy bandwidth.

On a GPU times are CUDA events, cold (after writing a buffer larger than the L2 cache) and warm, and the kernels that
one call launches are counted.  The host has neither events nor launches; cold evicts its last-level cache alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import summary
from bench.harness.problems import make
from bench.harness.words import number, percent, power_of_two, seconds, spread
from gpu_sublinear import GaussNewton, SketchOptions, SparseJacobian, ThresholdTree
from gpu_sublinear.devices import Device, get_device
from gpu_sublinear.linear.system import Place
from gpu_sublinear.model.problem import Problem
from gpu_sublinear.training.prepare import prepare

FLUSH = 256 << 20  # bytes written to empty the caches: twice the largest L2 or L3 we know
COPY = 256 << 20  # bytes of the array whose copy is the bandwidth


@dataclass(frozen=True)
class Operation:
    """One operation: what to call, the least bytes it must move, the operations it must do."""

    call: Callable[[], Any]
    nbytes: float
    flops: float


class Clock:
    """Seconds of one call, by CUDA events on a GPU and by the wall elsewhere."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.gpu = device.xp is not np
        self.buffer = device.xp.zeros(FLUSH // 4, np.float32)

    def flush(self) -> None:
        """Empty the caches."""
        self.buffer += 1
        self.device.synchronize()

    def __call__(self, work: Callable[[], Any]) -> float:
        if not self.gpu:
            begin = perf_counter()
            work()
            return perf_counter() - begin
        import cupy

        first, last = cupy.cuda.Event(), cupy.cuda.Event()
        first.record()
        work()
        last.record()
        last.synchronize()
        return float(cupy.cuda.get_elapsed_time(first, last)) / 1e3


def bandwidth(clock: Clock, nbytes: int = COPY, repeats: int = 9) -> float:
    """Return bytes per second of a copy, read plus written, the best of some."""
    source = clock.device.xp.ones(nbytes // 4, np.float32)
    target = clock.device.xp.empty_like(source)

    def copy() -> None:
        target[...] = source

    copy()
    return 2 * source.nbytes / min(clock(copy) for _ in range(repeats))


def launches(device: Device, work: Callable[[], Any]) -> int | None:
    """Count our kernels' launches in one call (library calls not included); None on the host."""
    launcher = getattr(device, "launcher", None)
    if launcher is None:
        return None
    count, run = 0, launcher.run

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        run(*arguments, **options)

    launcher.run = counted
    try:
        work()
    finally:
        launcher.run = run
    return count


def operations(n: int, d: int, m: int, b: float, device: Device) -> dict[str, Operation]:
    """Return the operations on a fresh problem with their floors."""
    problem = make(f"sphere:n={n * 5 // 4},d={d}", m, b, device=device.name)
    network = problem.network()
    X, y = device.asarray(problem.X, "float32"), device.asarray(problem.y)
    run = prepare(GaussNewton(mask="lists"), network, Problem(X, y))
    active = run.index.query(b)
    factored, explicit = (
        run.linearised(Place(active)),
        SparseJacobian.build(device, active, X, network.signs, network.width),
    )
    tree = ThresholdTree.build(device, X, network.W)
    nnz, union, n = active.nnz, active.union, problem.n
    vector, buckets = device.asarray(np.ones(n)), SketchOptions().rows(n)
    sketch = (active.indptr, active.compact, active.fired.neurons, network.signs, buckets, 1, 0)
    return {
        "query, lazy index": Operation(lambda: run.index.query(b), 4 * union * d + 12 * nnz, 2 * active.visited * d),
        "query, trees": Operation(lambda: tree.query(b), 12 * nnz, nnz),
        "Gram from lists": Operation(lambda: type(run.gram)(device, X, m)(active), 8 * nnz + 8 * n * n, active.pairs),
        "G v, factored": Operation(lambda: factored.gram(vector), 4 * nnz + 4 * n * d, 4 * nnz * d),
        "J^T g, CSR (SpMV)": Operation(lambda: explicit.rmatvec(vector), 8 * nnz * d, 2 * nnz * d),
        "sketch of neurons": Operation(lambda: device.sketch_neurons(*sketch), 4 * nnz + 8 * n * buckets, nnz),
        "scan of all rows": Operation(
            lambda: prepare(GaussNewton(mask="lists"), network, Problem(X, y)), 4 * m * d, 2.0 * n * m * d
        ),
        "dense forward GEMM": Operation(lambda: device.matmul(X, network.W.T), 4 * m * (d + n), 2.0 * n * m * d),
    }


def measure(sizes: list, repeats: int, device: str) -> dict[str, Any]:
    """Time every operation at every (n, d, m, b)."""
    chosen = get_device(device)
    clock, rows = Clock(chosen), []
    speed = bandwidth(clock)
    for n, d, m, b in sizes:
        for name, operation in operations(n, d, m, b, chosen).items():
            rows.append(
                {"operation": name, "n": n, "d": d, "m": m, "shift": b} | timed(clock, operation, repeats, speed)
            )
    return {"rows": rows, "bandwidth": speed, "gpu": clock.gpu}


def timed(clock: Clock, operation: Operation, repeats: int, speed: float) -> dict[str, Any]:
    """Return first-call, cold and warm times of an operation with its floor, or why it failed."""
    try:
        begin = perf_counter()
        operation.call()
        clock.device.synchronize()
        first, cold, warm = perf_counter() - begin, [], []
        for _ in range(repeats):
            clock.flush()
            cold.append(clock(operation.call))
            warm.append(clock(operation.call))
        count = launches(clock.device, operation.call)
    except Exception as error:  # one operation that fails must not cost the others
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "first_call": first, "cold": summary(cold), "warm": summary(warm), "floor": operation.nbytes / speed,
        "bytes": operation.nbytes, "flops": operation.flops, "launches": count,
    }  # fmt: skip


def answer(content: Content) -> str:
    good = [row for row in content["rows"] if "error" not in row]
    shares = {row["operation"]: row["floor"] / row["cold"]["median"] for row in good}
    best, worst = max(shares, key=shares.get), min(shares, key=shares.get)
    return (
        f"A copy moves {content['bandwidth'] / 1e9:.0f} GB/s here. Nearest to its floor of bytes is '{best}' "
        f"({percent(shares[best])}), farthest '{worst}' ({percent(shares[worst])}); operations may be bound by "
        f"arithmetic "
        "or by scattered access instead, which this floor does not know."
    )


def tables(content: Content) -> list[Table]:
    head = [
        "operation",
        "n",
        "d",
        "m",
        "b",
        "cold",
        "warm",
        "floor",
        "GB/s, cold",
        "Gflop/s, warm",
        "launches",
        "first call",
    ]
    body = [
        [row["operation"], str(row["n"]), str(row["d"]), power_of_two(row["m"]), f"{row['shift']:g}"]
        + (
            [row["error"].splitlines()[0], *["-"] * 6] if "error" in row else
            [spread(row["cold"]), spread(row["warm"]), seconds(row["floor"]),
            number(row["bytes"] / row["cold"]["median"] / 1e9),
             number(row["flops"] / row["warm"]["median"] / 1e9),
             "-" if row["launches"] is None else str(row["launches"]),
             seconds(row["first_call"])]
        )
        for row in content["rows"]
    ]  # fmt: skip
    clock = "CUDA events" if content["gpu"] else "wall clock"
    return [Table(f"{clock}; cold: caches flushed before each call; floor: bytes over the measured copy", head, body)]


def panels(content: Content) -> list[Panel]:
    good = [row for row in content["rows"] if "error" not in row]
    curves = {
        f"{row['operation']}, m = {power_of_two(row['m'])}": [(row["floor"], row["cold"]["median"])] for row in good
    }
    return [Panel("cold time against its floor of bytes", "floor, s", "seconds", curves)]


EXPERIMENT = Experiment(
    "micro", 0, "How far is each operation from the least bytes that it must move?",
    {
        "tiny": {"sizes": [(32, 8, 512, 0.5)], "repeats": 1},
        "quick": {"sizes": [(256, 16, 2**16, 2.0)], "repeats": 5},
        "full": {"sizes": [(256, 16, 2**16, 2.0), (512, 16, 2**20, 3.0), (1024, 64, 2**18, 2.5)], "repeats": 9},
        "gpu": {"sizes": [(512, 16, 2**20, 3.0), (1024, 64, 2**20, 2.58)], "repeats": 15},
    },
    measure, answer, tables, panels,
)  # fmt: skip
