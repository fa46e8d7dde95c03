"""Small problems for tests: random data on every scale of awkwardness, and the plain formulas to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from gpu_sublinear.devices import NeuronLists, TreeLayout
from gpu_sublinear.index.active_set import ActiveSet

DTYPES = ("float32", "float64")
ARITIES = (2, 3, 8, 16)


@dataclass(frozen=True)
class Problem:
    """Points, weights, signs, a shift; ``exact`` problems have small dyadic numbers, so every sum is exact."""

    X: np.ndarray  # (n, d)
    W: np.ndarray  # (m, d)
    signs: np.ndarray  # (m,)
    shift: float

    @property
    def P(self) -> np.ndarray:
        """(n, m) computed numbers: products and sums rounded one by one, feature by feature."""
        total = self.X[:, :1] * self.W[None, :, 0]
        for j in range(1, self.X.shape[1]):
            total = total + self.X[:, j, None] * self.W[None, :, j]
        return total

    @property
    def mask(self) -> np.ndarray:
        """(n, m) who fires on what."""
        return self.P.dtype.type(self.shift) < self.P

    @property
    def jacobian(self) -> np.ndarray:
        """(n, m d) dense Jacobian in float64, from the formula."""
        blocks = self.mask[:, :, None] * self.signs[None, :, None] * self.X[:, None, :].astype(np.float64)
        return blocks.reshape(len(self.X), -1) / np.sqrt(len(self.W))


def make_problem(rng: np.random.Generator, n: int, m: int, d: int, dtype: str, exact: bool, shift: float) -> Problem:
    """Return a random problem; duplicates among points and neurons are common in exact ones."""
    if exact:
        X, W = rng.integers(-4, 5, (n, d)) / 4, rng.integers(-8, 9, (m, d)) / 4
        shift = round(shift * 4) / 4
    else:
        X, W = rng.standard_normal((n, d)), rng.standard_normal((m, d))
        X /= np.linalg.norm(X, axis=1, keepdims=True) + 1e-30
    signs = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
    return Problem(X.astype(dtype), W.astype(dtype), signs.astype(dtype), shift)


@st.composite
def problems(draw, max_points: int = 7, max_neurons: int = 70, max_features: int = 5) -> Problem:
    """Draw a problem: one point, one feature, nobody firing, everybody firing and duplicates are all likely."""
    sizes = draw(st.tuples(st.integers(1, max_points), st.integers(1, max_neurons), st.integers(1, max_features)))
    shift = draw(st.sampled_from([-100.0, 0.0, 0.25, 0.5, 1.0, 1.5, 100.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return make_problem(rng, *sizes, draw(st.sampled_from(DTYPES)), draw(st.booleans()), shift)


def sphere(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the unit sphere and smooth standardised targets (float64)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    u = rng.standard_normal((3, d))
    y = np.sin(2 * X @ u[0]) + (X @ u[1]) ** 2 - np.abs(X @ u[2])
    return X, (y - y.mean()) / y.std()


def clusters(spread: float, smooth: bool, n: int = 96, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Near-duplicates around 16 places, with smooth or random labels."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((16, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    X = X[np.arange(n) % 16] + spread * rng.standard_normal((n, d)) / np.sqrt(d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = np.sin(3 * X @ rng.standard_normal(d)) if smooth else rng.choice([-1.0, 1.0], n)
    return X, (y - y.mean()) / y.std()


def active_arrays(device, problem: Problem, arity: int = 2):
    """Return (layout, nodes, query result, transposed lists) of a problem on a device, buffers poisoned first."""
    layout = TreeLayout(len(problem.W), arity)
    nodes = device.asarray(np.full((len(problem.X), layout.total), np.nan, problem.X.dtype))
    device.fill_leaves(nodes, device.asarray(problem.X), device.asarray(problem.W))
    for level in range(1, len(layout.sizes)):
        device.reduce_level(nodes, layout, level)
    found = device.query_tree(nodes, layout, problem.shift)
    return layout, nodes, found, device.transpose(found[0], found[1], len(problem.W))


def lists_of(device, chosen: np.ndarray) -> NeuronLists:
    """Return a mask (m, n) as neuron lists of the neurons with at least one point, on a device."""
    neurons = np.flatnonzero(chosen.any(axis=1))
    indptr = np.concatenate([[0], np.cumsum(chosen[neurons].sum(axis=1))])
    points = np.nonzero(chosen[neurons])[1]
    return NeuronLists(
        device.asarray(neurons, np.int32), device.asarray(indptr, np.int64), device.asarray(points, np.int32)
    )


def same_active_set(device, active: ActiveSet, P: np.ndarray, shift: float) -> bool:
    """Tell whether an active set is exactly ``P > shift`` (n, m), in both orders, with the values of P."""
    points, neurons = np.nonzero(P.dtype.type(shift) < P)
    host = device.to_host
    by_point = np.repeat(np.arange(len(P)), np.diff(host(active.indptr)))
    fired = active.fired
    by_neuron = np.repeat(host(fired.neurons), np.diff(host(fired.indptr)))
    order = np.lexsort((points, neurons))
    return (
        np.array_equal(by_point, points)
        and np.array_equal(host(active.indices), neurons)
        and np.array_equal(host(active.values), P[points, neurons])
        and np.array_equal(by_neuron, neurons[order])
        and np.array_equal(host(fired.points), points[order])
    )


def dot_bound(A: np.ndarray, x: np.ndarray, terms: int, dtype: str) -> np.ndarray:
    """Return the rounding bound of a sum of ``terms`` products, ``(terms + 2) eps |A| |x|`` (Higham, section 3.1)."""
    return (terms + 2) * np.finfo(dtype).eps * (np.abs(A) @ np.abs(x)) + np.finfo(dtype).tiny
