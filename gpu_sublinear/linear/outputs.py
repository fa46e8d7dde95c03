r"""Several outputs: the signs of the second layer, J for all outputs at once, and the solve of the (n c, n c) system.

**Signs.**  Output l of a network with c outputs is ``f_l(x) = m^{-1/2} sum_r a_rl relu(<w_r, x> - b)`` with Walsh signs

    a_rl = (-1)^popcount(r & (2 l + 1)),      l = 0, ..., c - 1.

Bit 0 is in every mask, so neurons 2k and 2k + 1 have opposite signs in all outputs: a paired network begins at zero,
and pairs that were never drawn cancel (virtual width).  Column 0 is +1, -1, +1, ... of a network with one output.
Columns are balanced, and orthogonal over every 2 C neurons in a row, C = 2^ceil(log2 c); the width must be at least
2 C.  The sign vector of pair k is ``+-s_p`` with ``p = k mod C`` its *pattern* and ``s_pl = (-1)^popcount(p & l)``.

In a virtual network neurons are numbered as they are drawn, cap by cap, so a pattern taken from the number would be
balanced within every cap, which it is not in a network that was drawn at full width.  There the pattern of pair k is a
keyed random number, uniform on 0 .. C - 1 and independent of the weights.  This is exact: let the number of pairs *of
every pattern* be Poisson with mean ``m / (2 C)``; then the caps hold independent Poisson processes of pairs whose
patterns are independent and uniform (marking theorem; Kingman, *Poisson Processes*, section 5.2).

Only C sign vectors occur, so a network with c outputs is, after an orthogonal change of targets (n, c) -> (n, C), C
networks of one output and width m / C.  Hence the width that c outputs need grows with c: a point should fire some
tens of neurons *of every pattern*.

**Jacobian.**  Row (i, l), block r of J is ``m^{-1/2} a_rl M_ri x_i^T``.  Neurons of one pattern have one sign vector:

    J^T g:  row r is  +-m^{-1/2} sum_i M_ri (s_p . g_i) x_i,      G g = sum_p (G_p H_p) s_p^T,   H_p = g s_p,

g (n, c), ``G_p = (X X^T) o (M_p^T M_p) / m`` from the neurons of pattern p alone.  So the operations of one output
serve all: C calls on disjoint parts of the lists of fired pairs, each with its own vector ``H_p`` (n,).  A product
with G costs ``nnz d + n c C`` operations, where c separate outputs would cost ``c nnz d``.

**Solve.**  ``G = sum_p G_p (x) s_p s_p^T`` has diagonal blocks ``G_0 = (X X^T) o (M^T M) / m``, the same for all
outputs; off-diagonal blocks are sums with signs, noise of relative order ``(c / k)^{1/2}`` for k neurons fired on a
point.  So conjugate gradients preconditioned with ``G_0 (x) I``, one n x n factor, converge in a few steps.  ``gram``
takes the exact G_0, ``sketch-cg`` the sketch of it, ``cg`` none; all stop at the tolerance of
:class:`gpu_sublinear.linear.solvers.CGOptions`, because no solver is direct here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..devices import Array, Device, NeuronLists
from ..index.lists import reordered, slice_of
from ..index.protocol import FiredPairs
from ..model.network import ShiftedReluNetwork
from ..model.signs import pattern_count, pattern_signs, patterns_of
from .jacobian import ListedProducts


@dataclass(frozen=True)
class Group:
    """The fired neurons of one pattern.

    Attributes
    ----------
    pattern : int
        p.
    fired : NeuronLists
        Their lists.
    weights : Array
        (k,) float64, ``+-m^{-1/2}``: second layer in units of s_p.
    places : Array
        (k,) int64: positions among all fired neurons.
    """

    pattern: int
    fired: NeuronLists
    weights: Array
    places: Array


@dataclass(frozen=True)
class OutputsJacobian(ListedProducts):
    """J of several outputs, factored: see the module docstring.

    Attributes
    ----------
    device : Device
        Owner of the arrays.
    X : Array
        (n, d) points.
    groups : list of Group
        Fired neurons by pattern, those that occur.
    vectors : Array
        (C, c) float64, the sign vectors s_p.
    width : int
        m, nominal.
    """

    gram_is_whole = False

    device: Device
    X: Array
    groups: list[Group]
    vectors: Array
    width: int

    @classmethod
    def build(cls, network: ShiftedReluNetwork, active: FiredPairs, X: Array) -> OutputsJacobian:
        """Sort the lists of fired pairs by pattern: one pass over them."""
        device, xp, fired = network.device, network.device.xp, active.fired
        numbers = network.neurons[fired.neurons]  # (u,) int64: `fired` has places among the rows held
        patterns = patterns_of(network, numbers)
        order = xp.argsort(patterns, kind="stable")  # (u,)
        lists = reordered(device, fired, order)
        weights = (1 - 2 * (numbers[order] % 2)).astype(np.float64) * network.width**-0.5
        count = pattern_count(network.outputs)
        edges = device.to_host(xp.searchsorted(patterns[order], xp.arange(count + 1, dtype=np.int64)))
        groups = []
        for p in range(count):
            first, last = int(edges[p]), int(edges[p + 1])
            if last > first:
                part = slice_of(lists, first, last)
                groups.append(Group(p, part, weights[first:last], order[first:last]))
        return cls(device, X, groups, device.asarray(pattern_signs(network.outputs)), network.width)

    @property
    def points(self) -> int:
        """Number of points, n."""
        return int(self.X.shape[0])

    @cached_property
    def neurons(self) -> Array:
        """(u,) int32, ascending: the fired neurons of all patterns."""
        neurons = self.device.xp.empty(sum(len(k.places) for k in self.groups), np.int32)
        for k in self.groups:
            neurons[k.places] = k.fired.neurons
        return neurons

    def matvec(self, v: Array) -> Array:
        """Return ``J v``, (n, c) float64, for v (u d,)."""
        V = v.reshape(-1, self.X.shape[1])
        return self._spread(lambda k: self.device.factored_product(self.X, k.fired, k.weights, V[k.places]))

    def rmatvec(self, g: Array) -> Array:
        """Return ``J^T g``, (u d,) float64, for g (n, c)."""
        H, d = self._gathered(g), self.X.shape[1]
        out = self.device.xp.empty((sum(len(k.places) for k in self.groups), d))  # (u, d)
        for k in self.groups:
            out[k.places] = self.device.factored_transposed(self.X, k.fired, k.weights, H[k.pattern])
        return out.ravel()

    def gram(self, g: Array) -> Array:
        """Return ``G g = J (J^T g)``, (n, c), in one pass over the lists."""
        H = self._gathered(g)
        return self._spread(lambda k: self.device.factored_gram(self.X, k.fired, H[k.pattern])) / self.width

    def step(self, W: Array, g: Array) -> tuple[Array, Array]:
        """Apply ``W <- W - J^T g`` in place; return the fired rows (u,) and how far each moved, (u,) float64."""
        H = self._gathered(g)
        moved = self.device.xp.empty(sum(len(k.places) for k in self.groups))
        for k in self.groups:
            moved[k.places] = self.device.move_rows(W, self.X, k.fired, k.weights, H[k.pattern])
        return self.neurons, moved

    def along(self, W: Array, initial: Array) -> Array:
        """Return ``J D``, (n, c) float64, for the movement D of the rows from ``initial`` (u, d) to W."""
        return self.matvec(self.device.movement(W, initial, self.neurons).ravel())

    def pull(self, W: Array, initial: Array, g: Array, theta: float) -> tuple[Array, Array]:
        """Return ``W - theta (W - W_0) - J^T g`` with distances, see :meth:`Device.pull_rows`."""
        return self.device.pull_rows(W, initial, self.neurons, self.rmatvec(g).reshape(-1, self.X.shape[1]), theta)

    def _gathered(self, g: Array) -> Array:
        """Return ``H_p = g s_p`` as rows, (C, n)."""
        return self.device.matmul(self.vectors, self.device.asarray(g.T))

    def _spread(self, product: Callable[[Group], Array]) -> Array:
        """Return the sum over patterns of a product (n,) times s_p, (n, c)."""
        products = self.device.xp.zeros((self.points, len(self.vectors)))  # (n, C)
        for k in self.groups:
            products[:, k.pattern] = product(k)
        return self.device.matmul(products, self.vectors)
