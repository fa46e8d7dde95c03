r"""Training the second layer together with the first.

With ``phi_ri = relu(<w_r, x_i> - b)`` and the second layer a_r free, J has n rows and m (d + 1) columns,

    d f_i / d w_r = m^{-1/2} a_r M_ri x_i,        d f_i / d a_r = m^{-1/2} phi_ri,
    G = J J^T = ((X X^T) o (M^T D M) + Phi^T Phi) / m,          D = diag(a_r^2),

so both parts have the sparsity of the mask, and a neuron that fires nowhere keeps its row *and* its a_r: survey,
virtual width and the certified index are what they are when the second layer is fixed.

**Products without a kernel of their own.**  On a fired pair ``phi_ri = <w'_r, x'_i>`` with ``x' = (x, 1)`` and
``w' = (w, -b)``.  So with ``T_r = sum_i M_ri g_i x'_i`` (d + 1 numbers for each fired neuron),

    (J^T g)_r = m^{-1/2} (a_r T_r without its last entry, <w'_r, T_r>),
    G g = 1/m sum_r M_ri <V_r, x'_i>,      V_r = a_r^2 (T_r without its last entry, 0) + <w'_r, T_r> w'_r,

and both sums are operations that every device has (``factored_transposed``, ``factored_product``) at d + 1 features.
Inner products are taken in float64 here; which pairs fire is decided by the computed numbers, as everywhere.

**Solve.**  At the start ``D = I``; an a_r that moves far costs iterations, not correctness, because the residual of
the true system is checked.  The Gram matrix of the first layer alone, ``G_1 = (X X^T) o (M^T M) / m``, is at hand,
exact or sketched, with its factor; ``Phi^T Phi`` is a smoother kernel, so it adds little where G_1 is small and some
large eigenvalues where conjugate gradients need a few steps each.
So every solver is CG with G: ``gram`` preconditions with the exact G_1, ``sketch-cg`` with a sketch of it, ``cg`` not
at all; all stop at the tolerance of :class:`gpu_sublinear.linear.solvers.CGOptions`.

**A ridge penalty** is on both layers, ``lambda/2 (||W - W_0||^2 + ||a - a_0||^2)``, W_0 and a_0 being those at the
start of the training: the step of :mod:`gpu_sublinear.step.run` with one more number for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..devices import Array, Device
from ..errors import OptionError
from ..index.active_set import ActiveSet
from ..model.activation import SHIFTED_RELU
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..options import Options
from .jacobian import Products


def check_network(trainer: Options, network: ShiftedReluNetwork) -> None:
    """Refuse a network that the trainer cannot train.

    Parameters
    ----------
    trainer : Options
        The options.
    network : ShiftedReluNetwork
        What is to be trained.

    Raises
    ------
    OptionError
        Naming both options.
    """
    if not trainer.both_layers:
        if network.second is not None:
            raise OptionError(
                "the second layer of this network was trained, and both_layers=False holds it at +1 and -1; use "
                "both_layers=True"
            )
        return
    if network.outputs > 1:
        raise OptionError(f"both_layers=True trains one output; got a network with outputs={network.outputs}")
    if network.activation != SHIFTED_RELU:
        raise OptionError(
            f"both_layers=True is for the shifted ReLU; got a network with activation={network.activation.name!r}"
        )


@dataclass(frozen=True)
class BothLayersJacobian(Products):
    """J of both layers, factored: see the module docstring.

    Attributes
    ----------
    network : ShiftedReluNetwork
        Whose second layer a step moves.
    X : Array
        (n, d) points, weighted.
    lifted : Array
        (n, d + 1) the points x', weighted.
    active : ActiveSet
        The fired pairs.
    rows : Array
        (u, d + 1) float64, the weights w' of the fired neurons.
    second : Array
        (u,) float64, a_r of the fired neurons.
    home : Array
        (u,) a_0 of all rows held, for steps with a penalty.
    """

    gram_is_whole = False

    network: ShiftedReluNetwork
    X: Array
    lifted: Array
    active: ActiveSet
    rows: Array
    second: Array
    home: Array

    @classmethod
    def build(
        cls, network: ShiftedReluNetwork, active: ActiveSet, X: Array, weights: SampleWeights, home: Array = None
    ) -> BothLayersJacobian:
        """Gather both layers of the fired neurons; X (n, d) are the points times the roots of their weights."""
        xp, neurons = network.device.xp, active.neurons
        ones = weights.scaled(xp.ones((len(X), 1), X.dtype))  # (n, 1)
        rows = xp.full((len(neurons), X.shape[1] + 1), -network.shift)  # (u, d + 1)
        rows[:, :-1] = network.rows[neurons]
        lifted = xp.concatenate([X, ones], axis=1)  # (n, d + 1)
        return cls(network, X, lifted, active, rows, network.signs[neurons].astype(np.float64), home)

    @property
    def device(self) -> Device:
        """Owner of the arrays."""
        return self.network.device

    @property
    def points(self) -> int:
        """Number of rows, n."""
        return int(self.X.shape[0])

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n,) float64, for v (u (d + 1),): of each fired neuron, its row and then its a_r."""
        parts = v.reshape(self.rows.shape)
        V = parts[:, -1:] * self.rows  # (u, d + 1)
        V[:, :-1] += self.second[:, None] * parts[:, :-1]
        return self._product(V) * self.network.scale

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, (u (d + 1),) float64, for g (n,)."""
        T, along = self._transposed(g)
        T[:, :-1] *= self.second[:, None]
        T[:, -1] = along
        return T.ravel() * self.network.scale

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, (n,)."""
        T, along = self._transposed(g)
        V = along[:, None] * self.rows  # (u, d + 1)
        V[:, :-1] += (self.second**2)[:, None] * T[:, :-1]
        return self._product(V) / self.network.width

    def step(self, W: Array, g: Array) -> Array:
        """Apply ``W <- W - J^T g``, and to the second layer likewise; return how far each fired row moved, (u,)."""
        network, fired = self.network, self.active.fired
        _, along = self._transposed(g)  # (u,): of the rows before they move
        second = network.signs.astype(np.float64)  # a copy: states of the run keep the old one
        second[fired.neurons] = self.second - network.scale * along
        network.second = second.astype(network.dtype)
        return self.device.move_rows(W, self.X, fired, self.second * network.scale, g)

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) float64, for the movement D of both layers from ``initial`` (u, d) and a_0."""
        neurons = self.active.neurons
        D = self.rows.copy()  # (u, d + 1)
        D[:, :-1] = self.device.movement(W, initial, neurons)
        D[:, -1] = self.second - self.home[neurons]
        return self.matvec(D.ravel())

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances; see :meth:`Device.pull_rows`; so the second layer."""
        network, neurons = self.network, self.active.neurons
        change = self.rmatvec(g).reshape(self.rows.shape)  # (u, d + 1)
        home = self.home.astype(np.float64)
        second = home + (1 - theta) * (network.signs - home)  # (u,)
        second[neurons] -= change[:, -1]
        network.second = second.astype(network.dtype)
        rows = self.device.xp.ascontiguousarray(change[:, :-1])
        return self.device.pull_rows(W, initial, neurons, rows, theta)

    def _transposed(self, g: Array) -> tuple[Array, Array]:
        """Return ``T_r`` (u, d + 1) and ``<w'_r, T_r> = sum_i phi_ri g_i`` (u,)."""
        ones = self.device.xp.ones(len(self.rows))
        T = self.device.factored_transposed(self.lifted, self.active.fired, ones, g)
        return T, (T * self.rows).sum(axis=1)

    def _product(self, V: Array) -> Array:
        """Return ``sum_r M_ri <V_r, x'_i>``, (n,)."""
        ones = self.device.xp.ones(len(self.rows))
        return self.device.factored_product(self.lifted, self.active.fired, ones, V)


def trace(network: ShiftedReluNetwork, active: ActiveSet, X: Array, weights: SampleWeights) -> float:
    """Return ``tr(G) = (1/m) sum_i w_i sum_r M_ri (a_r^2 ||x_i||^2 + phi_ri^2)``.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Both layers.
    active : ActiveSet
        The fired pairs.
    X : Array
        (n, d) points times the roots of their weights w_i.
    weights : SampleWeights
        Of the points.

    Returns
    -------
    float
        The trace.
    """
    device, xp = network.device, network.device.xp
    a = network.signs[active.neurons]  # (u,)
    heights = active.values - active.values.dtype.type(network.shift)  # (nnz,), phi of the fired pairs
    pairs = active.indptr, active.compact
    squares = device.forward(*pairs, xp.ones_like(active.values), a * a, 0.0)  # (n,), sum_r M_ri a_r^2
    values = device.forward(*pairs, heights * heights, xp.ones_like(a), 0.0)  # (n,), sum_r phi_ri^2
    w = 1.0 if weights.roots is None else weights.roots**2
    return float(((X.astype(np.float64) ** 2).sum(axis=1) * squares + w * values).sum()) / network.width
