"""What the command ``predict`` does: load a model and points, write what the model says of them."""

from __future__ import annotations

import csv
import io
import sys
from argparse import Namespace

import numpy as np

from ..data.prediction import NO_LABEL, load_for_prediction
from ..files.atomic import write_text
from ..fitted.model import FittedModel
from ..views.run_text import Fit
from .console import check_output_files, say


def predict(options: Namespace) -> int:
    """Predict with a saved model; print or write one line per point: its number, numbers or class.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.app.cli.parser`.

    Returns
    -------
    int
        Exit code 0.
    """
    check_output_files({"--out": options.out}, options.model, options.data)
    model = FittedModel.load(options.model, options.device)
    X, y = load_for_prediction(
        options.data,
        model.feature_names,
        model.target_names,
        model.classes,
        model.table,
        options.header,
        tell=lambda note: print(f"note: {note}", file=sys.stderr),
    )  # (n, d), targets
    predicted = model.predict(X)  # (n,) or (n, c)
    lines = prediction_lines(model, predicted)
    notes = [f"{len(predicted):,} points predicted", *_errors(model, predicted, y)]
    if options.out:
        write_text(options.out, "".join(lines))
        say("; ".join([*notes, f"written to {options.out}"]))
    else:
        for first in range(0, len(lines), 1024):  # one huge write can end early without an error when unbuffered
            sys.stdout.write("".join(lines[first : first + 1024]))
        sys.stdout.flush()
        print("; ".join(notes), file=sys.stderr)
    return 0


def _errors(model: FittedModel, predicted: np.ndarray, y: np.ndarray | None) -> list[str]:
    """Return how wrong the predictions are on the points that have targets."""
    if y is None:
        return []
    there = y != NO_LABEL if model.classes else np.isfinite(y).reshape(len(y), -1).all(axis=1)
    if not there.any():
        return []
    few = "" if there.all() else f" on {int(there.sum()):,} points that have targets"
    if model.classes:
        return [f"accuracy {float((model.classes.decide(predicted) == y)[there].mean()):.2%}{few}"]
    fit = Fit.of(predicted[there], y[there], np.asarray(model.targets.std) ** 2)
    r2 = "" if fit.r2 is None else f", R^2 {fit.r2:.6f}"
    return [f"mse / variance of the training targets {fit.mse:.3e}{r2}{few}"]


def prediction_lines(model: FittedModel, predicted: np.ndarray) -> list[str]:
    """Return predictions (n,) or (n, c) as lines of CSV, a header first; class names for a model of classes."""
    if model.classes is None and predicted.ndim == 1:
        return ["prediction\n", *(f"{value!r}\n" for value in predicted.tolist())]
    header = ("prediction",) if model.classes else model.target_names
    found = predicted if model.classes is None else model.classes.label(model.classes.decide(predicted))[:, None]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *found.tolist()])
    return text.getvalue().splitlines(keepends=True)
