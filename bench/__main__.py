"""``python -m bench NAME [--device D]``: run one benchmark, print its table, keep its result."""

from __future__ import annotations

import argparse

from bench import agreement, costs, engine, faithful, tree_update

BENCHMARKS = {
    "faithful": faithful.main,
    "tree": tree_update.main,
    "agreement": agreement.main,
    "engine": engine.main,
    "costs": costs.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu", "reference"))
    arguments = parser.parse_args()
    print(BENCHMARKS[arguments.name](arguments.device))


if __name__ == "__main__":
    main()
