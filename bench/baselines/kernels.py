"""Kernel methods: closed-form ridge regression with the network's own infinite-width kernel, and scikit-learn's."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from bench.baselines.common import Fit
from bench.harness.problems import Problem
from gpu_sublinear.foresight.ntk import NtkRidge

FOLDS = 4
GAMMAS, ALPHAS = (0.3, 1.0, 3.0, 10.0), (1e-8, 1e-4, 1e-2, 1e-1)  # of KernelRidge's search


def ntk_ridge(problem: Problem, tolerance: float, budget: float, alpha: float = 0.0) -> Fit:
    """Solve with the shifted NTK at any width; without ridge it interpolates."""
    begin = perf_counter()
    model = NtkRidge(problem.shift, alpha).fit(problem.X, problem.y)
    seconds = perf_counter() - begin
    error = np.mean((model.predict(problem.X) - problem.y) ** 2)
    return Fit([(0.0, float(np.mean(problem.y**2))), (seconds, float(error))], model.predict, "closed form")


def kernel_ridge(problem: Problem, tolerance: float, budget: float) -> Fit:
    """Fit scikit-learn's KernelRidge with a Gaussian kernel, its two parameters by cross-validation."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(KernelRidge(kernel="rbf"), {"gamma": GAMMAS, "alpha": ALPHAS}, cv=FOLDS)
    search.fit(problem.X, problem.y)
    begin = perf_counter()
    model = KernelRidge(kernel="rbf", **search.best_params_).fit(problem.X, problem.y)
    seconds = perf_counter() - begin
    error = np.mean((model.predict(problem.X) - problem.y) ** 2)
    note = f"gamma {model.gamma:g}, alpha {model.alpha:g} by cross-validation (not counted)"
    return Fit([(0.0, float(np.mean(problem.y**2))), (seconds, float(error))], model.predict, note)
