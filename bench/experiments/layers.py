"""Question 14: both layers and other activations, in dense float64; smooth ones too, which the engine has not."""

from __future__ import annotations

import numpy as np
from scipy.special import erf, expit

from bench.experiments.common import GOAL
from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.problems import make
from bench.harness.words import number, power_of_two

SMOOTH = np.sqrt(2.0)
ACTIVATIONS = {  # value and derivative at z = <w, x> - b
    "shifted ReLU": (lambda z: z.clip(0), lambda z: (z > 0).astype(float)),
    "softplus": (lambda z: np.logaddexp(0, z), expit),
    "GELU": (
        lambda z: z * (1 + erf(z / SMOOTH)) / 2,
        lambda z: (1 + erf(z / SMOOTH)) / 2 + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
    ),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


def measure(data: list, m: int, b: float, limit: int | None, device: str, steps: int = 15) -> Content:
    """Take dense full Gauss-Newton steps on the first layer alone and on both, for every activation."""
    rows = []
    for name in data:
        problem = make(name, m, b, limit=limit)
        for activation in ACTIVATIONS:
            for both in (False, True):
                rows.append(
                    {"data": name, "activation": activation, "both": both} | _train(problem, activation, both, steps)
                )
    return {"rows": rows, "m": m, "shift": b}


def _train(problem, activation: str, both: bool, steps: int) -> dict:
    value, slope = ACTIVATIONS[activation]
    W, a = (part.astype(np.float64) for part in problem.weights())  # (m, d), (m,)
    X, y, b, m = problem.X, problem.y, problem.shift, problem.m
    errors = []
    for _ in range(steps + 1):
        Z = X @ W.T - b  # (n, m)
        residual = value(Z) @ a / np.sqrt(m) - y
        errors.append(float(np.mean(residual**2)))
        if not GOAL < errors[-1] < np.inf or len(errors) > steps:
            break
        A, Phi = slope(Z) * a, value(Z)
        G = ((X @ X.T) * (A @ A.T) + both * (Phi @ Phi.T)) / m
        g = np.linalg.lstsq(G, residual, rcond=1e-13)[0]
        W -= (A.T @ (g[:, None] * X)) / np.sqrt(m)
        a -= both * (Phi.T @ g) / np.sqrt(m)
    outputs = value(problem.X_test @ W.T - b) @ a / np.sqrt(m)
    share = float((abs(slope(X @ W.T - b)) > 1e-3).mean())
    return {"mse": errors, "r2": problem.r2(outputs), "reached": errors[-1] <= GOAL, "active": share}


def answer(content: Content) -> str:
    rows = content["rows"]
    told = []
    for activation in ACTIVATIONS:
        some = [row for row in rows if row["activation"] == activation]
        lost = sum(not row["reached"] for row in some)
        share = max(row["active"] for row in some)
        told.append(
            f"{activation}: {len(some) - lost} of {len(some)} runs reach the goal, up to {share:.0%} of the Jacobian "
            f"is not negligible"
        )
    gains = [
        both["r2"] - first["r2"]
        for first, both in zip([r for r in rows if not r["both"]], [r for r in rows if r["both"]], strict=True)
    ]
    return (
        "A dense prototype, for smooth activations too; the experiments activations and second_layer are the engine's. "
        f"Training both layers changes held-out R² by {min(gains):+.3f} to {max(gains):+.3f}. {'; '.join(told)}. "
        "Only an activation that is exactly flat below the shift has the sparsity that the method lives on."
    )


def tables(content: Content) -> list[Table]:
    head = ["data", "activation", "layers trained", "steps", "training mse", "held-out R²", "active share"]
    body = [
        [row["data"], row["activation"], "both" if row["both"] else "first", str(len(row["mse"]) - 1),
         number(row["mse"][-1]), number(row["r2"]), f"{row['active']:.1%}"]
        for row in content["rows"]
    ]  # fmt: skip
    return [
        Table(
            f"dense float64, m = {power_of_two(content['m'])}, b = {content['shift']:g}, goal mse {GOAL:g}", head, body
        )
    ]


def panels(content: Content) -> list[Panel]:
    return [
        Panel(
            name, "step", "training mse",
            {f"{row['activation']}, {'both layers' if row['both'] else 'first layer'}":
             [(k, max(e, 1e-16)) for k, e in enumerate(row["mse"]) if e is not None]
             for row in content["rows"] if row["data"] == name}, "y", GOAL,
        )
        for name in sorted({row["data"] for row in content["rows"]})
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "layers", 14, "What if both layers are trained, or the activation is another?",
    {
        "tiny": {"data": ["sphere:n=40,d=8"], "m": 128, "b": 0.5, "limit": None, "steps": 4},
        "quick": {"data": ["sphere:n=320,d=16", "digits"], "m": 2**11, "b": 1.0, "limit": 200},
        "full": {"data": ["sphere:n=320,d=16", "digits", "breast_cancer"], "m": 2**14, "b": 1.0, "limit": 512},
    },
    measure, answer, tables, panels,
)  # fmt: skip
