"""Compile before the clock starts: what Numba and NVRTC take at the first call is no part of a step."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ..devices import Device, NearPairs
from ..index.bits import BitIndex
from ..index.flips.index import FlipIndex
from ..index.lazy import LazyIndex
from ..model.activation import SHIFTED_RELU, Activation
from ..model.network import ShiftedReluNetwork
from .gauss_newton import GaussNewton


def warm_up(
    device: Device,
    trainer: GaussNewton,
    dtype: str = "float32",
    sampling: str = "explicit",
    activation: Activation = SHIFTED_RELU,
    outputs: int = 1,
) -> float:
    """Run a tiny problem through everything that ``trainer`` will use; return the seconds it took.

    Compiled code is kept in a cache, so only the first run on a machine waits.

    Parameters
    ----------
    device : Device
        Where training will run.
    trainer : GaussNewton
        Its solver, index and Jacobian are exercised.
    dtype : {"float32", "float64"}
        Type that training will use.
    sampling : {"explicit", "virtual"}
        How neurons will come into being.
    activation : Activation
        Of the network.
    outputs : int
        c.

    Returns
    -------
    float
        Wall-clock seconds.
    """
    begin = time.perf_counter()
    angles = np.linspace(0, np.pi, 6)
    X, y = np.stack([np.cos(angles), np.sin(angles)], axis=1), np.cos(2 * angles)
    short = replace(trainer, tolerance=0.0, max_steps=3, memory_limit=None, time_budget=None, validation_fraction=0.0)
    if outputs > 1:
        y = np.stack([np.cos((k + 1) * angles) for k in range(outputs)], axis=1)  # (6, c)
    width = max(64, 4 * outputs)
    packs = activation.plain and trainer.packs(1.0, outputs)
    flips = ("flips",) if trainer.mask == "flips" else ()
    for mask in flips or (("bits", "lists") if packs else ("lists",)):
        network = ShiftedReluNetwork.initialize(
            width,
            2,
            shift=0.1,
            dtype=dtype,
            paired=sampling == "virtual",
            sampling=sampling,
            outputs=outputs,
            device=device,
            activation=activation,
        )
        replace(short, mask=mask).fit(network, X, y)
    network.predict(X)
    if trainer.margin != 0:  # a tiny run never tightens its lists
        index = LazyIndex.build(device, device.asarray(X, dtype), network)
        everything = device.xp.full(len(index.candidates.neurons), -np.inf, dtype=dtype)
        device.rescan(index.X, network.rows, index.candidates, everything)
    if flips:  # nor are all its flips looked for in every way
        followed = FlipIndex.look(device, device.asarray(X, dtype), network, 1.0)
        followed.step(device.xp.full(len(X), 1e-3))
        followed.query(network.shift)
        implicit, near = followed.implicit, followed.near
        assert isinstance(near, NearPairs)
        device.near_flips(implicit, near, network.shift, 1.0)
        device.all_flips(implicit, near, network.shift, 0.1, 1.0, implicit.total, device.xp.zeros(0), 1e-6)
    if packs:  # nor do enough of its bits stay as they are
        bits = BitIndex(device, device.asarray(X, dtype), network).query(network.shift).bits
        device.count_mask(bits, bits, device.count_mask(bits))
    device.synchronize()
    return time.perf_counter() - begin
