"""The linear system of a step, ``(G + kappa I) g = r``: which Jacobian, which solver, which preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..devices import Array
from ..devices.clock import PhaseClock
from ..devices.sums import rows_of
from ..index.protocol import FiredPairs, Jacobian, Mask, Products
from ..model.network import ShiftedReluNetwork
from ..model.problem import Problem
from ..options import Options
from .gram import GramMatrix
from .jacobian import FactoredJacobian, SparseJacobian
from .layers import LayersJacobian
from .outputs import OutputsJacobian
from .sketch import Preconditioner, factor, preconditioner_of_neurons, preconditioner_of_rows
from .solver_costs import cheapest_solver
from .solvers import Solution, conjugate_gradient, gram_cholesky, sketched_cg


@dataclass
class Place:
    """The network linearised at one place, and what was computed of it: a rejected step uses it again.

    Attributes
    ----------
    active : Mask
        Who fires.
    jacobian : Jacobian or None
        J, once it was made.
    G : Array or None
        (n, n) float64, the Gram matrix of the mask, once it was counted.
    pulled : Array or None
        (n,) or (n, c) ``J (W - W_0)``, once it was computed.
    """

    active: Mask
    jacobian: Jacobian | None = None
    G: Array = None
    pulled: Array = None


@dataclass
class LinearSystem:
    """The network on its points, as one step sees it.

    Attributes
    ----------
    options : Options
        What the user chose.
    network : ShiftedReluNetwork
        What is trained.
    problem : Problem
        Points, targets, weights.
    gram : GramMatrix
        Exact Gram matrix of the mask, kept through flips.
    home : Array or None
        (u,) or (u, c) a_0, the second layer at the start, where it is trained with a ridge penalty.
    """

    options: Options
    network: ShiftedReluNetwork
    problem: Problem
    gram: GramMatrix
    home: Array = None

    @property
    def signs(self) -> Array:
        """(u,) or (u, c) second layer of the rows that the network holds, as it was initialised."""
        return self.network.initial_signs

    def linearised(self, place: Place) -> Jacobian:
        """Return the Jacobian of a place, a sum over the layers that are trained; made once."""
        if place.jacobian is None:
            both = self.options.both_layers
            place.jacobian = LayersJacobian.build(self, place.active) if both else place.active.jacobian(self)
        return place.jacobian

    def of_lists(self, active: FiredPairs) -> Jacobian:
        """Return the Jacobian of the first layer from listed pairs, in the form that options and network ask for."""
        network = self.network
        if network.outputs > 1:
            return OutputsJacobian.build(network, active, self.gram.X)
        kind = FactoredJacobian if self.options.jacobian == "factored" else SparseJacobian
        return kind.build(network.device, active, self.gram.X, self.signs, network.width)

    # ---- the solve --------------------------------------------------------------------------------------

    def solve(self, place: Place, residual: Array, step: int, clock: PhaseClock, kappa: float = 0.0) -> Solution:
        """Solve ``(G + kappa I) g = residual`` on the points that some neuron sees.

        Parameters
        ----------
        place : Place
            Who fires, and J; keeps G for the case that the step is rejected.
        residual : Array
            (n,) or (n, c) float64, f - y.
        step : int
            Number of the step, for the draw of the sketch.
        clock : PhaseClock
            Gets the seconds of the phases ``jacobian``, ``sketch`` and ``solve``.
        kappa : float
            Damping and ridge, in absolute units.

        Returns
        -------
        Solution
            g, with g_i = 0 at points on which no neuron fires.
        """
        jacobian, solver = self.linearised(place), self.solver(place.active)
        seen = residual * rows_of(
            place.active.counts > 0, residual
        )  # a silent point's row of G is zero: least norm is 0
        products = jacobian.products
        if not jacobian.gram_is_whole:
            assert products is not None  # a block of G preconditions products with all of it
            return self._by_blocks(place, products, solver, seen, step, clock, kappa)
        if products is None or solver == "gram":
            G = self.gram_at(place, clock)
            with clock("solve"):
                return gram_cholesky(self.network.device, shifted(G, kappa), seen)
        product = with_damping(products.gram, kappa)
        if solver == "cg":
            with clock("solve"):
                return conjugate_gradient(self.network.device, product, seen, self.options.cg)
        with clock("sketch"):
            precondition = self.precondition(place.active, products, step, kappa)
        with clock("solve"):
            return sketched_cg(self.network.device, product, seen, self.options.cg, precondition)

    def gram_at(self, place: Place, clock: PhaseClock) -> Array:
        """Return the Gram matrix of the mask of a place, (n, n); counted once."""
        with clock("jacobian"):
            place.G = self.gram(place.active) if place.G is None else place.G
        return place.G

    def _by_blocks(
        self, place: Place, products: Products, solver: str, residual: Array, step: int, clock: PhaseClock, kappa: float
    ) -> Solution:
        """Solve for g of the shape of the residual by conjugate gradients; one n x n block of G preconditions them."""
        device, options, shape = self.network.device, self.options.cg, residual.shape

        def product(v: Array) -> Array:
            return products.gram(v.reshape(shape)).ravel() + kappa * v

        if solver == "cg":
            with clock("solve"):
                found = conjugate_gradient(device, product, residual.ravel(), options)
            return replace(found, value=found.value.reshape(shape))
        if solver == "gram":
            G = self.gram_at(place, clock)
            with clock("sketch"):
                block = factor(device, _plus(G.copy(), kappa))
        else:
            with clock("sketch"):
                block = self.precondition(place.active, products, step, kappa)

        def precondition(v: Array) -> Array:
            assert block is not None
            return device.xp.ascontiguousarray(block(v.reshape(shape))).ravel()

        with clock("solve"):
            found = sketched_cg(device, product, residual.ravel(), options, precondition if block else None)
        return replace(found, value=found.value.reshape(shape))

    def solver(self, active: Mask) -> str:
        """Return the name of the solver of a step."""
        options, network, lists = self.options, self.network, active.lists
        if options.solver != "auto" or network.activation.slope or lists is None:
            return "gram" if options.solver == "auto" else options.solver
        systems = network.outputs * (2 if options.both_layers else 1)  # both layers cost what two outputs do
        return cheapest_solver(lists, self.problem.X, options.sketch, systems)

    def precondition(self, active: Mask, products: Products, step: int, kappa: float) -> Preconditioner | None:
        """Return the sketched preconditioner of a step; of the shared block for several outputs."""
        network, options, lists = self.network, self.options.sketch, active.lists
        fold = active.folding
        if options.kind == "rows" and products.entries is not None:
            return preconditioner_of_rows(network.device, products.entries, options, network.seed, step, kappa, fold)
        assert lists is not None  # sketches hash listed neurons
        signs = self.signs if network.outputs == 1 else self.signs[:, 0].copy()
        arguments = (network.device, lists, signs, network.width, self.gram.K, options, network.seed, step, kappa)
        return preconditioner_of_neurons(*arguments, fold)


def shifted(G: Array, kappa: float) -> Array:
    """Return ``G + kappa I``; G itself for 0."""
    return _plus(G.copy(), kappa) if kappa else G


def _plus(G: Array, kappa: float) -> Array:
    """Add ``kappa I`` in place; return G."""
    G.ravel()[:: len(G) + 1] += kappa
    return G


def with_damping(product: Callable[[Array], Array], kappa: float) -> Callable[[Array], Array]:
    """Return ``v -> G v + kappa v``; the product itself for 0."""
    return (lambda v: product(v) + kappa * v) if kappa else product
