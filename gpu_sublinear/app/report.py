"""``gpu-sublinear report``: one page about a run, from its history."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..errors import OptionError
from ..files.atomic import check_writable, write_text
from ..views.run_figure import check_matplotlib
from ..views.run_page import page, read_history
from .console import say


def run_report(options: Namespace) -> int:
    """Do what ``gpu-sublinear report`` does.

    Parameters
    ----------
    options : argparse.Namespace
        With ``history`` and ``out``.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    OptionError
        If the page would replace the history.
    """
    check_matplotlib("report")
    if Path(options.out).resolve() == Path(options.history).resolve():
        raise OptionError(f"--out: '{options.out}' is also the history; choose another path")
    check_writable(options.out, "--out")
    write_text(options.out, page(read_history(options.history)))
    say(f"report   {options.out}")
    return 0
