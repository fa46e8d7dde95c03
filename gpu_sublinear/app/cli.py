"""The program ``gpu-sublinear``: options in, exit codes out."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence

from ..environment import package_version
from ..errors import GpuSublinearError
from .option_values import activation, alphas, at_least, damping, margin, names, number, ordinal, penalty, shift, size

PROGRAM = "gpu-sublinear"
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended
DATA_HELP = "digits, diabetes, breast_cancer, sphere:n=512,d=16,seed=0, or a path to a .csv, .tsv, .txt, .csv.gz, .parquet, .feather, .xlsx, .npz or .npy file"  # fmt: skip  # noqa: E501
EXAMPLES = """\
examples:
  gpu-sublinear train digits --out digits.safetensors --figure digits.png
  gpu-sublinear train sphere:n=256,d=16 --width 2^18 --history run.json
  gpu-sublinear train sphere:n=256,d=16 --width 1e9 --shift 4.5
  gpu-sublinear train digits --classify --width 2^15
  gpu-sublinear train houses.csv --target price --seed 1 --out houses.safetensors
  gpu-sublinear path houses.csv --target price --folds 10 --out houses.safetensors
  gpu-sublinear inspect houses.csv --target price
  gpu-sublinear report run.json --out run.html
  gpu-sublinear predict houses.safetensors new_houses.csv --out prices.csv
  gpu-sublinear export houses.safetensors --format onnx --out houses.onnx
  gpu-sublinear doctor
