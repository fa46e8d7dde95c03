"""Held-out accuracy of the estimators as they come, against tuned kernel methods, on several splits."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.harness.experiment import Content, Experiment, Panel, Table
from bench.harness.words import number, seconds
from gpu_sublinear import SublinearClassifier, SublinearRegressor
from gpu_sublinear.data.preprocessing import Preprocessing
from gpu_sublinear.foresight.ntk import shifted_ntk

NETWORK, BY_FOLDS, KERNEL_RIDGE = "network, default settings", "network, alpha by folds", "kernel ridge (RBF), tuned"
MOST_BY_FOLDS = 1000  # points: five folds of the digits take minutes
SHIFT = SublinearRegressor().shift
ALPHAS = np.logspace(-4, 1, 6)
GAMMAS = np.logspace(-2.5, 1, 6)  # divided by the number of features
CS = np.logspace(-1, 3, 5)
FOLDS = 4
TEST = 0.25


@dataclass(frozen=True)
class Effort:
    """How thoroughly opponents are tuned, and options of the network that are not its default."""

    folds: int
    every: int  # value of each grid
    options: dict

    def search(self, model, **grid):
        from sklearn.model_selection import GridSearchCV

        return GridSearchCV(model, {name: values[:: self.every] for name, values in grid.items()}, cv=self.folds)


def load(name: str, limit: int | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return features, targets and whether these are classes."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(y))[:limit]
    return X[chosen], y[chosen], name != "diabetes"


def coded(y: np.ndarray, classify: bool) -> np.ndarray:
    """Return the targets of squared loss: centred numbers, or a column for each class."""
    return np.eye(int(y.max()) + 1)[y] if classify else y[:, None]


def score(outputs: np.ndarray, y: np.ndarray, classify: bool) -> float:
    """Return accuracy or R²."""
    if classify:
        return float((outputs.argmax(axis=1) == y).mean())
    return 1 - float(((outputs.ravel() - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def squared(make_model: Callable) -> Callable:
    """Return a method of squared loss from a search over a model that predicts columns."""

    def fit(X, y, X_test, classify, device, effort):
        Y = coded(y, classify)
        model, inputs, test_inputs = make_model(X, X_test, effort)
        model.fit(inputs, Y - Y.mean(axis=0))
        return lambda: model.predict(test_inputs).reshape(len(X_test), -1) + Y.mean(axis=0)

    return fit


def kernel_ridge(X, X_test, effort):
    from sklearn.kernel_ridge import KernelRidge

    return effort.search(KernelRidge(kernel="rbf"), alpha=ALPHAS, gamma=GAMMAS / X.shape[1]), *_scaled(X, X_test)


def linear_ridge(X, X_test, effort):
    from sklearn.linear_model import Ridge

    return effort.search(Ridge(), alpha=np.logspace(-2, 4, 7)), *_scaled(X, X_test)


def ntk_ridge(X, X_test, effort):
    from sklearn.kernel_ridge import KernelRidge

    rows = Preprocessing.fit(X)
    Z, Z_test = rows.transform(X), rows.transform(X_test)
    search = effort.search(KernelRidge(kernel="precomputed"), alpha=np.logspace(-6, 1, 15))
    return search, shifted_ntk(Z, None, SHIFT), shifted_ntk(Z_test, Z, SHIFT)


def _scaled(X, X_test):
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(X_test)


def svm(X, y, X_test, classify, device, effort):
    from sklearn.svm import SVC, SVR

    scale = 1.0 if classify else float(y.std())
    model = effort.search(SVC() if classify else SVR(), C=CS, gamma=GAMMAS / X.shape[1])
    inputs, test_inputs = _scaled(X, X_test)
    middle = 0.0 if classify else float(y.mean())
    model.fit(inputs, y if classify else (y - middle) / scale)

    def outputs():
        found = model.predict(test_inputs)
        return np.eye(int(y.max()) + 1)[found] if classify else found * scale + middle

    return outputs


def network(X, y, X_test, classify, device, effort, **options):
    model = (SublinearClassifier if classify else SublinearRegressor)(device=device, **effort.options, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_steps is part of the default settings
        model.fit(X.astype(np.float32), y)

    def outputs():
        found = model.predict(X_test.astype(np.float32))
        return np.eye(int(y.max()) + 1)[found] if classify else found

    return outputs


METHODS = {
    NETWORK: network,
    BY_FOLDS: partial(network, alpha="cv"),
    KERNEL_RIDGE: squared(kernel_ridge),
    "SVM (RBF), tuned": svm,
    "NTK ridge, tuned": squared(ntk_ridge),
    "linear ridge, tuned": squared(linear_ridge),
}


def measure(
    data: list,
    splits: int,
    limit: int | None,
    device: str,
    options: dict | None = None,
    folds: int = FOLDS,
    every: int = 1,
) -> Content:
    """Train every method on every split; the search for its parameters is part of its time."""
    from sklearn.model_selection import train_test_split

    rows, effort = [], Effort(folds, every, options or {})
    for name in data:
        X, y, classify = load(name, limit)
        network(X[:40], y[:40], X[:2], classify, device, Effort(2, 1, {"width": 64, "shift": 0.0}))  # compiles
        for method, fit in METHODS.items():
            if method == BY_FOLDS and len(y) > MOST_BY_FOLDS:
                continue
            row = {"data": name, "n": 0, "classify": classify, "method": method, "scores": [], "seconds": []}
            for seed in range(splits):
                part = train_test_split(X, y, test_size=TEST, random_state=seed, stratify=y if classify else None)
                begin = time.perf_counter()
                outputs = fit(part[0], part[2], part[1], classify, device, effort)
                row["seconds"].append(time.perf_counter() - begin)
                row["scores"].append(score(outputs(), part[3], classify))
                row["n"] = len(part[0])
            rows.append(row)
    return {"rows": rows, "splits": splits, "width": effort.options.get("width", SublinearRegressor().width)}


def row_of(content: Content, name: str, method: str) -> dict:
    return next(row for row in content["rows"] if row["data"] == name and row["method"] == method)


def names_of(content: Content) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in content["rows"]))


def spent(row: dict) -> str:
    return seconds(float(np.median(row["seconds"])))


def verdict(ours: dict, theirs: dict) -> str:
    """Say whether paired differences stand out of their own noise."""
    gains = np.array(ours["scores"]) - np.array(theirs["scores"])
    noise = 2 * gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else np.inf
    if abs(gains.mean()) <= noise:
        return f"no different within noise ({gains.mean():+.3f})"
    return f"{'better' if gains.mean() > 0 else 'worse'} by {abs(gains.mean()):.3f}"


def answer(content: Content) -> str:
    parts = []
    for name in names_of(content):
        ours, theirs = row_of(content, name, NETWORK), row_of(content, name, KERNEL_RIDGE)
        best = max((row for row in content["rows"] if row["data"] == name), key=lambda row: np.mean(row["scores"]))
        what = "accuracy" if ours["classify"] else "R²"
        by_folds = "".join(
            f"alpha by folds is {verdict(row, ours)}, next to leave-one-out, and takes {spent(row)}; "
            for row in content["rows"]
            if row["data"] == name and row["method"] == BY_FOLDS
        )
        parts.append(
            f"{name}: held-out {what} {np.mean(ours['scores']):.3f} against {np.mean(theirs['scores']):.3f} of tuned "
            f"kernel ridge, {verdict(ours, theirs)}; {by_folds}the best mean is that of {best['method']}; training "
            f"took {spent(ours)} against {spent(theirs)} with the search"
        )
    return (
        f"The estimators with default settings, over {content['splits']} random splits; a difference counts beyond two "
        f"standard errors of the paired differences. {'; '.join(parts)}."
    )


def tables(content: Content) -> list[Table]:
    head = ["data", "method", "score, mean", "standard deviation", "lowest", "training seconds, median"]
    body = [
        [row["data"], row["method"], f"{np.mean(row['scores']):.4f}", f"{np.std(row['scores']):.4f}",
         f"{min(row['scores']):.4f}", number(float(np.median(row["seconds"])))]
        for row in content["rows"]
    ]  # fmt: skip
    sizes = ", ".join(f"{name} {row_of(content, name, NETWORK)['n']}" for name in names_of(content))
    caption = (
        f"R² (diabetes) or accuracy on a quarter of the points held out, {content['splits']} splits; training points: "
        f"{sizes}; seconds hold the search for parameters (leave-one-out for the network); NTK at b = {SHIFT:g}"
    )
    return [Table(caption, head, body)]


def panels(content: Content) -> list[Panel]:
    return [
        Panel(
            name, "training seconds", "held-out score",
            {row["method"]: [(float(np.median(row["seconds"])), float(np.mean(row["scores"])))]
             for row in content["rows"] if row["data"] == name}, "x",
        )
        for name in names_of(content)
    ]  # fmt: skip


EXPERIMENT = Experiment(
    "accuracy", 0, "How well do the estimators predict as they come, next to tuned kernel methods?",
    {
        "tiny": {"data": ["diabetes", "breast_cancer"], "splits": 2, "limit": 60, "folds": 2, "every": 6,
                 "options": {"width": 256, "shift": 0.5, "max_steps": 3}},
        "quick": {"data": ["diabetes", "breast_cancer", "digits"], "splits": 2, "limit": 250, "every": 2},
        "full": {"data": ["diabetes", "breast_cancer", "digits"], "splits": 5, "limit": None},
    },
    measure, answer, tables, panels,
)  # fmt: skip
