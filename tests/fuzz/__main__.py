"""``python -m tests.fuzz [--count N] [--seed S] [--first K]``: a long campaign; exit code 1 if anything failed."""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.campaign import campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="files to read (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first file; with --count 1 repeats one")
    options = parser.parse_args()
    findings = campaign(options.seed, range(options.first, options.first + options.count))
    for name, count in sorted(findings.outcomes.items()):
        print(f"{name:<24} {count:>8,}")
    print(f"slowest: file {findings.slowest[1]}, {findings.slowest[0]:.2f} s")
    for place, failure in findings.failures.items():
        print(f"FAILED  {place}: {failure}")
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
