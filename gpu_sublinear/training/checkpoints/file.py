"""Checkpoint files: all that the rest of a run depends on, between two steps.

A checkpoint stands *before* a step.  It holds the rows, the second layer if it is trained, W_0 and the penalty in
absolute units, the best weights where a run may go back to them, the state of damping and early stopping, the history
so far, and what the run was started with.  Everything else follows from these, bit for bit: who fires is exact whatever
lists it is read from, the Gram matrix counts whole numbers, and batches and sketches are keyed by the step.  So
candidate lists, trees, masks and Gram matrices are made anew.  What a run does with checkpoints is in
:mod:`gpu_sublinear.training.checkpoints.keeper`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...devices.clock import PHASES
from ...errors import CheckpointError, OptionError, shown
from ...files.atomic import check_writable
from ...files.tensors import DAMAGE, FileKind
from ...index.flips.kept import check_flips
from ...step.history import StepRecord
from ..prepare import KINDS

FORMAT_VERSION = 2
CHECKPOINT = FileKind(
    "checkpoint",
    "gpu_sublinear_checkpoint",
    FORMAT_VERSION,
    CheckpointError,
    "take a copy of the file, or remove it to start from the beginning",
    sealed=True,  # a flipped bit in a model shows in its predictions; here it would only make the bytes differ
)
ROW_ARRAYS = (
    "rows",
    "initial",
    "best_rows",
    "validation_rows",
)  # arrays (u, d) of the network's dtype; only the first is a must
SECOND_LAYERS = ("second", "initial_second", "best_second", "validation_second")  # arrays (u,) or (u, c)
SHARES = ("shares", "best_shares")  # arrays (blocks, u, d)
CONTROL = (
    "damping", "part", "watches", "failures", "predicted", "best_step", "halved", "since", "last", "before",
    "fell", "kept", "outlook", "may_set_out", "until",
)  # fmt: skip
FLAGS = ("watches", "may_set_out")  # of these, the truth values
WATCH = ("best", "best_step", "waited", "last")
SECONDS = ("build", "checkpoints")


@dataclass(frozen=True)
class Checkpointing:
    """Write checkpoints while training, and go on from one.

    Attributes
    ----------
    path : str or Path
        The file; each checkpoint replaces the one before, by an atomic rename.
    every : int
        Steps between two checkpoints.  One is also written where a run is going to end or a callback stops it.
    resume : bool
        Go on from the file if it is there.  Without it a file that is there is an error, so that nobody's work is lost.

    Examples
    --------
    >>> checkpoint = Checkpointing("run.checkpoint", resume=True)  # start, or go on: the same call for both
    >>> GaussNewton().fit(network, X, y, checkpoint=checkpoint)  # doctest: +SKIP
    """

    path: str | Path
    every: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OptionError(f"every must be at least 1 step; got {self.every}")

    def find(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, None to start from the beginning.

        Returns
        -------
        Checkpoint or None
            What the file holds.

        Raises
        ------
        OptionError
            If there is a file and ``resume`` is false.
        CheckpointError
            If the file is damaged or no checkpoint.
        OutputFileError
            If the file cannot be written.
        """
        path = check_writable(self.path, "checkpoint")
        if not path.is_file():
            return None
        if not self.resume:
            raise OptionError(
                f"there is a checkpoint '{path}' already; resume from it, remove it, or choose another path"
            )
        return Checkpoint.load(path)


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    identity : dict
        What the run was started with: settings as they are, arrays as digests.
    arrays : dict of ndarray
        ``rows`` (u, d), ``neurons`` (u,), ``seen`` (n, d), and where the run has them: ``initial`` (u, d) W_0,
        ``best_rows`` (u, d), ``validation_rest`` (k,), ``validation_rows`` (u, d); where the second layer is trained
        also ``second`` (u,), with a penalty ``initial_second`` (u,) a_0, and ``best_second`` (u,),
        ``validation_second`` (u,) unless these are +1 and -1.
        Of batches with a penalty ``shares`` and ``best_shares`` (blocks, u, d).  With the index "flips" the rows are
        those of the start, and :mod:`gpu_sublinear.index.flips.kept` says what else.
    history : list of StepRecord
        One per step taken; the next step has the number ``len(history)``.
    index, best_index : str
        How fired pairs are found now, and were at the best weights: "trees", "lists", "bits" or "flips".
    control : dict
        Damping and its part of the curvature, whether full steps are watched, how many failed in a row, decrease
        promised last, step of the best weights, and the objectives that the next one is compared with; of the last
        damped step what it gained and kept of its promise, what is expected of the next, and whether and until when
        full steps are taken again.
    watch : dict
        Early stopping: best validation error, its step, steps waited, last step looked at.
    ridge : float
        lambda in absolute units.
    alpha : float
        The same in units of tr(G_0)/n, as given or chosen.
    sampling : str
        Of the network, settled.
    seconds : dict
        Spent on the first scan and on writing checkpoints.
    package_version : str
        Of the program that wrote it.
    """

    identity: dict[str, Any]
    arrays: dict[str, np.ndarray]
    history: list[StepRecord] = field(repr=False)
    index: str
    best_index: str
    control: dict[str, float]
    watch: dict[str, float]
    ridge: float
    alpha: float
    sampling: str
    seconds: dict[str, float]
    package_version: str

    def save(self, path: str | Path) -> None:
        """Write the file, all of it or nothing."""
        header = {name: getattr(self, name) for name in HEADER}
        CHECKPOINT.write(path, header | {"history": [asdict(record) for record in self.history]}, self.arrays, True)

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Read a file that :meth:`save` wrote.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Checkpoint
            With parts that fit together.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, no checkpoint, or of another format.
        """
        header, arrays = CHECKPOINT.read(path)
        try:
            history = [_record(item, step) for step, item in enumerate(header["history"])]
            checkpoint = cls(**{name: header[name] for name in HEADER}, arrays=arrays, history=history)
            checkpoint._check()
        except DAMAGE as error:
            raise CHECKPOINT.damaged(path, error) from error
        return checkpoint

    def _check(self) -> None:
        """Raise ValueError unless every part is one that :meth:`save` could have written."""
        if self.index not in KINDS or self.best_index not in KINDS:
            raise ValueError(f"it speaks of the index {shown(str(self.index))}")
        if not self.history:
            raise ValueError("it has no history")
        for name, keys in (("control", CONTROL), ("watch", WATCH), ("seconds", SECONDS)):
            numbers = getattr(self, name)
            if set(numbers) != set(keys) or not all(
                isinstance(value, bool) if key in FLAGS else _is_number(value) for key, value in numbers.items()
            ):
                raise ValueError(f"the entry '{name}' has not the numbers {', '.join(keys)}")
        if not all(_is_number(value) and 0 <= value < math.inf for value in (self.ridge, self.alpha)):
            raise ValueError("the penalty is no number from 0 on")
        if not (isinstance(self.identity, dict) and isinstance(self.package_version, str)):
            raise ValueError("the settings of the run are missing")
        if not isinstance(self.sampling, str):
            raise ValueError("the sampling is no word")
        self._check_arrays()

    def _check_arrays(self) -> None:
        rows, neurons, seen = (self.arrays[name] for name in ("rows", "neurons", "seen"))
        if rows.ndim != 2 or rows.dtype not in (np.float32, np.float64):
            raise ValueError(f"the weights have shape {rows.shape} and type {rows.dtype}")
        if any(name in self.arrays and _kind(self.arrays[name]) != _kind(rows) for name in ROW_ARRAYS):
            raise ValueError("the weights at different steps do not fit together")
        if seen.dtype != rows.dtype or seen.shape != (len(seen), rows.shape[1]):
            raise ValueError(f"the points seen have shape {seen.shape}")
        if neurons.dtype != np.int64 or neurons.shape != rows.shape[:1] or (np.diff(neurons) <= 0).any():
            raise ValueError("the numbers of the neurons are not ascending")
        outputs = self.identity.get("outputs", 1)
        second = rows.dtype, rows.shape[:1] if outputs == 1 else (len(rows), outputs)
        if any(name in self.arrays and _kind(self.arrays[name]) != second for name in SECOND_LAYERS):
            raise ValueError("the second layer does not fit the weights")
        if ("second" in self.arrays) is not (self.identity.get("both_layers") is True):
            raise ValueError("the second layer is there without being trained, or trained without being there")
        if self.index == "flips":
            check_flips(self.arrays, penalised=self.ridge > 0)
        for name in SHARES:
            if name in self.arrays and _kind(self.arrays[name][:1]) != (rows.dtype, (1, *rows.shape)):
                raise ValueError("the blocks' shares of the weights do not fit them")
        rest = self.arrays.get("validation_rest", np.zeros(0))
        if rest.dtype != np.float64 or rest.ndim not in (1, 2):
            raise ValueError("the validation outputs are not a list of float64 numbers")

    def differences(self, identity: Mapping[str, Any]) -> Iterator[str]:
        """Yield what differs from another run's identity, in words."""
        for name in sorted({*self.identity, *identity}):
            before, now = self.identity.get(name, "not known"), identity.get(name, "not known")
            if before != now:
                said = (
                    f"the {name} differ" if name.startswith(DIGESTED) else f"{name} was {before!r} and is {now!r} now"
                )
                yield shown(said, 120)


HEADER = tuple(part.name for part in fields(Checkpoint) if part.name not in ("arrays", "history"))
DIGESTED = (
    "training points",
    "targets",
    "sample weights",
    "validation points",
    "initial weights",
)  # only a digest of these is kept


def _kind(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype, array.shape


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _record(item: dict[str, Any], step: int) -> StepRecord:
    """Return a record of the history; raise ValueError or TypeError if it is none."""
    record = StepRecord(**item)
    for part in fields(StepRecord):
        if not _fits(getattr(record, part.name), str(part.type)):
            raise ValueError(f"step {step} has no proper {part.name}")
    if record.step != step:
        raise ValueError(f"step {step} of the history has another number")
    return record


def _fits(value: Any, kind: str) -> bool:
    if kind == "dict[str, float]":
        return isinstance(value, dict) and set(value) == set(PHASES) and all(map(_is_number, value.values()))
    if value is None:
        return "None" in kind
    if kind == "str":
        return isinstance(value, str)
    return isinstance(value, int) and not isinstance(value, bool) if kind == "int" else _is_number(value)
