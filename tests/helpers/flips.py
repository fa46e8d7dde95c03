"""Implicit rows and flips: awkward ones, and every operation against its definition."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from gpu_sublinear.devices import Flips, ImplicitRows, NearPairs, get_device
from gpu_sublinear.devices.reference import mask_of_rows, rows_of_mask, unpacked, wide_rows
from tests.helpers.problems import Problem

REFERENCE = get_device("reference")
EPS = np.finfo(np.float64).eps


def made_implicit(rng: np.random.Generator, problem: Problem, entries: int, wrong: float = 0.1) -> ImplicitRows:
    """Return rows that moved, with a share of bits that were wrong before, and a log of some length."""
    n, u = len(problem.X), len(problem.W)
    P = problem.W.astype(np.float64) @ problem.X.T.astype(np.float64)
    bits = (problem.shift < P) ^ (rng.random((u, n)) < wrong)
    heads, before = np.full(u, -1, np.int32), np.full(entries, -1, np.int32)
    for entry, r in enumerate(rng.integers(0, u, entries)):
        before[entry], heads[r] = heads[r], entry
    points = rng.integers(0, n, entries).astype(np.int32)
    weights = rng.choice([-1.0, 1.0], u) / np.sqrt(u)
    total, coefficients = rng.standard_normal(n) / n, rng.standard_normal(entries) / n
    words = rows_of_mask(bits)
    return ImplicitRows(problem.W, problem.X, words, weights, total, heads, before, points, coefficients)


def all_pairs(u: int, n: int, values: np.ndarray) -> NearPairs:
    """Return every pair as a near pair, one unused entry after each neuron's."""
    starts = np.arange(u, dtype=np.int64) * (n + 1)
    points, padded = np.zeros((u, n + 1), np.int32), np.zeros((u, n + 1), values.dtype)
    points[:, :n], padded[:, :n] = np.arange(n), values
    return NearPairs(starts, starts + n, points.ravel(), padded.ravel())


def listed(near: NearPairs, shape: tuple[int, int]) -> np.ndarray:
    """Return the values of near pairs (u, n), NaN elsewhere; points of a neuron ascend."""
    found = np.full(shape, np.nan)
    for r, (start, stop) in enumerate(zip(near.starts, near.stops, strict=True)):
        assert np.all(np.diff(near.points[start:stop]) > 0)
        found[r, near.points[start:stop]] = near.values[start:stop]
    return found


def check_flips(flips: Flips, implicit: ImplicitRows, shift: float, looked: np.ndarray) -> np.ndarray:
    """Compare with the definition; pairs within rounding of the shift may be on either side.  Returns P (u, n)."""
    P = wide_rows(implicit) @ implicit.X.T.astype(np.float64)
    (n, d), size = implicit.X.shape, np.abs(implicit.total).sum() + np.abs(implicit.coefficients).sum()
    lengths = np.linalg.norm(implicit.X, axis=1).max(), np.abs(implicit.W).max() * np.sqrt(d)
    unsure = 4 * (n + d + len(implicit.before)) * EPS * lengths[0] * (lengths[1] + size * lengths[0])
    want = looked & ((shift < P) != mask_of_rows(implicit.bits, n))
    got = np.zeros(P.shape, bool)
    got[flips.neurons, flips.points] = True
    assert got.sum() == len(flips)
    assert np.all((got == want) | (looked & (np.abs(P - shift) <= unsure)))
    assert np.all(np.diff(flips.neurons.astype(np.int64) * n + flips.points) > 0)
    assert np.all(np.abs(flips.above - np.abs(P[got] - shift)) <= unsure)
    return P


