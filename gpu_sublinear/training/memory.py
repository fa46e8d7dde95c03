"""What a run will hold, planned before anything is allocated."""

from __future__ import annotations

import numpy as np

from ..devices import Device, TreeLayout
from ..errors import DeviceMemoryError
from ..index.flips.radius import MOST_RADIUS
from ..index.lazy import FIRST_MARGIN, candidate_bytes
from ..model.shifts import firing_probability
from ..options import Options

FIXED = 400 << 20  # interpreter, compiled code, BLAS buffers, scratch memory of a GPU's scans and looks
FLIPPING = 1.0  # flips of a run, as part of the pairs over sqrt(n / m): 0.1 to 2 were seen, most with a small penalty
FLIP = 7 * 4 + 4 * 8  # bytes of a flip: the pair, twice, and what was before; value and coefficients; what joins them
PROGRAM = "program"
LISTS = "candidate pairs and their products"


def plan(
    trainer: Options,
    device: Device,
    n: int,
    d: int,
    m: int,
    shift: float,
    dtype: str,
    outputs: int = 1,
    everyone: bool = False,
) -> dict[str, int]:
    """Return the expected bytes of everything large, by name.

    Parameters
    ----------
    trainer : Options
        The options.
    device : Device
        Where training will run.
    n, d, m : int
        Points, features and neurons.
    shift : float
        b.
    dtype : {"float32", "float64"}
        Type of weights and products.
    outputs : int
        c.
    everyone : bool
        Whether all rows are held and move, as with an activation that has a slope.

    Returns
    -------
    dict
        Bytes by name: weights, trees or candidates, Jacobian, matrices of n x n.
    """
    size = np.dtype(dtype).itemsize
    fired = int(m * n * firing_probability(shift))
    held = m if everyone else min(m, fired)
    parts = {"weights of the neurons that take part": 2 * held * (d * size + 8), PROGRAM: FIXED}  # joined from blocks
    if everyone:
        parts["rows before a step"] = held * d * size
    flips = trainer.mask == "flips"
    if trainer.alpha and not flips:  # whose rows stay implicit
        parts["rows at the start, before a step, and of the best"] = 3 * held * d * size
    if trainer.both_layers:
        parts["rows and products of both layers"] = (
            held * (4 * (d + 1) * outputs + 6) * 8 + 2 * fired * size + 2 * n * (d + 1) * size
        )
    if trainer.solver != "cg":
        side = min(n, trainer.batch_size or n)
        parts["matrices of n x n" if side == n else "matrices of a batch"] = 6 * side * side * 8
    if trainer.batch_size and trainer.batch_size < n:
        blocks = -(-n // trainer.batch_size)
        parts["what blocks of points keep of rows"] = blocks * held * 40
        if trainer.alpha:
            parts["shares of the blocks, now, before and at the best"] = (3 * blocks + 1) * held * d * size
    if trainer.margin == 0:
        parts["threshold trees"] = n * TreeLayout(max(1, held), trainer.tree.arity).total * size
        parts["fired pairs"] = candidate_bytes(device, fired, held, dtype)
    elif trainer.packs(firing_probability(shift), outputs):
        parts["packed masks of two steps"] = held * n // 4
        if flips:
            parts["rows at the start"] = held * d * size
            lists = 3 if trainer.alpha else 1  # now, before a step, of the best; without a penalty later ones are short
            near = int(held * n * min(1.0, 0.8 * MOST_RADIUS)) * (4 + size) * 5 // 4
            parts["pairs near the shift"] = lists * near
            parts["log of flips"] = int(held * n * min(1.0, FLIPPING * (n / m) ** 0.5)) * FLIP
        elif trainer.alpha:
            parts["movement of the rows, and products with it"] = 2 * held * d * 8 + 16 * n * d * 8
    else:
        margin = FIRST_MARGIN if trainer.margin == "auto" else float(trainer.margin)
        pairs = int(m * n * firing_probability(shift - margin))
        parts[LISTS] = candidate_bytes(device, pairs, held, dtype)
    if outputs > 1:
        parts["signs and lists of several outputs"] = held * (outputs * size + 6 * 8) + 3 * fired * 8
        parts["vectors of n x outputs"] = 16 * n * outputs * 8
    if trainer.jacobian == "csr":
        parts["Jacobian and its transpose"] = 2 * fired * d * (size + 4)
    return parts


def plan_memory(
    trainer: Options,
    device: Device,
    n: int,
    d: int,
    m: int,
    shift: float,
    dtype: str,
    outputs: int = 1,
    everyone: bool = False,
    trainings: int = 1,
) -> int | None:
    """Check the plan against the limit and return what it leaves to the candidate lists.

    Parameters
    ----------
    trainer : Options
        The options, with ``memory_limit``.
    device : Device
        Where training will run.
    n, d, m : int
        Points, features and neurons.
    shift : float
        b.
    dtype : {"float32", "float64"}
        Type of weights and products.
    outputs : int
        c.
    everyone : bool
        As for :func:`plan`.
    trainings : int
        How many there are at a time.

    Returns
    -------
    int or None
        Bytes for the lists of each training, None without a limit.

    Raises
    ------
    DeviceMemoryError
        Naming the largest part, its bytes and what to change, if the plan exceeds the limit.
    """
    if trainer.memory_limit is None:
        return None
    parts = plan(trainer, device, n, d, m, shift, dtype, outputs, everyone)
    parts = {name: size if name == PROGRAM else trainings * size for name, size in parts.items()}
    total = sum(parts.values())
    if total > trainer.memory_limit:
        name = max((part for part in parts if part != PROGRAM), key=parts.__getitem__)
        raise DeviceMemoryError(
            f"the run is expected to hold {total:,} bytes, more than the memory limit of {trainer.memory_limit:,}; the "
            f"largest part are the {name}, {parts[name]:,} bytes; raise the limit or the shift, or lower the width"
        )
    return (trainer.memory_limit - total + parts.get(LISTS, 0)) // trainings
