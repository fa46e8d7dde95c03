"""The options of tables on the command line: from options to data, and what was done to the columns in words."""

from __future__ import annotations

from argparse import Namespace

from ..data import sources
from ..data.encoder import TableEncoder
from ..data.sources import Dataset
from ..errors import OptionError, shown


def load(options: Namespace) -> Dataset:
    """Load the data that the options tell of.

    Parameters
    ----------
    options : argparse.Namespace
        Data, target and treatment of columns.

    Returns
    -------
    Dataset
        Encoded by what all its points have.

    Raises
    ------
    OptionError
        If a column is called ordinal twice.
    """
    ordinal = dict(options.ordinal)
    if len(ordinal) < len(options.ordinal):
        raise OptionError("--ordinal: a column is given twice; give each once")
    encoder = TableEncoder(
        options.max_levels, options.missing, options.dates, ordinal or None, options.categories, options.drop
    )
    return sources.load(options.data, options.target, options.classify, options.header, encoder)


def table_lines(dataset: Dataset) -> list[str]:
    """Return what was guessed and what was done to each column, a line each; nothing where there is nothing to tell."""
    lines = [f"note     {shown(note, 91)}" for note in dataset.notes]
    if dataset.encoder is None or (dataset.encoder.plain and len(dataset.encoder.columns_) > 0):
        return lines
    report = dataset.encoder.report()
    return [*lines, f"columns  {report[0]}", *(f"         {line}" for line in report[1:])]


def table_words(options: Namespace) -> list[str]:
    """Return the options of tables that are not as usual, as words of a command line."""
    words = []
    for name, usual in (("header", "auto"), ("missing", "median"), ("dates", "refuse"), ("max_levels", 20)):
        if getattr(options, name) != usual:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    for name in ("drop", "categories"):
        if getattr(options, name):
            words += [f"--{name}", ",".join(getattr(options, name))]
    for column, levels in options.ordinal:
        words += ["--ordinal", f"{column}={'<'.join(levels)}"]
    return words
