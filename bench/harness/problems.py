"""The problems of the suite: prepared training and held-out points, and fresh networks for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sublinear import ShiftedReluNetwork, get_device
from gpu_sublinear.data.preprocessing import Preprocessing, TargetScaling
from gpu_sublinear.data.sources import load, split

HELD_OUT = 0.2
CLUSTERS = 16  # of the clustered set: points of one cluster lie within CLUSTER_RADIUS of its centre
CLUSTER_RADIUS = 0.02


@dataclass(frozen=True)
class Problem:
    """Unit rows and standardised targets, a width, a shift and a seed: all that an opponent is told."""

    data: str
    X: np.ndarray  # (n, d)
    y: np.ndarray  # (n,)
    X_test: np.ndarray  # (h, d)
    y_test: np.ndarray  # (h,)
    m: int
    shift: float
    seed: int = 1
    device: str = "cpu"

    def network(self, paired: bool = False, dtype: str = "float32") -> ShiftedReluNetwork:
        """Draw the network; the same problem gives the same weights."""
        options = {"shift": self.shift, "seed": self.seed, "paired": paired, "dtype": dtype}
        return ShiftedReluNetwork.initialize(self.m, self.X.shape[1], device=get_device(self.device), **options)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the initial weights (m, d) and signs (m,) on the host, for opponents that are not ours."""
        network = self.network()
        network.hold_all()
        return network.device.to_host(network.rows), network.device.to_host(network.signs)

    @property
    def n(self) -> int:
        return len(self.y)

    @property
    def d(self) -> int:
        return int(self.X.shape[1])

    def r2(self, outputs: np.ndarray) -> float:
        """Return R^2 on the held-out points."""
        return 1 - float(((outputs - self.y_test) ** 2).mean() / self.y_test.var())


def make(data: str, m: int, shift: float, seed: int = 1, device: str = "cpu", limit: int | None = None) -> Problem:
    """Prepare a data set: four fifths to train on, statistics from them alone, at most ``limit`` training points."""
    if data.startswith("clustered"):
        raw_X, raw_y, kind = *clustered(data), "unit"
    else:
        raw = load(data)
        raw_X, raw_y, kind = raw.X, raw.y, raw.preprocessing
    train, test = split(len(raw_y), HELD_OUT, 0)
    train = train[:limit]
    prepare, scale = Preprocessing.fit(raw_X[train], kind), TargetScaling.fit(raw_y[train])
    X, X_test = prepare.transform(raw_X[train]), prepare.transform(raw_X[test])
    return Problem(data, X, scale.transform(raw_y[train]), X_test, scale.transform(raw_y[test]), m, shift, seed, device)


def clustered(spec: str) -> tuple[np.ndarray, np.ndarray]:
    """Return points in tight clusters on the sphere, with smooth targets: their Gram matrix is badly conditioned."""
    options = dict(part.split("=") for part in spec.partition(":")[2].split(",") if part)
    n, d = int(options.get("n", 320)), int(options.get("d", 16))
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((CLUSTERS, d))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    X = centres[rng.integers(0, CLUSTERS, n)] + CLUSTER_RADIUS * rng.standard_normal((n, d)) / np.sqrt(d)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, np.sin(2 * X[:, 0]) + X[:, 1] ** 2
