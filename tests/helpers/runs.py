"""Runs begun from bare arrays, and what tests ask of them beneath the public face."""

from __future__ import annotations

from typing import Any

from gpu_sublinear.index.protocol import Index, Jacobian, Mask
from gpu_sublinear.linear.system import Place
from gpu_sublinear.model.loss import SampleWeights
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.model.problem import Problem
from gpu_sublinear.options import Options
from gpu_sublinear.step.run import Run
from gpu_sublinear.training.prepare import prepare


def begun(options: Options, network: ShiftedReluNetwork, X: Any, y: Any, weights: SampleWeights | None = None) -> Run:
    """Return the run of a training before its first step; arrays lie on the device."""
    return prepare(options, network, Problem(X, y, weights or SampleWeights()))


def linearised(run: Run, active: Mask) -> Jacobian:
    """Return the Jacobian of these fired pairs."""
    return run.linearised(Place(active))


def innermost(index: Index) -> Any:
    """Return the index that finds the pairs, without what is wrapped around it."""
    return innermost(index.inner) if hasattr(index, "inner") else index
