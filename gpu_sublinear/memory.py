"""What a run will hold, planned before anything is allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .devices import TreeLayout
from .errors import DeviceMemoryError
from .lazy import FIRST_MARGIN, candidate_bytes
from .network import ShiftedReluNetwork, firing_probability

if TYPE_CHECKING:
    from .gauss_newton import GaussNewton

FIXED = 400 << 20  # interpreter, compiled code, BLAS buffers and the scan's scratch memory
PROGRAM = "program"
LISTS = "candidate pairs and their products"


def plan(trainer: GaussNewton, network: ShiftedReluNetwork, n: int) -> dict[str, int]:
    """Return the expected bytes of everything large, by name.

    Parameters
    ----------
    trainer : GaussNewton
        The options.
    network : ShiftedReluNetwork
        Width, features, shift and dtype.
    n : int
        Number of points.

    Returns
    -------
    dict
        Bytes by name: weights, trees or candidates, Jacobian, matrices of n x n.
    """
    m, d, size = network.width, network.features, network.W.dtype.itemsize
    fired = int(m * n * firing_probability(network.shift))
    parts = {"weights and signs": m * (d + 1) * size, PROGRAM: FIXED}
    if trainer.solver != "cg":
        parts["matrices of n x n"] = 6 * n * n * 8
    if trainer.margin == 0:
        parts["threshold trees"] = n * TreeLayout(m, trainer.tree.arity).total * size
        parts["fired pairs"] = candidate_bytes(network.device, fired, min(m, fired), network.dtype)
    else:
        margin = FIRST_MARGIN if trainer.margin == "auto" else float(trainer.margin)
        pairs = int(m * n * firing_probability(network.shift - margin))
        parts[LISTS] = candidate_bytes(network.device, pairs, min(m, pairs), network.dtype)
        parts["scan of all neurons"] = m * (4 + 8 + 8 + 8 + size)
    if trainer.jacobian == "csr":
        parts["Jacobian and its transpose"] = 2 * fired * d * (size + 4)
    return parts


def plan_memory(trainer: GaussNewton, network: ShiftedReluNetwork, n: int) -> int | None:
    """Check the plan against the limit and return what it leaves to the candidate lists.

    Parameters
    ----------
    trainer : GaussNewton
        The options, with ``memory_limit``.
    network : ShiftedReluNetwork
        What is trained.
    n : int
        Number of points.

    Returns
    -------
    int or None
        Bytes for the lists, None without a limit.

    Raises
    ------
    DeviceMemoryError
        Naming the largest part, its bytes and what to change, if the plan exceeds the limit.
    """
    if trainer.memory_limit is None:
        return None
    parts = plan(trainer, network, n)
    total = sum(parts.values())
    if total > trainer.memory_limit:
        name = max((part for part in parts if part != PROGRAM), key=parts.__getitem__)
        raise DeviceMemoryError(
            f"the run is expected to hold {total:,} bytes, more than the memory limit of {trainer.memory_limit:,}; the "
            f"largest part are the {name}, {parts[name]:,} bytes; raise the limit or the shift, or lower the width"
        )
    return trainer.memory_limit - total + parts.get(LISTS, 0)
