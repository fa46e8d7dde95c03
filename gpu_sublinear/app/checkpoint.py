"""What ``train`` does about checkpoints: options, and what it says of them."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path

from ..errors import OptionError
from ..step.history import StepRecord
from ..training.checkpoints.file import Checkpointing

PROGRAM = "gpu-sublinear"


def checkpointing(options: Namespace) -> Checkpointing | None:
    """Return what the options ask for; None without ``--checkpoint``.

    Parameters
    ----------
    options : argparse.Namespace
        Of the command ``train``.

    Returns
    -------
    Checkpointing or None
        For ``GaussNewton.fit``.

    Raises
    ------
    OptionError
        If options say how to write checkpoints and none says where, or a file is there and ``--resume`` is not given.
    """
    if options.checkpoint is None:
        for name, given in (("--resume", options.resume), ("--checkpoint-every", options.checkpoint_every is not None)):
            if given:
                raise OptionError(f"{name} needs --checkpoint FILE, the file to write and to go on from")
        return None
    if Path(options.checkpoint).is_file() and not options.resume:
        raise OptionError(
            f"--checkpoint: there is a file '{options.checkpoint}' already; add --resume to go on from it, or remove "
            "it to start from the beginning"
        )
    return Checkpointing(options.checkpoint, options.checkpoint_every or 1, options.resume)


def beginning(options: Namespace) -> str | None:
    """Return what to say before a run that could not be resumed; None if there is nothing to say."""
    if options.resume and not Path(options.checkpoint).is_file():
        return f"resume   there is no checkpoint '{options.checkpoint}' yet: training starts from the beginning"
    return None


def resumed(options: Namespace, first: StepRecord) -> str | None:
    """Return what to say at the first record of this process; None for the first of a run."""
    if not first.step:
        return None
    return f"resume   from '{options.checkpoint}', after {first.step} step{'s' * (first.step != 1)}"


def how_to_go_on(options: Namespace) -> str | None:
    """Return the command that goes on after Ctrl-C; None where there is no checkpoint to go on from."""
    if options.checkpoint is None or not Path(options.checkpoint).is_file():
        return None
    command = f"{PROGRAM} {options.arguments}"
    return f"go on    {command if '--resume' in shlex.split(options.arguments) else command + ' --resume'}"
