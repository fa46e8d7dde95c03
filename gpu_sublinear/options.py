"""What a user chooses: the options of a training, each with its default.

Which of them go together is in :mod:`gpu_sublinear.training.support`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from .errors import OptionError
from .sizes import byte_count, whole_number

SOLVERS = ("auto", "gram", "sketch-cg", "cg")
JACOBIANS = ("factored", "csr")
DENSE = 0.035  # fired or listed share of the pairs from which bits are faster than lists on the cpu device
MOST_SCALE = 1e100  # alpha or damping, whose squares must be numbers
ROWS_PER_POINT = {"neurons": 2.0, "rows": 8.0}  # of each kind of sketch


@dataclass(frozen=True)
class TreeOptions:
    """How trees are laid out and kept up to date.

    Attributes
    ----------
    arity : int
        Children per node.  2 is the paper's; 8 float32 children fill one 32-byte memory sector.
    rebuild_fraction : float
        When more than this fraction of the neurons moved, all inner nodes are rebuilt bottom-up, which streams
        through memory, instead of only the moved neurons' ancestors.  The default is where the two times cross
        on the CPU (``python -m bench --only tree``).
    """

    arity: int = 8
    rebuild_fraction: float = 0.2

    def __post_init__(self) -> None:
        if self.arity < 2:
            raise OptionError(f"arity must be at least 2; got {self.arity}")
        if not 0 <= self.rebuild_fraction <= 1:
            raise OptionError(f"rebuild_fraction must be from 0 to 1; got {self.rebuild_fraction}")


@dataclass(frozen=True)
class SketchOptions:
    """What is sketched, and how large the sketch is.

    Attributes
    ----------
    kind : {"neurons", "rows"}
        Hash the neurons, or the weights one by one.
    rows_per_point : float or None
        c: the sketch has ``ceil(c n)`` rows.  Fewer rows cost solver iterations, never correctness.  None takes 2 for
        neurons (13-14 iterations to 1e-10) and 8 for rows (21-23).
    nonzeros : int
        Nonzeros per column of the row sketch; 1, 4 and 8 give the same spectrum to two digits on Jacobians like ours.
    """

    kind: str = "neurons"
    rows_per_point: float | None = None
    nonzeros: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ROWS_PER_POINT:
            raise OptionError(f"sketch must be one of {', '.join(ROWS_PER_POINT)}; got {self.kind!r}")
        if not 1 <= self.c < math.inf:
            raise OptionError(f"rows_per_point must be a number >= 1; got {self.rows_per_point}")
        if self.nonzeros < 1:
            raise OptionError(f"nonzeros must be at least 1; got {self.nonzeros}")

    @property
    def c(self) -> float:
        """Rows per point, the default of the kind filled in."""
        return ROWS_PER_POINT[self.kind] if self.rows_per_point is None else self.rows_per_point

    def rows(self, n: int) -> int:
        """Return the number of rows of the sketch for n points."""
        return math.ceil(self.c * n)


@dataclass(frozen=True)
class CGOptions:
    """When conjugate gradients stop.

    Attributes
    ----------
    tolerance : float
        Relative residual.  A step solved to 1e-2 contracts the training error by 1e-2, if the mask holds still.
    max_iterations : int
        Cap for each attempt; with the sketch 6 to 10 are usual.
    """

    tolerance: float = 1e-2
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise OptionError(f"the solver tolerance must be between 0 and 1; got {self.tolerance}")
        if self.max_iterations < 1:
            raise OptionError(f"max_iterations must be at least 1; got {self.max_iterations}")


@dataclass(frozen=True)
class Options:
    """The fields of :class:`gpu_sublinear.GaussNewton`, which says what they mean.

    Raises
    ------
    OptionError
        If a value does not exist, naming the option and what it may be.
    """

    solver: str = "auto"
    margin: float | str = "auto"
    jacobian: str = "factored"
    mask: str = "auto"
    tolerance: float = 1e-4
    max_steps: int = 20
    memory_limit: int | None = None  # or text, "8GiB", which becomes a number
    damping: float | str = "auto"
    watchdog: int = 3
    alpha: float | str = 0.0
    time_budget: float | None = None
    validation_fraction: float = 0.0
    patience: int = 3
    batch_size: int | None = None
    both_layers: bool = False
    tree: TreeOptions = field(default_factory=TreeOptions)
    sketch: SketchOptions = field(default_factory=SketchOptions)
    cg: CGOptions = field(default_factory=CGOptions)

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise OptionError(f"solver must be one of {', '.join(SOLVERS)}; got {self.solver!r}")
        if self.jacobian not in JACOBIANS:
            raise OptionError(f"jacobian must be one of {', '.join(JACOBIANS)}; got {self.jacobian!r}")
        if self.margin not in ("auto", 0):
            check_margin(self.margin)
        self._read_sizes()
        self._check_robust()
        self._check_batches()
        if not 0 <= self.tolerance < 1:
            raise OptionError(f"tolerance must be from 0 to below 1; got {self.tolerance}")
        if self.max_steps < 0:
            raise OptionError(f"max_steps must be at least 0; got {self.max_steps}")

    @property
    def can_pack(self) -> bool:
        """Whether nothing asks for lists of fired pairs, so that ``mask="auto"`` may pack them."""
        factored = self.jacobian == "factored" and self.margin == "auto"
        return factored and self.solver in ("auto", "gram") and not self.both_layers

    @property
    def robust(self) -> bool:
        """Whether steps go to the least-squares solution, so that targets may contradict each other."""
        return self.damping != "none" or self.alpha != 0

    def packs(self, share: float, outputs: int = 1) -> bool:
        """Tell whether masks are packed when this share of the pairs fires; lists are kept for several outputs."""
        if outputs > 1:
            return False
        return self.mask in ("bits", "flips") or (self.mask == "auto" and self.can_pack and share >= DENSE)

    def _check_robust(self) -> None:
        """Refuse values of the robust options that do not exist, naming the option and what it may be."""
        damping, alpha = self.damping, self.alpha
        if damping not in ("auto", "none") and not (_is_scale(damping) and damping != 0):
            raise OptionError(
                f"damping must be 'auto', 'none' or a positive number up to {MOST_SCALE:g}; got {damping!r}"
            )
        if alpha != "auto" and not _is_scale(alpha):
            raise OptionError(f"alpha must be a number from 0 to {MOST_SCALE:g} or 'auto'; got {alpha!r}")
        if self.watchdog < 1:
            raise OptionError(f"watchdog must be at least 1; got {self.watchdog}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise OptionError(f"time_budget must be above 0 seconds; got {self.time_budget}")
        if not 0 <= self.validation_fraction < 1:
            raise OptionError(f"validation_fraction must be from 0 to below 1; got {self.validation_fraction}")
        if self.patience < 1:
            raise OptionError(f"patience must be at least 1; got {self.patience}")

    def _read_sizes(self) -> None:
        """Take sizes as numbers, however they were written."""
        if self.memory_limit is not None:
            object.__setattr__(self, "memory_limit", byte_count(self.memory_limit, "memory_limit"))
        if isinstance(self.batch_size, str):
            object.__setattr__(self, "batch_size", whole_number(self.batch_size, "batch_size"))
        object.__setattr__(self, "max_steps", whole_number(self.max_steps, "max_steps"))

    def _check_batches(self) -> None:
        """Refuse a batch size that does not exist."""
        size = self.batch_size
        if size is None:
            return
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise OptionError(f"batch_size must be None or a whole number of at least 1; got {size!r}")


def check_margin(margin: float | str) -> float:
    """Return the margin as a positive number.

    Parameters
    ----------
    margin : float or str
        What the user gave, other than "auto".

    Returns
    -------
    float
        The margin.

    Raises
    ------
    OptionError
        If it is no positive finite number.
    """
    try:
        value = float(margin)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise OptionError(f"margin must be 'auto', 0 (threshold tree) or a positive number; got {margin!r}")
    return value


def _is_scale(value: object) -> bool:
    """Tell whether a value can be alpha or damping."""
    return isinstance(value, Real) and 0 <= float(value) <= MOST_SCALE
