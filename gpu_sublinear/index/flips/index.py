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

**A ridge penalty** takes back a part theta of the movement in each step, ``W' = W^0 + (1 - theta) (W - W^0) - J^T g``
(:meth:`gpu_sublinear.step.run.Run.propose`). As M is the mask of both terms, this is the formula above with ``Gamma' =
(1 - theta) Gamma + g`` and ``c' = (1 - theta) c``: nothing else of the weights changes, and after a full step, theta =
1, all c of the log are 0. What the penalty needs of W - W^0 =: D is known, too. With ``h_i = sum_r a_r M_ri (P^0_ri -
b)``, kept through the flips from the rows at the start, ``(J D)_i = f_i - m^{-1/2} h_i``, and

    ||D'||^2 = (1 - theta)^2 ||D||^2 - 2 (1 - theta) <g, J D> + <g, G g> .

**Outputs.** With z the pre-activations at the new weights and ``delta = M' - M``,

    sqrt(m) f' = sum_r a_r M'_ri (z_ri - b) = sum_r a_r M_ri (z_ri - b) + sum_r a_r delta_ri (z_ri - b) .

The first sum is linear in the step: ``sqrt(m) (f - G g - theta J D)_i``. A pair that turns on has delta = 1 and z > b,
one that turns off delta = -1 and z <= b, so either way the second sum adds ``a_r |z_ri - b|``. This needs M to be the
mask of the *maintained* state, not that of any rounding, and holds to the last digits (1e-14).

**Counts.** ``M'^T M' - M^T M = delta^T M' + M^T delta``: a row and a column for every flip. Whole numbers, so exact.

**Who may flip: the certificate.** The index lists the *near pairs*, with values, and knows three numbers:

    |P_ri - value_ri| <= error for every listed pair,      |P_ri - b| > known for every other pair,

P being the exact pre-activations of the implicit weights. A step moves P_ri by ``a_r m^{-1/2} sum_j M_rj g_j K_ij``,
K = X X^T, hence, whatever the mask, by at most

    B = m^{-1/2} max_i max( sum_j (g_j K_ij)^+ , sum_j (g_j K_ij)^- ) = m^{-1/2} max_i ( |K||g| + |K g| )_i / 2 .

With a penalty ``g - theta Gamma`` takes the place of g, and the log adds the largest ``||x||^2`` times ``theta m^{-1/2}
max_r sum_{entries of r} |c|``.

*A small step* (``B <= known``, and few pairs within reach): no other pair can have crossed b. Listed pairs with
``|value - b| <= error + B`` are computed in float64 and compared; nothing else is touched. Then error += B and known
-= B.

*The first step* moves all rows by the same formula with an empty log, from a mask of the near pairs without values;
all of these are computed in float64. *A later, larger step*: every row's own movement ``||sum_j M_rj g_j x_j||`` is
looked up, 10 to 50 times tighter than B. Listed values move along (in REAL, error grows by its rounding), a pair
whose bit may be wrong is computed in float64, and those within a smaller radius of b form the new list; known =
radius. A row that moved too far for ``known`` is looked at on all points. This visits every row, n / 4 look-ups
each, but no pair of d products for most: after the first step it is 5 to 10 times cheaper than a scan, and the list
it leaves is short enough for small steps. With a penalty steps hardly shrink, on a path of penalties they even
grow: there the new radius is the old one less what rows move, so that as a rule the first look's list serves to the
end. Where small steps have let the error grow beyond a quarter of the radius, values are computed in float64
instead of moved along, and error is that of rounding again; or the list would grow with it from look to look. (The
cuda device moves no values: it computes, in float64, whatever may be near enough.)

**Some of the points** (:meth:`FlipIndex.again`, for folds). One look at all points serves trainings on any of them: the
index goes on following all, steps have g = 0 at the others, and mask, counts and outputs are read at those chosen.

**What exact means.** The implicit weights are those of the formula above in float64, from rows ``w^0`` as stored.
After every query M equals ``P > b`` for a full float64 recomputation of P, except for pairs with ``|P - b|`` below
the rounding of that recomputation, ``(n + d) eps_64 (||w|| + sum|Gamma| + sum|c|)``, and, until they are near enough
to be looked at, pairs that the first look (in REAL, as in all other modes) saw on the other side of b, ``|P - b| <=
(d + 1) eps_REAL ||w||``: as the outputs count them by M, the identities above hold for those, too. With float32 the
first look's sums carry its rounding, about 1e-8, through the run.

