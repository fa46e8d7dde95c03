"""Where rebuilding inner nodes beats updating ancestors, and which arity is best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.measure import alternate, stopwatch, summary
from bench.harness.words import listed, power_of_two
from gpu_sublinear import ShiftedReluNetwork, ThresholdTree, TreeOptions, get_device
from gpu_sublinear.data.sources import load


def measure(n: int, d: int, m: int, arities: list, fractions: list, repeats: int, device: str) -> Content:
    """Time a query, a rebuild and updates of the ancestors of some leaves at every arity."""
    rows = [_arity(arity, n, d, m, fractions, repeats, device) for arity in arities]
    return {"n": n, "d": d, "m": m, "fractions": fractions, "rows": rows}


def _arity(arity: int, n: int, d: int, m: int, fractions: list, repeats: int, device_name: str) -> dict:
    device = get_device(device_name)
    X = device.asarray(load(f"sphere:n={n},d={d}").X, "float32")
    network = ShiftedReluNetwork.initialize(m, d, device=device)
    tree = ThresholdTree.build(device, X, network.W, TreeOptions(arity=arity))
    rng = np.random.default_rng(0)
    work: dict[str, Callable[[], Any]] = {"query": lambda: tree.query(network.shift), "rebuild": tree._rebuild}
    for fraction in fractions:
        chosen = device.asarray(np.flatnonzero(rng.random(m) < fraction), np.int32)
        work[ancestors(fraction)] = lambda chosen=chosen: tree._refresh_ancestors(chosen)
    timed = {name: stopwatch(lambda one=one: (one(), device.synchronize())) for name, one in work.items()}
    seconds = {name: summary(sample) for name, sample in alternate(timed, repeats).items()}
    visited = tree.query(network.shift).visited
    return {"arity": arity, "bytes": int(tree.nodes.nbytes), "visited": visited, "seconds": seconds}


def ancestors(fraction: float) -> str:
    return f"ancestors {fraction}"


def crossover(row: dict, fractions: list) -> float:
    """Return the moved fraction at which ancestor updates take as long as a rebuild (1 if they never do)."""
    times = np.array([row["seconds"][ancestors(fraction)]["median"] for fraction in fractions])
    rebuild = row["seconds"]["rebuild"]["median"]
    return float(np.interp(rebuild, np.maximum.accumulate(times), fractions, right=1.0))


def answer(content: Content) -> str:
    told = [f"{crossover(row, content['fractions']):.2f} (arity {row['arity']})" for row in content["rows"]]
    fastest = min(content["rows"], key=lambda row: row["seconds"]["query"]["median"])
    return (
        f"Rebuilding takes as long as updating ancestors where this part of the neurons moved: {listed(told)}. The "
        f"fastest query is that of arity {fastest['arity']}."
    )


def tables(content: Content) -> list[Table]:
    moved = [f"{fraction:.0%} moved, ms" for fraction in content["fractions"]]
    head = ["arity", "MB", "nodes visited", "query, ms", "rebuild, ms", *moved, "crossover"]
    body = [
        [
            str(row["arity"]), f"{row['bytes'] / 1e6:.0f}", f"{row['visited']:,}",
            *(f"{sample['median'] * 1e3:.1f}" for sample in row["seconds"].values()),
            f"{crossover(row, content['fractions']):.2f}",
        ]
        for row in content["rows"]
    ]  # fmt: skip
    size = f"n = {content['n']}, d = {content['d']}, m = {power_of_two(content['m'])}, paper shift, float32"
    return [Table(size, head, body, ())]


def panels(content: Content) -> list[Panel]:
    curves = {
        f"arity {row['arity']}": [
            (fraction, row["seconds"][ancestors(fraction)]["median"] / row["seconds"]["rebuild"]["median"])
            for fraction in content["fractions"]
        ]
        for row in content["rows"]
    }
    return [
        Panel("above the line rebuilding wins", "share of neurons that moved", "update / rebuild", curves, "x", 1.0)
    ]


EXPERIMENT = Experiment(
    "tree", 0, "From how many moved neurons on is rebuilding the tree cheaper, and which arity is best?",
    {
        "tiny": {"n": 16, "d": 4, "m": 512, "arities": [2, 8], "fractions": [0.1, 0.5], "repeats": 1},
        "full": {
            "n": 128, "d": 16, "m": 2**17, "arities": [2, 4, 8, 16],
            "fractions": [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8], "repeats": 9,
        },
    },
    measure, answer, tables, panels,
)  # fmt: skip
