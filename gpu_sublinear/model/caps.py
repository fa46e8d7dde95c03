r"""Virtual width: only the neurons that take part in training are ever drawn.

**What is drawn.**  Training involves only ``U_0``, the neurons that fire on some training point at the start
(:mod:`gpu_sublinear.index.first_look`).  Let the number of pairs of the network be Poisson with mean m / 2 instead of
fixed. Then the pairs are a Poisson process in weight space with intensity ``(m / 2) phi(w) dw``, phi the standard
normal density, and its restrictions to disjoint sets are independent (Kingman, *Poisson Processes*, section 2.2).  The
caps ``C_i = {w : <w, x_i> > b}`` of the training points cut the union into the disjoint sets

    D_i = C_i without C_1, ..., C_{i-1},         U_0 = D_1 + D_2 + ... + D_n,

so draw each cap's pairs and keep those that no earlier cap holds:

1. the number of pairs in C_i is Poisson with mean ``(m / 2) q_i``, ``q_i = Q(b / |x_i|) = Pr[N(0, 1) > b / |x_i|]``;
2. given the number they are independent with density ``phi / q_i`` on C_i.  Along ``e = x_i / |x_i|`` the component is
   a normal truncated to ``t > b / |x_i|``, that is ``t = Q^{-1}(q_i u)`` with u uniform in (0, 1), and across it is a
   free Gaussian: ``w = z + (t - <z, e>) e`` with z standard normal in d dimensions;
3. keep w if the first training point on which it fires is i.

Step 2 inverts the *upper* tail, whose argument ``q_i u`` is small but has full relative accuracy, so it stays exact
to rounding however far out the cap lies (b = 8: q = 6e-16).  Step 3 decides by the same computed numbers as all
later queries, so every neuron kept fires on some point and the same bytes come out on every device.

**What differs from a fixed width.**  Only the Poisson width: a relative spread of ``m^{-1/2}`` in the number of
neurons, of 3e-5 at m = 10^9.  It needs *paired* initialisation: the two neurons of a pair have equal weights and
opposite signs, so pairs that never move cancel exactly in the output, on new points as well, and need not exist there
either.  The factor ``m^{-1/2}`` of the output uses the nominal width.

**Cost.**  ``m n Q(b) / 2`` pairs are drawn and tested against n points, instead of m.

**Reproducibility.**  Draw k of cap i is keyed by (seed, i, k): Philox, see ``Device.cap_rows``.  Points that come later
get caps of their own behind the earlier ones, so the network grows as if it had been drawn for all points at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import ndtr

from ..devices import Array, philox
from ..errors import OptionError
from .network import ShiftedReluNetwork

FEW = 0.25  # n Q(b) below which "auto" draws caps: then at most this part of the width is drawn
MOST_NEURONS = 2**31 - 2  # rows are numbered by 32-bit integers during training


def settle_sampling(network: ShiftedReluNetwork, n: int) -> None:
    """Replace the sampling ``"auto"`` by what is cheaper for n training points."""
    if network.sampling == "auto":
        few = n * float(ndtr(-network.shift)) < FEW
        network.sampling = "virtual" if few else "explicit"


def draw_caps(network: ShiftedReluNetwork, X: Array) -> None:
    """Add the neurons that fire on some of these points and on none that the network has seen before.

    Parameters
    ----------
    network : ShiftedReluNetwork
        Virtual; changed in place: rows held, points seen.
    X : Array
        (n, d) points of the network's dtype.

    Raises
    ------
    OptionError
        If more than 2^31 neurons would be drawn.
    """
    device, seen = network.device, on_host(network.seen, network)
    points = np.concatenate([seen, _unseen(seen, on_host(X, network))])  # (n', d)
    if len(points) == len(seen):
        return
    norms = np.linalg.norm(points.astype(np.float64), axis=1)  # (n',)
    tails = ndtr(-network.shift / norms)  # (n',) q_i
    counts = _pairs_in_caps(network, tails)
    counts[: len(seen)] = 0  # those exist
    directions, tails = device.asarray(points / norms[:, None]), device.asarray(tails)
    points = device.asarray(points)
    halves = [network.rows[:0]]
    for owners, places in _draws(counts, network.block_rows):
        owners, places = device.asarray(owners), device.asarray(places)
        W = device.cap_rows(network.seed, directions, tails, owners, places, network.dtype)  # (k, d)
        halves.append(W[_owned(network, points, W, owners)])
    new = device.xp.repeat(device.xp.concatenate(halves), 2, axis=0)
    rows = device.xp.concatenate([network.rows, new])
    network.hold(device.xp.arange(len(rows), dtype=np.int64), rows)
    network.seen = points


def on_host(array: Array, network: ShiftedReluNetwork) -> np.ndarray:
    """Return points of the network on the host, in its dtype."""
    return network.device.to_host(array).astype(network.dtype, copy=False)


def _unseen(seen: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return the rows of X that are not among those seen."""
    known = {row.tobytes() for row in seen}
    return X[[row.tobytes() not in known for row in X]]


def _pairs_in_caps(network: ShiftedReluNetwork, tails: np.ndarray) -> np.ndarray:
    """Return the Poisson number of pairs drawn in every cap, (n,) int64: the quantile of a keyed uniform number."""
    words = philox.philox4x32((0, np.arange(len(tails)), 0, philox.CAP_COUNTS), network.seed)
    from scipy.stats import poisson  # half a second at start-up, for virtual networks alone

    counts = poisson.ppf(philox.uniform(words[0], words[1]), network.width / 2 * tails).astype(np.int64)
    if 2 * counts.sum() > MOST_NEURONS:
        raise OptionError(
            f"{2 * counts.sum():,} neurons would have to be drawn, more than 2^31; raise the shift, which is "
            f"{network.shift:.4g}, or lower the width, which is {network.width:,}"
        )
    return counts


def _draws(counts: np.ndarray, block: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all draws, cap by cap, in blocks: cap (k,) int32 and number in the cap (k,) int64."""
    ends = np.cumsum(counts)
    starts = ends - counts
    for first in range(0, int(ends[-1]), block):
        draws = np.arange(first, min(first + block, ends[-1]))
        owners = np.searchsorted(ends, draws, side="right")
        yield owners.astype(np.int32), draws - starts[owners]


def _owned(network: ShiftedReluNetwork, points: Array, W: Array, owners: Array) -> Array:
    """Return the rows whose first point is their owner: those in no earlier cap."""
    device, xp = network.device, network.device.xp
    limits = xp.full(len(W), network.shift, dtype=network.dtype)
    indptr, fired = device.scan(points, W, xp.arange(len(W), dtype=np.int32), limits)
    some = xp.flatnonzero(indptr[1:] > indptr[:-1])  # rounding can put a row on the very edge of its cap outside it
    return some[fired[indptr[:-1][some]] == owners[some]]
