"""Where rebuilding inner nodes beats updating ancestors, and which arity is best: ``python -m bench tree``."""

from __future__ import annotations

import numpy as np

from bench.harness.measure import alternate, stopwatch, summary
from bench.harness.records import save
from bench.harness.words import power_of_two
from gpu_sublinear.data.sources import load
from gpu_sublinear.devices import get_device
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.options import TreeOptions

POINTS, FEATURES, WIDTH = 128, 16, 2**17
ARITIES, FRACTIONS = (2, 4, 8, 16), (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def measure(arity: int, device_name: str, repeats: int) -> dict:
    """Time query, rebuild and ancestor updates of one arity."""
    device = get_device(device_name)
    X = device.asarray(load(f"sphere:n={POINTS},d={FEATURES}").X, "float32")
    network = ShiftedReluNetwork.initialize(WIDTH, FEATURES, device=device)
    tree = ThresholdTree.build(device, X, network.W, TreeOptions(arity=arity))
    rng = np.random.default_rng(0)
    work = {"query": lambda: tree.query(network.shift), "rebuild": tree._rebuild}
    for fraction in FRACTIONS:
        chosen = device.asarray(np.flatnonzero(rng.random(WIDTH) < fraction), np.int32)
        work[f"ancestors {fraction}"] = lambda chosen=chosen: tree._refresh_ancestors(chosen)

    def timed(name: str):
        return stopwatch(lambda: (work[name](), device.synchronize()))

    seconds = {name: summary(sample) for name, sample in alternate({n: timed(n) for n in work}, repeats).items()}
    visited = tree.query(network.shift).visited
    return {"arity": arity, "bytes": int(tree.nodes.nbytes), "visited": visited, "seconds": seconds}


def crossover(row: dict) -> float:
    """Return the moved fraction at which ancestor updates take as long as a rebuild (1 if they never do)."""
    times = np.array([row["seconds"][f"ancestors {fraction}"]["median"] for fraction in FRACTIONS])
    rebuild = row["seconds"]["rebuild"]["median"]
    return float(np.interp(rebuild, np.maximum.accumulate(times), FRACTIONS, right=1.0))


def table(rows: list[dict]) -> str:
    lines = [
        "| arity | MB | nodes visited | query, ms | rebuild, ms | "
        + " | ".join(f"{fraction:.0%} moved, ms" for fraction in FRACTIONS)
        + " | crossover |",
        "|--:" * (6 + len(FRACTIONS)) + "|",
    ]
    for row in rows:
        cells = [row["seconds"][name]["median"] * 1e3 for name in row["seconds"]]
        times = " | ".join(f"{cell:.1f}" for cell in cells)
        lines.append(
            f"| {row['arity']} | {row['bytes'] / 1e6:.0f} | {row['visited']:,} | {times} | {crossover(row):.2f} |"
        )
    return "\n".join(lines)


def main(device: str = "auto", repeats: int = 9) -> str:
    """Measure, save, and return the table."""
    chosen = get_device(device)
    rows = [measure(arity, device, repeats) for arity in ARITIES]
    settings = {"n": POINTS, "d": FEATURES, "m": WIDTH, "repeats": repeats, "device": chosen.describe()}
    path = save(f"tree-{chosen.name}", settings, rows)
    head = f"n = {POINTS}, d = {FEATURES}, m = {power_of_two(WIDTH)}, paper shift, float32"
    return f"{head}\n\n{table(rows)}\n\nwritten to bench/results/{path.name}"
