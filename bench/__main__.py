"""Every benchmark is an experiment of a suite: run them, write their report, compare results, fill the pages' tables.

examples:
  python -m bench --suite quick                   the fourteen questions at small sizes (under 10 minutes on 2 cores)
  python -m bench --suite full --resume           the committed report (some two hours); goes on where it was stopped
  python -m bench --suite gpu --device cuda --limit 560    the GPU suite in one 10-minute call
  python -m bench --only engine                   one experiment at full size; --suite for another
  python -m bench --report --suite full           the report again, from the results alone
  python -m bench --compare OLD.json NEW.json     flags what became slower by more than the noise (exit code 1)
  python -m bench --pages                         fills the marked tables of README.md and docs/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.experiments import ALL, BY_NAME, of_suite
from bench.harness import report
from bench.harness.compare import comparison
from bench.harness.records import RESULTS, load_results
from bench.harness.regions import fill_pages
from bench.harness.suite import run_here, run_suite

SUITES = ("quick", "full", "gpu", "tiny")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--suite", choices=SUITES, help="sizes: quick, full, gpu, or tiny for a self-test; default with --only: full"
    )
    found.add_argument(
        "--only", action="append", metavar="NAME", choices=sorted(BY_NAME), help="only this experiment (repeatable)"
    )
    found.add_argument("--resume", action="store_true", help="skip what has a good result of this code and size")
    found.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu", "reference"), help="default: auto")
    found.add_argument("--limit", type=float, metavar="SECONDS", help="stop starting experiments after so long")
    found.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: bench/results")
    found.add_argument("--report", action="store_true", help="only write the report of --suite from its results")
    found.add_argument(
        "--output", type=Path, metavar="FILE", help="of the report; default: bench/REPORT.md (full), REPORT-SUITE.md"
    )
    found.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="compare two result files")
    found.add_argument("--pages", action="store_true", help="fill the marked tables of README.md and docs/")
    found.add_argument("--list", action="store_true", help="list the experiments")
    found.add_argument("--worker", help=argparse.SUPPRESS)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit code."""
    options = parser().parse_args(arguments)
    if options.worker:
        result = run_here(BY_NAME[options.worker], options.suite, options.device, options.results)
        return int(result["error"] is not None)
    if options.list:
        print(
            "\n".join(
                f"{one.name:<14} {', '.join(one.sizes):<22} {one.number or '-':>2}  {one.question}" for one in ALL
            )
        )
        return 0
    if options.compare:
        return _compare(*options.compare)
    if options.pages:
        fill_pages(options.results)
        return 0
    if not options.suite and not options.only:
        parser().error("give --suite, --only, --compare, --pages or --list")
    return _suite(options, options.suite or "full")


def _suite(options: argparse.Namespace, suite: str) -> int:
    chosen = [one for one in of_suite(suite) if not options.only or one.name in options.only]
    missing = set(options.only or ()) - {one.name for one in chosen}
    if missing:
        parser().error(f"the suite {suite} has no {', '.join(sorted(missing))}; see --list")
    failed = 0
    if not options.report:
        device = options.device if suite == "gpu" or options.device != "auto" else "cpu"
        results = run_suite(chosen, suite, device, options.results, options.resume, limit=options.limit)
        failed = sum(result["error"] is not None for result in results)
    default = Path(__file__).parent / ("REPORT.md" if suite == "full" else f"REPORT-{suite}.md")
    path = options.output or default
    report.write(of_suite(suite), load_results(options.results, suite), suite, path)
    print(f"report: {path.name}; {failed} failed")
    return int(failed > 0)


def _compare(before: Path, after: Path) -> int:
    text, slower = comparison(before, after)
    print(text)
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
