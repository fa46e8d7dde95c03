"""The numbers of a model that an exported file needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.preprocessing import Preprocessing, TargetScaling
from ..model.activation import Activation


@dataclass(frozen=True)
class Parts:
    """All numbers of a model, on the host.

    Attributes
    ----------
    W : numpy.ndarray
        (u, d) first-layer weights of the neurons that exist.
    signs : numpy.ndarray
        (u,) or (u, c) second layer, of the type of W.
    shift : float
        b.
    scale : float
        The factor in front of the sum, ``m^{-1/2}`` for the whole width m.
    preprocessing : Preprocessing or None
        From raw features to unit rows; None for a bare network.
    targets : TargetScaling
        From standard targets to their own units.
    activation : Activation
        Of the neurons.
    """

    W: np.ndarray
    signs: np.ndarray
    shift: float
    scale: float
    preprocessing: Preprocessing | None
    targets: TargetScaling
    activation: Activation

    @property
    def features(self) -> int:
        """Number of columns of the input."""
        return self.preprocessing.features if self.preprocessing else self.W.shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs, c."""
        return 1 if self.signs.ndim == 1 else self.signs.shape[1]

    @property
    def standard(self) -> bool:
        """Whether features are standardised and get a constant coordinate."""
        return self.preprocessing is not None and self.preprocessing.standardises

    @property
    def divisors(self) -> np.ndarray:
        """(features,) float64: what centred features are divided by; infinity makes a constant feature zero."""
        assert self.preprocessing is not None
        scale = self.preprocessing.scale
        return np.where(scale == 0, np.inf, scale)
