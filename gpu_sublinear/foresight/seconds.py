"""How long the steps of a run would take, before it is started: work counted in expectation, times measured prices.

The work of each phase follows from the sizes and the shift.  Its price is what the same kind of work cost in a trial
on this machine (:mod:`gpu_sublinear.foresight.trial`); the solvers' prices are those of
:mod:`gpu_sublinear.linear.solver_costs`, scaled by what the trial's Gram matrix and its factorisation took here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..index.lazy import FIRST_MARGIN
from ..linear.solver_costs import FEATURE, FIRED, FLOP, PAIR, solver_seconds
from ..model.shifts import firing_probability
from .trial import Trial

TIMEABLE = 0.02  # seconds of Gram matrix and factorisation below which overheads, not work, would be measured
UNFLIPPED = 0.75  # of the first count of pairs that later steps save, because few pairs flip
TASKS = ("draw", "first scan", "first step", "later step")


@dataclass(frozen=True)
class Work:
    """The size of one run: everything that its time depends on.

    Attributes
    ----------
    n, d, width : int
        Points, features, neurons.
    shift : float
        b.
    pairs : float
        Expected ``sum_r |fire(r)|^2``.
    rows : int
        Of the sketch.
    outputs : int
        c.
    """

    n: int
    d: int
    width: int
    shift: float
    pairs: float
    rows: int
    outputs: int = 1

    @property
    def fired(self) -> float:
        """Expected fired pairs, ``n m Q(b)``."""
        return self.n * self.width * firing_probability(self.shift)

    @property
    def candidates(self) -> float:
        """Expected pairs in the lists of the lazy index before the first step."""
        return self.n * self.width * firing_probability(self.shift - FIRST_MARGIN)

    def solvers(self) -> dict[str, float]:
        """Seconds of each solver by the constants of :mod:`gpu_sublinear.linear.solver_costs`."""
        return solver_seconds(self.pairs, int(self.fired), self.n, self.d, self.rows, self.outputs)


@dataclass(frozen=True)
class Prices:
    """What work costs on this machine.

    Attributes
    ----------
    weight : float
        Seconds to draw one entry of W.
    product : float
        Seconds to compute and compare one product ``x_ij w_rj`` in a scan.
    candidate : float
        Seconds to look at one candidate pair in a query.
    speed : float
        Seconds here for each second of :mod:`gpu_sublinear.linear.solver_costs`; 1 where the trial's were too few to
        time.
    """

    weight: float
    product: float
    candidate: float
    speed: float

    @classmethod
    def of(cls, trial: Trial, n: int, d: int) -> Prices:
        """Divide what a trial measured by the work that it did."""
        seconds = trial.seconds
        modelled = PAIR * trial.pairs + FLOP * n**3 / 3
        measured = seconds.get("gram", modelled) + seconds.get("solve", 0.0)
        return cls(
            weight=seconds["draw"] / (trial.width * d),
            product=seconds["scan"] / (n * trial.width * d),
            candidate=seconds["query"] / max(1, trial.candidates),
            speed=measured / modelled if measured > TIMEABLE else 1.0,
        )


def expected_seconds(work: Work, prices: Prices, solver: str, union_share: float) -> dict[str, float]:
    """Return the expected seconds of a run's ``TASKS``.

    Parameters
    ----------
    work : Work
        The run.
    prices : Prices
        Of this machine.
    solver : str
        Name of the solver.
    union_share : float
        Share of the neurons that fire on some point: the first step looks at most of them afresh.

    Returns
    -------
    dict
        Seconds by part.
    """
    scan = prices.product * work.n * work.width * work.d
    update = 2 * (FIRED + FEATURE * work.d) * work.fired  # J^T g by rows, then the rows themselves
    step = prices.candidate * work.candidates + prices.speed * (work.solvers()[solver] + update)
    return {
        "draw": prices.weight * work.width * work.d,
        "first scan": scan,
        "first step": step + union_share * scan,
        "later step": step - (prices.speed * UNFLIPPED * PAIR * work.pairs if solver == "gram" else 0.0),
    }
