"""One line of a path's table."""

from __future__ import annotations

from dataclasses import dataclass

from .run_text import fired


@dataclass(frozen=True)
class PathRow:
    """One penalty: what training on all points and on the folds gave.

    Attributes
    ----------
    alpha : float
        Penalty in units of tr(G_0)/n.
    steps : int
        Of the training on all points.
    training : float
        Its mean squared error, in units of the variance of the targets.
    left_out, standard_error : float
        Mean squared error on the points that folds leave out, and its standard error.
    fold_errors, fold_steps : list
        Of each fold.
    fired : float
        Mean number of neurons fired on a point.
    reason : str
        Why the training on all points stopped.
    seconds : float
        Of all these trainings.
    """

    alpha: float
    steps: int
    training: float
    left_out: float
    standard_error: float
    fold_errors: list[float]
    fold_steps: list[int]
    fired: float
    reason: str
    seconds: float

    @property
    def line(self) -> str:
        """In the columns of ``HEADER``."""
        return (
            f"{self.alpha:>9.3g}  {self.steps:>5}  {self.training:>9.3e}  {self.left_out:>9.3e}  "
            f"{self.standard_error:>7.1e}  {fired(self.fired):>11}  {self.seconds:>7.2f}"
        )
