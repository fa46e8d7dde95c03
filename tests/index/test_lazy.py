"""The certificate of the lazy index: no pair is ever missed, whatever moves, at any rounding."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from gpu_sublinear.devices import get_device
from gpu_sublinear.errors import DeviceMemoryError, OptionError
from gpu_sublinear.index.lazy import LazyIndex
from gpu_sublinear.linear.gram import GramMatrix
from gpu_sublinear.model.network import ShiftedReluNetwork
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.memory import plan
from tests.helpers.devices import DEVICES, make_device
from tests.helpers.problems import DTYPES, Problem, same_active_set, sphere

SHIFT = 1.0


def pinned(device, m, d, dtype, seed, spread) -> tuple[ShiftedReluNetwork, np.ndarray]:
    """Return a network and points whose numbers crowd the threshold: within ``spread`` ulp of it, on both sides."""
    rng = np.random.default_rng(seed)
    X, _ = sphere(12, d, seed)
    X = X.astype(dtype)
    network = ShiftedReluNetwork.initialize(m, d, shift=SHIFT, dtype=dtype, seed=seed, device=device)
    W = device.to_host(network.W).copy()
    eps = np.finfo(dtype).eps
    for r in range(0, m, 2):  # move every second row along one point until that pair is next to the threshold
        x = X[r % len(X)].astype(np.float64)
        target = SHIFT * (1 + eps * rng.integers(-spread, spread + 1))
        W[r] = (W[r] + (target - W[r] @ x) * x).astype(dtype)
    return ShiftedReluNetwork.from_weights(device.asarray(W), shift=SHIFT, seed=seed, device=device), X


def numbers(device, network, X) -> np.ndarray:
    W = device.to_host(network.W)
    return Problem(X, W, W[:, 0], SHIFT).P


def walk(device, network, index, X, rng, steps, sizes) -> int:
    """Move the rows that fire by random steps of very different sizes; compare every query with a full scan."""
    refreshed = 0
    for _ in range(steps):
        active = index.query(SHIFT)
        assert same_active_set(device, active, numbers(device, network, X), SHIFT)
        fired = device.to_host(active.fired.neurons)
        W = device.to_host(network.W).copy()
        before = W[fired].astype(np.float64)
        W[fired] += (rng.standard_normal(before.shape) * rng.choice(sizes, (len(fired), 1))).astype(W.dtype)
        moved = np.linalg.norm(W[fired] - before, axis=1)
        network.W[...] = device.asarray(W)
        index.update(network.W, active.fired.neurons, device.asarray(moved))
        refreshed += index.refreshed
    return refreshed


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("margin", ["auto", 0.02, 1e-9])
def test_no_pair_is_missed_next_to_the_threshold(name, dtype, margin):
    device = make_device(name)
    rng = np.random.default_rng(1)
    eps = float(np.finfo(dtype).eps)
    refreshed = 0
    for seed in range(3):
        network, X = pinned(device, 200, 5, dtype, seed, spread=4)
        index = LazyIndex.build(device, device.asarray(X), network, margin)
        refreshed += walk(device, network, index, X, rng, 12, [0.0, eps, 8 * eps, 1e-3, 0.05, 1.0])
    assert refreshed > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_along_the_worst_direction_are_caught(dtype):
    """Rows creep straight towards a point they do not fire on, by just under and just over their margin."""
    device, margin = get_device("cpu"), 0.1
    X, _ = sphere(12, 5)
    X = X.astype(dtype)
    network = ShiftedReluNetwork.initialize(400, 5, shift=SHIFT, dtype=dtype, device=device)
    network.hold_all()
    index = LazyIndex.build(device, X, network, margin)
    for step in range(30):
        active = index.query(SHIFT)
        P = numbers(device, network, X)
        assert same_active_set(device, active, P, SHIFT)
        fired = device.to_host(active.fired.neurons)
        nearest = np.argmax(np.where(P.T[fired] > SHIFT, -np.inf, P.T[fired]), axis=1)
        length = margin * (0.999 if step % 2 else 0.5)
        before = network.W[fired].astype(np.float64)
        network.W[fired] += (length * X[nearest]).astype(dtype)
        moved = np.linalg.norm(network.W[fired] - before, axis=1)
        index.update(network.W, active.fired.neurons, moved)


@pytest.mark.parametrize("rule", ["no rounding guard", "drift halved"])
def test_the_adversary_bites(rule, monkeypatch):
    """Weaken the certificate and the same walk finds missed pairs: the tests above can fail."""
    device = get_device("cpu")
    if rule == "drift halved":
        update = LazyIndex.update
        monkeypatch.setattr(LazyIndex, "update", lambda self, W, neurons, far: update(self, W, neurons, 0.5 * far))
        margin, sizes, spread, d = 0.05, [0.08], 4, 5
    else:
        nothing = property(lambda self: 0.0, lambda self, value: None)  # rounding is measured by the largest row
        monkeypatch.setattr(LazyIndex, "row_max", nothing, raising=False)
        monkeypatch.setattr("gpu_sublinear.index.lazy.SMALLEST_MARGIN", 0.0)
        margin, sizes, spread, d = 1.5e-7, [2e-8], 6, 60
    missed = 0
    for seed in range(40):
        network, X = pinned(device, 400, d, "float32", seed, spread)
        index = LazyIndex.build(device, device.asarray(X), network, margin)
        try:
            walk(device, network, index, X, np.random.default_rng(seed), 12, sizes)
        except AssertionError:
            missed += 1
    assert missed > 0


@pytest.mark.parametrize("block", range(4))
def test_lazy_and_eager_runs_fire_the_same_pairs(block):
    """120 random problems: the active sets of all steps are identical."""
    device = get_device("cpu")
    for seed in range(30 * block, 30 * (block + 1)):
        rng = np.random.default_rng(seed)
        n, d, m = int(rng.integers(2, 40)), int(rng.integers(2, 12)), 2 * int(rng.integers(50, 800))
        options = {"solver": str(rng.choice(["gram", "sketch-cg"])), "max_steps": 5, "tolerance": 1e-12}
        options |= {"jacobian": "csr"}
        settings = {"shift": float(rng.uniform(0, 1.5)), "seed": seed, "dtype": str(rng.choice(DTYPES))}
        X, y = sphere(n, d, seed)
        sets = []
        for margin in (0, "auto", float(rng.choice([1e-3, 0.3]))):
            network = ShiftedReluNetwork.initialize(m, d, device=device, **settings)
            seen = []
            GaussNewton(margin=margin, **options).fit(
                network, X, y, [lambda r, net, seen=seen: seen.append(net.W.tobytes())]
            )
            sets.append(seen)
        assert sets[0] == sets[1] == sets[2]  # equal weights at every step: equal active sets led there


def test_counts_follow_the_flips(device):
    """The Gram matrix kept through flips equals the one counted anew, through small and large changes."""
    network, X = pinned(device, 300, 5, "float64", 0, spread=4)
    index = LazyIndex.build(device, device.asarray(X), network, "auto")
    gram, rng = GramMatrix(device, device.asarray(X), network.width), np.random.default_rng(0)
    recounted = []
    for size in (0.0, 1e-9, 1e-2, 1.0, 1e-9, 1e-9):
        active = index.query(SHIFT)
        mask = (numbers(device, network, X) > SHIFT).astype(np.float64)
        K = X @ X.T
        assert np.allclose(device.to_host(gram(active)), K * (mask @ mask.T) / network.width, rtol=1e-12, atol=1e-15)
        recounted.append(gram.recounted)
        fired = device.to_host(active.fired.neurons)
        W = device.to_host(network.W).copy()
        W[fired] += size * rng.standard_normal((len(fired), 5))
        moved = np.linalg.norm(W[fired] - device.to_host(network.W)[fired], axis=1)
        network.W[...] = device.asarray(W)
        index.update(network.W, active.fired.neurons, device.asarray(moved))
    assert recounted[0] and not all(recounted)


def test_neurons_without_candidates_are_forgotten(device):
    X, y = sphere(6, 8)
    network = ShiftedReluNetwork.initialize(2000, 8, shift=2.5, device=device)
    index = LazyIndex.build(device, device.asarray(X, "float32"), network)
    assert len(index.candidates.neurons) < 300
    assert len(index.drift) == len(index.margin) == len(index.candidates.neurons)
    assert y.shape == (6,)


def test_the_index_serves_one_threshold(device):
    X, _ = sphere(6, 8)
    network = ShiftedReluNetwork.initialize(200, 8, shift=1.0, device=device)
    with pytest.raises(OptionError, match="built for the shift 1.0; got 0.5"):
        LazyIndex.build(device, device.asarray(X, "float32"), network).query(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": 10**6}, "memory limit of 1,000,000; the largest part"),
        ({"memory_limit": 430_000_000, "margin": 0}, "largest part are the threshold trees"),
        ({"memory_limit": 440_000_000, "margin": 0.9}, "largest part are the candidate"),
    ],
)
def test_a_limit_that_cannot_hold_says_what_is_largest(options, message):
    X, y = sphere(100, 8)
    network = ShiftedReluNetwork.initialize(2**17, 8, shift=2.0, device=get_device("cpu"))
    with pytest.raises(DeviceMemoryError, match=message):
        GaussNewton(**options).fit(network, X, y)


def test_growing_lists_stop_at_the_limit(monkeypatch):
    X, y = sphere(100, 8)
    network = ShiftedReluNetwork.initialize(2**14, 8, shift=2.0, device=get_device("cpu"))
    trainer = GaussNewton(margin=0.05)
    limit = sum(plan(trainer, network.device, 100, 8, 2**14, 2.0, "float32").values())
    monkeypatch.setattr("gpu_sublinear.index.lazy.candidate_bytes", lambda device, pairs, neurons, dtype: 400 * pairs)
    with pytest.raises(DeviceMemoryError, match="raise --memory-limit or the shift"):
        GaussNewton(margin=0.05, memory_limit=limit).fit(network, X, y)


PEAK = """
import json, sys
from gpu_sublinear.devices import get_device
from gpu_sublinear.training.gauss_newton import GaussNewton
from gpu_sublinear.training.memory import plan
from gpu_sublinear.model.network import ShiftedReluNetwork
from tests.helpers.problems import sphere
n, m, shift, options = json.loads(sys.argv[1])
X, y = sphere(n, 16)
trainer = GaussNewton(**options)
limit = int(1.1 * sum(plan(trainer, get_device("cpu"), n, 16, m, shift, "float32").values()))
network = ShiftedReluNetwork.initialize(m, 16, shift=shift, seed=1, device=get_device("cpu"))
result = GaussNewton(memory_limit=limit, **options).fit(network, X, y)
print(limit, result.history[-1].peak_bytes, result.converged)
"""


@pytest.mark.parametrize(
    "problem",
    [
        (256, 2**20, 3.0, {}),
        (512, 2**18, 2.0, {"solver": "sketch-cg"}),
        (200, 2**16, 2.0, {"margin": 0}),
        (256, 2**18, 2.5, {"alpha": 1.0}),
        (256, 2**18, 0.0, {"alpha": 1.0}),
        (256, 2**17, 2.0, {"alpha": 1.0, "batch_size": 64, "max_steps": 60, "tolerance": 1e-3}),
        (256, 2**17, 2.0, {"alpha": 1.0, "both_layers": True, "max_steps": 60}),
    ],
)
def test_the_peak_stays_under_the_limit(problem):
    """In a process of its own, with a limit a tenth above the plan: resident memory never passes it."""
    done = subprocess.run([sys.executable, "-c", PEAK, json.dumps(problem)], capture_output=True, text=True, check=True)
    limit, peak, converged = done.stdout.split()
    assert int(peak) <= int(limit) and converged == "True"
