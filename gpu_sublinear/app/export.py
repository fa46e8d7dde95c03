"""What the command ``export`` does: a saved model becomes a file for another program."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..errors import OptionError, shown
from ..files.atomic import check_writable
from ..fitted.export import to_onnx, to_torchscript
from ..fitted.model import FittedModel

WRITERS = {"torchscript": to_torchscript, "onnx": to_onnx}


def export(options: Namespace) -> int:
    """Write a saved model as TorchScript or ONNX.

    Parameters
    ----------
    options : argparse.Namespace
        As parsed by :func:`gpu_sublinear.app.cli.parser`.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    OptionError
        If the output would overwrite the model.
    """
    if check_writable(options.out, "--out").resolve() == Path(options.model).resolve():
        raise OptionError(f"--out: '{options.out}' is the model itself; choose another path")
    model = FittedModel.load(options.model, "reference")  # NumPy: nothing is computed here
    WRITERS[options.format](model, options.out, dtype=options.dtype)
    print(f"exported {options.out} ({options.format}, {model.network.width:,} neurons)", flush=True)
    if model.table and not model.table.plain:
        names = model.feature_names
        print(f"its input is the {len(names)} encoded columns of numbers, not the table's own: {_some(names)}")
    return 0


def _some(names: tuple[str, ...], most: int = 6) -> str:
    return ", ".join(shown(name, 30) for name in names[:most]) + (", ..." if len(names) > most else "")
