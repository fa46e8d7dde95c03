r"""Training both layers: a Jacobian that is a sum of one block for each layer, ``G = sum_l G_l``.

With ``phi_ri = phi(<w_r, x_i>)``, derivative ``h_ri``, and the second layer a_rl free as well, output l has

    d f_il / d w_r = m^{-1/2} a_rl h_ri x_i,        d f_il / d a_rl = m^{-1/2} phi_ri,
    G = J J^T = G_1 + G_2,                          G_1 = (X X^T) o (H^T D H) / m,   G_2 = Phi^T Phi / m  (one output).

Both blocks have the sparsity of the mask, and a neuron that fires nowhere keeps its row *and* its a_r: first look,
virtual width and the certified index are what they are when the second layer is fixed.

**One map for all layers.**  On the points ``x' = (x, 1)`` and weights ``w' = (w, -b)`` of one more coordinate a fired
pair has ``phi_ri = <w'_r, x'_i>``.  So with the map L of the mask and its transpose
(:class:`gpu_sublinear.index.protocol.MaskedPoints`),

    T_r = sum_i h_ri g_i x'_i      (u, d + 1),      L^T V = sum_r h_ri <V_r, x'_i>      (n,),

a layer is a pair of maps that each neuron does by itself: from T_r to the part of J^T g that is its own, and from a
movement v_r of its numbers to V_r, whose sum is J v:

    first layer     T -> a_r T without its last entry,       v -> (a_r v, 0),
    second layer    T -> <w'_r, T_r>,                         v -> v w'_r.

Lists, packed bits and the points that the hinges of an activation look at bring their own L; several outputs are one T
each.  A layer that is added states its two maps and is one more entry of the sum.  Inner products are taken in float64
here; which pairs fire is decided by the computed numbers, as everywhere.

**Solve.**  At the start ``a_r^2 = 1``; an a_r that moves far costs iterations, not correctness, because the residual of
the true system is checked.  The Gram matrix ``(X X^T) o (M^T M) / m`` of the first layer alone is at hand, exact or
sketched, with its factor; ``Phi^T Phi`` is a smoother kernel, so it adds little where that is small and some large
eigenvalues where conjugate gradients need a few steps each.  So every solver is CG with G: ``gram`` preconditions with
the exact matrix of the first layer, ``sketch-cg`` with a sketch of it, ``cg`` not at all; all stop at the tolerance of
:class:`gpu_sublinear.options.CGOptions`.

**A ridge penalty** is on both layers, ``lambda/2 (||W - W_0||^2 + ||a - a_0||^2)``, W_0 and a_0 being those at the
start of the training: the step of :mod:`gpu_sublinear.step.run` with more numbers for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from ..devices import Array, Device
from ..index.protocol import Mask, MaskedPoints
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork


class Layer(Protocol):
    """The block of one layer: what each neuron does between its numbers and the map of the mask."""

    def pulled(self, T: Sequence[Array]) -> Array:
        """Return its part of J^T g, (u, k), without ``m^{-1/2}``, from T (u, d + 1) of each output; T may change."""

    def push(self, v: Array, V: list[Array]) -> None:
        """Add to V (u, d + 1) of each output what the movement v (u, k) of its numbers does."""

    def square(self, T: Sequence[Array], V: list[Array]) -> None:
        """Add to V what the movement that T asks of it does: its part of G."""


@dataclass(frozen=True)
class FirstLayer:
    """Rows w_r.

    Attributes
    ----------
    second : Array
        (u, c) float64, a_rl.
    """

    second: Array

    def pulled(self, T: Sequence[Array]) -> Array:
        """Return ``sum_l a_rl T_rl`` without the last entry, (u, d)."""
        total = T[0][:, :-1] * self.second[:, :1]
        for k in range(1, len(T)):
            total += T[k][:, :-1] * self.second[:, k : k + 1]
        return total

    def push(self, v: Array, V: list[Array]) -> None:
        """Add ``(a_rl v_r, 0)``."""
        for k in range(len(V)):
            V[k][:, :-1] += self.second[:, k : k + 1] * v

    def square(self, T: Sequence[Array], V: list[Array]) -> None:
        """Add ``(a_rl sum_k a_rk T_rk, 0)``."""
        if len(T) == 1:
            V[0][:, :-1] += self.second**2 * T[0][:, :-1]
        else:
            self.push(self.pulled(T), V)


@dataclass(frozen=True)
class SecondLayer:
    """Numbers a_rl, one for each output.

    Attributes
    ----------
    device : Device
        Owner of the rows.
    rows : Array
        (u, d + 1) float64, w'.
    """

    device: Device
    rows: Array

    def pulled(self, T: Sequence[Array]) -> Array:
        """Return ``<w'_r, T_rl>``, (u, c)."""
        return self.device.xp.stack([(part * self.rows).sum(axis=1) for part in T], axis=1)

    def push(self, v: Array, V: list[Array]) -> None:
        """Add ``v_rl w'_r``."""
        for k in range(len(V)):
            V[k] += v[:, k : k + 1] * self.rows

    def square(self, T: Sequence[Array], V: list[Array]) -> None:
        """Add ``<w'_r, T_rl> w'_r``."""
        self.push(self.pulled(T), V)