"""


# ---- the parser -----------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Train two-layer networks of enormous width by sketched Gauss-Newton steps.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {package_version()}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_path(commands)
    _add_predict(commands)
    _add_export(commands)

    _add_inspect(commands)
    _add_report(commands)
    doctor = commands.add_parser("doctor", help="report what is installed, what works, and what to do for the rest")
    doctor.set_defaults(run=run_doctor)
    return top


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train a network on a data set",
        description="Train a network on DATA, print a line per step and a closing table.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.set_defaults(run=run_train)
    _add_data(train)
    train.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    _add_network(train)
    method = train.add_argument_group("method")
    method.add_argument("--both-layers", action="store_true", help="train the second layer together with the first")  # fmt: skip  # noqa: E501
    _add_device(method, "where to train")
    method.add_argument("--engine", choices=("fast", "faithful"), default="fast", help="faithful: the published method, --margin 0 --jacobian csr --sketch rows --solver sketch-cg (default: fast)")  # fmt: skip  # noqa: E501
    method.add_argument("--solver", choices=("auto", "gram", "sketch-cg", "cg"), help="of the n x n system (default: auto, the cheapest)")  # fmt: skip  # noqa: E501
    method.add_argument("--margin", type=margin, metavar="X", help="of the lazy index: auto, or a number; 0 keeps threshold trees (default: auto)")  # fmt: skip  # noqa: E501
    method.add_argument("--jacobian", choices=("factored", "csr"), help="multiply from the fired pairs, or store all entries (default: factored)")  # fmt: skip  # noqa: E501
    _add_mask(method)
    method.add_argument("--sketch", choices=("neurons", "rows"), help="what sketch-cg hashes (default: neurons)")
    _add_memory_limit(method)
    method.add_argument("--tolerance", type=number(0, 1), default=1e-4, metavar="T", help="stop at ||f - y|| <= T ||y|| (default: 1e-4)")  # fmt: skip  # noqa: E501
    method.add_argument("--max-steps", type=at_least(0), default=20, metavar="N", help="most steps (default: 20)")
    method.add_argument("--batch-size", type=at_least(1), metavar="B", help="most points in a step; a step of the history is then an epoch (default: all points)")  # fmt: skip  # noqa: E501
    method.add_argument("--solver-tolerance", type=number(0, 1, open_low=True), default=1e-2, metavar="T", help="relative residual of each solve (default: 1e-2)")  # fmt: skip  # noqa: E501
    method.add_argument("--sketch-rows", type=number(1, math.inf), metavar="C", help="rows of the sketch per point (default: 2 for neurons, 8 for rows)")  # fmt: skip  # noqa: E501
    method.add_argument("--arity", type=at_least(2), default=8, metavar="K", help="children per node of the threshold tree (default: 8)")  # fmt: skip  # noqa: E501
    robust = train.add_argument_group("robust steps and stops")
    robust.add_argument("--damping", type=damping, default="auto", metavar="MU", help="Levenberg-Marquardt, in units of tr(G)/n: auto (none until full steps fail), none, or a number (default: auto)")  # fmt: skip  # noqa: E501
    robust.add_argument("--alpha", type=penalty, default=0.0, metavar="A", help="ridge penalty towards the initial weights, in units of tr(G)/n; auto: by leave-one-out of the linearised network (default: 0)")  # fmt: skip  # noqa: E501
    robust.add_argument("--time-budget", type=number(0, math.inf, open_low=True), metavar="S", help="seconds of training after which no step begins (default: no limit)")  # fmt: skip  # noqa: E501
    robust.add_argument("--validation-fraction", type=number(0, 1), default=0.0, metavar="F", help="share of the training points kept for early stopping (default: 0)")  # fmt: skip  # noqa: E501
    robust.add_argument("--patience", type=at_least(1), default=3, metavar="K", help="steps without a better validation error before training stops (default: 3)")  # fmt: skip  # noqa: E501
    files = train.add_argument_group("files (whole or not at all)")
    files.add_argument("--out", metavar="MODEL", help="save the trained model (.safetensors)")
    files.add_argument("--history", metavar="H.json", help="save environment, settings and one record per step")
    files.add_argument("--figure", metavar="F.png", help="draw loss, time by phase, fired and flipped pairs (.png, .svg or .pdf)")  # fmt: skip  # noqa: E501
    files.add_argument("--report", metavar="F.html", help="write a page with settings, figures, steps and errors")
    files.add_argument("--checkpoint", metavar="FILE", help="write a checkpoint after every step (with batches: epoch), to go on from after an interruption")  # fmt: skip  # noqa: E501
    files.add_argument("--checkpoint-every", type=at_least(1), metavar="K", help="steps between two checkpoints (default: 1)")  # fmt: skip  # noqa: E501
    files.add_argument("--resume", action="store_true", help="go on from --checkpoint if it is there: the same bytes as without the interruption")  # fmt: skip  # noqa: E501


def _add_path(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    path = commands.add_parser(
        "path",
        help="train for many ridge penalties on folds, all from one scan, and keep the best",
        description="Train on DATA for one ridge penalty after the other, each from the last solution: on the folds of "
        "a cross-validation and on all training points together. All trainings share one scan of the neurons. Print a "
        "line for each penalty; keep the network whose penalty has the least error on points that folds left out.",
    )
    path.set_defaults(run=run_path)
    _add_data(path)
    path.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    search = path.add_argument_group("search")
    search.add_argument("--alphas", type=alphas, default="1000:1e-4:15", metavar="LIST", help="ridge penalties in units of tr(G)/n, FIRST:LAST:COUNT in equal ratios, or 100,10,1; the largest comes first (default: 1000:1e-4:15)")  # fmt: skip  # noqa: E501
    search.add_argument("--folds", type=at_least(2), default=5, metavar="K", help="of the cross-validation, drawn at random from the seed, with equal shares of classes (default: 5)")  # fmt: skip  # noqa: E501
    search.add_argument("--all", action="store_true", help="try all penalties (default: end where errors of three in a row, a factor of 10 or more, are 1 %% above the least)")  # fmt: skip  # noqa: E501
    search.add_argument("--per-target", action="store_true", help="a network, a penalty and a model file for each target column, instead of one network of several outputs")  # fmt: skip  # noqa: E501
    _add_network(path)
    method = path.add_argument_group("method")
    _add_device(method, "where to train")
    _add_mask(method)
    _add_memory_limit(method)
    method.add_argument("--tolerance", type=number(0, 1), default=1e-3, metavar="T", help="of each training: stop at ||f - y|| <= T ||y||, or where a step promises less than this part of the loss (default: 1e-3)")  # fmt: skip  # noqa: E501
    method.add_argument("--max-steps", type=at_least(0), default=60, metavar="N", help="most steps of each training (default: 60)")  # fmt: skip  # noqa: E501
    files = path.add_argument_group("files (whole or not at all)")
    files.add_argument("--out", metavar="MODEL", help="save the best model (.safetensors); with --per-target its name gets that of each target")  # fmt: skip  # noqa: E501
    files.add_argument("--history", metavar="H.json", help="save environment, settings and one record per penalty, again after each")  # fmt: skip  # noqa: E501
    files.add_argument("--figure", metavar="F.png", help="draw errors and steps against the penalty (.png, .svg or .pdf)")  # fmt: skip  # noqa: E501


def _add_predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    predict = commands.add_parser(
        "predict",
        help="predict with a saved model",
        description="Predict with MODEL for the points of DATA, which may or may not have the target column. Writes a "
        "header and one line a point: the number, one number for each target, or the name of the class. Where DATA has "
        "the targets, the error or the accuracy is told as well.",
    )
    predict.set_defaults(run=run_predict)
    predict.add_argument("model", metavar="MODEL", help="file written by train --out")
    predict.add_argument("data", metavar="DATA", help=DATA_HELP)
    _add_header(predict)
    predict.add_argument("--out", metavar="FILE", help="CSV file to write (default: standard output)")
    _add_device(predict, "where to predict")


def _add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="write a saved model for PyTorch or ONNX runtimes",
        description="Write MODEL, preprocessing included, as TorchScript or ONNX: raw features in, targets out.",
    )
    export.set_defaults(run=run_export)
    export.add_argument("model", metavar="MODEL", help="file written by train --out")
    export.add_argument("--format", choices=("torchscript", "onnx"), required=True, help="what to write")
    export.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    export.add_argument("--dtype", choices=("float32", "float64"), help="of weights and products (default: the model's)")  # fmt: skip  # noqa: E501


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="look at a data set before training: who fires, contradictions, what to choose, what it costs",
        description="Look at DATA as train would prepare it, without training, and recommend settings with reasons.",
    )
    inspect.set_defaults(run=run_inspect)
    _add_data(inspect)
    inspect.add_argument("--width", type=at_least(1), default=65536, metavar="M", help="number of neurons thought of (default: 65536)")  # fmt: skip  # noqa: E501
    inspect.add_argument("--shift", type=shift, default="paper", metavar="B", help="b thought of; 'paper' is sqrt(0.48 ln M) (default: paper)")  # fmt: skip  # noqa: E501
    inspect.add_argument("--tolerance", type=number(0, 1, open_low=True), default=1e-4, metavar="T", help="training is to stop at ||f - y|| <= T ||y|| (default: 1e-4)")  # fmt: skip  # noqa: E501
    inspect.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="of weights and the split (default: 0)"
    )
    inspect.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of weights and products (default: float32)")  # fmt: skip  # noqa: E501
    inspect.add_argument("--memory-limit", type=size, metavar="BYTES", help="what a run may hold: 8GiB, 500MB (default: half of the device)")  # fmt: skip  # noqa: E501
    _add_device(inspect, "where to look")
    inspect.add_argument("--json", metavar="FILE", help="save everything that was found")
    inspect.add_argument("--figure", metavar="F.png", help="draw it (.png, .svg or .pdf)")


def _add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = commands.add_parser(
        "report",
        help="write a page about a finished run",
        description="Write a self-contained HTML page about the run whose history train --history wrote.",
    )
    report.set_defaults(run=run_report)
    report.add_argument("history", metavar="RUN", help="file written by train --history")
    report.add_argument("--out", metavar="F.html", required=True, help="page to write")


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--target", metavar="COL", help="target column by name or index from 0, or several: a,b (default: the last; .npz: y)")  # fmt: skip  # noqa: E501
    parser.add_argument("--classify", action="store_true", help="the target holds class labels, words or numbers")
    parser.add_argument("--test-fraction", type=number(0, 1), default=0.2, metavar="F", help="share of the points to hold out (default: 0.2)")  # fmt: skip  # noqa: E501
    table = parser.add_argument_group("table")
    _add_header(table)
    table.add_argument("--drop", type=names, default=(), metavar="COLS", help="columns to leave out: id,name")
    table.add_argument("--categories", type=names, default=(), metavar="COLS", help="columns whose numbers are names of levels: zip,month")  # fmt: skip  # noqa: E501
    table.add_argument("--ordinal", type=ordinal, action="append", default=[], metavar="COL=A<B<C", help="levels of a column in their order, which become 0, 1, 2; may be given several times")  # fmt: skip  # noqa: E501
    table.add_argument("--max-levels", type=at_least(1), default=20, metavar="L", help="most levels of a column of text, the rarest beyond go together (default: 20)")  # fmt: skip  # noqa: E501
    table.add_argument("--missing", choices=("median", "drop", "refuse"), default="median", help="missing cells: the median and a column that tells where, leave out the row, or refuse (default: median)")  # fmt: skip  # noqa: E501
    table.add_argument("--dates", choices=("refuse", "ordinal"), default="refuse", help="dates: refuse, or days since 1970 (default: refuse)")  # fmt: skip  # noqa: E501


def _add_header(group: argparse._ActionsContainer) -> None:
    group.add_argument("--header", choices=("auto", "yes", "no"), default="auto", help="whether the first line of a table has names (default: auto)")  # fmt: skip  # noqa: E501


def _add_network(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("network")
    model.add_argument("--width", type=at_least(1), default=65536, metavar="M", help="number of neurons: 65536, 1e9, 2^18 (default: 65536)")  # fmt: skip  # noqa: E501
    model.add_argument("--shift", type=shift, default="paper", metavar="B", help="b >= 0; 'paper' is sqrt(0.48 ln M), 'fired:K' lets about K neurons fire on each point (default: paper)")  # fmt: skip  # noqa: E501
    model.add_argument("--init", choices=("auto", "iid", "paired"), default="auto", help="paired: initial output exactly 0 (default: auto, iid for --engine faithful, else paired)")  # fmt: skip  # noqa: E501
    model.add_argument("--sampling", choices=("auto", "explicit", "virtual"), default="auto", help="look at all M neurons, or draw only those that fire on some training point (default: auto, virtual where these are few and --init is paired)")  # fmt: skip  # noqa: E501
    model.add_argument("--activation", type=activation, default="relu", metavar="NAME", help="relu, max, leaky:SLOPE, abs, softshrink or hardshrink, each with its kinks at the shift; leaky and abs hold and move all M rows (default: relu)")  # fmt: skip  # noqa: E501
    model.add_argument("--seed", type=at_least(0), default=0, metavar="S", help="of weights, sketches and the split (default: 0)")  # fmt: skip  # noqa: E501
    model.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of weights and products (default: float32)")  # fmt: skip  # noqa: E501


def _add_mask(group: argparse._ActionsContainer) -> None:
    group.add_argument("--mask", choices=("auto", "lists", "bits", "flips"), default="auto", help="who fires: lists, one bit per pair, or bits kept through flips (default: auto, lists or bits)")  # fmt: skip  # noqa: E501


def _add_memory_limit(group: argparse._ActionsContainer) -> None:
    group.add_argument("--memory-limit", type=size, metavar="BYTES", help="what the run may hold: 8GiB, 500MB (default: no limit)")  # fmt: skip  # noqa: E501


def _add_device(group: argparse._ActionsContainer, purpose: str) -> None:
    group.add_argument(
        "--device", choices=("auto", "cuda", "cpu", "reference"), default="auto", help=f"{purpose} (default: auto)"
    )


# ---- running --------------------------------------------------------------------------------------------
# The commands are imported when they run: --help and --version need not wait for Numba and scikit-learn.


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Send what is printed to nowhere while entered, if ``quiet``; errors still go to standard error."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def run_train(options: argparse.Namespace) -> int:
    """Run ``train``."""
    from .train import train

    with quietly(options.quiet):
        return train(options)


def run_path(options: argparse.Namespace) -> int:
    """Run ``path``."""
    from .path import path

    with quietly(options.quiet):
        return path(options)


def run_predict(options: argparse.Namespace) -> int:
    """Run ``predict``."""
    from .predict import predict

    return predict(options)


def run_export(options: argparse.Namespace) -> int:
    """Run ``export``."""
    from .export import export

    return export(options)


def run_inspect(options: argparse.Namespace) -> int:
    """Run ``inspect``."""
    from .inspect import run_inspect

    return run_inspect(options)


def run_report(options: argparse.Namespace) -> int:
    """Run ``report``."""
    from .report import run_report

    return run_report(options)


def run_doctor(options: argparse.Namespace) -> int:
    """Run ``doctor``."""
    from .doctor import report

    for line in report():
        print(line, flush=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit code: 0 done, 1 one clear sentence on standard error, 2 wrong usage (raised by argparse as
        ``SystemExit``), 130 after Ctrl-C, 141 when the reader of the output went away.
    """
    logging.basicConfig(level=logging.WARNING, format=f"{PROGRAM}: %(levelname)s: %(message)s")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    options.arguments = shlex.join(arguments)  # histories and reports say how to repeat a run
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        from .console import silence

        silence()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail("aborted; every file is whole, as this run wrote it last or as it was before", 130)
    except (GpuSublinearError, OSError) as error:
        return _fail(_sentence(error))
    except MemoryError as error:
        return _fail(f"not enough memory ({_sentence(error)}); use fewer points or a smaller --width")


def _sentence(error: BaseException) -> str:
    """Return the message of an error on one line, without the number of an operating system's error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: '{error.filename}'" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int = 1) -> int:
    print(f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
