"""What the command ``path`` does: a path of penalties on folds and on all training points, from one scan."""

from __future__ import annotations

import math
import re
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..environment import environment
from ..errors import DataError, OptionError
from ..files.atomic import write_text
from ..step.history import TrainingResult
from ..training import support
from ..training.gauss_newton import GaussNewton
from ..tuning.cross_validation import CLEAR, NO_NUMBERS, PATIENCE, SPAN, CrossValidation, trainings
from ..tuning.shared_scan import SharedScan
from ..views.path_figure import save_path
from ..views.path_rows import PathRow
from ..views.progress import LiveLine
from ..views.run_figure import check_figure
from ..views.run_text import RULE, error_rows, narrowed
from .console import INTERRUPTED, among_training_points, check_output_files, json_text, say
from .inputs import Inputs
from .interrupt import StopOnInterrupt

HEADER = (
    f"{'alpha':>9}  {'steps':>5}  {'training':>9}  {'left out':>9}  {'s.e.':>7}  {'fired/point':>11}  {'seconds':>7}"
)
EXPENDABLE = ("fired/point", "steps", "seconds", "s.e.")  # left out in this order on narrow terminals


@dataclass
class Search:
    """The search for the penalty of one target, or of all together.

    Attributes
    ----------
    inputs : Inputs
        Data and targets.
    y : ndarray
        (n,) or (n, c) standard targets.
    out : str or None
        Where its model goes.
    rows : list of PathRow
        Penalties tried so far.
    best : TrainingResult or None
        Training on all points with the best penalty so far.
    cut : bool
        Whether Ctrl-C came before its end.
    saved : str or None
        Where its model is, once it is there.
    summary : dict
        How well it fits, by part of the data.
    """

    inputs: Inputs
    y: np.ndarray
    out: str | None
    rows: list[PathRow] = field(default_factory=list)
    best: TrainingResult | None = None
    cut: bool = False
    saved: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the target."""
        return self.inputs.dataset.target_name

    @property
    def chosen(self) -> PathRow | None:
        """The penalty of least error on points left out, among those with errors that are numbers."""
        rows = [row for row in self.rows if math.isfinite(row.left_out)]
        return min(rows, key=lambda row: row.left_out, default=None)

    def add(self, k: int, found: CrossValidation, result: TrainingResult, seconds: float) -> PathRow:
        """Note what penalty k gave; keep the network if it is the best by now."""
        last = result.final
        self.rows.append(
            PathRow(
                alpha=float(found.alphas[k]),
                steps=len(result.history) - 1,
                training=last.mse,
                left_out=float(found.mean[k]),
                standard_error=float(found.standard_error[k]),
                fold_errors=found.errors[k].tolist(),
                fold_steps=found.steps[k].tolist(),
                fired=last.fired,
                reason=result.reason,
                seconds=seconds,
            )
        )
        if self.chosen is self.rows[-1]:
            self.best = result
        return self.rows[-1]

    def as_dict(self) -> dict[str, Any]:
        """Return plain types, for the history."""
        chosen = {"alpha": self.chosen.alpha if self.chosen else None, "model": self.saved}
        return {"target": self.name, "path": [asdict(row) for row in self.rows]} | chosen | self.summary


def path(options: Namespace) -> int:
    """Search for the best penalty, and write what was asked for.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.app.cli.parser`.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    OptionError
        If options exclude each other, or there are too few points for the folds.
    DataError
        If no penalty gives errors that are numbers; the history, if asked for, is written.
    """
    begin = time.perf_counter()
    check_output_files({f"--{name}": getattr(options, name) for name in ("out", "history", "figure")}, options.data)
    if options.figure:
        check_figure(options.figure)
    options.init = "paired" if options.init == "auto" else options.init
    trainer = GaussNewton(
        alpha=min(options.alphas),
        mask=options.mask,
        tolerance=options.tolerance,
        max_steps=options.max_steps,
        memory_limit=options.memory_limit,
    )
    inputs = Inputs.of(options, trainer, 1 if options.per_target else None, options.folds + 1)
    network = inputs.network
    support.check(trainer, network, support.SHARED_SCAN)
    searches = _searches(options, inputs)
    folds = folds_of(inputs, options.folds, options.seed)
    say(inputs.opening(f"{len(options.alphas)} penalties, {options.folds} folds and all training points"))
    begin += inputs.compile(trainer)
    with StopOnInterrupt("training") as interrupt, LiveLine() as line, among_training_points():
        line.count("scan")
        started = time.perf_counter()
        scan = SharedScan.build(trainer, network, inputs.X, searches[0].y, options.folds + 1)
        network.device.synchronize()
        scanned = time.perf_counter() - started
        line.settle()
        say(f"scan     {scanned:.2f} s, for all trainings")
        for search in searches:
            if len(searches) > 1 and not interrupt.requested:
                say(f"target   {search.name}")
            _search(options, scan, search, folds, line, interrupt, lambda: _write_history(options, searches, scanned))
        for search in searches:
            _conclude(options, search, several=len(searches) > 1)
        _times(searches, scanned, time.perf_counter() - begin)
        _write_history(options, searches, scanned)
        if options.history:
            say(f"history  {options.history}")
        drawn = [(search.name, search.rows, search.chosen.alpha) for search in searches if search.chosen]
        if options.figure and drawn:
            save_path(options.figure, drawn, inputs.title)
            say(f"figure   {options.figure}")
    if interrupt.requested:
        return INTERRUPTED
    if not all(search.chosen for search in searches):
        raise DataError(NO_NUMBERS)
    return 0


def folds_of(inputs: Inputs, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the folds of the training points, drawn from the seed; classes have equal shares in all.

    Parameters
    ----------
    inputs : Inputs
        Data.
    count : int
        Folds, 2 or more.
    seed : int
        From which they are drawn.

    Returns
    -------
    list of (ndarray, ndarray)
        Numbers of the points to train on and of those left out.

    Raises
    ------
    OptionError
        If there are too few points, or too few of a class.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    dataset, n, options = inputs.dataset, len(inputs.rows), {"shuffle": True, "random_state": seed % 2**32}
    if n < count:
        raise OptionError(f"--folds: {count} folds need as many training points; there are {n}")
    if not (dataset.classes and dataset.labels is not None):
        return list(KFold(count, **options).split(np.empty(n)))
    labels = dataset.labels[inputs.rows]
    sizes = np.bincount(labels)
    if sizes.min() < count:
        name = dataset.classes.names[int(sizes.argmin())]
        raise OptionError(f"--folds: class '{name}' has {sizes.min()} training points, fewer than {count} folds")
    return list(StratifiedKFold(count, **options).split(labels, labels))


def _searches(options: Namespace, inputs: Inputs) -> list[Search]:
    """Return what is searched for: one penalty for all targets, or one for each."""
    if not options.per_target:
        return [Search(inputs, inputs.y, options.out)]
    if inputs.dataset.classes:
        raise OptionError("--per-target is for numbers; a model of classes knows them all: leave out --per-target")
    names = inputs.dataset.target_names
    if not names:
        return [Search(inputs, inputs.y, options.out)]
    outs = [None if options.out is None else model_path(options.out, name) for name in names]
    given = {"--history": options.history, "--figure": options.figure}
    check_output_files(
        {f"--out for target '{n}'": out for n, out in zip(names, outs, strict=True)} | given, options.data
    )
    return [Search(inputs.target(k), inputs.y[:, k], out) for k, out in enumerate(outs)]


def model_path(out: str, target: str) -> str:
    """Return the file for the model of one target: its name goes before the suffix, as far as file names have it."""
    path, name = Path(out), re.sub(r"[^\w.-]+", "_", target)
    return str(path.with_name(f"{path.stem}-{name}{path.suffix}"))


def _search(
    options: Namespace,
    scan: SharedScan,
    search: Search,
    folds: list[tuple[np.ndarray, np.ndarray]],
    line: LiveLine,
    interrupt: StopOnInterrupt,
    save: Callable[[], None],
) -> None:
    """Go from penalty to penalty with a line for each, until errors have risen or Ctrl-C comes."""
    if interrupt.requested:
        return
    columns = line.columns if line.shown else len(HEADER)
    say(narrowed(HEADER, columns, HEADER, EXPENDABLE))
    patience = None if options.all else PATIENCE
    alphas = sorted(options.alphas, reverse=True)
    whole, started = scan.path(search.y, alphas), time.perf_counter()
    line.count(f"alpha {alphas[0]:.3g}")
    for k, fold, found in trainings(scan, search.y, alphas, folds, patience=patience):
        if fold == len(folds) - 1 and not interrupt.requested:
            row = search.add(k, found, next(whole), time.perf_counter() - started)
            started = time.perf_counter()
            line.settle()
            say(narrowed(row.line, columns, HEADER, EXPENDABLE))
            save()
            if k + 1 < len(alphas):
                line.count(f"alpha {alphas[k + 1]:.3g}")
        if interrupt.requested:
            break
    line.settle()
    missing = len(search.rows) < len(alphas)
    search.cut = missing and interrupt.requested
    if missing and not search.cut:
        risen = f"{PATIENCE} penalties and a factor of {SPAN:g} with errors {CLEAR:.0%} above the least"
        say(f"ended    {risen}; --all tries the others, too")


def _conclude(options: Namespace, search: Search, several: bool) -> None:
    """Say which penalty was chosen and how good its network is; save it."""
    of = f" for {search.name}" if several else ""
    chosen, tried = search.chosen, len(search.rows)
    if chosen is None or search.best is None:
        why = "gave errors that are numbers" if tried else "was tried on all folds"
        say(f"result   no penalty {why}{of}; no model was saved")
        return
    say(
        f"result   alpha = {chosen.alpha:.3g} of {tried} tried has the least error on points left out{of}: "
        f"{chosen.left_out:.3g} (s.e. {chosen.standard_error:.1g})"
    )
    if search.cut:
        say("         the search was interrupted: another may be better")
    elif chosen is search.rows[0] and len(options.alphas) > 1:
        say("         it is the largest: a larger one may be better, see --alphas")
    elif chosen is search.rows[-1] and len(options.alphas) > 1:
        more = "see --alphas" if tried == len(options.alphas) else "see --all"
        say(f"         it is the smallest tried: a smaller one may be better, {more}")
    model = search.inputs.model(options, search.best.network)
    fits = search.inputs.fits(model)
    search.summary = {name: asdict(fit) for name, fit in fits.items()}
    say("\n".join([RULE, *error_rows(fits["training"], fits.get("held_out")), RULE]))
    if search.out:
        model.save(search.out)
        search.saved = search.out
        say(f"model    {search.out}")


def _times(searches: list[Search], scanned: float, total: float) -> None:
    spent = sum(row.seconds for search in searches for row in search.rows)
    count = sum(1 + len(row.fold_errors) for search in searches for row in search.rows)
    say(f"seconds  scan {scanned:.2f}, {count} trainings {spent:.2f}, in all {total:.2f}")


def _write_history(options: Namespace, searches: list[Search], scanned: float) -> None:
    if not options.history:
        return
    inputs = searches[0].inputs
    content = {
        "environment": environment() | {"device": inputs.network.device.describe()},
        "settings": inputs.settings(options),
        "scan_seconds": scanned,
        "targets": [search.as_dict() for search in searches],
    }
    write_text(options.history, json_text(content))