@dataclass(frozen=True)
class LayersJacobian:
    """J of both layers: see the module docstring.

    Attributes
    ----------
    network : ShiftedReluNetwork
        Whose second layer a step moves.
    points : MaskedPoints
        L of the points with one more coordinate, weighted.
    plain : MaskedPoints
        L of the points as they are, weighted: it moves the rows of one output.
    layers : tuple of Layer
        The blocks, first layer first.
    home : Array
        (u,) or (u, c) a_0 of all rows held, for steps with a penalty.
    """

    gram_is_whole = False
    entries = None

    network: ShiftedReluNetwork
    points: MaskedPoints
    plain: MaskedPoints
    layers: tuple[FirstLayer, SecondLayer]
    home: Array

    @classmethod
    def build(cls, system: Any, active: Mask) -> LayersJacobian:
        """Gather both layers of the neurons that have a derivative; of a linear system and who fires in it."""
        network = system.network
        points = active.masked(network.device, lifted(network, system.problem.weights, system.gram.X))
        rows = network.device.xp.full((len(points.neurons), network.features + 1), -network.shift)  # (u, d + 1)
        rows[:, :-1] = network.rows[points.neurons]
        second = columns_of(network.signs[points.neurons].astype(np.float64))
        layers = FirstLayer(second), SecondLayer(network.device, rows)
        return cls(network, points, active.masked(network.device, system.gram.X), layers, system.home)

    @property
    def products(self) -> Self:
        """Itself."""
        return self

    @property
    def device(self) -> Device:
        """Owner of the arrays."""
        return self.network.device

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n,) or (n, c) float64, for v (u (d + c),): of each neuron, its row and then its a_r."""
        parts, V = v.reshape(len(self.points.neurons), -1), self._nothing()
        d = self.network.features
        self.layers[1].push(parts[:, d:], V)
        self.layers[0].push(parts[:, :d], V)
        return self._summed(V) * self.network.scale

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, (u (d + c),) float64, for g (n,) or (n, c)."""
        T = self._gathered(g)
        return (
            self.device.xp.concatenate([layer.pulled(T) for layer in self.layers], axis=1).ravel() * self.network.scale
        )

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, of the shape of g, in one pass each way for all layers."""
        T, V = self._gathered(g), self._nothing()
        for layer in reversed(self.layers):
            layer.square(T, V)
        return self._summed(V) / self.network.width

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g``, and to the second layer likewise; return the rows and how far each moved."""
        network, neurons, T = self.network, self.points.neurons, self._gathered(g)
        along = self.layers[1].pulled(T)  # (u, c): of the rows before they move
        moved = self._move_rows(W, g, T)
        second = columns_of(network.signs.astype(np.float64))  # a copy: states of the run keep the old one
        second[neurons] = self.layers[0].second - network.scale * along
        self._keep(second)
        return neurons, moved

    def _move_rows(self, W: Array, g: Array, T: Sequence[Array]) -> Array:
        """Apply the step of the first layer in place; return how far each of the neurons moved, (u,)."""
        first, network = self.layers[0], self.network
        if g.ndim == 1 and not network.activation.slope:
            return self.plain.move(W, first.second[:, 0] * network.scale, g)
        rows, moved = self.device.pull_rows(W, W, self.points.neurons, first.pulled(T) * network.scale, 0.0)
        W[...] = rows
        return moved[self.points.neurons]

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n,) or (n, c) float64, for the movement D of both layers from ``initial`` (u, d) and a_0."""
        neurons = self.points.neurons
        moved = self.device.movement(W, initial, neurons)  # (u, d)
        moved_second = self.layers[0].second - columns_of(self.home[neurons])
        return self.matvec(self.device.xp.concatenate([moved, moved_second], axis=1).ravel())

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances; see :meth:`Device.pull_rows`; so the second layer."""
        neurons, d = self.points.neurons, self.network.features
        change = self.rmatvec(g).reshape(len(neurons), -1)  # (u, d + c)
        home = columns_of(self.home.astype(np.float64))
        second = home + (1 - theta) * (columns_of(self.network.signs) - home)  # (u, c)
        second[neurons] -= change[:, d:]
        self._keep(second)
        return self.device.pull_rows(W, initial, neurons, self.device.xp.ascontiguousarray(change[:, :d]), theta)

    def _keep(self, second: Array) -> None:
        """Give the network its second layer (u, c); columns contiguous, as kernels read them."""
        network, xp = self.network, self.device.xp
        rows = xp.ascontiguousarray(second.T).astype(network.dtype)  # (c, u)
        network.second = rows[0] if network.outputs == 1 else rows.T

    def _nothing(self) -> list[Array]:
        shape = len(self.points.neurons), self.network.features + 1
        return [self.device.xp.zeros(shape) for _ in range(self.network.outputs)]

    def _gathered(self, g: Array) -> list[Array]:
        """Return T (u, d + 1) of each output."""
        return [self.points.gathered(column) for column in columns(self.device, g)]

    def _summed(self, V: list[Array]) -> Array:
        """Return ``L^T V``, (n,) or (n, c)."""
        sums = [self.points.summed(part) for part in V]
        return sums[0] if self.network.outputs == 1 else self.device.xp.stack(sums, axis=1)


def columns_of(second: Array) -> Array:
    """Return a second layer (u,) or (u, c) as (u, c)."""
    return second[:, None] if second.ndim == 1 else second


def columns(device: Device, g: Array) -> list[Array]:
    """Return the columns of g (n,) or (n, c), each contiguous."""
    return [g] if g.ndim == 1 else [device.xp.ascontiguousarray(g[:, k]) for k in range(g.shape[1])]


def lifted(network: ShiftedReluNetwork, weights: SampleWeights, X: Array) -> Array:
    """Return the points that the hinges look at with one more coordinate, (k n, d + 1).

    It is what a hinge subtracts, in units of the shift, times the root of the point's weight: ``(1 - jump) sqrt(w_i)``.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Its activation.
    weights : SampleWeights
        Of the n points of the data.
    X : Array
        (k n, d) weighted points.

    Returns
    -------
    Array
        Of the type of X.
    """
    xp, hinges = network.device.xp, network.activation.hinges
    ones = weights.scaled(xp.ones((len(X) // len(hinges), 1), X.dtype))  # (n, 1)
    last = xp.concatenate([ones * X.dtype.type(1 - hinge.jump) for hinge in hinges])
    return xp.concatenate([X, last], axis=1)
