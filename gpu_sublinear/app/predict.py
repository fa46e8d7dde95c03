"""What the command ``predict`` does: load a model and points, write what the model says of them."""

from __future__ import annotations

import csv
import io
import sys
from argparse import Namespace

import numpy as np

from ..data.sources import load_for_prediction
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
    X, y = load_for_prediction(options.data, model.feature_names, model.target_names, model.classes)  # (n, d), targets
    predicted = model.predict(X)  # (n,) or (n, c)
    lines = prediction_lines(model, predicted)
    notes = [f"{len(predicted):,} points predicted"]
    if y is not None and model.classes:
        notes.append(f"accuracy {float((model.classes.decide(predicted) == y).mean()):.2%}")
    elif y is not None:
        fit = Fit.of(predicted, y, np.asarray(model.targets.std) ** 2)
        r2 = "" if fit.r2 is None else f", R^2 {fit.r2:.6f}"
        notes.append(f"mse / variance of the training targets {fit.mse:.3e}{r2}")
    if options.out:
        write_text(options.out, "".join(lines))
        say("; ".join([*notes, f"written to {options.out}"]))
    else:
        for first in range(0, len(lines), 1024):  # one huge write can end early without an error when unbuffered
            sys.stdout.write("".join(lines[first : first + 1024]))
        sys.stdout.flush()
        print("; ".join(notes), file=sys.stderr)
    return 0


def prediction_lines(model: FittedModel, predicted: np.ndarray) -> list[str]:
    """Return predictions (n,) or (n, c) as lines of CSV, a header first; class names for a model of classes."""
    if model.classes is None and predicted.ndim == 1:
        return ["prediction\n", *(f"{value!r}\n" for value in predicted.tolist())]
    header = ("prediction",) if model.classes else model.target_names
    found = predicted if model.classes is None else model.classes.label(model.classes.decide(predicted))[:, None]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *found.tolist()])
    return text.getvalue().splitlines(keepends=True)