**Taking a step back.** Flips are their own inverse; counts are whole numbers; the log is cut; lists and coefficients
are replaced, never changed. So :meth:`FlipIndex.restore` returns to the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ...devices import Array, Device, Flips, ImplicitRows, NearPairs
from ...devices.sums import dot
from ...errors import OptionError
from ...model.network import ShiftedReluNetwork
from ..bits import BitIndex
from ..protocol import Index, PlainIndex
from .bounds import Bounds, Movement
from .log import FlipLog
from .mask import FlipMask
from .radius import foreseen_radius, rounding

LATER = 0.25  # of the last step's length: the next one is mostly far shorter
LATER_PULLED = 1.0  # the same with a penalty, where steps shrink slowly, at least (0.25 to 4 tried)
SPREAD = 4.0  # of a step's length (root mean square): hardly a row moves further (2 to 8 tried)
CLEAR_ERRORS = (
    4.0  # errors of a listed value that the radius is at least, so that few pairs are listed for errors alone
)
GROWN = 8.0  # roundings of a step that the error is at least before values are computed afresh, which costs their rows
AT_HOME = 1 << 20  # numbers of the rows of flips that are widened at a time
FEW = 1.0  # pairs within reach per row, up to which only their rows are visited (0.25 to 2 tried)
FEW_PULLED = 16.0  # the same with a penalty: to look at all rows means to walk the log (1 to 32 tried)


@dataclass(frozen=True)
class Mark:
    """What :meth:`FlipIndex.restore` needs; later steps replace these arrays and never change them."""

    total: Array
    totals: Array
    coefficients: Array
    home: Array
    square: float
    near: NearPairs | Array
    error: float
    known: float
    union: int
    segments: int


