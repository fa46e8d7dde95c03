"""The linear system of a step, ``(G + kappa I) g = r``: which Jacobian, which solver, which preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .active_set import ActiveSet
from .bits import BitJacobian, BitMask
from .both_layers import BothLayersJacobian
from .costs import cheapest_solver
from .devices import Array
from .flip_mask import FlipJacobian, FlipMask
from .gram import GramMatrix
from .hinges import HingedGram, HingedJacobian, HingedSet
from .history import PhaseClock
from .jacobian import FactoredJacobian, SparseJacobian
from .network import ShiftedReluNetwork
from .outputs import OutputsJacobian, solve_outputs
from .sketch import Preconditioner, preconditioner_of_neurons, preconditioner_of_rows
from .solvers import Solution, conjugate_gradient, gram_cholesky, sketched_cg
from .state import Index, Jacobian, Mask, State
from .sums import rows_of
from .weights import SampleWeights

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton


@dataclass
class LinearSystem:
    """The network on its points, as one step sees it.

    Attributes
    ----------
    trainer : GaussNewton
        The options.
    network : ShiftedReluNetwork
        What is trained.
    X, y : Array
        (n, d), and (n,) or (n, c) float64 on the device.
    signs : Array
        (u,) or (u, c) second layer of the rows that the network holds, as it was initialised.
    index : ThresholdTree, LazyIndex, BitIndex, FlipIndex or HingedIndex
        Finds the fired pairs.
    gram : GramMatrix or HingedGram
        Exact Gram matrix, kept through flips.
    weights : SampleWeights
        Of the points.
    home : Array or None
        (u,) a_0, the second layer at the start, where it is trained with a ridge penalty.
    """

    trainer: GaussNewton
    network: ShiftedReluNetwork
    X: Array
    y: Array
    signs: Array
    index: Index
    gram: GramMatrix | HingedGram
    weights: SampleWeights = field(default_factory=SampleWeights)
    home: Array = None

    def jacobian(self, active: Mask) -> Jacobian:
        """Return the Jacobian of the step in the form that the trainer asks for."""
        if isinstance(active, FlipMask):
            return FlipJacobian(active.index, self.weights)
        if isinstance(active, BitMask):
            return BitJacobian.build(active, self.gram.X, self.signs, self.network.width)
        if self.network.outputs > 1:
            return OutputsJacobian.build(self.network, active, self.gram.X)
        if self.trainer.both_layers:
            return BothLayersJacobian.build(self.network, active, self.gram.X, self.weights, self.home)
        kind = FactoredJacobian if self.trainer.jacobian == "factored" else SparseJacobian
        found = kind.build(self.network.device, active, self.gram.X, self.signs, self.network.width)
        if not isinstance(active, HingedSet):
            return found
        return HingedJacobian(found, active.fold, active, self.network, self.weights.scaled(self.X))

    def solve(
        self,
        active: Mask,
        jacobian: Jacobian,
        residual: Array,
        step: int,
        clock: PhaseClock,
        kappa: float = 0.0,
        state: State | None = None,
    ) -> Solution:
        """Solve ``(G + kappa I) g = residual`` on the points that some neuron sees.

        Parameters
        ----------
        active : ActiveSet, BitMask or FlipMask
            The fired pairs.
        jacobian : Jacobian
            J.
        residual : Array
            (n,) or (n, c) float64, f - y.
        step : int
            Number of the step, for the draw of the sketch.
        clock : PhaseClock
            Gets the seconds of the phases ``sketch`` and ``solve``.
        kappa : float
            Damping and ridge, in absolute units.
        state : State, optional
            Keeps G for the case that the step is rejected.

        Returns
        -------
        Solution
            g, with g_i = 0 at points on which no neuron fires.
        """
        device, trainer = self.network.device, self.trainer
        residual = residual * rows_of(active.counts > 0, residual)  # a silent point's row of G is zero: least norm is 0
        if isinstance(jacobian, OutputsJacobian | BothLayersJacobian):
            assert isinstance(active, ActiveSet)
            return solve_outputs(self, active, jacobian, residual, step, clock, kappa, state)
        if (
            isinstance(active, BitMask | FlipMask)
            or isinstance(jacobian, BitJacobian | FlipJacobian)
            or self.solver(active) == "gram"
        ):
            with clock("jacobian"):
                G = self.gram(active) if state is None or state.G is None else state.G
            if state is not None:
                state.G = G
            with clock("solve"):
                return gram_cholesky(device, shifted(G, kappa), residual)
        product = with_damping(jacobian.gram, kappa)
        if self.solver(active) == "cg":
            with clock("solve"):
                return conjugate_gradient(device, product, residual, trainer.cg)
        with clock("sketch"):
            precondition = self.precondition(active, jacobian, step, kappa)
        with clock("solve"):
            return sketched_cg(device, product, residual, trainer.cg, precondition)

    def solver(self, active: ActiveSet) -> str:
        """Return the name of the solver of a step."""
        trainer = self.trainer
        if trainer.solver != "auto" or self.network.activation.slope:
            return "gram" if trainer.solver == "auto" else trainer.solver
        systems = 2 if trainer.both_layers else self.network.outputs  # both layers cost what two outputs do
        return cheapest_solver(active, self.X, trainer.sketch, systems)

    def precondition(self, active: ActiveSet, jacobian: Jacobian, step: int, kappa: float) -> Preconditioner | None:
        """Return the sketched preconditioner of a step; of the shared block for several outputs."""
        network, options = self.network, self.trainer.sketch
        inner, fold = (jacobian.inner, jacobian.fold) if isinstance(jacobian, HingedJacobian) else (jacobian, None)
        if options.kind == "rows" and isinstance(inner, SparseJacobian):
            return preconditioner_of_rows(network.device, inner, options, network.seed, step, kappa, fold)
        signs = self.signs if network.outputs == 1 else self.signs[:, 0].copy()
        arguments = (network.device, active, signs, network.width, self.gram.K, options, network.seed, step, kappa)
        return preconditioner_of_neurons(*arguments, fold)


def shifted(G: Array, kappa: float) -> Array:
    """Return ``G + kappa I``; G itself for 0."""
    if not kappa:
        return G
    G = G.copy()
    G.ravel()[:: len(G) + 1] += kappa
    return G


def with_damping(product: Callable[[Array], Array], kappa: float) -> Callable[[Array], Array]:
    """Return ``v -> G v + kappa v``; the product itself for 0."""
    return (lambda v: product(v) + kappa * v) if kappa else product
