"""What a training leaves in doubt: points unlike the first ones, no convergence, hardly more than a constant explained.

**When a fit explains next to nothing.**  Where R^2 of the training points is below 1/10: errors are then at most 5 %
smaller (``sqrt(1 - 1/10) = .95``) than those of the best constant, on the very points that the network was fitted to.
Noise without a signal ends there as well, at a large penalty.  That is no false alarm: whether the target cannot be
told from the features or this network misses what tells it, one fit does not know, and in either case its predictions
are as good as a constant.  ``converged_`` is another matter, and stays true: the penalised loss has its minimum there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.classes import decided
from ..data.preprocessing import TargetScaling
from ..model.network import ShiftedReluNetwork
from ..step.history import TrainingResult

NEXT_TO_NOTHING = 0.1  # R^2 of training below which a fit is doubted
NAMED = 5  # features that a sentence names
LARGE_ALPHA = 1.0  # above it the penalty outweighs what most points say


@dataclass(frozen=True)
class Learned:
    """Standard targets, and the points they belong to.

    Attributes
    ----------
    X : ndarray
        (n, d) unit rows.
    y : ndarray
        (n,) or (n, c) standard targets.
    weights : ndarray or None
        (n,) above 0.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None

    def explained(self, results: list[TrainingResult]) -> np.ndarray:
        """Return R^2 of training for each network, (k,); NaN where targets are constant."""
        columns = self.y.reshape(len(self.y), len(results), -1)  # (n, k, outputs of a network)
        mean = np.average(columns, axis=0, weights=self.weights)
        variance = np.average((columns - mean) ** 2, axis=0, weights=self.weights).mean(axis=1)  # (k,)
        mse = np.array([result.final.mse for result in results])
        return np.where(variance > 0, 1 - mse / np.where(variance > 0, variance, 1), np.nan)

    def accuracy(self, networks: list[ShiftedReluNetwork], scaling: TargetScaling) -> tuple[float, float]:
        """Return the share of points put into their class by networks, and by the most frequent class alone."""
        outputs = [network.predict(self.X) for network in networks]
        values = outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=1)
        found, true = decided(scaling.inverse(values)), decided(scaling.inverse(self.y))
        count = np.bincount(true, self.weights)
        return float(np.average(found == true, weights=self.weights)), float(count.max() / count.sum())


def poor_fit(quality: str, preprocessing: str, alpha: float) -> str:
    """Return the sentence about a fit that explains next to nothing.

    Parameters
    ----------
    quality : str
        How well the training points are explained, and how well by a constant.
    preprocessing : str
        The one that was used.
    alpha : float
        The largest penalty that was used.

    Returns
    -------
    str
        With what to try.
    """
    steps = ["preprocessing='standard'"] if preprocessing == "smooth" else []
    steps += [f"a smaller alpha than {alpha:g}"] if alpha > LARGE_ALPHA else []
    return (
        f"the fit explains next to nothing: {quality}; the features may not tell the target, or the network is too "
        f"smooth for it: try {', '.join([*steps, 'a smaller shift', 'a larger width'])} or other features"
    )


def outgrown(columns: np.ndarray, names: Sequence[str] | None) -> str:
    """Return the sentence about points that vary where those of the first ``partial_fit`` did not.

    Parameters
    ----------
    columns : ndarray
        Numbers of the features.
    names : sequence of str, optional
        Of all features.

    Returns
    -------
    str
        With the remedy.
    """
    shown = [repr(names[j]) if names is not None else str(j) for j in columns[:NAMED]]
    more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    what = "feature" if len(columns) == 1 else "features"
    return (
        f"the points added now vary in {what} {', '.join(shown)}{more}{' (counted from 0)' if names is None else ''}, "
        "which in the first call was constant or varied less than a tenth as much; its statistics are kept, so a "
        "constant one stays unseen and others outweigh the rest: call fit with all points, or begin with typical ones"
    )
