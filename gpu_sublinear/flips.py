r"""The cost follows the flips: the index for the ordinary ReLU and small shifts.

At shift 0 half of all pairs fire, so nothing is sparse; but few pairs *flip* in a step, about ``c n sqrt(m)`` in the
first one and far fewer later. This index looks at all pairs once. From then on it keeps, through the flips alone, the
mask M, the counts ``M^T M`` and the outputs; the weights are implicit.

**Implicit weights.** Let state t be the network before step t, ``g^t`` the solution of step t and ``Gamma^t`` the sum
of all ``g^s``, s < t. A full-precision Gauss-Newton run has

    w_r^t = w_r^0 - a_r m^{-1/2} sum_{s<t} sum_j M^s_rj g^s_j x_j .

Write ``M^s_rj`` as ``M^t_rj`` corrected by the flips between s and t. A pair (r, j) that turns on at state q (silent
in s < q, firing from q on) contributes ``Gamma^t_j - Gamma^q_j``: what ``M^t_rj Gamma^t_j`` says, and ``c =
-Gamma^q_j``. One that turns off at q contributes ``Gamma^q_j``, and ``M^t_rj Gamma^t_j`` says 0: ``c = +Gamma^q_j``.
Several flips of one pair add up (induction over q). So with a log of (r, j, c), one entry per flip,

    w_r^t = w_r^0 - a_r m^{-1/2} ( sum_j M^t_rj Gamma^t_j x_j + sum_{log entries of r} c x_j )            (exact),

and a row costs n / 4 table look-ups (sums of subsets of four points) when somebody asks for it; nobody writes rows.
So it is on the cpu; the cuda device adds up points instead, in float64 throughout.

**Outputs.** With z the pre-activations at the new weights and ``delta = M' - M``,

    sqrt(m) f' = sum_r a_r M'_ri (z_ri - b) = sum_r a_r M_ri (z_ri - b) + sum_r a_r delta_ri (z_ri - b) .

The first sum is linear in the step: ``sqrt(m) (f - G g)_i``. A pair that turns on has delta = 1 and z > b, one that
turns off delta = -1 and z <= b, so either way the second sum adds ``a_r |z_ri - b|``. This needs M to be the mask of
the *maintained* state, not that of any rounding, and holds to the last digits (1e-14).

**Counts.** ``M'^T M' - M^T M = delta^T M' + M^T delta``: a row and a column for every flip. Whole numbers, so exact.

**Who may flip: the certificate.** The index lists the *near pairs*, with values, and knows three numbers:

    |P_ri - value_ri| <= error for every listed pair,      |P_ri - b| > known for every other pair,

P being the exact pre-activations of the implicit weights. A step moves P_ri by ``a_r m^{-1/2} sum_j M_rj g_j K_ij``,
K = X X^T, hence, whatever the mask, by at most

    B = m^{-1/2} max_i max( sum_j (g_j K_ij)^+ , sum_j (g_j K_ij)^- ) = m^{-1/2} max_i ( |K||g| + |K g| )_i / 2 .

*A small step* (``B <= known``, and few pairs within reach): no other pair can have crossed b. Listed pairs with
``|value - b| <= error + B`` are computed in float64 and compared; nothing else is touched. Then error += B and known
-= B.

*The first step* moves all rows by the same formula with an empty log, from a mask of the near pairs without values;
all of these are computed in float64. *A later, larger step*: every row's own movement ``||sum_j M_rj g_j x_j||`` is
looked up, 10 to 50 times tighter than B. Listed values move along (in REAL, error grows by its rounding), a pair
whose bit may be wrong is computed in float64, and those within a smaller radius of b form the new list; known =
radius. A row that moved too far for ``known`` is looked at on all points. This visits every row, n / 4 look-ups each,
but no pair of d products for most: after the first step it is 5 to 10 times cheaper than a scan, and the list it
leaves is short enough for small steps. (The cuda device moves no values: it computes, in float64, whatever may be near
enough.)

**What exact means.** The implicit weights are those of the formula above in float64, from rows ``w^0`` as stored.
After every query M equals ``P > b`` for a full float64 recomputation of P, except for pairs with ``|P - b|`` below
the rounding of that recomputation, ``(n + d) eps_64 (||w|| + sum|Gamma| + sum|c|)``, and, until they are near enough
to be looked at, pairs that the first look (in REAL, as in all other modes) saw on the other side of b, ``|P - b| <=
(d + 1) eps_REAL ||w||``: as the outputs count them by M, the identities above hold for those, too. With float32 the
first look's sums carry its rounding, about 1e-8, through the run.

**Taking a step back.** Flips are their own inverse; counts are whole numbers; the log is cut; lists are replaced,
never changed. So :meth:`FlipIndex.restore` returns to the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .bits import BitIndex
from .devices import Array, Device, Flips, ImplicitDevice, ImplicitRows, NearPairs
from .devices.implicit import run_starts
from .errors import OptionError
from .foresight import LARGEST, foreseen_radius, rounding
from .network import ShiftedReluNetwork
from .weights import SampleWeights

LATER = 0.25  # of the last step's length: the next one is mostly far shorter
FEW = 0.25  # pairs within reach per row, up to which only their rows are visited


@dataclass(frozen=True)
class FlipMask:
    """The state after a query: what :class:`gpu_sublinear.active_set.ActiveSet` is for lists.

    Attributes
    ----------
    index : FlipIndex
        Owner of bits and pair counts.
    counts : Array
        (n,) number of neurons fired on each point, k_i.
    totals : Array
        (n,) float64, ``sum_r a_r M_ri (P_ri - b)``.
    union : int
        Neurons that fire on at least one point.
    visited : int
        Pairs computed and compared by the query.
    """

    index: FlipIndex
    counts: Array
    totals: Array
    union: int
    visited: int

    @cached_property
    def nnz(self) -> int:
        """Number of fired pairs."""
        return int(self.counts.sum())

    def forward(self, device: Device, signs: Array, shift: float) -> Array:
        """Return ``sum_{r in S_i} a_r (P_ir - b)``, (n,) float64, kept through the flips."""
        return self.totals


@dataclass(frozen=True)
class FlipJacobian:
    """J of implicit weights: it takes the step by remembering g."""

    index: FlipIndex
    weights: SampleWeights

    def step(self, W: Array, g: Array) -> None:
        """Apply ``W <- W - (S J)^T g`` without writing a row; ``W`` is left alone."""
        self.index.step(self.weights.scaled(g))


@dataclass(frozen=True)
class Mark:
    """What :meth:`FlipIndex.restore` needs; later steps replace these arrays and never change them."""

    total: Array
    totals: Array
    near: NearPairs | Array
    error: float
    known: float
    union: int
    segments: int


@dataclass
class FlipIndex:
    """Mask, pair counts and outputs through flips, over implicit weights.

    Attributes
    ----------
    device : ImplicitDevice
        Owner of the arrays.
    X : Array
        (n, d) points.
    network : ShiftedReluNetwork
        Its ``rows`` are read at the start and replaced by :meth:`materialise`.
    near : NearPairs or Array
        Pairs near the shift; until the first step a mask like ``bits``.
    bits : Array
        (u, ceil(n / 64)) uint64, M.
    pair_counts : Array
        (n, n) float64, ``M^T M``.
    totals : Array
        (n,) float64, outputs times ``sqrt(m)``.
    union : int
        Neurons that fire somewhere.
    known, error : float
        The certificate of the module docstring.
    refreshed : int
        Rows visited by the last query: 0 or all.
    """

    device: ImplicitDevice
    X: Array
    network: ShiftedReluNetwork
    base: Array
    near: NearPairs | Array
    bits: Array
    pair_counts: Array
    totals: Array
    union: int
    known: float
    error: float
    looked: int
    refreshed: int = 0
    _pending: Array = field(default=None, repr=False)
    _segments: list[Flips] = field(default_factory=list, repr=False)
    _G: Array = field(default=None, repr=False)
    _written: Array = field(default=None, repr=False)

    # ---- the first look ---------------------------------------------------------------------------------

    @classmethod
    def build(cls, device: Device, X: Array, network: ShiftedReluNetwork, y: Array) -> FlipIndex:
        """Make the network hold its rows and look at all pairs once.

        Parameters
        ----------
        device : Device
            Owner of X and the network.
        X : Array
            (n, d) points of the network's dtype.
        network : ShiftedReluNetwork
            What will be trained.
        y : Array
            (n,) targets, from which the length of the first step is foreseen.

        Returns
        -------
        FlipIndex
            Ready for queries.

        Raises
        ------
        OptionError
            If the device has no operations on implicit rows.
        """
        if not isinstance(device, ImplicitDevice):
            raise OptionError(
                f"mask='flips' has no operations on device={device.name!r}; use another device, or mask='bits'"
            )
        BitIndex.hold(X, network)
        return cls.over_rows(device, X, network, y)

    @classmethod
    def over_rows(cls, device: ImplicitDevice, X: Array, network: ShiftedReluNetwork, y: Array) -> FlipIndex:
        """Do the same with the rows that the network holds, whoever fires."""
        return cls.look(device, X, network, min(foreseen_radius(device, X, network, y), LARGEST))

    @classmethod
    def look(cls, device: ImplicitDevice, X: Array, network: ShiftedReluNetwork, radius: float) -> FlipIndex:
        """Look at all pairs once; list those near.

        Parameters
        ----------
        device : ImplicitDevice
            Owner of X and the network.
        X : Array
            (n, d) points of the network's dtype.
        network : ShiftedReluNetwork
            Weights, held, and shift.
        radius : float
            How near: :func:`foreseen_radius`.

        Returns
        -------
        FlipIndex
            Ready for queries.
        """
        rows = network.rows
        bits, totals, close = device.near_mask(X, rows, network.signs, network.shift, radius)
        _, union = device.mask_sizes(bits)
        counts = device.count_mask(bits)
        error = rounding(X, rows, network.shift, radius)
        words, near = (device.mask_by_rows(mask, len(rows)) for mask in (bits, close))
        known, looked = radius - error, len(rows) * len(X)
        return cls(device, X, network, rows, near, words, counts, totals, union, known, error, looked)

    def __post_init__(self) -> None:
        xp = self.device.xp
        self._heads = xp.full(len(self.base), -1, dtype=np.int32)
        self._before, self._points = xp.zeros(0, np.int32), xp.zeros(0, np.int32)
        self._coefficients = xp.zeros(0)
        self._total = xp.zeros(len(self.X))
        self._signs = self.network.signs.astype(np.float64)
        self._weights = self._signs * self.network.scale
        self._K = self.device.gram(self.X.astype(np.float64))  # (n, n)
        self._size = abs(self._K)
        self._point_max = float(xp.sqrt(xp.diagonal(self._K).max()))

    # ---- what a step reads ------------------------------------------------------------------------------

    @property
    def G(self) -> Array:
        """(n, n) float64, ``K o M^T M / m``."""
        if self._G is None:
            self._G = self._K * self.pair_counts / self.network.width
        return self._G

    @property
    def segments(self) -> list[Flips]:
        """The flips of every query that found some, in order."""
        return self._segments

    @property
    def coefficients(self) -> Array:
        """(L,) float64: what the log says of each flip of ``segments``."""
        return self._coefficients

    @property
    def implicit(self) -> ImplicitRows:
        """The weights now, as the device takes them."""
        return ImplicitRows(
            self.base, self.X, self.bits, self._weights, self._total, self._heads, self._before, self._points,
            self._coefficients,
        )  # fmt: skip

    def query(self, shift: float) -> FlipMask:
        """Find the flips of the last step, if it has not been done, and return who fires now."""
        if self._pending is not None:
            self._follow(self._pending, shift)
            self._pending = None
        counts = self.device.xp.diagonal(self.pair_counts).astype(np.int64)
        return FlipMask(self, counts, self.totals, self.union, self.looked)

    # ---- a step -----------------------------------------------------------------------------------------

    def step(self, g: Array) -> None:
        """Take the step g (n,): outputs as if nothing flipped; the next query finds what did."""
        first = not len(self._before) and not self._total.any()
        self.totals = self.totals - math.sqrt(self.network.width) * self.device.matmul(self.G, g)
        self._total = g if first else self._total + g
        self._pending = g

    def update(self, W: Array, neurons: Array, moved: Array) -> None:
        """Do nothing: :meth:`step` has been told."""

    def _follow(self, g: Array, shift: float) -> None:
        """Find the flips of a step and apply them."""
        reach = self._bound(g)
        if self._few_within(reach):
            assert isinstance(self.near, NearPairs)
            flips, self.looked = self.device.near_flips(self.implicit, self.near, shift, self.error + reach)
            self.error, self.known, self.refreshed = self.error + reach, self.known - reach, 0
        else:
            flips = self._look_at_all_rows(g, shift)
        self._apply(flips)

    def _few_within(self, reach: float) -> bool:
        """Tell whether a step this long leaves most rows alone."""
        if not isinstance(self.near, NearPairs) or self.error + reach >= self.known:
            return False
        density = self.near.nnz / self.known  # pairs in a unit of distance
        return density * (self.error + reach) <= FEW * len(self.base)

    def _look_at_all_rows(self, g: Array, shift: float) -> Flips:
        first = not isinstance(self.near, NearPairs)
        error = (0.0 if first else self.error) + self._movement_error(g)
        radius = max(LATER * self._mean_movement(g), 4 * error)
        where = self.implicit, self.near, shift, radius, self.known
        flips, self.near, self.looked = (
            self.device.first_flips(*where) if first else self.device.all_flips(*where, g, error)
        )
        self.known, self.error, self.refreshed = radius, error, len(self.base)
        return flips

    def _bound(self, g: Array) -> float:
        """Return B: how far the step g can have moved a pre-activation."""
        matmul = self.device.matmul
        reach = (matmul(self._size, abs(g)) + abs(matmul(self._K, g))).max() / 2
        return float(reach) * self.network.scale * (1 + 1e-9) + self._rounding64

    def _mean_movement(self, g: Array) -> float:
        """Return the root mean square of the rows' movements, ``||J^T g|| / sqrt(u) = sqrt(g^T G g / u)``."""
        return math.sqrt(max(0.0, float(g @ self.device.matmul(self.G, g))) / max(1, len(self.base)))

    def _movement_error(self, g: Array) -> float:
        """Return what REAL sums of a movement and one more rounding of a value lose."""
        (n, d), eps = self.X.shape, float(np.finfo(self.network.dtype).eps)
        size = float(abs(g).sum()) * self.network.scale * self._point_max**2
        return (n + d + 8) * eps * size + 2 * eps * (abs(self.network.shift) + LARGEST) + self._rounding64

    @property
    def _rounding64(self) -> float:
        """What a float64 recomputation of a pre-activation may be off, for rows of ordinary length."""
        (n, d), eps = self.X.shape, float(np.finfo(np.float64).eps)
        return 4 * (n + d) * eps * (float(abs(self._total).sum()) * self.network.scale + 8) * self._point_max**2

    def _apply(self, flips: Flips) -> None:
        """Keep bits, counts, outputs and the log true to the flips."""
        if not len(flips):
            return
        terms = self._signs[flips.neurons] * flips.above  # (f,)
        state = self.bits, self.pair_counts, self._heads
        sums, union, before, coefficients = self.device.flip_mask(*state, flips, terms, self._total, len(self._before))
        self.totals = self.totals + sums
        self._note(flips, union, before, coefficients)

    def replay(self, flips: Flips, coefficients: Array) -> None:
        """Apply flips (f,) of an earlier run, whose log had these coefficients (f,); :meth:`stand_at` has the sums."""
        state = self.bits, self.pair_counts, self._heads
        _, union, before, _ = self.device.flip_mask(*state, flips, flips.above, self._total, len(self._before))
        self._note(flips, union, before, coefficients)

    def _note(self, flips: Flips, union: int, before: Array, coefficients: Array) -> None:
        """Append flips, not none, to the log."""
        xp = self.device.xp
        self.union, self._G = self.union + union, None
        self._before = xp.concatenate([self._before, before])
        self._points = xp.concatenate([self._points, flips.points])
        self._coefficients = xp.concatenate([self._coefficients, coefficients])
        self._segments.append(flips)

    # ---- coming back ------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Return what :meth:`restore` needs, after a query."""
        return Mark(self._total, self.totals, self.near, self.error, self.known, self.union, len(self._segments))

    def restore(self, mark: Mark) -> None:
        """Come back to where :meth:`mark` was called, to the same bytes."""
        self._pending = None
        while len(self._segments) > mark.segments:
            flips = self._segments.pop()
            size, first = len(self._before) - len(flips), run_starts(self.device.xp, flips.neurons)
            state = self.bits, self.pair_counts, self._heads
            self.device.flip_mask(*state, flips, flips.above, self._total, size)
            self._heads[flips.neurons[first]] = self._before[size:][first]
            self._before, self._points = self._before[:size], self._points[:size]
            self._coefficients = self._coefficients[:size]
            self._G = None
        self.stand_at(mark)

    def stand_at(self, mark: Mark) -> None:
        """Take the sums, near pairs and certificate of a place whose flips are in the log, and no later ones."""
        self._total, self.totals, self.near = mark.total, mark.totals, mark.near
        self.error, self.known, self.union = mark.error, mark.known, mark.union

    def materialise(self) -> None:
        """Write the rows of the network, if it has moved since they were written: u n d / 4 additions."""
        if self._written is not self._total:
            moved = bool(self._total.any()) or len(self._before)
            self.network.rows = self.device.implicit_rows(self.implicit) if moved else self.base
            self._written = self._total
