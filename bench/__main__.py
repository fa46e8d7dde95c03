"""Every benchmark: the suite that answers the questions, single named ones, reports and comparisons.

examples:
  python -m bench --suite quick                   all questions at small sizes (under 10 minutes on 2 cores)
  python -m bench --suite full --resume           the committed report (under an hour); goes on where it was stopped
  python -m bench --suite gpu --device cuda --limit 560    the GPU suite in one 10-minute call
  python -m bench --suite quick --only race       one experiment
  python -m bench --report --suite full           the report again, from the results alone
  python -m bench --compare OLD.json NEW.json     flags what became slower by more than the noise (exit code 1)
  python -m bench --readme                        fills the marked tables of README.md
  python -m bench engine                          one named benchmark, its table printed
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.experiments import ALL, BY_NAME, of_suite
from bench.harness.records import RESULTS, ROOT, load_results
from bench.harness.suite import run_here, run_suite

NAMED = ("faithful", "tree", "agreement", "engine", "costs", "virtual")
SUITES = ("quick", "full", "gpu", "tiny")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("name", nargs="?", choices=NAMED, help="a single named benchmark instead of a suite")
    found.add_argument("--suite", choices=SUITES, help="sizes: quick, full, gpu, or tiny for a self-test")
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
    found.add_argument("--readme", action="store_true", help="fill the marked tables of README.md")
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
    if options.readme:
        return _readme(options.results)
    if options.name:
        return _named(options.name, options.device)
    if not options.suite:
        parser().error("give --suite, --compare, --readme, --list, or the name of a benchmark")
    return _suite(options)


def _suite(options: argparse.Namespace) -> int:
    from bench.harness import report

    chosen = [one for one in of_suite(options.suite) if not options.only or one.name in options.only]
    failed = 0
    if not options.report:
        device = options.device if options.suite == "gpu" or options.device != "auto" else "cpu"
        results = run_suite(chosen, options.suite, device, options.results, options.resume, limit=options.limit)
        failed = sum(result["error"] is not None for result in results)
    default = Path(__file__).parent / ("REPORT.md" if options.suite == "full" else f"REPORT-{options.suite}.md")
    path = options.output or default
    report.write(of_suite(options.suite), load_results(options.results, options.suite), options.suite, path)
    print(f"report: {path.name}; {failed} failed")
    return int(failed > 0)


def _named(name: str, device: str) -> int:
    from bench import agreement, costs, engine, faithful, tree_update, virtual

    modules = {
        "faithful": faithful,
        "tree": tree_update,
        "agreement": agreement,
        "engine": engine,
        "costs": costs,
        "virtual": virtual,
    }
    print(modules[name].main(device))
    return 0


def _compare(before: Path, after: Path) -> int:
    from bench.harness.compare import report

    text, slower = report(before, after)
    print(text)
    return int(slower)


def _readme(folder: Path) -> int:
    from bench.harness.regions import fill

    path = ROOT / "README.md"
    path.write_text(fill(path.read_text(encoding="utf-8"), folder), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