@dataclass
class FlipIndex(PlainIndex):
    """Mask, pair counts and outputs through flips, over implicit weights.

    Attributes
    ----------
    device : Device
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
    home : Array
        (n,) float64 h of the module docstring, or empty until :meth:`penalise`.
    square : float
        ``||W - W_0||^2``, likewise.
    refreshed : int
        Rows visited by the last query: 0 or all.
    chosen : Array or None
        (k,) int64 numbers of the points that are trained on; the others are looked at and pull no row.
    """

    kind, owns_rows = "flips", True

    device: Device
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
    chosen: Array = None
    home: Array = field(default=None, repr=False)
    square: float = 0.0
    _pending: Movement | None = field(default=None, repr=False)
    _G: Array = field(default=None, repr=False)
    _written: Array = field(default=None, repr=False)

    # ---- the first look ---------------------------------------------------------------------------------

    @classmethod
    def over_rows(cls, device: Device, X: Array, network: ShiftedReluNetwork, y: Array, alpha: float) -> FlipIndex:
        """Look at all pairs of the rows that the network holds, whoever fires.

        Parameters
        ----------
        device : Device
            Owner of X and the network.
        X : Array
            (n, d) points of the network's dtype.
        network : ShiftedReluNetwork
            What will be trained.
        y : Array
            (n,) targets, from which the length of the first steps is foreseen.
        alpha : float
            Ridge penalty, likewise.

        Returns
        -------
        FlipIndex
            Ready for queries.

        Raises
        ------
        OptionError
            If the device has no operations on implicit rows.
        """
        if not device.follows_flips:
            raise OptionError(
                f"mask='flips' has no operations on device={device.name!r}; use another device, or mask='bits'"
            )
        return cls.look(device, X, network, foreseen_radius(device, X, network, y, alpha))

    @classmethod
    def look(cls, device: Device, X: Array, network: ShiftedReluNetwork, radius: float) -> FlipIndex:
        """Look at all pairs once; list those near.

        Parameters
        ----------
        device : Device
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

    def again(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray | None = None) -> FlipIndex:
        """Return an index of its own for the same rows; this one has found them and taken no step.

        Parameters
        ----------
        network : ShiftedReluNetwork
            Of the other training, with these rows.
        X : Array
            (k, d) points to train on; the index goes on following all.
        chosen : ndarray, optional
            (k,) int64 their numbers; all by default.

        Returns
        -------
        FlipIndex
            Where the first look left this one.
        """
        bits, counts = self.bits.copy(), self.pair_counts.copy()
        points = None if chosen is None else self.device.asarray(chosen, np.int64)
        return replace(self, network=network, base=network.rows, bits=bits, pair_counts=counts, chosen=points)

    def at(self, network: ShiftedReluNetwork, X: Array, chosen: np.ndarray) -> BitIndex:
        """Return packed masks for one look."""
        return BitIndex(self.device, X, network)

    def beside(self, network: ShiftedReluNetwork, scan: Index, X: Array, chosen: np.ndarray) -> FlippedBeside:
        """Return what the network says at other points, which this index follows anyway."""
        return FlippedBeside(self, self.device.asarray(chosen, np.int64))

    def __post_init__(self) -> None:
        xp = self.device.xp
        self.log = FlipLog.empty(self.device, len(self.base))
        self.home = xp.zeros(0)
        self._total = xp.zeros(len(self.X))
        self._signs = self.network.signs.astype(np.float64)
        self._weights = self._signs * self.network.scale
        self._bounds = Bounds(self.device, self.X, self.network, len(self.base))

    # ---- what a step reads ------------------------------------------------------------------------------

    @property
    def G(self) -> Array:
        """(n, n) float64, ``K o M^T M / m``."""
        if self._G is None:
            self._G = self._bounds.K * self.pair_counts / self.network.width
        return self._G

    @property
    def implicit(self) -> ImplicitRows:
        """The weights now, as the device takes them."""
        log = self.log.heads, self.log.before, self.log.points, self.log.coefficients
        return ImplicitRows(self.base, self.X, self.bits, self._weights, self._total, *log)

    def query(self, shift: float) -> FlipMask:
        """Find the flips of the last step, if it has not been done, and return who fires now."""
        if self._pending is not None:
            self._follow(self._pending, shift)
            self._pending = None
        counts = self.device.xp.diagonal(self.pair_counts).astype(np.int64)
        return FlipMask(self, self.of_chosen(counts), self.of_chosen(self.totals), self.union, self.looked)

    def of_chosen(self, numbers: Array) -> Array:
        """Return those of (n,) numbers that belong to the points trained on."""
        return numbers if self.chosen is None else numbers[self.chosen]

    def spread(self, g: Array) -> Array:
        """Return g of the points trained on for all points, (n,): 0 for the others."""
        if self.chosen is None:
            return g
        everywhere = self.device.xp.zeros(len(self.X))
        everywhere[self.chosen] = g
        return everywhere

    # ---- a step -----------------------------------------------------------------------------------------

    def penalise(self) -> None:
        """Keep, from now on, what a ridge penalty towards the present rows, those of the start, asks for."""
        self.home = self.totals

    @property
    def penalised(self) -> bool:
        """Whether :meth:`penalise` was called."""
        return len(self.home) > 0

    def along(self) -> Array:
        """Return ``J (W - W_0)``, (n,) float64."""
        return (self.totals - self.home) * self.network.scale

    def step(self, g: Array, theta: float = 0.0) -> None:
        """Take the step g (n,) that pulls by theta: outputs as if nothing flipped; the next query finds what did."""
        first, kept = not len(self.log) and not self._total.any(), 1 - theta
        Gg, movement = self.device.matmul(self.G, g), Movement(g, self.device.xp.zeros(0))
        if self.penalised:
            own, cross = float(dot(g, Gg)), float(dot(g, self.along()))
            self.square = max(0.0, kept**2 * self.square - 2 * kept * cross + own)
        if theta and not first:
            most, entries = self.log.sizes()
            logged = -theta * self.log.coefficients if most else movement.logged
            movement = Movement(g - theta * self._total, logged, theta * most, entries)
            self.totals = self.totals - theta * (self.totals - self.home)
            self._total = kept * self._total
            self.log.scale(kept)
        self.totals = self.totals - math.sqrt(self.network.width) * Gg
        self._total = g if first else self._total + g
        self._pending = movement

    def _follow(self, movement: Movement, shift: float) -> None:
        """Find the flips of a step and apply them."""
        reach = self._bounds.furthest(movement, self._total)
        if self._few_within(reach):
            assert isinstance(self.near, NearPairs)
            flips, self.looked = self.device.near_flips(self.implicit, self.near, shift, self.error + reach)
            self.error, self.known, self.refreshed = self.error + reach, self.known - reach, 0
        else:
            flips = self._look_at_all_rows(movement, shift)
        self._apply(flips)

    def _few_within(self, reach: float) -> bool:
        """Tell whether a step this long leaves most rows alone."""
        if not isinstance(self.near, NearPairs) or self.error + reach >= self.known:
            return False
        density = self.near.nnz / self.known  # pairs in a unit of distance
        few = FEW_PULLED if self.penalised else FEW
        return density * (self.error + reach) <= few * len(self.base)

    def _look_at_all_rows(self, movement: Movement, shift: float) -> Flips:
        first, rounding = not isinstance(self.near, NearPairs), self._bounds.rounding(movement, self._total)
        error = (0.0 if first else self.error) + rounding
        radius = self._next_radius(movement, first)
        afresh = self.penalised and not first and CLEAR_ERRORS * error > radius and error > GROWN * rounding
        radius = max(radius, CLEAR_ERRORS * (rounding if afresh else error))
        where = self.implicit, self.near, shift, radius, self.known
        flips, self.near, self.looked = (
            self.device.first_flips(*where)
            if first
            else self.device.all_flips(*where, movement.g, movement.logged, error, afresh)
        )
        self.known, self.error, self.refreshed = radius, rounding if afresh else error, len(self.base)
        return flips

    def _next_radius(self, movement: Movement, first: bool) -> float:
        """Return how near pairs shall be listed after this movement: with a penalty, as many as are known anyway."""
        mean = self._bounds.mean(movement, self.G)
        if not self.penalised:
            return LATER * mean
        gone = self._bounds.furthest(movement, self._total) if first else SPREAD * mean
        return max(LATER_PULLED * mean, self.known - gone)

    def _apply(self, flips: Flips) -> None:
        """Keep bits, counts, outputs and the log true to the flips."""
        if not len(flips):
            return
        terms = self._signs[flips.neurons] * flips.above  # (f,)
        self.totals = self.totals + self._turn_over(flips, terms)
        if self.penalised:
            self.home = self.home + self._change_at_home(flips)

    def _turn_over(self, flips: Flips, terms: Array) -> Array:
        """Turn bits over and log it; return the sums of ``terms`` (f,) by point, (n,)."""
        state, log = (self.bits, self.pair_counts, self.log.heads), self.log
        sums, union, before, coefficients = self.device.flip_mask(*state, flips, terms, self._total, len(log))
        log.append(flips, before, coefficients)
        self.union, self._G = self.union + union, None
        return sums

    def _change_at_home(self, flips: Flips) -> Array:
        """Return what flips, done by now, add to h: ``sum_r a_r delta_ri (P^0_ri - b)``, (n,)."""
        terms, count = self.device.xp.empty(len(flips)), max(1, AT_HOME // self.X.shape[1])
        for first in range(0, len(flips), count):
            part = slice(first, first + count)
            neurons, points = flips.neurons[part], flips.points[part]
            P = (self.base[neurons].astype(np.float64) * self.X[points].astype(np.float64)).sum(axis=1)  # (f,)
            words = self.bits[neurons, points // 64] >> (points % 64).astype(np.uint64)
            delta = 2.0 * (words & np.uint64(1)).astype(np.float64) - 1.0
            terms[part] = delta * self._signs[neurons] * (P - self.network.shift)
        return self.device.sums_by_point(*self.device.by_point(flips.points, len(self.X)), terms)

    def replay(self, flips: Flips) -> None:
        """Apply flips (f,) of an earlier run; :meth:`stand_at` brings its sums and coefficients."""
        self._turn_over(flips, flips.above)

    # ---- coming back ------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """Return what :meth:`restore` needs, after a query."""
        sums = self._total, self.totals, self.log.coefficients, self.home, self.square
        return Mark(*sums, self.near, self.error, self.known, self.union, len(self.log.segments))

    def restore(self, mark: Mark, W: Array = None, changed: Array = None) -> None:
        """Come back to where :meth:`mark` was called, to the same bytes; no row is stored that could go back."""
        self._pending = None
        while len(self.log.segments) > mark.segments:
            flips, heads = self.log.drop_last(), self.log.heads.copy()  # which would note the way back, too
            self.device.flip_mask(self.bits, self.pair_counts, heads, flips, flips.above, self._total, len(self.log))
            self._G = None
        self.stand_at(mark)

    def stand_at(self, mark: Mark) -> None:
        """Take the sums, near pairs and certificate of a place whose flips are in the log, and no later ones."""
        self._total, self.totals, self.log.coefficients = mark.total, mark.totals, mark.coefficients
        self.home, self.square, self.near = mark.home, mark.square, mark.near
        self.error, self.known, self.union = mark.error, mark.known, mark.union

    def materialise(self) -> None:
        """Write the rows of the network, if it has moved since they were written: u n d / 4 additions."""
        if self._written is not self._total:
            moved = bool(self._total.any()) or len(self.log)
            self.network.rows = self.device.implicit_rows(self.implicit) if moved else self.base
            self._written = self._total


@dataclass
class FlippedBeside:
    """Outputs at points that an index follows and nobody trains on."""

    index: FlipIndex
    points: Array

    def outputs(self) -> Array:
        """Return the outputs now, (k,) float64."""
        return self.index.totals[self.points] * self.index.network.scale
