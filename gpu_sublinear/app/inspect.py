"""What the command ``inspect`` does: load and prepare the data as ``train`` would, look, report."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import replace
from typing import Any

from ..data.preprocessing import Preprocessing, TargetScaling
from ..data.sources import Dataset, split
from ..devices import get_device
from ..environment import environment
from ..files.atomic import write_text
from ..foresight.inspection import Inspection, inspect
from ..training.gauss_newton import GaussNewton
from ..views.inspection_figure import save_inspection
from ..views.inspection_text import inspection_text
from ..views.run_figure import check_figure
from .console import check_output_files, json_text, say
from .inputs import data_line
from .table_options import load, table_lines, table_words


def run_inspect(options: Namespace) -> int:
    """Inspect ``options.data`` and report as text, and as the files that were asked for.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.app.cli.parser`.

    Returns
    -------
    int
        Exit code 0: what was found is no failure of the command.
    """
    check_output_files({"--json": options.json, "--figure": options.figure}, options.data)
    if options.figure:
        check_figure(options.figure)
    dataset = load(options)
    rows, held_out = split(len(dataset.y), options.test_fraction, options.seed)
    dataset = dataset.encoded(rows)
    preprocessing = Preprocessing.fit(dataset.X[rows], dataset.preprocessing)
    targets = TargetScaling.fit(dataset.y[rows])
    device = get_device(options.device)
    found = inspect(
        preprocessing.transform(dataset.X[rows]),
        targets.transform(dataset.y[rows]),
        width=options.width,
        shift=options.shift,
        seed=options.seed,
        dtype=options.dtype,
        device=device,
        trainer=GaussNewton(tolerance=options.tolerance, memory_limit=options.memory_limit),
    )
    found = _numbered_as_in_the_data(found, rows)
    say(_opening(dataset, found, len(held_out), options.seed))
    say(inspection_text(found, targets))
    if found.advice:
        say(f"train it with\n  {train_command(options, found)}")
    _save(options, dataset, found)
    return 0


def _numbered_as_in_the_data(found: Inspection, rows: Any) -> Inspection:
    """Return the inspection with training points named by their rows in the data set."""
    seen = found.contradictions
    worst = [replace(pair, first=int(rows[pair.first]), second=int(rows[pair.second])) for pair in seen.worst]
    return replace(found, contradictions=replace(seen, worst=worst))


def _opening(dataset: Dataset, found: Inspection, held_out: int, seed: int) -> str:
    return "\n".join((
        data_line(dataset, found.points, held_out),
        *table_lines(dataset),
        f"network  m = {found.width:,} neurons, d = {found.features}, shift b = {found.shift:.4g}, {found.dtype}, "
        f"seed {seed}; on {found.device}",
    ))


def train_command(options: Namespace, found: Inspection) -> str:
    """Return the command that trains with the recommended settings on the same data."""
    words = ["gpu-sublinear", "train", options.data]
    if options.target is not None:
        words += ["--target", options.target]
    words += ["--classify"] if options.classify else []
    words += table_words(options)
    for advice in found.advice:
        words += [advice.option, advice.value]
    words += ["--seed", str(options.seed)] if options.seed else []
    words += ["--dtype", options.dtype] if options.dtype != "float32" else []
    words += ["--test-fraction", f"{options.test_fraction:g}"] if options.test_fraction != 0.2 else []
    return shlex.join(words)


def _save(options: Namespace, dataset: Dataset, found: Inspection) -> None:
    if options.json:
        content = {"environment": environment(), "data": dataset.name, "inspection": found.as_dict()}
        if dataset.encoder:
            content["table"] = dataset.encoder.to_dict() | {"notes": list(dataset.notes)}
        write_text(options.json, json_text(content))
        say(f"json     {options.json}")
    if options.figure:
        title = f"{dataset.name}   n = {found.points:,}   d = {found.features}   m = {found.width:,}"
        title += f"   b = {found.shift:.4g}"
        save_inspection(options.figure, found, title)
        say(f"figure   {options.figure}")
