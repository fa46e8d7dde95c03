"""The network: f(x) = m^{-1/2} sum_r a_r relu(<w_r, x> - b), its initialisation and its output on new data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.arrays import of_table
from ..devices import Array, Device, get_device
from ..errors import DataError, OptionError
from ..sizes import dtype_name, whole_number
from .activation import SHIFTED_RELU, Activation, activation_of
from .shifts import resolve_shift
from .signs import check_outputs, sign_matrix

PREDICT_POINTS, PREDICT_NEURONS = (
    2048,
    4096,
)  # predict's blocks: 8 M pre-activations at a time fit any machine
BLOCK_BYTES = 1 << 24  # of weights drawn at a time: a second-level cache or two
NORM_TOLERANCE = 1e-3  # rows in float32 miss unit norm by about 1e-7; anything beyond this was not normalised
SAMPLINGS = ("auto", "explicit", "virtual")


@dataclass
class ShiftedReluNetwork:
    """A two-layer network with balanced second layer and shifted ReLU, or another activation with kinks at the shift.

    A network is its seed and the rows that are held.  A row is held once training needs it; every other row is either
    as the seed says, and drawn again whenever it is looked at (``sampling="explicit"``), or was never drawn, because
    its pair of neurons cancels for ever (``"virtual"``, see :mod:`gpu_sublinear.model.caps`).  So memory follows the
    neurons that take part, not the width.

    Attributes
    ----------
    rows : Array
        (u, d) first-layer weights of the neurons held, on ``device``.
    neurons : Array
        (u,) int64, ascending: their numbers.
    width : int
        m, the nominal number of neurons.
    shift : float
        b >= 0: neuron r fires on x when ``<w_r, x> > b``.
    seed : int
        Seed of the initial weights and, during training, of the sketches.
    paired : bool
        Whether neurons 2k and 2k + 1 begin equal, which makes the initial output exactly zero.
    sampling : {"auto", "explicit", "virtual"}
        How neurons come into being; "auto" is settled when the training points are known.
    device : Device
        Owner of the arrays.
    seen : Array
        (n, d) points whose neurons exist (virtual sampling only).
    outputs : int
        c, the number of outputs; they share the first layer, see :mod:`gpu_sublinear.linear.outputs`.
    activation : Activation
        What a neuron makes of ``<w_r, x>``.
    second : Array or None
        (u,) or (u, c) second layer of the neurons held, once it was trained (:mod:`gpu_sublinear.linear.layers`).
    """

    rows: Array
    neurons: Array
    width: int
    shift: float
    seed: int
    paired: bool
    sampling: str
    device: Device
    seen: Array
    outputs: int = 1
    activation: Activation = SHIFTED_RELU
    second: Array = None
    _signs: tuple[Array, Array] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def initialize(
        cls,
        width: int | str,
        features: int,
        *,
        shift: float | str = "paper",
        seed: int = 0,
        dtype: Any = "float32",
        paired: bool = False,
        sampling: str = "auto",
        outputs: int = 1,
        device: Device | str | None = None,
        activation: str | Activation = SHIFTED_RELU,
    ) -> ShiftedReluNetwork:
        """Make a random network: ``W_rj ~ N(0, 1)`` independent, keyed by (seed, r, j), drawn when looked at.

        Parameters
        ----------
        width : int or str
            m, even, 2 to 2^53, also as ``"2^20"``; the time of explicit sampling is proportional to it.
        features : int
            d, at least 1.
        shift : float, "paper" or "fired:K"
            b >= 0, the paper's ``sqrt(0.48 ln m)``, or the shift at which about K neurons fire on a point.
        seed : int
            0 <= seed < 2^64.
        dtype : {"float32", "float64"} or numpy.dtype
            Type of weights, data and products.
        paired : bool
            Give both neurons of each pair of opposite signs the same weights.
        sampling : {"auto", "explicit", "virtual"}
            Look at all m neurons, or draw only those that fire on some training point (paired networks only; the
            width is then Poisson-distributed around m).  "auto" does the latter where few of them fire.
        outputs : int
            c; above 1 targets and predictions have c columns, and the width must be at least about 4 c.
        device : Device or str, optional
            Itself or its name.  Default: ``get_device("auto")``.
        activation : str or Activation
            One of :mod:`gpu_sublinear.model.activation`, or its name.

        Returns
        -------
        ShiftedReluNetwork
            The network, on ``device``.

        Raises
        ------
        OptionError
            If an argument is outside the range above.
        """
        width, features = whole_number(width, "width"), whole_number(features, "features")
        _check_shape(width, features)
        outputs = check_outputs(outputs, width)
        dtype, seed = dtype_name(dtype), whole_number(seed, "seed")
        if not 0 <= seed < 2**64:
            raise OptionError(f"seed must be an integer from 0 to 2^64 - 1; got {seed}")
        if sampling not in SAMPLINGS:
            raise OptionError(f"sampling must be one of {', '.join(SAMPLINGS)}; got {sampling!r}")
        if sampling == "virtual" and not paired:
            raise OptionError("virtual sampling needs paired initialisation, where neurons never drawn cancel")
        activation = activation_of(activation)
        if activation.slope:
            check_sampling_with_slope(sampling, activation)
            sampling = "explicit"
        device = get_device(device or "auto")
        rows, neurons = device.asarray(np.zeros((0, features)), dtype), device.xp.zeros(0, np.int64)
        b = resolve_shift(shift, width)
        sampling = sampling if paired else "explicit"
        check_combined(outputs, activation)
        return cls(rows, neurons, int(width), b, seed, paired, sampling, device, rows, outputs, activation)

    @classmethod
    def from_weights(
        cls,
        W: Any,
        *,
        shift: float,
        seed: int = 0,
        outputs: int = 1,
        device: Device | str | None = None,
        activation: str | Activation = SHIFTED_RELU,
    ) -> ShiftedReluNetwork:
        """Make a network of given first-layer weights, all of them held.

        Parameters
        ----------
        W : array
            (m, d) float32 or float64, m even.
        shift : float
            b >= 0.
        seed : int
            For the sketches.
        outputs : int
            c.
        device : Device or str, optional
            Itself or its name.  Default: ``get_device("auto")``.
        activation : str or Activation
            As for :meth:`initialize`.

        Returns
        -------
        ShiftedReluNetwork
            The network, on ``device``; W itself where it is one of its arrays already.
        """
        _check_shape(*W.shape)
        device = get_device(device or "auto")
        rows = device.asarray(W, str(W.dtype))
        neurons, b = device.xp.arange(len(rows), dtype=np.int64), resolve_shift(shift, len(rows))
        outputs, activation = check_outputs(outputs, len(rows)), activation_of(activation)
        check_combined(outputs, activation)
        return cls(rows, neurons, len(rows), b, seed, False, "explicit", device, rows[:0], outputs, activation)

    @property
    def features(self) -> int:
        """Number of features, d."""
        return int(self.rows.shape[1])

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``."""
        return str(self.rows.dtype)

    @property
    def scale(self) -> float:
        """The factor ``m^{-1/2}`` in front of the sum."""
        return 1.0 / math.sqrt(self.width)

    @property
    def signs(self) -> Array:
        """(u,) second layer of the neurons held, (u, c) for c > 1 outputs: trained, or :attr:`initial_signs`."""
        return self.initial_signs if self.second is None else self.second

    @property
    def initial_signs(self) -> Array:
        """(u,) second layer at the start: +1 for even numbers, -1 for odd ones, so that all m sum to zero.

        (u, c) for c > 1 outputs: :func:`gpu_sublinear.linear.outputs.sign_matrix`.
        """
        if self._signs is None or self._signs[0] is not self.neurons:
            single = self.outputs == 1
            signs = (1 - 2 * (self.neurons % 2)).astype(self.dtype) if single else sign_matrix(self, self.neurons)
            self._signs = self.neurons, signs
        return self._signs[1]

    @property
    def W(self) -> Array:
        """(m, d) the whole first layer, rebuilt: a copy, unless all rows are held.

        Raises
        ------
        OptionError
            If most neurons never existed (virtual sampling).
        """
        if self.sampling == "virtual":
            raise OptionError(
                f"this network of nominal width {self.width:,} has no full-size W: only the neurons that exist are "
                "stored; read network.rows"
            )
        return self.block(0, self.width)

    def block(self, first: int, stop: int) -> Array:
        """Return the weights of neurons ``first`` .. ``stop``, (stop - first, d): held, or drawn from the seed."""
        low, high = (int(place) for place in self.device.xp.searchsorted(self.neurons, self.span(first, stop)))
        if high - low == stop - first:
            return self.rows[low:high]
        W = self.device.normal_rows(self.seed, first, stop, self.features, self.dtype, self.paired)
        W[self.neurons[low:high] - first] = self.rows[low:high]
        return W

    def span(self, first: int, stop: int) -> Array:
        """Return (first, stop) as an array that can be searched for among ``neurons``."""
        return self.device.asarray(np.array([first, stop]), np.int64)

    def blocks(self) -> Iterator[tuple[int, Array]]:
        """Yield all neurons that exist, in blocks: the number of the first, and the weights (k, d)."""
        if self.sampling == "virtual":
            starts: Iterable[int] = range(0, len(self.rows), self.block_rows)
            yield from ((first, self.rows[first : first + self.block_rows]) for first in starts)
        else:
            for first in range(0, self.width, self.block_rows):
                yield first, self.block(first, min(first + self.block_rows, self.width))

    @property
    def block_rows(self) -> int:
        """Number of rows worked on at a time, even."""
        return max(2, BLOCK_BYTES // self.rows.itemsize // self.features // 2 * 2)

    def hold(self, neurons: Array, rows: Array) -> None:
        """Hold exactly these neurons (u,) int64 ascending, with these weights (u, d); a trained second layer stays."""
        before, second = self.neurons, self.second
        self.neurons, self.rows = neurons, rows
        if second is not None:
            self.second = self.initial_signs.copy()
            self.second[self.device.xp.searchsorted(neurons, before)] = second

    def hold_all(self) -> None:
        """Hold every row, as dense methods need it: m d numbers."""
        W = self.W
        self.hold(self.device.xp.arange(self.width, dtype=np.int64), W)

    def predict(self, X: Any) -> np.ndarray:
        """Return the output for new points, computed densely, in blocks that bound the memory.

        Neurons that are not held cancel in pairs if the network is paired; else they are drawn again.

        Parameters
        ----------
        X : array
            (n, d) rows of unit Euclidean norm, prepared like the training data.

        Returns
        -------
        ndarray
            (n,) float64 on the host; (n, c) for c > 1 outputs.

        Raises
        ------
        DataError
            If X is not a finite (n, d) array, or has rows of another norm: the shift belongs to unit rows.
        """
        X = self.device.asarray(unit_points(of_table(X), self.features), self.dtype)
        total = self.device.xp.zeros((len(X), *self.signs.shape[1:]))  # (n,) or (n, c) float64
        for W, signs in self.parts():
            for first in range(0, len(X), PREDICT_POINTS):
                points = slice(first, first + PREDICT_POINTS)
                total[points] += self.device.matmul(self.hidden(X[points], W), signs)
        return self.device.to_host(total * self.scale)

    def hidden(self, X: Array, W: Array) -> Array:
        """Return ``phi(<w_r, x_i>)`` (n, k) for weights W (k, d), without the constant that balanced signs cancel."""
        return self.activation.varying(self.device.matmul(X, W.T), self.shift)

    def parts(self) -> Iterator[tuple[Array, Array]]:
        """Yield weights (k, d) and signs (k,) or (k, c) of all neurons whose outputs do not cancel, in blocks."""
        if self.paired:
            source: Iterable[tuple[Array, Array]] = ((self.rows, self.signs),)
        else:
            source = ((W, self._signs_from(first, len(W))) for first, W in self.blocks())
        for W, signs in source:
            for first in range(0, len(W), PREDICT_NEURONS):
                yield W[first : first + PREDICT_NEURONS], signs[first : first + PREDICT_NEURONS]

    def _signs_from(self, first: int, count: int) -> Array:
        """Return the second layer of neurons ``first`` .. ``first + count`` of an explicit network."""
        if self.outputs == 1:
            signs = balanced_signs(count, self.dtype, self.device)
        else:
            signs = sign_matrix(self, self.device.xp.arange(first, first + count, dtype=np.int64))
        if self.second is not None:
            places = self.device.xp.searchsorted(self.neurons, self.span(first, first + count))
            low, high = (int(place) for place in places)
            signs[self.neurons[low:high] - first] = self.second[low:high]
        return signs


def check_combined(outputs: int, activation: Activation) -> None:
    """Refuse several outputs with an activation other than relu and max."""
    if outputs > 1 and not activation.plain:
        raise OptionError(
            f"outputs={outputs} is for the activations relu and max; got activation={activation.name!r}: use one of "
            "these, or a network for each output"
        )


def check_sampling_with_slope(sampling: str, activation: Activation) -> None:
    """Refuse virtual sampling where neurons that fire nowhere move as well."""
    if sampling == "virtual":
        raise OptionError(
            "virtual sampling needs neurons that stay where they are unless they fire; with the activation "
            f"{activation.name}, whose slope is {activation.slope:g} everywhere, all of them move: use "
            "sampling='explicit'"
        )


def balanced_signs(width: int, dtype: str, device: Device) -> Array:
    """Return +1, -1, +1, ... (m,): weights are exchangeable, so any balanced order is as random as another."""
    return device.asarray(np.where(np.arange(width) % 2 == 0, 1, -1), dtype)


def checked_points(X: Any, features: int) -> Any:
    """Return X if it is a finite (n, ``features``) array.

    Parameters
    ----------
    X : array
        Points of any device.
    features : int
        Columns it must have.

    Returns
    -------
    array
        X itself.

    Raises
    ------
    DataError
        Otherwise, naming what was found.
    """
    if getattr(X, "ndim", 0) != 2 or X.shape[1] != features:
        raise DataError(f"X must have shape (n, {features}); got {getattr(X, 'shape', type(X).__name__)}")
    if not all_finite(X):
        raise DataError("X holds NaN or infinite values; remove or impute these rows first")
    return X


def unit_points(X: Any, features: int) -> Any:
    """Return X if it is a finite (n, ``features``) array of unit rows.

    Parameters
    ----------
    X : array
        Points of any device.
    features : int
        Columns it must have.

    Returns
    -------
    array
        X itself.

    Raises
    ------
    DataError
        Otherwise, naming what was found: the row furthest from unit norm, beyond ``NORM_TOLERANCE``.
    """
    checked_points(X, features)
    if not len(X):
        return X
    norms = (X * X).sum(axis=1) ** 0.5
    worst = int(abs(norms - 1).argmax())
    if abs(float(norms[worst]) - 1) > NORM_TOLERANCE:
        raise DataError(
            f"rows of X must have unit Euclidean norm; row {worst} has {float(norms[worst]):.6g} "
            "(gpu_sublinear.data.preprocessing.Preprocessing does this)"
        )
    return X


def all_finite(array: Any) -> bool:
    """Tell whether a NumPy or CuPy array holds neither NaN nor infinities."""
    return bool((abs(array) < np.inf).all())


def _check_shape(width: int, features: int) -> None:
    if not 2 <= width <= 2**53:
        raise OptionError(f"width must be from 2 to 2^53; got {width}")
    if width % 2:
        raise OptionError(f"width must be even so that the signs balance; got {width}, use {width + 1}")
    if features < 1:
        raise OptionError(f"features must be at least 1; got {features}")
