"""The threshold tree finds exactly the neurons above the threshold, after any updates."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DeviceMemoryError, OptionError
from gpu_sublinear.index.tree import ThresholdTree
from gpu_sublinear.options import TreeOptions
from tests.helpers.devices import DEVICES, FAST, make_device
from tests.helpers.problems import Problem, make_problem, same_active_set

QUERIES = {"emulated": 400}  # which is a thousand times slower; 10 000 elsewhere
QUERIES_PER_TREE = 20


def assert_query(tree: ThresholdTree, problem: Problem, threshold: float) -> None:
    assert same_active_set(tree.device, tree.query(threshold), problem.P, threshold)


def some_threshold(rng: np.random.Generator, P: np.ndarray) -> float:
    """Return a threshold: most often exactly a leaf value, where > and >= differ, or one ulp beside it."""
    leaf = P[rng.integers(len(P)), rng.integers(P.shape[1])]
    beside = np.nextafter(leaf, P.dtype.type(rng.choice([-np.inf, np.inf])))
    if leaf == 0:
        beside = leaf  # its neighbours are subnormal, which CuPy's -ftz=true reads as zero
    return float(rng.choice([leaf, beside, rng.normal(), -1e30, 1e30], p=[0.4, 0.2, 0.3, 0.05, 0.05]))


def moved(rng: np.random.Generator, problem: Problem, chosen: np.ndarray) -> Problem:
    W = problem.W.copy()
    W[chosen] += (rng.integers(-4, 5, (len(chosen), W.shape[1])) / 4).astype(W.dtype)
    return Problem(problem.X, W, problem.signs, problem.shift)


def fuzz_one_tree(device, seed: int) -> int:
    """Build one random tree and alternate queries and updates; return the number of queries compared."""
    rng = np.random.default_rng(seed)
    n, m, d = rng.integers(1, 6), rng.integers(1, 150), rng.integers(1, 5)
    problem = make_problem(rng, n, m, d, str(rng.choice(["float32", "float64"])), bool(rng.integers(2)), 0.0)
    options = TreeOptions(arity=int(rng.choice([2, 3, 4, 8, 16])), rebuild_fraction=float(rng.choice([0.0, 0.3, 1.0])))
    tree = ThresholdTree.build(device, device.asarray(problem.X), device.asarray(problem.W), options)
    for _ in range(QUERIES_PER_TREE):
        assert_query(tree, problem, some_threshold(rng, problem.P))
        chosen = np.flatnonzero(rng.random(m) < rng.choice([0.02, 0.5])).astype(np.int32)
        problem = moved(rng, problem, chosen)
        tree.update(device.asarray(problem.W), device.asarray(chosen))
    return QUERIES_PER_TREE


@pytest.mark.parametrize("name", DEVICES)
def test_ten_thousand_queries_between_updates(name):
    device, wanted = make_device(name), QUERIES.get(name, 10_000)
    compared = sum(fuzz_one_tree(device, seed) for seed in range(wanted // QUERIES_PER_TREE))
    assert compared >= wanted


@pytest.mark.parametrize("name", FAST)
def test_a_tree_larger_than_one_batch_or_grid(name):
    device = make_device(name)
    problem = make_problem(np.random.default_rng(0), 40, 5003, 3, "float32", False, 0.0)
    tree = ThresholdTree.build(device, device.asarray(problem.X), device.asarray(problem.W), TreeOptions(arity=2))
    for threshold in (-10.0, 0.5, 1.5):
        assert_query(tree, problem, threshold)
    assert np.array_equal(device.to_host(tree.tops), problem.P.max(axis=1))


def test_visits_only_what_lies_under_large_maxima():
    device = get_device("reference")
    X, W = np.eye(1, dtype="float32"), np.zeros((64, 1), "float32")
    W[37] = 1.0
    tree = ThresholdTree.build(device, X, W, TreeOptions(arity=2))
    active = tree.query(0.5)
    assert device.to_host(active.indices).tolist() == [37]
    assert active.visited == 2 * 6  # two children on each of the six levels below the root


def test_update_touches_no_other_neuron(device):
    problem = make_problem(np.random.default_rng(4), 3, 50, 4, "float64", False, 0.0)
    tree = ThresholdTree.build(device, device.asarray(problem.X), device.asarray(problem.W))
    before = device.to_host(tree.leaves).copy()
    changed = moved(np.random.default_rng(5), problem, np.arange(50))
    tree.update(device.asarray(changed.W), device.asarray([3, 17], np.int32))
    after = device.to_host(tree.leaves)
    assert np.array_equal(np.delete(after, [3, 17], axis=1), np.delete(before, [3, 17], axis=1))
    assert np.array_equal(after[:, [3, 17]], changed.P[:, [3, 17]])


def test_bad_options():
    with pytest.raises(OptionError, match="arity must be at least 2; got 1"):
        TreeOptions(arity=1)
    with pytest.raises(OptionError, match="rebuild_fraction"):
        TreeOptions(rebuild_fraction=1.5)


def test_too_large_a_tree_says_so_before_allocating(monkeypatch):
    device = get_device("reference")
    monkeypatch.setattr(device, "total_bytes", lambda: 1000)
    with pytest.raises(DeviceMemoryError, match="threshold trees of 2 points over 400 neurons take .* lower the width"):
        ThresholdTree.build(device, np.ones((2, 1), "float32"), np.ones((400, 1), "float32"))