def moved(move: Any, value: Any) -> Any:
    """Return arrays, alone or in dataclasses and tuples, moved by a device's ``asarray`` or ``to_host``."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(moved(move, getattr(value, one.name)) for one in fields(value)))
    if isinstance(value, tuple):
        return tuple(moved(move, part) for part in value)
    return value if isinstance(value, int | float) else move(value)


def call(device, operation: str, *arguments: Any) -> Any:
    """Run an operation of a device on arrays of the host; what comes back lies there, too."""
    return moved(device.to_host, getattr(device, operation)(*moved(device.asarray, arguments)))


def check_operations(device, problem: Problem, rng: np.random.Generator, entries: int) -> None:
    (n, _), u, shift = problem.X.shape, len(problem.W), problem.shift
    radius = float(rng.choice([0.0, 0.25, 10.0]))
    arguments = problem.X, problem.W, problem.signs, shift
    bits, totals, near = call(device, "near_mask", *arguments, radius)
    want_bits, want_totals = call(device, "pack_mask", *arguments)
    assert np.array_equal(bits, want_bits) and np.array_equal(totals, want_totals)
    assert np.array_equal(unpacked(near), unpacked(REFERENCE.near_mask(*arguments, radius)[2]))
    assert np.array_equal(call(device, "mask_by_rows", bits, u), rows_of_mask(problem.mask.T))

    implicit = made_implicit(rng, problem, entries)
    got, want = call(device, "implicit_rows", implicit), wide_rows(implicit)
    size = np.abs(want) + np.abs(implicit.total).sum() + np.abs(implicit.coefficients).sum()
    assert got.dtype == problem.W.dtype
    assert np.all(np.abs(got - want) <= (np.finfo(got.dtype).eps + (n + entries) * EPS) * size)

    reach = float(rng.choice([0.0, 0.3, 5.0]))
    values = rng.normal(shift, 1.0, (u, n)).astype(problem.W.dtype)
    looked = np.abs(values.astype(np.float64) - shift) <= reach
    flips, count = call(device, "near_flips", implicit, all_pairs(u, n, values), shift, reach)
    assert count == looked.sum()
    check_flips(flips, implicit, shift, looked)
    unlogged, logged = (made_implicit(rng, problem, size, 0.0) for size in (0, entries))
    check_looks(device, problem, unlogged, logged, radius)
    check_mask_flips(device, implicit, rng)


def check_mask_flips(device, implicit: ImplicitRows, rng: np.random.Generator) -> None:
    """Turning bits over: everything but the sums of terms equals the reference to the bit."""
    entries, mask = len(implicit.before), mask_of_rows(implicit.bits, len(implicit.X))
    neurons, points = np.nonzero(rng.random(mask.shape) < rng.choice([0.0, 0.05, 1.0]))
    flips = Flips(neurons.astype(np.int32), points.astype(np.int32), np.abs(rng.standard_normal(len(points))))
    terms, results = rng.standard_normal(len(points)), []
    for one in (REFERENCE, device):
        state = implicit.bits.copy(), mask.T.astype(np.float64) @ mask, implicit.heads.copy()
        state, arguments = moved(one.asarray, state), moved(one.asarray, (flips, terms, implicit.total))
        results.append(moved(one.to_host, (*state, *one.flip_mask(*state, *arguments, entries))))
    for k in (0, 1, 2, 4, 5, 6):  # all but the sums
        assert np.array_equal(results[0][k], results[1][k])
    assert np.all(np.abs(results[0][3] - results[1][3]) <= (len(terms) + 1) * EPS * np.abs(terms).sum())


def check_looks(device, problem: Problem, implicit: ImplicitRows, logged: ImplicitRows, radius: float) -> None:
    """Both looks at all rows, where everything is listed: they find every flip and every near pair.

    Where less is known than rows may have moved, all points are looked at, whatever is listed.
    """
    u, n = len(problem.W), len(problem.X)
    everything, nothing = (rows_of_mask(np.full((u, n), value)) for value in (True, False))
    eps = float(np.finfo(problem.W.dtype).eps)
    moving = max(np.abs(each.total).sum() + np.abs(each.coefficients).sum() for each in (implicit, logged))
    size = np.abs(problem.P).max() + moving * max(1.0, (problem.X**2).sum(axis=1).max())
    slack = 8 * (n + problem.X.shape[1] + 8 + len(logged.before)) * eps * float(size + abs(problem.shift))
    values = (problem.W.astype(np.float64) @ problem.X.T.astype(np.float64)).astype(problem.W.dtype)
    pairs = all_pairs(u, n, values)
    none = NearPairs(np.zeros(u, np.int64), np.zeros(u, np.int64), pairs.points[:0], values[0, :0])
    where = problem.shift, radius
    for mask, known, lost in ((everything, np.inf, slack), (nothing, -1.0, slack)):
        found = call(device, "first_flips", implicit, mask, *where, known)
        check_look(found, implicit, *where, slack, lost)
    for near, known, lost in ((pairs, np.inf, 2 * slack), (none, -1.0, slack)):
        for moved_rows in (implicit, logged):  # the rows moved by their sums, and by sums and log
            step = moved_rows.total, moved_rows.coefficients, slack
            found = call(device, "all_flips", moved_rows, near, *where, known, *step)
            check_look(found, moved_rows, *where, slack, lost)
    off = all_pairs(u, n, values + values.dtype.type(slack))  # values that earlier steps have left as far off
    for moved_rows in (implicit, logged):
        found = call(
            device,
            "all_flips",
            moved_rows,
            off,
            *where,
            np.inf,
            moved_rows.total,
            moved_rows.coefficients,
            3 * slack,
            True,
        )
        wide = (n + problem.X.shape[1] + 8 + len(logged.before)) * EPS * size  # what float64 sums may lose
        check_look(found, moved_rows, *where, slack, eps * size + wide)


def check_look(found: Any, implicit: ImplicitRows, shift: float, radius: float, slack: float, lost: float) -> None:
    (flips, near, looked), shape = found, (len(implicit.W), len(implicit.X))
    P = check_flips(flips, implicit, shift, np.ones(shape, bool))
    values = listed(near, shape)
    assert not np.isnan(values[np.abs(P - shift) <= radius - slack]).any()
    assert np.nanmax(np.abs(values - P), initial=0.0) <= lost and looked <= P.size
