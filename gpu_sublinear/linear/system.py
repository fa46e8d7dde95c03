"""The linear system of a step, ``(G + kappa I) g = r``: which Jacobian, which solver, which preconditioner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..devices import Array
from ..devices.clock import PhaseClock
from ..devices.sums import rows_of
from ..index.active_set import ActiveSet
from ..model.loss import SampleWeights
from ..model.network import ShiftedReluNetwork
from ..options import Options
from ..step.state import Index, Jacobian, Mask, State
from .both_layers import BothLayersJacobian
from .gram import GramMatrix
from .jacobian import FactoredJacobian, SparseJacobian
from .outputs import OutputsJacobian
from .sketch import Preconditioner, factor, preconditioner_of_neurons, preconditioner_of_rows
from .solver_costs import cheapest_solver
from .solvers import Solution, conjugate_gradient, gram_cholesky, sketched_cg


@dataclass
class LinearSystem:
    """The network on its points, as one step sees it.

    Attributes
    ----------
    trainer : Options
        The options.
    network : ShiftedReluNetwork
        What is trained.
    X, y : Array
        (n, d), and (n,) or (n, c) float64 on the device.
    signs : Array
        (u,) or (u, c) second layer of the rows that the network holds, as it was initialised.
    index : ThresholdTree, LazyIndex, BitIndex, FlipIndex or HingedIndex
        Finds the fired pairs.
    gram : GramMatrix
        Exact Gram matrix, kept through flips.
    weights : SampleWeights
        Of the points.
    home : Array or None
        (u,) a_0, the second layer at the start, where it is trained with a ridge penalty.
    """

    trainer: Options
    network: ShiftedReluNetwork
    X: Array
    y: Array
    signs: Array
    index: Index
    gram: GramMatrix
    weights: SampleWeights = field(default_factory=SampleWeights)
    home: Array = None

    def jacobian(self, active: Mask) -> Jacobian:
        """Return the Jacobian of the step in the form that the trainer asks for."""
        return active.jacobian(self)

    def of_lists(self, active: ActiveSet) -> Jacobian:
        """Return the Jacobian of listed pairs in the form that options and network ask for."""
        if self.network.outputs > 1:
            return OutputsJacobian.build(self.network, active, self.gram.X)
        if self.trainer.both_layers:
            return BothLayersJacobian.build(self.network, active, self.gram.X, self.weights, self.home)
        kind = FactoredJacobian if self.trainer.jacobian == "factored" else SparseJacobian
        return kind.build(self.network.device, active, self.gram.X, self.signs, self.network.width)

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
        if not jacobian.gram_is_whole:
            return solve_outputs(self, active, jacobian, residual, step, clock, kappa, state)
        if not jacobian.has_products or self.solver(active) == "gram":
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
        if options.kind == "rows" and jacobian.entries is not None:
            return preconditioner_of_rows(
                network.device, jacobian.entries, options, network.seed, step, kappa, jacobian.folding
            )
        signs = self.signs if network.outputs == 1 else self.signs[:, 0].copy()
        arguments = (network.device, active, signs, network.width, self.gram.K, options, network.seed, step, kappa)
        return preconditioner_of_neurons(*arguments, jacobian.folding)


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


def solve_outputs(
    run: LinearSystem,
    active: ActiveSet,
    jacobian: OutputsJacobian | BothLayersJacobian,
    residual: Array,
    step: int,
    clock: PhaseClock,
    kappa: float,
    state: State | None,
) -> Solution:
    """Solve ``(G + kappa I) g = residual`` for g (n, c) by conjugate gradients on the lists of fired pairs.

    Parameters
    ----------
    run : Run
        Trainer, network, points.
    active : ActiveSet
        The fired pairs.
    jacobian : OutputsJacobian or BothLayersJacobian
        J.
    residual : Array
        (n, c) or (n,) float64, zero at points on which no neuron fires.
    step : int
        Number of the step, for the draw of the sketch.
    clock : PhaseClock
        Gets the seconds of the phases.
    kappa : float
        Damping and ridge, in absolute units.
    state : State, optional
        Keeps the exact block for the case that the step is rejected.

    Returns
    -------
    Solution
        g, of the shape of the residual, with its true residual over all entries.
    """
    device, options, shape, solver = run.network.device, run.trainer.cg, residual.shape, run.solver(active)

    def product(v: Array) -> Array:
        return jacobian.gram(v.reshape(shape)).ravel() + kappa * v

    if solver == "cg":
        with clock("solve"):
            found = conjugate_gradient(device, product, residual.ravel(), options)
        return replace(found, value=found.value.reshape(shape))
    if solver == "gram":
        with clock("jacobian"):
            block = run.gram(active) if state is None or state.G is None else state.G
        if state is not None:
            state.G = block
        with clock("sketch"):
            block = block.copy()  # (n, n)
            block.ravel()[:: len(block) + 1] += kappa
            factored = factor(device, block)
    else:
        with clock("sketch"):
            factored = run.precondition(active, jacobian, step, kappa)

    def precondition(v: Array) -> Array:
        assert factored is not None
        return device.xp.ascontiguousarray(factored(v.reshape(shape))).ravel()

    with clock("solve"):
        found = sketched_cg(device, product, residual.ravel(), options, precondition if factored else None)
    return replace(found, value=found.value.reshape(shape))
